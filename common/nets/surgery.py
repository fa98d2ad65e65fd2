"""Structural surgery: remove coupled channels, together or as zeros; factorize a layer into plain
ones.

Which channels belong together is asked of torch-pruning's DependencyGraph, whose answer
`channel_groups` then tests on the network itself: a wrong answer is an error, never a wrong
network. What is done to a network comes back as the edits of `common.nets.edits`, from which a
checkpoint builds it again.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_pruning import Dependency, DependencyGraph
from torch_pruning.dependency import graph as tracing

from common.cells.errors import LayerError, UserError
from common.nets import layers as L
from common.nets import masks as M
from common.nets.assumptions import Given, call, prediction
from common.nets.clone import clone
from common.nets.edits import (
    NORMS,
    apply_edits,
    channel_count,
    depthwise,
    factorize,
    replace_module,
    sliceable,
    submodule,
)
from common.nets.kinds import CONVOLUTIONS, HUGGING_FACE, kind
from common.nets.models.parts import PadShortcut

__all__ = [
    "ChannelGroup",
    "Member",
    "apply_edits",
    "channel_groups",
    "factorize",
    "narrow",
    "replace_module",
    "zero_units",
]

UNFOLLOWED = "where its channels go cannot be followed (a reshape? a reuse?); name it in skip"


class Member(NamedTuple):
    """`map[i]`: the channels of `module` on `axis` ("out" | "in") that belong to unit i of the
    group.
    """

    module: str
    axis: str
    map: list[list[int]]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can only be removed together, in `size` units; `name` is the first layer that
    produces them.
    """

    name: str
    size: int
    members: list[Member]


class _Decoupled:
    """Tells the DependencyGraph that a PadShortcut's inputs and outputs go separate ways: neither
    removes the other.
    """

    def prune_out_channels(self, layer: nn.Module, idxs: Sequence[int]) -> nn.Module:
        return layer

    def prune_in_channels(self, layer: nn.Module, idxs: Sequence[int]) -> nn.Module:
        return layer

    def get_out_channels(self, layer: PadShortcut) -> int:
        return len(layer.index)

    def get_in_channels(self, layer: PadShortcut) -> None:
        return None


def channel_groups(
    model: nn.Module,
    example_input: Tensor | Given,
    skip: Iterable[str] = (),
    whole: dict[str, str] | None = None,
) -> list[ChannelGroup]:
    """The groups of coupled channels in definition order, without those that reach the network's
    output or that a layer named in `skip` produces. In a grouped convolution a unit is one channel
    of each of its groups.

    example_input: [batch, ...], something the network takes; only its shape matters. whole: is
    given, by layer, why its channels cannot go, and they stay: they meet the network's input, or
    what they are coupled to cannot be followed (reused or unknown layers, channels mixed by
    reshapes). The model is left as it was. Raises LayerError naming the layers that cannot be
    followed, without `whole`.
    """
    skip, refused = set(skip), {}
    roots = L.weighted(model, skip)
    twin = _in_torchs_layers(clone(model).eval().requires_grad_())
    modules, calls = dict(twin.named_modules()), Counter()
    for name, module in modules.items():
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    graph, entry = _traced(twin, example_input)
    found, seen = [], defaultdict(set)
    for name in roots:
        free = sorted(set(range(channel_count(modules[name], "out"))) - seen[name])
        if not free or modules[name] not in graph.module2node:
            continue
        try:
            links, splits, fixed = _links(name, free, graph, modules, entry)
        except LayerError as error:
            refused[name] = error
            continue
        for (member, axis), pairs in links.items():
            seen[member] |= {index for index, _ in pairs} if axis == "out" else set()
        if whole is not None and fixed == "input":
            whole[name] = "its channels meet the network's input"
        if fixed or skip & {member for member, axis in links if axis == "out"}:
            continue
        try:
            for member, _ in links:
                _require_sliceable(modules[member], member, calls[member])
            found.append(_grouped(name, free, links, splits, modules))
        except LayerError as error:
            refused[name] = error
    if found and not _consistent(model, found, example_input):
        right = [group for group in found if _consistent(model, [group], example_input)]
        if len(right) == len(found) or (right and not _consistent(model, right, example_input)):
            right = []
        for group in found:
            if group not in right:
                refused[group.name] = LayerError(group.name, UNFOLLOWED)
        found = right
    if refused and whole is None:
        raise _in_one(refused)
    if refused:
        whole |= {name: error.problem for name, error in refused.items()}
    return found


