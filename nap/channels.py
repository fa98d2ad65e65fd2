"""NAP, channel-wise (Sec. 3.3): prune the channels that cost the loss least for their FLOPs.

A unit is a channel with all that must go with it (common.pruning.channels), several filters where a
residual path joins them: the paper's virtual channel (Sec. 4.1.2). What is left is a smaller
network. Uses nap.method (lines 6, 7 and 10 of Algorithm 1) and nap.units (ΔFLOPs). Deviations:
README.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import choose
from common.curvature import memory
from common.nets import layers as L
from common.nets import masks as M
from common.nets.clone import clone
from common.pruning import channels
from common.pruning.channels import Channels
from common.pruning.pruned import Pruned
from common.pruning.select import fraction, select
from nap import method
from nap.method import compensated, importance, inverse_fisher, normalised
from nap.statistics import factors_of, pack
from nap.units import by_channel, carried, saved_macs


@dataclass(frozen=True)
class Options(method.Options):
    """`amount` is p: the fraction of the channels that are left."""

    sides: str = "in"  # ΔL_C over incoming weights | in+out; Sec. 3.2: both "should be close"
    flops: bool = True  # Sec. 3.3: ΔL_C / ΔFLOPs; False compares ΔL_C alone

    def __post_init__(self):
        super().__post_init__()
        choose("sides", self.sides, ("in", "in+out"))


def scored(found: Channels, model: nn.Module, sides: str) -> dict[str, nn.Module]:
    """The layers whose weights count in ΔL_C: those that produce the channels and, for in+out,
    those that read them."""
    readers = {m.module for g in found.groups for m in g.members if m.axis == "in"}
    counted = set(found.layers) | (readers if sides == "in+out" else set())
    return {name: module for name, module in L.prunable(model).items() if name in counted}


def channel_importance(
    found: Channels, dL: Mapping[str, Tensor], layers: Mapping[str, nn.Module], sides: str = "in"
) -> dict[str, Tensor]:
    """ΔL_C of each unit, [units] by group: the sum of ΔL_q over its filters' weights and biases
    and, for in+out, over its columns in the layers that read it. dL: [groups, out, in (+1)]."""
    filters = {name: by_channel(layers[name], d, "out") for name, d in dL.items()}
    columns = {name: by_channel(layers[name], d, "in") for name, d in dL.items()}
    scores = found.scores(filters, columns if sides == "in+out" else None)
    return {name: value.cpu() for name, value in scores.items()}


def ratio(
    importances: Mapping[str, Tensor], saved: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """(ΔL_C / ΔFLOPs, notes). A unit that takes no FLOPs scores infinity and stays: nothing is
    gained by removing it."""
    scores, notes = {}, []
    for name, value in importances.items():
        free = saved[name] <= 0
        scores[name] = torch.where(
            free, torch.inf, value / saved[name].where(~free, torch.ones_like(saved[name]))
        )
        if free.any():
            notes.append(f"{name}: {int(free.sum())} channels take no FLOPs and stay")
    return scores, notes


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float,
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
    latent: Mapping[str, Tensor] | None = None,
) -> Pruned:
    """A smaller copy of `model` without the `amount` of its channels whose ΔL_C / ΔFLOPs is lowest
    (at least one channel goes, and one of each layer stays). latent: statistics that nap.statistics
    kept up."""
    M.require_none(masks, "remove channels from")
    calibration, example = channels.with_example(calibration)
    result = Pruned(clone(model), predicted_increase=0.0 if options.compensate else None)
    found = channels.find(result.model, example, options.skip)
    layers = scored(found, result.model, options.sides)
    memory.require("kron-kept", layers, options)
    # ΔFLOPs at the network's present widths, so that they are counted again at every pruning
    dFLOPs = saved_macs(result.model, found.groups, example[:1])
    # lines 2 to 6
    factors = factors_of(result.model, calibration, layers, options, generator, latent)
    F, W = inverse_fisher(factors, options), L.finite_weights(layers)
    # line 7: ΔL_q, normalised within each layer
    dL = {name: importance(W[name], F[name]) for name in layers}
    if options.normalise:
        dL = {name: normalised(d, torch.ones_like(d, dtype=torch.bool)) for name, d in dL.items()}
    # Sec. 3.3: ΔL_C / ΔFLOPs
    scores = channel_importance(found, dL, layers, options.sides)
    if options.flops:
        scores, result.notes = ratio(scores, dFLOPs)
    # lines 8 and 9
    least = 1 / sum(group.size for group in found.groups)
    kept = select(scores, max(fraction(amount), least), "global")
    # line 10
    for name, gone in found.filters_gone(kept).items():
        if options.compensate and gone.any():
            filters = gone.reshape(*W[name].shape[:2], 1).expand_as(W[name])
            new, increase = compensated(W[name], F[name], filters, name)
            L.write_joined(layers[name], new)
            result.predicted_increase += increase
    result.notes = result.notes + found.notes()
    result.edits = found.cut(result.model, kept)
    result.latent = pack(carried(factors, result.edits, model))
    result.layers = {name: F[name].added() for name in layers}
    return result
