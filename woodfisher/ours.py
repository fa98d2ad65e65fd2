"""WoodFisher with another update than the paper's, and ours: what moves when several weights go at
once.

Eq. 12 has an exact optimum for a set of weights that goes, which the paper calls intractable and
replaces by a sum of Eq. 10 over the weights. In the blocks' low-rank form the optimum takes one
more factorisation of m × m (common.curvature.blocks). `prune` here is the registered "woodfisher";
with update="diagonal", its default, it is the paper's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from common.cells.errors import choose
from common.nets import masks as M
from common.pruning import obs
from common.pruning.pruned import Pruned
from woodfisher import method
from woodfisher.method import Amount


@dataclass(frozen=True)
class UpdateOptions:
    """How the weights that stay move."""

    # "diagonal": Eq. 10 added up and masked (Sec. 4.3). Ours: "joint", the optimum of Eq. 12;
    # "triangular", one weight after the other with a fixed F̂⁻¹; "none", which leaves them alone
    update: str = "diagonal"

    def __post_init__(self):
        choose("update", self.update, obs.UPDATES)


@dataclass(frozen=True)
class Options(method.Options, UpdateOptions):
    """The paper's options and `update`."""

    def __post_init__(self):
        method.Options.__post_init__(self)
        UpdateOptions.__post_init__(self)


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: Amount,
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """woodfisher.method.prune, the update as `options` say."""
    arguments = model, calibration, amount, options, generator, masks
    return method.prune(*arguments, update=options.update)
