"""Fully connected networks: LeNet-300-100, and the bias-free nets of WoodFisher's Hessian pictures
and MLP experiments.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from common.nets.models.parts import switch


class MLP(nn.Module):
    """inputs - hidden1 - hidden2 - classes with ReLU between; flattens its input; layers fc1, fc2,
    fc3; returns logits. With `bn` a BatchNorm stands before each ReLU."""

    def __init__(
        self, inputs: int, hidden: tuple[int, int], classes: int, bias: bool, bn: bool = False
    ):
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden[0], bias=bias)
        self.bn1 = nn.BatchNorm1d(hidden[0]) if bn else nn.Identity()
        self.relu1 = nn.ReLU()
        self.fc2 = nn.Linear(hidden[0], hidden[1], bias=bias)
        self.bn2 = nn.BatchNorm1d(hidden[1]) if bn else nn.Identity()
        self.relu2 = nn.ReLU()
        self.fc3 = nn.Linear(hidden[1], classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, ...] -> [batch, classes]."""
        x = self.relu1(self.bn1(self.fc1(torch.flatten(x, 1))))
        return self.fc3(self.relu2(self.bn2(self.fc2(x))))


def lenet300(classes: int, input_shape: tuple[int, int, int], *, bn: int = 0) -> nn.Module:
    """LeNet-300-100 (LeCun et al. 1998), with biases: 784-300-100-10. PyTorch's default
    initialisation. bn=1 adds BatchNorm, whose scales NN Slimming reads.

    MNIST: 266,610 parameters, 266,200 weights, 266,200 MACs.
    """
    return MLP(prod(input_shape), (300, 100), classes, bias=True, bn=switch("bn", bn))


def mlpnet(classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """WoodFisher's MLPNet, 784-40-20-10 without biases. It returns logits where the original
    returns log-softmax: with cross-entropy for negative log-likelihood the loss is the same.

    MNIST: 32,360 parameters, all weights; 32,360 MACs.
    """
    return MLP(prod(input_shape), (40, 20), classes, bias=False)


def cifarnet_fc(classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """The fully connected net that WoodFisher calls CIFARNet, 3072-16-64-10 without biases.

    CIFAR-10: 50,816 parameters, all weights; 50,816 MACs.
    """
    return MLP(prod(input_shape), (16, 64), classes, bias=False)
