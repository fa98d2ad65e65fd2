"""What single papers compute: layer errors (L-OBS), whole pruning steps (WoodFisher),
eigen-directions and filters (EigenDamage).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.func import hessian

from common.curvature.diag import diagonal_fisher
from common.curvature.kron import Kron, KronInverse, kron_factors
from common.nets import layers as L
from eigendamage import c_obd, c_obs, depthwise, kron_obd, kron_obs
from eigendamage import method as eigen
from lobs import hessian as lobs_hessian
from lobs import ours as lobs
from lobs.bound import propagation
from nap import method as nap
from tests import reference, toy
from tests.lobs import reference as lobs_twin
from tests.trust.oracles import floats, normal, numbers, oracle, pair
from tests.woodfisher import twin as wood
from woodfisher import kfac, method, woodtaylor
from woodfisher.studies import hessian as wood_hessian

RIDGE = 1e-3


def lobs_cases(dtype):
    """(name, network of one layer, its twin, loader, all inputs in float64)."""
    for name, model, shape in (
        ("linear", toy.seeded(nn.Sequential(nn.Linear(5, 4))), (5,)),
        ("convolution", toy.conv_head("strided", bias=True), (2, 5, 5)),
        ("grouped", toy.conv_head("grouped", bias=True), (2, 5, 5)),
    ):
        model, twin = pair(model, dtype)
        ((x, x2),) = numbers(dtype, toy.batch(12, shape)[0])
        y = torch.zeros(12, dtype=torch.long)
        yield name, model, twin, [(x[:5], y[:5]), (x[5:], y[5:])], x2


@oracle("layer-error Hessian by torch.func.hessian", "L-OBS Eq. 5, Eq. 9")
def layer_hessians(dtype):
    for name, model, twin, loader, x in lobs_cases(dtype):
        seen = lobs_hessian.layer_statistics(model, loader, {"0": model[0]}, True, 5)["0"]
        rows, W = lobs_twin.rows_of(twin[0], x, True), lobs_twin.matrix_of(twin[0], True).detach()
        for g in range(len(W)):
            error = lambda w, x=rows[g], W=W[g]: (
                0.5 * (x @ w.reshape(W.shape).T - x @ W.T).square().sum() / len(x)
            )
            yield (
                f"{name}, group {g}",
                torch.block_diag(*[seen.moment[g] / seen.count] * len(W[g])),
                hessian(error)(W[g].flatten()),
            )


@oracle("a layer pruned by each update: predicted error = measured", "L-OBS Sec. 3.3, Algorithm 1")
def layer_errors(dtype):
    for name, model, twin, loader, x in lobs_cases(dtype):
        rows, W = lobs_twin.rows_of(twin[0], x, True), lobs_twin.matrix_of(twin[0], True).detach()
        for update in ("triangular", "joint", "diagonal"):
            result = lobs.prune(
                model, loader, 0.5, lobs.Options(damping=RIDGE, update=update), toy.generator()
            )
            new = lobs_twin.matrix_of(result.model[0].double(), True).detach()
            measured = sum(
                lobs_twin.layer_error(rows[g], new[g], rows[g] @ W[g].T) for g in range(len(W))
            )
            yield (
                f"{name}, {update}",
                floats(result.layers["0"]["predicted_error"]),
                floats(measured),
            )
            if len(W) > 1:
                continue
            kept = torch.cat(
                [result.masks["0.weight"].flatten(1), torch.ones(len(W[0]), 1, dtype=torch.bool)], 1
            )
            if update == "triangular":
                yield (
                    f"{name}, walk",
                    new[0],
                    lobs_twin.paper_layer(rows[0], W[0], RIDGE, int((~kept).sum()), W.shape[2] - 1),
                )
            elif update == "joint":
                yield (
                    f"{name}, least squares",
                    new[0],
                    lobs_twin.best_layer(rows[0], rows[0] @ W[0].T, W[0], kept, RIDGE),
                )


@oracle("accumulated error and its bound", "L-OBS Theorem 3.2, Eq. 8")
def bound(dtype):
    model, twin = pair(
        toy.seeded(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))), dtype
    )
    ((x, x2),) = numbers(dtype, toy.batch(10, (5,))[0])
    pruned = lobs.prune(model, [(x, x)], 0.5, lobs.Options(damping=RIDGE), toy.generator()).model
    other = pruned.double()
    entries = propagation(twin, other, [(x2, x2)])
    first = (other[0](x2) - twin[0](x2)).square().sum() / 10
    second = (other[2](twin[:2](x2)) - twin[2](twin[:2](x2))).square().sum() / 10
    apart = (other(x2) - twin(x2)).square().sum() / 10
    yield (
        "layer errors",
        floats(*[e["layer_error"] for e in entries]),
        torch.stack([first, second]).sqrt().detach(),
    )
    yield "accumulated", floats(entries[1]["accumulated"]), apart.sqrt()[None].detach()
    yield (
        "bound",
        floats(entries[1]["bound"]),
        (other[2].weight.norm() * first.sqrt() + second.sqrt())[None].detach(),
    )


@oracle("WoodFisher, one whole step: weights and predicted increase", "WoodFisher Eqs. 1, 10, 11")
def woodfisher_step(dtype):
    for chunk in (None, 7, "network"):
        model, twin = pair(wood.net(), dtype)
        loader = [(x.to(dtype), y) for x, y in wood.data()]
        options = method.Options(chunk=chunk, damping=1e-3, fisher_batch_size=2, min_keep=0)
        result = method.prune(model, loader, 0.5, options, toy.generator())
        names = list(L.prunable(twin))
        F = _fisher(twin, loader, 2, 1e-3, chunk, names)
        w, inverse = wood.weights(twin, names), torch.linalg.inv(F)
        pruned = wood.lowest(w**2 / (2 * inverse.diagonal()), round(0.5 * len(w)))
        delta = reference.summed_single(inverse, w, pruned)
        yield f"chunk {chunk}, weights", wood.weights(result.model, names), w + delta
        yield (
            f"chunk {chunk}, increase",
            floats(result.predicted_increase),
            (0.5 * delta @ F @ delta)[None],
        )


def _fisher(twin, loader, b, damping, chunk, names):
    rows = wood.rows(twin, b, names, [(x.double(), y) for x, y in loader])
    if chunk == "network":
        return reference.damped_fisher(torch.cat([rows[n] for n in names], 1), damping)
    return torch.block_diag(*[reference.damped_fisher(rows[n], damping, chunk) for n in names])


@oracle("WoodTaylor, one whole step", "WoodFisher Eqs. 21-23")
def woodtaylor_step(dtype):
    model, twin = pair(wood.net(), dtype)
    loader = [(x.to(dtype), y) for x, y in wood.data()]
    options = woodtaylor.Options(fisher_batch_size=2, min_keep=0)
    result = woodtaylor.prune(model, loader, 0.4, options, toy.generator())
    names = list(L.prunable(twin))
    F = _fisher(twin, loader, 2, 0.1, None, names)
    rows = wood.rows(twin, 2, names, [(x.double(), y) for x, y in loader])
    w, inverse, g = (
        wood.weights(twin, names),
        torch.linalg.inv(F),
        torch.cat([rows[n].mean(0) for n in names]),
    )
    u, h = inverse @ g, inverse.diagonal()
    pruned = wood.lowest((w - u) ** 2 / (2 * h), round(0.4 * len(w)))
    delta = torch.where(pruned, -w, -u + reference.summed_single(inverse, w - u, pruned))
    yield "weights", wood.weights(result.model, names), w + delta
    yield "change", floats(result.predicted_increase), (g @ delta + 0.5 * delta @ F @ delta)[None]


@oracle("K-FAC pruning, one whole step", "WoodFisher Sec. S2.1")
def kfac_step(dtype):
    for pi in (True, False):
        model, twin = pair(
            toy.seeded(
                nn.Sequential(nn.Linear(6, 4, bias=False), nn.Tanh(), nn.Linear(4, 3, bias=False))
            ),
            dtype,
        )
        (x, x2), (y, _) = numbers(dtype, *toy.batch(7, (6,)))
        result = kfac.prune(
            model, [(x, y)], 0.5, kfac.Options(pi=pi, damping=1e-3, min_keep=0), toy.generator()
        )
        parts = []
        for index in (0, 2):
            seen = twin[:index](x2).detach()
            middle = twin[: index + 1](x2).detach().requires_grad_()
            g = torch.autograd.grad(
                nn.functional.cross_entropy(twin[index + 1 :](middle), y, reduction="sum"), middle
            )[0]
            A, G = seen.T @ seen / 7, g.T @ g / 7
            ratio = ((A.trace() / len(A)) / (G.trace() / len(G))).sqrt() if pi else 1.0
            parts.append(
                torch.kron(
                    G + 1e-3**0.5 / ratio * torch.eye(len(G)).double(),
                    A + 1e-3**0.5 * ratio * torch.eye(len(A)).double(),
                )
            )
        F, w = torch.block_diag(*parts).detach(), wood.weights(twin, ["0", "2"])
        inverse = torch.linalg.inv(F)
        pruned = wood.lowest(w**2 / (2 * inverse.diagonal()), round(0.5 * len(w)))
        yield (
            f"pi={pi}",
            wood.weights(result.model, ["0", "2"]),
            w + reference.summed_single(inverse, w, pruned),
        )


@oracle(
    "NAP, one whole step: normalised importances, weights, biases, increase",
    "NAP Eqs. 6, 13, Sec. 3.2",
)
def nap_step(dtype):
    for normalise in (True, False):
        model, twin = pair(
            toy.seeded(nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))), dtype
        )
        (x, x2), (y, _) = numbers(dtype, *toy.batch(9, (6,)))
        options = nap.Options(fisher="empirical", damping=1e-2, normalise=normalise)
        result = nap.prune(model, [(x[:4], y[:4]), (x[4:], y[4:])], 0.5, options, toy.generator())
        scores, inverses, fishers, joined = [], [], [], []
        for index in (0, 2):
            seen = torch.cat([twin[:index](x2), torch.ones(9, 1)], 1).detach()
            middle = twin[: index + 1](x2).detach().requires_grad_()
            g = torch.autograd.grad(
                nn.functional.cross_entropy(twin[index + 1 :](middle), y, reduction="sum"), middle
            )[0]
            A, G = seen.T @ seen / 9, g.T @ g / 9
            # relative: each factor gets √γ of its own mean eigenvalue, by π
            mean_a, mean_g = A.trace() / len(A), G.trace() / len(G)
            F = torch.kron(
                G + 0.1 * mean_g * torch.eye(len(G)).double(),
                A + 0.1 * mean_a * torch.eye(len(A)).double(),
            )
            W = torch.cat([twin[index].weight, twin[index].bias[:, None]], 1).detach()
            inverse = torch.linalg.inv(F)
            score = (W.flatten() ** 2 / (2 * inverse.diagonal())).reshape(W.shape)[:, :-1]
            scores.append(score / score.sum() if normalise else score)
            inverses, fishers, joined = [*inverses, inverse], [*fishers, F], [*joined, W]
        flat = torch.cat([s.flatten() for s in scores])
        gone = wood.lowest(flat, round(0.5 * len(flat))).split([s.numel() for s in scores])
        total = 0.0
        for index, which, W, inverse, F in zip((0, 2), gone, joined, inverses, fishers):
            pruned = torch.cat(
                [which.reshape(len(W), -1), torch.zeros(len(W), 1, dtype=torch.bool)], 1
            )
            delta = reference.summed_single(inverse, W.flatten(), pruned.flatten())
            total = total + 0.5 * delta @ F @ delta
            new = torch.cat([result.model[index].weight, result.model[index].bias[:, None]], 1)
            yield f"layer {index}, normalise={normalise}", new, W + delta.reshape(W.shape)
        yield f"increase, normalise={normalise}", floats(result.predicted_increase), total[None]


@oracle("Hessian and Fisher blocks of a layer", "WoodFisher Figs. 1, S2-S4")
def pictures(dtype):
    model, twin = pair(
        toy.seeded(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))), dtype
    )
    (x, x2), (y, _) = numbers(dtype, *toy.batch(6, (4,)))
    loss = nn.functional.cross_entropy(twin(x2), y)
    first = torch.autograd.grad(loss, twin[0].weight, create_graph=True)[0].flatten()
    second = torch.stack(
        [torch.autograd.grad(g, twin[2].weight, retain_graph=True)[0].flatten() for g in first]
    )
    yield "Hessian", wood_hessian.hessian_block(model, x, y, "0", "2"), second
    yield (
        "Fisher",
        wood_hessian.fisher_block(model, x, y, "2"),
        reference.empirical_fisher(twin, twin[2], x2, y),
    )


def eigen_cases(dtype):
    """(name, weight in dtype, in float64, factors, the dense Fisher of the flattened weight)."""
    for kind in ("padded", "strided", "1x1", "oblong"):
        for factor in ("channel", "patch"):
            model, twin = pair(toy.conv_head(kind), dtype)
            (x, x2), (y, _) = numbers(dtype, *toy.batch(6))
            ours, truth = (
                kron_factors(
                    m, [(d, y)], {"0": m[0]}, fisher="empirical", channel_only=factor == "channel"
                )["0"]
                for m, d in ((model, x), (twin, x2))
            )
            taps = twin[0].weight[0, 0].numel() if factor == "channel" else 1
            dense = torch.kron(truth.dense()[0], torch.eye(taps, dtype=torch.float64))
            yield f"{kind}, {factor}", model[0].weight, twin[0].weight.detach(), ours, dense


@oracle("eigen-basis: importances, and the weight rotated back", "EigenDamage Eq. 15, Algorithm 1")
def eigen_directions(dtype):
    for name, weight, weight2, factors, dense in eigen_cases(dtype):
        layer = eigen.rotate(weight, factors)
        eye = torch.eye(layer.W.shape[2], dtype=torch.float64)
        R = torch.kron(layer.QS.contiguous(), torch.kron(layer.QA.contiguous(), eye))
        rotated = (R.T @ dense @ R).diagonal()
        truth = (0.5 * (R.T @ weight2.flatten()).square() * rotated).reshape(layer.W.shape).sum(2)
        yield name, layer.theta, truth
        yield (
            f"{name}, all of it",
            layer.theta.sum()[None],
            (0.5 * weight2.flatten() @ dense @ weight2.flatten())[None],
        )
        yield (
            f"{name}, back",
            torch.einsum("os,sap,ia->oip", layer.QS, layer.W, layer.QA).flatten(),
            weight2.flatten(),
        )


@oracle("filters: C-OBD, C-OBS, Kron-OBD, Kron-OBS importances", "EigenDamage Eqs. 8, 10, 13, 14")
def filter_importances(dtype):
    for groups in (1, 2):
        (a, a2), (g, g2), (W, W2) = numbers(
            dtype, normal(groups, 7, 5), normal(groups, 7, 4, seed=1), normal(groups, 4, 5, seed=2)
        )
        ours, twin = (
            Kron((p.mT @ p / 7).double(), (q.mT @ q / 7).double(), 1) for p, q in ((a, g), (a2, g2))
        )
        inverse = KronInverse.of(ours, 1e-2, relative=True)
        plain = torch.block_diag(*twin.dense())
        parts = []
        for A, G in zip(twin.A, twin.G):
            mean_a, mean_g = A.trace() / 5, G.trace() / 4
            parts.append(
                torch.kron(
                    G + 0.1 * mean_g * torch.eye(4).double(),
                    A + 0.1 * mean_a * torch.eye(5).double(),
                )
            )
        damped = torch.block_diag(*parts)
        w, rows = W2.flatten(), [torch.arange(len(damped)) // 5 == i for i in range(4 * groups)]
        every = torch.linalg.inv(damped).diagonal()
        W = W.double()
        yield (
            f"C-OBS, {groups} groups",
            c_obs.importance(W, inverse),
            torch.stack([(w**2 / (2 * every))[r].sum() for r in rows]),
        )
        yield (
            f"Kron-OBD, {groups} groups",
            kron_obd.importance(W, ours),
            torch.stack([0.5 * w[r] @ plain[r][:, r] @ w[r] for r in rows]),
        )
        minima = [reference.constrained_minimum(damped, w, r) for r in rows]
        yield (
            f"Kron-OBS, {groups} groups",
            kron_obs.importance(W, inverse),
            floats(*[m[1] for m in minima]),
        )
        for i, (delta, _) in enumerate(minima[:3]):
            gone = torch.arange(4 * groups) == i
            yield (
                f"Kron-OBS, filter {i} of {groups} groups",
                kron_obs.change(W, inverse, gone)[0].flatten(),
                delta,
            )
        gone = torch.tensor([True, False, True, False] * groups)
        together = reference.constrained_minimum(damped, w, gone.repeat_interleave(5))[0]
        yield (
            f"Kron-OBS joint, {groups} groups",
            kron_obs.change(W, inverse, gone, "joint")[0].flatten(),
            together,
        )
        summed = reference.summed_single(torch.linalg.inv(damped), w, gone.repeat_interleave(5))
        yield f"C-OBS update, {groups} groups", c_obs.change(W, inverse, gone)[0].flatten(), summed
    model, twin = pair(toy.conv_head("padded"), dtype)
    (x, x2), y = numbers(dtype, toy.batch()[0])[0], torch.arange(5) % 3
    scores = c_obd.importance(model[0], diagonal_fisher(model, [(x, y)])["0"])
    F, w = (
        reference.empirical_fisher(twin, twin[0], x2, y).diagonal(),
        twin[0].weight.detach().flatten(),
    )
    yield "C-OBD", scores, (0.5 * w**2 * F).reshape(4, -1).sum(1)


@oracle(
    "depthwise-separable core: joined at every offset, exact where separable", "EigenDamage Eq. 18"
)
def separable(dtype):
    U, D, V = normal(5, 3), normal(4, 3, seed=1), normal(6, 3, seed=2)
    W = torch.stack([U @ torch.diag(D[i]) @ V.T for i in range(4)], 2)
    yield "joined", depthwise.joined(*(t.to(dtype) for t in (U, D, V))), W
    found = depthwise.joined(
        *depthwise.separate(torch.einsum("rq,pq,aq->rap", U[:, :1], D[:, :1], V[:, :1]).to(dtype))
    )
    yield "separated, rank 1", found, torch.einsum("rq,pq,aq->rap", U[:, :1], D[:, :1], V[:, :1])
