"""Copy the records that a published table rests on to where they are committed.

    python -m common.publish runs/compare/lenet300-mnist figures/results/lenet300-mnist

One flat folder, one file a stage, named by the record's id; networks and snapshots stay behind. Of
a trajectory that makes its record larger than MAX_BYTES every second step is kept, or every third,
and a note says so. A record whose working tree differed from its commit is refused, as nobody can
find the code that made it: --dirty is for trying.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

from common.cells.errors import Parser, UserError
from common.cells.record import Record
from common.running.cli import guarded

MAX_BYTES = 20_480
# of a record: nothing that leaves the folder
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,=+-]{0,200}")


def publish(source: Path, target: Path, dirty: bool = False) -> int:
    """Copy every record below `source`, or none; returns how many. Raises UserError for a record
    too large to commit, for one of a dirty tree (unless `dirty`), and for one whose id is no file's
    name."""
    found = [
        (path, Record.read(path))
        for stage in ("train", "prune", "finetune")
        for path in sorted(source.rglob(f"{stage}.json"))
    ]
    if not found:
        raise UserError("source", str(source), "holds no records", "name a folder below runs/")
    for path, record in found:
        if not NAME.fullmatch(record.id):
            raise UserError(
                "id",
                record.id,
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
    for record in [fitting(record, path) for path, record in found]:
        record.write(target / f"{record.id}.json")
    return len(found)


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
    p.add_argument("target", type=Path, help="the results folder to fill")
    p.add_argument(
        "--dirty",
        action="store_true",
        help="publish records of a working tree that differs from its commit too",
    )
    arguments = p.parse_args(argv)
    return guarded(
        lambda: print(
            f"{publish(arguments.source, arguments.target, arguments.dirty)} records in "
            f"{arguments.target}"
        )
    )


if __name__ == "__main__":
    sys.exit(main())
