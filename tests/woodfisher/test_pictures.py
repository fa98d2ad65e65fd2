"""Hessian and Fisher blocks, the local quadratic model, and the cost of the paper's sparsity
tables.
"""

import copy

import pytest
import torch
from torch import nn

from common.cells.spec import Recipe
from common.curvature.labels import mean_loss
from common.nets import layers as L
from common.running import train as T
from tests import reference, toy
from tests.woodfisher import twin
from woodfisher.method import Options, prune
from woodfisher.studies import cost_tables, hessian, local_quadratic


def equal(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


def softmax_net():
    return toy.seeded(
        nn.Sequential(
            nn.Flatten(), nn.Linear(6, 4, bias=False), nn.Tanh(), nn.Linear(4, 3, bias=False)
        )
    )


@pytest.mark.parametrize(("rows", "columns"), [("1", None), ("3", None), ("1", "3"), ("3", "1")])
def test_hessian_block_by_differentiating_twice(rows, columns):
    model, (x, y) = softmax_net(), toy.batch(5, (6,))
    left, right = (
        model.get_parameter(f"{rows}.weight"),
        model.get_parameter(f"{columns or rows}.weight"),
    )
    first = torch.autograd.grad(mean_loss(model(x), y), left, create_graph=True)[0].flatten()
    truth = torch.stack(
        [torch.autograd.grad(v, right, retain_graph=True)[0].flatten() for v in first]
    )
    block = hessian.hessian_block(model, x, y, rows, columns)
    assert not block.requires_grad
    equal(block, truth.detach())


def test_hessian_of_the_last_layer_is_its_exact_fisher():
    """Softmax regression in the last layer: the Hessian is Σ (diag p − ppᵀ) ⊗ aaᵀ / B, which is the
    Fisher over the model.
    """
    model, (x, y) = softmax_net(), toy.batch(5, (6,))
    equal(hessian.hessian_block(model, x, y, "3"), reference.exact_fisher(model, model[3], x))


def test_fisher_blocks_by_loops():
    model, (x, y) = softmax_net(), toy.batch(5, (6,))
    one, two = (reference.per_example_gradients(model, model[i], x, y) for i in (1, 3))
    equal(hessian.fisher_block(model, x, y, "3"), reference.empirical_fisher(model, model[3], x, y))
    equal(
        hessian.fisher_block(model, x, y, "1", "3"),
        sum(torch.outer(a, b) for a, b in zip(one, two)) / 5,
    )


def test_pictures_are_means_and_cosines():
    block = torch.arange(20.0).reshape(4, 5)
    equal(hessian.tile_mean(block, 2), torch.tensor([[3.0, 5.0], [13.0, 15.0]]))
    equal(hessian.smoothed(torch.full((6, 7), -2.0)), torch.full((6, 7), 2.0), 1e-6)
    point = torch.zeros(9, 9)
    point[4, 4] = 1.0
    weights = torch.exp(-(torch.arange(-3.0, 4.0) ** 2) / 2)
    equal(
        hessian.smoothed(point)[1:8, 1:8], torch.outer(weights, weights) / weights.sum() ** 2, 1e-6
    )
    assert hessian.cosine(block, 3 * block) == pytest.approx(1.0) and hessian.cosine(
        block, -block
    ) == pytest.approx(-1.0)


def test_the_line_goes_from_the_dense_loss_to_the_pruned_one():
    model, loader = twin.net(), twin.data()
    before = copy.deepcopy(model.state_dict())
    points = local_quadratic.line(model, "3", loader, loader, 0.5, (0.0, 0.5, 1.0))
    skip = tuple(name for name in L.prunable(model) if name != "3")
    pruned = prune(model, loader, 0.5, Options(fisher_batch_size=1, skip=skip), toy.generator())
    dense = T.evaluate(model, loader)[0]
    assert points[0] == {"t": 0.0, "measured": dense, "predicted": dense}
    assert points[2]["measured"] == pytest.approx(T.evaluate(pruned.model, loader)[0], rel=1e-12)
    assert points[1]["predicted"] - dense == pytest.approx(pruned.predicted_increase / 4)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("model", "setting", "millions"),
    [
        ("ResNet-50", "to 90%", 594),
        ("MobileNetV1", "beta=0.00", 159),
        ("MobileNetV1", "beta=0.30", 101),
        ("MobileNetV1", "beta=0.35", 92),
    ],
)
def test_the_papers_layer_sparsities_cost_what_the_paper_says(model, setting, millions):
    """Table 6's FLOPs from Tables S6 and S8, within 1%."""
    [removed] = [
        column
        for what, column in cost_tables.profiles()
        if (what["model"], what["method"]) == (model, "WoodFisher")
        and setting in what["setting"]
        and what["table"] != "S7"
    ]
    assert cost_tables.cost(model, removed).nonzero_macs / 1e6 == pytest.approx(millions, rel=0.01)


def test_first_layer_blocks_are_those_of_the_whole_hessian():
    model, (x, y) = softmax_net(), toy.batch(5, (6,))
    whole = hessian.hessian_block(model, x, y, "1")
    for i, block in enumerate(hessian.first_layer_blocks(model, x, y, "1", 2)):
        equal(block, whole[12 * i : 12 * i + 12, 12 * i : 12 * i + 12])
    assert i == 1


def test_every_block_of_the_small_network_is_pictured(monkeypatch):
    monkeypatch.setattr(hessian, "PIXELS", 20)
    numbers, pictures = hessian.figure_s2(
        Recipe(epochs=1, lr=0.05, max_steps=3),
        "synthetic:size=4,channels=3,samples=64,classes=10",
        8,
    )
    assert [line["block"] for line in numbers] == ["1-1", "2-2", "3-3", "1-3", "2-3"] and len(
        pictures
    ) == 10
    assert all(-1 <= line["cosine"] <= 1 and line["scale"] > 0 for line in numbers)
    assert all(image.min() >= 0 and image.max() > 0 for image in pictures.values())
