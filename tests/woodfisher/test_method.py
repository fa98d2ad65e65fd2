"""WoodFisher against Eqs. 1-2, 10 and 11 written out: blocks, scopes, updates, masks,
recomputation, limits, and bad input.
"""

import copy

import pytest
import torch

from common.cells.errors import NumericalError, UserError
from common.curvature.rows import gradient_rows
from common.nets import layers as L
from common.nets import masks as M
from common.pruning.baselines import ScopeOptions, magnitude
from common.system import machine
from tests import reference, toy
from tests.woodfisher import twin
from woodfisher import method
from woodfisher.method import fisher_parts
from woodfisher.ours import Options, prune
from woodfisher.surgeon import statistic


def equal(a, b, tolerance=1e-8):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


def by_hand(model, amount, b, damping, chunk, scope, update, masks=None):
    """(weights, masks, predicted increase) as the paper's text says."""
    names = list(L.prunable(model))
    fishers = twin.fishers(model, b, damping, chunk, masks)
    w = twin.weights(model, names)
    inverses = {group: torch.linalg.inv(f) for group, f in fishers.items()}
    diagonal = torch.cat([inverse.diagonal() for inverse in inverses.values()])
    scores = w**2 / (2 * diagonal)
    gone = (
        torch.cat([~masks[f"{n}.weight"].flatten() for n in names])
        if masks
        else torch.zeros_like(w, dtype=torch.bool)
    )
    sizes = [model.get_parameter(f"{n}.weight").numel() for n in names]
    if scope == "global":
        pruned = twin.lowest(scores, round(amount * len(w)), gone)
    else:
        pruned = torch.cat(
            [
                twin.lowest(s, round(amount * len(s)), g)
                for s, g in zip(scores.split(sizes), gone.split(sizes))
            ]
        )
    new, predicted, start = w.clone(), 0.0, 0
    for group, fisher in fishers.items():
        part = slice(start, start + len(fisher))
        start = part.stop
        if update == "joint":
            delta = reference.constrained_minimum(fisher, w[part], pruned[part])[0]
        elif update == "diagonal":
            delta = reference.summed_single(inverses[group], w[part], pruned[part])
        else:
            order = [q for q in scores[part].argsort(stable=True).tolist() if pruned[part][q]]
            delta = reference.sequential_walk(inverses[group], w[part], order)
        new[part] += delta
        predicted += 0.5 * float(delta @ fisher @ delta)
    return new, pruned, predicted


CASES = [
    (1, None, "global", "diagonal"),
    (3, None, "layer", "diagonal"),
    (2, 7, "global", "diagonal"),
    (1, "network", "global", "diagonal"),
    (1, None, "global", "joint"),
    (2, "network", "layer", "joint"),
    (4, 5, "global", "triangular"),
    (1, 1, "global", "diagonal"),
]


@pytest.mark.parametrize(("b", "chunk", "scope", "update"), CASES)
@pytest.mark.parametrize("amount", [0.0, 0.3, 0.75])
def test_the_whole_method(b, chunk, scope, update, amount):
    model, damping = twin.net(), 1e-3
    before = copy.deepcopy(model.state_dict())
    options = Options(
        fisher_batch_size=b, chunk=chunk, scope=scope, update=update, damping=damping, min_keep=0
    )
    result = prune(model, twin.data(), amount, options, toy.generator())
    names = list(L.prunable(model))
    weights, pruned, predicted = by_hand(model, amount, b, damping, chunk, scope, update)
    equal(twin.weights(result.model, names), weights)
    assert torch.equal(torch.cat([~result.masks[f"{n}.weight"].flatten() for n in names]), pruned)
    assert result.predicted_increase == pytest.approx(predicted, rel=1e-8, abs=1e-15)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_registered_method_is_the_papers_until_another_update_is_asked_for(scope):
    settings = {"fisher_batch_size": 2, "damping": 1e-3, "scope": scope, "recompute": 1}
    paper, ours, joint = (
        f(twin.net(), twin.data(), 0.5, options, toy.generator())
        for f, options in (
            (method.prune, method.Options(**settings)),
            (prune, Options(**settings)),
            (prune, Options(update="joint", **settings)),
        )
    )
    assert M.digest(paper.masks) == M.digest(ours.masks)
    assert paper.predicted_increase == ours.predicted_increase > joint.predicted_increase
    for a, b in zip(paper.model.parameters(), ours.model.parameters()):
        assert torch.equal(a, b)


