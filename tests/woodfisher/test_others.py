"""WoodTaylor, K-FAC, FLOPs-aware and structured pruning against their equations written out."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from common.cells.errors import UserError
from common.nets import layers as L
from common.nets import masks as M
from common.running.train import evaluate
from tests import reference, toy
from tests.woodfisher import twin
from woodfisher import flops_aware, kfac, method, structured, woodtaylor


def equal(a, b, tolerance=1e-8):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


def removed(result, names):
    return torch.cat([~result.masks[f"{n}.weight"].flatten() for n in names])


# -- WoodTaylor ------------------------------------------------------------------------------------


def quadratic(model, b, damping, chunk):
    """(w, inverse, Fisher, gradient) over the whole network, block-diagonal."""
    names = list(L.prunable(model))
    fishers = twin.fishers(model, b, damping, chunk)
    F = torch.block_diag(*fishers.values())
    gradient = torch.cat([twin.rows(model, b, names)[n].mean(0) for n in names])
    return twin.weights(model, names), torch.linalg.inv(F), F, gradient


@pytest.mark.parametrize("chunk", [None, "network", 7])
@pytest.mark.parametrize("amount", [0.0, 0.4, 0.8])
def test_woodtaylor_is_equations_21_to_23(chunk, amount):
    model, damping = twin.net(), 0.1
    w, inverse, F, g = quadratic(model, 2, damping, chunk)
    u, h = inverse @ g, inverse.diagonal()
    statistic = w**2 / (2 * h) + 0.5 * u**2 / h - w * u / h  # Eq. 23, term by term
    pruned = twin.lowest(statistic, round(amount * len(w)))
    delta = -inverse @ g
    for q in pruned.nonzero().flatten().tolist():
        delta -= (w[q] - u[q]) * inverse[:, q] / h[q]  # Eq. 21, added up
    delta = torch.where(pruned, -w, delta)  # and masked
    result = woodtaylor.prune(
        model,
        twin.data(),
        amount,
        woodtaylor.Options(fisher_batch_size=2, chunk=chunk, min_keep=0),
        toy.generator(),
    )
    names = list(L.prunable(model))
    assert torch.equal(removed(result, names), pruned)
    equal(twin.weights(result.model, names), w + delta)
    assert result.predicted_increase == pytest.approx(
        float(g @ delta + 0.5 * delta @ F @ delta), rel=1e-8
    )


def test_woodtaylor_of_one_weight_is_the_constrained_minimum_and_equation_22():
    """The KKT system of Eq. 19 for each single weight."""
    model = nn.Sequential(nn.Flatten(), toy.seeded(nn.Linear(4, 3, bias=False)))
    x, y = toy.batch(6, (4,))
    options = woodtaylor.Options(fisher_batch_size=1, min_keep=0)
    result = woodtaylor.prune(model, [(x, y)], 1 / 12, options, toy.generator())
    rows = reference.per_example_gradients(model, model[1], x, y)
    F, g, w = reference.damped_fisher(rows, 0.1), rows.mean(0), model[1].weight.detach().flatten()
    best = None
    for q in range(12):
        kkt = torch.zeros(13, 13, dtype=torch.float64)
        kkt[:12, :12], kkt[q, 12], kkt[12, q] = F, 1, 1
        delta = torch.linalg.solve(kkt, torch.cat([-g, -w[q : q + 1]]))[:12]
        change = float(g @ delta + 0.5 * delta @ F @ delta)
        best = min(best or (change, delta), (change, delta), key=lambda pair: pair[0])
    assert result.predicted_increase == pytest.approx(best[0], rel=1e-9)
    equal(result.model[1].weight.detach().flatten() - w, best[1])


def test_woodtaylor_without_gradient_is_woodfisher():
    """Rows that cancel: each example twice, with gradients of opposite sign."""
    model = nn.Sequential(nn.Flatten(), toy.seeded(nn.Linear(4, 2, bias=False)))
    with torch.no_grad():
        model[1].weight.copy_(model[1].weight[:1].expand(2, 4))  # both classes equal, so p = ½
    x, _ = toy.batch(6, (4,))
    loader = [(torch.cat([x, x]), torch.arange(2).repeat_interleave(6))]
    ours, theirs = (
        m.prune(model, loader, 0.5, m.Options(fisher_batch_size=1, damping=1e-2), toy.generator())
        for m in (woodtaylor, method)
    )
    assert M.digest(ours.masks) == M.digest(theirs.masks)
    equal(ours.model[1].weight.detach(), theirs.model[1].weight.detach())


@pytest.mark.parametrize("trust", [0.05, 1e-3])
def test_a_newton_step_that_promises_more_than_the_loss_is_not_trusted(trust):
    """λ rises tenfold to the least value whose gain is within the bound, on the same rows."""
    model, data = twin.net(), twin.data()
    bound = trust * evaluate(model, data)[0]
    free = woodtaylor.Options(fisher_batch_size=1, damping=1e-6)

    def gain(damping):
        options = dataclasses.replace(free, damping=damping)
        parts = method.fisher_parts(model, data, options, toy.generator())
        return sum(woodtaylor.newton(part)[1] for part in parts)

    least = next(value for value in (1e-6 * 10**k for k in range(30)) if gain(value) <= bound)
    assert least > 1e-6
    told = dataclasses.replace(free, trust=trust)
    found = woodtaylor.prune(model, data, 0.3, told, toy.generator())
    at = dataclasses.replace(free, damping=least)
    wanted = woodtaylor.prune(model, data, 0.3, at, toy.generator())
    names = list(L.prunable(model))
    equal(twin.weights(found.model, names), twin.weights(wanted.model, names))
    assert found.predicted_increase == pytest.approx(wanted.predicted_increase, rel=1e-6)
    assert f"damping raised from 1e-06 to {least:g}" in found.notes[-1]
    assert not any("raised" in note for note in wanted.notes)
    trusted = dataclasses.replace(at, trust=trust)
    again = woodtaylor.prune(model, data, 0.3, trusted, toy.generator())
    assert again.notes == wanted.notes
    for wrong in (0.0, 1.5):
        with pytest.raises(UserError, match="trust"):
            woodtaylor.Options(trust=wrong)


def test_woodtaylor_needs_true_labels():
    with pytest.raises(UserError, match="fisher='sampled'"):
        woodtaylor.Options(fisher="sampled")


# -- K-FAC -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pi", [True, False])
def test_kfac_on_a_linear_net_by_loops(pi):
    model = toy.seeded(
        nn.Sequential(
            nn.Flatten(), nn.Linear(6, 4, bias=False), nn.Tanh(), nn.Linear(4, 3, bias=False)
        )
    )
    x, y = toy.batch(7, (6,))
    damping, names = 1e-3, ["1", "3"]
    result = kfac.prune(
        model,
        [(x[:3], y[:3]), (x[3:], y[3:])],
        0.5,
        kfac.Options(pi=pi, damping=damping, min_keep=0),
        toy.generator(),
    )
    blocks = []
    for index in (1, 3):
        seen = model[:index](x).detach()
        A = sum(torch.outer(a, a) for a in seen) / 7
        middle = seen.detach().requires_grad_()
        output = model[index](middle)
        rest = model[index + 1 :](output)
        g = torch.autograd.grad(nn.functional.cross_entropy(rest, y, reduction="sum"), output)[0]
        G = sum(torch.outer(v, v) for v in g) / 7
        ratio = ((A.trace() / len(A)) / (G.trace() / len(G))).sqrt() if pi else 1.0
        A = A + ratio * damping**0.5 * torch.eye(len(A), dtype=A.dtype)
        G = G + damping**0.5 / ratio * torch.eye(len(G), dtype=G.dtype)
        blocks.append(torch.kron(G, A))
    F, w = torch.block_diag(*blocks).detach(), twin.weights(model, names)
    inverse = torch.linalg.inv(F)
    pruned = twin.lowest(w**2 / (2 * inverse.diagonal()), round(0.5 * len(w)))
    delta = reference.summed_single(inverse, w, pruned)
    assert torch.equal(removed(result, names), pruned)
    equal(twin.weights(result.model, names), w + delta)
    assert result.predicted_increase == pytest.approx(0.5 * float(delta @ F @ delta), rel=1e-8)


def test_kfac_keeps_what_is_pruned():
    model = twin.net()
    first = kfac.prune(model, twin.data(), 0.4, kfac.Options(), toy.generator())
    second = kfac.prune(first.model, twin.data(), 0.6, kfac.Options(), toy.generator(), first.masks)
    assert M.nested(second.masks, first.masks) and M.sparsity(second.masks) == pytest.approx(
        0.6, abs=0.01
    )


# -- FLOPs-aware -----------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.3, 2.0])
def test_flops_aware_divides_by_positions(beta):
    """Output positions by hand: 3×3 of the 2×2 convolution, 3×2 of the 1×2 one, 1 of each linear
    layer.
    """
    model = twin.net()
    options = {"fisher_batch_size": 1, "damping": 1e-3, "min_keep": 0}
    result = flops_aware.prune(
        model, twin.data(), 0.5, flops_aware.Options(beta=beta, **options), toy.generator()
    )
    names, positions = list(L.prunable(model)), (9, 6, 1, 1)
    w, inverse, _, _ = quadratic(model, 1, 1e-3, None)
    price = torch.cat(
        [
            torch.full((model.get_parameter(f"{n}.weight").numel(),), p)
            for n, p in zip(names, positions)
        ]
    )
    pruned = twin.lowest(w**2 / (2 * inverse.diagonal()) / price**beta, round(0.5 * len(w)))
    assert torch.equal(removed(result, names), pruned)
    equal(twin.weights(result.model, names), w + reference.summed_single(inverse, w, pruned))
    if beta == 0:
        plain = method.prune(model, twin.data(), 0.5, method.Options(**options), toy.generator())
        assert (
            M.digest(plain.masks) == M.digest(result.masks)
            and plain.predicted_increase == result.predicted_increase
        )


@pytest.mark.parametrize(
    ("options", "message"), [({"beta": -0.1}, "beta=-0.1"), ({"scope": "layer"}, "scope='layer'")]
)
def test_flops_aware_refuses(options, message):
    with pytest.raises(UserError, match=message):
        flops_aware.Options(**options)


# -- structured ------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistic", structured.STATISTICS)
@pytest.mark.parametrize("chunk", [None, "network"])
def test_structured_statistic_and_direction(statistic, chunk):
    model, damping = twin.net(), 1e-2
    names = list(L.prunable(model))
    w, inverse, F, _ = quadratic(model, 1, damping, chunk)
    filters, start = [], 0
    for name in names:
        shape = model.get_parameter(f"{name}.weight").shape
        filters.append((start + torch.arange(shape.numel())).reshape(shape[0], -1))
        start += shape.numel()
    scores = []
    for group in filters:
        for q in group:
            e = torch.zeros_like(w)
            e[q] = 1
            scores.append(
                {
                    "correlated": (w @ e) ** 2 / (2 * e @ inverse @ e),
                    "sum": sum(w[i] ** 2 / (2 * inverse[i, i]) for i in q),
                    "exact": torch.tensor(reference.constrained_minimum(F, w, e.bool())[1]),
                }[statistic]
            )
    scores = torch.stack(scores)
    options = structured.Options(
        statistic=statistic, chunk=chunk, damping=damping, fisher_batch_size=1, scope="layer"
    )
    result = structured.prune(
        model, twin.data(), {"0": 0.5, "3": 0.4, "6": 0.0, "9": 1 / 3}, options, toy.generator()
    )
    gone = [
        twin.lowest(s, c) for s, c in zip(scores.split([len(g) for g in filters]), (2, 2, 0, 1))
    ]
    pruned = torch.zeros(len(w), dtype=torch.bool)
    for group, lost in zip(filters, gone):
        pruned[group[lost].flatten()] = True
    if statistic == "exact":
        delta = reference.constrained_minimum(F, w, pruned)[0]
    elif statistic == "sum":
        delta = reference.summed_single(inverse, w, pruned)
    else:
        delta = torch.zeros_like(w)
        for group, lost in zip(filters, gone):
            for q in group[lost]:
                delta -= w[q].sum() * inverse[:, q].sum(1) / inverse[q][:, q].sum()
        delta = torch.where(pruned, -w, delta)
    assert torch.equal(removed(result, names), pruned)
    equal(twin.weights(result.model, names), w + delta)
    assert result.predicted_increase == pytest.approx(0.5 * float(delta @ F @ delta), rel=1e-8)


@pytest.mark.parametrize("chunk", [None, 7, 50])
@pytest.mark.parametrize("b", [1, 6])
def test_filters_scored_together_are_those_solved_for_one_by_one(chunk, b):
    """For blocks with fewer weights than rows and with more, filters cut by blocks, and some of
    the filters alone."""
    options = structured.Options(chunk=chunk, damping=1e-2, fisher_batch_size=b)
    for part in structured.fisher_parts(twin.net(), twin.data(), options, toy.generator()):
        w = part.weights().double()
        (filters,) = structured.filters_of(part).values()
        for those in (filters, filters[1:], filters[:0]):
            found = structured.inverse_sums(part, w, those)
            wanted = []
            for q in those:
                e = structured._indicator(q, w)
                wanted.append(e @ part.curvature.solve(e))
            assert found.tolist() == pytest.approx([float(v) for v in wanted], rel=1e-10)


def test_structured_again_keeps_filters_gone_and_the_model_untouched():
    model = twin.net()
    before = copy.deepcopy(model.state_dict())
    options = structured.Options(scope="global")
    first = structured.prune(model, twin.data(), 0.3, options, toy.generator())
    second = structured.prune(first.model, twin.data(), 0.5, options, toy.generator(), first.masks)
    assert M.nested(second.masks, first.masks) and all(
        torch.equal(v, before[k]) for k, v in model.state_dict().items()
    )
    assert all(
        mask.flatten(1).any(1).eq(mask.flatten(1).all(1)).all() for mask in second.masks.values()
    )


# -- FLOPs as the target ---------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("amounts", [(0.5,), (0.3, 0.8)])
def test_a_target_of_macs_stops_at_the_first_weight_that_reaches_it(beta, amounts):
    """Weights one by one, by hand; the second pruning counts what the first removed."""
    model = twin.net()
    names, positions = list(L.prunable(model)), (9, 6, 1, 1)
    price = torch.cat(
        [
            torch.full((model.get_parameter(f"{n}.weight").numel(),), float(p))
            for n, p in zip(names, positions)
        ]
    )
    result, masks = model, None
    for amount in amounts:
        options = {"fisher_batch_size": 1, "damping": 1e-3, "min_keep": 0}
        settings = flops_aware.Options(beta=beta, target="macs", **options)
        again = flops_aware.prune(result, twin.data(), amount, settings, toy.generator(), masks)
        gone = (
            torch.zeros(len(price), dtype=torch.bool)
            if masks is None
            else ~torch.cat([masks[f"{n}.weight"].flatten() for n in names])
        )
        fisher = twin.fishers(result, 1, 1e-3, None, masks)
        diagonal = torch.cat([torch.linalg.inv(F).diagonal() for F in fisher.values()])
        scores = twin.weights(result, names) ** 2 / (2 * diagonal) / price**beta
        for q in torch.argsort(scores.masked_fill(gone, torch.inf), stable=True).tolist():
            if price[gone].sum() >= amount * price.sum():
                break
            gone[q] = True
        assert torch.equal(removed(again, names), gone)
        result, masks = again.model, again.masks


def test_a_target_of_macs_at_the_ends():
    scores, price = (
        {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])},
        {"a": 3.0, "b": 1.0},
    )
    assert flops_aware.weights_for(scores, price, 0.0, {}) == 0.0
    assert flops_aware.weights_for(scores, price, 3 / 8, {}) == 1 / 4
    # the best of a layer goes last: 3 + 1, not 3 + 3
    assert flops_aware.weights_for(scores, price, 4 / 8, {}) == 2 / 4
    with pytest.raises(UserError, match="fraction of MACs"):
        flops_aware.weights_for(scores, price, 1.0, {})
    with pytest.raises(UserError, match="recompute=1"):
        flops_aware.Options(target="macs", recompute=1)
    with pytest.raises(UserError, match="target='flops'"):
        flops_aware.Options(target="flops")
