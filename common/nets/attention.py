"""torch's MultiheadAttention multiplies by its last layer's weight without calling the layer.

Inside `projections_called` it does call it, so that hooks see the layer like any other. The
function that attention is made of is then asked for what stands before the projection, by an
identity in the projection's place, and the layer is called on that, with the examples first.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_ARGUMENTS = inspect.signature(F.multi_head_attention_forward)


class _Projections(TorchFunctionMode):
    def __init__(self, layers: list[nn.Linear]):
        super().__init__()
        self.layers = layers

    def __torch_function__(
        self, function: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        if function is not F.multi_head_attention_forward:
            return function(*args, **(kwargs or {}))
        given = _ARGUMENTS.bind(*args, **(kwargs or {})).arguments
        weight = given["out_proj_weight"]
        layer = next((layer for layer in self.layers if layer.weight is weight), None)
        if layer is None:
            return function(**given)
        given["out_proj_weight"] = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
        given["out_proj_bias"] = None
        attended, shares = function(**given)
        with self:
            return _examples_first(layer, attended), shares


def _examples_first(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer of x [tokens, examples, width], or of one example's [tokens, width]."""
    if x.dim() == 2:
        return layer(x[None])[0]
    return layer(x.transpose(0, 1)).transpose(0, 1)


def projections(model: nn.Module) -> list[nn.Linear]:
    """The out_proj of every MultiheadAttention of the model."""
    return [m.out_proj for m in model.modules() if isinstance(m, nn.MultiheadAttention)]


@contextlib.contextmanager
def projections_called(model: nn.Module) -> Iterator[None]:
    """Inside, every MultiheadAttention of the model calls its out_proj, and none takes torch's
    fused path, which calls nothing. The numbers are the same but for rounding."""
    layers = projections(model)
    if not layers:
        yield
        return
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _Projections(layers):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
