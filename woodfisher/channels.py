"""Structured WoodFisher on a network's channels (Sec. 6.1, which the paper derives and does not
run): filters go, and with each its BatchNorm entries, its readers' inputs, and the filters that
residual branches add to it.

Eq. 18 scores a filter; a unit of coupled filters scores their sum. Uses common.pruning.channels
(what is coupled, and the cut) and structured.py (statistic and direction).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn

from common.nets import layers as L
from common.nets import masks as M
from common.nets.clone import clone
from common.pruning import channels, obs
from common.pruning.pruned import Pruned
from common.pruning.select import select
from woodfisher import structured
from woodfisher.method import fisher_parts
from woodfisher.structured import direction, filters_of, score


@dataclass(frozen=True)
class Options(structured.Options):
    """`amount` is a fraction of all units ("global") or of each group of coupled channels
    ("layer").
    """

    scope: str = "global"


@torch.no_grad()
def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float,
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """A copy of `model` without the `amount` of its units that score lowest; the filters that stay
    move along the pruning direction. Every group keeps a unit. predicted_increase is ½ δᵀF̂δ of the
    filters' weights."""
    M.require_none(masks, "remove units from")
    calibration, example = channels.with_example(calibration)
    result = Pruned(clone(model), predicted_increase=0.0)
    units = channels.find(result.model, example, options.skip)
    others = tuple(name for name in L.prunable(result.model) if name not in units.layers)
    parts = fisher_parts(result.model, calibration, replace(options, skip=others), generator)
    filters = {name: each for part in parts for name, each in filters_of(part).items()}
    scores = {
        name: score(part, part.weights().double(), filters[name], options.statistic)
        for part in parts
        for name in part.layers
    }
    kept = select(units.scores(scores), amount, options.scope)
    result.notes = units.notes()
    gone = units.filters_gone(kept)
    for part in parts:
        w = part.weights().double()
        those = [q for n in part.layers for q, g in zip(filters[n], gone[n], strict=True) if g]
        delta = direction(part, w, those, options.statistic)
        result.predicted_increase += obs.increase(part.curvature, delta)
        for name, value in part.split(w + delta).items():
            part.layers[name].weight.copy_(value)
    result.edits = units.cut(result.model, kept)
    return result
