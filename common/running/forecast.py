"""What a cell will take of memory, told by --dry-run before anything is loaded or computed."""

from __future__ import annotations

import torch
from torch import nn

from common.cells import registry
from common.cells.spec import Recipe, Spec, is_own
from common.curvature import memory
from common.curvature.memory import rows_work
from common.data import sources as D
from common.nets import layers as L
from common.nets import models
from common.running.gradual import DEFAULT_CALIBRATION
from common.running.options import method_of
from common.system import machine


def forecast(spec: Spec, verb: str) -> dict[str, float]:
    """GB. training: weights, gradients, optimiser state and the last good epoch, float32.
    curvature: what the method keeps of all layers in memory, at most (Method.curvature). disk:
    gradient rows that the budget does not hold beside the work on them, and that go to a file
    (fisher.spool). budget: what curvature may take now. Activations of a batch come on top.

    Raises UserError as the run itself would, for the network, the method and its options.
    """
    base = spec.dataset.partition(":")[0]
    classes, shape = (
        D.SHAPES[base]
        if base in D.SHAPES
        else ((data := D.load(spec.dataset, spec.data_dir)).classes, data.input_shape)
    )
    # other people's code may read values of its weights
    with torch.device("cpu" if is_own(spec.model) else "meta"):
        model = models.build(spec.model, classes, shape)
    found = {"training": _training(model, spec.train if verb == "train" else spec.finetune)}
    if verb != "train":
        budget = (spec.memory_budget or 0.6 * machine.free_memory_gb()) * 2**30
        curvature, disk = _curvature(model, spec, budget)
        found |= {"curvature": curvature, "disk": disk, "budget": budget}
    return {name: round(size / 2**30, 4) for name, size in found.items()}


def _training(model: nn.Module, recipe: Recipe) -> int:
    """Bytes of fit(): three copies of the parameters and what the optimiser keeps of each."""
    states = 2 if recipe.optimizer != "sgd" else int(recipe.momentum > 0)
    return 4 * (3 + states) * sum(parameter.numel() for parameter in model.parameters())


def _curvature(model: nn.Module, spec: Spec, budget: float) -> tuple[int, int]:
    """Bytes in memory and on disk of the method's statistics over all layers, float64 but for
    gradient rows, which the work on them stands beside; a factor stands beside its inverse."""
    options, kind = method_of(spec)[1], registry.lookup(spec.method).curvature
    layers = L.prunable(model, getattr(options, "skip", ()))
    if kind == "rows":
        weights = sum(module.weight.numel() for module in layers.values())
        examples, batch = spec.num_samples or DEFAULT_CALIBRATION, options.fisher_batch_size
        m = options.num_rows or (examples // batch if batch else min(registry.OPEN_ROWS, examples))
        rows, work = (
            4 * weights * m,
            rows_work((module.weight.numel() for module in layers.values()), m, options.chunk),
        )
        return (rows + work, 0) if rows + work <= budget else (work, rows)
    return memory.peak(kind, layers, options), 0
