"""Damped inverses in every shape, and the single, triangular and joint updates against the
constrained quadratic itself.
"""

from __future__ import annotations

import torch

from common.curvature.blocks import BlockFisher
from common.curvature.kron import Kron, KronInverse
from common.curvature.shared import DenseMatrix, LowRankMatrix, SharedRows
from common.pruning import obs
from tests import reference, toy
from tests.trust.oracles import floats, normal, numbers, oracle

SHAPES = [
    (3, 10, None),
    (12, 10, None),
    (3, 10, 4),
    (5, 12, 4),
    (7, 12, 4),
    (4, 4, 4),
    (1, 9, 2),
    (20, 7, 3),
    (9, 9, 1),
    (2, 1, None),
]


def block_fishers(dtype, damping):
    """(name, curvature, dense F): m rows of d weights in chunks; more and fewer rows than weights,
    chunks that do not divide.
    """
    for m, d, chunk in SHAPES:
        ((rows, rows2),) = numbers(dtype, normal(m, d, seed=m * d))
        yield (
            f"rows {m}x{d}, chunk {chunk}",
            BlockFisher(rows, damping, chunk),
            reference.damped_fisher(rows2, damping, chunk),
        )


def kron_curvatures(dtype, damping):
    for groups in (1, 2):
        (a, a2), (g, g2) = numbers(dtype, normal(groups, 9, 4), normal(groups, 9, 3, seed=1))
        inverse = KronInverse.of(Kron(*((p.mT @ p / 9).double() for p in (a, g)), 1), damping)
        parts = []
        for A, G in zip(a2.mT @ a2 / 9, g2.mT @ g2 / 9):
            ratio = ((A.trace() / 4) / (G.trace() / 3)).sqrt()
            parts.append(
                torch.kron(
                    G + damping**0.5 / ratio * torch.eye(3).double(),
                    A + damping**0.5 * ratio * torch.eye(4).double(),
                )
            )
        yield f"Kronecker, {groups} groups", inverse, torch.block_diag(*parts)


def shared_curvatures(dtype, damping):
    """I ⊗ F over 3 output units, F dense or of low rank, with fewer and more inputs than
    weights.
    """
    for n in (4, 11):
        ((X, X2),) = numbers(dtype, normal(n, 7, seed=n))
        truth = torch.block_diag(*[X2.T @ X2 / n + damping * torch.eye(7).double()] * 3)
        yield (
            f"shared rows, dense, {n} inputs",
            SharedRows(DenseMatrix(X2.T @ X2 / n, damping), 3),
            truth,
        )
        yield f"shared rows, low rank, {n} inputs", SharedRows(LowRankMatrix(X, damping), 3), truth


def curvatures(dtype, damping=1e-3):
    yield from block_fishers(dtype, damping)
    yield from kron_curvatures(dtype, damping)
    yield from shared_curvatures(dtype, damping)


