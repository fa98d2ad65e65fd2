"""NAP's importance, normalisation, cut and update against an explicit inverse of the Kronecker
product; bad input.
"""

import copy

import pytest
import torch
from torch import nn

from common.cells.errors import NumericalError, UserError
from common.curvature.kron import Kron, kron_factors
from common.nets import layers as L
from nap.method import Options, prune
from nap.statistics import pack, unpack
from tests import toy

SLOW = {"damping": 1e-2, "fisher": "exact", "batch_size": 3}


def data(examples=9):
    x, y = toy.batch(examples)
    return [(x[:4], y[:4]), (x[4:], y[4:])]


def blocks(model, options):
    """By layer: (joined weights [g, out·in], explicit damped A ⊗ DS by group), every entry of it
    formed.
    """
    factors = kron_factors(
        model, data(), fisher=options.fisher, bias=True, generator=toy.generator()
    )
    result = {}
    for name, module in L.prunable(model).items():
        dense = []
        for A, G in zip(factors[name].A, factors[name].G, strict=True):
            size_a, size_g = A.trace() / len(A), G.trace() / len(G)
            gamma = (
                options.damping * size_a * size_g
                if options.relative
                else torch.tensor(options.damping, dtype=torch.float64)
            )
            pi = (size_a / size_g).sqrt() if options.pi else torch.tensor(1.0, dtype=torch.float64)
            dense.append(
                torch.kron(
                    G + gamma.sqrt() / pi * torch.eye(len(G), dtype=torch.float64),
                    A + gamma.sqrt() * pi * torch.eye(len(A), dtype=torch.float64),
                )
            )
        result[name] = L.joined(module, module.bias is not None).flatten(1), dense
    return result


