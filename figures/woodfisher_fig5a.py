"""WoodFisher Fig. 5a (= S1): one-shot WoodFisher beside L-OBS, every layer pruned alike; the
paper's points on ResNet-50 beside ours.
"""

import functools
import sys

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style, woodfisher_cells
from figures.style import look
from figures.values import read
from figures.woodfisher_cells import Line, save

LINES = {
    "woodfisher-layer": Line("WoodFisher, independent", style.BLUE, "s", "--"),
    "woodfisher": Line("WoodFisher, joint", style.BLUE),
    "l-obs": Line("L-OBS", look("l-obs").colour, look("l-obs").marker),
    "l-obs-joint": Line(
        "L-OBS, joint optimum (ours)", look("l-obs-joint").colour, look("l-obs-joint").marker, "-."
    ),
    "magnitude-layer": Line("Magnitude", style.BLACK, "s", "--"),
    "magnitude-global": Line("Global magnitude", style.BLACK),
}
PRINTED = {"WoodFisher independent": "woodfisher-layer", "WoodFisher joint": "woodfisher"}
table = functools.partial(woodfisher_cells.table, "figure-5a", LINES)


def draw_printed(ax: Axes) -> None:
    """The paper's curves, top-5 accuracy of ResNet-50 on ImageNet."""
    for method, name in PRINTED.items():
        points = sorted(
            (float(dict(value.setting)["sparsity_pct"]), value.number)
            for value in read("woodfisher")
            if (value.table, value.method, value.quantity) == ("Figure 5a", method, "top5_pct")
        )
        if points:
            line = LINES[name]
            ax.plot(
                *zip(*points, strict=True),
                line.style,
                color=line.colour,
                marker=line.marker,
                label=line.label,
                gid=f"paper-{name}",
            )
    ax.set(
        title="Paper: ResNet-50, ImageNet; m = b = 400, c = 2,000",
        xlabel="Weights removed [%]",
        ylabel="Top-5 test accuracy [%]",
    )


def figure() -> Figure:
    """The paper's panel, ours, and one legend below."""
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(9.0, 4.4), layout="constrained")
        left, right = result.subplots(1, 2)
        draw_printed(left)
        woodfisher_cells.draw(right, woodfisher_cells.series("figure-5a"), LINES)
        right.set_title("Ours: ResNet-20, CIFAR-10 as JPEG; m = 1,000, b = 1")
        handles, labels = right.get_legend_handles_labels()
        result.legend(handles, labels, loc="outside lower center", ncols=3)
        return result


if __name__ == "__main__":
    sys.exit(save("fig5a", figure, __doc__, table=table))
