"""FLOPs-aware WoodFisher (Sec. 5.4): ρ_q^FLOPs = ρ_q / (FLOPs-per-param_q)^β, one cut over all layers.

A weight costs one MAC at each output position, active or not, so the paper's ratio of a layer's active FLOPs to its active
weights is its number of output positions throughout gradual pruning; a linear layer's is 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from common import masks as M
from common.errors import UserError
from common.flops import costs
from common.pruned import Pruned
from woodfisher import method


@dataclass(frozen=True)
class Options(method.Options):
    """WoodFisher's options and β."""

    beta: float = 0.3  # Table 6: 0.30, and 0.35 for MobileNetV1; 0 is WoodFisher

    def __post_init__(self):
        super().__post_init__()
        if not self.beta >= 0:
            raise UserError("beta", self.beta, "must not be negative", "the paper's are 0.30 and 0.35")
        if self.scope != "global":
            raise UserError("scope", self.scope, "compares no layers, so costs do not matter", "use --scope global")


def macs_per_weight(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, float]:
    """Multiply-accumulates a weight by layer name, for one image of `input_shape` (c, h, w)."""
    return {layer.name: layer.macs / layer.params for layer in costs(model, input_shape).layers}


def prune(model: nn.Module, calibration: Iterable, amount: float | Mapping[str, float], options: Options,
          generator: torch.Generator, masks: M.Masks | None = None) -> Pruned:
    """WoodFisher that removes the weights of the smallest ρ per MAC^β first; predicted_increase stays that of the update."""
    calibration = list(calibration) if isinstance(calibration, Iterator) else calibration
    price = macs_per_weight(model, tuple(next(iter(calibration))[0].shape[1:]))
    return method.surgery(model, calibration, amount, options, generator, masks,
                          rank=lambda rho: {name: scores / price[name] ** options.beta for name, scores in rho.items()})
