"""Sums and slices by channel for NAP (Secs. 3.3 and 4.1.2): the MACs a unit takes, scores summed by
channel, and the statistics of the channels that are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from common.cells.errors import LayerError
from common.curvature.kron import Kron
from common.nets import layers as L
from common.nets.edits import depthwise
from common.nets.flops import costs
from common.nets.surgery import ChannelGroup


def saved_macs(
    model: nn.Module, groups: Sequence[ChannelGroup], example: Sequence[int] | Tensor
) -> dict[str, Tensor]:
    """ΔFLOPs: MACs of one image that removing each unit alone saves in the network as it is now,
    [units] by group, float64."""
    places = {
        cost.name: cost.macs // cost.params for cost in costs(model, example).layers if cost.params
    }
    saved = {}
    for group in groups:
        _require_agreement(group)
        ends: dict[str, dict[str, list[list[int]]]] = {}
        for member in group.members:
            if member.module in places:
                ends.setdefault(member.module, {})[member.axis] = member.map
        each = [
            sum(
                places[name] * _fewer(model.get_submodule(name), axes, unit)
                for name, axes in ends.items()
            )
            for unit in range(group.size)
        ]
        saved[group.name] = torch.tensor(each, dtype=torch.float64)
    return saved


def _fewer(module: nn.Module, axes: Mapping[str, list[list[int]]], unit: int) -> int:
    """How many weights a layer loses with a unit. axes: the unit's channels by axis, "out" and
    "in"."""
    inner, out = L.channels(module)
    inner //= L.groups(module)
    rows, columns = (len(axes[axis][unit]) if axis in axes else 0 for axis in ("out", "in"))
    left = inner if depthwise(module) else inner - columns // L.groups(module)
    return (out * inner - (out - rows) * left) * L.offsets(module)


def by_channel(module: nn.Module, scores: Tensor, axis: str) -> Tensor:
    """ΔL [groups, out, in (+1)] of a layer's weights and biases summed over everything but its
    output ("out") or input ("in") channels; an input channel has no bias."""
    if axis == "out":
        return scores.sum(-1).flatten()
    inside = scores[..., : L.shape(module)[2]]
    return inside.unflatten(2, (-1, L.offsets(module))).sum((1, 3)).flatten()


def carried(
    factors: Mapping[str, Kron], edits: Iterable[Mapping], before: nn.Module
) -> dict[str, Kron]:
    """The factors of the channels that are left, from which the next moving average starts. before:
    the network before the edits. Grouped convolutions are left out: their next statistics start
    from calibration data."""
    factors = {name: f for name, f in factors.items() if L.groups(before.get_submodule(name)) == 1}
    for edit in edits:
        if edit["module"] not in factors:
            continue
        f, keep = factors[edit["module"]], torch.tensor(edit["keep"])
        if edit["axis"] == "out":
            keep = keep.to(f.G.device)
            factors[edit["module"]] = Kron(f.A, f.G[:, keep][:, :, keep], f.positions)
            continue
        module = before.get_submodule(edit["module"])
        width, block = L.shape(module)[2], L.offsets(module)
        columns = (keep[:, None] * block + torch.arange(block)).flatten()
        # the bias's column, if there is one
        columns = torch.cat([columns, torch.arange(width, f.A.shape[-1])]).to(f.A.device)
        factors[edit["module"]] = Kron(f.A[:, columns][:, :, columns], f.G, f.positions)
    return factors


def _require_agreement(group: ChannelGroup) -> None:
    for member in group.members:
        if len(member.map) != group.size:
            raise LayerError(
                member.module,
                f"has {len(member.map)} channels where the group of {group.name!r} has "
                f"{group.size}; find the "
                "groups again after a change",
            )
