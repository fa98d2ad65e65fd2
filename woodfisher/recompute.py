"""The targets between which the Fisher is computed anew, without training (WoodFisher Fig. 4)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from common.cells.schedule import levels
from common.nets import masks as M
from common.pruning.pattern import Pattern
from common.pruning.select import fraction


def targets_to(
    amount: float | Mapping[str, float],
    layers: Mapping[str, nn.Module],
    masks: M.Masks,
    scope: str,
    recompute: int,
    schedule: str,
) -> list[float] | list[dict[str, float]]:
    """What is removed after each of `recompute` + 1 estimates: from what `masks` have removed of
    `layers` to `amount`, of all or by layer name.

    With scope="layer" and one amount the way begins where the most pruned layer is.
    """
    for goal in amount.values() if isinstance(amount, Mapping) else [amount]:
        fraction(goal)
    removed = {name: 1 - float(mask.double().mean()) for name, mask in masks.items()}
    steps = recompute + 1
    if isinstance(amount, Mapping):
        each = {
            name: levels(steps, goal, min(goal, removed.get(f"{name}.weight", 0.0)), schedule)
            for name, goal in amount.items()
        }
        return [{name: goals[i] for name, goals in each.items()} for i in range(steps)]
    if scope == "layer":
        start = max(removed.values(), default=0.0)
    else:
        gone = sum(
            int((~masks[f"{name}.weight"]).sum()) for name in layers if f"{name}.weight" in masks
        )
        start = gone / sum(module.weight.numel() for module in layers.values())
    way = levels(steps, amount, min(amount, start), schedule)
    return [*way[:-1], amount] if isinstance(amount, Pattern) else way
