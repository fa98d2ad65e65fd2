"""A committed list of cells to be computed, in order, each with its reason and its cost;
common.commands.queue works it down.

An [[entry]] of the list: name; paper; verb (train, prune or finetune); table or figure; cells
(patterns of names); why; decides (the verdict that depends on it); minutes (core-minutes a cell,
its dense network aside). Optional: scale; results (where records are committed, <paper>/results
unless given). Instead of paper, verb, table and cells: compare = "flags of
common.commands.compare".

A cell is finished when its record lies in the output folder, or is committed and was made from a
clean tree.
"""

from __future__ import annotations

import functools
import importlib
import shlex
import statistics
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path

from common.cells import committed
from common.cells.errors import UserError, choose
from common.cells.record import Record, core_seconds
from common.cells.spec import SCALES, Spec
from common.commands import compare

# verb -> what it leaves for a cell
STAGES = {"train": ("train",), "prune": ("prune",), "finetune": ("prune", "finetune")}
HELP = "see python -m common.queue --help"


@dataclass(frozen=True)
class Entry:
    """One line of the list."""

    name: str
    why: str
    decides: str
    minutes: float
    paper: str = ""
    verb: str = ""
    table: str = ""
    figure: str = ""
    cells: tuple[str, ...] = ()
    scale: str = ""
    compare: str = ""
    results: str = ""


@dataclass(frozen=True, eq=False)
class Job:
    """What one process computes: the words after `python`, and the cells that they leave;
    `training`, if not empty, are words that leave the dense network alone."""

    entry: Entry
    name: str
    command: tuple[str, ...]
    specs: tuple[Spec, ...]
    training: tuple[str, ...] = ()

    @property
    def verb(self) -> str:
        return self.entry.verb or "finetune"

    @functools.cached_property
    def dense(self) -> Path:
        """Where the dense network lies."""
        from common.running import pipeline  # torch

        return pipeline.dense_folder(self.specs[0])

    @functools.cached_property
    def folders(self) -> list[Path]:
        """Where the cells lie."""
        from common.running import pipeline  # torch

        return [
            self.dense if self.verb == "train" else pipeline.cell_folder(spec)
            for spec in self.specs
        ]

    @functools.cached_property
    def committed(self) -> list[committed.Stages]:
        """What is committed of each cell."""
        return [committed.stages(spec) for spec in self.specs]

    @property
    def records(self) -> list[Path]:
        """The file of each cell that says that it is done."""
        return [folder / f"{self.verb}.json" for folder in self.folders]

    def finished(self) -> bool:
        """Whether every cell lies in the output folder or is committed, from a clean tree."""
        return all(
            path.exists()
            or (self.verb in kept and kept[self.verb].provenance.get("dirty") is False)
            for path, kept in zip(self.records, self.committed, strict=True)
        )

    def seconds(self) -> float | None:
        """Core-seconds that the records tell of, those of a dirty tree included; None unless all
        cells have them in whole."""
        total = 0.0
        for folder, kept in zip(self.folders, self.committed, strict=True):
            for stage in STAGES[self.verb]:
                path = folder / f"{stage}.json"
                record = Record.read(path) if path.exists() else kept.get(stage)
                if record is None or record.timing.get("resumed"):
                    return None
                total += core_seconds(record)
        return total


# -- the list --------------------------------------------------------------------------------------


