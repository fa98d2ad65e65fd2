"""NAP (Zeng, Xiong & Urtasun 2021, arXiv:2101.06608), fine-grained: prune the weights that cost the
loss least, whatever their layer. Lines 2 to 10 of Algorithm 1.

Letters as in the paper: A and DS the Kronecker factors of a layer's Fisher block F, W its weights
[groups, out, in (+1 with the bias)], dL the importance ΔL, Gamma the masks. Uses nap.statistics
(lines 2 to 5), common.curvature.kron (F and its inverse), common.pruning.obs (Eq. 6) and
common.pruning.select. common.running.gradual repeats the algorithm and fine-tunes (line 11) until a
size or an added error is reached. Deviations: README.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import require
from common.curvature import memory
from common.curvature.kron import Kron, KronInverse
from common.nets import layers as L
from common.nets import masks as M
from common.nets.clone import clone
from common.pruning import obs
from common.pruning.pruned import Pruned
from common.pruning.select import select
from nap.statistics import StatisticsOptions, factors_of, pack


@dataclass(frozen=True)
class Options(StatisticsOptions):
    """Of lines 6 to 10, beside those of lines 2 to 5. `amount` is of all weights; p, of those that
    are left, is Spec.step_ratio. Biases are never removed, and take part in δW*."""

    damping: float = 1e-3  # γ of F⁻¹: √γ = 3% of the mean eigenvalue to each factor; not stated
    pi: bool = True  # γ shared by A's and DS's sizes (Martens & Grosse 2015, Sec. 6.3); not stated
    relative: bool = True  # γ in units of the product of their mean eigenvalues; not stated
    normalise: bool = True  # line 7 and Sec. 3.2: ΔL divided by its sum over the layer
    compensate: bool = True  # line 10: the weights that stay take δW*

    def __post_init__(self):
        super().__post_init__()
        require(self.damping >= 0, "damping", self.damping, "must not be negative", "ours is 1e-3")


def inverse_fisher(factors: Mapping[str, Kron], options: Options) -> dict[str, KronInverse]:
    """F = A ⊗ DS (Eq. 13), damped, and F⁻¹ = A⁻¹ ⊗ DS⁻¹ of every layer. Raises NumericalError
    naming a layer whose factors stay singular."""
    return {
        name: KronInverse.of(f, options.damping, options.pi, options.relative, name)
        for name, f in factors.items()
    }


def importance(W: Tensor, F: KronInverse) -> Tensor:
    """ΔL_q = ½ w_ij² / ([DS⁻¹]_ii [A⁻¹]_jj) (Eqs. 6 and 13), like W, in units of the mean training
    loss."""
    return obs.score(W.flatten(), F.diagonal()).reshape(W.shape)


def normalised(dL: Tensor, Gamma: Tensor) -> Tensor:
    """ΔL_q / Σ ΔL_q, the sum over those of the layer's weights that are there (Sec. 3.2); a layer
    without importance stays at zero."""
    total = float(dL[Gamma].sum())
    return dL / total if total > 0 else dL


def compensated(W: Tensor, F: KronInverse, gone: Tensor, name: str) -> tuple[Tensor, float]:
    """(W + δW*, ½ δW*ᵀ F δW*): δW* = −Σ_q w_q / [F⁻¹]_qq · F⁻¹ e_q over what goes (Eq. 6), exactly
    zero there. gone: [groups, out, in (+1)]."""
    q = torch.zeros_like(W, dtype=torch.bool)
    q[..., : gone.shape[-1]] = gone
    dW, increase = obs.update(W.flatten(), F, q.flatten(), "diagonal", name=name)
    return W + dW.reshape(W.shape), increase


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float,
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
    latent: Mapping[str, Tensor] | None = None,
) -> Pruned:
    """A copy of `model` with `amount` of its weights removed in all, those that `masks` removed
    before among them.

    latent: statistics that nap.statistics kept up. predicted_increase is ½ δWᵀ F δW of this
    pruning, with the damping in F.
    """
    require(
        not isinstance(amount, Mapping),
        "sparsity",
        "layer_sparsity",
        "NAP finds each layer's ratio by itself",
        "give one fraction",
    )
    result = Pruned(clone(model), predicted_increase=0.0 if options.compensate else None)
    M.apply(result.model, masks or {})
    layers = L.prunable(result.model, options.skip)
    memory.require("kron-kept", layers, options)
    W, Gamma = L.finite_weights(layers), M.by_layer(layers, masks or {})
    # lines 2 to 5: A and DS
    factors = factors_of(result.model, calibration, layers, options, generator, latent)
    result.latent = pack(factors)
    # line 6
    F = inverse_fisher(factors, options)
    # line 7: biases have no mask
    dL = {name: importance(W[name], F[name])[..., : Gamma[name].shape[-1]] for name in layers}
    if options.normalise:
        dL = {name: normalised(dL[name], Gamma[name]) for name in layers}
    # lines 8 and 9: what lies below the percentile over all layers goes
    Gamma = select(dL, amount, "global", Gamma)
    # line 10
    for name, module in layers.items():
        if options.compensate:
            new, increase = compensated(W[name], F[name], ~Gamma[name], name)
            L.write_joined(module, new)
            result.predicted_increase += increase
        result.masks[f"{name}.weight"] = L.to_weight(module, Gamma[name])
        result.layers[name] = F[name].added()
    M.apply(result.model, result.masks)
    return result
