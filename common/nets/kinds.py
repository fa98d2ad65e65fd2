"""The kinds of layers whose weights can be removed, one class a kind: the only place that tells
Conv2d from Linear.

A kind brings its layers to the layout of layers.py: a weight matrix [groups, out, in], the rows of
inputs that it multiplies, and the gradients in what it gives.

    Linear           out = out_features, in = in_features, T = all dimensions between
    Conv1D           Hugging Face's (transformers.pytorch_utils): a Linear, its weight transposed
    Conv1d, 2d, 3d   in = (cin / groups)·kernel, T = output positions, an input row is a patch
    ConvTranspose    the same at its output positions: a transposed convolution is one of stride 1
    1d, 2d, 3d       over the input with stride − 1 zeros between its positions, its kernel reversed
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVOLVE = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSE = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_WEIGHT_GRADIENT = (
    torch.nn.grad.conv1d_weight,
    torch.nn.grad.conv2d_weight,
    torch.nn.grad.conv3d_weight,
)


class Kind(Protocol):
    """What the rest of the project asks of a layer; shapes as in layers.py."""

    # dimensions of an input with its examples and channels; None: two and any more
    dimensions: int | None

    def name(self, module: nn.Module) -> str: ...  # torch's own class
    def forward(self, module: nn.Module, x: Tensor) -> Tensor: ...
    # (input, output) channels
    def channels(self, module: nn.Module) -> tuple[int, int]: ...
    def groups(self, module: nn.Module) -> int: ...
    def to_matrix(self, module: nn.Module, weight: Tensor) -> Tensor: ...
    def to_weight(self, module: nn.Module, matrix: Tensor) -> Tensor: ...
    def inputs(self, module: nn.Module, x: Tensor) -> Tensor: ...
    def gradients(self, module: nn.Module, g: Tensor) -> Tensor: ...
    def weight_gradients(self, module: nn.Module, x: Tensor, g: Tensor, each: bool) -> Tensor: ...
    # multiply-accumulates that each weight takes part in
    def uses(self, module: nn.Module, x: Tensor, output: Tensor) -> int: ...


class _Linear:
    dimensions: int | None = None

    def name(self, module: nn.Module) -> str:
        return "Linear"

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        return F.linear(x, module.weight, module.bias)

    def channels(self, module: nn.Module) -> tuple[int, int]:
        return module.weight.shape[1], module.weight.shape[0]

    def groups(self, module: nn.Module) -> int:
        return 1

    def to_matrix(self, module: nn.Module, weight: Tensor) -> Tensor:
        return weight[None]

    def to_weight(self, module: nn.Module, matrix: Tensor) -> Tensor:
        return matrix.reshape(module.weight.shape)

    def inputs(self, module: nn.Module, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], 1, -1, x.shape[-1])

    def gradients(self, module: nn.Module, g: Tensor) -> Tensor:
        return self.inputs(module, g)

    def weight_gradients(self, module: nn.Module, x: Tensor, g: Tensor, each: bool) -> Tensor:
        rows, gradient = self.inputs(module, x), self.gradients(module, g)
        if each:
            return gradient.mT @ rows
        return (gradient.flatten(0, 2).mT @ rows.flatten(0, 2))[None, None]

    def uses(self, module: nn.Module, x: Tensor, output: Tensor) -> int:
        return output.numel() // self.channels(module)[1]


class _HuggingFace(_Linear):
    def name(self, module: nn.Module) -> str:
        return "Conv1D"

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        return F.linear(x, module.weight.T, module.bias)

    def channels(self, module: nn.Module) -> tuple[int, int]:
        return module.weight.shape[0], module.weight.shape[1]

    def to_matrix(self, module: nn.Module, weight: Tensor) -> Tensor:
        return weight.T[None]

    def to_weight(self, module: nn.Module, matrix: Tensor) -> Tensor:
        return matrix.reshape(module.weight.shape[::-1]).T


class _Convolution:
    def __init__(self, rank: int):
        self.rank = rank
        self.dimensions: int | None = rank + 2

    def name(self, module: nn.Module) -> str:
        return f"Conv{self.rank}d"

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        strides = module.stride, 0, module.dilation, module.groups
        return _CONVOLVE[self.rank - 1](pad(module, x), module.weight, module.bias, *strides)

    def channels(self, module: nn.Module) -> tuple[int, int]:
        # of the weight, which edits may have cut
        return module.weight.shape[1] * module.groups, module.weight.shape[0]

    def groups(self, module: nn.Module) -> int:
        return module.groups

    def to_matrix(self, module: nn.Module, weight: Tensor) -> Tensor:
        return weight.reshape(module.groups, weight.shape[0] // module.groups, -1)

    def to_weight(self, module: nn.Module, matrix: Tensor) -> Tensor:
        return matrix.reshape(module.weight.shape)

    def inputs(self, module: nn.Module, x: Tensor) -> Tensor:
        padded = pad(module, x)
        if self.rank == 2:
            columns = F.unfold(
                padded, module.kernel_size, dilation=module.dilation, stride=module.stride
            )
            return columns.reshape(x.shape[0], module.groups, -1, columns.shape[-1]).transpose(2, 3)
        return _patches(padded, module.groups, module.kernel_size, module.stride, module.dilation)

    def gradients(self, module: nn.Module, g: Tensor) -> Tensor:
        return g.reshape(g.shape[0], module.groups, g.shape[1] // module.groups, -1).transpose(2, 3)

    def weight_gradients(self, module: nn.Module, x: Tensor, g: Tensor, each: bool) -> Tensor:
        """One grouped convolution backward, with every example a group of its own: no patches are
        formed, which on a CPU is three to six times faster than multiplying unfolded patches."""
        total, examples = _weight_gradient(self.rank, module, pad(module, x), g, each)
        out = module.weight.shape[0]
        return total.reshape(examples, module.groups, out // module.groups, -1)

    uses = _Linear.uses


class _Transposed:
    def __init__(self, rank: int):
        self.rank = rank
        self.dimensions: int | None = rank + 2

    def name(self, module: nn.Module) -> str:
        return f"ConvTranspose{self.rank}d"

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        return _TRANSPOSE[self.rank - 1](
            x,
            module.weight,
            module.bias,
            module.stride,
            module.padding,
            module.output_padding,
            module.groups,
            module.dilation,
        )

    def channels(self, module: nn.Module) -> tuple[int, int]:
        return module.weight.shape[0], module.weight.shape[1] * module.groups

    def groups(self, module: nn.Module) -> int:
        return module.groups

    def to_matrix(self, module: nn.Module, weight: Tensor) -> Tensor:
        # [groups, in, out, kernel]
        blocks = weight.reshape(module.groups, -1, weight.shape[1], math.prod(weight.shape[2:]))
        return blocks.transpose(1, 2).flatten(2)

    def to_weight(self, module: nn.Module, matrix: Tensor) -> Tensor:
        inputs, outputs = module.weight.shape[0] // module.groups, module.weight.shape[1]
        blocks = matrix.reshape(module.groups, outputs, inputs, -1)
        return blocks.transpose(1, 2).reshape(module.weight.shape)

    def inputs(self, module: nn.Module, x: Tensor) -> Tensor:
        """Output p reads input t through the kernel offset k where p = t·stride − padding +
        k·dilation: between the inputs lie stride − 1 zeros, and behind the border the rest."""
        places, around = _spread(x, module.stride), []
        for k, d, p, more in zip(
            module.kernel_size, module.dilation, module.padding, module.output_padding, strict=True
        ):
            around[:0] = (d * (k - 1) - p, d * (k - 1) - p + more)
        one = (1,) * self.rank
        return _patches(
            F.pad(places, around), module.groups, module.kernel_size, one, module.dilation, True
        )

    gradients = _Convolution.gradients

    def weight_gradients(self, module: nn.Module, x: Tensor, g: Tensor, each: bool) -> Tensor:
        """Of the convolution that this one is the transpose of, which reads g and gives x."""
        around: list[int] = []
        for p, more in zip(module.padding, module.output_padding, strict=True):
            around[:0] = (p, p - more)
        total, examples = _weight_gradient(self.rank, module, F.pad(g, around), x, each)
        blocks = total.reshape(
            examples, module.groups, -1, module.weight.shape[1], math.prod(module.kernel_size)
        )
        return blocks.transpose(2, 3).flatten(3)

    def uses(self, module: nn.Module, x: Tensor, output: Tensor) -> int:
        return x.numel() // self.channels(module)[0]


LINEAR, HUGGING_FACE = _Linear(), _HuggingFace()
_BY_CLASS: tuple[tuple[type, Kind], ...] = (
    (nn.Linear, LINEAR),
    *((one, _Convolution(rank)) for rank, one in enumerate(CONVOLUTIONS, 1)),
    *((one, _Transposed(rank)) for rank, one in enumerate(TRANSPOSED, 1)),
)
KNOWN = "Linear, Conv1d to Conv3d, ConvTranspose1d to ConvTranspose3d, or transformers' Conv1D"


def kind(module: nn.Module) -> Kind | None:
    """What the module is; None for one whose weights no method removes. A subclass is what it
    derives from, and whether it computes that is tried before its curvature is taken
    (assumptions.py)."""
    for one, found in _BY_CLASS:
        if isinstance(module, one):
            return found
    # known by its name, so that transformers is not imported where nobody uses it
    places = {(base.__module__, base.__name__) for base in type(module).__mro__}
    return HUGGING_FACE if ("transformers.pytorch_utils", "Conv1D") in places else None


def padding(module: _ConvNd) -> list[int]:
    """A convolution's padding as F.pad takes it, from the last dimension to the first; also for
    padding="same"."""
    if module.padding == "valid":
        return [0, 0] * len(module.kernel_size)
    around: list[int] = []
    if module.padding == "same":
        for d, k in zip(module.dilation, module.kernel_size, strict=True):
            total = d * (k - 1)
            around[:0] = (total // 2, total - total // 2)
    else:
        for p in module.padding:
            around[:0] = (p, p)
    return around


def pad(module: nn.Module, x: Tensor) -> Tensor:
    """A convolution's input with its padding made explicit."""
    around = padding(module)
    if not any(around):
        return x
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return F.pad(x, around, mode=mode)


