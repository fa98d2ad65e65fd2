"""Copy the records that a published table rests on to where they are committed.

    python -m common.publish runs/compare/lenet300-mnist figures/results/lenet300-mnist

One flat folder, one file a stage, named by the record's id; networks and snapshots stay behind.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common.cli import guarded
from common.errors import Parser, UserError
from common.record import Record

MAX_BYTES = 20_480


def publish(source: Path, target: Path) -> int:
    """Copy every record below `source`; returns how many. Raises UserError for a record too large to commit."""
    count = 0
    for stage in ("train", "prune", "finetune"):
        for path in sorted(source.rglob(f"{stage}.json")):
            record = Record.read(path)
            if path.stat().st_size > MAX_BYTES:
                raise UserError("record", str(path), f"larger than {MAX_BYTES} bytes", "keep long arrays beside the record")
            record.write(target / f"{record.id}.json")
            count += 1
    if not count:
        raise UserError("source", str(source), "holds no records", "name a folder below runs/")
    return count


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    p = Parser(description=__doc__)
    p.add_argument("source", type=Path, help="a folder of runs")
    p.add_argument("target", type=Path, help="the results folder to fill")
    arguments = p.parse_args(argv)
    return guarded(lambda: print(f"{publish(arguments.source, arguments.target)} records in {arguments.target}"))


if __name__ == "__main__":
    sys.exit(main())
