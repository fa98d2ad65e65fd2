"""Coupled channels as units: what a unit scores, which filters go with it, and the network without
it.

A unit is a channel with all that must go with it: the filters of every layer that produces it
(several where residual branches meet), its BatchNorm entries, and its columns in every layer that
reads it (common.nets.surgery finds them). The methods differ in what they score filters by and in
how they move the weights that stay; the rest is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from common.cells.errors import UserError
from common.data.batches import first
from common.nets import layers as L
from common.nets.surgery import ChannelGroup, channel_groups, narrow


@dataclass
class Channels:
    """A network's groups of coupled channels, by name the layers whose filters go with them, and
    why those of other layers stay: they meet the network's input, or cannot be followed.
    """

    groups: list[ChannelGroup]
    layers: dict[str, nn.Module]
    whole: dict[str, str] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """Of the layers that stay whole, for the record."""
        return [f"{name}: kept whole, {why}" for name, why in self.whole.items()]

    def scores(
        self, filters: Mapping[str, Tensor], columns: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The score of each unit, [units] by group, float64: the sum over its filters and, where
        given, over its columns in the layers that read it. filters: [output channels] by layer;
        columns: [input channels] by layer. A layer without scores adds nothing."""
        by_axis, result = {"out": filters, "in": columns or {}}, {}
        for group in self.groups:
            total: Tensor | float = 0.0
            for module, axis, channels_of in group.members:
                if module in by_axis[axis]:
                    each = by_axis[axis][module]
                    total = total + torch.stack([each[rows].sum() for rows in channels_of])
            result[group.name] = torch.as_tensor(total, dtype=torch.float64).expand(group.size)
        return result

    def filters_gone(self, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Which filters go with the units that are not `kept` (group name -> bool [units]): bool
        [output channels] by layer.
        """
        gone: dict[str, Tensor] = {}
        for group in self.groups:
            units = (~kept[group.name]).nonzero().flatten().tolist()
            for module, axis, channels_of in group.members:
                if axis == "out" and module in self.layers:
                    where, (_, out) = (
                        self.layers[module].weight.device,
                        L.channels(self.layers[module]),
                    )
                    nothing = torch.zeros(out, dtype=torch.bool, device=where)
                    lost = gone.setdefault(module, nothing)
                    for unit in units:
                        lost[channels_of[unit]] = True
        return gone

    def cut(self, model: nn.Module, kept: Mapping[str, Tensor]) -> list[dict]:
        """Remove the units that are not `kept` from `model`, in place; returns the edits. Groups
        that are not in `kept` stay whole.
        """
        units = {name: mask.nonzero().flatten().tolist() for name, mask in kept.items()}
        return narrow(model, self.groups, units)


def find(model: nn.Module, example: Tensor, skip: Iterable[str] = ()) -> Channels:
    """The channels of `model` that can go. example: a batch of inputs, of which the shape counts.
    skip: layers whose filters stay.

    Raises UserError where no channel can go, LayerError where the coupling can be followed nowhere.
    """
    layers, whole = L.prunable(model, skip), {}
    groups = channel_groups(model, example, skip, whole)
    if not groups and whole:
        channel_groups(model, example, skip)  # all that is in the way, as one error
    if not groups:
        raise UserError(
            "model",
            type(model).__name__,
            "has no channels that can go",
            "leave less in skip, or choose another method",
        )
    producers = {m.module for group in groups for m in group.members if m.axis == "out"}
    return Channels(groups, {name: m for name, m in layers.items() if name in producers}, whole)


def with_example(calibration: Iterable) -> tuple[Iterable, Tensor]:
    """(the calibration data, which can be gone through again, the inputs of its first batch).
    UserError where there is none.
    """
    calibration = list(calibration) if isinstance(calibration, Iterator) else calibration
    example = first(calibration)[0]
    example = example if torch.is_tensor(example) else example.plain()
    if not torch.is_tensor(example):
        raise UserError(
            "model",
            type(calibration).__name__,
            "is called with more than one tensor, so its channels cannot be followed",
            "choose a method that removes single weights",
        )
    return calibration, example
