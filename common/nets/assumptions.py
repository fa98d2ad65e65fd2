"""What the curvature code takes for granted of a network, tried before a layer is first captured.

    a module computes what its class says   layer(x) = inputs @ weightᵀ + bias
    the first dimension is the examples     of every layer's input
    examples do not see each other, and     what a layer reads of one example is the same in a batch
    evaluation is deterministic             of two and alone, in another call
    a weight is used once, in its layer     the captured gradient is autograd's

A trial costs a forward pass of three examples and a backward pass of one, once a layer. It leaves
weights, gradients and random generators as they were. Numbers that are not finite pass: the
estimators name them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakSet

import torch
from torch import Tensor, nn

from common.cells.errors import LayerError, UserError
from common.nets import attention
from common.nets import layers as L

USED_TWICE = "is used twice in one forward pass; its curvature is not that of one layer"
# relative differences that rounding leaves between two ways to compute one thing
ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-2}
COARSE = 1e-1  # for 16 bits
FIELDS = ("logits", "out")  # of an output that is no tensor, those that hold the predictions
AT_ONCE = 1 << 24  # entries of weight gradients held at once, but for a larger layer's (64 MB)

_tried: WeakSet[nn.Module] = WeakSet()


class Given(Protocol):
    """Examples that are more than one tensor, and how a network is called with them."""

    def call(self, model: nn.Module) -> object: ...
    def raw(self) -> bool: ...  # whether the loss reads the output as it comes
    def tensors(self) -> list[Tensor]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: object) -> Given: ...


@dataclass
class _Seen:
    """What one layer met in a trial pass; the gradient is of the trial's loss in the output."""

    given: Tensor
    version: int
    input: Tensor
    output: Tensor
    gradient: Tensor | None = None


@dataclass
class _Pass:
    """One trial pass: what each layer met, by name in the order of the calls. Calls of a backward
    pass, in which gradient checkpointing computes layers again, come when it is not running."""

    seen: dict[str, _Seen] = field(default_factory=dict)
    running: bool = True


def check(model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor | Given) -> None:
    """Try the assumptions on the first examples of x [batch, ...], once for each of `layers` (name
    -> module of `model`); the model is in evaluation mode and its parameters are frozen.

    Raises LayerError naming the first layer that breaks one, UserError for a network that takes no
    single example or mixes examples behind its last layer.
    """
    if not len(x) or all(module in _tried for module in layers.values()):
        return
    two = _two(x)
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        with torch.no_grad(), _watched(layers) as batch:
            batch_output = scores(output_of(model, two), len(two))
        weights = [module.weight for module in layers.values()]
        try:
            for weight in weights:
                weight.requires_grad_()
            with torch.enable_grad(), _watched(layers) as alone:
                output = scores(output_of(model, x[:1], one_example), 1)
                alone.running = False
                for name in layers:
                    if (name in batch.seen) != (name in alone.seen):
                        raise LayerError(
                            name, "is called in a batch or for one example, but not in both"
                        )
                for name, seen in alone.seen.items():
                    _require_rows(name, layers[name], batch.seen[name], seen, len(two))
                    _require_class(name, layers[name], seen)
                _require_independent(model, batch_output, output)
                _require_single_use(layers, alone.seen, output)
        finally:
            for weight in weights:
                weight.requires_grad_(False)
    _tried.update(layers.values())


def read(name: str, module: nn.Module, args: tuple, kwargs: Mapping) -> Tensor:
    """What a layer was called with. Raises UserError for inputs of another precision than its
    weight, LayerError for a call without a tensor."""
    x = args[0] if args else kwargs.get("input")
    if not torch.is_tensor(x):
        raise LayerError(name, "is called without a tensor as its input")
    weight = module.weight
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        remedy = "give x.float() / 255" if x.dtype == torch.uint8 else f"give x.to({weight.dtype})"
        raise UserError(
            "calibration",
            str(x.dtype),
            f"layer {name!r} would read it, and has weights in {weight.dtype}",
            remedy,
        )
    return x


def call(model: nn.Module, x: Tensor | Given) -> object:
    """What the network gives for x: a tensor, or examples that know how a network is called."""
    with attention.projections_called(model):
        return model(x) if torch.is_tensor(x) else x.call(model)


