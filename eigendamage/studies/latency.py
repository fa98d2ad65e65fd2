"""The wall-clock speed-ups that Sec. 5 promises: what pruned networks take beside their dense
parent.
"""

from __future__ import annotations

from pathlib import Path

import torch

from common.cells.errors import UserError
from common.cells.library import read_all
from common.cells.spec import Spec
from common.nets import checkpoint, latency
from common.running import pipeline
from common.running.stages import data_of
from common.running.timing import Timer

BATCHES, ROUNDS = (1, 64), 15


def wall_clock(spec: Spec, timer: Timer, output: Path, table: str, network: str) -> list[dict]:
    """Latency of every pruned network of `table` whose cell begins with `network`, first seeds,
    beside their dense parent's: one thread, one call of each in turn."""
    found = [
        r
        for r in read_all(Path(spec.output_dir) / spec.paper / table)
        if r.stage == "prune" and r.cell.startswith(network) and r.spec["seed"] == 0
    ]
    if not found:
        raise UserError(
            "network",
            network,
            f"no pruned network of table {table} is there",
            f"run python -m eigendamage.prune --table {table}",
        )
    specs = {r.cell: Spec.from_dict(r.spec).but(output_dir=spec.output_dir) for r in found}
    parents = {pipeline.dense_folder(s) for s in specs.values()}
    if len(parents) > 1:
        raise UserError(
            "network",
            network,
            f"names networks of {len(parents)} dense parents",
            "give a longer beginning of the cells' names",
        )
    nets = {"dense": checkpoint.load(parents.pop() / "model.safetensors").model.eval()}
    nets |= {
        cell: checkpoint.load(pipeline.cell_folder(s) / "pruned.safetensors").model.eval()
        for cell, s in specs.items()
    }
    shape = data_of(next(iter(specs.values())).but(data_dir=spec.data_dir)).input_shape
    rows = []
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        for batch in BATCHES:
            with timer.phase(f"batch_{batch}"):
                times = latency.medians(
                    nets,
                    torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0)),
                    ROUNDS,
                )
            for r in found:
                rows.append(
                    {
                        "cell": r.cell,
                        "method": r.method,
                        "unit_ratio": r.requested["unit_ratio"],
                        "batch": batch,
                        "ms": round(1e3 * times[r.cell], 3),
                        "dense_ms": round(1e3 * times["dense"], 3),
                        "speedup": round(times["dense"] / times[r.cell], 3),
                        "macs_ratio": round(r.achieved["dense_macs"] / r.achieved["kept_macs"], 3),
                    }
                )
    finally:
        torch.set_num_threads(threads)
    return rows
