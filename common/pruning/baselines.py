"""Baselines that several papers share: random, magnitude, and diagonal-Fisher Optimal Brain Damage.
No weight update.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.curvature import memory
from common.curvature.diag import diagonal_fisher
from common.nets import layers as L
from common.nets import masks as M
from common.nets.clone import clone
from common.pruning.pruned import Pruned
from common.pruning.select import select


@dataclass(frozen=True)
class ScopeOptions:
    """scope: one cut over all layers ("global") or the same fraction in each ("layer"). skip:
    layers left dense.
    """

    scope: str = "global"
    skip: tuple[str, ...] = ()


@dataclass(frozen=True)
class OBDOptions(ScopeOptions):
    """fisher: labels of the diagonal Fisher. LeCun et al. (1990) take the Gauss-Newton Hessian,
    which for cross-entropy is the exact Fisher: one backward pass a class. On a network that fits
    its training data the other two almost vanish."""

    fisher: str = "exact"


def random(
    model: nn.Module,
    calibration: Iterable,
    amount: float | Mapping[str, float],
    options: ScopeOptions,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """Uniformly random weights."""

    def draw(module: nn.Module) -> Tensor:
        return torch.rand(module.weight.shape, generator=generator).to(module.weight.device)

    layers = L.prunable(model, options.skip)
    memory.require("", layers, options)
    return remove(
        model, {name: draw(module) for name, module in layers.items()}, amount, options.scope, masks
    )


def magnitude(
    model: nn.Module,
    calibration: Iterable,
    amount: float | Mapping[str, float],
    options: ScopeOptions,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """Smallest |w| first (Han et al. 2015 per layer; one global cut is the stronger baseline)."""
    layers = L.prunable(model, options.skip)
    memory.require("", layers, options)
    return remove(
        model,
        {name: module.weight.abs() for name, module in layers.items()},
        amount,
        options.scope,
        masks,
    )


def obd(
    model: nn.Module,
    calibration: Iterable,
    amount: float | Mapping[str, float],
    options: OBDOptions,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """Smallest ½ w² F_ii first (LeCun et al. 1990, Eq. 5, with the Fisher's diagonal for the
    Hessian's).
    """
    layers = L.prunable(model, options.skip)
    memory.require("diagonal", layers, options)
    fisher = diagonal_fisher(model, calibration, layers, options.fisher, generator=generator)
    scores = {
        name: 0.5 * module.weight.detach().double().square() * fisher[name]
        for name, module in layers.items()
    }
    pruned = remove(model, scores, amount, options.scope, masks)
    pruned.predicted_increase = sum(
        float(s[~pruned.masks[f"{name}.weight"]].sum()) for name, s in scores.items()
    )
    return pruned


def remove(
    model: nn.Module,
    scores: Mapping[str, Tensor],
    amount: float | Mapping[str, float],
    scope: str,
    masks: M.Masks | None = None,
) -> Pruned:
    """Zero the lowest scores (by layer name, weight-shaped) in a copy of the model; `masks` are
    weights already removed.
    """
    before = (
        None
        if masks is None
        else {name.removesuffix(".weight"): mask for name, mask in masks.items()}
    )
    kept = select({name: score.detach() for name, score in scores.items()}, amount, scope, before)
    result = Pruned(clone(model), {f"{name}.weight": mask for name, mask in kept.items()})
    M.apply(result.model, result.masks)
    return result
