"""EigenDamage Fig. 6: training loss right after one-pass pruning, before any fine-tuning, beside
the dense network's.
"""

import math
import sys

import matplotlib
from matplotlib.figure import Figure

from figures import style
from figures.eigendamage_records import NETWORKS, kept, lines, records, save, series

NETWORK = "cpu-vgg19"


def figure() -> Figure:
    """Against the ratio that was asked for, and against the multiply-accumulates that are left."""
    found = records("prune", ("figure 6",), NETWORK)
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(11.2, 4.2), layout="constrained")
        for ax, (x, label) in zip(
            result.subplots(1, 2, sharey=True),
            (
                (lambda r: 100 * r.requested["unit_ratio"], "Units removed [%]"),
                (lambda r: 100 - kept(r, "macs"), "Multiply-accumulates removed [%]"),
            ),
            strict=True,
        ):
            lines(ax, series(found), x, lambda r: r.loss["pruned"])
            ax.axhline(
                found[0].loss["dense"],
                color="#444444",
                linewidth=1,
                linestyle=(0, (1, 2)),
                label="Dense network",
            )
            ax.axhline(
                math.log(10),
                color="#999999",
                linewidth=1,
                linestyle="--",
                label="Uniform prediction, ln 10",
            )
            ax.set(xlabel=label, yscale="log")
            ax.set_yticks([0.25, 0.5, 1, 2, 3, 4, 5], ["0.25", "0.5", "1", "2", "3", "4", "5"])
            ax.minorticks_off()
        result.axes[0].set_ylabel("Training loss [nats, log scale]")
        result.axes[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
        result.suptitle(
            f"{NETWORKS[NETWORK]}, CIFAR-10 (JPEG): loss after pruning, no fine-tuning", fontsize=10
        )
        return result


if __name__ == "__main__":
    sys.exit(save("fig6", figure, __doc__))
