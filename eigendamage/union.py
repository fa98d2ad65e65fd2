"""The paper's way with residual networks: every layer loses its own filters, and an addition has
the union of what arrives.

A layer that adds into a stream gives only its kept channels; a channel map then puts them in their
places, zeros beside them. A layer that reads the stream is mapped to the channels that anything has
written so far. What no layer writes is cut away for all. The result computes what the whole network
does with the removed filters at zero. Pruned again, its layers first get back the rows and columns
that its maps left out, as zeros, so that every channel has the number it has in the stream
(`widen`); what went stays gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from common.cells.errors import LayerError
from common.nets import layers as L
from common.nets.clone import clone
from common.nets.edits import BATCHNORM, apply_edits, channel_count, map_side
from common.nets.surgery import ChannelGroup, narrow

PLAIN = (nn.Conv2d, nn.Linear)  # the layers that residual streams are followed through


def cut(
    model: nn.Module, groups: Sequence[ChannelGroup], gone: Mapping[str, Tensor], example: Tensor
) -> list[dict]:
    """Remove, in place, the filters that are True in `gone` [filters that are left] by layer;
    returns the edits.

    groups: of `common.nets.surgery.channel_groups`, of the widened network where filters went
    before. example: [batch, ...], only its shape matters. Raises LayerError for a grouped
    convolution or one of another kind than Conv2d and Linear among the layers.
    """
    for name in gone:
        module = model.get_submodule(inner(model, name))
        if not isinstance(module, PLAIN):
            raise LayerError(
                name,
                f"the filters of a {type(module).__name__} do not go one by one; name it in skip, "
                "or choose coupled units",
            )
        if L.groups(module) > 1:
            raise LayerError(
                name,
                "a grouped convolution's filters do not go one by one; name it in skip, or choose "
                "coupled units",
            )
    before, dead = widen(model, example)
    gone = {
        name: _with_the_dead(rows, dead[name]) if name in dead else rows
        for name, rows in gone.items()
    }
    written, norms = _written(model, gone, example)
    edits = narrow(model, groups, {group.name: _alive(group, gone, written) for group in groups})
    kept = {(edit["module"], edit["axis"]): edit["keep"] for edit in edits}
    more = []
    for name, rows in gone.items():
        stay = kept.get((name, "out"), list(range(len(rows))))
        mine = [place for place, row in enumerate(stay) if not rows[row]]
        if len(mine) < len(stay):
            last = norms.get(name, name)
            more += [
                {"op": "slice", "module": module, "axis": "out", "keep": mine}
                for module in dict.fromkeys((name, last))
            ]
            more.append(
                {
                    "op": "map",
                    "module": last,
                    "side": "after",
                    "index": [
                        mine.index(place) if place in mine else -1 for place in range(len(stay))
                    ],
                }
            )
    for name, columns in written.items():
        if isinstance(model.get_submodule(name), BATCHNORM):
            continue
        stay = kept.get((name, "in"), list(range(len(columns))))
        seen = [place for place, column in enumerate(stay) if columns[column]]
        if len(seen) < len(stay):
            more += [
                {"op": "slice", "module": name, "axis": "in", "keep": seen},
                {"op": "map", "module": name, "side": "before", "index": seen},
            ]
    more.sort(key=lambda edit: edit["op"] == "map")  # a mapped layer has another name
    apply_edits(model, more)
    return before + edits + more


def inner(model: nn.Module, name: str) -> str:
    """The path of the layer that the maps at `name` are around."""
    while map_side(model.get_submodule(name)):
        name += ".layer"
    return name


def widen(model: nn.Module, example: Tensor) -> tuple[list[dict], dict[str, Tensor]]:
    """Take every channel map away, in place, with zeros for what it left out; the function stays
    the same. Returns the edits and, by layer, which of its filters are such zeros [filters]."""
    edits, dead, followed = [], {}, _followed(model, example)
    streams = _streams(model, example)
    mapped = [name for name, module in model.named_modules() if map_side(module)]
    for name in (name for name in mapped if not name.endswith(".layer")):
        module, widened = model.get_submodule(name), []
        while side := map_side(module):
            edits.append({"op": "unmap", "module": name})
            index = list(module.map.index)
            if side == "after":
                dead |= (
                    {}
                    if isinstance(model.get_submodule(inner(model, name)), BATCHNORM)
                    else {name: torch.tensor(index) < 0}
                )
                widened.append({"op": "widen", "module": name, "axis": "out", "index": index})
            else:
                place = {channel: i for i, channel in enumerate(index)}
                widened.append(
                    {
                        "op": "widen",
                        "module": name,
                        "axis": "in",
                        "index": [place.get(i, -1) for i in range(streams[name])],
                    }
                )
            module = module.layer
        edits += widened
    # the map is after its BatchNorm, and the layer has fewer filters too
    for name, index in followed.items():
        edits.append({"op": "widen", "module": name, "axis": "out", "index": index})
        dead[name] = torch.tensor(index) < 0
    apply_edits(model, edits)
    return edits, dead


def _with_the_dead(rows: Tensor, dead: Tensor) -> Tensor:
    """Which filters are gone, of all: those that were, and `rows` of those that were not."""
    result = dead.clone()
    result[~dead] = rows.cpu()
    return result


def _followed(model: nn.Module, example: Tensor) -> dict[str, list[int]]:
    """{layer: index of the map after the BatchNorm that reads it}."""
    found, outputs = {}, {}

    def reads(module: nn.Module, inputs: tuple, index: list[int]) -> None:
        if id(inputs[0]) in outputs:
            found[outputs[id(inputs[0])][0]] = index

    handles = [
        module.register_forward_hook(
            lambda _, __, output, name=name: outputs.update({id(output): (name, output)})
        )
        for name, module in _layers(model).items()
    ]
    handles += [
        module.layer.register_forward_pre_hook(
            lambda m, x, index=list(module.map.index): reads(m, x, index)
        )
        for module in model.modules()
        if map_side(module) == "after" and isinstance(module.layer, BATCHNORM)
    ]
    _run(model, example, handles)
    return found


def _streams(model: nn.Module, example: Tensor) -> dict[str, int]:
    """{name of a mapped layer: channels that come in}."""
    found = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: found.update({name: inputs[0].shape[1]})
        )
        for name, module in model.named_modules()
        if map_side(module)
    ]
    _run(model, example, handles)
    return found


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """What gives a layer's output, by the layer's name: the layer, without a map after it."""
    return {
        name: model.get_submodule(inner(model, name))
        for name, module in model.named_modules()
        if (isinstance(module, PLAIN) or map_side(module))
        and not name.endswith(".layer")
        and isinstance(model.get_submodule(inner(model, name)), PLAIN)
    }


@torch.no_grad()
def _run(model: nn.Module, example: Tensor, handles: list) -> None:
    """One image of zeros through the network, in evaluation mode, with these hooks, which then
    go.
    """
    training = model.training
    try:
        model.eval()(torch.zeros_like(example[:1]).to(next(model.parameters())))
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()


def _alive(
    group: ChannelGroup, gone: Mapping[str, Tensor], written: Mapping[str, Tensor]
) -> list[int]:
    """The units of a group that any layer writes or reads."""
    alive = torch.zeros(group.size, dtype=torch.bool)
    for module, axis, map in group.members:
        for unit, channels in enumerate(map):
            if axis == "out" and module in gone:
                alive[unit] |= bool((~gone[module][channels].cpu()).any())
            elif module in written:
                alive[unit] |= bool(written[module][channels].any())
    return alive.nonzero().flatten().tolist()


@torch.no_grad()
def _written(
    model: nn.Module, gone: Mapping[str, Tensor], example: Tensor
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """({layer: which of its input channels anything has written}, {layer: the BatchNorm that alone
    reads it}).

    Found by running a copy whose weights are all positive and whose biases are zero on an image of
    ones: sums cannot cancel, so a channel is zero exactly where every filter that writes it is
    gone.
    """
    twin = clone(model).cpu().double().eval()
    for name, module in twin.named_modules():
        if isinstance(module, PLAIN):
            module.weight.fill_(1 / module.weight[0].numel())
            module.weight[gone[name].cpu() if name in gone else []] = 0
        elif isinstance(module, BATCHNORM):
            module.reset_running_stats()
            if module.affine:
                module.weight.fill_(1)
        if getattr(module, "bias", None) is not None:
            module.bias.zero_()
    written, norms, outputs = {}, {}, {}

    def before(name: str):
        def hook(module: nn.Module, inputs: tuple) -> None:
            x = inputs[0]
            written[name] = x.transpose(0, 1).flatten(1).any(1)
            if isinstance(module, BATCHNORM) and id(x) in outputs:
                norms[outputs[id(x)][0]] = name

        return hook

    for name, module in twin.named_modules():
        if isinstance(module, PLAIN):
            module.register_forward_hook(
                lambda _, __, output, name=name: outputs.update({id(output): (name, output)})
            )
        if isinstance(module, (*PLAIN, *BATCHNORM)):
            module.register_forward_pre_hook(before(name))
    with torch.enable_grad():
        result = twin.requires_grad_()(torch.ones(1, *example.shape[1:], dtype=torch.float64))
    readers = _readers(result)
    alone = {name for name, output in outputs.values() if readers[output.grad_fn] == 1}
    norms = {name: norm for name, norm in norms.items() if name in alone}
    for name, channels in written.items():
        if len(channels) != channel_count(
            model.get_submodule(name),
            "out" if isinstance(model.get_submodule(name), BATCHNORM) else "in",
        ):
            raise LayerError(name, "its inputs are not [batch, channels, ...]")
    return written, norms


def _readers(result: Tensor) -> Counter:
    """How many operations read what each operation behind `result` gives."""
    seen, stack, count = set(), [result.grad_fn], Counter()
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            sources = [source for source, _ in node.next_functions if source is not None]
            count.update(sources)
            stack += sources
    return count