def twin(model, amount, options, masks=None):
    """Algorithm 1, lines 6 to 10, weight by weight: (masks, weights) by layer, [g, out, in] and [g,
    out, in (+1)].
    """
    everything, importances, alive = [], {}, {}
    for name, (W, dense) in blocks(model, options).items():
        module = model.get_submodule(name)
        width = module.weight[0].numel()
        mask = (
            torch.ones_like(module.weight, dtype=torch.bool)
            if masks is None
            else masks[f"{name}.weight"]
        )
        scores = torch.stack(
            [w**2 / (2 * torch.linalg.inv(F).diagonal()) for w, F in zip(W, dense, strict=True)]
        )
        scores = scores.reshape(len(dense), len(module.weight) // len(dense), -1)[..., :width]
        alive[name] = mask.reshape(scores.shape)
        importances[name] = scores / scores[alive[name]].sum() if options.normalise else scores
        everything += [
            (float(importances[name].flatten()[i]), name, i)
            for i in alive[name].flatten().nonzero().flatten().tolist()
        ]
    total = sum(a.numel() for a in alive.values())
    going = sorted(everything, key=lambda item: item[0])[
        : round(amount * total) - (total - len(everything))
    ]
    kept = {name: a.clone() for name, a in alive.items()}
    for _, name, i in going:
        kept[name].view(-1)[i] = False
    weights = {}
    for name, (W, dense) in blocks(model, options).items():
        width = kept[name].shape[-1]
        new = []
        for group, (w, F) in enumerate(zip(W, dense, strict=True)):
            inverse, delta = torch.linalg.inv(F), torch.zeros_like(w)
            gone = torch.zeros(kept[name].shape[1], len(w) // kept[name].shape[1], dtype=torch.bool)
            gone[:, :width] = ~kept[name][group]
            for q in gone.flatten().nonzero().flatten().tolist():
                # Eq. 6, right, summed over what goes
                delta -= w[q] / inverse[q, q] * inverse[:, q]
            new.append(
                torch.where(gone.flatten(), 0.0, w + delta if options.compensate else w).reshape(
                    gone.shape
                )
            )
        weights[name] = torch.stack(new)
    return kept, weights


@pytest.mark.parametrize(
    "change",
    [{}, {"normalise": False}, {"pi": False}, {"relative": False}, {"compensate": False}],
    ids=lambda c: str(c) or "default",
)
@pytest.mark.parametrize("amount", [0.3, 0.7])
def test_masks_and_weights_are_those_of_the_explicit_inverse(change, amount):
    model, options = toy.small_net(), Options(**SLOW | change)
    result = prune(model, data(), amount, options, toy.generator())
    kept, weights = twin(model, amount, options)
    for name, module in L.prunable(result.model).items():
        assert torch.equal(L.to_matrix(module, result.masks[f"{name}.weight"]), kept[name])
        torch.testing.assert_close(
            L.joined(module, module.bias is not None), weights[name], rtol=1e-8, atol=1e-10
        )


def test_what_was_removed_before_stays_out_of_the_cut_the_sum_and_the_update():
    model, options = toy.small_net(), Options(**SLOW)
    first = prune(model, data(), 0.4, options, toy.generator())
    second = prune(first.model, data(), 0.7, options, toy.generator(), masks=first.masks)
    kept, weights = twin(first.model, 0.7, options, first.masks)
    for name, module in L.prunable(second.model).items():
        mask = second.masks[f"{name}.weight"]
        assert torch.equal(L.to_matrix(module, mask), kept[name])
        assert not module.weight[~mask].any() and not (mask & ~first.masks[f"{name}.weight"]).any()
        torch.testing.assert_close(
            L.joined(module, module.bias is not None), weights[name], rtol=1e-8, atol=1e-10
        )


def test_the_prediction_is_half_delta_f_delta():
    model, options = toy.small_net(), Options(**SLOW)
    result = prune(model, data(), 0.5, options, toy.generator())
    predicted = 0.0
    for name, (W, dense) in blocks(model, options).items():
        after = L.joined(
            result.model.get_submodule(name), result.model.get_submodule(name).bias is not None
        ).flatten(1)
        predicted += sum(0.5 * float(d @ F @ d) for d, F in zip(after - W, dense, strict=True))
    assert result.predicted_increase == pytest.approx(predicted, rel=1e-9)


def test_p_of_what_is_left_is_the_percentile_over_all_layers():
    """20% of the 80 weights that are left: the 16 least of them, by normalised importance, wherever
    they are.
    """
    model = toy.seeded(
        nn.Sequential(
            nn.Flatten(), nn.Linear(8, 10, bias=False), nn.ReLU(), nn.Linear(10, 2, bias=False)
        )
    )
    x, y = toy.batch(12, (8,), 2)
    first = prune(model, [(x, y)], 0.2, Options(**SLOW), toy.generator())
    left = sum(int(m.sum()) for m in first.masks.values())
    second = prune(
        first.model, [(x, y)], 1 - 0.8 * 0.8, Options(**SLOW), toy.generator(), masks=first.masks
    )
    assert left == 80 and sum(int(m.sum()) for m in second.masks.values()) == 64


def test_statistics_that_are_handed_over_are_used_and_handed_on():
    model, options = toy.small_net(), Options(**SLOW)
    other = kron_factors(model, [toy.batch(6, seed=5)], fisher="exact", bias=True)
    # no calibration data: none may be read
    result = prune(model, None, 0.5, options, toy.generator(), latent=pack(other, 6))
    expected = prune(model, [toy.batch(6, seed=5)], 0.5, options, toy.generator())
    for name, mask in expected.masks.items():
        assert torch.equal(result.masks[name], mask)
    for name, factors in unpack(result.latent).items():
        assert torch.equal(factors.A, other[name].A) and torch.equal(factors.G, other[name].G)


def test_factors_that_no_fine_tuning_touched_are_estimated_again():
    model, options = toy.small_net(), Options(**SLOW)
    stale = pack(kron_factors(model, [toy.batch(6, seed=5)], fisher="exact", bias=True))
    a, b = (
        prune(model, data(), 0.5, options, toy.generator(), latent=latent)
        for latent in (stale, None)
    )
    assert all(torch.equal(a.latent[key], value) for key, value in b.latent.items())


def test_a_layer_without_importance_is_cut_by_count_and_not_divided_by_zero():
    model = toy.small_net()
    with torch.no_grad():
        model[6].weight.zero_()
    result = prune(model, data(), 0.5, Options(**SLOW), toy.generator())
    assert all(torch.isfinite(p).all() for p in result.model.parameters())
    assert result.masks["6.weight"].sum() == 1  # nothing but the one weight that every layer keeps


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"decay": 1.0}, "decay"),
        ({"every": 0}, "every"),
        ({"fisher": "true"}, "fisher"),
        ({"damping": -1.0}, "damping"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_options_out_of_range_are_refused(change, word):
    with pytest.raises(UserError, match=word):
        Options(**change)


def test_singular_factors_without_damping_name_the_layer_and_leave_the_model():
    model = toy.small_net()
    before = copy.deepcopy(model.state_dict())
    x, y = toy.batch(2)
    with pytest.raises(NumericalError, match="singular at damping 0"):
        prune(model, [(x, y)], 0.5, Options(**SLOW | {"damping": 0.0}), toy.generator())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("amount", [0.2, 0.39])
def test_a_target_that_is_already_met_is_refused(amount):
    first = prune(toy.small_net(), data(), 0.4, Options(**SLOW), toy.generator())
    with pytest.raises(UserError, match="already removed"):
        prune(first.model, data(), amount, Options(**SLOW), toy.generator(), masks=first.masks)


def test_fractions_a_layer_and_weights_that_are_not_finite_are_refused():
    with pytest.raises(UserError, match="by itself"):
        prune(toy.small_net(), data(), {"0": 0.5}, Options(), toy.generator())
    broken = toy.small_net()
    with torch.no_grad():
        broken[6].weight[0, 0] = torch.nan
    fine = kron_factors(toy.small_net(), data(), fisher="exact", bias=True)
    with pytest.raises(NumericalError, match="'?6'?.*not finite"):
        prune(broken, data(), 0.5, Options(), toy.generator(), latent=pack(fine, 9))


def test_packing_keeps_every_number():
    factors = {"a.b": Kron(torch.rand(1, 3, 3), torch.rand(1, 2, 2), 7)}
    again = unpack(pack(factors))["a.b"]
    assert (
        torch.equal(again.A, factors["a.b"].A)
        and torch.equal(again.G, factors["a.b"].G)
        and again.positions == 7
    )
    assert unpack(None) == {}
