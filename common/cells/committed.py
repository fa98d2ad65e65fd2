"""What is committed of a cell: its records in the library, read once. Standard library only.

A record is a cell's where its table, its cell and all that decides the result agree; the digest in
its name, which has been of six hexadecimal digits and of more, plays no part.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

from common.cells.errors import UserError
from common.cells.library import ROOT, read_all, results, table_name
from common.cells.record import Record
from common.cells.spec import Spec

Stages = dict[str, Record]  # stage -> record


@functools.cache
def _records(paper: str, root: Path) -> list[Record]:
    return list(read_all(results(paper, root)))


@functools.cache
def by_cell(paper: str, root: Path = ROOT) -> dict[tuple[str, str], list[Record]]:
    """(table's name, Spec.cell) -> its records of every seed, stage and setting, without the dense
    networks'. A cell that was changed and run again has records of both settings."""
    found: dict[tuple[str, str], list[Record]] = {}
    for record in _records(paper, root):
        if record.stage != "train" and record.cell:
            found.setdefault((record.table, record.cell), []).append(record)
    return found


@functools.cache
def dense(paper: str, root: Path = ROOT) -> dict[str, Record]:
    """Identity of the dense network, with its seed -> its train record."""
    return {
        _dense_key(spec): record
        for record in _records(paper, root)
        if record.stage == "train" and (spec := spec_of(record)) is not None
    }


def stages(spec: Spec, root: Path = ROOT) -> Stages:
    """The committed stages of one cell, in the order in which they ran; {} where there are none."""
    found = {"train": dense(spec.paper, root).get(_dense_key(spec))}
    named = by_cell(spec.paper, root).get((table_name(spec.table), spec.cell), ())
    wanted = identity(spec) if named else ""
    for record in named:
        made = spec_of(record)
        if made is not None and made.seed == spec.seed and identity(made) == wanted:
            found[record.stage] = record
    return {
        stage: record
        for stage in ("train", "prune", "finetune")
        if (record := found.get(stage)) is not None
    }


def spec_of(record: Record) -> Spec | None:
    """The record's Spec; None where it has a field that this version does not know or a value that
    it refuses.
    """
    try:
        return Spec.from_dict(record.spec)
    except (UserError, TypeError, ValueError):
        return None


def identity(spec: Spec) -> str:
    """All that decides a result, as text that two Specs can be compared by."""
    return json.dumps(spec.identity(), sort_keys=True)


def _dense_key(spec: Spec) -> str:
    return f"{identity(spec.dense())} seed {spec.dense_seed}"
