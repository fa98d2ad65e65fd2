"""Gradients, Fishers, Kronecker factors and their damping."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, hessian, jacrev, vmap

from common.curvature.diag import diagonal_fisher
from common.curvature.kron import (
    Kron,
    KronInverse,
    input_hessian,
    input_moment,
    kron_factors,
    split_bias,
)
from common.curvature.labels import losses, mean_loss
from common.curvature.moving import MovingKron
from common.curvature.rows import gradient_rows
from common.data.task import Calibration, Task
from common.nets import layers as L
from lobs.hessian import layer_statistics
from tests import reference, toy
from tests.trust.oracles import normal, numbers, oracle, pair

DEPTHWISE = {  # 4 channels in
    "depthwise": {"out_channels": 4, "kernel_size": 3, "padding": 1, "groups": 4},
    "depthwise, strided": {
        "out_channels": 4,
        "kernel_size": 3,
        "stride": 2,
        "padding": 1,
        "groups": 4,
    },
    "depthwise, 2 filters a channel": {"out_channels": 8, "kernel_size": 2, "groups": 4},
    "grouped, dilated": {
        "out_channels": 6,
        "kernel_size": 2,
        "dilation": 2,
        "padding": 1,
        "groups": 2,
    },
}


def heads(bias=False):
    """(kind, network of one convolution, inputs) for every convolution, depthwise ones included."""
    for kind in toy.CONVOLUTIONS:
        yield kind, toy.conv_head(kind, bias), toy.batch()[0]
    for kind, settings in DEPTHWISE.items():
        yield (
            kind,
            toy.seeded(nn.Sequential(nn.Conv2d(4, bias=bias, **settings), nn.Flatten())),
            toy.batch(shape=(4, 5, 5))[0],
        )


def linear_net():
    return toy.seeded(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5), nn.Linear(5, 2)))


def classifier():
    return toy.seeded(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)))


def blocks(dense, groups):
    """The diagonal blocks of a dense matrix over the flattened weight, one a convolution group."""
    size = len(dense) // groups
    return torch.stack(
        [dense[i * size : (i + 1) * size, i * size : (i + 1) * size] for i in range(groups)]
    )


@oracle("per-example gradients, every convolution", "WoodFisher Eq. 1")
def example_gradients(dtype):
    for kind, model, x in heads(bias=True):
        (model, twin), ((x, x2),) = pair(model, dtype), numbers(dtype, x)
        ((y, y2),) = numbers(dtype, normal(*model(x).shape, seed=4))
        yield (
            kind,
            gradient_rows(model, [(x, y)], 5, loss="mse")["0"],
            reference.per_example_gradients(twin, twin[0], x2, y2, "mse"),
        )


@oracle("per-example gradients against torch.func", "WoodFisher Eq. 1")
def functional_gradients(dtype):
    model, twin = pair(toy.small_net(), dtype)
    (x, x2), (y, _) = numbers(dtype, *toy.batch(4))
    parameters = {n: p.detach() for n, p in twin.named_parameters()}
    loss = lambda p, x, y: F.cross_entropy(functional_call(twin, p, (x[None],)), y[None])
    truth = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x2, y)
    for name, rows in gradient_rows(model, [(x, y)], 4).items():
        yield name, rows, truth[f"{name}.weight"].flatten(1)


@oracle("mean gradients of mini-batches", "WoodFisher Sec. 3.2")
def mini_batches(dtype):
    model, twin = pair(toy.small_net(), dtype)
    (x, x2), (y, _) = numbers(dtype, *toy.batch(6))
    for b in (2, 3):
        rows = gradient_rows(model, [(x[:4], y[:4]), (x[4:], y[4:])], 6 // b, b)
        for name, module in L.prunable(twin).items():
            yield (
                f"{name}, b={b}",
                rows[name],
                reference.per_example_gradients(twin, module, x2, y).reshape(6 // b, b, -1).mean(1),
            )


@oracle(
    "sampled labels: the model's own distribution, by the generator",
    "EigenDamage; Martens & Grosse 2015",
)
def sampled_labels(dtype):
    model, twin = pair(classifier(), dtype)
    (x, x2), (y, _) = numbers(dtype, *toy.batch(6, (4,)))
    drawn = torch.multinomial(model(x).detach().softmax(1), 1, generator=toy.generator(3))[:, 0]
    rows = gradient_rows(model, [(x, y)], 6, fisher="sampled", generator=toy.generator(3))
    for name, module in L.prunable(twin).items():
        yield name, rows[name], reference.per_example_gradients(twin, module, x2, drawn)
    noise = torch.randn(6, 3, generator=toy.generator(3), dtype=dtype)
    rows = gradient_rows(
        model, [(x, y)], 6, fisher="sampled", loss="mse", generator=toy.generator(3)
    )
    # the Gaussian model's own draw around its prediction
    target = (twin(x2) - noise.double()).detach()
    for name, module in L.prunable(twin).items():
        yield (
            f"{name}, mse",
            rows[name],
            reference.per_example_gradients(twin, module, x2, target, "mse"),
        )


@oracle(
    "diagonal Fisher, empirical and exact, both losses",
    "LeCun et al. 1990, Eq. 5; EigenDamage Eq. 8",
)
def diagonals(dtype):
    model, twin = pair(toy.small_net(), dtype)
    (x, x2), (y, _) = numbers(dtype, *toy.batch(6))
    ((z, z2),) = numbers(dtype, normal(6, 3, seed=4))
    for loss, y1, y2 in (("cross_entropy", y, y), ("mse", z, z2)):
        for fisher in ("empirical", "exact"):
            ours = diagonal_fisher(
                model, [(x[:4], y1[:4]), (x[4:], y1[4:])], fisher=fisher, loss=loss
            )
            for name, module in L.prunable(twin).items():
                dense = (
                    reference.empirical_fisher(twin, module, x2, y2, loss)
                    if fisher == "empirical"
                    else reference.exact_fisher(twin, module, x2, loss)
                )
                yield f"{name}, {fisher}, {loss}", ours[name].flatten(), dense.diagonal()
    for kind, model, x in heads():
        (model, twin), ((x, x2),) = pair(model, dtype), numbers(dtype, x)
        y = torch.arange(5) % 3
        yield (
            kind,
            diagonal_fisher(model, [(x, y)])["0"].flatten(),
            reference.empirical_fisher(twin, twin[0], x2, y).diagonal(),
        )


@oracle("exact Fisher = Gauss-Newton by torch.func.jacrev", "Martens & Grosse 2015")
def gauss_newton(dtype):
    model, twin = pair(classifier(), dtype)
    (x, x2), (y, _) = numbers(dtype, *toy.batch(5, (4,)))
    names = [f"{name}.weight" for name in L.prunable(twin)]
    parameters = {n: p.detach() for n, p in twin.named_parameters()}
    J = jacrev(lambda p: functional_call(twin, p, (x2,)))(parameters)
    J = torch.cat([J[n].flatten(2) for n in names], 2)  # [examples, classes, weights]
    p = twin(x2).detach().softmax(1)
    output_hessian = {
        "cross_entropy": torch.diag_embed(p) - p[:, :, None] * p[:, None, :],
        "mse": torch.eye(3, dtype=torch.float64).expand(5, 3, 3),
    }
    for loss, H in output_hessian.items():
        truth = torch.einsum("bci,bcd,bdj->ij", J, H, J) / 5
        total = torch.zeros_like(truth)
        for i in range(5):  # what `losses` says the exact Fisher is, taken literally
            for value in losses(model(x[i : i + 1]), y[i : i + 1], "exact", loss, None):
                grads = torch.autograd.grad(
                    value, [model.get_parameter(n) for n in names], retain_graph=True
                )
                g = torch.cat([part.flatten() for part in grads]).double()
                total += torch.outer(g, g) / 5
        yield f"{loss}, dense", total, truth
        ours = diagonal_fisher(model, [(x, y)], fisher="exact", loss=loss)
        yield f"{loss}, diagonal", torch.cat([d.flatten() for d in ours.values()]), truth.diagonal()


def task_pairs(dtype):
    """(kind, loss, model, its twin, batches with the task, the inputs and labels in float64)."""
    for kind, (net, x, y) in toy.tasks().items():
        loss = kind.split(",")[0].split(" of")[0]
        (model, twin), ((x, x2),) = pair(net, dtype), numbers(dtype, x)
        y1 = y.to(dtype) if y.is_floating_point() or loss in ("binary", "mse") else y
        batches = [(x[:3], y1[:3]), (x[3:], y1[3:])]
        yield kind, loss, model, twin, Calibration(batches, Task(loss)), x2, y


@oracle("gradients under every loss, a row an example", "WoodFisher Eq. 1")
def task_gradients(dtype):
    for kind, loss, model, twin, data, x, y in task_pairs(dtype):
        found = gradient_rows(model, data, 4)
        for name, module in L.prunable(twin).items():
            truth = [
                torch.autograd.grad(
                    reference.loss_of_example(twin(x[i : i + 1])[0], y[i], loss), module.weight
                )[0].flatten()
                for i in range(4)
            ]
            yield f"{name}, {kind}", found[name], torch.stack(truth)


@oracle("exact Fisher under every loss = Gauss-Newton", "Martens 2014")
def task_fishers(dtype):
    for kind, loss, model, twin, data, x, y in task_pairs(dtype):
        diagonal = diagonal_fisher(model, data, fisher="exact")
        for name, module in L.prunable(twin).items():
            truth = reference.gauss_newton(twin, module, x, y, loss)
            yield f"{name}, {kind}", diagonal[name].flatten(), truth.diagonal()


@oracle("training losses of every kind", "conventions")
def task_losses(dtype):
    for kind, loss, model, twin, data, x, y in task_pairs(dtype):
        value = sum(
            mean_loss(model(part), labels, data.task) * len(part) for part, labels in data.loader
        )
        truth = sum(reference.loss_of_example(twin(x)[i], y[i], loss) for i in range(4))
        yield kind, value[None] / 4, truth[None] / 4


@oracle("exact Fisher of a linear classifier = torch.func.hessian", "Martens 2014")
def linear_hessian(dtype):
    model, twin = pair(toy.seeded(nn.Sequential(nn.Linear(4, 3, bias=False))), dtype)
    (x, x2), (y, _) = numbers(dtype, *toy.batch(6, (4,)))
    truth = hessian(lambda w: F.cross_entropy(x2 @ w.reshape(3, 4).T, y))(
        twin[0].weight.detach().flatten()
    )
    yield (
        "diagonal",
        diagonal_fisher(model, [(x, y)], fisher="exact")["0"].flatten(),
        truth.diagonal(),
    )
    for i in range(3):
        one = hessian(
            lambda w, i=i: F.cross_entropy(x2[i : i + 1] @ w.reshape(3, 4).T, y[i : i + 1])
        )(twin[0].weight.detach().flatten())
        yield (
            f"K-FAC of example {i}",
            kron_factors(model, [(x[i : i + 1], y[i : i + 1])], fisher="exact")["0"].dense()[0],
            one,
        )


@oracle(
    "OBD's curvature = the Hessian's diagonal, ReLU networks, fitted ones too",
    "LeCun et al. 1990, Eqs. 3 and 5",
)
def hessian_diagonals(dtype):
    """A network of ReLUs is piecewise linear in any single weight, so its Gauss-Newton diagonal is
    the Hessian's own: however small the curvature of a confident network is, OBD's score is the
    whole second-order term of removing that weight."""
    for confidence in (1, 8):
        x, _ = toy.batch(6)
        model = toy.small_net()
        with torch.no_grad():
            model[-1].weight.mul_(confidence)
            y = model(x).argmax(1)
        (model, twin), ((x, x2),) = pair(model, dtype), numbers(dtype, x)
        ours = diagonal_fisher(model, [(x, y)], fisher="exact")
        for name, module in L.prunable(twin).items():
            dense = hessian(partial(_loss, twin, name, x2, y))(module.weight.detach()).reshape(
                module.weight.numel(), -1
            )
            yield f"{name}, logits times {confidence}", ours[name].flatten(), dense.diagonal()


def _loss(model, name, x, y, weight):
    return F.cross_entropy(functional_call(model, {f"{name}.weight": weight}, (x,)), y)


@oracle("training losses", "conventions")
def mean_losses(dtype):
    (out, out2), (z, z2) = numbers(dtype, normal(5, 3), normal(5, 3, seed=1))
    y = torch.tensor([0, 2, 1, 1, 0])
    yield (
        "cross-entropy",
        mean_loss(out, y)[None],
        -sum(out2[b].log_softmax(0)[y[b]] for b in range(5))[None] / 5,
    )
    yield (
        "mse",
        mean_loss(out, z, "mse")[None],
        (sum(0.5 * (out2[b] - z2[b]).square().sum() for b in range(5)) / 5)[None],
    )


@oracle(
    "A factor over positions, every convolution, with and without bias",
    "Grosse & Martens 2016 (KFC); L-OBS Eq. 9",
)
def input_factors(dtype):
    for bias in (False, True):
        for kind, model, x in heads(bias):
            (model, twin), ((x, x2),) = pair(model, dtype), numbers(dtype, x)
            yield (
                f"{kind}, bias={bias}",
                input_moment(model[0], x, bias) / len(x),
                reference.kfac_A(twin[0], x2, bias),
            )


@oracle("channel-only A: mean of the position blocks", "EigenDamage Sec. 4.5")
def channel_factors(dtype):
    for kind, model, x in heads():
        (model, twin), ((x, x2),) = pair(model, dtype), numbers(dtype, x)
        conv = twin[0]
        taps = conv.kernel_size[0] * conv.kernel_size[1]
        full = reference.kfac_A(conv, x2).reshape(
            conv.groups, -1, taps, conv.in_channels // conv.groups, taps
        )
        truth = torch.stack([full[:, :, i, :, i] for i in range(taps)]).mean(0)
        yield kind, input_moment(model[0], x, channel_only=True) / len(x), truth


@oracle("K-FAC exact: convolution under squared loss, all kinds", "Grosse & Martens 2016 (KFC)")
def exact_convolutions(dtype):
    for kind, model, x in heads():
        (model, twin), ((x, x2),) = pair(model, dtype), numbers(dtype, x)
        factors = kron_factors(
            model, [(x, torch.zeros_like(model(x)))], fisher="exact", loss="mse"
        )["0"]
        yield (
            kind,
            factors.dense(),
            blocks(reference.exact_fisher(twin, twin[0], x2, "mse"), model[0].groups),
        )


@oracle("K-FAC exact: deep linear network, squared loss", "Martens & Grosse 2015")
def exact_deep_linear(dtype):
    model, twin = pair(linear_net(), dtype)
    ((x, x2),) = numbers(dtype, toy.batch(7, (4,))[0])
    factors = kron_factors(model, [(x, torch.zeros(7, 2, dtype=dtype))], fisher="exact", loss="mse")
    for name, module in L.prunable(twin).items():
        yield name, factors[name].dense()[0], reference.exact_fisher(twin, module, x2, "mse")


@oracle("K-FAC exact: one example, exact and empirical, with bias", "Martens & Grosse 2015")
def exact_single(dtype):
    model, twin = pair(classifier(), dtype)
    (x, x2), (y, _) = numbers(dtype, *toy.batch(1, (4,)))
    for fisher in ("exact", "empirical"):
        factors = kron_factors(model, [(x, y)], fisher=fisher)
        for name, module in L.prunable(twin).items():
            truth = (
                reference.exact_fisher(twin, module, x2)
                if fisher == "exact"
                else reference.empirical_fisher(twin, module, x2, y)
            )
            yield f"{name}, {fisher}", factors[name].dense()[0], truth
    with_bias = kron_factors(model, [(x, y)], fisher="empirical", bias=True)["0"]
    g = [
        torch.autograd.grad(F.cross_entropy(twin(x2), y), p)[0]
        for p in (twin[0].weight, twin[0].bias)
    ]
    joined = torch.cat([g[0], g[1][:, None]], 1).flatten()
    yield "weight and bias", with_bias.dense()[0], torch.outer(joined, joined)
    yield (
        "split_bias",
        split_bias(with_bias, model[0]).dense()[0],
        torch.outer(g[0].flatten(), g[0].flatten()),
    )


@oracle("G factor: mean over positions and examples", "Grosse & Martens 2016 (KFC)")
def output_factors(dtype):
    model, twin = pair(toy.small_net(), dtype)
    (x, x2), (y, _) = numbers(dtype, *toy.batch(6))
    ours = kron_factors(model, [(x, y)], fisher="empirical")
    for name, index, groups in (("0", 0, 1), ("3", 3, 2), ("6", 6, 1)):
        G, positions = 0, 0
        for b in range(6):  # one backward pass an example, one outer product a position
            middle = twin[: index + 1](x2[b : b + 1]).detach().requires_grad_()
            g = torch.autograd.grad(
                F.cross_entropy(twin[index + 1 :](middle), y[b : b + 1]), middle
            )[0]
            g = g.reshape(groups, g.shape[1] // groups, -1)
            positions = g.shape[2]
            G = G + torch.stack(
                [sum(torch.outer(part[:, t], part[:, t]) for t in range(positions)) for part in g]
            )
        yield name, ours[name].G, G / 6 / positions


@oracle("moving average of the factors", "EigenDamage (released code)")
def moving_average(dtype):
    model, twin = pair(toy.small_net(), dtype)
    (x, x2), (y, _) = numbers(dtype, *toy.batch(6))
    moving = MovingKron(model, fisher="exact", decay=0.95)
    truth = None
    for i in (0, 2, 4):
        moving.update(x[i : i + 2], y[i : i + 2])
        new = kron_factors(twin, [(x2[i : i + 2], y[i : i + 2])], fisher="exact")
        truth = (
            {n: (f.A, f.G) for n, f in new.items()}
            if truth is None
            else {
                n: (0.95 * truth[n][0] + 0.05 * f.A, 0.95 * truth[n][1] + 0.05 * f.G)
                for n, f in new.items()
            }
        )
    for name, factor in moving.factors().items():
        yield f"{name}, A", factor.A, truth[name][0]
        yield f"{name}, G", factor.G, truth[name][1]


@oracle(
    "batches do not matter: factors, diagonal, rows, layer Hessians",
    "streaming",
    double=1e-10,
    single=1e-5,
)
def batch_splits(dtype):
    model, twin = pair(toy.small_net(), dtype)
    (x, x2), (y, _) = numbers(dtype, *toy.batch(12))
    split = [(x[a:b], y[a:b]) for a, b in ((0, 1), (1, 4), (4, 5), (5, 12))]
    ours, truth = (
        kron_factors(model, split, fisher="exact"),
        kron_factors(twin, [(x2, y)], fisher="exact"),
    )
    for name in ours:
        yield f"A of {name}", ours[name].A, truth[name].A
        yield f"G of {name}", ours[name].G, truth[name].G
    for label, f in {
        "diagonal": lambda m, d: diagonal_fisher(m, d, fisher="exact"),
        "rows": lambda m, d: gradient_rows(m, d, 6, 2),
        "layer Hessian": lambda m, d: input_hessian(m, d, bias=True),
    }.items():
        ours, truth = f(model, split), f(twin, [(x2, y)])
        for name in ours:
            yield f"{label} of {name}", ours[name], truth[name].double()
    statistics = [
        layer_statistics(m, d, L.prunable(m), True, size)
        for m, d, size in ((model, split, 5), (twin, [(x2, y)], 12))
    ]
    for name in statistics[0]:
        yield f"L-OBS Ψ of {name}", *(s[name].moment / s[name].count for s in statistics)


@oracle(
    "damped Kronecker inverse: π, absolute and relative damping", "Martens & Grosse 2015, Sec. 6.3"
)
def kron_inverses(dtype):
    for groups in (1, 2):
        (a, a2), (g, g2) = numbers(dtype, normal(groups, 9, 5), normal(groups, 9, 3, seed=1))
        ours, twin = (
            Kron((p.mT @ p / 9).double(), 1e-3 * (q.mT @ q / 9).double(), 1)
            for p, q in ((a, g), (a2, g2))
        )
        for pi in (True, False):
            for relative in (True, False):
                inverse, parts = KronInverse.of(ours, 1e-3, pi, relative), []
                for A, G in zip(twin.A, twin.G):
                    mean_a, mean_g = A.trace() / 5, G.trace() / 3
                    gamma = (
                        1e-3 * mean_a * mean_g
                        if relative
                        else torch.tensor(1e-3, dtype=torch.float64)
                    )
                    ratio = (mean_a / mean_g).sqrt() if pi else 1.0
                    eye = lambda n: torch.eye(n, dtype=torch.float64)
                    parts.append(
                        torch.kron(
                            G + gamma.sqrt() / ratio * eye(3), A + ratio * gamma.sqrt() * eye(5)
                        )
                    )
                truth = torch.block_diag(*parts)
                v, index = (
                    normal(len(truth), seed=2),
                    torch.randperm(len(truth), generator=toy.generator(3))[:7],
                )
                label = f"groups={groups}, pi={pi}, relative={relative}"
                yield f"{label}, times", inverse.times(v), truth @ v
                yield f"{label}, solve", inverse.solve(v), torch.linalg.solve(truth, v)
                yield f"{label}, diagonal", inverse.diagonal(), torch.linalg.inv(truth).diagonal()
                yield (
                    f"{label}, submatrix",
                    inverse.submatrix(index),
                    torch.linalg.inv(truth)[index][:, index],
                )
