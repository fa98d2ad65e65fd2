"""Put the records that a published table rests on to the committed ones.

    python -m common.publish runs/nap/3              into nap/results, its table's two files
    python -m common.publish runs/compare/lenet300-mnist figures/results/lenet300-mnist

Records of cells and of studies join those that their table has (common.cells.tablefile); one of an
id that is there takes its place. Networks and snapshots stay behind. Of a trajectory that makes its
record larger than MAX_BYTES every second step is kept, or every third, and a note says so. A record
whose working tree differed from its commit is refused, as nobody can find the code that made it:
--dirty is for trying.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.cells import committed, library, tablefile
from common.cells.errors import Parser, UserError
from common.cells.record import Record
from common.running.cli import guarded
from common.system.claims import alone

MAX_BYTES = 20_480
# of a record or its table: nothing that leaves the folder
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,=+-]{0,200}")


def publish(sources: Sequence[Path], target: Path | None = None, dirty: bool = False) -> int:
    """Add every record below the folders to those of `target`, by default where the committed ones
    of its paper lie, or add none; returns how many. Raises UserError for a record too large to
    commit, for one of a dirty tree (unless `dirty`), and for one whose id or table is no file's
    name."""
    found = [
        (path, Record.read(path))
        for source in sources
        for path in sorted(source.rglob("*.json"))
        if not library.other(path)
    ]
    if target is not None:
        check(target)
    if not found:
        names = ", ".join(map(str, sources))
        raise UserError("source", names, "holds no records", "name a folder below runs/")
    tables: dict[Path, list[dict]] = {}
    for path, record in found:
        table = library.shelf(record.table, record.stage)
        for field, name in (("id", record.id), ("table", table)):
            if not NAME.fullmatch(name):
                raise UserError(
                    field,
                    name,
                    f"of {path.name} is no file's name",
                    "delete the record to compute the cell again",
                )
        if not dirty and (record.provenance.get("dirty") or not record.provenance.get("git")):
            raise UserError(
                "dirty",
                str(path),
                "was made by code that is in no commit",
                "commit, run the cell again in another --output-dir, or say --dirty to try",
            )
        record.series = record.series or series(record)
        record.table = library.table_name(record.table)
        folder = place(record) if target is None else target
        tables.setdefault(folder / table, []).append(dataclasses.asdict(fitting(record, path)))
    with contextlib.ExitStack() as held:
        for folder in sorted({stem.parent for stem in tables}):
            held.enter_context(alone(folder))
        for stem in tables:
            tablefile.read(stem)  # a damaged one stops all
        for stem, records in tables.items():
            tablefile.merge(stem, records, without=replaced(stem, records))
    return len(found)


def check(target: Path) -> None:
    """Raise UserError for a folder below a paper's results, where its tables would stand twice."""
    for paper in library.PAPERS:
        folder = library.results(paper).resolve()
        if paper != "compare" and folder in target.resolve().parents:
            raise UserError(
                "target", str(target), f"lies below {paper}'s results", "leave the target out"
            )


def replaced(stem: Path, records: Sequence[dict]) -> set[str]:
    """The ids of a table's records that are done anew under another name: of the same Spec, since
    names grew longer; and studies, which have one record a cell and seed, whatever its settings."""

    def keys(record: dict) -> Iterator[tuple]:
        what = record["stage"], record["spec"].get("seed", 0)
        made = committed.spec_of(Record.from_dict(record))
        if made is not None and record["stage"] != "study":
            yield *what, made.dense_seed, committed.identity(made)
        if not record["requested"] and record["stage"] != "train":
            yield *what, record["cell"]

    new = {key for record in records for key in keys(record)}
    ids = {record["id"] for record in records}
    return {
        old["id"]
        for old in tablefile.read(stem)
        if old["id"] not in ids and not new.isdisjoint(keys(old))
    }


def place(record: Record) -> Path:
    """Where committed records of its paper lie; a comparison has a folder of its own."""
    if record.paper not in library.PAPERS:
        raise UserError("paper", record.paper, "has no results", "name the folder to fill")
    if record.paper == "compare" and record.stage == "train":
        raise UserError("target", record.id, "is of no comparison alone", "name the folder to fill")
    folder = library.results(record.paper)
    return folder / record.table if record.paper == "compare" else folder


def series(record: Record) -> str:
    """Which curve a record is a point of that was made before records said so; "" where its paper
    does not know the cell."""
    if record.paper == "compare":
        return "" if record.stage == "train" else record.method
    return _series(record.paper).get((library.table_name(record.table), record.cell), "")


@functools.cache
def _series(paper: str) -> dict[tuple[str, str], str]:
    """(table, cell) -> series, of all cells of a paper."""
    if not all(importlib.util.find_spec(name) for name in (paper, f"{paper}.experiments")):
        return {}
    module = importlib.import_module(f"{paper}.experiments")
    groups = (*module.TABLES.values(), *module.FIGURES.values())
    cells = [spec for group in groups for spec in group.values()]
    return {(library.table_name(spec.table), spec.cell): spec.series for spec in cells}


def fitting(record: Record, path: Path) -> Record:
    """The record, or one with every k-th step of its trajectory and the last, the first k that is
    small enough.
    """
    steps = record.trajectory
    for every in range(1, max(2, len(steps) // 2)):
        kept = [entry for at, entry in enumerate(steps) if at % every == 0 or at == len(steps) - 1]
        note = (
            [f"published with one in {every} of the trajectory's {len(steps)} steps, and the last"]
            if every > 1
            else []
        )
        small = dataclasses.replace(record, trajectory=kept, notes=record.notes + note)
        if len(json.dumps(dataclasses.asdict(small), indent=1).encode()) < MAX_BYTES:
            return small
    raise UserError(
        "record", str(path), f"larger than {MAX_BYTES} bytes", "keep long arrays beside the record"
    )


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    p = Parser(description=__doc__)
    p.add_argument("source", type=Path, help="a folder of runs")
    p.add_argument(
        "target", type=Path, nargs="?", help="the results folder to fill (default: the paper's)"
    )
    p.add_argument(
        "--dirty",
        action="store_true",
        help="publish records of a working tree that differs from its commit too",
    )
    arguments = p.parse_args(argv)

    def told() -> None:
        count = publish([arguments.source], arguments.target, arguments.dirty)
        print(f"{count} records in {arguments.target or 'the results of their papers'}")

    return guarded(told)


if __name__ == "__main__":
    sys.exit(main())
