"""Structured WoodFisher on a network's channels (Sec. 6.1, which the paper derives and does not
run): filters go, and with each its BatchNorm entries, its readers' inputs, and the filters that
residual branches add to it.

Eq. 18 scores a filter; a unit of coupled filters scores their sum. Uses common.nets.surgery (what
is coupled, and the cut) and structured.py (statistic and direction).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from common.cells.errors import UserError
from common.nets import layers as L
from common.nets import masks as M
from common.nets.surgery import channel_groups, narrow
from common.pruning import obs
from common.pruning.pruned import Pruned
from common.pruning.select import select
from woodfisher import structured
from woodfisher.fisher import fisher_parts


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
    if masks:
        raise UserError(
            "masks",
            sorted(masks)[0],
            "single weights were masked before",
            "remove units from a network without masks",
        )
    calibration = list(calibration) if isinstance(calibration, Iterator) else calibration
    result = Pruned(copy.deepcopy(model), predicted_increase=0.0)
    example = next(iter(calibration), None)
    if example is None:
        raise UserError("calibration", 0, "no batch was seen", "give at least one example")
    groups = channel_groups(result.model, example[0], options.skip)
    filters = {
        group.name: [
            member
            for member in group.members
            if member.axis == "out"
            and isinstance(result.model.get_submodule(member.module), L.PRUNABLE)
        ]
        for group in groups
    }
    producers = {member.module for members in filters.values() for member in members}
    if not producers:
        raise UserError(
            "model",
            type(model).__name__,
            "has no channels that can go",
            "leave less in skip, or choose another method",
        )
    parts = fisher_parts(
        result.model, calibration, structured.without(options, result.model, producers), generator
    )
    index = {name: rows for part in parts for name, rows in structured.filters_of(part).items()}
    single = {
        name: structured.score(part, structured.weights_of(part), index[name], options.statistic)
        for part in parts
        for name in part.layers
    }
    units = {
        name: sum(torch.stack([single[m.module][rows].sum() for rows in m.map]) for m in members)
        for name, members in filters.items()
    }
    kept = select(units, amount, options.scope)
    gone = {name: set() for name in producers}
    for name, members in filters.items():
        for unit in (~kept[name]).nonzero().flatten().tolist():
            for member in members:
                gone[member.module].update(member.map[unit])
    for part in parts:
        w = structured.weights_of(part)
        delta = structured.direction(
            part,
            w,
            [index[name][i] for name in part.layers for i in sorted(gone[name])],
            options.statistic,
        )
        result.predicted_increase += obs.increase(part.curvature, delta)
        for name, value in part.split(w + delta).items():
            part.layers[name].weight.copy_(value)
    result.edits = narrow(
        result.model,
        groups,
        {name: mask.nonzero().flatten().tolist() for name, mask in kept.items()},
    )
    return result