def _in_one(refused: Mapping[str, LayerError]) -> LayerError:
    """One error about all layers that were refused, which says what to skip."""
    first, *others = refused.values()
    if not others:
        return first
    return LayerError(
        first.layer,
        f"{first.problem}; nor can the channels of {len(others)} other layers go; skip="
        f"{list(refused)} leaves all of them whole",
    )


def _in_torchs_layers(twin: nn.Module) -> nn.Module:
    """The network with a Linear in the place of each of transformers' Conv1D, which torch-pruning
    does not know; in place."""
    for name, module in list(twin.named_modules()):
        if kind(module) is HUGGING_FACE:
            plain = nn.utils.skip_init(nn.Linear, *L.channels(module), dtype=module.weight.dtype)
            plain.weight = nn.Parameter(module.weight.detach().T.clone())
            plain.bias = module.bias
            replace_module(twin, name, plain)
    return twin


class _Entered(nn.Module):
    """A network behind a layer of its own for its input, whose channels the tracing then knows."""

    def __init__(self, entry: nn.Module | None, net: nn.Module):
        super().__init__()
        self.entry, self.net = entry, net

    def forward(self, x: Tensor | Given) -> object:
        return call(self.net, x if self.entry is None else self.entry(x))


def _traced(
    twin: nn.Module, example_input: Tensor | Given
) -> tuple[DependencyGraph, nn.Module | None]:
    """(torch-pruning's graph of the network, the layer put before it or None). Raises UserError
    where that library, or the network itself, fails."""
    x, like = example_input[:1], next(twin.parameters())
    entry = None
    if torch.is_tensor(x) and x.is_floating_point():
        x = x.to(like)
        entry = _identity(x)
    with _third_party(twin), torch.enable_grad():
        # the product marks the output, so that its group is known by it
        graph = DependencyGraph().build_dependency(
            _Entered(entry, twin),
            x.to(like.device),
            forward_fn=lambda net, x: prediction(net(x), type(twin).__name__) * 1,
            customized_pruners={PadShortcut: _Decoupled()},
            verbose=False,
        )
    return graph, entry


def _identity(x: Tensor) -> nn.Module | None:
    """A layer that gives images or vectors x as they are, made without a draw from the random
    generator; None for inputs of other shapes."""
    if x.dim() not in (2, 4):
        return None
    kind, *kernel = (nn.Linear,) if x.dim() == 2 else (nn.Conv2d, 1)
    entry = nn.utils.skip_init(kind, x.shape[1], x.shape[1], *kernel, bias=False)
    (nn.init.eye_ if x.dim() == 2 else nn.init.dirac_)(entry.weight)
    return entry.to(x)


@contextlib.contextmanager
def _third_party(model: nn.Module, name: str = "") -> Iterator[None]:
    """Turns whatever goes wrong inside into a UserError, and a walk without end, from the layer
    `name`, into a LayerError: torch-pruning follows a flattened tensor that is brought back to its
    shape round and round, with more indices each time."""
    limit = 4 * max(max(parameter.shape, default=1) for parameter in model.parameters())

    class Bounded(tracing.Group):
        def add_dep(self, dep: Dependency, idxs: list) -> None:
            if len(idxs) > limit:
                raise LayerError(name, UNFOLLOWED)
            super().add_dep(dep, idxs)

    own, tracing.Group = tracing.Group, Bounded
    try:
        yield
    except (LayerError, UserError):
        raise
    except Exception as error:
        problem = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            "model",
            type(model).__name__,
            f"its channels cannot be traced ({type(error).__name__}: {problem})",
            "remove single weights instead of channels",
        ) from error
    finally:
        tracing.Group = own


def _links(
    name: str,
    channels: list[int],
    graph: DependencyGraph,
    modules: Mapping[str, nn.Module],
    entry: nn.Module | None,
) -> tuple[dict, list, str]:
    """{(module, axis): [(its channel, the channel of `name` it hangs on)]} in definition order, the
    same pairs for each split into equal parts (with the parts' size), and which hangs on them too
    of the network's "output" and "input", or ""."""
    links, splits, fixed = {}, [], ""
    names = {module: called for called, module in modules.items()}
    prune_out = graph.get_pruner_of_module(modules[name]).prune_out_channels
    with _third_party(modules[""], name):
        group = graph.get_pruning_group(modules[name], prune_out, channels)
    for item in group:
        module, kind = item.dep.target.module, item.dep.target.type
        if kind == graph.ops.OPTYPE.OUTPUT:
            fixed = "output"
        elif module is entry:
            fixed = fixed or "input"
        if isinstance(module, nn.Parameter):
            raise LayerError(
                name,
                f"its channels meet a raw parameter of shape {tuple(module.shape)}; "
                "name it in skip",
            )
        pairs = sorted(zip(item.idxs, item.root_idxs, strict=True))
        if kind == graph.ops.OPTYPE.SPLIT and len(set(module.split_sizes or ())) == 1:
            splits.append((pairs, module.split_sizes[0]))
        shared = isinstance(module, nn.PReLU) and module.num_parameters == 1
        if module in names and not shared:  # the others have no channels of their own
            axis = (
                "out"
                if item.dep.handler == graph.get_pruner_of_module(module).prune_out_channels
                else "in"
            )
            links[names[module], axis] = pairs
    order = {called: place for place, called in enumerate(modules)}
    ordered = sorted(links.items(), key=lambda link: (order[link[0][0]], link[0][1] == "in"))
    return dict(ordered), splits, fixed


