"""NAP's committed records and the paper's values, as the figures and tables of NAP read them."""

from __future__ import annotations

import functools
import re
import statistics
from pathlib import Path

from common.cells.errors import UserError
from common.cells.library import read_all, table_name
from common.cells.record import Record
from figures import script, values

PAPER = Path(__file__).resolve().parents[1] / "nap"
RESULTS = PAPER / "results"
# cells whose statistics move at every step, as in Algorithm 1, beside others that say how often
EVERY_STEP = "-every-step"
save = functools.partial(script.save, RESULTS)


def records(
    table: str = "", stage: str = "", cell: str = "", results: Path = RESULTS
) -> list[Record]:
    """The records of a table and stage whose cell's name contains `cell`. UserError says how to
    make what is missing.
    """
    found = [
        r
        for r in read_all(results)
        if table_name(table) in ("", r.table) and stage in ("", r.stage) and cell in r.cell
    ]
    if not found:
        raise UserError(
            "results",
            f"{table} {cell}".strip() or stage,
            "no such record",
            f"run python -m nap.finetune --table {table or '3'}",
        )
    return found


def study(name: str, results: Path = RESULTS) -> Record:
    """The record of one study."""
    found = [r for r in read_all(results) if r.table == "studies" and r.cell == name]
    if not found:
        raise UserError(
            "results",
            name,
            "no such record",
            f"run python -m nap.studies {name.rpartition('-')[2]}",
        )
    return found[0]


def paper(table: str, **wanted: str) -> list[values.Value]:
    """Lines of paper_values.csv."""
    return [
        v
        for v in values.read("nap")
        if v.table == table
        and all(
            dict(v.setting).get(key, getattr(v, key, "")) == value for key, value in wanted.items()
        )
    ]


def by_cell(found: list[Record]) -> dict[str, list[Record]]:
    """Records by cell, its seeds together."""
    groups: dict[str, list[Record]] = {}
    for record in sorted(found, key=lambda r: r.cell):
        groups.setdefault(re.sub(r"-seed\d+$", "", record.cell), []).append(record)
    return groups


def compression(record: Record) -> float:
    """Dense weights over kept ones."""
    return record.achieved["dense_params"] / record.achieved["kept_params"]


def added(record: Record, which: str = "last") -> float:
    """Percentage points of test error above the dense network's."""
    return 100 * (record.accuracy["dense"] - record.accuracy[which])


# cell -> the dense network given as much training on the same images (nap/experiments.py:
# dense_tuned)
CONTROLS = {
    "lenet300-77x-nap": "lenet300-dense-tuned",
    "lenet300-77x-magnitude": "lenet300-dense-tuned",
    "lenet300-77x-nap-sgd-shift": "lenet300-dense-tuned-sgd-shift",
    "lenet300-77x-magnitude-sgd-shift": "lenet300-dense-tuned-sgd-shift",
    "lenet300-90x-nap-sgd-shift": "lenet300-dense-tuned-sgd-shift",
    "lenet300-100x-nap-sgd-shift": "lenet300-dense-tuned-sgd-shift",
    "lenet300-77x-nap-shift": "lenet300-dense-tuned-shift",
    "lenet300-77x-magnitude-shift": "lenet300-dense-tuned-shift",
    "lenet5-200x-nap": "lenet5-dense-tuned",
    "lenet5-200x-magnitude": "lenet5-dense-tuned",
    "lenet5-200x-nap-slow": "lenet5-dense-tuned-slow",
    "cifarnet-15.6x-nap": "cifarnet-dense-tuned",
    "cifarnet-15.6x-magnitude": "cifarnet-dense-tuned",
    "vgg16-5.4x-nap": "vgg16-dense-tuned",
    "vgg16-4x-nap": "vgg16-dense-tuned",
    "vgg16-2x-nap": "vgg16-dense-tuned",
    "vgg16-5.4x-nap-long": "vgg16-dense-tuned-long",
    "resnet20-2x-nap-long": "resnet20-dense-tuned-long",
    **{
        f"vgg16-p{p}-T{t}": "vgg16-dense-tuned"
        for p, t in (("0.5", "0.1"), ("1", "0.2"), ("2", "0.4"), ("5", "1"), ("10", "2"))
    },
}


def against_control(cell: str, seeds: list[Record], found: list[Record]) -> tuple[str, str]:
    """(test error in percent of the dense network that got the same extra training, points of error
    above it) of a cell's seeds; ("not run", "") where that network is missing, ("", "") for the
    dense networks themselves and for cells without one."""
    if cell not in CONTROLS:
        return "", ""
    dense = [100 * (1 - r.accuracy["last"]) for r in by_cell(found).get(CONTROLS[cell], [])]
    if not dense:
        return "not run", ""
    return mean(dense), mean(
        [100 * (1 - r.accuracy["last"]) - statistics.fmean(dense) for r in seeds]
    )


def mean(numbers: list[float], digits: int = 2) -> str:
    """Mean, with the range over several."""
    text = f"{statistics.fmean(numbers):.{digits}f}"
    return text + (
        f" ({min(numbers):.{digits}f} to {max(numbers):.{digits}f})" if len(numbers) > 1 else ""
    )
