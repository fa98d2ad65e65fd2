"""EigenDamage's predicted increase of the loss beside the measured one, a layer of VGG19 at a time:
the score, and the exact expansion.
"""

import statistics
import sys

import matplotlib
from matplotlib.figure import Figure

from figures import style
from figures.eigendamage_records import NETWORKS, save, study

FACTORS = {"channel": "A over channels (the paper's)", "patch": "A over whole patches"}
SHOWN = (
    ("Score, ½ δᵀ(S⊗A)δ", lambda row: row["score"], style.VERMILION, "v"),
    ("Exact Fisher, ½ δᵀFδ", lambda row: row["fisher"], style.SKY, "s"),
    (
        "Exact Fisher and gradient, gᵀδ + ½ δᵀFδ",
        lambda row: row["gradient"] + row["fisher"],
        style.BLUE,
        "o",
    ),
)


def table() -> str:
    """Markdown: medians over the layers of what stands between the score and the measurement."""
    text = [
        "| A | directions removed | exact Fisher / score | measured / score | (gradient + Fisher) "
        "/ measured | layers |",
        "|---" * 6 + "|",
    ]
    found = study("prediction").trajectory
    for factor in FACTORS:
        for ratio in sorted({row["ratio"] for row in found}):
            rows = [row for row in found if (row["factor"], row["ratio"]) == (factor, ratio)]
            ratios = (
                [row["fisher"] / row["score"] for row in rows],
                [row["measured"] / row["score"] for row in rows],
                [(row["gradient"] + row["fisher"]) / row["measured"] for row in rows],
            )
            text.append(
                f"| {factor} | {100 * ratio:g}% | "
                + " | ".join(_spread(values) for values in ratios)
                + f" | {len(rows)} |"
            )
    return "\n".join(text) + "\n"


def _spread(values: list[float]) -> str:
    """Median, and the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def figure() -> Figure:
    """A panel a factor; a point a layer and ratio. On the line prediction and measurement agree."""
    found = study("prediction").trajectory
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(10, 4.6), layout="constrained")
        for ax, (factor, title) in zip(
            result.subplots(1, 2, sharex=True, sharey=True), FACTORS.items(), strict=True
        ):
            rows = [row for row in found if row["factor"] == factor and row["measured"] > 0]
            for label, value, colour, marker in SHOWN:
                points = [(row["measured"], value(row)) for row in rows if value(row) > 0]
                ax.plot(*zip(*points, strict=True), marker, color=colour, label=label, alpha=0.75)
            ax.axline((1e-6, 1e-6), (1, 1), color="#444444", linewidth=1, linestyle=(0, (1, 2)))
            lost = sum(row["factor"] == factor for row in found) - len(rows)
            ax.set(
                xscale="log",
                yscale="log",
                xlabel="Measured increase of the loss [nats]",
                title=title,
            )
            ax.annotate(
                f"not shown: {lost} removals that lower the loss",
                (0.98, 0.03),
                xycoords="axes fraction",
                ha="right",
                fontsize=8,
            )
        result.axes[0].set_ylabel("Predicted increase [nats]")
        result.axes[0].legend(loc="upper left")
        result.suptitle(
            f"{NETWORKS['cpu-vgg19-L1']}, CIFAR-10 (JPEG): one layer at a time, 20% and 50% of "
            "its directions removed",
            fontsize=10,
        )
        return result


if __name__ == "__main__":
    sys.exit(save("prediction", figure, __doc__, table=table))
