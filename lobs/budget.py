"""One budget for all layers (ours): divided so that the next weight costs every layer the same."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from common.cells.errors import UserError

GRID_LEAST, GRID_POINTS = 1e-3, 400  # kept fractions among which a budget is divided
HALF = 0.5


def shares(before: float, final: float, steps: int) -> list[float]:
    """Kept fractions after each of `steps` prunings, from `before` to `final`. The first pruning
    removes half: little is lost there, and inverses of what is left are most expensive. The others
    remove equal fractions of what is left."""
    first = min(before, max(final, HALF))
    return (
        [first * (final / first) ** (i / (steps - 1)) for i in range(steps)]
        if steps > 1
        else [final]
    )


def divide(
    curves: Mapping[str, list[tuple[float, float]]], totals: Mapping[str, int], amount: float
) -> dict[str, float]:
    """Fractions removed, by layer, that minimise the sum of relative layer errors while `amount` of
    all weights is removed.

    curves: (kept fraction, error relative to the layer's output) along a pruning of each layer,
    interpolated linearly in log kept. totals: weights of each layer. At the minimum the next weight
    costs every layer the same: one Lagrange multiplier, found by bisection on a grid of kept
    fractions. The largest layer takes the rest, so that the total is exact.
    """
    grid = torch.logspace(math.log10(GRID_LEAST), 0, GRID_POINTS, dtype=torch.float64)
    errors = {name: interpolated(grid, curve) for name, curve in curves.items()}
    budget = sum(totals.values()) - round(amount * sum(totals.values()))

    def kept_at(price: float) -> dict[str, int]:
        return {
            name: max(1, round(float(grid[(errors[name] + price * total * grid).argmin()]) * total))
            for name, total in totals.items()
        }

    low, high = 1e-18, 1e6  # error a weight
    for _ in range(100):
        price = math.sqrt(low * high)
        low, high = (price, high) if sum(kept_at(price).values()) > budget else (low, price)
    counts, largest = kept_at(high), max(totals, key=totals.__getitem__)
    counts[largest] += budget - sum(counts.values())
    if not 0 < counts[largest] <= totals[largest]:
        raise UserError(
            "sparsity",
            amount,
            f"cannot be divided over {len(totals)} layers",
            "give a fraction a layer",
        )
    return {name: 1 - counts[name] / totals[name] for name in totals}


def interpolated(grid: Tensor, curve: list[tuple[float, float]]) -> Tensor:
    """Errors at the grid's kept fractions, linear in log kept, constant beyond the last point."""
    kept, error = (
        torch.tensor(values, dtype=torch.float64) for values in zip(*sorted(curve), strict=True)
    )
    if len(kept) == 1:
        return error.expand_as(grid)
    kept, grid = kept.log(), grid.log()
    right = torch.searchsorted(kept, grid).clamp(1, len(kept) - 1)
    share = ((grid - kept[right - 1]) / (kept[right] - kept[right - 1])).clamp(0, 1)
    return error[right - 1] + share * (error[right] - error[right - 1])
