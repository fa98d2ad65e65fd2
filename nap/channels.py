"""NAP, channel-wise (Sec. 3.3): prune the channels that cost the loss least for the FLOPs they
take.

A unit is a channel with all that must go with it: the filters of every layer that produces it
(several where a residual path joins them: the paper's virtual channel, Sec. 4.1.2), its BatchNorm
entries, and its columns in every reader. It scores Σ ΔL / Σ ΔFLOPs at the network's present widths,
so the widths are counted again at every pruning. What is left is a smaller network.

Uses nap.method (Eq. 6 and the normalisation), common.nets.surgery (coupled channels),
common.nets.flops. Deviations: README.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import LayerError, choose
from common.curvature.kron import Kron
from common.nets import layers as L
from common.nets import masks as M
from common.nets.clone import clone
from common.nets.edits import depthwise
from common.nets.flops import costs
from common.nets.surgery import ChannelGroup
from common.pruning import channels, obs
from common.pruning.pruned import Pruned
from common.pruning.select import select
from nap.method import damping_of, factors_of, importance, inverses, normalised, weights_of
from nap.statistics import CurvatureOptions, pack


@dataclass(frozen=True)
class Options(CurvatureOptions):
    """`amount` is p: the fraction of the channels that are left."""

    # ΔL_C over a channel's own filters. The paper says that incoming and outgoing sums should
    # agree: in+out is both
    sides: str = "in"
    flops: bool = True  # Sec. 3.3: ΔL_C / ΔFLOPs; False compares ΔL_C alone

    def __post_init__(self):
        super().__post_init__()
        choose("sides", self.sides, ("in", "in+out"))


def saved_macs(
    model: nn.Module, groups: Sequence[ChannelGroup], example: Sequence[int] | Tensor
) -> dict[str, Tensor]:
    """ΔFLOPs, in MACs of one image, of removing each unit alone from the network as it is now:
    [units] by group, float64.
    """
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
    """Weights that a layer loses with a unit's output and input channels, both at once where it has
    both.
    """
    out, inner, *kernel = module.weight.shape
    rows, columns = (len(axes[axis][unit]) if axis in axes else 0 for axis in ("out", "in"))
    left = inner if depthwise(module) else inner - columns // L.groups(module)
    return (out * inner - (out - rows) * left) * int(torch.Size(kernel).numel())


def by_channel(module: nn.Module, scores: Tensor, axis: str) -> Tensor:
    """ΔL [groups, out, in (+1)] of a layer's weights and biases summed over everything but its
    output ("out") or input ("in") channels; an input channel has no bias."""
    if axis == "out":
        return scores.sum(-1).flatten()
    inside = scores[..., : module.weight[0].numel()]
    return inside.reshape(*inside.shape[:2], module.weight.shape[1], -1).sum((1, 3)).flatten()


def ratio(
    importances: Mapping[str, Tensor], saved: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """(ΔL_C / ΔFLOPs, notes). A unit that takes no FLOPs gains nothing by going: it scores infinity
    and stays.
    """
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
    saved = saved_macs(result.model, found.groups, example[:1])
    readers = {m.module for group in found.groups for m in group.members if m.axis == "in"}
    both = set(found.layers) | (readers if options.sides == "in+out" else set())
    layers = {name: module for name, module in L.prunable(result.model).items() if name in both}
    factors = factors_of(result.model, calibration, layers, options, generator, latent)
    F, W = inverses(factors, options), weights_of(layers)
    scores = {name: importance(W[name], F[name]) for name in layers}
    if options.normalise:
        scores = {
            name: normalised(s, torch.ones_like(s, dtype=torch.bool)) for name, s in scores.items()
        }
    filters = {name: by_channel(layers[name], s, "out") for name, s in scores.items()}
    columns = {name: by_channel(layers[name], s, "in") for name, s in scores.items()}
    units = found.scores(filters, columns if options.sides == "in+out" else None)
    units = {name: value.cpu() for name, value in units.items()}
    if options.flops:
        units, result.notes = ratio(units, saved)
    total = sum(group.size for group in found.groups)
    kept = select(units, max(amount, 1 / total), "global")
    if options.compensate:
        for name, gone in found.filters_gone(kept).items():
            if not gone.any():
                continue
            which = gone.reshape(*W[name].shape[:2], 1).expand_as(W[name]).flatten()
            delta, increase = obs.update(W[name].flatten(), F[name], which, "diagonal", name=name)
            L.write_joined(layers[name], W[name] + delta.reshape(W[name].shape))
            result.predicted_increase += increase
    result.edits = found.cut(result.model, kept)
    result.latent = pack(carried(factors, result.edits, model))
    result.layers = {name: damping_of(F[name]) for name in layers}
    return result


def carried(
    factors: Mapping[str, Kron], edits: Iterable[Mapping], before: nn.Module
) -> dict[str, Kron]:
    """The factors of the channels that are left, for the moving average to go on from. `before`:
    the network before the edits. A grouped convolution's are left out: the next pruning then starts
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
        width = before.get_submodule(edit["module"]).weight[0].numel()
        block = width // before.get_submodule(edit["module"]).weight.shape[1]
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
