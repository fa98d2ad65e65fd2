"""WoodFisher (Singh & Alistarh 2020, arXiv:2004.14340): Optimal Brain Surgeon with the empirical
Fisher, its inverse by Woodbury.

Letters as in the paper: F̂ the empirical Fisher, ρ the pruning statistic, λ the dampening, m rows
of b examples, blocks of c. Uses common.curvature.rows, common.curvature.blocks (Eq. 2 in low-rank
form), common.pruning.obs (Eqs. 10, 11), common.pruning.select. Beyond the paper, and ours: update
"joint" or "triangular", chunk="network". Deviations: README.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import UserError
from common.cells.schedule import levels
from common.nets import layers as L
from common.nets import masks as M
from common.pruning.pruned import Pruned
from woodfisher import sharing
from woodfisher.fisher import FisherOptions, Part, fisher_parts
from woodfisher.surgeon import SurgeonOptions, statistic, step

Amount = float | Mapping[str, float]
Rank = Callable[[dict[str, Tensor], Amount, M.Masks], tuple[dict[str, Tensor], Amount]]


@dataclass(frozen=True)
class Options(FisherOptions, SurgeonOptions):
    """Every field with the paper's value; the estimate in fisher.py, scope and update in
    surgeon.py.
    """

    # R more estimates on the way to the target, without training (Fig. 4)
    recompute: int = 0
    recompute_schedule: str = "linear"  # of the R + 1 levels; the released code's default

    def __post_init__(self):
        FisherOptions.__post_init__(self)
        SurgeonOptions.__post_init__(self)
        if self.recompute < 0:
            raise UserError("recompute", self.recompute, "must not be negative")


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: Amount,
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """A copy of `model` with `amount` of its weights removed (a fraction, or with scope="layer" one
    a layer).

    calibration: (inputs, labels) batches of at least m · b training examples. masks: weights
    already removed, which stay so and count. predicted_increase is ½ δᵀF̂δ of the update that was
    made, summed over recomputations.
    """
    return surgery(model, calibration, amount, options, generator, masks)


def surgery(
    model: nn.Module,
    calibration: Iterable,
    amount: Amount,
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
    rank: Rank = lambda scores, level, masks: (scores, level),
) -> Pruned:
    """`prune` where `rank` turns (statistics, amount, masks so far) into the scores and the amount
    that decide what goes.
    """
    calibration = list(calibration) if isinstance(calibration, Iterator) else calibration
    result = Pruned(copy.deepcopy(model), dict(masks or {}), predicted_increase=0.0)
    M.apply(result.model, result.masks)
    for level in _levels(amount, result, options):
        # F̂ = λI + (1/m) Σ ∇∇ᵀ (Eq. 1)
        parts = fisher_parts(result.model, calibration, options, generator, result.masks)
        # ρ = w² / 2[F̂⁻¹] (Eq. 11)
        rho = statistic(parts)
        scores, fraction = rank(rho, level, result.masks)
        # δw (Eq. 10), masked
        result.masks, increase = step(result.model, parts, scores, fraction, options, result.masks)
        result.predicted_increase += increase
        result.notes = list(dict.fromkeys([*result.notes, *notes(parts)]))
    return result


def _levels(amount: Amount, result: Pruned, options: Options) -> list[float | dict[str, float]]:
    """What is removed after each of the R + 1 estimates, from what is removed already to
    `amount`.
    """
    removed = {name: 1 - float(mask.double().mean()) for name, mask in result.masks.items()}
    steps, kind = options.recompute + 1, options.recompute_schedule
    if isinstance(amount, Mapping):
        each = {
            name: levels(steps, goal, min(goal, removed.get(f"{name}.weight", 0.0)), kind)
            for name, goal in amount.items()
        }
        return [{name: goals[i] for name, goals in each.items()} for i in range(steps)]
    layers = L.prunable(result.model, options.skip)
    total = sum(module.weight.numel() for module in layers.values())
    gone = sum(
        int((~result.masks[f"{name}.weight"]).sum())
        for name in layers
        if f"{name}.weight" in result.masks
    )
    least = max(removed.values(), default=0.0) if options.scope == "layer" else gone / total
    return levels(steps, amount, min(amount, least), kind)


def notes(parts: list[Part]) -> list[str]:
    """What the record should say of an estimate: its rows, layers without any gradient, and whether
    it was shared.
    """
    m, b = parts[0].curvature.count, parts[0].b
    rows = (
        f"the Fisher has m = {m:,} rows, each the mean gradient of b = {b:,} example{'s' * (b > 1)}"
    )
    silent = [
        name
        for part in parts
        if len(part.layers) == 1 and not part.curvature.rows.any()
        for name in part.layers
    ]
    return [
        rows,
        *(f"{name}: all gradients are zero; its weights score λw²/2" for name in silent),
        *[sharing.NOTE] * parts[0].shared,
    ]