def output_of(
    model: nn.Module, x: Tensor | Given, run: Callable[[nn.Module, Tensor | Given], object] = call
) -> object:
    """The network's output for x as the loss reads it: the tensor of its predictions, or all of it
    for a loss of one's own."""
    raw = run(model, x)
    return raw if not torch.is_tensor(x) and x.raw() else prediction(raw, type(model).__name__)


def prediction(output: object, model: str = "the network") -> Tensor:
    """The tensor of predictions in a network's output: the output itself, its field `logits` or
    `out` (transformers, torchvision's segmentation), or the first of a tuple. UserError for any
    other."""
    if torch.is_tensor(output):
        return output
    if isinstance(output, Mapping):
        fields = [output.get(name) for name in FIELDS]
    elif isinstance(output, (tuple, list)) and not hasattr(output, "_fields"):
        fields = output[:1]
    else:
        fields = [getattr(output, name, None) for name in FIELDS]
    for found in fields:
        if torch.is_tensor(found):
            return found
    key = next(iter(output), 0) if isinstance(output, Mapping) else 0
    raise UserError(
        "model",
        model,
        f"its output is a {type(output).__name__} without a tensor {' or '.join(FIELDS)}",
        f"give forward_fn=lambda model, x: model(x)[{key!r}], or a network that gives the "
        "predictions alone",
    )


def scores(output: object, examples: int) -> Tensor:
    """All numbers of an output [examples, ...] in one tensor; what has another first dimension is
    left out."""
    if torch.is_tensor(output):
        return output
    found = [
        leaf.flatten(1) if leaf.dim() > 1 else leaf[:, None]
        for leaf in _leaves(output)
        if leaf.is_floating_point() and leaf.dim() and len(leaf) == examples
    ]
    return torch.cat(found, 1) if found else torch.zeros(examples, 0)


