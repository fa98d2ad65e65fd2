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


class Tokens(nn.Module):
    """Token ids in, logits of a vocabulary at each token out."""

    def __init__(self, vocabulary: int = 5, width: int = 4):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.body, self.head = nn.Linear(width, 3), nn.Linear(3, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        y = self.embed(ids)
        return self.head(torch.tanh(self.body(y + y.mean(1, keepdim=True))))


def tasks() -> dict[str, tuple[nn.Module, Tensor, Tensor]]:
    """A network, its inputs and labels for each kind of output: a loss by name, words behind it."""
    g = generator(7)
    x, _ = batch(4)
    labels = torch.randint(3, (4, 2, 2), generator=g)
    ids = torch.randint(5, (4, 6), generator=g)
    shifted = torch.cat([ids[:, 1:], torch.full((4, 1), -100)], 1)
    shifted[1, 2:] = -100  # a shorter text
    segment = [nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 3, 2)]
    flat = [nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten()]
    normal = torch.randn(4, 3, 2, 2, generator=g, dtype=torch.float64)
    return {
        "cross_entropy": (small_net(), *batch(4)),
        "cross_entropy of positions": (seeded(nn.Sequential(*segment)), x, labels),
        "language_model": (seeded(Tokens()), ids, shifted),
        "binary": (seeded(nn.Sequential(*flat, nn.Linear(27, 2))), x, labels[:, 0].double() / 2),
        "binary, one logit": (
            seeded(nn.Sequential(*flat, nn.Linear(27, 1))),
            x,
            (labels[:, 0, :1] > 0),
        ),
        "mse": (seeded(nn.Sequential(*flat, nn.Linear(27, 3))), x, normal[:, :, 0, 0]),
        "mse of images": (seeded(nn.Sequential(*segment)), x, normal),
    }


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


def _projection() -> nn.Module:
    """transformers' Conv1D, without transformers: known by its class's name."""
    from tests.trust.hugging_face import Conv1D

    return Conv1D(4, 6)


# by name: a layer of a kind beside Conv2d and Linear, and the shape of an example it reads
KINDS = {
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (4, 7)),
    "Conv1d strided, dilated": (lambda: nn.Conv1d(4, 6, 3, 2, 1, dilation=2), (4, 9)),
    "Conv1d grouped": (lambda: nn.Conv1d(4, 6, 3, groups=2, bias=False), (4, 6)),
    "Conv1d reflected": (lambda: nn.Conv1d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 5)),
    "Conv1d same": (lambda: nn.Conv1d(2, 3, 3, padding="same", dilation=2), (2, 6)),
    "Conv3d": (lambda: nn.Conv3d(2, 3, (2, 3, 1), padding=(1, 0, 0)), (2, 3, 4, 3)),
    "Conv3d grouped, strided": (
        lambda: nn.Conv3d(4, 2, 2, (1, 2, 2), 1, (2, 1, 1), groups=2),
        (4, 3, 3, 2),
    ),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 6, 3, 2, 1, 1), (4, 4)),
    "ConvTranspose1d dilated": (lambda: nn.ConvTranspose1d(2, 3, 3, 2, 0, 2, dilation=3), (2, 4)),
    "ConvTranspose1d padded wide": (lambda: nn.ConvTranspose1d(2, 3, 2, padding=3), (2, 9)),
    "ConvTranspose2d": (
        lambda: nn.ConvTranspose2d(4, 6, (3, 2), (2, 1), (1, 0), groups=2, bias=False),
        (4, 3, 3),
    ),
    "ConvTranspose2d point": (lambda: nn.ConvTranspose2d(3, 2, 1), (3, 2, 3)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 3, 2, (2, 1, 1), 0, (1, 0, 0)), (2, 2, 2, 2)),
    "Conv1D": (_projection, (5, 6)),
    "Linear over tokens": (lambda: nn.Linear(4, 3), (5, 4)),
}


def kind_head(kind: str) -> tuple[nn.Module, tuple[int, ...]]:
    """One layer of that kind whose outputs are the network's, and its input's shape."""
    build, shape = KINDS[kind]
    return seeded(nn.Sequential(build(), nn.Flatten())), shape


def conv_head(kind: str, bias: bool = False, out: int = 4) -> nn.Module:
    """One convolution whose outputs are the network's outputs: with squared loss and exact labels
    K-FAC has no error here.
    """
    return seeded(nn.Sequential(nn.Conv2d(2, out, bias=bias, **CONVOLUTIONS[kind]), nn.Flatten()))