def _patches(
    x: Tensor,
    groups: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    reverse: bool = False,
) -> Tensor:
    """The patches of x [batch, cin, ...], which is padded already: [batch, groups, T, (cin /
    groups)·kernel]. reverse: the kernel's offsets from the last to the first."""
    for axis, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True), 2):
        x = x.unfold(axis, d * (k - 1) + 1, s)[..., ::d]
    if reverse:
        x = x.flip(*range(-len(kernel), 0))
    x = x.reshape(len(x), groups, x.shape[1] // groups, -1, math.prod(kernel))
    return x.transpose(2, 3).flatten(3)


def _spread(x: Tensor, stride: Sequence[int]) -> Tensor:
    """x [batch, channels, ...] with stride − 1 zeros between two of its places."""
    sizes = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], stride, strict=True)]
    result = x.new_zeros(*x.shape[:2], *sizes)
    result[(..., *(slice(None, None, s) for s in stride))] = x
    return result


def _weight_gradient(
    rank: int, module: _ConvNd, read: Tensor, given: Tensor, each: bool
) -> tuple[Tensor, int]:
    """The gradient in the weight of a convolution without padding, which reads `read` [batch, ...]
    and has the output gradient `given`: each example's, one after the other along the first
    dimension, or their sum; and how many that is."""
    examples = len(read) if each else 1
    if each:
        read, given = read.flatten(0, 1)[None], given.flatten(0, 1)[None]
    first, *rest = module.weight.shape
    size, groups = (examples * first, *rest), examples * module.groups
    total = _WEIGHT_GRADIENT[rank - 1](
        read, size, given, stride=module.stride, dilation=module.dilation, groups=groups
    )
    return total, examples
