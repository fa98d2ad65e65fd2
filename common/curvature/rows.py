"""Gradient rows: the vectors whose outer products make a Fisher, F = (1/m) Σ_i ∇_i ∇_iᵀ (WoodFisher
Eq. 1).

A row is one example's gradient, or the mean gradient of `batch` examples (WoodFisher's mini-batch
trick: with b examples a row E[∇∇ᵀ] is F/b plus the outer product of the mean gradient, so a damping
λ acts like λ·b on the per-example Fisher).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from common.cells.errors import NumericalError, UserError, choose
from common.curvature import memory
from common.curvature.labels import losses, require_curvature
from common.data.sources import rebatch
from common.data.task import task_of
from common.nets import layers as L
from common.nets.capture import capture
from common.system import distributed, machine
from common.system.progress import progress


def gradient_rows(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    num_rows: int,
    batch: int = 1,
    layers: dict[str, nn.Module] | None = None,
    fisher: str = "empirical",
    loss: str | None = None,
    generator: torch.Generator | None = None,
    out: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Rows by layer name: [num_rows, weights of the layer], in the network's dtype, but float32 at
    least; evaluation mode. loss: by default that of the data's task.

    Consumes num_rows × batch examples of `loader`, in order. `out` takes the place of the rows:
    tensors, or in one process a file's (spool.py). Raises UserError when the rows would not fit the
    memory budget (machine.memory_budget) or the loader has too few examples, NumericalError naming
    the layer of a non-finite gradient.
    """
    choose("fisher", fisher, ("sampled", "empirical"))
    if num_rows < 1 or batch < 1:
        raise UserError(
            "num_rows" if num_rows < 1 else "batch", min(num_rows, batch), "must be at least 1"
        )
    layers = L.prunable(model) if layers is None else layers
    device = next(model.parameters()).device
    if out is None:
        size = num_rows * sum(
            module.weight.numel() * L.single(module.weight.dtype).itemsize
            for module in layers.values()
        )
        machine.require_memory(
            f"{num_rows} gradient rows",
            size / 2**30,
            "lower --num-samples, or raise --memory-budget",
        )
        out = {
            name: module.weight.new_empty(
                num_rows, module.weight.numel(), dtype=L.single(module.weight.dtype)
            )
            for name, module in layers.items()
        }
    at_once = 1
    if batch == 1:
        at_once = memory.at_once(num_rows, max(m.weight.numel() for m in layers.values()))
    needed = num_rows * batch
    filled = 0
    stream = itertools.islice(rebatch(loader, batch * at_once), -(-num_rows // at_once))
    with capture(model, layers) as tape, progress(total=num_rows, desc="gradient rows") as bar:
        for index, (x, y) in enumerate(stream):
            x, y = x[: needed - filled * batch].to(device), y[: needed - filled * batch].to(device)
            if len(x) % batch:
                break
            count = len(x) // batch
            mine = distributed.mine(index)
            if mine or fisher == "sampled":  # every process draws every label
                for value in losses(tape.forward(x), y, fisher, loss or task_of(x), generator):
                    if mine:
                        tape.backward(value)
            for name, module in layers.items():
                if mine:
                    rows = L.weight_gradients(
                        module, tape.input(name), tape.gradient(name), each=batch == 1
                    ).reshape(count, -1)
                    out[name][filled : filled + count] = rows if batch == 1 else rows / batch
                else:
                    out[name][filled : filled + count] = 0
            filled += count
            bar.update(count)
    if filled < num_rows:
        raise UserError(
            "num_samples",
            needed,
            f"only {filled * batch} examples are there for {num_rows} rows of {batch}",
            "lower --num-samples or --fisher-batch-size",
        )
    distributed.add_up(out.values())
    zero = True
    for name, rows in out.items():
        if not torch.isfinite(torch.stack(rows.aminmax())).all():
            raise NumericalError(
                name, "its gradients are not finite", "check the data and the checkpoint"
            )
        zero = zero and silent(rows)
    require_curvature(zero, out)
    return out


def silent(rows: Tensor) -> bool:
    """Whether all entries are zero; Tensor.any would copy them as bool."""
    return not any(map(float, rows.aminmax()))
