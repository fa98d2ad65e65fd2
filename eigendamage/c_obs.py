"""C-OBS (Wang et al. 2019, Sec. 4.2): Optimal Brain Surgeon's importance of each weight under
K-FAC, summed over a filter.

Uses common.curvature.kron (S ⊗ A and its damped inverse), common.pruning.obs (score and update,
each weight as if alone) and eigendamage.filters.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from common.curvature.kron import KronInverse
from common.nets import layers as L
from common.nets import masks as M
from common.pruning import obs
from common.pruning.pruned import Pruned
from eigendamage.filters import Filters, KronOptions, damping_of


def importance(W: Tensor, inverse: KronInverse) -> Tensor:
    """Σ_j θ_ij² / (2 [S⁻¹]_ii [A⁻¹]_jj) of each filter i (Eq. 10 summed), [filters]; W [groups,
    out, in].
    """
    return obs.score(W.flatten(), inverse.diagonal()).reshape(-1, W.shape[-1]).sum(1)


def change(W: Tensor, inverse: KronInverse, gone: Tensor, name: str = "") -> tuple[Tensor, float]:
    """(δ like W, ½ δᵀFδ): Eq. 10's update of every weight of the filters `gone`, summed; those
    filters end at zero.
    """
    which = gone.reshape(*W.shape[:2], 1).expand_as(W).flatten()
    delta, increase = obs.update(W.flatten(), inverse, which, "diagonal", name=name)
    return delta.reshape(W.shape), increase


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float,
    options: KronOptions,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """A copy of `model` without the `amount` of its units whose filters score lowest, what stays
    moved by Eq. 10.
    """
    net = Filters(model, calibration, options.skip, masks, options.coupling)
    inverses = net.inverses(options, generator)
    weights = {
        name: L.joined(module, module.bias is not None) for name, module in net.layers.items()
    }
    scores = {name: importance(W, inverses[name]) for name, W in weights.items()}
    result = net.remove(
        scores,
        amount,
        options.cap,
        lambda name, gone: change(weights[name], inverses[name], gone, name),
    )
    result.layers = damping_of(inverses)
    return result
