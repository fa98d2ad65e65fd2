"""Why WoodFisher stays at magnitude on LeNet-300-100 (not in the paper): what its 1,000 gradients
are, and what it then chooses.
"""

import statistics
import sys
from collections import defaultdict

import matplotlib
from matplotlib.figure import Figure

from common.cells.record import Record
from figures import style
from figures.values import spread
from figures.woodfisher_cells import save, study

STUDY, FULL_RANK = "gradients", 500
AMOUNTS = (0.9, 0.95)
MARKERS = "o*^vsDPX<>h"


def rows(records: list[Record], chunk: object = FULL_RANK) -> dict[str, dict[float, list[dict]]]:
    """What the rows are -> amount -> entries over the seeds."""
    found: dict[str, dict[float, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for entry in record.trajectory:
            if entry["chunk"] == chunk:
                found[entry["rows"]][entry["amount"]].append(entry)
    return found


def figure() -> Figure:
    """Weights shared with magnitude, and accuracy above magnitude's, against how many rows carry
    the Fisher; a point a setting.
    """
    amount, found = AMOUNTS[-1], rows(study(STUDY))
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(10.4, 4.0), layout="constrained")
        left, right = result.subplots(1, 2)
        for (what, by_amount), marker in zip(found.items(), MARKERS, strict=False):
            entries, colour = (
                by_amount[amount],
                style.ORANGE if what.startswith("after") else style.BLUE,
            )
            x = statistics.geometric_mean(e["effective_rows"] for e in entries)
            for ax, values in (
                (left, [100 * e["overlap"] for e in entries]),
                (right, [100 * (e["accuracy"] - e["magnitude"]) for e in entries]),
            ):
                ax.vlines(x, min(values), max(values), color=colour, linewidth=1)
                ax.plot(
                    x,
                    statistics.fmean(values),
                    marker,
                    color=colour,
                    markersize=7,
                    gid=what,
                    label=what,
                    linestyle="none",
                )
        for ax in (left, right):
            ax.set(xscale="log", xlabel="Effective rows of 1,000, (Σ|g|²)² / Σ|g|⁴")
        left.set(ylabel="Kept by both [% of kept by either]", ylim=(0, 105))
        right.set(ylabel="Accuracy above global magnitude's [points]")
        right.axhline(0, color="#444444", linewidth=1, linestyle=(0, (1, 2)))
        right.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
        result.suptitle(
            "LeNet-300-100 at 95% removed, blocks of 500 weights; orange: networks in the course "
            "of training",
            fontsize=10.5,
        )
        return result


def table() -> str:
    """Markdown: a line for each kind of rows, mean and deviation over the seeds."""
    heads = [
        f"{100 * a:g}%: kept by both, % | WoodFisher, % | its choice alone, % | global magnitude, %"
        for a in AMOUNTS
    ]
    text = [
        "| rows | effective rows of 1,000 | " + " | ".join(heads) + " |",
        "|---" * (2 + 4 * len(AMOUNTS)) + "|",
    ]
    for what, by_amount in rows(study(STUDY)).items():
        many = statistics.geometric_mean(e["effective_rows"] for e in by_amount[AMOUNTS[0]])
        cells = [f"{many:,.1f}" if many < 100 else f"{many:,.0f}"]
        for amount in AMOUNTS:
            cells += [
                spread([100 * e[key] for e in by_amount[amount]])
                for key in ("overlap", "accuracy", "choice", "magnitude")
            ]
        text.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    sys.exit(save("gradients", figure, __doc__, table=table))
