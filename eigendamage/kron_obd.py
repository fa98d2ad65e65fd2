"""Kron-OBD (Wang et al. 2019, Sec. 4.2, Eq. 13, Algorithm 2): a filter's importance with the
weights inside it correlated.

Uses common.curvature.kron (S and A) and eigendamage.filters. No inverse, so no damping, and no
weight update.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import choose
from common.curvature import memory
from common.curvature.kron import Kron, kron_factors
from common.nets import layers as L
from common.nets import masks as M
from common.pruning.pruned import Pruned
from eigendamage.filters import FORMS, FilterOptions, Filters, input_form


@dataclass(frozen=True)
class Options(FilterOptions):
    """form: "paper" for θᵀAθ (Eq. 13), "released" for the (θ∘θ)ᵀA1 that the released code
    computes.
    """

    form: str = "paper"

    def __post_init__(self):
        super().__post_init__()
        choose("form", self.form, FORMS)


def importance(W: Tensor, factors: Kron, form: str = "paper") -> Tensor:
    """½ S_ii θ_iᵀ A θ_i of each filter i (Eq. 13), [filters]; W [groups, out, in]."""
    return (0.5 * factors.G.diagonal(dim1=-2, dim2=-1) * input_form(W, factors.A, form)).flatten()


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float,
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """A copy of `model` without the `amount` of its units whose filters score lowest; δθ_i = −θ_i
    and nothing else moves.
    """
    net = Filters(model, calibration, options.skip, masks, options.coupling)
    memory.require("kron-bare", net.layers, options)
    factors = kron_factors(
        model, net.calibration, net.layers, fisher=options.fisher, bias=True, generator=generator
    )
    scores = {
        name: importance(L.joined(module, module.bias is not None), factors[name], options.form)
        for name, module in net.layers.items()
    }
    return net.remove(scores, amount, options.cap)
