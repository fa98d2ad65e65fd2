"""How sparsity grows over a gradual run (Zhu & Gupta 2017 for the cubic one, WoodFisher Sec. S1.1;
geometric is ours).
"""

from __future__ import annotations

import math

from common.cells.errors import UserError, choose
from common.cells.spec import Recipe

POWERS = {"constant": 0, "linear": 1, "cubic": 3}
MAX_PRUNINGS = 10_000
KINDS = (*POWERS, "geometric")


def sparsity_at(progress: float, final: float, initial: float = 0.0, kind: str = "cubic") -> float:
    """s_f − (s_f − s_0)(1 − t)^p at t = `progress` in [0, 1]; p = 3 cubic, 1 linear, 0⁺ constant
    (s_f from the start). geometric: the kept fraction falls by equal factors, (1 − s_0)^(1 − t) (1
    − s_f)^t."""
    choose("step_schedule", kind, KINDS)
    if not 0 <= progress <= 1:
        raise UserError("progress", progress, "outside [0, 1]")
    if initial > final:
        raise UserError("initial_sparsity", initial, f"above the final {final}", "start lower")
    if kind == "geometric":
        return (
            final
            if progress == 1
            else 1 - (1 - initial) ** (1 - progress) * (1 - final) ** progress
        )
    power = POWERS[kind]
    return final if power == 0 else final - (final - initial) * (1 - progress) ** power


def levels(steps: int, final: float, initial: float = 0.0, kind: str = "cubic") -> list[float]:
    """The amounts of `steps` prunings. The first of several is already above `initial`, and the
    last is exactly `final`.
    """
    _require_few("steps", steps, steps)
    return [sparsity_at((i + 1) / steps, final, initial, kind) for i in range(steps)]


def shrinking(ratio: float, final: float) -> list[float]:
    """The amounts of prunings that each remove `ratio` of what is left (NAP Sec. 3.1), up to
    exactly `final`. Raises UserError where nothing is to be removed."""
    if not 0 < ratio < 1:
        raise UserError(
            "step_ratio",
            ratio,
            "outside (0, 1)",
            "give the fraction of what is left that a step removes",
        )
    if not 0 < final < 1:
        raise UserError("sparsity", final, "is met already", "ask for more than 0")
    steps = max(1, math.ceil(math.log1p(-final) / math.log1p(-ratio) - 1e-9))
    _require_few("step_ratio", ratio, steps)
    return [1 - (1 - ratio) ** (i + 1) for i in range(steps - 1)] + [final]


def _require_few(field: str, value: float, prunings: int) -> None:
    if prunings > MAX_PRUNINGS:
        raise UserError(
            field, value, f"means {prunings:,} prunings", f"ask for at most {MAX_PRUNINGS:,}"
        )


def zhu_gupta(
    final: float, start: float, every: float, end: float, initial: float = 0.05
) -> tuple[float, ...]:
    """The amounts of prunings at the epochs start, start + every, ... <= end (Zhu & Gupta 2017, eq.
    1; WoodFisher Sec. S1.1): `initial` at `start`, `final` at `end`. Where `every` does not divide
    end - start the last pruning comes before `end` and stays a little below `final`. Raises
    UserError for an empty or endless course."""
    if not (every > 0 and end > start):
        raise UserError(
            "step_epochs", every, f"prunes never, or without end, from epoch {start:g} to {end:g}"
        )
    count = math.floor((end - start) / every + 1e-9) + 1
    return tuple(
        sparsity_at(min(1.0, i * every / (end - start)), final, initial) for i in range(count)
    )


def learning_rate(recipe: Recipe, step: float, steps_per_epoch: float, total: float) -> float:
    """The learning rate of optimiser step `step` (from 0) of `total`."""
    epoch = step / steps_per_epoch
    if recipe.schedule == "multistep":
        # fractions of an epoch are not exact
        return recipe.lr * recipe.gamma ** sum(epoch >= m - 1e-9 for m in recipe.milestones)
    if recipe.schedule == "cosine":
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * step / (total or 1)))
    if recipe.schedule == "exponential":
        return recipe.lr * recipe.gamma ** int(epoch)
    return recipe.lr
