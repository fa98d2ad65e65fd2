"""Seconds of a forward pass of Table 1's networks (Sec. 4.1)."""

from __future__ import annotations

import torch

from common.cells.errors import UserError
from common.cells.spec import Spec
from common.nets import checkpoint, latency
from common.nets.flops import costs
from common.running import pipeline
from common.running.stages import data_of
from common.running.study import short
from common.running.timing import Timer


def latencies(specs: list[Spec], timer: Timer, batch: int = 64) -> list[dict]:
    """Seconds of a forward pass of `batch` images, and MACs, of each pruned network and its dense
    one."""
    rows = []
    for spec in specs:
        path = pipeline.cell_folder(spec) / "finetuned.safetensors"
        if not path.exists():
            continue
        dense, pruned = (
            checkpoint.load(p).model.eval()
            for p in (pipeline.dense_folder(spec) / "model.safetensors", path)
        )
        shape = data_of(spec).input_shape
        with timer.phase("latency"):
            seconds = latency.medians(
                {"dense": dense, "pruned": pruned}, torch.randn(batch, *shape), rounds=15
            )
        macs = costs(dense, shape).macs, costs(pruned, shape).macs
        rows.append(
            {
                "name": spec.cell,
                "speedup_macs": short(macs[0] / macs[1], 5),
                "dense_s": short(seconds["dense"], 5),
                "pruned_s": short(seconds["pruned"], 5),
                "batch": batch,
                "speedup_latency": short(seconds["dense"] / seconds["pruned"], 5),
            }
        )
    if not rows:
        raise UserError(
            "results",
            "table 1",
            "no run has left a network",
            "run python -m nap.finetune --table 1 --scale cpu",
        )
    return rows