def _require_sliceable(module: nn.Module, name: str, calls: int) -> None:
    if not sliceable(module):
        raise LayerError(name, f"cannot slice a {type(module).__name__}; skip the layer before it")
    if calls > 1:
        raise LayerError(
            name, f"called {calls} times in one pass; skip the layers it is coupled to"
        )
    if (
        isinstance(module, CONVOLUTIONS)
        and 1 < module.groups == module.out_channels != module.in_channels
    ):
        raise LayerError(
            name, "a grouped convolution with one output a group; skip the layers it is coupled to"
        )


def _grouped(
    name: str,
    channels: list[int],
    links: Mapping,
    splits: Sequence,
    modules: Mapping[str, nn.Module],
) -> ChannelGroup:
    """Channels of `name` form one unit if they share a channel of a member, or a place within its
    convolution groups or within the parts of a split.
    """
    parent = {channel: channel for channel in channels}

    def top(channel: int) -> int:
        while parent[channel] != channel:
            channel = parent[channel]
        return channel

    def join(pairs: Sequence, period: int) -> None:
        first: dict[int, int] = {}
        for index, source in pairs:
            parent[top(source)] = top(first.setdefault(index % period, source))

    for pairs, size in splits:
        join(pairs, size)
    for (member, axis), pairs in links.items():
        module, period = modules[member], 2**31
        if isinstance(module, CONVOLUTIONS) and module.groups > 1 and not depthwise(module):
            period = channel_count(module, axis) // module.groups
            if len(pairs) != channel_count(module, axis):
                raise LayerError(
                    member,
                    "a grouped convolution that reads several layers; skip the layers it is "
                    "coupled to",
                )
        join(pairs, period)
    number: dict[int, int] = {}
    unit = {channel: number.setdefault(top(channel), len(number)) for channel in channels}
    members = []
    for (member, axis), pairs in links.items():
        map = [set() for _ in number]
        for index, source in pairs:
            map[unit[source]].add(index)
        members.append(Member(member, axis, [sorted(indices) for indices in map]))
    return ChannelGroup(name, len(number), members)


