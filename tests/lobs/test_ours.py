"""L-OBS beyond the paper: the joint optimum, re-scoring, pruned inputs, one budget and the elbow,
against least squares and known optima; and the paper's algorithm where nothing is asked for.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.cells.errors import UserError
from common.nets import masks as M
from lobs import hessian, method
from lobs.budget import divide, shares
from lobs.choose import inflection
from lobs.hessian import Layer, layer_statistics
from lobs.ours import Fit, Options, error_curve, prune
from tests import reference as dense
from tests import toy
from tests.lobs import reference
from tests.lobs.test_method import RIDGE, data, equal, mlp, predicted


def ask(model, loader, amount, masks=None, **options):
    return prune(
        model, loader, amount, Options(**{"damping": RIDGE} | options), toy.generator(), masks
    )


@pytest.mark.parametrize(
    "options", [{}, {"prune_bias": True}, {"stop": "tolerance", "epsilon": 0.3}], ids=str
)
def test_left_alone_our_options_are_the_papers_algorithm(options):
    """Bit for bit, and from earlier masks on."""
    model, loader = mlp(), data(shape=(6,))
    ours = ask(model, loader, 0.5, **options)
    again = ask(ours.model, loader, 0.8, ours.masks, **options)
    paper, masks = method.Options(damping=RIDGE, **options), None
    for found, amount in ((ours, 0.5), (again, 0.8)):
        twin = method.prune(model, loader, amount, paper, toy.generator(), masks)
        assert twin.layers == found.layers
        for name, value in twin.model.state_dict().items():
            assert torch.equal(value, found.model.state_dict()[name])
        model, masks = twin.model, twin.masks


@pytest.mark.parametrize("kind", toy.CONVOLUTIONS)
@pytest.mark.parametrize(
    "options",
    [{}, {"update": "joint"}, {"update": "joint", "rescore": 3}, {"update": "diagonal"}],
    ids=str,
)
def test_predicted_layer_error_is_the_measured_one_exactly(kind, options):
    """The layer is linear; strides, padding, dilation and groups included."""
    model, loader = toy.conv_head(kind, bias=True), data(shape=(2, 6, 6))
    x = torch.cat([x for x, _ in loader])
    options = Options(damping=RIDGE, **options)
    layer = Layer.of("0", layer_statistics(model, loader, {"0": model[0]}, True, 7)["0"], RIDGE)
    result = prune(model, loader, 0.6, options, toy.generator())
    new = reference.matrix_of(result.model[0], True)
    measured = (
        (model(x) - result.model(x)).detach().square().sum()
        / 2
        / (len(x) * model[0](x)[0, 0].numel())
    )
    assert layer.error(new) == pytest.approx(float(measured), rel=1e-9)
    assert layer.energy() == pytest.approx(
        float(model(x).detach().square().sum()) / 2 / (len(x) * model[0](x)[0, 0].numel()), rel=1e-9
    )
    assert predicted(result, "0") == pytest.approx(float(measured), rel=1e-8)


@pytest.mark.parametrize("rescore", [0, 4])
def test_joint_is_least_squares_over_what_is_kept(rescore):
    model, loader = mlp(), data(shape=(6,))
    result = ask(model, loader, 0.5, update="joint", rescore=rescore)
    x = torch.cat([x for x, _ in loader])
    rows, W = reference.rows_of(model[0], x, True)[0], reference.matrix_of(model[0], True)[0]
    kept = torch.cat([result.masks["0.weight"], torch.ones(5, 1, dtype=torch.bool)], 1)
    equal(
        reference.matrix_of(result.model[0], True)[0],
        reference.best_layer(rows, rows @ W.T, W, kept, RIDGE),
    )


@pytest.mark.parametrize("update", ["joint"])
def test_pruned_inputs_match_the_dense_layers_output_from_what_the_pruned_network_sees(update):
    """Layer after layer: min ½ mean ‖W'x_pruned − W x_dense‖² + ½ρ‖W' − W‖²."""
    model, loader = toy.small_net(), data()
    result = ask(model, loader, 0.5, update=update, inputs="pruned", bias=True)
    dense, seen = (torch.cat([x for x, _ in loader]) for _ in range(2))
    for i, module in enumerate(model):
        if isinstance(module, nn.Linear):
            a, b = (
                reference.rows_of(module, dense, True)[0],
                reference.rows_of(module, seen, True)[0],
            )
            W, new = (
                reference.matrix_of(module, True)[0],
                reference.matrix_of(result.model[i], True)[0],
            )
            kept = torch.cat(
                [result.masks[f"{i}.weight"], torch.ones(len(W), 1, dtype=torch.bool)], 1
            )
            equal(new, reference.best_layer(b, a @ W.T, W, kept, RIDGE))
            assert predicted(result, str(i)) == pytest.approx(
                reference.layer_error(b, new, a @ W.T), rel=1e-8
            )
        dense, seen = module(dense).detach(), result.model[i](seen).detach()


def test_each_of_our_options_lowers_the_error_it_is_for():
    """Joint below the walk, re-scored below joint, on layer errors; the network's own error falls
    with pruned inputs.
    """
    model, loader = mlp((12, 10, 8, 3)), data(120, (12,))
    x = torch.cat([x for x, _ in loader])
    walk, joint, again = (
        ask(model, loader, 0.6, **o)
        for o in ({}, {"update": "joint"}, {"update": "joint", "rescore": 8})
    )
    for name in ("0", "2", "4"):
        assert predicted(joint, name) <= predicted(walk, name)
    assert sum(predicted(again, n) for n in "024") <= sum(predicted(joint, n) for n in "024")
    behind = ask(model, loader, 0.6, update="joint", rescore=8, inputs="pruned")
    apart = [float((r.model(x) - model(x)).detach().square().mean()) for r in (walk, joint, behind)]
    assert apart[2] < apart[1] < apart[0]


def test_wide_layers_are_kept_as_their_inputs_and_answer_the_same(monkeypatch):
    model, loader = mlp(), data(shape=(6,))
    options = [{"update": u, "damping": 1e-2} for u in ("triangular", "joint")] + [
        {"update": "joint", "inputs": "pruned", "rescore": 3}
    ]
    few = [(x[:1], y[:1]) for x, y in loader]
    for option in options:
        truth = ask(model, few, 0.5, **option)
        monkeypatch.setattr(hessian, "WIDE", 3)
        wide = ask(model, few, 0.5, **option)
        monkeypatch.undo()
        for a, b in zip(wide.model.parameters(), truth.model.parameters()):
            equal(a, b, 1e-6)
    monkeypatch.setattr(hessian, "WIDE", 3)  # and as a matrix once the inputs outnumber the width
    many = layer_statistics(model, loader, {"0": model[0]}, True, 4)["0"]
    assert many.moment is not None and not many.rows
    equal(
        many.moment / 24,
        reference.hessian(reference.rows_of(model[0], torch.cat([x for x, _ in loader]), True)),
    )


def test_what_was_pruned_stays_pruned_and_counts():
    model, loader = mlp(), data(shape=(6,))
    first = ask(model, loader, 0.4, update="joint")
    second = ask(first.model, loader, 0.7, first.masks, update="joint", rescore=3, inputs="pruned")
    assert M.nested(second.masks, first.masks)
    assert all(int((~mask).sum()) == round(0.7 * mask.numel()) for mask in second.masks.values())
    with pytest.raises(UserError, match="already removed"):
        ask(second.model, loader, 0.5, second.masks)


def test_one_budget_is_met_exactly_and_not_below_the_even_split():
    model, loader = mlp((12, 10, 8, 3)), data(120, (12,))
    total = sum(m.weight.numel() for m in model if isinstance(m, nn.Linear))
    even, divided = (
        ask(model, loader, 0.6, update="joint", rescore=4, scope=s) for s in ("layer", "global")
    )
    assert sum(int((~m).sum()) for m in divided.masks.values()) == round(0.6 * total)

    def relative(result):
        return sum(layer["relative_error"] for layer in result.layers.values())

    assert relative(divided) <= relative(even) * 1.02


def test_division_finds_the_known_optimum():
    """Errors a·kept⁻¹ on equal layers: at the optimum kept is in proportion to √a."""
    shares_ = torch.logspace(0, -3, 400, dtype=torch.float64).tolist()
    curves = {"a": [(k, 1 / k) for k in shares_], "b": [(k, 4 / k) for k in shares_]}
    kept = {n: 1 - r for n, r in divide(curves, {"a": 10_000, "b": 10_000}, 0.85).items()}
    assert kept["a"] == pytest.approx(0.1, rel=0.03) and kept["b"] == pytest.approx(0.2, rel=0.03)
    assert round(10_000 * (kept["a"] + kept["b"])) == 3_000


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 1), st.floats(0.001, 1), st.integers(1, 20))
def test_steps_fall_to_the_goal(before, ratio, steps):
    path = shares(before, before * ratio, steps)
    assert path[-1] == pytest.approx(before * ratio) and len(path) == steps
    assert all(a >= b * (1 - 1e-12) for a, b in zip([before, *path], path))


def test_the_elbow_of_the_sorted_sensitivities():
    scores = torch.tensor([0.0, 1.0, 4.0, 9.0, 400.0], dtype=torch.float64)
    assert inflection(scores) == 0.6  # √L = 0 1 2 3 20: the corner is the fourth point, which stays
    assert inflection(torch.ones(9)) == 0.0
    model, loader = mlp(), data(shape=(6,))
    with torch.no_grad():
        for p in model.parameters():
            p.pow_(3)  # heavy tails: few weights matter
    found = ask(model, loader, 0.95, stop="inflection")
    assert 0 < M.sparsity(found.masks) < 0.95


BAD = [
    ({"stop": "performance", "inputs": "pruned"}, "stop"),
    ({"update": "exact"}, "update"),
    ({"inputs": "none"}, "inputs"),
    ({"rescore": 3}, "rescore"),
    ({"scope": "global", "stop": "inflection"}, "stop"),
    ({"stop": "elbow"}, "inflection"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=str)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Options(**options)


def test_one_budget_divides_one_fraction():
    with pytest.raises(UserError, match="scope.*one fraction"):
        ask(mlp(), data(shape=(6,)), {"0": 0.5, "2": 0.5, "4": 0.5}, scope="global")


def test_greedy_removes_what_the_eliminations_of_its_units_say_and_refits():
    """Over all units those whose turn costs least, each unit's by the twin; then least squares."""
    model, loader = mlp(), data(shape=(6,))
    result = ask(model, loader, 0.5, update="joint", greedy=True)
    x = torch.cat([x for x, _ in loader])
    rows, W = reference.rows_of(model[0], x, True)[0], reference.matrix_of(model[0], True)[0]
    F = rows.T @ rows / len(rows) + RIDGE * torch.eye(7, dtype=torch.float64)
    turns = []
    for unit, w in enumerate(W):
        order, losses = dense.greedy_elimination(F, w, [], list(range(6)))
        highest = torch.tensor(losses).cummax(0).values.tolist()
        turns += [
            (high, turn, unit, q) for turn, (high, q) in enumerate(zip(highest, order, strict=True))
        ]
    kept = torch.ones(5, 7, dtype=torch.bool)
    for _, _, unit, q in sorted(turns)[:15]:
        kept[unit, q] = False
    assert torch.equal(result.masks["0.weight"], kept[:, :6])
    equal(
        reference.matrix_of(result.model[0], True)[0],
        reference.best_layer(rows, rows @ W.T, W, kept, RIDGE),
    )


def test_an_eliminations_losses_add_up_to_the_layers_error():
    """At each level the curve has the error of the joint optimum over what is kept there, the
    ridge's part included."""
    model, loader = mlp(), data(shape=(6,))
    layers = layer_statistics(model, loader, {"0": model[0]}, True, 7)
    fit = Fit.start(Layer.of("0", layers["0"], RIDGE), greedy=True)
    points, total = error_curve(fit)
    assert total == 30 and len(points) > 20
    for share, error in points[1:]:
        kept = fit.layer.without_lowest(fit.sensitivity(), 1 - share)
        weights = fit.refitted(kept).weights
        pull = RIDGE / 2 * float((weights - fit.weights).square().sum())
        measured = (fit.layer.error(weights) + pull) / fit.layer.energy()
        assert error == pytest.approx(measured, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("weigh", [False, True])
def test_greedy_divides_one_budget_exactly(weigh):
    model, loader = toy.small_net(), data()
    result = ask(
        model,
        loader,
        0.6,
        update="joint",
        greedy=True,
        scope="global",
        weigh=weigh,
        inputs="pruned",
    )
    kept = torch.cat([mask.flatten() for mask in result.masks.values()])
    assert int((~kept).sum()) == round(0.6 * len(kept))
