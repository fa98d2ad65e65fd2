"""What every study shares: the dense network that it is about, and its record.

A study is an experiment that is no (train, prune, fine-tune) cell. Its numbers are the trajectory
of one record, of stage "study".
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from common.cells.record import Record
from common.cells.spec import Spec
from common.data import sources as D
from common.nets import checkpoint
from common.running import pipeline
from common.running.stages import data_of
from common.running.timing import Timer
from common.system import machine


def dense(spec: Spec) -> tuple[nn.Module, D.Data]:
    """The dense network of a Spec, trained if no run has left it, in evaluation mode; its data."""
    pipeline.train(spec)
    loaded = checkpoint.load(pipeline.dense_folder(spec) / "model.safetensors")
    return loaded.model.eval(), data_of(spec)


def short(value: object, digits: int = 6) -> object:
    """A float with so many significant digits, for records are read by people too; all else as it
    is."""
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def write(
    spec: Spec,
    rows: Iterable[dict],
    timer: Timer,
    output: Path,
    dense_hash: str = "",
    data_sha256: str = "",
    record_id: str = "",
    method: str = "",
) -> Record:
    """Write <output>/<cell>.json, the record of a study whose numbers are `rows`, and return it.
    spec: the network that the study is about, under the study's own table and cell. record_id: by
    default <paper>-<cell>. method: by default the Spec's."""
    record = Record(
        record_id or f"{spec.paper}-{spec.cell}",
        spec.paper,
        spec.table,
        spec.cell,
        method or spec.method,
        "study",
        spec.scale,
        spec.but(data_dir="", output_dir=Spec.output_dir).to_dict(),
        dense_hash=dense_hash,
        trajectory=list(rows),
        timing=timer.report(),
        provenance=machine.provenance(torch.device("cpu"), spec.seed, data_sha256),
    )
    record.write(output / f"{spec.cell}.json")
    return record
