"""Units weighed by the loss: the weights against one example at a time, the ranking against one
explicit list, counts exact.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.cells.errors import NumericalError
from common.nets import layers as L
from common.nets import masks as M
from lobs import hessian
from lobs.hessian import layer_statistics
from lobs.weigh import output_weights
from tests import toy
from tests.lobs import reference
from tests.lobs.test_method import data, equal, mlp
from tests.lobs.test_ours import ask


@pytest.mark.parametrize("kind", ["plain", "grouped"])
def test_weights_are_mean_squared_gradients_in_a_units_outputs_of_the_models_own_labels(kind):
    """One example and one output position at a time, by a perturbation of that output; the labels
    drawn as the code draws them.
    """
    model, x = toy.conv_head(kind), data(6, (2, 6, 6))
    found = output_weights(model, x, L.prunable(model), 6, toy.generator())
    images = torch.cat([images for images, _ in x])
    labels = torch.multinomial(F.softmax(model(images).detach(), 1), 1, generator=toy.generator())[
        :, 0
    ]
    layers = L.prunable(model)
    squares, probes = dict.fromkeys(layers, 0.0), {}
    for name, module in layers.items():

        def probe(module, _, out, name=name):
            probes[name] = torch.zeros_like(out, requires_grad=True)
            return out + probes[name]

        module.register_forward_hook(probe)
    for image, label in zip(images, labels):
        F.cross_entropy(model(image[None]), label[None]).backward()
        for name, module in layers.items():
            squares[name] = squares[name] + probes[name].grad[0].reshape(
                len(module.weight), -1
            ).square().sum(1)
    for name, total in squares.items():
        equal(found[name].flatten(), total / len(images))


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_weighed_units_are_ranked_by_weight_times_sensitivity(scope):
    model, loader = mlp(), data(shape=(6,))
    result = ask(model, loader, 0.5, weigh=True, scope=scope)
    weights = output_weights(model, loader, L.prunable(model), 24, toy.generator())
    x, scores = torch.cat([x for x, _ in loader]), {}
    for i, module in enumerate(model):
        if isinstance(module, nn.Linear):
            rows, W = reference.rows_of(module, x, True)[0], reference.matrix_of(module, True)[0]
            inverse = torch.linalg.inv(
                reference.hessian(rows[None])[0] + 1e-3 * torch.eye(W.shape[1], dtype=W.dtype)
            )
            scores[f"{i}.weight"] = (
                weights[str(i)][0, :, None] * W**2 * rows.any(0) / (2 * inverse.diagonal())
            )[:, :-1]
        x = module(x).detach()
    every = torch.cat([s.flatten() for s in scores.values()])
    for name, s in scores.items():
        pool = every if scope == "global" else s.flatten()
        assert torch.equal(result.masks[name], s > pool.sort().values[round(0.5 * len(pool)) - 1])


def test_a_global_ranking_goes_on_from_earlier_masks_and_refits_behind_pruned_inputs():
    model, loader = mlp((12, 10, 8, 3)), data(120, (12,))
    options = {
        "weigh": True,
        "scope": "global",
        "update": "joint",
        "rescore": 4,
        "inputs": "pruned",
    }
    first = ask(model, loader, 0.4, **options)
    second = ask(first.model, loader, 0.7, first.masks, **options)
    assert M.nested(second.masks, first.masks)
    total = sum(mask.numel() for mask in second.masks.values())
    assert sum(int((~mask).sum()) for mask in second.masks.values()) == round(0.7 * total)
    x, seen = (torch.cat([x for x, _ in loader]) for _ in range(2))
    for i, module in enumerate(first.model):  # every layer at its optimum for the kept weights
        if isinstance(module, nn.Linear):
            a, b = reference.rows_of(module, x, True)[0], reference.rows_of(module, seen, True)[0]
            W, new = (
                reference.matrix_of(module, True)[0],
                reference.matrix_of(second.model[i], True)[0],
            )
            kept = torch.cat(
                [second.masks[f"{i}.weight"], torch.ones(len(W), 1, dtype=torch.bool)], 1
            )
            equal(new, reference.best_layer(b, a @ W.T, W, kept, 1e-3))
        x, seen = module(x).detach(), second.model[i](seen).detach()


def test_gradients_that_are_not_finite_name_their_layer():
    model, loader = mlp(), data(shape=(6,))
    nn.init.constant_(model[-1].weight, 1e300)
    with pytest.raises(NumericalError):
        ask(model, loader, 0.5, weigh=True)


def test_few_inputs_are_kept_as_they_are_and_answer_the_same(monkeypatch):
    model, loader = mlp((40, 4, 3)), data(3, (40,))
    truth = ask(model, loader, 0.5)
    monkeypatch.setattr(hessian, "FEW", 40)
    assert layer_statistics(model, loader, {"0": model[0]}, True, 3)["0"].moment is not None
    monkeypatch.undo()
    assert layer_statistics(model, loader, {"0": model[0]}, True, 3)["0"].moment is None
    monkeypatch.setattr(hessian, "FEW", 40)
    for a, b in zip(ask(model, loader, 0.5).model.parameters(), truth.model.parameters()):
        equal(a.detach(), b.detach(), 1e-6)