def _leaves(output: object) -> Iterator[Tensor]:
    if torch.is_tensor(output):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _leaves(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _leaves(value)


def _two(x: Tensor | Given) -> Tensor | Given:
    """The first two examples; the only one twice, as a tensor turned round."""
    if len(x) > 1:
        return x[:2]
    if not torch.is_tensor(x):
        return x[[0, 0]]
    return torch.cat([x, x.flip(-1)]) if x.dim() > 1 else x


@contextlib.contextmanager
def _watched(layers: Mapping[str, nn.Module]) -> Iterator[_Pass]:
    """What the layers meet inside, while the pass is running."""
    watch, inputs = _Pass(), {}

    def before(name: str):
        def see(module: nn.Module, args: tuple, kwargs: dict) -> None:
            if watch.running:
                inputs[name] = read(name, module, args, kwargs).detach().clone()

        return see

    def after(name: str):
        def see(module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> None:
            if not watch.running:
                return
            if name in watch.seen:
                raise LayerError(name, USED_TWICE)
            if not torch.is_tensor(output):
                raise LayerError(name, f"gives a {type(output).__name__}, not a tensor")
            given = read(name, module, args, kwargs)
            # cloned, for a later in-place ReLU may change it
            output_now = output.detach().clone()
            met = watch.seen[name] = _Seen(given, given._version, inputs.pop(name), output_now)
            if output.requires_grad:
                output.register_hook(lambda g: setattr(met, "gradient", g))

        return see

    handles = []
    try:
        for name, module in layers.items():
            handles.append(module.register_forward_pre_hook(before(name), with_kwargs=True))
            handles.append(module.register_forward_hook(after(name), with_kwargs=True))
        yield watch
    finally:
        for handle in handles:
            handle.remove()


def one_example(model: nn.Module, x: Tensor | Given) -> object:
    """The output for x [1, ...]. Raises UserError where the network takes no batch of one."""
    try:
        return call(model, x)
    except UserError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        shapes = [x] if torch.is_tensor(x) else x.tensors()
        raise UserError(
            "model",
            type(model).__name__,
            "takes no batch of one example of shape "
            f"{', '.join(str(tuple(each.shape[1:])) for each in shapes)} "
            f"({str(error).splitlines()[0]})",
            "curvature and costs are of single examples, which do not see each other",
        ) from error


def _require_rows(name: str, module: nn.Module, batch: _Seen, alone: _Seen, count: int) -> None:
    """The first dimension of the layer's input is the examples, and each is what it is alone."""
    needed = L.kind(module).dimensions
    if alone.input.dim() != (needed or max(2, alone.input.dim())):
        raise LayerError(
            name, f"reads inputs of shape {tuple(alone.input.shape)}, which have no batch dimension"
        )
    rows = len(batch.input), len(alone.input)
    if rows != (count, 1):
        raise LayerError(
            name,
            f"the first dimension of its input is not the examples ({rows[0]} for a batch of "
            f"{count}, {rows[1]} for one); bring them first (batch_first), or name it in skip",
        )
    if not _agree(batch.input[:1], alone.input):
        raise LayerError(
            name,
            "what it reads of one example depends on the rest of the batch or differs from call to "
            "call (BatchNorm without running statistics? dropout in evaluation mode?)",
        )


def _require_class(name: str, module: nn.Module, seen: _Seen) -> None:
    """The layer computes what its class says."""
    with torch.no_grad():
        expected = L.forward(module, seen.input)
    if not _agree(expected, seen.output):
        raise LayerError(
            name,
            f"does not compute what a {L.kind(module).name(module)} does: its forward, or a hook, "
            "changes the weight, the padding or the output; name it in skip",
        )


def _require_independent(model: nn.Module, batch: Tensor, alone: Tensor) -> None:
    """The network's output for one example is what it is in a batch."""
    if batch.dim() and alone.dim() and not _agree(batch[:1], alone):
        raise UserError(
            "model",
            type(model).__name__,
            "its output for one example depends on the rest of the batch or differs from call to "
            "call",
            "curvature needs examples that do not see each other, and no dropout in evaluation",
        )


def _require_single_use(
    layers: Mapping[str, nn.Module], alone: Mapping[str, _Seen], output: Tensor
) -> None:
    """The gradient in each weight is what the layer's own input and output gradient make."""
    if not output.requires_grad:
        return
    if any(seen.given._version != seen.version for seen in alone.values()):
        return  # overwritten in place: autograd has no gradient there, and the tape names the layer
    loss = (output * torch.arange(1, output.numel() + 1).cos().to(output).view_as(output)).sum()
    for names in _parts(alone, layers):
        found = torch.autograd.grad(
            loss, [layers[name].weight for name in names], retain_graph=True, allow_unused=True
        )
        for name, total in zip(names, found, strict=True):
            seen = alone[name]
            if total is None or seen.gradient is None:
                continue
            x, gradient = L.at_least_single(seen.input), L.at_least_single(seen.gradient)
            own = L.weight_gradients(layers[name], x, gradient, each=False)
            noise = float(seen.input.double().norm() * seen.gradient.double().norm())
            if not _agree(L.to_weight(layers[name], own), total, noise):
                raise LayerError(
                    name,
                    "its weight is used outside of the layer too, so that its gradient is not the "
                    "layer's; untie it, or name it in skip",
                )


def _parts(names: Mapping[str, object], layers: Mapping[str, nn.Module]) -> Iterator[list[str]]:
    """The names in runs whose weights are held at once."""
    part, size = [], 0
    for name in names:
        entries = layers[name].weight.numel()
        if part and size + entries > AT_ONCE:
            yield part
            part, size = [], 0
        part.append(name)
        size += entries
    if part:
        yield part


def _agree(one: Tensor, other: Tensor, noise: float = 0.0) -> bool:
    """Whether two tensors are one but for rounding, which may also leave a small part of `noise`.
    What is not finite agrees with everything."""
    if one.shape != other.shape:
        return False
    one, other = one.detach(), other.detach()
    tolerance = max(ROUNDING.get(tensor.dtype, COARSE) for tensor in (one, other))
    difference = float((one.double() - other.double()).norm())
    size = max(float(one.double().norm()), float(other.double().norm()))
    return not difference > tolerance * size + 1e-3 * tolerance * noise
