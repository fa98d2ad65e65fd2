"""ResNets for CIFAR (He et al. 2016, section 4.2): 3 stages of basic blocks, 6n+2 layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.cells.errors import choose
from common.nets.models.parts import PadShortcut, kaiming_normal, scaled


class BasicBlock(nn.Module):
    """conv - BN - ReLU - conv - BN, plus the shortcut, then ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        if stride == 1 and inputs == outputs:
            self.shortcut = nn.Identity()
        elif shortcut == "A":
            self.shortcut = PadShortcut(inputs, outputs, stride)
        else:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs, h, w] -> [batch, outputs, h / stride, w / stride]."""
        y = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """3x3 stem, three stages of `blocks` basic blocks at widths 16, 32, 64 (times `width`), average
    pooling, linear.
    """

    def __init__(self, blocks: int, classes: int, channels: int, width: float, shortcut: str):
        super().__init__()
        choose("model", f"shortcut={shortcut}", ("shortcut=A", "shortcut=B"))
        widths = [scaled(full, width) for full in (16, 32, 64)]
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        inputs = widths[0]
        for stage, outputs in enumerate(widths, start=1):
            stack = nn.Sequential()
            for number in range(blocks):
                stack.append(
                    BasicBlock(inputs, outputs, 2 if stage > 1 and number == 0 else 1, shortcut)
                )
                inputs = outputs
            self.add_module(f"layer{stage}", stack)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(inputs, classes)
        kaiming_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, c, h, w] -> [batch, classes]."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(self.pool(x), 1))


def resnet20(
    classes: int, input_shape: tuple[int, int, int], *, width: float = 1.0, shortcut: str = "A"
) -> nn.Module:
    """ResNet-20, Kaiming-normal initialisation. WoodFisher's is "resnet20:shortcut=B" (1x1 conv and
    BatchNorm).

    CIFAR-10: 269,722 parameters, 268,336 weights, 40,551,040 MACs; with shortcut=B: 272,474
    parameters, 270,896 weights (270,256 of convolutions), 40,813,184 MACs.
    """
    return ResNet(3, classes, input_shape[0], width, shortcut)


def resnet32(
    classes: int, input_shape: tuple[int, int, int], *, width: float = 1.0, shortcut: str = "A"
) -> nn.Module:
    """ResNet-32, Kaiming-normal initialisation. EigenDamage's is "resnet32:width=4,shortcut=B".

    CIFAR-10: 464,154 parameters, 461,872 weights, 68,862,592 MACs; EigenDamage's: 7,427,914
    parameters, 7,418,048 weights, 1,100,679,680 MACs (7,451,044 parameters for CIFAR-100).
    """
    return ResNet(5, classes, input_shape[0], width, shortcut)


def resnet56(
    classes: int, input_shape: tuple[int, int, int], *, width: float = 1.0, shortcut: str = "A"
) -> nn.Module:
    """ResNet-56, Kaiming-normal initialisation.

    CIFAR-10: 853,018 parameters, 848,944 weights, 125,485,696 MACs.
    """
    return ResNet(9, classes, input_shape[0], width, shortcut)
