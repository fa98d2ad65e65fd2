"""Theorem 3.2: the output's accumulated error beside its bound."""

from __future__ import annotations

import torch

from common.cells.spec import Spec
from common.running import study
from common.running.study import short
from common.running.timing import Timer
from lobs.bound import propagation
from lobs.cells.networks import OURS, STATED
from lobs.ours import Options, prune


def theorem(spec: Spec, timer: Timer) -> list[dict]:
    """Eq. 8 on LeNet-300-100 at the paper's kept fractions, pruned by its walk, by the joint
    optimum, and by our options with pruned inputs."""
    model, data = study.dense(spec)
    cases = {
        "l-obs": Options(batch_size=1000),
        "l-obs-joint": Options(update="joint", batch_size=1000),
        "l-obs-ours": Options(update="joint", inputs="pruned", damping=1e-3, relative=True, **OURS),
    }
    result = []
    for name, options in cases.items():
        with timer.phase("prune"):
            pruned = prune(
                model, data.calibration(20_000, 1000), STATED, options, torch.Generator()
            )
        with timer.phase("propagate"):
            rows = propagation(model, pruned.model, data.calibration(20_000, 1000))
        result += [{"method": name} | {k: short(v) for k, v in row.items()} for row in rows]
    return result