def read(path: Path) -> list[Entry]:
    """The entries of a list; UserError names the entry and the field that is wrong."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError("file", str(path), f"cannot be read ({error})", HELP) from None
    if set(data) != {"entry"} or not isinstance(data["entry"], list):
        raise UserError("file", str(path), "must hold [[entry]] tables and nothing else", HELP)
    entries = [_entry(values) for values in data["entry"]]
    for name in (
        entry.name for i, entry in enumerate(entries) if entry.name in {e.name for e in entries[:i]}
    ):
        raise UserError("entry", name, "stands there twice", "give each a name of its own")
    return entries


def _entry(values: dict) -> Entry:
    given = {"name": ""} | values
    for key, value in values.items():
        if key not in Entry.__dataclass_fields__:
            raise UserError("entry", given["name"], f"has no field {key!r}", HELP)
        kind = {"minutes": int | float, "cells": list}.get(key, str)
        if not isinstance(value, kind) or (
            kind is list and not all(isinstance(cell, str) for cell in value)
        ):
            raise UserError("entry", given["name"], f"{key} has the wrong type", HELP)
    one, other = (
        ("compare",),
        ("paper", "verb", "cells", *("table" if values.get("table") else "figure",)),
    )
    for key in ("name", "why", "decides", "minutes", *(one if values.get("compare") else other)):
        if not values.get(key):
            raise UserError("entry", given["name"], f"lacks {key}", HELP)
    for key in (
        (*other, "scale", "figure")
        if values.get("compare")
        else ("figure",)
        if values.get("table")
        else ()
    ):
        if values.get(key):
            raise UserError("entry", given["name"], f"has {key} and what stands in its place", HELP)
    if not 0 < values["minutes"] < float("inf"):
        raise UserError("entry", given["name"], "minutes must be positive", HELP)
    if "verb" in values:
        choose("verb", values["verb"], STAGES)
    if values.get("scale"):
        choose("scale", values["scale"], SCALES)
    return Entry(**values | {"cells": tuple(values.get("cells", ()))})


def jobs(entries: Sequence[Entry], output: str, data_dir: str) -> list[Job]:
    """What is to be computed, in the order of the list; a record that two entries name is the first
    one's.
    """
    seen, found = set(), []
    for entry in entries:
        for job in (_compared if entry.compare else _cells)(entry, output, data_dir):
            if (key := (job.verb, *job.folders)) not in seen:
                seen.add(key)
                found.append(job)
    return found


def _cells(entry: Entry, output: str, data_dir: str) -> Iterator[Job]:
    kind, label = ("table", entry.table) if entry.table else ("figure", entry.figure)
    try:
        module = importlib.import_module(f"{entry.paper}.experiments")
    except ImportError:
        raise UserError(
            "paper", entry.paper, "has no experiments", f"mend the entry {entry.name!r}"
        ) from None
    known = module.TABLES if kind == "table" else module.FIGURES
    group = known[choose(kind, label, known)]
    for pattern in entry.cells:
        found = [
            name
            for name, spec in group.items()
            if fnmatchcase(name, pattern) and entry.scale in ("", spec.scale)
        ]
        if not found:
            raise UserError(
                "cells",
                pattern,
                f"no such cell in {entry.paper}'s {kind} {label}",
                f"mend the entry {entry.name!r}",
            )
        for name in found:
            words = (f"--{kind}", label, "--cell", name, *_place(output, data_dir))
            training = () if entry.verb == "train" else ("-m", f"{entry.paper}.train", *words)
            yield Job(
                entry,
                name,
                ("-m", f"{entry.paper}.{entry.verb}", *words),
                (group[name].but(output_dir=output, data_dir=data_dir),),
                training,
            )


def _compared(entry: Entry, output: str, data_dir: str) -> Iterator[Job]:
    """One job for each method and amount of a comparison, with all its seeds."""
    words = [*shlex.split(entry.compare), *_place(output, data_dir)]
    grid = compare.grid(compare.parser().parse_args(words))
    for first in (spec for spec in grid if spec.seed == 0):
        command = (
            "-m",
            "common.commands.compare",
            *words,
            "--methods",
            first.method,
            "--sparsities",
            repr(first.amount),
        )
        yield Job(entry, first.cell, command, tuple(s for s in grid if s.cell == first.cell))


def _place(output: str, data_dir: str) -> list[str]:
    return ["--output-dir", output] * (output != Spec.output_dir) + ["--data-dir", data_dir] * bool(
        data_dir
    )


# -- what is left ----------------------------------------------------------------------------------


def left(found: Sequence[Job]) -> list[tuple[Job, float]]:
    """The unfinished jobs with their core-seconds: their own by an older record, their siblings'
    mean, or as the list says.
    """
    measured = {job: seconds for job in found if (seconds := job.seconds()) is not None}
    siblings: dict[Entry, list[float]] = {}
    for job, seconds in measured.items():
        siblings.setdefault(job.entry, []).append(seconds)
    mean = {entry: statistics.fmean(values) for entry, values in siblings.items()}
    return [
        (job, measured.get(job, mean.get(job.entry, 60 * job.entry.minutes * len(job.specs))))
        for job in found
        if not job.finished()
    ]


def overview(found: Sequence[Job], lanes: int) -> Iterator[str]:
    """One line an entry, and the sum."""
    todo = left(found)
    for entry in dict.fromkeys(job.entry for job in found):
        count = sum(job.entry == entry for job in found)
        seconds = [s for job, s in todo if job.entry == entry]
        state = f"{sum(seconds) / 60:.1f} core-minutes left" if seconds else "done"
        yield f"{count - len(seconds):4} of {count:<4} {state:>24}  {entry.name}: {entry.decides}"
    yield forecast(todo, lanes)


def forecast(todo: Sequence[tuple[Job, float]], lanes: int) -> str:
    """What is left in all, and when `lanes` lanes that start now have done it."""
    if not todo:
        return "nothing is left"
    total, longest = sum(s for _, s in todo), max(s for _, s in todo)
    end = datetime.now() + timedelta(seconds=max(total / lanes, longest))
    return (
        f"{len(todo)} to do, {total / 60:.1f} core-minutes: until about {end:%a %H:%M} on "
        f"{lanes} lane{'s' * (lanes > 1)}"
    )
