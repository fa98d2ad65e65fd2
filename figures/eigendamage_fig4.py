"""EigenDamage Fig. 4: how many weights each convolution of VGG19 keeps when half of all units
go.
"""

import sys

import matplotlib
from matplotlib.figure import Figure

from figures import style
from figures.eigendamage_records import NETWORKS, records, save, series

NETWORK, RATIO = "cpu-vgg19", 0.5


def figure() -> Figure:
    """One line a method, the legend in the order of accuracy right after pruning."""
    found = {
        name: ratios[RATIO][0]
        for name, ratios in series(records("prune", ("figure 6",), NETWORK)).items()
        if RATIO in ratios
    }
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(9.4, 4.2), layout="constrained")
        ax = result.subplots()
        for name, record in sorted(found.items(), key=lambda item: -item[1].accuracy["pruned"]):
            look = style.look(name)
            layers = [layer for layer in record.layers if "conv" in layer["name"]]
            names = [layer["name"].removeprefix("features.conv") for layer in layers]
            ax.plot(
                names,
                [100 * layer["kept"] / layer["total"] for layer in layers],
                look.line,
                color=look.colour,
                marker=look.marker,
                label=f"{look.label}, {100 * record.accuracy['pruned']:.1f}%",
                gid=name,
            )
        ax.set(
            xlabel="Convolution, stage_number",
            ylabel="Weights left, bases included [%]",
            title=f"{NETWORKS[NETWORK]}, CIFAR-10 (JPEG), {100 * RATIO:g}% of the units removed",
        )
        ax.legend(
            title="Method, test accuracy before tuning",
            loc="center left",
            bbox_to_anchor=(1.02, 0.5),
        )
        return result


if __name__ == "__main__":
    sys.exit(save("fig4", figure, __doc__))
