"""How much of a layer goes: the paper's tolerance, its watch on the network's performance, and our
two: the elbow of the sensitivities, and one budget divided over all layers.

Every rule answers with the fraction removed. Sensitivities L_q carry the ½ (README, Units): √(2
L_q) is the RMS error that the layer's output has once weight q is gone, which Eq. 3 and Eq. 7 call
√δE.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from common.cells.errors import UserError

GRID_LEAST, GRID_POINTS = 1e-3, 400  # kept fractions among which a budget is divided
HALF = 0.5
RISE_BY = 0.8  # what a rising tolerance leaves of the weights that the one before it left


def output_errors(scores: Tensor) -> Tensor:
    """The right side of Eq. 7 for every weight: |Θ_q| / √(2 [H⁻¹]_qq) = √(2 L_q), as H = ∂²E/∂Θ² is
    2Ψ for the E of Eq. 3.
    """
    return (2 * scores).sqrt()


def tolerated(scores: Tensor, epsilon: float) -> float:
    """Step 5 of the algorithm: the fraction of weights that each alone move the layer's output by
    at most ε, root mean square.
    """
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise UserError(
            "epsilon",
            epsilon,
            "must be positive and finite",
            "it bounds the error of the layer's output, in its units",
        )
    return float((output_errors(scores) <= epsilon).double().mean())


def rising(scores: Tensor) -> Iterator[float]:
    """Tolerances from a small one up, each met by so many weights that RISE_BY of those it left
    before stay.
    """
    errors = output_errors(scores).flatten().sort().values
    kept = RISE_BY
    while kept * len(errors) >= 1:
        yield float(errors[len(errors) - 1 - int(kept * len(errors))])
        kept *= RISE_BY


def watched(
    scores: Tensor, least: float, most: float, cost: Callable[[float], float], bound: float
) -> float:
    """Secs. 3.4.1 and 4.1: ε rises from a small value, the network's performance is watched, and
    pruning stops where it falls.

    cost: the accuracy (a fraction) that a network loses whose layer is pruned by so much. The
    answer is the fraction removed at the last ε before the first that costs more than `bound`;
    nothing below `least` or above `most` is tried.
    """
    best = least
    for epsilon in rising(scores):
        removed = min(tolerated(scores, epsilon) if epsilon else 0.0, most)
        if removed > best:
            if cost(removed) > bound:
                break
            best = removed
    return best


def inflection(scores: Tensor) -> float:
    """An inflection point without a look at the network (ours): where the curve of sorted √L_q
    against the fraction removed, scaled to the unit square, lies furthest below its chord. From
    there on a further weight costs more than the average one."""
    curve = scores.sqrt().sort().values
    if len(curve) < 3 or float(curve[-1]) <= float(curve[0]):
        return 0.0
    height = (curve - curve[0]) / (curve[-1] - curve[0])
    return int(
        (torch.linspace(0, 1, len(curve), dtype=curve.dtype, device=curve.device) - height).argmax()
    ) / len(curve)


def shares(before: float, final: float, steps: int) -> list[float]:
    """Kept fractions of `steps` prunings from `before` to `final`: at once to a half, where little
    is lost and the inverses of what is left are largest, then by equal factors."""
    first = min(before, max(final, HALF))
    return (
        [first * (final / first) ** (i / (steps - 1)) for i in range(steps)]
        if steps > 1
        else [final]
    )


def divide(
    curves: Mapping[str, list[tuple[float, float]]], totals: Mapping[str, int], amount: float
) -> dict[str, float]:
    """Fractions removed, by layer, that minimise the sum of relative layer errors at one fraction
    removed over all.

    curves: (kept fraction, error relative to the layer's output) along a pruning of each layer,
    joined by straight lines in log kept. At the minimum every layer pays the same for its next
    weight (one Lagrange multiplier, by bisection); what the grid leaves over goes to the largest
    layer, so that the total is exact.
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
    """Errors at the grid's kept fractions, linear in log kept; beyond the last point the last
    error.
    """
    kept, error = (
        torch.tensor(values, dtype=torch.float64) for values in zip(*sorted(curve), strict=True)
    )
    if len(kept) == 1:
        return error.expand_as(grid)
    kept, grid = kept.log(), grid.log()
    right = torch.searchsorted(kept, grid).clamp(1, len(kept) - 1)
    share = ((grid - kept[right - 1]) / (kept[right] - kept[right - 1])).clamp(0, 1)
    return error[right - 1] + share * (error[right] - error[right - 1])
