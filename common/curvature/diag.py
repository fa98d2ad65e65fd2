"""Diagonal Fisher: the mean of squared per-example gradients (LeCun et al. 1990's Hessian diagonal
in its Fisher form).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from common.cells.errors import NumericalError, UserError
from common.curvature.labels import losses, require_curvature
from common.curvature.memory import PER_EXAMPLE_ENTRIES
from common.data.batches import batches
from common.data.task import task_of
from common.nets import layers as L
from common.nets.capture import capture
from common.system import distributed, machine


def diagonal_fisher(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    layers: dict[str, nn.Module] | None = None,
    fisher: str = "empirical",
    loss: str | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """F_ii by layer name, float64, shaped like the weight. Exact for convolutions: positions are
    summed before squaring. loss: by default that of the data's task.
    """
    layers = L.prunable(model) if layers is None else layers
    device = next(model.parameters()).device
    machine.require_memory(
        "the diagonal Fisher",
        16 * sum(module.weight.numel() for module in layers.values()) / 2**30,
        "raise --memory-budget",
    )
    total = {
        name: torch.zeros(module.weight.shape, dtype=torch.float64, device=device)
        for name, module in layers.items()
    }
    examples = 0
    for index, (x, y) in enumerate(batches(loader)):
        x, y = x.to(device), y.to(device)
        examples += len(x)
        mine = distributed.mine(index)
        if not mine and fisher != "sampled":
            continue
        with capture(model, layers) as tape:
            # every process draws every label
            for value in losses(tape.forward(x), y, fisher, loss or task_of(x), generator):
                if not mine:
                    break
                tape.backward(value, retain=True)
                for name, module in layers.items():
                    squares = _sum_of_squares(module, tape.input(name), tape.gradient(name))
                    total[name] += L.to_weight(module, squares)
    if not examples:
        raise UserError("calibration", 0, "no batch was seen", "give at least one example")
    distributed.add_up(total.values())
    for name, value in total.items():
        if not torch.isfinite(value).all():
            raise NumericalError(
                name, "its gradients are not finite", "check the data and the checkpoint"
            )
    require_curvature(not any(value.any() for value in total.values()), total)
    return {name: value.div_(examples) for name, value in total.items()}


def _sum_of_squares(module: nn.Module, x: Tensor, g: Tensor) -> Tensor:
    """Σ_b (∂loss_b/∂w)², [groups, out, in], float64, a bounded number of examples at a time.

    With one output position an example's gradient is g aᵀ and its square (g∘g)(a∘a)ᵀ: no example's
    gradient is formed.
    """
    out = L.gradients(module, g)
    if out.shape[2] == 1:
        rows = L.inputs(module, x)
        return (
            out.square()[:, :, 0].permute(1, 2, 0) @ rows.square()[:, :, 0].transpose(0, 1)
        ).double()
    step = max(1, PER_EXAMPLE_ENTRIES // module.weight.numel())
    parts = (
        L.weight_gradients(module, x[i : i + step], g[i : i + step]) for i in range(0, len(x), step)
    )
    return sum(part.square_().sum(0).double() for part in parts)
