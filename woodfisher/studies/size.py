"""How long and how large: one pruning step of a big network, phase by phase.

    python -m woodfisher.size resnet50 --data-dir FOLDER     all 25.5 M weights, 80 rows, c = 1,000;
                                                             FOLDER/imagenet/train/<class>/*
    python -m woodfisher.size resnet20                       one block over 267,264 weights, 1,000
                                                             rows

Weights are random, for nothing here depends on them; images are the data set's. Writes
results/size_<network>.json, or below --output. --memory-budget is for the whole process here; 8
puts ResNet-50's 7.6 GB of rows on disk (size_<network>_disk.json).
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from common.cells.errors import Parser, choose, number
from common.cells.record import write_json
from common.curvature.fisher import NETWORK, rows_of
from common.curvature.memory import rows_work
from common.curvature.spool import SpooledRows
from common.data import sources as D
from common.nets import layers as L
from common.nets import masks as M
from common.nets import models
from common.running.cli import guarded
from common.running.timing import Timer
from common.system import machine
from woodfisher.cells.networks import DENSE_ENDS
from woodfisher.method import Options, fisher_parts
from woodfisher.surgeon import selection, statistic, step

FOLDER = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Case:
    """A network, its images and the step that is measured."""

    dataset: str
    samples: int
    options: Options = field(default_factory=Options)
    amount: float = 0.8


CASES = {
    "resnet50": Case("imagenet", 80, Options(fisher_batch_size=1, chunk=1000)),
    "resnet20": Case(
        "cifar10-jpeg:norm=imagenet",
        1000,
        Options(fisher_batch_size=1, chunk=NETWORK, **DENSE_ENDS),
    ),
}


def measure(
    model: nn.Module, calibration: Iterable, case: Case, memory_budget: float = 0.0
) -> dict:
    """Prune `model`, in place, by one step, and return the seconds of each phase and the process's
    peak memory.

    forecast_gb is what the step was expected to take: what the process held before, the rows where
    they stay in memory, and the work on them. *_cpu_s is processor time over all threads, which is
    what the phase takes on one idle core. memory_budget: GB for the process, 0 for 60% of what is
    free.
    """
    m, b = rows_of(calibration, case.options.num_rows, case.options.fisher_batch_size)
    weights = [module.weight.numel() for module in L.prunable(model, case.options.skip).values()]
    rows_gb, work_gb = (
        4 * m * sum(weights) / 2**30,
        rows_work(weights, m, case.options.chunk) / 2**30,
    )
    held = machine.resident_gb()
    timer, cpu = Timer(), {}

    @contextlib.contextmanager
    def phase(name: str) -> Iterator[None]:
        start = time.process_time()
        with timer.phase(name):
            yield
        cpu[f"{name}_cpu_s"] = round(time.process_time() - start, 2)

    with (
        phase("gradients"),
        machine.memory_budget(max(memory_budget - held, 1e-9) if memory_budget else 0.0),
    ):
        parts = fisher_parts(model, calibration, case.options, torch.Generator().manual_seed(0))
    with phase("scores"):
        rho = statistic(parts)
    with phase("selection_and_update"):
        masks = selection(rho, case.amount, case.options.scope)
        predicted = step(model, parts, masks, rho)
    on_disk = isinstance(parts[0].curvature.rows, SpooledRows)
    forecast = held + work_gb + (0.0 if on_disk else rows_gb)
    peak = machine.peak_memory_mb() / 1024
    return {
        "weights": sum(weights),
        "rows": m,
        "batch": b,
        "chunk": case.options.chunk,
        "sparsity": M.sparsity(masks),
        "predicted_increase": predicted,
        "rows_on_disk": on_disk,
        "rows_gb": round(rows_gb, 2),
        "forecast_gb": round(forecast, 2),
        "peak_gb": round(peak, 2),
        "peak_to_forecast": round(peak / forecast, 3),
        **timer.report(),
        **cpu,
    }


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    p = Parser(description=__doc__)
    p.add_argument("network", help="resnet50 or resnet20")
    p.add_argument(
        "--data-dir", default="", help="data root (default: $DATA_DIR, ./data, or ../data)"
    )
    p.add_argument(
        "--memory-budget", type=number(), default=0.0, help="GB (default: 60%% of what is free)"
    )
    p.add_argument(
        "--output",
        type=Path,
        default=FOLDER / "results",
        help="folder (default: woodfisher/results)",
    )
    arguments = p.parse_args(argv)
    return guarded(lambda: write(arguments))


def write(arguments: argparse.Namespace) -> None:
    """Measure and write."""
    case = CASES[choose("network", arguments.network, CASES)]
    data = D.load(case.dataset, arguments.data_dir)
    model = models.build(arguments.network, data.classes, data.input_shape, 0)
    result = measure(
        model, data.calibration(case.samples, batch_size=16), case, arguments.memory_budget
    )
    result = {
        "network": arguments.network,
        "dataset": case.dataset,
        "memory_budget_gb": arguments.memory_budget or None,
    } | result
    result["provenance"] = machine.provenance(torch.device("cpu"), 0, data.sha256)
    for name, value in result.items():
        logging.info("%s: %s", name, value)
    disk = "_disk" if result["rows_on_disk"] else ""
    write_json(arguments.output / f"size_{arguments.network}{disk}.json", result)
