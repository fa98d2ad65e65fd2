"""Where the stages of a cell lie.

    train      <output>/<paper>/dense/<slug>/seed<k>/train.json, model.safetensors
    prune      <output>/<paper>/<table or cells>/<slug>/seed<k>/prune.json, pruned.safetensors
    finetune   the same folder: finetune.json, finetuned.safetensors

Imports no torch, so that --list is quick.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from common.cells.errors import UserError
from common.cells.record import Record
from common.cells.spec import NAMING, Spec
from common.system import code


def dense_folder(spec: Spec) -> Path:
    """Where the dense network of a cell lies; cells with the same dense Spec share it."""
    return _folder(
        Path(spec.output_dir) / spec.paper / "dense", pinned(spec).dense(), spec.dense_seed
    )


def cell_folder(spec: Spec) -> Path:
    """Where a cell's pruning and fine-tuning lie: below its table's or job's name."""
    return _folder(
        Path(spec.output_dir) / spec.paper / (spec.table or "cells"), pinned(spec), spec.seed
    )


def pinned(spec: Spec) -> Spec:
    """The Spec with the digests of the code of a network of one's own, and of a checkpoint that is
    given by its path, so that files of one name in different folders are different networks. A
    checkpoint's name in the data root's checkpoints folder stays a name: there the digest is
    compared on reuse."""
    if code.is_own(spec.model):
        code.allow(spec.model)
        spec = spec.but(model_sha256=code.source_digest(spec.model))
    path = Path(spec.checkpoint)
    if spec.checkpoint and not spec.checkpoint_sha256 and path.is_file():
        return spec.but(checkpoint_sha256=file_sha256(path)[:16])
    return spec


def _folder(group: Path, spec: Spec, seed: int) -> Path:
    """The run's folder under its name or, where only that is there, under a name of an older
    version that holds the same Spec. An older record cannot say which file a checkpoint given by
    its path was, so such a cell is computed anew."""
    newest = group / spec.slug() / f"seed{seed}"
    if not newest.exists() and group.is_dir():
        for naming in range(NAMING - 1, 0, -1):
            older = group / spec.slug(naming) / f"seed{seed}"
            if any(_spec_in(path) == spec.identity() for path in sorted(older.glob("*.json"))):
                return older
    return newest


def _spec_in(path: Path) -> dict | None:
    """The identity of the Spec in a record; None for what is no record."""
    try:
        return Spec.from_dict(Record.read(path).spec).identity()
    except (UserError, TypeError):
        return None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read once as long as its size and time of change stay."""
    state = path.stat()
    return _file_sha256(str(path.resolve()), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _file_sha256(path: str, size: int, mtime: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
