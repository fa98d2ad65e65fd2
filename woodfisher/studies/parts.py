"""What the studies of WoodFisher's choice measure: pruned copies, what two of them share, and the
lengths of gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from common.commands.agreement import overlap
from common.curvature.blocks import BlockFisher
from common.curvature.fisher import Part
from common.nets import layers as L
from common.nets import masks as M
from common.nets.clone import clone
from common.pruning import baselines
from common.running import train as T
from woodfisher.surgeon import selection, statistic, step

DAMPING = 1e-5  # Sec. S1.2
Batches = Iterable[tuple[Tensor, Tensor]]
Entry = dict[str, object]


def pruned(
    model: nn.Module, curvatures: Mapping[str, BlockFisher], amount: float, update: str = "diagonal"
) -> tuple[nn.Module, M.Masks]:
    """A copy of `model` pruned by joint WoodFisher from ready curvatures by layer, and its
    masks.
    """
    result = clone(model)
    parts = [Part({name: module}, curvatures[name]) for name, module in L.prunable(result).items()]
    rho = statistic(parts)
    masks = selection(rho, amount, "global")
    step(result, parts, masks, rho, update)
    return result, masks


def magnitude(model: nn.Module, amount: float) -> tuple[nn.Module, M.Masks]:
    """Global magnitude pruning of a copy."""
    result = baselines.magnitude(model, [], amount, baselines.ScopeOptions(), torch.Generator())
    return result.model, result.masks


def shared(one: M.Masks, other: M.Masks) -> float:
    """Intersection over union of the weights that two sets of masks keep."""
    return overlap(
        *(torch.cat([masks[name].flatten() for name in sorted(one)]) for masks in (one, other))
    )


def lengths(rows: Mapping[str, Tensor]) -> Tensor:
    """Squared length of every gradient row over all layers, [m], float64."""
    return sum(part.double().square().sum(1) for part in rows.values())


def effective(squares: Tensor) -> float:
    """How many rows of one length would weigh as much: (Σ |g|²)² / Σ |g|⁴, m for rows of one
    length, 1 where one has it all.
    """
    return float(squares.sum().square() / squares.square().sum())


def accuracy(model: nn.Module, test: Batches) -> float:
    """Accuracy over `test`, a fraction with five digits."""
    return round(T.evaluate(model, test)[1], 5)
