"""Slow, dense twins of WoodFisher's formulas: explicit matrices and loops over weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.nets import layers as L
from tests import reference, toy


def net() -> nn.Module:
    """Two convolutions and a linear head, 32 + 40 + 30 weights; input [2, 4, 4]."""
    return toy.seeded(
        nn.Sequential(
            nn.Conv2d(2, 4, 2, bias=False),
            nn.BatchNorm2d(4),
            nn.Tanh(),
            nn.Conv2d(4, 5, (1, 2)),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(30, 1, bias=False),
            nn.Unflatten(1, (1, 1)),
            nn.Flatten(1),
            nn.Linear(1, 3, bias=False),
        )
    )


def data(examples: int = 12) -> list[tuple[Tensor, Tensor]]:
    """A loader of uneven batches."""
    x, y = toy.batch(examples, (2, 4, 4))
    return [(x[:5], y[:5]), (x[5:], y[5:])]


def rows(model: nn.Module, b: int, names: list[str], loader=None) -> dict[str, Tensor]:
    """Mean gradients of consecutive b examples, by ordinary backward passes."""
    x, y = (torch.cat(parts) for parts in zip(*(loader or data())))
    layers = L.prunable(model)
    return {
        name: reference.per_example_gradients(model, layers[name], x, y)
        .reshape(len(x) // b, b, -1)
        .mean(1)
        for name in names
    }


def weights(model: nn.Module, names: list[str]) -> Tensor:
    return torch.cat([model.get_parameter(f"{name}.weight").detach().flatten() for name in names])


def fishers(
    model: nn.Module, b: int, damping: float, chunk: int | str | None, masks: dict | None = None
) -> dict[tuple, Tensor]:
    """Damped Fishers written out, by the tuple of layers they are over."""
    names = list(L.prunable(model))
    gradients = rows(model, b, names)
    for name in names:
        if masks:
            gradients[name] = gradients[name] * masks[f"{name}.weight"].flatten()
    groups = [tuple(names)] if chunk == "network" else [(name,) for name in names]
    size = None if chunk == "network" else chunk
    return {
        group: reference.damped_fisher(torch.cat([gradients[n] for n in group], 1), damping, size)
        for group in groups
    }


def lowest(scores: Tensor, count: int, gone: Tensor | None = None) -> Tensor:
    """bool mask of the `count` lowest scores; those in `gone` first."""
    order = torch.where(gone, -torch.inf, scores) if gone is not None else scores
    result = torch.zeros_like(scores, dtype=torch.bool)
    result[torch.argsort(order, stable=True)[:count]] = True
    return result
