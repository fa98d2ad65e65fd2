"""NAP Figs. 5 and 6: accuracy of CIFAR-Net against sparsity, for several pruning fractions p and
several fine-tuning steps T.
"""

from __future__ import annotations

import sys

import matplotlib
from matplotlib.figure import Figure

from common.cells.record import Record
from figures import style
from figures.nap_records import EVERY_STEP, records, save

PANELS = {
    "figure-5": "Pruning fraction p, T = 0.3 epochs",
    "figure-6": "Steps T between prunings, p = 50%",
}
COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.VERMILION, style.PINK)


def named(setting: str) -> str:
    """p0.2 as "p = 20%", T10 as "T = 10 steps"."""
    return f"p = {100 * float(setting[1:]):g}%" if setting[0] == "p" else f"T = {setting[1:]} steps"


def setting_of(record: Record) -> str:
    """p0.2 of cifarnet-p0.2 and of cifarnet-p0.2-every-step."""
    return record.cell.removesuffix(EVERY_STEP).rpartition("-")[2]


def figure() -> Figure:
    """One line a setting: the network after each step's fine-tuning."""
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(10, 4), layout="constrained")
        for ax, (table, title) in zip(
            result.subplots(1, 2, sharey=True), PANELS.items(), strict=True
        ):
            found = records(table, "prune")
            settings = sorted({setting_of(r) for r in found}, key=lambda s: float(s[1:]))
            for record in sorted(found, key=lambda r: (settings.index(setting_of(r)), r.cell)):
                points = [
                    (100 * e["amount"], 100 * e["tuned"]) for e in record.trajectory if "tuned" in e
                ]
                stepwise = record.cell.endswith(EVERY_STEP)
                label = named(setting_of(record)) + (
                    ", statistics at every step" if stepwise else ""
                )
                ax.plot(
                    *zip(*points, strict=True),
                    "-" if stepwise else "--",
                    marker="o" if stepwise else "s",
                    markersize=4,
                    color=COLOURS[settings.index(setting_of(record))],
                    label=label,
                )
            ax.axhline(
                100 * found[0].accuracy["dense"],
                color="#444444",
                linewidth=1,
                linestyle=(0, (1, 2)),
            )
            ax.set(
                xlabel="Sparsity [% of weights removed]",
                ylabel="Test accuracy [%]" if table == "figure-5" else "",
                title=title,
            )
            ax.legend(
                fontsize=7.5,
                title="dotted: dense\ndashed: statistics every 16 steps",
                title_fontsize=7.5,
            )
        return result


if __name__ == "__main__":
    sys.exit(save("fig5", figure, __doc__))
