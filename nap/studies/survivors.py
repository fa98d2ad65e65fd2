"""Fig. 7: the channels that survive every setting of Table 5."""

from __future__ import annotations

import torch

from common.cells.errors import UserError
from common.cells.spec import Spec
from common.nets import checkpoint, models
from common.nets import layers as L
from common.running import pipeline


def survivors(specs: list[Spec]) -> list[dict]:
    """In how many of the runs each channel of each layer survives. All runs start from the same
    dense network."""
    counts: dict[str, torch.Tensor] = {}
    runs = [
        checkpoint.load(path)
        for spec in specs
        if (path := pipeline.cell_folder(spec) / "pruned.safetensors").exists()
    ]
    if not runs:
        raise UserError(
            "results",
            "table 5",
            "no run has left a network",
            "run python -m nap.prune --table 5 --scale cpu",
        )
    for run in runs:
        dense = models.build(
            run.architecture["model"],
            run.architecture["classes"],
            tuple(run.architecture["input_shape"]),
            0,
        )
        left = {
            name: torch.arange(len(module.weight)) for name, module in L.prunable(dense).items()
        }
        for edit in run.edits:
            if edit["axis"] == "out" and edit["module"] in left:
                left[edit["module"]] = left[edit["module"]][edit["keep"]]
        for name, kept in left.items():
            total = counts.setdefault(
                name, torch.zeros(len(dense.get_submodule(name).weight), dtype=torch.int64)
            )
            total[kept] += 1
    return [
        {"name": name, "survives": total.tolist(), "runs": len(runs)}
        for name, total in counts.items()
    ]
