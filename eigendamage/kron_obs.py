"""Kron-OBS (Wang et al. 2019, Sec. 4.2, Eq. 14, Algorithm 2): the surgeon for whole filters under S
⊗ A.

Removing filter i alone moves all filters by δ = −S⁻¹e_i/[S⁻¹]_ii ⊗ θ_i: A drops out of the update,
since it is shared. Uses common.curvature.kron and eigendamage.filters. Beyond the paper, and ours:
update="joint".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import NumericalError, choose
from common.curvature.kron import KronInverse
from common.nets import layers as L
from common.nets import masks as M
from common.pruning import obs
from common.pruning.pruned import Pruned
from eigendamage.filters import FORMS, Filters, KronOptions, damping_of, input_form


@dataclass(frozen=True)
class Options(KronOptions):
    """form as for Kron-OBD."""

    form: str = "paper"
    # Algorithm 2: Eq. 14 for each filter as if alone, summed. Ours: joint, all of a layer's at once
    update: str = "diagonal"

    def __post_init__(self):
        super().__post_init__()
        choose("form", self.form, FORMS)
        choose("update", self.update, ("diagonal", "joint"))


def importance(W: Tensor, inverse: KronInverse, form: str = "paper") -> Tensor:
    """½ θ_iᵀ A θ_i / [S⁻¹]_ii of each filter i (Eq. 14), [filters]; A damped like S; W [groups,
    out, in].
    """
    return (
        0.5 * input_form(W, inverse.A, form) / inverse.G_inverse.diagonal(dim1=-2, dim2=-1)
    ).flatten()


def change(
    W: Tensor, inverse: KronInverse, gone: Tensor, kind: str = "diagonal", name: str = ""
) -> tuple[Tensor, float]:
    """(δ like W, ½ δᵀFδ) of removing the filters `gone`: δ = −S⁻¹[:, P] Λ with Λ_i = θ_i / [S⁻¹]_ii
    (Eq. 14), or S⁻¹[P, P] Λ = θ_P (joint). The filters themselves end at zero."""
    S, gone = inverse.G_inverse, gone.reshape(*W.shape[:2], 1)
    multipliers = torch.where(gone, W / S.diagonal(dim1=-2, dim2=-1)[..., None], 0.0)
    if kind == "joint":
        for group, which in enumerate(gone[..., 0]):
            multipliers[group, which] = torch.linalg.solve(
                S[group][which][:, which], W[group, which]
            )
    delta = torch.where(gone, -W, -(S @ multipliers))
    if not torch.isfinite(delta).all():
        raise NumericalError(name, f"the {kind} update is not finite", "raise --damping")
    return delta, obs.increase(inverse, delta.flatten())


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float,
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """A copy of `model` without the `amount` of its units whose filters score lowest, what stays
    moved by Eq. 14.
    """
    net = Filters(model, calibration, options.skip, masks, options.coupling)
    inverses = net.inverses(options, generator)
    weights = {
        name: L.joined(module, module.bias is not None) for name, module in net.layers.items()
    }
    scores = {name: importance(W, inverses[name], options.form) for name, W in weights.items()}
    result = net.remove(
        scores,
        amount,
        options.cap,
        lambda name, gone: change(weights[name], inverses[name], gone, options.update, name),
    )
    result.layers = damping_of(inverses)
    return result
