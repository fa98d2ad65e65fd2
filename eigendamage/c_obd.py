"""C-OBD (Wang et al. 2019, Sec. 4.2): Optimal Brain Damage's importance of each weight, summed over
a filter. No weight update.

Uses common.curvature.diag (exact per-example gradients, positions summed before squaring) and
eigendamage.filters. The filter's bias goes with it and is not scored.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from common.curvature import memory
from common.curvature.diag import diagonal_fisher
from common.nets import layers as L
from common.nets import masks as M
from common.pruning.pruned import Pruned
from eigendamage.filters import FilterOptions, Filters


def importance(module: nn.Module, fisher: Tensor) -> Tensor:
    """Σ_j ½ θ_ij² F_ij,ij of each filter i of a layer (Eq. 8 summed), [filters]; the Fisher's
    diagonal is weight-shaped."""
    each = 0.5 * module.weight.detach().double().square() * fisher
    return L.to_matrix(module, each).sum(2).flatten()


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float,
    options: FilterOptions,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """A copy of `model` without the `amount` of its units whose filters score lowest."""
    net = Filters(model, calibration, options.skip, masks, options.coupling)
    memory.require("diagonal", net.layers, options)
    fisher = diagonal_fisher(
        model, net.calibration, net.layers, options.fisher, generator=generator
    )
    scores = {name: importance(module, fisher[name]) for name, module in net.layers.items()}
    return net.remove(scores, amount, options.cap)
