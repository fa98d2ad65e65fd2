"""Tiny networks and data on which the curvature is known exactly; float64 throughout."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(
    examples: int = 5, shape: tuple[int, ...] = (2, 5, 5), classes: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    g = generator(seed)
    return torch.randn(examples, *shape, generator=g, dtype=torch.float64), torch.randint(
        classes, (examples,), generator=g
    )


def seeded(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64 with Gaussian parameters of moderate size."""
    g = generator(seed)
    model = model.double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(
                torch.randn(p.shape, generator=g, dtype=torch.float64) / max(1, p[0].numel()) ** 0.5
            )
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.copy_(torch.randn(m.running_mean.shape, generator=g))
                m.running_var.copy_(torch.rand(m.running_var.shape, generator=g) + 0.5)
    return model


def small_net(classes: int = 3, inplace: bool = False) -> nn.Module:
    """Strided and grouped convolutions, BatchNorm, ReLU, a linear head; input [2, 5, 5]."""
    return seeded(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace),
            nn.Conv2d(4, 4, 3, stride=2, groups=2),
            nn.ReLU(inplace),
            nn.Flatten(),
            nn.Linear(16, classes),
        )
    )


CONVOLUTIONS = {
    "plain": {"kernel_size": 3},
    "padded": {"kernel_size": 3, "padding": 1},
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "1x1": {"kernel_size": 1},
    "dilated": {"kernel_size": 2, "dilation": 2, "padding": 1},
    "oblong": {"kernel_size": (1, 3), "stride": (2, 1)},
    "grouped": {"kernel_size": 3, "groups": 2, "padding": 1},
    "same": {"kernel_size": 3, "padding": "same"},
    "wide": {"kernel_size": (2, 4), "padding": (1, 2)},
    "5x5": {"kernel_size": 5, "padding": 1},
    "reflected": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
}


def conv_head(kind: str, bias: bool = False, out: int = 4) -> nn.Module:
    """One convolution whose outputs are the network's outputs: with squared loss and exact labels
    K-FAC has no error here.
    """
    return seeded(nn.Sequential(nn.Conv2d(2, out, bias=bias, **CONVOLUTIONS[kind]), nn.Flatten()))
