"""What several families share: widths, checks of the input size, initialisation, and the shortcut
without parameters, which pruning cuts too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.cells.errors import UserError

MAX_WIDTH = 64.0


def scaled(channels: int, width: float) -> int:
    """`channels` times the width multiplier, at least 1; UserError for a width outside (0, 64]."""
    if not 0 < width <= MAX_WIDTH:
        raise UserError("model", f"width={width:g}", f"must be above 0 and at most {MAX_WIDTH:g}")
    return max(1, round(channels * width))


def switch(name: str, value: int) -> bool:
    """An option that is 0 or 1; UserError for another number."""
    if value not in (0, 1):
        raise UserError("model", f"{name}={value}", "must be 0 or 1")
    return bool(value)


def require_side(model: str, input_shape: tuple[int, int, int], least: int) -> None:
    """UserError unless the image is at least `least` pixels on both sides."""
    if min(input_shape[1:]) < least:
        height, width = input_shape[1:]
        raise UserError(
            "model",
            model,
            f"needs images of at least {least}x{least} pixels, these are {height}x{width}",
            "choose another model or data set",
        )


def require_colour(model: str, input_shape: tuple[int, int, int]) -> None:
    """UserError unless the image has three channels."""
    if input_shape[0] != 3:
        raise UserError(
            "model",
            model,
            f"needs 3 colour channels, these images have {input_shape[0]}",
            "choose another model or data set",
        )


def kaiming_normal(model: nn.Module) -> None:
    """He et al. (2015), fan-in, for every conv and linear weight; zero biases; BatchNorm stays at
    weight 1, bias 0.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class PadShortcut(nn.Module):
    """The parameter-free shortcut (option A): every `stride`-th pixel, and zero channels beside the
    input's.

    `index`, int64 [out channels], says which input channel each output channel copies, -1 for a
    zero channel. It is all that has to change when channels on either side are removed. It is no
    part of the state dict.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        before = (outputs - inputs) // 2
        index = torch.full((outputs,), -1)
        index[before : before + inputs] = torch.arange(inputs)
        self.stride = stride
        self.register_buffer("index", index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs, h, w] -> [batch, outputs, ceil(h / stride), ceil(w / stride)]."""
        # one zero channel at the end: where -1 points
        x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, 1))
        return x.index_select(1, self.index.remainder(x.shape[1]))
