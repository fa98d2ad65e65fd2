"""Edits of a network's architecture, as data: slice or widen a layer's channels, put two or three
plain layers in the place of one, give one a channel map before or after it or take that away.

Every edit is a JSON-able dict; replaying a model's edits on a freshly built one gives its
architecture:
    {"op": "slice", "module": name, "axis": "out" | "in", "keep": [channel, ...]}
    {"op": "factorize", "module": name, "shapes": [weight shape of first, of core, of last]}
        (without a core: of first, of last)
    {"op": "map", "module": name, "side": "before" | "after", "index": [input channel of each output
    channel, -1 for zeros]}
    {"op": "unmap", "module": name}                                  the layer alone again, its
                                                                     outermost map dropped
    {"op": "widen", "module": name, "axis": "out" | "in", "index": [old channel of each new channel,
    -1 for zeros]}
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from common.cells.errors import LayerError, UserError
from common.nets.kinds import CONVOLUTIONS, HUGGING_FACE, TRANSPOSED, kind
from common.nets.layers import groups as conv_groups
from common.nets.models.parts import PadShortcut

BATCHNORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
# of one channel alone
NORMS = (*BATCHNORM, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
ONE_SIDED = (*NORMS, nn.PReLU)  # what goes out is what came in
FACTORS = ("first", "core", "last")
SIDES = ("before", "after")
OPERATIONS = ("slice", "factorize", "map", "unmap", "widen")


class ChannelMap(nn.Module):
    """Output channel i copies input channel `index[i]`, or is zero where that is -1. Its index is
    in the edits, not the state.
    """

    def __init__(self, index: Sequence[int]):
        super().__init__()
        self.index = tuple(index)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs, ...] -> [batch, len(index), ...]."""
        padded = torch.cat([x, torch.zeros_like(x[:, :1])], 1)
        return padded.index_select(
            1, torch.tensor(self.index, device=x.device).remainder(padded.shape[1])
        )


def apply_edits(model: nn.Module, edits: Iterable[Mapping]) -> None:
    """Replay `edits` on `model`, in place and in order. Raises UserError (field "edits") for one
    that does not fit; those before it have then been made."""
    for edit in edits:
        if not isinstance(edit, Mapping) or edit.get("op") not in OPERATIONS:
            raise UserError("edits", edit, "unknown operation", f"known: {', '.join(OPERATIONS)}")
        name = edit.get("module")
        module = submodule(model, name)
        if edit["op"] == "slice":
            _slice(module, name, edit.get("axis"), edit.get("keep"))
        elif edit["op"] == "map":
            replace_module(model, name, _mapped(module, name, edit.get("side"), edit.get("index")))
        elif edit["op"] == "unmap":
            if map_side(module) is None:
                raise UserError("edits", name, "has no channel map")
            replace_module(model, name, module.layer)
        elif edit["op"] == "widen":
            _widen(module, name, edit.get("axis"), edit.get("index"))
        else:
            replace_module(model, name, _factors(module, name, edit.get("shapes")))