def _consistent(model: nn.Module, groups: Sequence[ChannelGroup], example_input: Tensor) -> bool:
    """Whether channels that nobody reads can be cut away without a change in the output: one unit
    of each group, then half.
    """
    generator = torch.Generator().manual_seed(0)
    for left in (lambda size: size - 1, lambda size: size // 2):
        keep = {
            group.name: torch.randperm(group.size, generator=generator)[: max(1, left(group.size))]
            .sort()
            .values.tolist()
            for group in groups
        }
        if not _cut_changes_nothing(model, groups, keep, example_input, generator):
            return False
    return True


@torch.no_grad()
def _cut_changes_nothing(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    keep: Mapping[str, list[int]],
    example_input: Tensor,
    generator: torch.Generator,
) -> bool:
    """On a float64 copy with random weights, so that no zero (a residual branch at initialisation)
    hides a mistake.
    """
    twin = clone(model).cpu().double().eval()
    for tensor in itertools.chain(twin.parameters(), twin.buffers()):
        if tensor.is_floating_point() and tensor.ndim < 2:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif tensor.is_floating_point():
            tensor.copy_(
                torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5
            )
    x = example_input[:1].to("cpu")
    if torch.is_tensor(x) and x.is_floating_point():
        x = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    elif not torch.is_tensor(x):
        x = x.changed(lambda t: t.double() if t.is_floating_point() else t)
    try:
        _silence(
            twin,
            {key: gone for key, gone in _removed(twin, groups, keep).items() if key[1] == "in"},
        )
        unread = prediction(call(twin, x))
        narrow(twin, groups, keep)
        now = prediction(call(twin, x))
        return torch.allclose(now, unread, rtol=1e-9, atol=1e-9 * float(unread.abs().max()))
    except (RuntimeError, ValueError, IndexError, AssertionError):
        return False


# -- removing units --------------------------------------------------------------------------------


def narrow(
    model: nn.Module, groups: Sequence[ChannelGroup], keep: Mapping[str, Sequence[int]]
) -> list[dict]:
    """Remove, in place, every unit that `keep` (group name -> increasing unit numbers) does not
    name; groups that are not in `keep` stay whole. Returns the edits. The groups describe the
    network before: find them again to go on.

    Raises UserError for an unknown group, and for units that are no increasing list of at least
    one.
    """
    edits = []
    for (name, axis), gone in _removed(model, groups, keep).items():
        kept = [channel for channel, goes in enumerate(gone) if not goes]
        edits.append({"op": "slice", "module": name, "axis": axis, "keep": kept})
    apply_edits(model, edits)
    return edits


def zero_units(
    model: nn.Module, groups: Sequence[ChannelGroup], keep: Mapping[str, Sequence[int]]
) -> M.Masks:
    """The same network as `narrow` makes, at full size: zeroes, in place, all that `narrow` would
    cut away (weights into and out of the units, biases, BatchNorm's affine part and running mean).
    Returns its masks, True = kept."""
    return _silence(model, _removed(model, groups, keep))


def _of_channels(module: nn.Module, chosen: Tensor, axis: str) -> Tensor:
    """Which weights of a layer belong to the chosen channels, weight-shaped."""
    groups, out, width = L.shape(module)
    where = chosen.reshape(groups, -1)
    if axis == "out":
        where = where[:, :, None].expand(groups, out, width)
    else:
        where = where.repeat_interleave(L.offsets(module), 1)[:, None].expand(groups, out, width)
    return L.to_weight(module, where)


def _removed(
    model: nn.Module, groups: Sequence[ChannelGroup], keep: Mapping[str, Sequence[int]]
) -> dict:
    """{(module, axis): [whether each of its channels goes]}, of modules that lose any."""
    known = {group.name: group for group in groups}
    gone: dict[tuple[str, str], list[bool]] = {}
    for name, units in keep.items():
        if name not in known:
            raise UserError(
                "keep", name, "no such group of channels", f"groups: {', '.join(known)}"
            )
        units, size = [int(unit) for unit in units], known[name].size
        if (
            not units
            or units[0] < 0
            or units[-1] >= size
            or any(a >= b for a, b in itertools.pairwise(units))
        ):
            raise UserError(
                "keep", name, f"needs increasing unit numbers below {size}, at least one"
            )
        for module, axis, map in known[name].members if len(units) < size else ():
            layer, last = (
                submodule(model, module),
                max(index for indices in map for index in indices),
            )
            total = channel_count(layer, axis) or max(last, int(layer.index.max())) + 1
            if last >= total:
                raise UserError(
                    "keep",
                    name,
                    f"{module!r} has changed since the groups were found",
                    "find them again",
                )
            channels = gone.setdefault((module, axis), [])
            channels.extend([False] * (total - len(channels)))
            for unit in set(range(size)) - set(units):
                for index in map[unit]:
                    channels[index] = True
    return gone


@torch.no_grad()
def _silence(model: nn.Module, removed: Mapping[tuple[str, str], list[bool]]) -> M.Masks:
    """Zero the rows ("out") and columns ("in") of these channels; returns the masks that did it."""
    masks: M.Masks = {}
    for (name, axis), gone in removed.items():
        module = model.get_submodule(name)
        if isinstance(module, PadShortcut):
            gone = torch.tensor(gone, device=module.index.device)
            module.index[gone if axis == "out" else gone[module.index.clamp(min=0)]] = -1
            continue
        gone = torch.tensor(gone)
        for part in ("weight", "bias") if axis == "out" else ("weight",):
            if getattr(module, part, None) is not None:
                mask = masks.setdefault(
                    f"{name}.{part}", torch.ones_like(getattr(module, part), dtype=torch.bool)
                )
                if axis == "out" and (part == "bias" or not kind(module)):
                    mask[gone] = False
                elif part == "weight":
                    masks[f"{name}.weight"] = mask & ~_of_channels(module, gone, axis)
        if isinstance(module, NORMS) and module.running_mean is not None:
            module.running_mean[gone] = 0
    M.apply(model, masks)
    return masks
