"""L-OBS on AlexNet, VGG-16 and ResNet-50: every layer's error as Eq. 3 predicts it and as it was
carried out. Random weights.
"""

import sys

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from figures import style
from figures.lobs_records import save, study

NETWORKS = {"alexnet": "AlexNet", "vgg16": "VGG-16", "resnet50": "ResNet-50"}


def figure() -> Figure:
    """One panel a network: layer errors over the energy of the layer's output."""
    records = {name: study(f"{name}-imagenet-path") for name in NETWORKS}
    widths = [8, 9, 13]
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(13, 3.9), layout="constrained")
        for ax, (name, record) in zip(
            result.subplots(1, 3, sharey=True, width_ratios=widths), records.items(), strict=True
        ):
            rows = record.trajectory
            predicted = [row["relative"] for row in rows]
            measured = [
                row["relative"] * row["measured"] / row["predicted"] if row["predicted"] else 0.0
                for row in rows
            ]
            layers = range(1, len(rows) + 1)
            ax.plot(
                layers,
                predicted,
                "o",
                markersize=8,
                fillstyle="none",
                color=style.BLUE,
                label="Predicted, Eq. 3",
            )
            ax.plot(layers, measured, ".", color=style.VERMILION, label="Measured")
            seconds, memory = record.timing["prune_s"], record.timing["peak_rss_mb"]
            worst = max(abs(m / p - 1) for m, p in zip(measured, predicted, strict=True) if p)
            ax.set(
                yscale="log",
                xlabel="Layer",
                title=f"{NETWORKS[name]}, {100 * (1 - record.spec['sparsity']):.3g}% kept\n"
                f"{seconds:.0f} s, {memory / 1000:.1f} GB at most, worst gap {100 * worst:.2g}%",
            )
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        result.axes[0].set_ylabel("Layer error / output energy")
        result.axes[-1].legend()
        return result


if __name__ == "__main__":
    sys.exit(save("imagenet", figure, __doc__))
