"""Exact greedy elimination against a twin that refits everything for every candidate."""

import pytest
import torch
from torch import Tensor

from common.cells.errors import UserError
from common.curvature import elimination
from common.curvature.shared import DenseMatrix, LowRankMatrix
from common.system import machine
from tests import reference, toy

RIDGE = 1e-2


def problem(n: int, rows: int, examples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs [examples, n] that hang together, and weights [rows, n]."""
    generator = toy.generator(seed)
    X = torch.randn(examples, n, generator=generator, dtype=torch.float64)
    X = X @ torch.randn(n, n, generator=generator, dtype=torch.float64)
    return X, torch.randn(rows, n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("block", [1, 3, 48])
@pytest.mark.parametrize("shrink", [0.5, 1.0])
@pytest.mark.parametrize("kind", ["dense", "few inputs"])
def test_every_removal_is_the_cheapest_with_all_others_refitted(block, shrink, kind, monkeypatch):
    """In each row by itself; a column that stays, one whose input is dead, weights gone before."""
    monkeypatch.setattr(elimination, "BLOCK", block)
    monkeypatch.setattr(elimination, "SHRINK", shrink)
    monkeypatch.setattr(elimination, "WORK_ENTRIES", 200)  # two rows at a time
    X, W = problem(10, 5, 30 if kind == "dense" else 7)
    X[:, 4] = 0
    matrix = DenseMatrix(X.T @ X / len(X), RIDGE) if kind == "dense" else LowRankMatrix(X, RIDGE)
    F = X.T @ X / len(X) + RIDGE * torch.eye(10, dtype=torch.float64)
    kept = torch.ones_like(W, dtype=torch.bool)
    kept[1, 2] = kept[1, 7] = kept[3, 0] = False
    free = torch.arange(10) < 9
    found = matrix.eliminated(W, kept, free, torch.arange(10) == 4)
    assert torch.isinf(found.score[:, 9]).all() and not found.loss[:, 9].any()
    for row in range(len(W)):
        first = (~kept[row]).nonzero()[:, 0].tolist()
        candidates = [q for q in range(9) if q != 4]
        order, losses = reference.greedy_elimination(F, W[row], first, candidates)
        assert found.score[row].argsort()[len(first) + 1 : 9].tolist() == order
        torch.testing.assert_close(
            found.loss[row, order], torch.tensor(losses, dtype=torch.float64), rtol=1e-7, atol=1e-9
        )
        assert not found.loss[row, [*first, 4]].any()


def test_scores_below_any_threshold_are_a_prefix_of_the_order():
    """Losses fall as often as they rise; ties, too, keep the order, and a factor does."""
    losses = torch.tensor([[0.0, 0.0, 3.0, 1.0, 3.0, 2.0, 5.0]], dtype=torch.float64)
    scores = elimination._increasing(losses)
    for factor in (1.0, 1 / 3, 1e-7):
        assert (scores[:, 2:] * factor).diff().gt(0).all()
    assert scores.diff().gt(0).all()
    torch.testing.assert_close(scores, losses.cummax(1).values, rtol=1e-14, atol=1e-300)


def test_equal_weights_without_coupling_go_in_their_order():
    F = DenseMatrix(torch.eye(6, dtype=torch.float64), RIDGE)
    W = torch.ones(2, 6, dtype=torch.float64)
    yes = torch.ones(6, dtype=torch.bool)
    found = F.eliminated(W, W.bool(), yes, ~yes)
    assert found.score.argsort().tolist() == [list(range(6))] * 2
    torch.testing.assert_close(found.loss, torch.full_like(W, (1 + RIDGE) / 2))


def test_the_forecast_counts_the_rows_that_are_there():
    """Three rows of three weights take kilobytes, whatever fits the working memory."""
    X, W = problem(3, 3, 9)
    yes = torch.ones(3, dtype=torch.bool)
    with machine.memory_budget(1e-5):
        DenseMatrix(X.T @ X / 9, RIDGE).eliminated(W, W.bool() | yes, yes, ~yes)
    X, W = problem(40, 3, 90)
    yes = torch.ones(40, dtype=torch.bool)
    with machine.memory_budget(1e-4), pytest.raises(UserError, match="elimination of layer 'fc'"):
        DenseMatrix(X.T @ X / 90, RIDGE, "fc").eliminated(W, W.bool() | yes, yes, ~yes)
