"""WoodFisher (Singh & Alistarh 2020, arXiv:2004.14340): Optimal Brain Surgeon with the empirical
Fisher, which the Woodbury identity inverts.

Letters as in the paper: F̂ the empirical Fisher, λ its dampening, m rows of b examples, blocks of c
weights, ρ the pruning statistic, δw the pruning direction. Uses common.curvature.fisher (Eqs. 1 and
2) and surgeon.py (Eqs. 10 and 11). Deviations: README. What goes beyond the paper: ours.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import choose, require
from common.curvature.fisher import NETWORK, Part, block_fisher, notes, rows_of
from common.nets import layers as L
from common.nets import masks as M
from common.nets.clone import clone
from common.pruning.pruned import Pruned
from woodfisher.recompute import targets_to
from woodfisher.surgeon import selection, statistic, step

Amount = float | Mapping[str, float]
Rank = Callable[[dict[str, Tensor], Amount, M.Masks], tuple[dict[str, Tensor], Amount]]


@dataclass(frozen=True)
class FisherOptions:
    """How F̂ is estimated. Of m and b, what is None follows from the calibration data."""

    fisher: str = "empirical"  # true labels (Sec. 2); "sampled": the model's own (Table 8)
    fisher_batch_size: int | None = None  # b: 1 (Sec. 5.1), 100 to 2,400 on ImageNet (Table S1)
    num_rows: int | None = None  # m: 1,000 (Sec. 5.1), "typically ... 100 to 400" (Sec. 3.2)
    damping: float = 1e-5  # λ: "1e-5 in all the experiments" (S1.2)
    chunk: int | str | None = None  # c: a block a layer (Fig. 3a); 1,000 to 10,000 (Table S1);
    #                                 "network": "full-matrix", one block over all layers (S8.1)
    skip: tuple[str, ...] = ()  # layers left dense: none (Sec. 4.3), the first one (S4.1)

    def __post_init__(self):
        choose("fisher", self.fisher, ("empirical", "sampled"))
        require(
            self.damping > 0, "damping", self.damping, "must be positive", "the paper's is 1e-5"
        )
        for name in ("fisher_batch_size", "num_rows"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "must be at least 1")
        if isinstance(self.chunk, str):
            choose("chunk", self.chunk, (NETWORK,))
        else:
            remedy = f"give a block size, {NETWORK!r}, or nothing for a block a layer"
            positive = self.chunk is None or self.chunk >= 1
            require(positive, "chunk", self.chunk, "must be at least 1", remedy)


@dataclass(frozen=True)
class SurgeonOptions:
    """Which weights go."""

    scope: str = "global"  # Sec. 4.3: "global" is joint WoodFisher, "layer" independent WoodFisher
    min_keep: int = 1  # weights that each layer keeps at least; not stated

    def __post_init__(self):
        choose("scope", self.scope, ("global", "layer"))


@dataclass(frozen=True)
class Options(FisherOptions, SurgeonOptions):
    """All of WoodFisher's, with F̂ recomputed on the way to the target, without training."""

    recompute: int = 0  # R: more estimates (Fig. 4); how many is in no text
    recompute_schedule: str = "linear"  # of the R + 1 targets; the released code's default

    def __post_init__(self):
        FisherOptions.__post_init__(self)
        SurgeonOptions.__post_init__(self)
        require(self.recompute >= 0, "recompute", self.recompute, "must not be negative")


def fisher_parts(
    model: nn.Module,
    calibration: Iterable,
    options: FisherOptions,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> list[Part]:
    """F̂ = λI + (1/m) Σ ∇∇ᵀ (Eq. 1) in its blocks, with F̂⁻¹ (Eq. 2). Rows of weights that `masks`
    removed are zero. Raises as `block_fisher` does, and UserError for too little data."""
    layers = L.prunable(model, options.skip)
    rows = rows_of(calibration, options.num_rows, options.fisher_batch_size)
    settings = options.fisher, options.damping, options.chunk
    return block_fisher(model, layers, calibration, rows, *settings, generator, masks)


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: Amount,
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
    *,
    rank: Rank = lambda rho, level, masks: (rho, level),
    update: str = "diagonal",
) -> Pruned:
    """A copy of `model` with `amount` of its weights removed: a fraction, or with scope="layer" one
    a layer.

    calibration: (inputs, labels) batches of at least m · b training examples. masks: weights
    already removed, which stay so and count. predicted_increase is ½ δwᵀF̂δw of what was done,
    summed over recomputations. rank (flops_aware.py): what orders the weights in place of ρ, and
    how many go. update (ours.py): the kind of δw, of common.pruning.obs.
    """
    calibration = list(calibration) if isinstance(calibration, Iterator) else calibration
    result = Pruned(clone(model), dict(masks or {}), predicted_increase=0.0)
    M.apply(result.model, result.masks)
    net, layers = result.model, L.prunable(result.model, options.skip)
    scope, on_the_way = options.scope, (options.recompute, options.recompute_schedule)
    for target in targets_to(amount, layers, result.masks, scope, *on_the_way):  # Fig. 4
        # F̂ = λI + (1/m) Σ ∇∇ᵀ (Eq. 1), F̂⁻¹ (Eq. 2)
        parts = fisher_parts(net, calibration, options, generator, result.masks)
        # ρ_q = w_q² / 2[F̂⁻¹]_qq (Eq. 11)
        rho = statistic(parts)
        # the smallest go, over all layers or in each (Sec. 4.3)
        scores, fraction = rank(rho, target, result.masks)
        result.masks = selection(scores, fraction, scope, result.masks, options.min_keep)
        # δw = −Σ_q w_q F̂⁻¹e_q / [F̂⁻¹]_qq of those that go, added up and masked (Eq. 10, Sec. 4.3)
        result.predicted_increase += step(net, parts, result.masks, scores, update)
        result.notes = list(dict.fromkeys([*result.notes, *notes(parts)]))
    return result