@pytest.mark.parametrize("update", ["diagonal", "joint"])
def test_a_second_pruning_masks_gradients_and_revives_nothing(update):
    model = twin.net()
    first = prune(
        model, twin.data(), 0.4, Options(fisher_batch_size=1, damping=1e-3), toy.generator()
    )
    options = Options(fisher_batch_size=1, damping=1e-3, update=update)
    second = prune(first.model, twin.data(), 0.7, options, toy.generator(), masks=first.masks)
    weights, pruned, predicted = by_hand(
        first.model, 0.7, 1, 1e-3, None, "global", update, first.masks
    )
    names = list(L.prunable(model))
    assert M.nested(second.masks, first.masks)
    assert torch.equal(torch.cat([~second.masks[f"{n}.weight"].flatten() for n in names]), pruned)
    equal(twin.weights(second.model, names), weights)
    assert second.predicted_increase == pytest.approx(predicted, rel=1e-8)


@pytest.mark.parametrize(("schedule", "middle"), [("linear", 0.4), ("cubic", 0.8 - 0.8 / 8)])
def test_recomputing_is_pruning_again_on_the_way(schedule, middle):
    model, amount = twin.net(), 0.8
    options = Options(fisher_batch_size=2, damping=1e-3, recompute=1, recompute_schedule=schedule)
    once = Options(fisher_batch_size=2, damping=1e-3)
    result = prune(model, twin.data(), amount, options, toy.generator())
    first = prune(model, twin.data(), middle, once, toy.generator())
    second = prune(first.model, twin.data(), amount, once, toy.generator(), masks=first.masks)
    assert M.digest(result.masks) == M.digest(second.masks)
    names = list(L.prunable(model))
    assert torch.equal(twin.weights(result.model, names), twin.weights(second.model, names))
    assert result.predicted_increase == pytest.approx(
        first.predicted_increase + second.predicted_increase
    )


def test_a_fraction_a_layer():
    model = twin.net()
    amounts = dict(zip(L.prunable(model), (0.25, 0.5, 0.9, 0.0)))
    result = prune(
        model, twin.data(), amounts, Options(scope="layer", recompute=2), toy.generator()
    )
    assert {
        n: 1 - float(result.masks[f"{n}.weight"].double().mean()) for n in amounts
    } == pytest.approx(amounts)


def test_skipped_layers_stay_as_they_are_and_out_of_the_count():
    model = twin.net()
    result = prune(model, twin.data(), 0.5, Options(skip=("6", "9")), toy.generator())
    assert list(result.masks) == ["0.weight", "3.weight"] and M.sparsity(result.masks) == 0.5
    assert torch.equal(result.model[6].weight, model[6].weight)


def test_large_damping_is_global_magnitude_without_update():
    """λ → ∞: F̂⁻¹ = I/λ, so the ranking is by w² and nothing else moves (Sec. 4.3)."""
    model = twin.net()
    ours = prune(model, twin.data(), 0.6, Options(damping=1e9), toy.generator())
    theirs = magnitude(model, [], 0.6, ScopeOptions(), toy.generator())
    assert M.digest(ours.masks) == M.digest(theirs.masks)
    equal(
        twin.weights(ours.model, list(L.prunable(model))),
        twin.weights(theirs.model, list(L.prunable(model))),
        1e-8,
    )


def test_one_weight_blocks_are_the_diagonal_fisher():
    """c = 1: [F̂⁻¹]_qq = 1 / (λ + mean g²), so 2ρ = w² (λ + F_qq) (OBD, Sec. 4.3)."""
    model = twin.net()
    scores = statistic(
        fisher_parts(
            model, twin.data(), Options(fisher_batch_size=1, chunk=1, damping=1e-4), toy.generator()
        )
    )
    for name, gradients in twin.rows(model, 1, list(scores)).items():
        w = model.get_parameter(f"{name}.weight").detach()
        equal(scores[name].flatten(), 0.5 * w.flatten() ** 2 * (1e-4 + gradients.square().mean(0)))


@pytest.mark.parametrize(
    ("options", "m", "b"),
    [
        ({}, 12, 1),
        ({"num_rows": 3}, 3, 4),
        ({"fisher_batch_size": 5}, 2, 5),
        ({"num_rows": 2, "fisher_batch_size": 2}, 2, 2),
    ],
)
def test_what_is_left_open_follows_from_the_data(options, m, b):
    model = twin.net()
    parts = fisher_parts(model, twin.data(), Options(**options), toy.generator())
    for part, rows in zip(parts, gradient_rows(model, twin.data(), m, b).values(), strict=True):
        assert torch.equal(part.curvature.rows, rows)