def replace_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` where the submodule `name` ("layer1.0.conv2", "features.3") is."""
    submodule(model, name)
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def submodule(model: nn.Module, name: object) -> nn.Module:
    """The module called `name`; UserError where there is none (the model itself has no name)."""
    try:
        if isinstance(name, str) and name:
            return model.get_submodule(name)
    except AttributeError:
        pass
    raise UserError("edits", name, "the model has no such module")


def sliceable(module: nn.Module) -> bool:
    """Whether a module can be narrowed to some of its channels: not one of those that tell its
    convolution groups apart by their place in a transposed convolution's weight."""
    if isinstance(module, TRANSPOSED):
        return module.groups == 1
    return kind(module) is not None or isinstance(module, (*ONE_SIDED, PadShortcut))


def channel_count(module: nn.Module, axis: str) -> int | None:
    """Channels of a sliceable module on `axis`; None for what PadShortcut reads, which it does not
    know.
    """
    if found := kind(module):
        return found.channels(module)[axis == "out"]
    if isinstance(module, PadShortcut):
        return len(module.index) if axis == "out" else None
    return module.num_parameters if isinstance(module, nn.PReLU) else module.num_features


def depthwise(module: nn.Module) -> bool:
    """Whether input and output channels are the same channels, one filter each."""
    return (
        isinstance(module, CONVOLUTIONS)
        and 1 < module.groups == module.in_channels == module.out_channels
    )


@torch.no_grad()
def _slice(module: nn.Module, name: str, axis: object, keep: object) -> None:
    """Narrow one module to the channels `keep`; a depthwise convolution is narrowed on both sides
    by either axis.
    """
    if not sliceable(module):
        raise UserError("edits", name, f"cannot slice a {type(module).__name__}")
    if axis not in (("out",) if isinstance(module, ONE_SIDED) else ("out", "in")):
        raise UserError("edits", axis, f"no axis of {name!r}")
    limit = channel_count(module, axis)
    if not (isinstance(keep, Sequence) and keep and all(type(i) is int for i in keep)):
        raise UserError(
            "edits", name, "keeps no channel, or `keep` is no list of integers", "keep at least one"
        )
    if (
        keep[0] < 0
        or keep[-1] >= (2**31 if limit is None else limit)
        or any(a >= b for a, b in itertools.pairwise(keep))
    ):
        raise UserError(
            "edits", name, f"`keep` must be increasing and within its {limit or 'input'} channels"
        )
    where = module.index.device if isinstance(module, PadShortcut) else None
    index = torch.tensor(keep, device=where)
    if isinstance(module, CONVOLUTIONS):
        _slice_conv(module, name, axis, index)
    elif kind(module):
        inner_first = isinstance(module, TRANSPOSED) or kind(module) is HUGGING_FACE
        _take(module, ("weight",), index, dim=int((axis == "out") == inner_first))
        if axis == "out":
            _take(module, ("bias",), index)
        setattr(module, _attribute(module, axis), len(keep))
    elif isinstance(module, NORMS):
        _take(module, ("weight", "bias", "running_mean", "running_var"), index)
        module.num_features = len(keep)
    elif isinstance(module, nn.PReLU):
        _take(module, ("weight",), index)
        module.num_parameters = len(keep)
    elif axis == "out":
        module.index = module.index[index]
    else:
        place = torch.searchsorted(index, module.index)
        module.index = torch.where(index[place.clamp(max=len(keep) - 1)] == module.index, place, -1)


def _attribute(module: nn.Module, axis: str) -> str:
    """The attribute in which a layer says how many channels it has."""
    if kind(module) is HUGGING_FACE:
        return "nf" if axis == "out" else "nx"
    return f"{axis}_{'features' if isinstance(module, nn.Linear) else 'channels'}"


def _slice_conv(conv: nn.Module, name: str, axis: str, index: Tensor) -> None:
    """Every convolution group keeps as many channels as the others, whichever they are; depthwise
    groups go as a whole.
    """
    if depthwise(conv):
        _take(conv, ("weight", "bias"), index)
        conv.in_channels = conv.out_channels = conv.groups = len(index)
        return
    width = channel_count(conv, axis) // conv.groups
    if len(set(torch.bincount(index // width, minlength=conv.groups).tolist())) > 1:
        raise UserError(
            "edits",
            name,
            f"its {conv.groups} convolution groups would keep different numbers of channels",
        )
    if axis == "out":
        _take(conv, ("weight", "bias"), index)
        conv.out_channels = len(index)
    else:
        blocks = zip(
            conv.weight.chunk(conv.groups), (index % width).chunk(conv.groups), strict=True
        )
        weight = torch.cat(
            [block.index_select(1, local.to(block.device)) for block, local in blocks]
        )
        conv.weight = nn.Parameter(weight, conv.weight.requires_grad)
        conv.in_channels = len(index)


def _take(module: nn.Module, names: Sequence[str], index: Tensor, dim: int = 0) -> None:
    """Replace the named parameters and buffers by their entries `index` along `dim`."""
    for name in names:
        old = getattr(module, name)
        if old is not None:
            new = old.detach().index_select(dim, index.to(old.device))
            setattr(
                module,
                name,
                nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new,
            )


def _mapped(module: nn.Module, name: str, side: object, index: object) -> nn.Sequential:
    """`module` as the child "layer" of a Sequential, beside the child "map"."""
    if side not in SIDES:
        raise UserError("edits", side, f"no side of {name!r}", "before or after")
    if not (
        isinstance(index, Sequence)
        and index
        and all(type(i) is int and -1 <= i < 2**31 for i in index)
    ):
        raise UserError("edits", name, "its map's index is no list of channels, -1 for zeros")
    if not isinstance(module, (nn.Conv2d, nn.Linear, *BATCHNORM)):
        raise UserError("edits", name, f"cannot map the channels of a {type(module).__name__}")
    total = channel_count(module, "in" if side == "before" else "out")
    if side == "before" and len(index) != total:
        raise UserError("edits", name, f"reads {total} channels, its map gives {len(index)}")
    if side == "after" and max(index) >= total:
        raise UserError("edits", name, f"has {total} channels, its map reads channel {max(index)}")
    new, parts = nn.Sequential(), {"map": ChannelMap(index), "layer": module}
    for part in ("map", "layer") if side == "before" else ("layer", "map"):
        new.add_module(part, parts[part])
    return new.train(module.training)


def map_side(module: nn.Module) -> str | None:
    """On which side of its layer a mapped layer has its (outermost) map; None for any other
    module.
    """
    names = list(dict(module.named_children())) if isinstance(module, nn.Sequential) else []
    return {("map", "layer"): "before", ("layer", "map"): "after"}.get(tuple(names))


@torch.no_grad()
def _widen(module: nn.Module, name: str, axis: object, index: object) -> None:
    """Give one module the channels `index` of its own, zeros where that is -1: a new channel of a
    BatchNorm gives zero.
    """
    if not isinstance(module, (nn.Conv2d, nn.Linear, *BATCHNORM)) or conv_groups(module) > 1:
        raise UserError(
            "edits", name, f"cannot widen a {type(module).__name__}, or it has convolution groups"
        )
    if axis not in (("out",) if isinstance(module, BATCHNORM) else ("out", "in")):
        raise UserError("edits", axis, f"no axis of {name!r}")
    if not (
        isinstance(index, Sequence)
        and index
        and all(type(i) is int and -1 <= i < channel_count(module, axis) for i in index)
    ):
        raise UserError("edits", name, "its new channels are no list of its old ones, -1 for zeros")
    new, dim = torch.tensor(index), int(axis == "in")
    for tensor in (
        ("weight",) if axis == "in" else ("weight", "bias", "running_mean", "running_var")
    ):
        old = getattr(module, tensor, None)
        if old is not None:
            wide = old.detach().index_select(dim, new.clamp(min=0).to(old.device))
            wide.movedim(dim, 0)[(new < 0).to(old.device)] = float(tensor == "running_var")
            setattr(
                module,
                tensor,
                nn.Parameter(wide, old.requires_grad) if isinstance(old, nn.Parameter) else wide,
            )
    if isinstance(module, BATCHNORM):
        module.num_features = len(index)
    else:
        setattr(
            module,
            f"{axis}_{'channels' if isinstance(module, nn.Conv2d) else 'features'}",
            len(index),
        )


@torch.no_grad()
def factorize(model: nn.Module, name: str, first: Tensor, *rest: Tensor) -> dict:
    """Replace the layer `name` by a Sequential of plain layers first -> core -> last with these
    weights; returns the edit.

    Of two weights there is no core, and the one with the layer's kernel (of two 1x1 kernels: first)
    takes its stride. Conv2d, and so Conv1d and Conv3d: first [a, cin, k, k] or [a, cin, 1, 1]; core
    [r, a, k, k] or [r, a, 1, 1], or [r, a/g, k, k] for g groups (depthwise: [a, 1, k, k]); last
    [out, r, 1, 1]. The one of first and core with the layer's kernel takes its stride, padding and
    dilation; of two 1x1 kernels it is core. A 1x1 first without bias commutes with any padding.
    Linear, and transformers' Conv1D, in whose place Linear layers come: first [a, in], core [r, a],
    last [out, r]. The bias stays, on last. Raises LayerError for other or grouped
    layers, UserError for shapes that do not chain.
    """
    weights = dict(zip(_parts(1 + len(rest)), (first, *rest), strict=True))
    edit = {
        "op": "factorize",
        "module": name,
        "shapes": [list(weight.shape) for weight in weights.values()],
    }
    new = _factors(submodule(model, name), name, edit["shapes"])
    for factor, weight in weights.items():
        new.get_submodule(factor).weight.copy_(weight)
    replace_module(model, name, new)
    return edit


def factorizable(layer: nn.Module) -> bool:
    """Whether plain layers one after the other can compute what this one does."""
    return bool(kind(layer)) and not isinstance(layer, TRANSPOSED) and conv_groups(layer) == 1


def _has_own_forward(layer: nn.Module) -> bool:
    """Whether the layer's forward is its kind's and not a subclass's."""
    bases = [base for base in type(layer).__mro__ if base in (*CONVOLUTIONS, nn.Linear)]
    return not bases or type(layer).forward is bases[0].forward


def _factors(layer: nn.Module, name: str, shapes: object) -> nn.Sequential:
    """first -> core -> last of these weight shapes in the place of `layer`, with zero weights and
    the layer's own bias.
    """
    if not factorizable(layer):
        raise LayerError(
            name,
            f"cannot factorize a {type(layer).__name__}; only Linear and convolutions without "
            "groups, and no transposed ones",
        )
    if not _has_own_forward(layer):
        raise LayerError(
            name, "its forward is not torch's, and plain layers would lose it; skip it"
        )
    matrix = not isinstance(layer, CONVOLUTIONS)
    inputs, outputs = kind(layer).channels(layer)
    rank = layer.weight.ndim
    if not (
        isinstance(shapes, Sequence)
        and len(shapes) in (2, 3)
        and all(
            isinstance(s, Sequence) and len(s) == rank and all(type(n) is int and n > 0 for n in s)
            for s in shapes
        )
    ):
        raise UserError(
            "edits",
            name,
            f"needs the weight shapes of first, core and last, or of first and last, {rank} "
            "numbers each",
        )
    parts, (first, *middle, last) = _parts(len(shapes)), shapes
    kernel, point = ([] if matrix else list(layer.kernel_size)), [1] * (rank - 2)
    core = middle[0] if middle else [first[0], first[0], *point]
    groups = 1 if matrix else first[0] // core[1]
    if (
        first[1] != inputs
        or core[1] * groups != first[0]
        or core[0] % groups
        or last[1] != core[0]
        or last[0] != outputs
    ):
        raise UserError(
            "edits",
            name,
            f"shapes {', '.join(map(str, shapes))} do not chain from {inputs} to {outputs} "
            "channels",
        )
    spaces = [list(shape[2:]) for shape in shapes]
    if sorted(spaces) != sorted([kernel] + [point] * (len(shapes) - 1)) or (
        middle and spaces[-1] != point
    ):
        raise UserError(
            "edits",
            name,
            f"one of {' and '.join(parts[:2])} must have the kernel {kernel}, everything else "
            f"{point}",
        )
    spatial = parts[spaces.index(kernel)] if kernel != point else "core" if middle else "first"
    new = nn.Sequential()
    for factor, (to, of, *_) in zip(parts, shapes, strict=True):
        place = {"device": layer.weight.device, "dtype": layer.weight.dtype, "bias": False}
        if not matrix:
            g = groups if factor == "core" else 1
            if factor == spatial:
                place |= {
                    "stride": layer.stride,
                    "padding": layer.padding,
                    "dilation": layer.dilation,
                    "padding_mode": layer.padding_mode,
                }
            part = nn.utils.skip_init(
                CONVOLUTIONS[rank - 3],
                of * g,
                to,
                kernel if factor == spatial else 1,
                groups=g,
                **place,
            )
        else:
            part = nn.utils.skip_init(nn.Linear, of, to, **place)
        nn.init.zeros_(part.weight).requires_grad_(layer.weight.requires_grad)
        new.add_module(factor, part)
    new.last.bias = layer.bias
    return new.train(layer.training)


def _parts(count: int) -> tuple[str, ...]:
    """The names of `count` factors."""
    return FACTORS if count == 3 else (FACTORS[0], FACTORS[-1])
