"""Pre-activation ResNet-29 of EigenDamage (He et al. 2016b; block and initialisation after Liu et
al. 2017).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from common.nets.models.parts import scaled


class PreActBlock(nn.Module):
    """BN - ReLU - 1x1, BN - ReLU - 3x3, BN - ReLU - 1x1, all of the stage's width (expansion 1),
    plus the block's input, which goes through a bare strided 1x1 convolution where the shape
    changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu3 = nn.ReLU()
        self.conv3 = nn.Conv2d(outputs, outputs, 1, bias=False)
        same = stride == 1 and inputs == outputs
        self.downsample = (
            nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs, h, w] -> [batch, outputs, h / stride, w / stride]."""
        y = self.conv1(self.relu1(self.bn1(x)))
        y = self.conv2(self.relu2(self.bn2(y)))
        y = self.conv3(self.relu3(self.bn3(y)))
        return y + self.downsample(x)


class PreResNet(nn.Module):
    """3x3 stem, three stages of `blocks` blocks at widths 16, 32, 64 (times `width`), BN, ReLU,
    average pooling, linear.
    """

    def __init__(self, blocks: int, classes: int, channels: int, width: float):
        super().__init__()
        widths = [scaled(full, width) for full in (16, 32, 64)]
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        inputs = widths[0]
        for stage, outputs in enumerate(widths, start=1):
            stack = nn.Sequential()
            for number in range(blocks):
                stack.append(PreActBlock(inputs, outputs, 2 if stage > 1 and number == 0 else 1))
                inputs = outputs
            self.add_module(f"layer{stage}", stack)
        self.bn = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(inputs, classes)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels * math.prod(module.kernel_size)
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.weight, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, c, h, w] -> [batch, classes]."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.linear(torch.flatten(self.pool(self.relu(self.bn(x))), 1))


def preresnet29(
    classes: int, input_shape: tuple[int, int, int], *, width: float = 1.0
) -> nn.Module:
    """PreResNet-29; EigenDamage's is "preresnet29:width=4" (64, 128, 256). Convolutions N(0, 2 /
    (k² · out)), BatchNorm weight 0.5. EigenDamage's count of 2,852,426 includes 1,408 entries of
    modules that its forward pass does not use.

    CIFAR-10 with width=4: 2,851,018 parameters, 2,842,816 weights, 429,591,040 MACs.
    """
    return PreResNet(3, classes, input_shape[0], width)
