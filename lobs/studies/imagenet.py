"""ImageNet networks with random weights: time, memory and layer errors; no accuracy is claimed."""

from __future__ import annotations

import torch
from torch import nn

from common.cells.spec import Spec
from common.nets import layers as L
from common.nets import models
from common.nets.capture import capture
from common.running.stages import data_of
from common.running.study import short
from common.running.timing import Timer
from lobs.ours import Options, prune

# ImageNet images at once: VGG-16 holds 60 MB of activations for each
BATCH = 4
KEEPS = {"alexnet": 0.11, "vgg16": 0.075, "resnet50": 0.45}  # the paper's overall keeps


def imagenet(spec: Spec, timer: Timer, examples: int = 16) -> list[dict]:
    """Prune every layer by the paper's walk at the paper's overall kept fraction. Rows: predicted
    and measured error of each layer."""
    data = data_of(spec)
    model = models.build(spec.model, data.classes, data.input_shape, 0).eval()
    loader = data.calibration(examples, BATCH)
    with timer.phase("prune"):
        result = prune(
            model,
            loader,
            spec.sparsity,
            Options(damping=1e-3, relative=True, batch_size=BATCH),
            torch.Generator(),
        )
    with timer.phase("measure"):
        measured = measured_errors(model, result.model, loader)
    return [
        {
            "name": name,
            "kept": round(float(result.masks[f"{name}.weight"].double().mean()), 5),
            "predicted": short(report["predicted_error"]),
            "measured": short(measured[name]),
            "relative": short(report["relative_error"]),
        }
        for name, report in result.layers.items()
    ]


@torch.no_grad()
def measured_errors(dense: nn.Module, pruned: nn.Module, loader) -> dict[str, float]:
    """½ mean ‖Ẑ − Z‖² of every layer on the dense network's inputs, measured; the mean is over
    examples and output positions."""
    originals, changed = L.prunable(dense), L.prunable(pruned)
    totals, counts = dict.fromkeys(originals, 0.0), dict.fromkeys(originals, 0)
    for x, _ in loader:
        with capture(dense, originals, gradients=False) as tape:
            tape.forward(x)
        for name, module in originals.items():
            gap = (changed[name](tape.input(name)) - module(tape.input(name))).double()
            totals[name] += 0.5 * float(gap.square().sum())
            counts[name] += gap.numel() // module.weight.shape[0]
    return {name: totals[name] / counts[name] for name in totals}
