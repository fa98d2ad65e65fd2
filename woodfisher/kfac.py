"""K-FAC pruning (WoodFisher Secs. 5.1, S2.1): WoodFisher's statistic and update with
Kronecker-factored layer blocks, with and without the damping π of Martens & Grosse. Convolutions
use KFC's factors (the paper compares on MLPNet alone)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from common.cells.errors import UserError, choose
from common.curvature import memory
from common.curvature.fisher import Part
from common.curvature.kron import KronInverse, kron_factors
from common.curvature.labels import FISHERS
from common.data.sources import rebatch
from common.nets import layers as L
from common.nets import masks as M
from common.nets.clone import clone
from common.pruning.pruned import Pruned
from woodfisher.method import SurgeonOptions
from woodfisher.ours import UpdateOptions
from woodfisher.surgeon import selection, statistic, step


@dataclass(frozen=True)
class Options(SurgeonOptions, UpdateOptions):
    """50,000 samples in Fig. 5b."""

    # μ = π√λ on A and √λ/π on G, π² the ratio of mean eigenvalues; False: √λ on both (Fig. 5b has
    # both)
    pi: bool = True
    damping: float = 1e-5  # λ, as WoodFisher's (S1.2)
    # the released code; Sec. S2.1 writes the expectation over the model, which is "sampled" or
    # "exact"
    fisher: str = "empirical"
    batch_size: int = 64  # examples a pass; a matter of memory and speed alone
    skip: tuple[str, ...] = ()  # layers left dense

    def __post_init__(self):
        SurgeonOptions.__post_init__(self)
        UpdateOptions.__post_init__(self)
        choose("fisher", self.fisher, FISHERS)
        if not self.damping > 0:
            raise UserError("damping", self.damping, "must be positive", "the paper's is 1e-5")
        if self.batch_size < 1:
            raise UserError("batch_size", self.batch_size, "must be at least 1")


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float | Mapping[str, float],
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """A copy of `model` with `amount` of its weights removed; predicted_increase is ½ δᵀ(G ⊗ A)δ of
    the damped factors.

    Factors are of all weights, so already pruned ones (`masks`) stay zero by selection alone.
    """
    result = Pruned(clone(model))
    M.apply(result.model, masks or {})
    layers = L.prunable(result.model, options.skip)
    memory.require("kron", layers, options)
    factors = kron_factors(
        result.model,
        rebatch(calibration, options.batch_size),
        layers,
        fisher=options.fisher,
        generator=generator,
    )
    parts = [
        Part(
            {name: module},
            KronInverse.of(factors.pop(name), options.damping, options.pi, name=name, own=True),
        )
        for name, module in layers.items()
    ]
    rho = statistic(parts)
    result.masks = selection(rho, amount, options.scope, masks, options.min_keep)
    result.predicted_increase = step(result.model, parts, result.masks, rho, options.update)
    return result
