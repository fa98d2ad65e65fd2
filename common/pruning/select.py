"""Selection: which entries go, given scores. Counts are exact under ties, and no layer is emptied
by accident.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real

import torch
from torch import Tensor

from common.cells.errors import NumericalError, UserError, choose
from common.pruning import pattern
from common.pruning.pattern import Pattern


def count(amount: float, total: int) -> int:
    """How many of `total` a fraction removes, rounded to the nearest."""
    return round(fraction(amount) * total)


def fraction(amount: object, field: str = "sparsity") -> float:
    """`amount`; UserError where it is no number, or none in [0, 1)."""
    remedy = "give the fraction REMOVED, 0.9 for 90%"
    if not isinstance(amount, Real) or isinstance(amount, bool):
        raise UserError(field, amount, "is no number", remedy)
    if not 0 <= amount < 1:
        raise UserError(field, amount, "outside [0, 1)", remedy)
    return amount


def by_layer(amount: float | Mapping[str, float], layers: Iterable[str]) -> dict[str, float]:
    """The fraction of each layer, in the layers' order, from one for all or one a layer. Raises
    UserError for a name that is no layer and for a layer without a fraction."""
    layers = list(layers)
    if not isinstance(amount, Mapping):
        return dict.fromkeys(layers, fraction(amount))
    unmatched = set(amount) ^ set(layers)
    if unmatched:
        raise UserError(
            "sparsity", min(unmatched, key=str), "names no layer, or a layer has no fraction"
        )
    return {name: amount[name] for name in layers}


def select(
    scores: Mapping[str, Tensor],
    amount: float | Mapping[str, float],
    scope: str = "global",
    masks: Mapping[str, Tensor] | None = None,
    min_keep: int = 1,
) -> dict[str, Tensor]:
    """Boolean masks (True = kept) that remove the lowest scores.

    amount: fraction of all entries removed in the end, over everything ("global") or in each tensor
    ("layer"). It may also map names to fractions of their own, with "*" for all others: together in
    the global scope, each in the layer scope. A Pattern (pattern.py) keeps N of every M weights
    along the inputs of [out, in, ...], whatever the scope is. Entries that `masks` already removed
    stay removed and count towards it. Every tensor keeps at least its `min_keep` best entries.
    Exactly round(amount × total) entries are removed; equal scores go in index order.

    Raises UserError when more is already removed than asked or `min_keep` forbids the amount,
    NumericalError for NaN scores.
    """
    choose("scope", scope, ("global", "layer"))
    for name, score in scores.items():
        if torch.isnan(score).any():
            raise NumericalError(
                name, "has NaN scores", "raise --damping, or check the calibration data"
            )
    if isinstance(amount, Pattern):
        return {
            name: pattern.kept(
                name, score, amount, None if masks is None or name not in masks else ~masks[name]
            )
            for name, score in scores.items()
        }
    own = dict(amount) if isinstance(amount, Mapping) else {"*": amount}
    rest = own.pop("*", None)
    others = {name: score for name, score in scores.items() if name not in own}
    missing = sorted(set(own) - set(scores)) or (sorted(others) if rest is None else [])
    if missing:
        raise UserError(
            "sparsity",
            missing[0],
            "names no layer, or a layer has no fraction",
            f"layers: {', '.join(scores)}, or * for all others",
        )
    if scope == "layer":
        own |= dict.fromkeys(others, rest)
    result = {}
    for name in own:
        result |= _cut({name: scores[name]}, own[name], masks, min_keep)
    if scope == "global" and others:
        result |= _cut(others, rest, masks, min_keep)
    return {name: result[name] for name in scores}


def _cut(
    scores: Mapping[str, Tensor], amount: float, masks: Mapping[str, Tensor] | None, min_keep: int
) -> dict[str, Tensor]:
    flat = [score.detach().double().flatten() for score in scores.values()]
    gone = [
        (
            torch.zeros_like(s, dtype=torch.bool)
            if masks is None or name not in masks
            else ~masks[name]
        ).flatten()
        for name, s in scores.items()
    ]
    total, already = sum(map(len, flat)), sum(int(lost.sum()) for lost in gone)
    goal = count(amount, total)
    if already > goal:
        raise UserError(
            "sparsity",
            amount,
            f"{already} of {total} weights are already removed, {goal} were asked",
            "ask for at least the sparsity the network has",
        )
    # what each tensor must keep leaves the ranking; -inf scores may go first, +inf last
    free = []
    for values, lost in zip(flat, gone, strict=True):
        best = lowest(
            [(-values).masked_fill_(lost, torch.inf)],
            [torch.ones_like(lost)],
            min(min_keep, len(values)),
        )[0]
        free.append(~(lost | best))
    if goal - already > sum(int(may.sum()) for may in free):
        raise UserError(
            "sparsity",
            amount,
            f"{goal} of {total} removed would leave a tensor fewer than {min_keep} weights",
            "ask for less",
        )
    chosen = lowest(flat, free, goal - already)
    return {
        name: ~(lost | mine).reshape(score.shape)
        for (name, score), lost, mine in zip(scores.items(), gone, chosen, strict=True)
    }


def lowest(values: Sequence[Tensor], free: Sequence[Tensor], number: int) -> list[Tensor]:
    """Boolean masks of the `number` lowest of all `values` that are `free`, equal ones in index
    order; at most all that are free.

    values: float64, flat, without NaN; free: bool, of the same shapes. Nothing is sorted: the
    number-th lowest value divides them, found in linear time in one copy of the values, the only
    memory that is taken beside masks.
    """
    if not number:
        return [torch.zeros_like(may) for may in free]
    edge = _ranked(values, free, number)
    chosen = [may & (v < edge) for v, may in zip(values, free, strict=True)]
    left = number - sum(int(mine.sum()) for mine in chosen)
    for v, may, mine in zip(values, free, chosen, strict=True):
        equal = (may & (v == edge)).nonzero().flatten()[:left]
        mine[equal] = True
        left -= len(equal)
    return chosen


def _ranked(values: Sequence[Tensor], free: Sequence[Tensor], number: int) -> float:
    """The number-th lowest of the free values."""
    every = torch.empty(sum(map(len, values)), dtype=torch.float64)
    for part, v, may in zip(every.split([len(v) for v in values]), values, free, strict=True):
        part.copy_(v).masked_fill_(~may.cpu(), torch.inf)
    every.numpy().partition(number - 1)  # in place, where kthvalue would copy and number it
    return float(every[number - 1])
