"""NN Slimming (Liu et al. 2017), the paper's baseline: channels go by the size of their BatchNorm
scale, one threshold for all.

The scales have been pulled to zero during training (Recipe.bn_l1). Uses eigendamage.filters for
what goes with a channel. Where several BatchNorms read one unit (the stream of a residual network)
their mean |γ| counts, so that it stays comparable with a single one; Liu et al. put
channel-selection layers there instead. No curvature, so no prediction, and no weight update.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import NumericalError, UserError
from common.curvature import memory
from common.nets import masks as M
from common.nets.clone import clone
from common.nets.edits import BATCHNORM
from common.nets.surgery import ChannelGroup
from common.pruning.pruned import Pruned
from eigendamage.filters import Filters
from eigendamage.threshold import CAP, percentile, require_cap


@dataclass(frozen=True)
class Options:
    """`amount` is a fraction of the units that have a BatchNorm. Nothing is measured, so the
    calibration data has no say.
    """

    cap: float = CAP  # as for the criteria it is compared with (Sec. 5.2)
    skip: tuple[str, ...] = ()  # layers whose filters stay

    def __post_init__(self):
        require_cap(self.cap)


def importance(model: nn.Module, group: ChannelGroup) -> Tensor | None:
    """Mean |γ| of each unit over the BatchNorms that read it, [units]; None where none with a scale
    does.
    """
    scales = []
    for member in group.members:
        module = model.get_submodule(member.module)
        if isinstance(module, BATCHNORM) and module.affine:
            if not torch.isfinite(module.weight).all():
                raise NumericalError(
                    member.module, "its scales are not finite", "check the checkpoint"
                )
            gamma = module.weight.detach().double().abs()
            scales.append(torch.stack([gamma[channels].mean() for channels in member.map]))
    return torch.stack(scales).mean(0) if scales else None


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float,
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """A copy of `model` without the `amount` of its units whose scales are smallest. UserError for
    a network without any.
    """
    units = Filters(model, calibration, options.skip, masks).channels
    memory.require("", units.layers, options)
    scores = {group.name: importance(model, group) for group in units.groups}
    scaled = {name: score for name, score in scores.items() if score is not None}
    if not scaled:
        raise UserError(
            "model",
            type(model).__name__,
            "has no BatchNorm after a layer whose channels can go",
            "train one that has (lenet5:bn=1), or choose another method",
        )
    kept, notes = percentile(scaled, amount, options.cap)
    left = sorted(set(scores) - set(scaled))
    notes += [f"kept whole, no BatchNorm follows: {', '.join(left)}"] if left else []
    result = Pruned(clone(model), notes=notes + units.notes())
    result.edits = units.cut(result.model, kept)
    return result
