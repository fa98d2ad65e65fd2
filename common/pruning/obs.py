"""The brain-surgeon algebra (Hassibi & Stork 1993) that every paper here shares.

For a quadratic model of the loss around w with curvature F, removing the set S moves all weights by
δ = −F⁻¹[:, S] λ; the methods differ in λ:
    diagonal    λ = w_S / diag(F⁻¹)_S     each weight as if alone: WoodFisher Eq. 10, NAP Eq. 6,
                                          C-OBS
    triangular  tril(F⁻¹[S, S]) λ = w_S   one after the other with a fixed F⁻¹, in ascending score:
                                          L-OBS
    joint       F⁻¹[S, S] λ = w_S         the exact optimum over all kept weights; in none of the
                                          papers
    none        the kept weights stay
Pruned weights end at exactly zero in all four. Scores and increases carry the ½ and are in units of
the mean training loss.

A curvature is any object with diagonal(), solve(v), times(v), submatrix(index) and, optionally,
joint(w, pruned) and walk(w, order), over one flat weight vector: blocks.BlockFisher,
kron.KronInverse and shared.SharedRows of common.curvature.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from common.cells.errors import NumericalError, choose

SOLVED = ("diagonal", "triangular", "joint")
UPDATES = (*SOLVED, "none")
WALK = 512  # weights of the triangular walk solved together


class Curvature(Protocol):
    """A positive definite F [d, d], by what can be asked of it; results are float64."""

    def diagonal(self) -> Tensor: ...  # diag F⁻¹, [d]
    def solve(self, v: Tensor) -> Tensor: ...  # F⁻¹ v, [d]
    def times(self, v: Tensor) -> Tensor: ...  # F v, [d]
    def submatrix(self, index: Tensor) -> Tensor: ...  # F⁻¹[index, index], [k, k]


def score(w: Tensor, inverse_diagonal: Tensor) -> Tensor:
    """Predicted loss increase of removing each weight alone, w²/(2 [F⁻¹]_qq), float64; zero weights
    score zero.
    """
    return w.double().square().div_(2 * inverse_diagonal)


def update(
    w: Tensor,
    curvature: Curvature,
    pruned: Tensor,
    kind: str,
    scores: Tensor | None = None,
    name: str = "",
) -> tuple[Tensor, float]:
    """(δ, predicted loss increase ½ δᵀFδ) for removing the weights where `pruned` is True.

    w, pruned, δ: flat [d]; δ float64 with δ_S = −w_S. `scores` orders the triangular walk (default:
    this module's score). Raises NumericalError naming the layer when δ is not finite.
    """
    choose("update", kind, UPDATES)
    w = w.double()
    if not pruned.any():
        return torch.zeros_like(w), 0.0
    if kind == "joint":
        delta = (
            curvature.joint(w, pruned)
            if hasattr(curvature, "joint")
            else _dense_joint(w, curvature, pruned)
        )
    elif kind == "none":
        delta = torch.zeros_like(w)
    elif kind == "diagonal":
        delta = curvature.solve((w / curvature.diagonal()).masked_fill_(~pruned, 0.0)).neg_()
    else:
        order = torch.argsort(
            score(w, curvature.diagonal()) if scores is None else scores, stable=True
        )
        order = order[pruned[order]]
        delta = curvature.solve(
            curvature.walk(w, order) if hasattr(curvature, "walk") else _walk(w, curvature, order)
        ).neg_()
    delta = torch.where(pruned, -w, delta)
    if not torch.isfinite(torch.stack(delta.aminmax())).all():
        raise NumericalError(name, f"the {kind} update is not finite", "raise --damping")
    return delta, increase(curvature, delta)


def increase(curvature: Curvature, delta: Tensor) -> float:
    """½ δᵀFδ, in units of the mean training loss (the damping is part of F)."""
    return 0.5 * float(delta @ curvature.times(delta))


def _walk(w: Tensor, curvature: Curvature, order: Tensor) -> Tensor:
    """λ of the sequential walk, scattered into [d]: forward substitution with tril(F⁻¹[S, S]),
    `WALK` weights at a time.
    """
    multipliers = torch.zeros_like(w)
    for part in order.split(WALK):
        current = w[part] - curvature.solve(multipliers)[part]
        lower = curvature.submatrix(part).tril()
        multipliers[part] = torch.linalg.solve_triangular(lower, current[:, None], upper=False)[
            :, 0
        ]
    return multipliers


def _dense_joint(w: Tensor, curvature: Curvature, pruned: Tensor) -> Tensor:
    """λ from the dense F⁻¹[S, S]; |S|² entries."""
    index = pruned.nonzero().flatten()
    multipliers = torch.zeros_like(w)
    multipliers[index] = torch.linalg.solve(curvature.submatrix(index), w[index])
    return -curvature.solve(multipliers)
