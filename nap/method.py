"""NAP (Zeng, Xiong & Urtasun 2021, arXiv:2101.06608), fine-grained: prune the weights that cost the
loss least, whatever their layer.

Letters as in the paper: A and DS the Kronecker factors of a layer's Fisher block, ΔL the
importance. `prune` is lines 6 to 10 of Algorithm 1; lines 2 to 5 are nap.statistics, and
common.running.gradual repeats both until a size or an added error is reached. Uses
common.curvature.kron (damped inverse), common.pruning.obs (Eq. 6) and common.pruning.select (exact
counts). Choices and deviations: README.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import NumericalError, UserError
from common.curvature.kron import Kron, KronInverse, kron_factors
from common.data.sources import rebatch
from common.nets import layers as L
from common.nets import masks as M
from common.nets.clone import clone
from common.pruning import obs
from common.pruning.pruned import Pruned
from common.pruning.select import select
from nap.statistics import CurvatureOptions, pack, unpack


@dataclass(frozen=True)
class Options(CurvatureOptions):
    """`amount` is of all weights; p, of those that are left, is Spec.step_ratio. Biases are never
    removed, and take part in δW*.
    """


def importance(W: Tensor, inverse: KronInverse) -> Tensor:
    """ΔL_q = ½ w_ij² / ([DS⁻¹]_ii [A⁻¹]_jj) (Eqs. 6 and 13), like W [groups, out, in (+1)], in
    units of the mean training loss.
    """
    return obs.score(W.flatten(), inverse.diagonal()).reshape(W.shape)


def normalised(scores: Tensor, kept: Tensor) -> Tensor:
    """ΔL_q over the sum of the layer's weights that are still there (Sec. 3.2); a layer without
    importance stays at zero.
    """
    total = float(scores[kept].sum())
    return scores / total if total > 0 else scores


def factors_of(
    model: nn.Module,
    calibration: Iterable,
    layers: Mapping[str, nn.Module],
    options: CurvatureOptions,
    generator: torch.Generator,
    latent: Mapping[str, Tensor] | None,
) -> dict[str, Kron]:
    """The statistics of the fine-tuning before, or where there was none the mean over the
    calibration data.
    """
    kept = unpack(latent) if latent and latent["seen"] else {}
    if set(layers) <= set(kept):
        return {name: kept[name] for name in layers}
    return kron_factors(
        model,
        rebatch(calibration, options.batch_size),
        dict(layers),
        fisher=options.fisher,
        bias=True,
        generator=generator,
    )


def inverses(factors: Mapping[str, Kron], options: CurvatureOptions) -> dict[str, KronInverse]:
    """Damped (A ⊗ DS)⁻¹ by layer. Raises NumericalError naming a layer whose factors stay
    singular.
    """
    return {
        name: KronInverse.of(f, options.damping, options.pi, options.relative, name)
        for name, f in factors.items()
    }


def damping_of(inverse: KronInverse) -> dict[str, float]:
    """What was added to each factor's diagonal (mean over convolution groups), for the record."""
    return {
        f"damping_{factor}": sum(inverse.damping[factor]) / len(inverse.damping[factor])
        for factor in "AG"
    }


def weights_of(layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Every layer's weights with its bias, [groups, out, in (+1)] in float64. Raises NumericalError
    for what is not finite.
    """
    weights = {name: L.joined(module, module.bias is not None) for name, module in layers.items()}
    for name, W in weights.items():
        if not torch.isfinite(W).all():
            raise NumericalError(name, "its weights are not finite", "check the checkpoint")
    return weights


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float | Mapping[str, float],
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
    latent: Mapping[str, Tensor] | None = None,
) -> Pruned:
    """A copy of `model` with `amount` of its weights removed in all, those that `masks` removed
    before among them.

    latent: statistics that nap.statistics kept up. predicted_increase is ½ δᵀFδ of this pruning,
    with the damping in F.
    """
    if isinstance(amount, Mapping):
        raise UserError(
            "sparsity",
            "layer_sparsity",
            "NAP finds each layer's ratio by itself",
            "give one fraction",
        )
    result = Pruned(clone(model), predicted_increase=0.0 if options.compensate else None)
    M.apply(result.model, masks or {})
    layers = L.prunable(result.model, options.skip)
    factors = factors_of(result.model, calibration, layers, options, generator, latent)
    result.latent = pack(factors)
    # line 6
    F, W = inverses(factors, options), weights_of(layers)
    before = {
        name: _kept(module, (masks or {}).get(f"{name}.weight")) for name, module in layers.items()
    }
    scores = {
        name: importance(W[name], F[name])[..., : kept.shape[-1]] for name, kept in before.items()
    }
    # line 7
    if options.normalise:
        scores = {name: normalised(score, before[name]) for name, score in scores.items()}
    # lines 8 and 9
    after = select(scores, amount, "global", before)
    for name, module in layers.items():
        result.masks[f"{name}.weight"] = L.to_weight(module, after[name])
        result.layers[name] = damping_of(F[name])
        # line 10
        if options.compensate:
            gone = torch.zeros_like(W[name], dtype=torch.bool)
            gone[..., : after[name].shape[-1]] = ~after[name]
            delta, increase = obs.update(
                W[name].flatten(), F[name], gone.flatten(), "diagonal", name=name
            )
            L.write_joined(module, W[name] + delta.reshape(W[name].shape))
            result.predicted_increase += increase
    M.apply(result.model, result.masks)
    return result


def _kept(module: nn.Module, mask: Tensor | None) -> Tensor:
    """[groups, out, in], True where the weight is still there."""
    mask = torch.ones_like(module.weight, dtype=torch.bool) if mask is None else mask
    return L.to_matrix(module, mask.to(module.weight.device))
