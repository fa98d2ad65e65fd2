"""Selection: which entries go, given scores. Counts are exact under ties, and no layer is emptied by accident."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from common.errors import NumericalError, UserError, choose


def count(amount: float, total: int) -> int:
    """How many of `total` a fraction removes, rounded to the nearest."""
    if not 0 <= amount < 1:
        raise UserError("sparsity", amount, "outside [0, 1)", "give the fraction REMOVED, 0.9 for 90%")
    return round(amount * total)


def select(scores: Mapping[str, Tensor], amount: float | Mapping[str, float], scope: str = "global",
           masks: Mapping[str, Tensor] | None = None, min_keep: int = 1) -> dict[str, Tensor]:
    """Boolean masks (True = kept) that remove the lowest scores.

    amount: fraction of all entries removed in the end, over everything ("global") or in each tensor ("layer"). It may also map
    names to fractions of their own, with "*" for all others: together in the global scope, each in the layer scope. Entries that
    `masks` already removed stay removed and count towards it. Every tensor keeps at least its `min_keep` best entries. Exactly
    round(amount × total) entries are removed; equal scores go in index order.

    Raises UserError when more is already removed than asked or `min_keep` forbids the amount, NumericalError for NaN scores.
    """
    choose("scope", scope, ("global", "layer"))
    for name, score in scores.items():
        if torch.isnan(score).any():
            raise NumericalError(name, "has NaN scores", "raise --damping, or check the calibration data")
    own = dict(amount) if isinstance(amount, Mapping) else {"*": amount}
    rest = own.pop("*", None)
    others = {name: score for name, score in scores.items() if name not in own}
    missing = sorted(set(own) - set(scores)) or (sorted(others) if rest is None else [])
    if missing:
        raise UserError("sparsity", missing[0], "names no layer, or a layer has no fraction",
                        f"layers: {', '.join(scores)}, or * for all others")
    if scope == "layer":
        own |= dict.fromkeys(others, rest)
    result = {}
    for name in own:
        result |= _cut({name: scores[name]}, own[name], masks, min_keep)
    if scope == "global" and others:
        result |= _cut(others, rest, masks, min_keep)
    return {name: result[name] for name in scores}


def _cut(scores: Mapping[str, Tensor], amount: float, masks: Mapping[str, Tensor] | None, min_keep: int) -> dict[str, Tensor]:
    flat = torch.cat([score.detach().double().flatten() for score in scores.values()])
    gone = torch.cat([(torch.zeros_like(s, dtype=torch.bool) if masks is None or name not in masks else ~masks[name]).flatten()
                      for name, s in scores.items()])
    goal, already = count(amount, len(flat)), int(gone.sum())
    if already > goal:
        raise UserError("sparsity", amount, f"{already} of {len(flat)} weights are already removed, {goal} were asked",
                        "ask for at least the sparsity the network has")
    # what each tensor must keep leaves the ranking; -inf scores may go first, +inf last
    protected = torch.zeros_like(gone)
    start = 0
    for score in scores.values():
        stop = start + score.numel()
        rank = flat[start:stop].masked_fill(gone[start:stop], -torch.inf)
        best = torch.argsort(rank, stable=True, descending=True)[:min_keep]
        protected[start + best] = True
        start = stop
    free = (~gone & ~protected).nonzero().flatten()
    if goal - already > len(free):
        raise UserError("sparsity", amount, f"{goal} of {len(flat)} removed would leave a tensor fewer than {min_keep} weights",
                        "ask for less")
    order = torch.argsort(flat[free], stable=True)[:goal - already]
    gone = gone.index_fill(0, free[order], True)
    parts = gone.split([score.numel() for score in scores.values()])
    return {name: ~part.reshape(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}
