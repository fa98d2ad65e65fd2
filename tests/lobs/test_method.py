"""L-OBS as the paper has it, against its twins: Hessian, walk, stopping rules and bad input."""

import copy

import pytest
import torch
from torch import nn

from common.cells.errors import LayerError, NumericalError, UserError
from common.curvature.kron import input_hessian
from common.nets import masks as M
from lobs import hessian
from lobs.choose import tolerated, watched
from lobs.hessian import layer_statistics
from lobs.method import Options, prune
from tests import toy
from tests.lobs import reference

RIDGE = 1e-3


def equal(a, b, tolerance=1e-8):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


def data(examples=24, shape=(2, 5, 5), seed=0):
    return [toy.batch(examples // 3, shape, seed=seed + i) for i in range(3)]


def mlp(sizes=(6, 5, 4, 3), seed=0):
    layers = []
    for a, b in zip(sizes, sizes[1:]):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return toy.seeded(nn.Sequential(*layers[:-1]), seed)


def ask(model, loader, amount, masks=None, **options):
    return prune(
        model, loader, amount, Options(**{"damping": RIDGE} | options), toy.generator(), masks
    )


def predicted(result, name):
    return result.layers[name]["predicted_error"]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", toy.CONVOLUTIONS)
def test_the_layer_hessian_of_a_convolution_is_the_mean_over_its_patches(kind, bias):
    model, loader = toy.conv_head(kind, bias=bias), data(shape=(2, 6, 6))
    statistics = layer_statistics(model, loader, {"0": model[0]}, bias, 5)["0"]
    rows = reference.rows_of(model[0], torch.cat([x for x, _ in loader]), bias)
    equal(statistics.moment / statistics.count, reference.hessian(rows))
    equal(input_hessian(model, loader, bias=bias)["0"], reference.hessian(rows))


def test_its_inverse_is_the_papers_recursion_from_alpha():
    g = toy.generator(1)
    rows = torch.randn(30, 7, generator=g, dtype=torch.float64)
    for alpha in (1e4, 1e6):
        layer = hessian.DenseMatrix(rows.T @ rows / 30, 1 / alpha)
        equal(layer.inverse, reference.woodbury(rows, alpha), 1e-6)


@pytest.mark.parametrize("amount", [0.3, 0.7, 0.9])
def test_paper_mode_is_the_walk_over_one_ranked_list_with_the_dense_networks_inputs(amount):
    model, loader = mlp(), data(shape=(6,))
    result = ask(model, loader, amount)
    x = torch.cat([x for x, _ in loader])
    for i, module in enumerate(model):
        if isinstance(module, nn.Linear):
            rows, W = reference.rows_of(module, x, True)[0], reference.matrix_of(module, True)[0]
            total = module.weight.numel()
            truth = reference.paper_layer(rows, W, RIDGE, round(amount * total), W.shape[1] - 1)
            new = reference.matrix_of(result.model[i], True)[0]
            equal(new, truth)
            assert int((result.model[i].weight == 0).sum()) == round(amount * total)
            assert predicted(result, str(i)) == pytest.approx(
                reference.layer_error(rows, truth, rows @ W.T), rel=1e-8
            )
        x = module(x).detach()


def test_memory_does_not_grow_with_the_number_of_examples():
    model = mlp()
    sizes = []
    for examples in (30, 300):
        s = layer_statistics(model, data(examples, (6,)), {"0": model[0]}, True, 10)["0"]
        sizes.append(s.moment.numel() + sum(r.numel() for r in s.rows))
    assert sizes[0] == sizes[1] == 49


def test_stopping_by_tolerance():
    scores = torch.tensor([0.0, 1.0, 4.0, 9.0, 400.0], dtype=torch.float64)
    assert tolerated(scores, 2.0) == 0.4  # √(2 L) = 0 1.41 2.83 4.24 28.3
    model, loader = mlp(), data(shape=(6,))
    small, large = (ask(model, loader, 0.9, stop="tolerance", epsilon=e) for e in (1e-4, 1e9))
    assert small.masks["0.weight"].all()
    # what ε would remove altogether stops at the amount
    assert M.sparsity(large.masks) == pytest.approx(0.9, abs=0.03)


def test_the_tolerance_is_the_root_mean_square_error_of_equation_7():
    """Every weight of a layer deleted alone, the others optimal, the outputs compared as Eq. 2 and
    Eq. 3 do: no ½, and after the activation no more than before it (Lemma 3.1)."""
    model, loader = mlp((6, 5, 4, 3)), data(60, (6,))
    x, seen = torch.cat([x for x, _ in loader]), {}
    for i, module in enumerate(model):
        seen[i], x = x, module(x).detach()
    for i in (0, 2, 4):
        rows, W = (
            reference.rows_of(model[i], seen[i], True)[0],
            reference.matrix_of(model[i], True)[0],
        )
        errors = []
        for unit in range(len(W)):
            for q in range(W.shape[1] - 1):
                z = rows @ reference.alone(rows, W, unit, q).T
                errors.append(reference.rms(z, rows @ W.T))
                assert reference.rms(z.relu(), (rows @ W.T).relu()) <= errors[-1] * (1 + 1e-12)
        # not those behind a dead unit
        told = [e for e in sorted(errors)[: len(errors) * 4 // 5] if e > 1e-9]
        assert len(told) >= 3
        for epsilon in told:
            kept = ask(
                model, loader, 0.9, stop="tolerance", epsilon=epsilon * (1 + 1e-6), damping=1e-12
            ).masks[f"{i}.weight"]
            assert int((~kept).sum()) == sum(e <= epsilon * (1 + 1e-6) for e in errors)


def test_a_rising_tolerance_stops_before_the_first_that_costs_too_much():
    """The rule alone: costs by fraction removed, one dip above the bound that must not be
    passed.
    """
    scores = torch.arange(1, 101, dtype=torch.float64).square() / 2  # √(2 L) = 1 .. 100
    tried = []

    def cost(removed):
        tried.append(removed)
        return 0.02 if 0.5 < removed < 0.65 else 0.0

    found = watched(scores, 0.0, 0.9, cost, 0.01)
    # 0.8, 0.64, 0.512, 0.4096 of them stay
    assert tried == [0.2, 0.36, 0.49, 0.6] and found == 0.49
    assert watched(scores, 0.3, 0.9, lambda removed: 1.0, 0.01) == 0.3  # what has gone stays gone
    assert watched(scores, 0.0, 0.9, lambda removed: 0.0, 0.01) == 0.9
    # no error to tolerate
    assert watched(torch.zeros(9, dtype=torch.float64), 0.0, 0.9, lambda removed: 0.0, 0.01) == 0.0


def test_the_performance_is_watched_on_images_that_the_hessian_did_not_see():
    """Each layer's answer: exchanged alone it costs at most the bound on the held-out images, and
    the most that it may lose costs more.
    """
    model = mlp((6, 12, 10, 3))
    x = toy.batch(300, (6,))[0] * 3
    # labels that the network gets right
    loader = [(x[i : i + 10], model(x[i : i + 10]).argmax(1).detach()) for i in range(0, 300, 10)]
    held, rest = loader[:12], loader[12:]
    options = {"stop": "performance", "bound": 0.05, "held_out": 115, "batch_size": 10}
    found = ask(model, loader, 0.95, **options)
    amounts = {
        name.removesuffix(".weight"): float((~mask).double().mean())
        for name, mask in found.masks.items()
    }
    assert all(0 < amount < 0.95 for amount in amounts.values())
    # twelve batches were held out
    twin, whole = (ask(model, images, amounts) for images in (rest, loader))
    for name in ("0", "2", "4"):
        equal(found.model.get_submodule(name).weight, twin.model.get_submodule(name).weight)
        assert not torch.equal(
            twin.model.get_submodule(name).weight, whole.model.get_submodule(name).weight
        )
    most = ask(model, rest, 0.95)

    def lost(other, name):
        changed = copy.deepcopy(model)
        changed.get_submodule(name).load_state_dict(other.model.get_submodule(name).state_dict())
        return float(torch.cat([changed(a).argmax(1) != b for a, b in held]).double().mean())

    for name in ("0", "2", "4"):
        assert lost(found, name) <= 0.05 < lost(most, name)
    with pytest.raises(UserError, match="held_out.*none of 300"):
        ask(model, loader, 0.9, **options | {"held_out": 300})


def test_biases_may_go_when_asked_and_move_otherwise():
    model, loader = mlp(), data(shape=(6,))
    kept = ask(model, loader, 0.5)
    assert not any(name.endswith("bias") for name in kept.masks) and not torch.equal(
        kept.model[0].bias, model[0].bias
    )
    gone = ask(model, loader, 0.9, prune_bias=True)
    assert int((~gone.masks["0.weight"]).sum() + (~gone.masks["0.bias"]).sum()) == round(0.9 * 35)
    assert torch.equal(gone.model[0].bias == 0, ~gone.masks["0.bias"])
    again = ask(gone.model, loader, 0.95, gone.masks, prune_bias=True)
    assert M.nested(again.masks, gone.masks)
    still = ask(model, loader, 0.5, bias=False)
    assert torch.equal(still.model[0].bias, model[0].bias)


def test_dead_inputs_go_first_and_are_told():
    model, loader = mlp(), data(shape=(6,))
    for x, _ in loader:
        x[:, [1, 4]] = 0
    result = ask(model, loader, 1 / 3)
    assert not result.masks["0.weight"][:, [1, 4]].any() and result.masks["0.weight"].sum() == 20
    assert "0: 2 of 7 inputs dead" in result.notes[0] and predicted(result, "0") < 1e-20


def test_a_singular_hessian_gets_a_larger_ridge_that_is_told():
    model, loader = (
        mlp(),
        [(torch.full((4, 6), 1e8, dtype=torch.float64), torch.zeros(4, dtype=torch.long))],
    )
    result = ask(model, loader, 0.5, damping=1e-9)
    assert "singular" in result.notes[0] and result.layers["0"]["ridge"] > 1e-9
    assert all(torch.isfinite(p).all() for p in result.model.parameters())


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.spare = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.used(x)


def broken(value):
    x, y = toy.batch(4, (6,))
    x[0, 0] = value
    return [(x, y)]


BAD = [
    ({"amount": 1.0}, UserError, "outside"),
    ({"amount": -0.1}, UserError, "outside"),
    ({"amount": {"0": 0.5}}, UserError, "layer"),
    ({"amount": {"0": 0.5, "2": 0.5, "4": 2.0}}, UserError, "outside"),
    ({"loader": []}, UserError, "calibration"),
    ({"loader": broken(float("nan"))}, NumericalError, "'0'.*not finite"),
    ({"loader": broken(float("inf"))}, NumericalError, "'0'"),
    ({"options": {"damping": 0.0}}, UserError, "damping"),
    ({"options": {"damping": float("nan")}}, UserError, "damping"),
    ({"options": {"stop": "tolerance"}}, UserError, "epsilon"),
    ({"options": {"bound": -0.1}}, UserError, "bound"),
    ({"options": {"held_out": 0}}, UserError, "held_out"),
    ({"options": {"stop": "inflection"}}, UserError, "stop.*ratio, tolerance, performance"),
    ({"options": {"skip": ("7",)}}, UserError, "skip"),
    ({"model": Unused().double()}, LayerError, "'spare'.*no input"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD, ids=lambda v: str(v)[:40])
def test_bad_input_is_named_and_the_network_untouched(change, error, message):
    model = change.get("model", mlp())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        ask(
            model,
            change.get("loader", data(shape=(6,))),
            change.get("amount", 0.5),
            **change.get("options", {}),
        )
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
