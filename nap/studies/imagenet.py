"""The ImageNet networks' whole pruning path at 224 pixels, with random weights."""

from __future__ import annotations

import logging

import torch

from common.cells.errors import choose
from common.cells.spec import Spec
from common.nets import layers as L
from common.nets import models
from common.nets.flops import costs
from common.running.stages import data_of
from common.running.study import short
from common.running.timing import Timer
from nap import channels

log = logging.getLogger(__name__)
# speed-up wanted, layers that stay
NETWORKS = {"vgg16": (5.4, ("classifier.0", "classifier.3")), "resnet50": (2.3, ())}


def imagenet(
    model_name: str, data_dir: str, timer: Timer, ratio: float = 0.2, examples: int = 2
) -> list[dict]:
    """Prune channels at 224 pixels until the paper's speed-up: one row a step. Random weights."""
    wanted, skip = NETWORKS[choose("model", model_name, NETWORKS)]
    data = data_of(Spec(paper="nap", dataset="imagenet", data_dir=data_dir))
    model = models.build(model_name, data.classes, data.input_shape, 0).eval()
    whole, options, rows = (
        costs(model, data.input_shape).macs,
        channels.Options(skip=skip, batch_size=2),
        [],
    )
    while not rows or rows[-1]["speedup"] < wanted:
        with timer.phase("prune"):
            generator = torch.Generator().manual_seed(len(rows))
            result = channels.prune(model, data.calibration(examples, 2), ratio, options, generator)
        model = result.model
        layers = {name: module for name, module in L.prunable(model).items() if name not in skip}
        rows.append(
            {
                "step": len(rows),
                "speedup": round(whole / costs(model, data.input_shape).macs, 4),
                "channels": sum(len(module.weight) for module in layers.values()),
                "predicted_increase": short(result.predicted_increase, 5),
            }
        )
        log.info("%s", rows[-1])
    rows[-1]["widths"] = {name: len(module.weight) for name, module in layers.items()}
    return rows
