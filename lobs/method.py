"""L-OBS (Dong, Chen & Pan 2017, arXiv:1705.07565): each layer pruned by the second derivatives of
its own output error. The algorithm of Sec. 3.4.1, for convolutions by their patches (Sec. 3.4.2).

Letters as in the paper: Theta the weights of a layer, [groups, out, in (+1 with the bias)]; Psi the
block of its Hessian that all output units share; L_q the sensitivity. The error E carries a ½, and
L_q with it (README, Units). Uses lobs.hessian (Psi, its inverse, the layer's error), lobs.choose
(the stopping rules) and common.pruning.obs (Eq. 6). Beyond the paper: lobs.ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.curvature import memory
from common.nets import layers as L
from common.nets import masks as M
from common.nets.clone import clone
from common.pruning import obs
from common.pruning.pruned import Pruned
from common.pruning.select import by_layer
from common.system import distributed
from lobs.choose import STOPS, judged_on, require_stop, set_apart, stopping
from lobs.hessian import Layer, Outcome, layer_statistics, write


@dataclass(frozen=True)
class Options:
    """`amount` is what every layer loses with stop="ratio", and the most it may lose otherwise."""

    damping: float = 1e-6  # 1/α; Sec. 3.4.1: α in [1e4, 1e8]; the released code: α = 1e6
    bias: bool = True  # the bias is a weight whose input is 1; released code
    prune_bias: bool = False  # and may go; the released code lets it, the paper does not say
    stop: str = "ratio"  # ratio: Sec. 4.1 | tolerance: Step 5 | performance: Secs. 3.4.1 and 4.1
    epsilon: float = 0.0  # tolerance: ε of Step 5, RMS error of the layer's output; not stated
    bound: float = 0.005  # performance: accuracy (a fraction) that a layer may cost; not stated
    held_out: int = 5_000  # performance: images that judge it and stay out of Psi; not stated
    batch_size: int = 256  # examples a pass; a matter of memory alone
    skip: tuple[str, ...] = ()  # layers left as they are

    def __post_init__(self):
        require_stop(self, STOPS)


def sensitivity(layer: Layer, Theta: Tensor, inverse_diagonal: Tensor) -> Tensor:
    """L_q = ½ Θ_q² / [Ψ⁻¹]_qq (Eq. 6, right), [groups, out, in]; zero behind an input that was
    always zero, so that those weights go first."""
    return obs.score(Theta, inverse_diagonal).masked_fill_(layer.dead(), 0.0)


def prune_layer(
    layer: Layer, L_q: Tensor, removed: float, update: str = "triangular"
) -> tuple[Tensor, Tensor]:
    """Steps 4 and 5: (new weights, which are kept), [groups, out, in]."""
    # Step 4: the smallest sensitivities of the layer, over all its output units
    kept = layer.without_lowest(L_q, removed)
    # Step 5: Θ ← Θ − Θ_q / [Ψ⁻¹]_qq · Ψ⁻¹ e_q (Eq. 6, left), one q after the other in this order
    return layer.updated(kept, L_q, update), kept


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float | Mapping[str, float],
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """A copy of `model` without `amount` (one fraction, or one a layer) of its layers' weights;
    what `masks` removed before counts. Draws nothing from `generator`."""
    layers = L.prunable(model, options.skip)
    most = by_layer(amount, layers)
    memory.require("moment", layers, options)
    held_out, calibration = set_apart(calibration, options)
    accuracy = judged_on(model, held_out)
    # Step 1: every layer's inputs y in the well-trained network, as Σ y yᵀ
    seen = layer_statistics(model, calibration, layers, options.bias, options.batch_size)

    def pruned(name: str) -> Outcome:
        # Step 2: Ψ = (1/n) Σ y yᵀ (Eq. 9) and (Ψ + I/α)⁻¹, where the recursion from αI ends
        layer = Layer.of(name, seen.pop(name), options.damping, options.prune_bias, masks)
        # Step 3
        L_q = sensitivity(layer, layer.target(), layer.inverse_diagonal())
        removed = stopping(
            layer, L_q, most[name], options, lambda r: prune_layer(layer, L_q, r)[0], accuracy
        )
        # Steps 4 and 5
        return layer.outcome(*prune_layer(layer, L_q, removed))

    result = Pruned(clone(model))
    for name, outcome in distributed.each(layers, pruned):
        write(result, name, outcome)
    M.apply(result.model, result.masks)
    return result
