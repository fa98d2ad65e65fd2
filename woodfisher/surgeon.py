"""One pruning step given a curvature: statistic, choice, pruning direction. Shared by every method
of this folder.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.curvature.fisher import Part
from common.nets import masks as M
from common.pruning import obs
from common.pruning.select import select


def statistic(parts: list[Part]) -> dict[str, Tensor]:
    """ρ_q = w_q² / (2 [F̂⁻¹]_qq) (Eq. 11) by layer name, weight-shaped, float64."""
    result = {}
    for part in parts:
        result |= part.split(obs.score(part.weights(), part.curvature.diagonal()))
    return result


def selection(
    scores: Mapping[str, Tensor],
    amount: float | Mapping[str, float],
    scope: str,
    masks: M.Masks | None = None,
    min_keep: int = 1,
) -> M.Masks:
    """The masks without the lowest `scores`, over all layers or in each (Sec. 4.3). masks: weights
    already removed, which stay so and count towards `amount`. Raises as `select` does.
    """
    before = None
    if masks is not None:
        before = {name.removesuffix(".weight"): mask for name, mask in masks.items()}
    kept = select(scores, amount, scope, before, min_keep)
    return {f"{name}.weight": mask for name, mask in kept.items()}


@torch.no_grad()
def step(
    model: nn.Module,
    parts: list[Part],
    masks: M.Masks,
    scores: Mapping[str, Tensor],
    update: str = "diagonal",
) -> float:
    """Remove what `masks` do not keep, in place, and move the other weights along the pruning
    direction δw (Eq. 10, summed and masked: Sec. 4.3). Returns the predicted loss increase ½ δwᵀF̂δw
    of the whole step.

    parts: curvatures over modules of `model`. update: the kind of δw (common.pruning.obs); `scores`
    order the triangular one. Raises before any weight is written.
    """
    moved, predicted = {}, 0.0
    for part in parts:
        w = part.weights()
        gone = ~part.flat({name: masks[f"{name}.weight"] for name in part.layers})
        name = next(iter(part.layers))
        delta, increase = obs.update(w, part.curvature, gone, update, part.flat(scores), name)
        moved |= part.split((w + delta).to(w.dtype))
        predicted += increase
    for part in parts:
        for name, module in part.layers.items():
            module.weight.copy_(moved[name])
    M.apply(model, masks)
    return predicted
