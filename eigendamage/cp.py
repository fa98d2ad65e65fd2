"""CP-decomposition (Lebedev et al. 2014), the paper's low-rank baseline: each kernel a sum of
`rank` rank-one tensors.

W[o, i, p] ≈ Σ_q U[o, q] D[p, q] V[i, q] becomes a 1x1 convolution (V), a depthwise one (D) and a
1x1 one (U), fitted in the Frobenius norm by eigendamage.depthwise's alternating least squares.
Lebedev et al. also split the two kernel axes, which for 3x3 kernels would save 3 of each 9 + cin +
cout weights a rank. Fully connected layers stay. No curvature, so no prediction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from common.cells.errors import UserError
from common.curvature import memory
from common.nets import masks as M
from common.nets.clone import clone
from common.nets.kinds import CONVOLUTIONS
from common.pruning.pruned import Pruned
from common.pruning.select import fraction
from eigendamage.bottleneck import factors_of, place, rotatable
from eigendamage.depthwise import joined, separate


@dataclass(frozen=True)
class Options:
    """A layer's rank is (1 − amount) · rank times its original one, min(cin, cout) (Sec. 5.4's
    first setting), or (1 − amount) · rank itself and at most the original one (its second)."""

    rank: float = 1.0
    absolute: bool = False
    skip: tuple[str, ...] = ()  # layers left as they are

    def __post_init__(self):
        if not 0 < self.rank < 1e6:
            raise UserError("rank", self.rank, "must be above 0")

    def of(self, weight: torch.Tensor, amount: float) -> int:
        """The rank of this weight, at least 1."""
        original = min(weight.shape[:2])
        target = self.rank * (1 - amount)
        return max(1, round(min(target, original) if self.absolute else target * original))


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float,
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """A copy of `model` with every convolution that has a kernel decomposed; one that would be
    larger stays (noted).
    """
    M.require_none(masks, "decompose")
    fraction(amount, "unit_ratio")
    layers = {
        name: m
        for name, m in rotatable(model, options.skip).items()
        if isinstance(m, CONVOLUTIONS) and m.weight[0, 0].numel() > 1
    }
    if not layers:
        raise UserError(
            "model",
            type(model).__name__,
            "has no convolution to decompose",
            "choose another method",
        )
    memory.require("", layers, options)
    result = Pruned(clone(model))
    for name, module in layers.items():
        W = module.weight.detach().double().flatten(2)
        rank = options.of(W, amount)
        if rank * sum(W.shape) > W.numel():
            result.notes.append(
                f"{name}: left dense, rank {rank} would have {rank * sum(W.shape)} weights for "
                f"{W.numel()}"
            )
            continue
        U, D, V = separate(W, rank=rank)
        error = float((joined(U, D, V) - W).norm() / W.norm())
        result.layers[name] = {"rank": rank, "relative_error": round(error, 6)}
        result.edits += place(result.model, name, factors_of(module, V, D.T[:, None], U))
    return result
