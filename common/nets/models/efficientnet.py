"""EfficientNet-Lite0 (the EfficientNet of Tan & Le 2019 without squeeze-and-excitation, ReLU6 in
place of swish), with the module names of the public PyTorch weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.nets.models.parts import kaiming_normal, require_colour, scaled

# (blocks, kernel, stride of the first, expansion, output channels) of each stage
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _same(kernel: int, stride: int) -> tuple[nn.Module, int]:
    """(explicit padding, the convolution's own): TensorFlow's SAME, which at stride 2 pads one
    pixel less before the image than after it."""
    if stride == 1:
        return nn.Identity(), kernel // 2
    before = kernel // 2 - 1
    after = kernel // 2
    return nn.ZeroPad2d((before, after, before, after)), 0


class InvertedResidual(nn.Module):
    """1x1 expansion - BN - ReLU6, depthwise k x k - BN - ReLU6, 1x1 projection - BN; added to its
    input where the shapes agree. Without expansion the first three are left out."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        width = inputs * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, width, 1, bias=False)
            self._bn0, self._relu0 = _norm(width), nn.ReLU6()
        self._pad, padding = _same(kernel, stride)
        self._depthwise_conv = nn.Conv2d(
            width, width, kernel, stride=stride, padding=padding, groups=width, bias=False
        )
        self._bn1, self._relu1 = _norm(width), nn.ReLU6()
        self._project_conv = nn.Conv2d(width, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs, h, w] -> [batch, outputs, h / stride, w / stride]."""
        y = self._relu0(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self._relu1(self._bn1(self._depthwise_conv(self._pad(y))))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite(nn.Module):
    """Strided 3x3 stem, inverted residuals, 1x1 head, average pooling, linear."""

    def __init__(self, classes: int, width: float):
        super().__init__()
        inputs = scaled(STEM, width)
        self._pad, padding = _same(3, 2)
        self._conv_stem = nn.Conv2d(3, inputs, 3, stride=2, padding=padding, bias=False)
        self._bn0, self._relu0 = _norm(inputs), nn.ReLU6()
        self._blocks = nn.Sequential()
        for blocks, kernel, stride, expansion, full in STAGES:
            for index in range(blocks):
                first = stride if index == 0 else 1
                outputs = scaled(full, width)
                self._blocks.append(InvertedResidual(inputs, outputs, kernel, first, expansion))
                inputs = outputs
        head = scaled(HEAD, width)
        self._conv_head = nn.Conv2d(inputs, head, 1, bias=False)
        self._bn1, self._relu1 = _norm(head), nn.ReLU6()
        self._pool = nn.AdaptiveAvgPool2d(1)
        self._fc = nn.Linear(head, classes)
        kaiming_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, h, w] -> [batch, classes]."""
        x = self._blocks(self._relu0(self._bn0(self._conv_stem(self._pad(x)))))
        x = self._pool(self._relu1(self._bn1(self._conv_head(x))))
        return self._fc(torch.flatten(x, 1))


def efficientnet_lite0(
    classes: int, input_shape: tuple[int, int, int], *, width: float = 1.0
) -> nn.Module:
    """EfficientNet-Lite0, padded as for sides that are multiples of 32; Kaiming-normal
    initialisation.

    ImageNet: 4,652,008 parameters, 4,608,992 weights, 385,187,552 MACs.
    """
    require_colour("efficientnet_lite0", input_shape)
    return EfficientNetLite(classes, width)
