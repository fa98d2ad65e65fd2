"""Structured WoodFisher (Sec. 6.1), which the paper derives and does not run: whole filters, the
rows of a layer's weight.

`prune` sets filters to zero and masks them; the network keeps its shape and each filter's other
parameters (bias, BatchNorm). channels.py removes them from the network, the registered method.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import choose
from common.curvature.fisher import Part
from common.nets import layers as L
from common.nets import masks as M
from common.nets.clone import clone
from common.pruning import obs
from common.pruning.pruned import Pruned
from common.pruning.select import select
from woodfisher.method import FisherOptions, fisher_parts

STATISTICS = ("correlated", "sum", "exact")


@dataclass(frozen=True)
class Options(FisherOptions):
    """The three ways to score a filter Q."""

    # Eq. 18; "sum" of Eq. 11 over Q is its alternative. Ours: "exact", Eq. 12's own minimum
    statistic: str = "correlated"
    scope: str = "layer"  # not stated; "global" ranks all filters together

    def __post_init__(self):
        super().__post_init__()
        choose("statistic", self.statistic, STATISTICS)
        choose("scope", self.scope, ("global", "layer"))


def score(part: Part, w: Tensor, filters: list[Tensor], kind: str) -> Tensor:
    """ρ_Q of each filter Q, given by its flat indices; [filters], float64."""
    if kind == "sum":
        single = obs.score(w, part.curvature.diagonal())
        return torch.stack([single[q].sum() for q in filters])  # Σ_q ρ_q
    if kind == "correlated":
        # (wᵀe_Q)² / (2 e_Qᵀ F̂⁻¹ e_Q), Eq. 18
        sums = torch.stack([w[q].sum() for q in filters])
        return sums.square() / (2 * inverse_sums(part, w, filters))
    return torch.stack(
        [0.5 * w[q] @ torch.linalg.solve(part.curvature.submatrix(q), w[q]) for q in filters]
    )


def direction(part: Part, w: Tensor, pruned: list[Tensor], kind: str) -> Tensor:
    """δw of removing the filters `pruned`: Σ_Q −(wᵀe_Q) F̂⁻¹e_Q / (e_Qᵀ F̂⁻¹ e_Q) for Eq. 18, which
    only brings each filter's sum to zero, then the filters themselves set to zero; otherwise the
    diagonal or joint update of obs.py."""
    gone = _indicator(
        torch.cat([*pruned, torch.zeros(0, dtype=torch.long, device=w.device)]), w
    ).bool()
    if kind != "correlated":
        return obs.update(
            w,
            part.curvature,
            gone,
            "diagonal" if kind == "sum" else "joint",
            name=next(iter(part.layers)),
        )[0]
    weighted = torch.zeros_like(w)
    for q, across in zip(pruned, inverse_sums(part, w, pruned), strict=True):
        weighted[q] = w[q].sum() / across
    # all columns at once: F̂⁻¹ is linear
    return torch.where(gone, -w, -part.curvature.solve(weighted))


def inverse_sums(part: Part, w: Tensor, filters: list[Tensor]) -> Tensor:
    """e_Qᵀ F̂⁻¹ e_Q of each filter Q, [filters], float64, in one pass through the gradient rows."""
    others = len(filters)  # the number of all weights that are in none of them
    sets = torch.full((len(w),), others, device=w.device)
    for number, q in enumerate(filters):
        sets[q] = number
    return part.curvature.inverse_sums(sets, others + 1)[:others]


@torch.no_grad()
def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float | Mapping[str, float],
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """A copy of `model` with `amount` of its filters zero: of all, or of each layer (a fraction, or
    one a layer).
    """
    result = Pruned(clone(model), dict(masks or {}), predicted_increase=0.0)
    M.apply(result.model, result.masks)
    parts = fisher_parts(result.model, calibration, options, generator, result.masks)
    index = {name: rows for part in parts for name, rows in filters_of(part).items()}
    scores = {
        name: score(part, part.weights().double(), index[name], options.statistic)
        for part in parts
        for name in part.layers
    }
    before = {
        name: L.to_matrix(module, result.masks[f"{name}.weight"]).any(2).flatten()
        for part in parts
        for name, module in part.layers.items()
        if f"{name}.weight" in result.masks
    }
    kept = select(scores, amount, options.scope, before)
    for part in parts:
        w = part.weights().double()
        pruned = [
            q
            for name in part.layers
            for q, stays in zip(index[name], kept[name].tolist(), strict=True)
            if not stays
        ]
        delta = direction(part, w, pruned, options.statistic)
        result.predicted_increase += obs.increase(part.curvature, delta)
        for name, value in part.split(w + delta).items():
            module = part.layers[name]
            whole = L.shape(module)
            rows = kept[name].reshape(*whole[:2], 1).expand(whole)
            result.masks[f"{name}.weight"] = result.masks.get(
                f"{name}.weight", torch.ones_like(value, dtype=torch.bool)
            ) & L.to_weight(module, rows)
            module.weight.copy_(value)
    M.apply(result.model, result.masks)
    return result


def filters_of(part: Part) -> dict[str, list[Tensor]]:
    """Each layer's filters as flat indices into the part."""
    result, start = {}, 0
    for name, module in part.layers.items():
        total = module.weight.numel()
        index = start + torch.arange(total, device=module.weight.device)
        result[name] = list(index.reshape(L.channels(module)[1], -1))
        start += total
    return result


def _indicator(q: Tensor, w: Tensor) -> Tensor:
    """ẽ_Q, like w."""
    return torch.zeros_like(w).index_fill_(0, q, 1.0)
