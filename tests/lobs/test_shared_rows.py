"""The row-shared curvature, dense and low-rank, against the explicit block-diagonal matrix and the
one-weight-at-a-time walk.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.cells.errors import NumericalError, UserError
from common.curvature import shared
from common.curvature.shared import DenseMatrix, LowRankMatrix, SharedRows
from common.pruning import obs
from tests import reference, toy

RIDGE = 1e-2


def problem(n=4, rows=3, width=9, seed=0):
    """(X [n, width], W flat, the explicit F of all rows)."""
    g = toy.generator(seed)
    X = torch.randn(n, width, generator=g, dtype=torch.float64)
    w = torch.randn(rows * width, generator=g, dtype=torch.float64)
    F = X.T @ X / n + RIDGE * torch.eye(width, dtype=torch.float64)
    return X, w, torch.block_diag(*[F] * rows)


def both(X, rows):
    return {
        "dense": SharedRows(DenseMatrix(X.T @ X / len(X), RIDGE), rows),
        "low-rank": SharedRows(LowRankMatrix(X, RIDGE), rows),
    }


def equal(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


@pytest.mark.parametrize("kind", ["dense", "low-rank"])
@pytest.mark.parametrize("n", [1, 4, 20])
def test_it_is_the_explicit_block_diagonal_matrix(kind, n):
    X, w, F = problem(n)
    curvature, inverse = both(X, 3)[kind], torch.linalg.inv(F)
    equal(curvature.diagonal(), inverse.diagonal())
    equal(curvature.solve(w), inverse @ w)
    equal(curvature.times(w), F @ w)
    index = torch.randperm(27, generator=toy.generator())[:15]
    equal(curvature.submatrix(index), inverse[index][:, index])


@pytest.mark.parametrize("work", [1, 200, shared.WORK_ENTRIES])
@pytest.mark.parametrize("walk", [1, 2, 256])
@pytest.mark.parametrize("kind", ["dense", "low-rank"])
def test_the_walk_is_one_weight_after_the_other(kind, walk, work, monkeypatch):
    """Whatever is solved together. Rows lose different numbers of weights, one row none and one
    all.
    """
    monkeypatch.setattr(shared, "WALK", walk)
    monkeypatch.setattr(shared, "WORK_ENTRIES", work)
    X, w, F = problem(rows=5)
    pruned = (
        torch.rand(5, 9, generator=toy.generator(3))
        < torch.tensor([0.0, 0.3, 0.6, 0.9, 1.1])[:, None]
    ).flatten()
    inverse = torch.linalg.inv(F)
    scores = w**2 / (2 * inverse.diagonal())
    truth = reference.sequential_walk(
        inverse, w, [q for q in scores.argsort().tolist() if pruned[q]]
    )
    delta, predicted = obs.update(w, both(X, 5)[kind], pruned, "triangular")
    equal(delta, truth)
    assert predicted == pytest.approx(0.5 * float(truth @ F @ truth), rel=1e-9)


@pytest.mark.parametrize("work", [1, 200, shared.WORK_ENTRIES])
@pytest.mark.parametrize("kind", ["dense", "low-rank"])
def test_joint_solves_the_constrained_quadratic_and_scores_the_next_weight(kind, work, monkeypatch):
    monkeypatch.setattr(shared, "WORK_ENTRIES", work)
    X, w, F = problem(rows=5)
    curvature = both(X, 5)[kind]
    pruned = (
        torch.rand(5, 9, generator=toy.generator(3))
        < torch.tensor([0.0, 0.3, 0.6, 0.9, 1.1])[:, None]
    ).flatten()
    truth, increase = reference.constrained_minimum(F, w, pruned)
    delta, predicted = obs.update(w, curvature, pruned, "joint")
    equal(delta, truth)
    assert predicted == pytest.approx(increase, rel=1e-9)
    new, inverse = (t.flatten() for t in curvature.refit(w.reshape(5, 9), ~pruned.reshape(5, 9)))
    equal(new, w + truth)
    kept = (~pruned).nonzero().flatten()
    equal(inverse[kept], torch.linalg.inv(F[kept][:, kept]).diagonal())
    # the score of a kept weight is what the optimum loses when it goes as well
    for q in kept.tolist()[:6]:
        more = pruned | (torch.arange(45) == q)
        assert float(obs.score(new[q], inverse[q])) == pytest.approx(
            reference.constrained_minimum(F, w, more)[1] - increase, rel=1e-6
        )


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(2, 8),
    st.integers(0, 2**31),
    st.floats(0.1, 0.95),
)
def test_dense_and_low_rank_agree_and_joint_is_never_worse(n, rows, width, seed, amount):
    X, w, _ = problem(n, rows, width, seed)
    pruned = torch.rand(rows * width, generator=toy.generator(seed)) < amount
    found = {
        kind: {u: obs.update(w, c, pruned, u) for u in obs.UPDATES}
        for kind, c in both(X, rows).items()
    }
    for u in obs.UPDATES:
        torch.testing.assert_close(
            found["dense"][u][0], found["low-rank"][u][0], rtol=1e-7, atol=1e-9
        )
        assert found["dense"][u][1] >= found["dense"]["joint"][1] * (1 - 1e-7)


def test_a_singular_or_broken_hessian_names_the_layer_and_a_bad_ridge_the_field():
    singular = -torch.eye(3, dtype=torch.float64)
    with pytest.raises(NumericalError, match="'fc1'.*raise --damping"):
        DenseMatrix(singular, 1e-6, "fc1")
    with pytest.raises(NumericalError, match="'fc1'"):
        LowRankMatrix(torch.full((2, 4), float("nan")), 1e-6, "fc1")
    for ridge in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="damping"):
            DenseMatrix(torch.eye(3), ridge)
