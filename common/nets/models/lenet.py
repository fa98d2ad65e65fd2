"""Small convolutional nets: Caffe's LeNet-5 and CIFAR-Net."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.cells.errors import UserError
from common.nets.models.parts import require_side, switch


class LeNet5(nn.Module):
    """conv 20@5x5, pool 2, conv 50@5x5, pool 2, fc 500, ReLU, fc classes. As in Caffe, no
    non-linearity but max-pooling follows the convolutions. With `bn` a BatchNorm follows every
    layer but the last."""

    def __init__(self, classes: int, input_shape: tuple[int, int, int], bn: bool):
        super().__init__()
        channels, *sides = input_shape
        height, width = (((side - 4) // 2 - 4) // 2 for side in sides)
        self.conv1 = nn.Conv2d(channels, 20, 5)
        self.bn1 = nn.BatchNorm2d(20) if bn else nn.Identity()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.bn2 = nn.BatchNorm2d(50) if bn else nn.Identity()
        self.pool2 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(50 * height * width, 500)
        self.bn3 = nn.BatchNorm1d(500) if bn else nn.Identity()
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, c, h, w] -> [batch, classes]."""
        x = self.pool1(self.bn1(self.conv1(x)))
        x = self.pool2(self.bn2(self.conv2(x)))
        return self.fc2(self.relu(self.bn3(self.fc1(torch.flatten(x, 1)))))


def lenet5(classes: int, input_shape: tuple[int, int, int], *, bn: int = 0) -> nn.Module:
    """LeNet-5 in Caffe's 20-50-500-10 form, unpadded 5x5 convolutions, biases. PyTorch's default
    initialisation. bn=1 adds BatchNorm, whose scales NN Slimming reads.

    MNIST: 431,080 parameters, 430,500 weights, 2,293,000 MACs.
    """
    require_side("lenet5", input_shape, 16)
    return LeNet5(classes, input_shape, switch("bn", bn))


class CifarNet(nn.Module):
    """Three times (conv 5x5 pad 2, BatchNorm, ReLU, max-pool 3 stride 2 without padding), fc 64,
    ReLU, dropout, fc.
    """

    def __init__(self, classes: int, input_shape: tuple[int, int, int], dropout: float):
        super().__init__()
        channels, *sides = input_shape
        for number, out in enumerate((32, 32, 64), start=1):
            self.add_module(f"conv{number}", nn.Conv2d(channels, out, 5, padding=2, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(out))
            self.add_module(f"relu{number}", nn.ReLU())
            self.add_module(f"pool{number}", nn.MaxPool2d(3, stride=2))
            channels, sides = out, [(side - 1) // 2 for side in sides]
        self.fc1 = nn.Linear(channels * sides[0] * sides[1], 64)
        self.relu4 = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, c, h, w] -> [batch, classes]."""
        x = self.pool1(self.relu1(self.bn1(self.conv1(x))))
        x = self.pool2(self.relu2(self.bn2(self.conv2(x))))
        x = self.pool3(self.relu3(self.bn3(self.conv3(x))))
        return self.fc2(self.dropout(self.relu4(self.fc1(torch.flatten(x, 1)))))


def cifarnet(classes: int, input_shape: tuple[int, int, int], *, dropout: float = 0.5) -> nn.Module:
    """L-OBS's CIFAR-Net: three conv and two fc layers with BatchNorm and dropout (its text), in the
    layout of the nearest public net, conv 5x5 32-32-64 and fc 64-10. L-OBS states neither widths
    nor the dropout rate, and its total is unknown: these are our reading. Convolutions have no
    bias, since BatchNorm follows. PyTorch's default initialisation.

    CIFAR-10: 117,034 parameters, 116,704 weights, 10,763,904 MACs.
    """
    require_side("cifarnet", input_shape, 15)
    if not 0 <= dropout < 1:
        raise UserError("model", f"dropout={dropout:g}", "outside [0, 1)")
    return CifarNet(classes, input_shape, dropout)
