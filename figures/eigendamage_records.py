"""EigenDamage's committed records, as its figures read them, and the panels that several of them
share.
"""

from __future__ import annotations

import csv
import functools
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from matplotlib.axes import Axes

from common.cells.errors import UserError
from common.cells.library import of_cell, read_all, table_name
from common.cells.record import Record
from figures import script, style

PAPER = Path(__file__).resolve().parents[1] / "eigendamage"
RESULTS = PAPER / "results"
save = functools.partial(script.save, RESULTS)
NETWORKS = {
    "cpu-resnet32": "ResNet-32",
    "cpu-preresnet29-L1": "PreResNet-29 + L1",
    "cpu-vgg19": "VGG19, quarter width",
    "cpu-vgg19-L1": "VGG19 + L1, quarter width",
    "lenet300": "LeNet-300-100",
    "lenet5": "LeNet-5",
    "lenet300-bn-L1": "LeNet-300-100, BatchNorm + L1",
    "lenet5-bn-L1": "LeNet-5, BatchNorm + L1",
}
Series = dict[str, dict[float, list[Record]]]  # series -> ratio -> records of its seeds


def records(
    stage: str, tables: Iterable[str], network: str, results: Path = RESULTS
) -> list[Record]:
    """The records of a stage in these tables whose cells are <network>-<ratio>-...; UserError where
    there is none.
    """
    tables = tuple(map(table_name, tables))
    found = [
        r
        for r in read_all(results)
        if r.stage == stage and r.table in tables and _network(r.cell) == network
    ]
    if not found:
        raise UserError(
            "results",
            network,
            f"no {stage} record in {', '.join(tables)}",
            "run python -m eigendamage.finetune",
        )
    return found


def study(cell: str, results: Path = RESULTS) -> Record:
    """The record of one study; UserError says how to make it."""
    found = of_cell(results, cell)
    if not found:
        raise UserError("results", cell, "no such record", "run python -m eigendamage.studies")
    return found[0]


def series(found: Iterable[Record]) -> Series:
    """By what a cell's name calls the series: <network>-<ratio>-<series>-seed<k>."""
    result: Series = defaultdict(lambda: defaultdict(list))
    for record in found:
        result[_rest(record.cell)][record.requested["unit_ratio"]].append(record)
    return {name: dict(sorted(result[name].items())) for name in sorted(result, key=style.rank)}


def _split(cell: str) -> tuple[str, str]:
    words = cell.rsplit("-seed", 1)[0].split("-")
    at = next(
        (i for i, word in enumerate(words) if i and word.replace(".", "", 1).isdigit()), len(words)
    )
    return "-".join(words[:at]), "-".join(words[at + 1 :])


def _network(cell: str) -> str:
    return _split(cell)[0]


def _rest(cell: str) -> str:
    return _split(cell)[1]


def kept(record: Record, what: str) -> float:
    """Percent of the parameters ("params", all of them) or multiply-accumulates ("macs") that are
    left.
    """
    of, over = (
        ("model_params", "dense_model_params") if what == "params" else ("kept_macs", "dense_macs")
    )
    return 100 * record.achieved[of] / record.achieved[over]


def mean(found: Iterable[Record], value: Callable[[Record], float]) -> float:
    return statistics.fmean(value(record) for record in found)


def lines(
    ax: Axes,
    data: Series,
    x: Callable[[Record], float],
    y: Callable[[Record], float],
    looks: dict[str, style.Look] | None = None,
) -> None:
    """One line a series through the means over seeds, in the order of the ratios; bars from the
    lowest to the highest seed.
    """
    for name, ratios in data.items():
        look = (looks or {}).get(name) or style.look(name)
        across = [mean(found, x) for found in ratios.values()]
        up = [[y(record) for record in found] for found in ratios.values()]
        middle = [statistics.fmean(values) for values in up]
        ax.plot(
            across,
            middle,
            look.line,
            color=look.colour,
            marker=look.marker,
            label=look.label,
            gid=name,
        )
        if any(len(values) > 1 for values in up):
            ax.vlines(
                across,
                [min(values) for values in up],
                [max(values) for values in up],
                color=look.colour,
                linewidth=1,
                alpha=0.6,
            )


def paper_values(table: str, **wanted: str) -> list[dict[str, str]]:
    """Rows of paper_values.csv whose columns have these values."""
    with (PAPER / "paper_values.csv").open(encoding="utf-8") as handle:
        return [
            row
            for row in csv.DictReader(handle)
            if row["table"] == table and all(row[k] == v for k, v in wanted.items())
        ]
