"""WoodFisher's committed cells as series, and the one panel and table most of its figures are:
accuracy against sparsity.

A cell is called <series>-<amount>-seed<k>; its record has the accuracies. Lines join means over
seeds, bands span the seeds.
"""

from __future__ import annotations

import functools
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.cells.errors import UserError
from common.cells.library import read_all, records
from common.cells.record import Record
from figures import script
from figures.panels import accuracy_axis
from figures.style import RC
from figures.values import spread

RESULTS = Path(__file__).resolve().parents[1] / "woodfisher" / "results"
save = functools.partial(script.save, RESULTS)
NAMES = {
    "digits_cnn": "Small CNN, digits",
    "lenet300": "LeNet-300-100, MNIST",
    "lenet5": "LeNet-5, MNIST",
    "resnet20": "ResNet-20, CIFAR-10 as JPEG",
    "resnet50": "ResNet-50",
    "mobilenet_v1": "MobileNetV1",
}


@dataclass(frozen=True)
class Line:
    """How a series is drawn and called."""

    label: str
    colour: str
    marker: str = "o"
    style: str = "-"


def series(folder: str, results: Path = RESULTS) -> dict[str, dict[float, list[Record]]]:
    """Series name -> requested sparsity -> the prune records of its seeds, of results/<folder>; one
    dense network or UserError.
    """
    found: dict[str, dict[float, list[Record]]] = defaultdict(lambda: defaultdict(list))
    hashes = set()
    for record in read_all(results):
        if record.table == folder and record.stage == "prune":
            found[record.cell.rsplit("-", 2)[0]][float(record.requested["sparsity"])].append(record)
            hashes.add(record.dense_hash)
    if not found:
        raise UserError(
            "results",
            folder,
            "holds no prune record",
            f"run python -m woodfisher.prune --{folder.replace('-', ' ')}",
        )
    if len(hashes) > 1:
        raise UserError(
            "results",
            folder,
            "its records start from different dense networks",
            "run the cells again from one",
        )
    return found


def there(table: str) -> bool:
    """Whether anything of the table is committed."""
    return bool(records("woodfisher", table))


def study(name: str, results: Path = RESULTS) -> list[Record]:
    """The committed records of a study of woodfisher/studies, one a network and seed; UserError
    says how to make them.
    """
    found = [
        record for record in read_all(results) if record.stage == "study" and record.table == name
    ]
    if not found:
        raise UserError(
            "results",
            name,
            "holds no record of this study",
            f"run python -m woodfisher.studies {name}",
        )
    return found


def draw(
    ax: Axes, found: Mapping[str, Mapping[float, list[Record]]], lines: Mapping[str, Line]
) -> None:
    """Test accuracy right after pruning, percent, for the series in `lines` that exist, and the
    dense network's.
    """
    for name, line in lines.items():
        if name not in found:
            continue
        amounts = sorted(found[name])
        values = [
            [100 * record.accuracy["pruned"] for record in found[name][amount]]
            for amount in amounts
        ]
        across = [100 * amount for amount in amounts]
        ax.plot(
            across,
            [statistics.fmean(v) for v in values],
            line.style,
            color=line.colour,
            marker=line.marker,
            label=line.label,
            gid=name,
        )
        if any(len(v) > 1 for v in values):
            ax.fill_between(
                across,
                [min(v) for v in values],
                [max(v) for v in values],
                color=line.colour,
                alpha=0.13,
                linewidth=0,
            )
    dense = next(
        record for amounts in found.values() for records in amounts.values() for record in records
    ).accuracy["dense"]
    ax.axhline(
        100 * dense,
        color="#444444",
        linewidth=1,
        linestyle=(0, (1, 2)),
        label=f"Dense network, {100 * dense:.2f}%",
    )
    ax.set(xlabel="Weights removed [% of the prunable]", ylabel="Test accuracy [%]")


def panel(
    folder: str,
    title: str,
    lines: Mapping[str, Line],
    log_error: bool = False,
    results: Path = RESULTS,
) -> Figure:
    """A figure of one panel, the legend beside it; log_error: an accuracy axis that is logarithmic
    in the error.
    """
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(8.2, 4.2), layout="constrained")
        ax = figure.subplots()
        draw(ax, series(folder, results), lines)
        ax.set_title(title)
        if log_error:
            accuracy_axis(ax)
        ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), handlelength=2.6)
        return figure


def table(folder: str, lines: Mapping[str, Line]) -> str:
    """Markdown of what `panel` draws, with the number of seeds where all amounts of a series have
    as many.
    """
    found = series(folder, RESULTS)
    amounts = sorted({amount for name in lines if name in found for amount in found[name]})
    text = [
        "| removed | " + " | ".join(f"{100 * amount:g}%" for amount in amounts) + " |",
        "|---" * (1 + len(amounts)) + "|",
    ]
    for name, line in lines.items():
        cells = [
            spread(
                [100 * record.accuracy["pruned"] for record in found.get(name, {}).get(amount, [])]
            )
            for amount in amounts
        ]
        if any(cells):
            text.append(f"| {line.label} | " + " | ".join(cells) + " |")
    return "\n".join(text) + "\n"


def by_setting(
    folder: str, results: Path = RESULTS
) -> tuple[list[str], dict[float, dict[str, float]]]:
    """(series names, amount -> series name -> mean test accuracy right after pruning, percent) of
    an ablation's folder.
    """
    found = series(folder, results)
    amounts = sorted({amount for records in found.values() for amount in records})
    return list(found), {
        amount: {
            name: statistics.fmean(100 * record.accuracy["pruned"] for record in records[amount])
            for name, records in found.items()
            if amount in records
        }
        for amount in amounts
    }


def against_damping(
    folder: str,
    title: str,
    lines_of: Callable[[Mapping[str, float]], Iterable[tuple[Line, Mapping[float, float]]]],
) -> Figure:
    """One panel an amount of results/<folder>, test accuracy in percent against dampening; the
    amount is added to `title`. lines_of: from accuracies by setting, what to draw: a line, and its
    accuracy at each dampening."""
    amounts = by_setting(folder, RESULTS)[1]
    dense = next(iter(next(iter(series(folder).values())).values()))[0].accuracy["dense"]
    with matplotlib.rc_context(RC):
        result = Figure(figsize=(5.2 * len(amounts), 3.8), layout="constrained")
        for ax, (amount, values) in zip(
            result.subplots(1, len(amounts), squeeze=False)[0], amounts.items(), strict=True
        ):
            for line, points in lines_of(values):
                across = sorted(points)
                ax.plot(
                    across,
                    [points[damping] for damping in across],
                    color=line.colour,
                    marker=line.marker,
                    label=line.label,
                )
            ax.axhline(
                100 * dense,
                color="#444444",
                linewidth=1,
                linestyle=(0, (1, 2)),
                label=f"Dense network, {100 * dense:.2f}%",
            )
            ax.set(
                xscale="log",
                title=f"{title}, {100 * amount:g}% removed",
                xlabel="Dampening λ",
                ylabel="Test accuracy [%]",
            )
        ax.legend(frameon=True, framealpha=0.85, edgecolor="none")
        return result