def weights(d, seed=5):
    """(w, which go): about half of the weights, at least one."""
    pruned = torch.rand(d, generator=toy.generator(3)) < 0.5
    pruned[d // 2] = True
    return normal(d, seed=seed), pruned


@oracle(
    "damped inverse: diagonal, solve, product, submatrix; all shapes",
    "WoodFisher Eqs. 2-4; L-OBS Sec. 3.4.1",
)
def inverses(dtype):
    for damping in (1e-5, 1e-2, 10.0):
        for name, curvature, truth in curvatures(dtype, damping):
            inverse, v = torch.linalg.inv(truth), normal(len(truth), seed=2)
            index = torch.randperm(len(truth), generator=toy.generator(4))[
                : max(1, len(truth) // 2)
            ]
            label = f"{name}, damping {damping:g}"
            yield f"{label}, diagonal", curvature.diagonal(), inverse.diagonal()
            yield f"{label}, solve", curvature.solve(v), inverse @ v
            yield f"{label}, times", curvature.times(v), truth @ v
            yield f"{label}, submatrix", curvature.submatrix(index), inverse[index][:, index]


@oracle("damped inverse = the rank-one recursion", "WoodFisher Eq. 2; L-OBS Eq. 10")
def recursion(dtype):
    for m, d in ((6, 15), (15, 6), (8, 8)):
        ((rows, rows2),) = numbers(dtype, normal(m, d))
        truth, v = reference.recursive_inverse(rows2, 1e-3), normal(d, seed=1)
        fisher = BlockFisher(rows, 1e-3)
        yield f"{m}x{d}, diagonal", fisher.diagonal(), truth.diagonal()
        yield f"{m}x{d}, solve", fisher.solve(v), truth @ v
        low = LowRankMatrix(rows, 1e-3)
        yield f"{m}x{d}, L-OBS", low.solve(v[None])[0], truth @ v


@oracle(
    "score of one weight = the constrained minimum",
    "Hassibi & Stork 1993; WoodFisher Eq. 11; L-OBS Eq. 6",
)
def single_scores(dtype):
    for name, curvature, truth in curvatures(dtype):
        ((w, w2),) = numbers(dtype, normal(len(truth), seed=5))
        minimum = []
        for q in range(len(w)):
            one = torch.arange(len(w)) == q
            minimum.append(reference.constrained_minimum(truth, w2, one)[1])
        yield name, obs.score(w, curvature.diagonal()), floats(*minimum)


@oracle(
    "update of one weight, all three kinds = the constrained minimum",
    "Hassibi & Stork 1993; WoodFisher Eq. 10; L-OBS Eq. 7",
)
def single_updates(dtype):
    for name, curvature, truth in curvatures(dtype):
        ((w, w2),) = numbers(dtype, normal(len(truth), seed=5))
        one = torch.arange(len(w)) == len(w) // 2
        expected, increase = reference.constrained_minimum(truth, w2, one)
        for kind in obs.SOLVED:
            delta, predicted = obs.update(w, curvature, one, kind)
            yield f"{name}, {kind}", delta, expected
            yield f"{name}, {kind}, increase", floats(predicted), floats(increase)


@oracle("no update of a set, none: its weights go and the others stay", "the definition")
def no_updates(dtype):
    for name, curvature, truth in curvatures(dtype):
        w, pruned = weights(len(truth))
        ((w, w2),) = numbers(dtype, w)
        expected = torch.stack(
            [-w2[q] if pruned[q] else torch.zeros_like(w2[q]) for q in range(len(w2))]
        )
        delta, predicted = obs.update(w, curvature, pruned, "none")
        yield name, delta, expected
        yield f"{name}, increase", floats(predicted), (0.5 * expected @ truth @ expected)[None]


@oracle("diagonal update of a set", "WoodFisher Eq. 10 (summed, Sec. 4.3); C-OBS")
def diagonal_updates(dtype):
    for name, curvature, truth in curvatures(dtype):
        w, pruned = weights(len(truth))
        ((w, w2),) = numbers(dtype, w)
        expected = reference.summed_single(torch.linalg.inv(truth), w2, pruned)
        delta, predicted = obs.update(w, curvature, pruned, "diagonal")
        yield name, delta, expected
        yield f"{name}, increase", floats(predicted), (0.5 * expected @ truth @ expected)[None]


@oracle("triangular update of a set = one weight after the other", "L-OBS Algorithm 1")
def triangular_updates(dtype):
    for name, curvature, truth in curvatures(dtype):
        w, pruned = weights(len(truth))
        ((w, w2),) = numbers(dtype, w)
        inverse = torch.linalg.inv(truth)
        order = [
            q
            for q in torch.argsort(w2**2 / (2 * inverse.diagonal()), stable=True).tolist()
            if pruned[q]
        ]
        expected = reference.sequential_walk(inverse, w2, order)
        delta, predicted = obs.update(w, curvature, pruned, "triangular")
        yield name, delta, expected
        yield f"{name}, increase", floats(predicted), (0.5 * expected @ truth @ expected)[None]


@oracle("joint update of a set = the KKT system", "common/pruning/obs.py (ours)")
def joint_updates(dtype):
    for name, curvature, truth in curvatures(dtype):
        w, pruned = weights(len(truth))
        ((w, w2),) = numbers(dtype, w)
        expected, increase = reference.constrained_minimum(truth, w2, pruned)
        delta, predicted = obs.update(w, curvature, pruned, "joint")
        yield name, delta, expected
        if hasattr(curvature, "joint"):
            yield f"{name}, by itself", curvature.joint(w, pruned), expected
        yield f"{name}, increase", floats(predicted), floats(increase)


@oracle("re-scoring: the inverse restricted to what is left", "lobs rescore (ours)")
def restricted(dtype):
    for name, curvature, truth in shared_curvatures(dtype, 1e-3):
        target, kept = normal(3, 7, seed=5), torch.rand(3, 7, generator=toy.generator(3)) < 0.6
        new, inverse = curvature.refit(target, kept)
        expected, diagonal = torch.zeros_like(target), torch.ones_like(target)
        for i in range(3):
            F, k = truth[:7, :7], kept[i]
            expected[i, k] = torch.linalg.solve(F[k][:, k], (F @ target[i])[k])
            diagonal[i, k] = torch.linalg.inv(F[k][:, k]).diagonal()
        yield f"{name}, weights", new, expected
        yield f"{name}, diagonal", inverse, diagonal