def test_sampled_labels_come_from_the_generator():
    model = twin.net()
    draw = lambda seed, fisher: (
        fisher_parts(model, twin.data(), Options(fisher=fisher), toy.generator(seed))[
            0
        ].curvature.rows
    )
    assert torch.equal(draw(1, "sampled"), draw(1, "sampled")) and not torch.equal(
        draw(1, "sampled"), draw(2, "sampled")
    )
    assert torch.equal(draw(1, "empirical"), draw(2, "empirical"))


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damping": 0.0}, "damping=0.0"),
        ({"damping": -1e-5}, "damping"),
        ({"damping": float("nan")}, "damping=nan"),
        ({"chunk": 0}, "chunk=0"),
        ({"chunk": "layer"}, "chunk='layer'"),
        ({"num_rows": 0}, "num_rows=0"),
        ({"fisher_batch_size": 0}, "fisher_batch_size=0"),
        ({"fisher": "exact"}, "fisher='exact'"),
        ({"scope": "all"}, "scope='all'"),
        ({"update": "full"}, "update='full'"),
        ({"recompute": -1}, "recompute=-1"),
    ],
)
def test_settings_that_make_no_sense_are_named(options, message):
    with pytest.raises(UserError, match=message):
        Options(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_rows": 13}, "num_rows=13.*the calibration data has 12"),
        ({"num_rows": 10**15, "fisher_batch_size": 10**15}, "the calibration data has 12"),
        ({"fisher_batch_size": 13}, "fisher_batch_size=13.*has 12"),
        ({"num_rows": 4, "fisher_batch_size": 4}, "take 16"),
    ],
)
def test_more_rows_than_data(options, message):
    with pytest.raises(UserError, match=message):
        prune(twin.net(), twin.data(), 0.5, Options(**options), toy.generator())


def poisoned():
    model = twin.net()
    with torch.no_grad():
        model[3].weight[0, 0] = float("nan")
    return model, "layer"


def silent():
    model = twin.net()
    with torch.no_grad():
        model[9].weight.zero_()
        model[6].weight.zero_()
    return model, "every gradient is zero"


@pytest.mark.parametrize("make", [poisoned, silent])
def test_gradients_without_use_are_reported_and_the_model_is_untouched(make):
    model, message = make()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NumericalError, match=message):
        prune(model, twin.data(), 0.5, Options(), toy.generator())
    assert all(
        torch.equal(v.nan_to_num(7), before[k].nan_to_num(7)) for k, v in model.state_dict().items()
    )


def test_a_mask_that_already_exceeds_the_target():
    model = twin.net()
    first = prune(model, twin.data(), 0.8, Options(), toy.generator())
    with pytest.raises(UserError, match="already removed"):
        prune(
            first.model, twin.data(), 0.5, Options(recompute=2), toy.generator(), masks=first.masks
        )


def test_a_layer_without_gradients_is_noted():
    model = twin.net()
    with torch.no_grad():
        model[9].weight.zero_()  # nothing before it has a gradient then
    result = prune(model, twin.data(), 0.5, Options(), toy.generator())
    assert [note.split(":")[0] for note in result.notes[1:]] == ["0", "3", "6"]


def test_a_result_says_its_rows_once():
    """m and b as they came out, where the options left one open, and however often the Fisher was
    recomputed.
    """
    for changes, said in (
        ({}, "m = 12 rows, each the mean gradient of b = 1 example"),
        (
            {"fisher_batch_size": 4, "recompute": 2},
            "m = 3 rows, each the mean gradient of b = 4 examples",
        ),
        ({"num_rows": 2}, "m = 2 rows, each the mean gradient of b = 6 examples"),
    ):
        result = prune(
            twin.net(), [toy.batch(12, (2, 4, 4))], 0.5, Options(**changes), toy.generator()
        )
        assert result.notes == [f"the Fisher has {said}"]


@pytest.mark.parametrize("chunk", [None, 5, "network"])
def test_rows_that_would_not_fit_are_refused_before_they_are_made(chunk, monkeypatch):
    monkeypatch.setattr(machine, "free_memory_gb", lambda: 1e-6)
    with pytest.raises(UserError, match="gradient rows, with .* GB of them on disk would take"):
        prune(twin.net(), twin.data(), 0.5, Options(chunk=chunk), toy.generator())


@pytest.mark.parametrize(
    ("chunk", "update"),
    [(None, "diagonal"), (5, "joint"), ("network", "diagonal"), ("network", "triangular")],
)
def test_rows_on_disk_prune_as_rows_in_memory(chunk, update, monkeypatch, caplog):
    """A second pruning, so that rows of weights that are gone are zero in the file too."""
    model, options = twin.net(), Options(chunk=chunk, update=update, damping=1e-3)
    first = prune(model, twin.data(), 0.3, options, toy.generator())
    memory = prune(first.model, twin.data(), 0.6, options, toy.generator(), first.masks)
    monkeypatch.setattr(machine, "fits", lambda what, gigabytes: "on disk" in what)
    disk = prune(first.model, twin.data(), 0.6, options, toy.generator(), first.masks)
    assert M.digest(disk.masks) == M.digest(memory.masks)
    for a, b in zip(disk.model.parameters(), memory.model.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert disk.predicted_increase == pytest.approx(memory.predicted_increase, rel=1e-9)
