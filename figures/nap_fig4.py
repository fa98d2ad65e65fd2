"""NAP Figs. 2 to 4: magnitude against importance, before pruning and after, and the weights'
distribution.
"""

from __future__ import annotations

import sys

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from figures import style
from figures.nap_records import save, study

NAME = "lenet5-importance"
COLOURS = (style.SKY, style.VERMILION, style.BLUE, style.ORANGE)
TITLES = {"early": "before pruning", "late": "after pruning and fine-tuning"}


def figure() -> Figure:
    """Top: a draw of the remaining weights; bottom: the histogram of the largest layer's."""
    rows = study(NAME).trajectory
    largest = max((row for row in rows if row["moment"] == "early"), key=lambda row: row["left"])[
        "name"
    ]
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(9, 7), layout="constrained")
        axes = result.subplots(2, 2)
        for column, moment in enumerate(TITLES):
            ax, below = axes[:, column]
            for row, colour in zip(
                [r for r in rows if r["moment"] == moment], COLOURS, strict=False
            ):
                points = np.array(
                    [
                        (m, i)
                        for m, i in zip(row["magnitude"], row["importance"], strict=True)
                        if m > 0 and i > 0
                    ]
                )
                ax.loglog(
                    *points.T,
                    ".",
                    color=colour,
                    markersize=3,
                    label=f"{row['name']}: {row['left']:,}, "
                    f"{100 * row['below_median_importance']:.0f}%, "
                    f"{100 * row['below_median_magnitude']:.0f}%",
                )
            ax.set(
                xlabel="Magnitude |w|",
                ylabel="Importance, normalised in its layer" if column == 0 else "",
                title=TITLES[moment],
            )
            ax.legend(
                fontsize=8,
                loc="upper left",
                title="Layer: weights left, below the median\nof importance, of |w|",
                title_fontsize=8,
                markerscale=3,
                alignment="left",
            )
            row = next(r for r in rows if r["moment"] == moment and r["name"] == largest)
            edges = np.linspace(-row["reach"], row["reach"], len(row["histogram"]) + 1)
            below.stairs(row["histogram"], edges, fill=True, color=style.BLUE)
            below.set(
                xlabel=f"Weight of {largest}",
                ylabel="Weights" if column == 0 else "",
                title=f"{largest}, {row['left']:,} weights",
            )
        result.suptitle("LeNet-5: what NAP calls important (the paper shows AlexNet)", fontsize=9)
        return result


if __name__ == "__main__":
    sys.exit(save("fig4", figure, __doc__))
