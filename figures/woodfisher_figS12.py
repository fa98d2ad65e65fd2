"""WoodFisher Figs. S12 and S13: WoodTaylor and WoodFisher on three layers of ResNet-20 as one block, by dampening."""

import sys

import matplotlib
from matplotlib.figure import Figure

from figures import style
from figures.woodfisher_cells import RESULTS, by_setting, save, series

METHODS = {"woodtaylor": ("WoodTaylor", style.GREEN, "^"), "woodfisher": ("WoodFisher", style.VERMILION, "o")}


def figure() -> Figure:
    """One panel an amount: accuracy against dampening, a line a method."""
    lines = by_setting("figure-S12", RESULTS)[1]
    dense = next(iter(next(iter(series("figure-S12").values())).values()))[0].accuracy["dense"]
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(5.2 * len(lines), 3.8), layout="constrained")
        for ax, (amount, values) in zip(result.subplots(1, len(lines), squeeze=False)[0], lines.items(), strict=True):
            for method, (label, colour, marker) in METHODS.items():
                points = sorted((float(name.split("-", 1)[1]), accuracy) for name, accuracy in values.items() if name.startswith(method))
                ax.plot(*zip(*points, strict=True), color=colour, marker=marker, label=label)
            ax.axhline(100 * dense, color="#444444", linewidth=1, linestyle=(0, (1, 2)), label=f"Dense network, {100 * dense:.2f}%")
            ax.set(xscale="log", title=f"Three layers (9,216 weights), {100 * amount:g}% removed", xlabel="Dampening λ",
                   ylabel="Test accuracy [%]")
        ax.legend()
        return result


if __name__ == "__main__":
    sys.exit(save("figS12", figure, __doc__))
