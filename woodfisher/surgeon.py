"""One pruning step given a curvature: statistic, selection, pruning direction. Shared by every
method of this folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import choose
from common.nets import masks as M
from common.pruning import obs
from common.pruning.select import select
from woodfisher.fisher import Part


@dataclass(frozen=True)
class SurgeonOptions:
    """What is removed, and how the rest moves."""

    # Sec. 4.3: "global" is joint WoodFisher, "layer" independent WoodFisher
    scope: str = "global"
    # Sec. 4.3: each weight's own optimum, added up and masked. Ours: "joint" and "triangular"
    update: str = "diagonal"
    min_keep: int = 1  # weights that each layer keeps at least

    def __post_init__(self):
        choose("scope", self.scope, ("global", "layer"))
        choose("update", self.update, obs.UPDATES)


def statistic(parts: list[Part]) -> dict[str, Tensor]:
    """ρ_q = w_q² / (2 [F̂⁻¹]_qq) (Eq. 11) by layer name, weight-shaped, float64."""
    result = {}
    for part in parts:
        w = part.flat({name: module.weight.detach() for name, module in part.layers.items()})
        result |= part.split(obs.score(w, part.curvature.diagonal()))
    return result


@torch.no_grad()
def step(
    model: nn.Module,
    parts: list[Part],
    scores: Mapping[str, Tensor],
    amount: float | Mapping[str, float],
    options: SurgeonOptions,
    masks: M.Masks | None = None,
) -> tuple[M.Masks, float]:
    """Remove the lowest `scores` of `model`, in place, and move the other weights along the pruning
    direction (Eq. 10).

    parts: curvatures over modules of `model`. Returns (masks, predicted loss increase ½ δᵀF̂δ of
    the whole step). Raises before any weight is written.
    """
    before = (
        None
        if masks is None
        else {name.removesuffix(".weight"): mask for name, mask in masks.items()}
    )
    kept = select(scores, amount, options.scope, before, options.min_keep)
    moved, predicted = {}, 0.0
    for part in parts:
        w = part.flat({name: module.weight for name, module in part.layers.items()})
        name = next(iter(part.layers))
        delta, increase = obs.update(
            w, part.curvature, ~part.flat(kept), options.update, part.flat(scores), name
        )
        moved |= part.split(w + delta)
        predicted += increase
    for part in parts:
        for name, module in part.layers.items():
            module.weight.copy_(moved[name])
    result = {f"{name}.weight": mask for name, mask in kept.items()}
    M.apply(model, result)
    return result, predicted
