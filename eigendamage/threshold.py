"""Which units go: one percentile over the whole network, with a cap on what a single layer may
lose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from common.cells.errors import UserError
from common.pruning.select import fraction, select

# one-pass: at most this share of a layer's units goes (Sec. 5.2); 0.5 an iteration in iterative
# pruning (Sec. 5.3)
CAP = 0.95


def require_cap(cap: float) -> None:
    """UserError for a cap outside (0, 1]."""
    if not 0 < cap <= 1:
        raise UserError(
            "cap", cap, "outside (0, 1]", "give the largest fraction of a layer's units that may go"
        )


def percentile(
    scores: Mapping[str, Tensor], amount: float, cap: float
) -> tuple[dict[str, Tensor], list[str]]:
    """(True = kept, notes) for 1-d `scores` by layer: the lowest `amount` of all units go, whatever
    layer they are in.

    A layer that would lose more than `cap` keeps its best units by a percentile of its own, so that
    less than `amount` goes in all (the notes say how much). The best unit of a layer is always
    kept. Raises UserError for an amount that would empty a layer and NumericalError for NaN scores.
    """
    kept, notes = select(scores, fraction(amount)), []
    for name, score in scores.items():
        most = math.floor(cap * len(score) + 1e-9)
        if int((~kept[name]).sum()) > most:
            kept[name] = select({name: score}, most / len(score), "layer")[name]
            notes.append(f"{name}: capped at {most} of {len(score)} units")
    if notes:
        gone, total = (
            sum(int((~k).sum()) for k in kept.values()),
            sum(len(k) for k in kept.values()),
        )
        notes.append(
            f"{gone} of {total} units removed after the cap, {round(amount * total)} were asked"
        )
    return kept, notes
