"""L-OBS, LeNet-300-100 at 1.5% kept: error against the retraining iterations spent, for L-OBS, LWC
and DNS, every pruning shown.
"""

from __future__ import annotations

import sys

import matplotlib
import matplotlib.ticker
from matplotlib.figure import Figure

from common.cells.record import Record
from figures import style
from figures.cells import iterations
from figures.lobs_records import paper_values, records, save, study
from figures.lobs_table1 import series_of

KEPT = 0.015
SERIES = {
    "l-obs-iterative": ("L-OBS, ours: 10 prunings, shifted images", style.VERMILION, "*"),
    "l-obs-iterative-plain": ("L-OBS, ours: 10 prunings, images as they are", style.BLUE, "o"),
    "lwc-iterative": ("LWC (magnitude): 10 prunings, shifted images", style.BLACK, "s"),
    "lwc-iterative-plain": ("LWC (magnitude): 10 prunings, images as they are", style.GREY, "s"),
}
PAPER = {
    "L-OBS (iterative)": (style.VERMILION, "*"),
    "DNS": (style.SKY, ">"),
    "LWC": (style.BLACK, "s"),
}


def course(pruning: Record, tuning: Record) -> list[tuple[int, float]]:
    """(iterations, error in percent): before and after the retraining that follows each pruning."""
    between = (iterations(tuning) - tuning.trajectory[-1]["steps"]) // (pruning.spec["steps"] - 1)
    points = []
    for entry in pruning.trajectory:
        points.append((entry["step"] * between, 100 * (1 - entry["pruned"])))
        if "tuned" in entry:
            points.append(((entry["step"] + 1) * between, 100 * (1 - entry["tuned"])))
    start = points[-1][0]
    return points + [
        (start + point["steps"], 100 * (1 - point["accuracy"])) for point in tuning.trajectory[1:]
    ]


def figure() -> Figure:
    """One panel; the first 64 iterations are linear, the rest logarithmic."""
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(8.6, 4.6), layout="constrained")
        ax = result.subplots()
        tuned = {record.cell: record for record in records("finetune", "lenet300-1.5-")}
        named = set()
        for pruning in records("prune", "lenet300-1.5-"):
            name = series_of(pruning.cell)
            if pruning.table != "table-1" or pruning.cell not in tuned or pruning.spec["steps"] < 2:
                continue
            label, colour, marker = SERIES[name]
            points = course(pruning, tuned[pruning.cell])
            ax.plot(
                *zip(*points, strict=True),
                color=colour,
                linewidth=0.9,
                alpha=0.8,
                label=label if name not in named else None,
            )
            ax.plot(*points[-1], marker, color=colour, markersize=6)
            named.add(name)
        rows = [row for row in study("lenet300-dns").trajectory if row["kept"] == KEPT]
        for i, budget in enumerate(sorted({row["steps"] for row in rows})):
            points = [(row["step"], 100 * row["error"]) for row in rows if row["steps"] == budget]
            ax.plot(
                *zip(*points, strict=True),
                color=style.SKY,
                linewidth=0.9,
                label=None if i else "DNS, as masked then",
            )
            ax.plot(*points[-1], ">", color=style.SKY, markersize=6)
        ends = {
            row["method"]: row
            for row in paper_values("Table 1", "retrain_iterations")
            if row["model"] == "LeNet-300-100"
        }
        errors = {
            (row["method"], row["kept_pct"]): row["value"]
            for row in paper_values("Table 1", "retrained_err_top1_pct")
            if row["model"] == "LeNet-300-100"
        }
        for method, (colour, marker) in PAPER.items():
            row = ends[method]
            ax.plot(
                float(row["value"]),
                float(errors[method, row["kept_pct"]]),
                marker,
                markerfacecolor="none",
                color=colour,
                markersize=8,
                linestyle="none",
                label=f"paper: {method}, {row['kept_pct']}% kept",
            )
        ax.set_xscale("symlog", linthresh=64)
        ax.set(
            yscale="log",
            xlabel="Retraining iterations so far (linear up to 64)",
            ylabel="Test error [%]",
            xlim=(0, None),
            title="LeNet-300-100 on its way to 1.5% of its weights",
        )
        ax.xaxis.set_major_locator(
            matplotlib.ticker.FixedLocator([0, 32, 64, 160, 320, 643, 4_000, 34_000, 140_000])
        )
        ax.xaxis.set_major_formatter(
            matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}")
        )
        ax.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        ax.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        ax.legend(fontsize=7.5, loc="upper right")
        return result


if __name__ == "__main__":
    sys.exit(save("iterations", figure, __doc__))
