"""EigenDamage Fig. 8: iterative pruning, half of what is left at a time with fine-tuning between:
accuracy against what is removed.
"""

import sys

import matplotlib
from matplotlib.figure import Figure

from figures import style
from figures.eigendamage_records import NETWORKS, records, save

NETWORK = "cpu-vgg19-L1"


def figure() -> Figure:
    """One marker a step, after its fine-tuning; weights left and multiply-accumulates left, both
    logarithmic.
    """
    found = sorted(records("finetune", ("figure 8",), NETWORK), key=lambda r: style.rank(r.method))
    steps = {r.cell: r.trajectory for r in records("prune", ("figure 8",), NETWORK)}
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(10.8, 4.2), layout="constrained")
        shown = (
            ("kept_params", "dense_params", "Weights left [%]"),
            ("kept_macs", "dense_macs", "Multiply-accumulates left [%]"),
        )
        for ax, (kept, dense, label) in zip(result.subplots(1, 2, sharey=True), shown, strict=True):
            for record in found:
                look, between = style.look(record.method), steps[record.cell]
                across = [100] + [100 * step[kept] / record.achieved[dense] for step in between]
                tuned = [step["tuned"] for step in between[:-1]] + [record.accuracy["last"]]
                ax.plot(
                    across,
                    [100 * record.accuracy["dense"], *(100 * value for value in tuned)],
                    look.line,
                    color=look.colour,
                    marker=look.marker,
                    label=look.label,
                    gid=record.method,
                )
            ax.set(xscale="log", xlabel=label)
            ax.invert_xaxis()
            ax.xaxis.set_major_formatter(
                matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}")
            )
        result.axes[0].set_ylabel("Test accuracy after the step's fine-tuning [%]")
        result.axes[0].legend(loc="lower left")
        result.suptitle(
            f"{NETWORKS[NETWORK]}, CIFAR-10 (JPEG): six times half of the units, at most half of "
            "a layer",
            fontsize=10,
        )
        return result


if __name__ == "__main__":
    sys.exit(save("fig8", figure, __doc__))
