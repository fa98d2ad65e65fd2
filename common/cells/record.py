"""Record: what one stage of one cell produced, as JSON. Standard library only, so that figures need
no torch.

Accuracies are fractions in [0, 1]; losses are mean training-loss units (nats for cross-entropy);
times are seconds. Fields are added, never renamed.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from common.cells.errors import UserError
from common.cells.lacking import where_supported

# study: numbers that are no cell, in the trajectory
STAGES = ("train", "prune", "finetune", "study")
MAX_BYTES = 1 << 20  # a record is at most tens of kilobytes; larger files are not records


@dataclass
class Record:
    """One stage of one cell.

    series: the curve that the record is a point of: the cell's name without amount and seed.
    achieved: sparsity, kept_params, kept_macs, dense_params, dense_macs (prunable weights and their
    multiply-accumulates), and model_params, dense_model_params (all parameters, biases and
    BatchNorm included). accuracy: dense, pruned, last, best, best_selected_on; of more than ten
    classes also top5_dense, top5_pruned, top5_last. loss: dense, pruned, predicted_increase,
    measured_increase. layers: [{name, kept, total, and what the method knows of it}]. timing:
    seconds per phase, core_s of processor time in all, peak_rss_mb, and resumed where the stage
    went on from half-done work and the seconds are those since. provenance: git, dirty, versions,
    device, threads, seed, command, data_sha256, machine (a fingerprint), load. identity: what
    decided the result, compared before the stage is used again (common.running.reuse), and the
    digests of what came out: file_sha256 of the network file, mask_sha256 of what was kept.
    trajectory: one entry a pruning step or epoch. notes: what the numerics had to do (dead units,
    raised damping).
    """

    id: str
    paper: str
    table: str
    cell: str
    method: str
    stage: str
    scale: str
    spec: dict
    series: str = ""
    dense_hash: str = ""
    requested: dict = field(default_factory=dict)
    achieved: dict = field(default_factory=dict)
    accuracy: dict = field(default_factory=dict)
    loss: dict = field(default_factory=dict)
    layers: list = field(default_factory=list)
    timing: dict = field(default_factory=dict)
    provenance: dict = field(default_factory=dict)
    identity: dict = field(default_factory=dict)
    trajectory: list = field(default_factory=list)
    notes: list = field(default_factory=list)

    def write(self, path: str | Path) -> Path:
        """Write atomically: a reader sees the old file or the whole new one."""
        return write_json(path, asdict(self))

    @classmethod
    def read(cls, path: str | Path) -> Record:
        """Read one record; a UserError names the file when it is not one."""
        path = Path(path)
        try:
            state = path.stat()
            if not stat.S_ISREG(state.st_mode):
                raise ValueError("no regular file")
            if state.st_size > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES} bytes")
            data = json.loads(path.read_text(encoding="utf-8"))
            return cls.from_dict(data)
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise UserError(
                "record", str(path), f"unreadable ({error})", "delete it to compute the cell again"
            ) from None

    @classmethod
    def from_dict(cls, data: object) -> Record:
        """The record of a JSON object, without fields that only later versions know; ValueError or
        TypeError where it is none."""
        if not isinstance(data, dict) or data.get("stage") not in STAGES:
            raise ValueError("not a record of a stage")
        record = cls(**{k: v for k, v in data.items() if k in _KNOWN})
        for name, kind in _KNOWN.items():
            if not isinstance(getattr(record, name), kind):
                raise ValueError(f"field {name!r} has the wrong type")
        return record


_KNOWN = {f.name: {"str": str, "dict": dict, "list": list}[f.type] for f in fields(Record)}


def wall_seconds(record: Record) -> float:
    """What the phases of a stage took by the clock."""
    return sum(
        v
        for k, v in record.timing.items()
        if k.endswith("_s") and k != "core_s" and isinstance(v, int | float)
    )


def core_seconds(record: Record) -> float:
    """Processor time of a stage; where an older record has none, its seconds times its threads."""
    measured = record.timing.get("core_s")
    if isinstance(measured, int | float):
        return float(measured)
    return wall_seconds(record) * (record.provenance.get("threads") or 1)


def record_id(slug: str, seed: int, stage: str) -> str:
    """The record's name: the cell's slug (which ends in its hash), the seed and the stage."""
    return f"{slug}-seed{seed}-{stage}"


def write_json(path: str | Path, data: object) -> Path:
    """Atomic, fsynced JSON with NaN refused, so that every reader can parse it. Raises UserError
    where it cannot be written.
    """
    path = Path(path)
    try:
        text = json.dumps(data, indent=1, allow_nan=False)
    except ValueError as error:
        raise UserError(
            "record", path.name, f"not written ({error})", "lower --lr, or raise --damping"
        ) from None
    replace_files({path: text + "\n"})
    return path


def replace_files(texts: Mapping[Path, str]) -> None:
    """Write files so that a reader sees each as it was or whole, and none is replaced before all
    are on the disk. Raises UserError where one cannot be written, and leaves all as they were."""
    written: dict[str, Path] = {}
    path = next(iter(texts))
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            written[temporary] = path
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            with where_supported():
                os.chmod(temporary, 0o644)
        for temporary, path in written.items():
            os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            "output_dir",
            str(path.parent),
            f"cannot write {path.name} ({error.strerror})",
            "free some space, or choose another folder",
        ) from None
    finally:
        for temporary in written:
            Path(temporary).unlink(missing_ok=True)
