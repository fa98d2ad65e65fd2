"""Dynamic network surgery: one step by hand, splicing, exact counts, and that the network given is
not touched.
"""

import copy

import pytest
import torch
from torch import nn

from common.cells.errors import UserError
from common.nets import masks as M
from common.running import train as T
from lobs.dns import Options, Surgery, prune
from tests import toy


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))


def test_unused_weights_get_the_gradient_of_the_used_network():
    """W ← W − lr · ∂L/∂(W∘T): what is masked moves too, and the network computes with W∘T again
    afterwards.
    """
    torch.manual_seed(0)
    model = net()
    surgery = Surgery(model, {"1": 0.5}, Options(interval=100))
    W = model[1].weight.detach().clone()
    used = torch.tensor([[True, False, True, False], [False, True, False, True]])
    surgery.used["1"] = used
    with torch.no_grad():
        model[1].weight.mul_(used)
    x, y = torch.randn(8, 4), torch.randint(2, (8,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    nn.functional.cross_entropy(model(x), y).backward()
    gradient = model[1].weight.grad.clone()
    assert gradient[~used].abs().min() > 0
    state = T.State(model, optimizer, None, None, 1, 10, event="gradient", step=0)
    surgery(state)
    assert torch.equal(model[1].weight, W)
    optimizer.step()
    state.event, state.step = "step", 1
    surgery(state)
    torch.testing.assert_close(surgery.whole["1"], W - 0.5 * gradient)
    torch.testing.assert_close(model[1].weight.detach(), (W - 0.5 * gradient) * used)


def test_weights_are_cut_below_spliced_above_and_left_in_the_band():
    model = net()
    surgery = Surgery(model, {"1": 0.5}, Options(band=0.2))
    surgery.whole["1"] = torch.tensor([[0.1, 0.2, 0.3, 1.0], [1.1, 2.0, 3.0, 4.0]])
    surgery.used["1"] = torch.tensor([[True, True, True, False], [True, True, False, False]])
    # the median is 1.0: below 0.8 cut, above 1.2 spliced, 1.0 and 1.1 as they were
    assert surgery.renewed("1", 1.0).tolist() == [
        [False, False, False, False],
        [True, True, True, True],
    ]


def test_a_run_removes_exactly_what_was_asked_and_leaves_the_network_alone():
    x, y = toy.batch(64, (1, 2, 2))
    loader, model = [(x.float(), y % 2)], net()
    before = copy.deepcopy(model.state_dict())
    used = []

    def watch(state):
        if state.event == "step":
            used.append(int((state.model[1].weight != 0).sum()))

    result = prune(
        model,
        loader,
        0.5,
        Options(steps=40, batch_size=16, interval=5),
        toy.generator(),
        watch=watch,
    )
    # the network as it is masked after each step
    assert len(used) == 40 and used[0] == 8 and min(used) < 8
    assert int(result.masks["1.weight"].sum()) == 4 and M.sparsity(result.masks) == 0.5
    assert not result.model[1].weight[~result.masks["1.weight"]].any()
    assert torch.equal(model.state_dict()["1.weight"], before["1.weight"])
    with pytest.raises(UserError, match="one run"):
        prune(model, loader, 0.5, Options(), toy.generator(), result.masks)
