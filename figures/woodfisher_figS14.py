"""WoodFisher Fig. S14: WoodTaylor on MLPNet after two epochs, by dampening and number of single gradients."""

import re
import sys
from collections import defaultdict

import matplotlib
from matplotlib.figure import Figure

from figures import style
from figures.woodfisher_cells import RESULTS, by_setting, save, series

COLOURS = (style.ORANGE, style.GREEN, style.BLUE)


def figure() -> Figure:
    """One panel an amount: accuracy against dampening, a line a number of samples."""
    lines = by_setting("figure-S14", RESULTS)[1]
    dense = next(iter(next(iter(series("figure-S14").values())).values()))[0].accuracy["dense"]
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(5.2 * len(lines), 3.8), layout="constrained")
        for ax, (amount, values) in zip(result.subplots(1, len(lines), squeeze=False)[0], lines.items(), strict=True):
            points: dict[int, dict[float, float]] = defaultdict(dict)
            for name, accuracy in values.items():
                damping, samples = re.fullmatch(r"damping-(.+)-samples-(\d+)", name).groups()
                points[int(samples)][float(damping)] = accuracy
            for (samples, by_damping), colour, marker in zip(sorted(points.items()), COLOURS, "^so", strict=False):
                across = sorted(by_damping)
                ax.plot(across, [by_damping[d] for d in across], color=colour, marker=marker, label=f"{samples:,} gradients")
            ax.axhline(100 * dense, color="#444444", linewidth=1, linestyle=(0, (1, 2)), label=f"Dense network, {100 * dense:.2f}%")
            ax.set(xscale="log", title=f"WoodTaylor, {100 * amount:g}% removed", xlabel="Dampening λ", ylabel="Test accuracy [%]")
        ax.legend()
        return result


if __name__ == "__main__":
    sys.exit(save("figS14", figure, __doc__))
