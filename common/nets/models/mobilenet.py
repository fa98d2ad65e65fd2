"""MobileNetV1 (Howard et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.nets.models.parts import kaiming_normal, scaled

# (output channels, stride) of the 13 depthwise-separable blocks
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)


class SeparableBlock(nn.Module):
    """Depthwise 3x3 - BN - ReLU - pointwise 1x1 - BN - ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.depthwise = nn.Conv2d(
            inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False
        )
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs, h, w] -> [batch, outputs, h / stride, w / stride]."""
        x = self.relu1(self.bn1(self.depthwise(x)))
        return self.relu2(self.bn2(self.pointwise(x)))


class MobileNetV1(nn.Module):
    """Strided 3x3 stem, 13 separable blocks, average pooling, linear."""

    def __init__(self, classes: int, channels: int, width: float):
        super().__init__()
        inputs = scaled(32, width)
        self.conv1 = nn.Conv2d(channels, inputs, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.blocks = nn.Sequential()
        for full, stride in BLOCKS:
            outputs = scaled(full, width)
            self.blocks.append(SeparableBlock(inputs, outputs, stride))
            inputs = outputs
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)
        kaiming_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, c, h, w] -> [batch, classes]."""
        x = self.blocks(self.relu1(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.pool(x), 1))


def mobilenet_v1(
    classes: int, input_shape: tuple[int, int, int], *, width: float = 1.0
) -> nn.Module:
    """MobileNetV1, Kaiming-normal initialisation.

    ImageNet: 4,231,976 parameters, 4,209,088 weights, 568,740,352 MACs.
    """
    return MobileNetV1(classes, input_shape[0], width)
