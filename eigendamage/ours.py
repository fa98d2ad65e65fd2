"""EigenDamage with its bases folded, which is ours: two layers in place of three where that leaves
fewer weights. `prune` here is the registered "eigendamage"; with fold=False, its default, it is the
paper's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import require
from common.nets import masks as M
from common.pruning.pruned import Pruned
from eigendamage import method


@dataclass(frozen=True)
class Options(method.Options):
    """The paper's options and `fold`."""

    # a basis is multiplied into the core where that leaves fewer weights; the same function
    fold: bool = False

    def __post_init__(self):
        super().__post_init__()
        require(
            not (self.depthwise and self.fold),
            "fold",
            True,
            "a depthwise core has no basis to take in",
            "choose one of fold and depthwise",
        )


def folded(weights: list[Tensor]) -> list[Tensor]:
    """The same map with one basis multiplied into the core, [first, last], where that leaves fewer
    weights than [first, core, last]. For 1x1 kernels it always does: with q = min(r, a), q (in +
    out) ≤ a in + a r + r out."""
    first, core, last = weights
    return min(
        [first, product(last, core)],
        [product(core, first), last],
        weights,
        key=lambda ws: sum(w.numel() for w in ws),
    )


def product(left: Tensor, right: Tensor) -> Tensor:
    """The weight of `left` [out, mid, ...] after `right` [mid, in, ...], of which at most one has a
    kernel.
    """
    if left[0, 0].numel() > 1:
        return torch.einsum("om...,mi->oi...", left, right.flatten(1))
    return torch.einsum("om,mi...->oi...", left.flatten(1), right)


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float,
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """eigendamage.method.prune, folded if `options` say so. What was folded counts as plain layers
    when it is pruned again; a bottleneck that stands already stays one.
    """
    arguments = model, calibration, amount, options, generator, masks
    return method.prune(*arguments, **({"shape": folded} if options.fold else {}))
