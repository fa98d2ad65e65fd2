"""The library of results: every record below a folder, whichever way it is kept. Standard library
only.

Committed records are tables of two files (common.cells.tablefile); a run has a JSON file a stage.
A figure asks for a paper's table and groups what it gets:

    for record in library.records("woodfisher", "figure-3a"):
        if record.stage == "prune":
            curves[record.series][record.requested["sparsity"]].append(record.accuracy["pruned"])

`record.series` says which curve a record is a point of: `lenet300/nap`, network and what was done
to it, or in WoodFisher's tables the name of the sweep.
"""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from common.cells import tablefile
from common.cells.errors import UserError
from common.cells.record import Record

ROOT = Path(__file__).resolve().parents[2]
PAPERS = ("eigendamage", "lobs", "nap", "woodfisher", "compare")
log = logging.getLogger(__name__)


def results(paper: str, root: Path = ROOT) -> Path:
    """The folder of a paper's committed records; those of common.commands.compare lie beside the
    figures."""
    return root / {"compare": "figures"}.get(paper, paper) / "results"


def records(paper: str, table: str | None = None, root: Path = ROOT) -> list[Record]:
    """The committed records of a paper, or of one of its tables ("table-1", "figure-3a", "options",
    or "dense": the networks that its cells start from), by table, cell, seed and stage.

    The records are shared by all who ask: change none."""
    wanted = None if table is None else table_name(table)
    return [
        record
        for record in _sorted(results(paper, root))
        if wanted in (None, shelf(record.table, record.stage))
    ]


def of_cell(folder: str | Path, cell: str) -> list[Record]:
    """The records below a folder of the cell, or the study, of this name."""
    return [record for record in read_all(folder) if record.cell == cell]


def _sorted(folder: Path) -> list[Record]:
    return sorted(
        read_all(folder), key=lambda r: (shelf(r.table, r.stage), *tablefile.order(vars(r)))
    )


def table_name(table: str) -> str:
    """A table's name in its one spelling: "table-1", "figure-S12", "example-1", "mnist". Older ones
    are read as that: "1", "Table 1", "figure 5"."""
    kind, dash, rest = re.sub(r"\s+", "-", table).partition("-")
    if kind[:1].isdigit():
        return f"table-{kind}{dash}{rest}"
    return kind.lower() + dash + rest if kind.lower() in ("table", "figure", "example") else table


def shelf(table: str, stage: str) -> str:
    """What the files of a record's table are called."""
    return "dense" if stage == "train" else table_name(table) or "cells"


def read_all(*folders: str | Path) -> Iterator[Record]:
    """Every record below the folders, in path order, its table in the one spelling. Other files are
    passed over: with a warning where one is damaged, in silence where it is JSON that names no
    stage, another kind of result. UserError for a damaged table."""
    for folder in map(Path, folders):
        for path in _files(folder):
            yield from _records(path, *_stamps(path))


def whole(*folders: str | Path) -> Iterator[dict]:
    """The same as read_all, each as the JSON object that was written."""
    for folder in map(Path, folders):
        for path in _files(folder):
            if path.suffix == ".jsonl":
                yield from tablefile.read(path.with_suffix(""))
            elif _records(path, *_stamps(path)):
                yield json.loads(path.read_text(encoding="utf-8"))


def _files(folder: Path) -> list[Path]:
    """What may hold records, in path order; a pipe or a device would never end."""
    found = [*folder.rglob("*.json"), *folder.rglob("*.jsonl")]
    return sorted(path for path in found if path.is_file())


def _stamps(path: Path) -> tuple[tuple[int, int], ...]:
    """What changes when the file or its companion does."""
    both = [path, path.with_suffix(".csv")] if path.suffix == ".jsonl" else [path]
    return tuple((s.st_mtime_ns, s.st_size) for s in (p.stat() for p in both if p.exists()))


@functools.lru_cache(8192)
def _records(path: Path, *stamps: tuple[int, int]) -> tuple[Record, ...]:
    """The records of one file; `stamps` make a changed file a new one."""
    try:
        if path.suffix == ".jsonl":
            found = [Record.from_dict(fields) for fields in tablefile.read(path.with_suffix(""))]
        else:
            found = [Record.read(path)]
        return tuple(replace(record, table=table_name(record.table)) for record in found)
    except UserError as error:
        if path.suffix == ".jsonl":
            raise
        log.log(logging.DEBUG if other(path) else logging.WARNING, "passed over: %s", error)
        return ()


def other(path: Path) -> bool:
    """Whether a file is whole JSON, and of another kind than a record."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return not isinstance(data, dict) or "stage" not in data
