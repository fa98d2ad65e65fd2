"""WoodFisher Figs. S12 and S13: WoodTaylor and WoodFisher on three layers of ResNet-20 as one
block, by dampening.
"""

import sys
from collections.abc import Iterator, Mapping

from matplotlib.figure import Figure

from figures import style
from figures.woodfisher_cells import Line, against_damping, save

METHODS = {
    "woodtaylor": Line("WoodTaylor, m = 1,000", style.GREEN, "^"),
    "woodfisher": Line("WoodFisher, m = 1,000", style.BLUE),
    "all-images-woodtaylor": Line("WoodTaylor, m = 50,000", style.WINE, "D"),
    "all-images-woodfisher": Line("WoodFisher, m = 50,000", style.ORANGE, "s"),
}


def lines(values: Mapping[str, float]) -> Iterator[tuple[Line, dict[float, float]]]:
    """A line a method and number of rows, of settings <method>-<damping>."""
    for method, line in METHODS.items():
        points = {
            float(name.removeprefix(f"{method}-")): accuracy
            for name, accuracy in values.items()
            if name.startswith(f"{method}-")
        }
        if points:
            yield line, points


def figure() -> Figure:
    """One panel an amount: accuracy against dampening, a line a method."""
    return against_damping("figure-S12", "Three layers (9,216 weights), b = 1", lines)


if __name__ == "__main__":
    sys.exit(save("figS12", figure, __doc__))
