"""The expansion against the dense Fisher and autograd; the rows against the loss itself where the
loss is the expansion.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.curvature.kron import kron_factors
from eigendamage.method import rotate
from eigendamage.studies import prediction
from tests import reference, toy


@pytest.mark.parametrize("name", ["0", "4"])
def test_the_expansion_is_the_dense_one(name):
    model = toy.seeded(
        nn.Sequential(
            nn.Conv2d(2, 3, 2, padding=1),
            nn.BatchNorm2d(3),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(108, 4),
            nn.Tanh(),
            nn.Linear(4, 3),
        )
    ).eval()
    x, y = toy.batch(7)
    module = model.get_submodule(name)
    change = 0.1 * torch.randn(module.weight.shape, generator=toy.generator(3), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), y), module.weight)
    fisher = reference.exact_fisher(model, module, x)
    first, second = prediction.expansion(model, name, change, [(x[:4], y[:4]), (x[4:], y[4:])])
    assert first == pytest.approx(float((gradient * change).sum()), rel=1e-10)
    assert second == pytest.approx(
        float(0.5 * change.flatten() @ fisher @ change.flatten()), rel=1e-10
    )


def test_full_rank_rotation_is_undone_and_the_lowest_directions_go():
    model = toy.seeded(nn.Sequential(nn.Conv2d(2, 5, 3), nn.Flatten(), nn.Linear(45, 3)))
    x, y = toy.batch(9)
    for channel_only in (True, False):
        factors = kron_factors(
            model, [(x, y)], {"0": model[0]}, fisher="exact", channel_only=channel_only
        )["0"]
        layer = rotate(model[0].weight, factors)
        torch.testing.assert_close(
            prediction.unrotate(layer, layer.W, model[0].weight),
            model[0].weight,
            rtol=1e-10,
            atol=1e-12,
        )
        new = prediction.without(layer, 0.5)
        gone = [(new.abs().sum(dims) == 0) for dims in ((1, 2), (0, 2))]
        sides = (layer.theta.sum(1), layer.theta.sum(0))
        lowest = torch.cat(sides).sort().values[len(torch.cat(sides)) // 2]
        assert sum(int(g.sum()) for g in gone) >= len(torch.cat(sides)) // 2
        assert all((g | (side >= lowest)).all() for g, side in zip(gone, sides, strict=True))


def test_rows_meet_the_loss_where_the_logits_are_linear_in_the_layer():
    """With one Kronecker-factored linear layer before a fixed last one the loss is its own
    expansion up to third order.
    """
    model = toy.seeded(nn.Sequential(nn.Flatten(), nn.Linear(50, 4), nn.Linear(4, 3)))
    with torch.no_grad():
        model[1].weight.mul_(0.01)
    before = model[1].weight.detach().clone()
    found = list(prediction.rows(model, [toy.batch(40)], (0.3, 0.6), ("patch",)))
    assert [(row["layer"], row["ratio"]) for row in found] == [("1", 0.3), ("1", 0.6)]
    for row in found:
        assert (
            row["measured"] == pytest.approx(row["gradient"] + row["fisher"], rel=1e-4)
            and row["score"] > 0
        )
    assert torch.equal(model[1].weight, before)
