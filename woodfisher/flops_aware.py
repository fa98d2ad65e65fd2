"""FLOPs-aware WoodFisher (Sec. 5.4): ρ_q^FLOPs = ρ_q / (FLOPs-per-param_q)^β, one cut over all
layers.

A weight costs one MAC at each output position, active or not, so the paper's ratio of a layer's
active FLOPs to its active weights is its number of output positions throughout gradual pruning; a
linear layer's is 1. The released code can also follow a schedule of FLOPs, not of weights:
target="macs". It finds the sparsity by bisection; the ranking's running sum has it exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import UserError, choose
from common.data.batches import first
from common.nets import masks as M
from common.nets.flops import costs
from common.pruning.pruned import Pruned
from woodfisher import method, ours


@dataclass(frozen=True)
class Options(ours.Options):
    """WoodFisher's options and β (Sec. 5.4)."""

    beta: float = 0.3  # Table 6: 0.30, and 0.35 for MobileNetV1; 0 is WoodFisher
    # what `amount` is a fraction of: "weights", or the candidate layers' "macs"
    target: str = "weights"

    def __post_init__(self):
        super().__post_init__()
        if not self.beta >= 0:
            raise UserError(
                "beta", self.beta, "must not be negative", "the paper's are 0.30 and 0.35"
            )
        if self.scope != "global":
            raise UserError(
                "scope",
                self.scope,
                "compares no layers, so costs do not matter",
                "use --scope global",
            )
        if choose("target", self.target, ("weights", "macs")) == "macs" and self.recompute:
            raise UserError(
                "recompute",
                self.recompute,
                "its levels are of weights",
                "use --recompute 0 with target=macs",
            )


def macs_per_weight(model: nn.Module, example: tuple[int, int, int] | Tensor) -> dict[str, float]:
    """Multiply-accumulates a weight by layer name, for one image (c, h, w) or example [1, ...]."""
    return {layer.name: layer.macs / layer.params for layer in costs(model, example).layers}


def weights_for(
    scores: Mapping[str, Tensor],
    price: Mapping[str, float],
    amount: float,
    masks: M.Masks,
    min_keep: int = 1,
) -> float:
    """The fraction of weights whose removal in the order of `scores` first removes `amount` of the
    MACs; weights that `masks` removed go first, the `min_keep` best of each layer last."""
    if not 0 <= amount < 1:
        raise UserError("sparsity", amount, "outside [0, 1)", "give the fraction of MACs REMOVED")
    ranks, macs = [], []
    for name, score in scores.items():
        gone = (
            ~masks[f"{name}.weight"].flatten()
            if f"{name}.weight" in masks
            else torch.zeros(score.numel(), dtype=torch.bool)
        )
        rank = score.detach().double().flatten().masked_fill(gone.to(score.device), -torch.inf)
        rank[torch.argsort(rank, stable=True, descending=True)[:min_keep]] = torch.inf
        ranks.append(rank)
        macs.append(torch.full_like(rank, price[name]))
    ordered = torch.cat(macs)[torch.argsort(torch.cat(ranks), stable=True)].cumsum(0)
    goal = amount * float(ordered[-1])
    return int((ordered < goal * (1 - 1e-12)).sum() + (goal > 0)) / len(ordered)


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float,
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """WoodFisher that removes the weights of the smallest ρ per MAC^β first; predicted_increase
    stays that of the update.
    """
    calibration = list(calibration) if isinstance(calibration, Iterator) else calibration
    price = macs_per_weight(model, first(calibration)[0][:1])

    def rank(
        rho: dict[str, Tensor], level: float, gone: M.Masks
    ) -> tuple[dict[str, Tensor], float]:
        scores = {name: score / price[name] ** options.beta for name, score in rho.items()}
        if options.target == "macs":
            level = weights_for(scores, price, level, gone, options.min_keep)
        return scores, level

    arguments = model, calibration, amount, options, generator, masks
    return method.prune(*arguments, rank=rank, update=options.update)
