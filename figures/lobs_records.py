"""L-OBS's committed records and the paper's values, as the figures and tables of L-OBS read them."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from matplotlib.figure import Figure

from common.errors import UserError
from common.record import Record, read_all

PAPER = Path(__file__).resolve().parents[1] / "lobs"
RESULTS = PAPER / "results"


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
        return [row for row in csv.DictReader(handle) if row["table"] == table and quantity in ("", row["quantity"])]


def save(name: str, figure: Figure, description: str, argv: list[str] | None = None) -> int:
    """Command line of a figure: write <output>/<name>.png; returns the exit status."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder (default: lobs/results)")
    folder = parser.parse_args(argv).output
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", dpi=120)
    print(folder / f"{name}.png")
    return 0
