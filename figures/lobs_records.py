"""L-OBS's committed records and the paper's values, as the figures and tables of L-OBS read
them.
"""

from __future__ import annotations

import csv
import functools
from pathlib import Path

from common.cells.errors import UserError
from common.cells.library import read_all
from common.cells.record import Record
from figures import script

PAPER = Path(__file__).resolve().parents[1] / "lobs"
RESULTS = PAPER / "results"
save = functools.partial(script.save, RESULTS)


def records(stage: str = "", cell: str = "", results: Path = RESULTS) -> list[Record]:
    """The records of a stage whose cell's name contains `cell`."""
    return [r for r in read_all(results) if stage in ("", r.stage) and cell in r.cell]


def study(cell: str, results: Path = RESULTS) -> Record:
    """The record of one study; UserError says how to make it."""
    found = records(cell=cell, results=results)
    if not found:
        raise UserError("results", cell, "no such record", "run python -m lobs.studies")
    return found[0]


def paper_values(table: str, quantity: str = "") -> list[dict[str, str]]:
    """Rows of paper_values.csv."""
    with (PAPER / "paper_values.csv").open(encoding="utf-8") as handle:
        return [
            row
            for row in csv.DictReader(handle)
            if row["table"] == table and quantity in ("", row["quantity"])
        ]
