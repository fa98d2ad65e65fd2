"""EigenDamage Table 1 at cpu scale: accuracy, parameters and operations removed, and measured
speed-up, ours beside the paper's.
"""

from __future__ import annotations

import statistics
import sys

import matplotlib
from matplotlib.figure import Figure

from common.cells.errors import UserError
from common.cells.library import read_all
from common.cells.record import Record
from figures import style
from figures.eigendamage_records import (
    NETWORKS,
    RESULTS,
    kept,
    lines,
    paper_values,
    records,
    save,
    series,
)
from figures.values import spread

# and what the paper calls it
SHOWN = {
    "cpu-resnet32": "ResNet32",
    "cpu-preresnet29-L1": "PreResNet29+L1",
    "cpu-vgg19-L1": "VGG19+L1",
}


def found() -> dict[str, list[Record]]:
    """Network -> finetune records, of the networks that have any."""
    result = {}
    for network in SHOWN:
        try:
            result[network] = records("finetune", ("1",), network)
        except UserError:
            continue
    if not result:
        raise UserError(
            "results",
            "1",
            "no finetune record of Table 1",
            "run python -m eigendamage.finetune --table 1 --scale cpu",
        )
    return result


def speedups() -> dict[tuple[str, int], float]:
    """(cell, batch) -> measured dense latency / latency."""
    return {
        (row["cell"], row["batch"]): row["speedup"]
        for r in read_all(RESULTS)
        if r.table == "latency"
        for row in r.trajectory
    }


def table() -> str:
    """Markdown; the paper's columns are of its own networks, four times as wide and tuned for 150
    epochs.
    """
    text = [
        "| network | units removed % | method | before tuning % | accuracy % | parameters removed "
        "% | MACs removed % | "
        "faster, batch 1, 64 | paper: accuracy % | weights removed % | FLOPs removed % |",
        "|---" * 11 + "|",
    ]
    measured = speedups()
    for network, all_records in found().items():
        text.append(
            f"| {NETWORKS[network]} | 0 | dense | | {100 * all_records[0].accuracy['dense']:.2f} "
            "| | | | "
            f"{_paper(network, 'baseline', '', 'top1_dense_pct')} | | |"
        )
        cells = [
            (ratio, name, seeds)
            for name, ratios in series(all_records).items()
            for ratio, seeds in ratios.items()
        ]
        for ratio, name, seeds in sorted(
            cells, key=lambda one: (one[0], -statistics.fmean(r.accuracy["last"] for r in one[2]))
        ):
            label, at = style.look(name).label, f"{100 * ratio:g}"
            faster = [
                f"{measured[seeds[0].cell, batch]:.2f}"
                for batch in (1, 64)
                if (seeds[0].cell, batch) in measured
            ]
            theirs = (
                _paper(network, label, at, q)
                for q in ("test_acc_pct", "weights_reduction_pct", "flops_reduction_pct")
            )
            text.append(
                f"| {NETWORKS[network]} | {at} | {label} | "
                f"{spread([100 * r.accuracy['pruned'] for r in seeds])} | "
                f"{spread([100 * r.accuracy['last'] for r in seeds])} | "
                f"{spread([100 - kept(r, 'params') for r in seeds])} | "
                f"{spread([100 - kept(r, 'macs') for r in seeds])} | {', '.join(faster)} | "
                f"{' | '.join(theirs)} |"
            )
    return "\n".join(text) + "\n"


def _paper(network: str, method: str, ratio: str, quantity: str) -> str:
    rows = paper_values(
        "Table 1",
        model=SHOWN[network],
        dataset="CIFAR-10",
        method=method,
        prune_ratio_pct=ratio,
        quantity=quantity,
    )
    return (rows[0]["value"] or "N/A") if rows else ""


def figure() -> Figure:
    """Accuracy after fine-tuning against the multiply-accumulates that are left, at 60% and 90% of
    the units; hollow: the paper's, at its own axis."""
    shown = found()
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(4.4 * len(shown) + 2.2, 4.3), layout="constrained")
        axes = result.subplots(1, len(shown), squeeze=False)[0]
        for ax, (network, all_records) in zip(axes, shown.items(), strict=True):
            data = series(all_records)
            lines(ax, data, lambda r: kept(r, "macs"), lambda r: 100 * r.accuracy["last"])
            ax.axhline(
                100 * all_records[0].accuracy["dense"],
                color="#444444",
                linewidth=1,
                linestyle=(0, (1, 2)),
                label="Dense network",
            )
            for name in data:
                look, points = style.look(name), []
                for ratio in ("60", "90"):
                    left, accuracy = (
                        _paper(network, look.label, ratio, q)
                        for q in ("flops_reduction_pct", "test_acc_pct")
                    )
                    if left and accuracy not in ("", "N/A"):
                        points.append((100 - float(left), float(accuracy)))
                if points:
                    ax.plot(
                        *zip(*points, strict=True),
                        ":",
                        color=look.colour,
                        marker=look.marker,
                        markerfacecolor="none",
                        linewidth=0.8,
                        alpha=0.7,
                    )
            ax.set(
                xscale="log",
                xlabel="MACs left [%, log scale]",
                title=NETWORKS[network],
                ylabel="Test accuracy [%]" if ax is axes[0] else "",
            )
            ax.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter(
                matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}")
            )
            ax.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
            ax.invert_xaxis()
        axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
        result.suptitle(
            "CIFAR-10 with 60% and 90% of the units removed. Filled: ours, JPEG copy, narrow "
            "networks,\n150 steps of tuning. "
            "Hollow: the paper's, four times as wide, 150 epochs",
            fontsize=9,
        )
        return result


if __name__ == "__main__":
    sys.exit(save("table1", figure, __doc__, table=table))
