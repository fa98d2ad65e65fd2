"""WoodFisher Figs. S12 and S13: WoodTaylor and WoodFisher on three layers of ResNet-20 as one block, by dampening."""

import sys
from collections.abc import Iterator, Mapping

from matplotlib.figure import Figure

from figures import style
from figures.woodfisher_cells import Line, against_damping, save

METHODS = {"woodtaylor": Line("WoodTaylor", style.GREEN, "^"), "woodfisher": Line("WoodFisher", style.BLUE)}


def lines(values: Mapping[str, float]) -> Iterator[tuple[Line, dict[float, float]]]:
    """A line a method, of settings <method>-<damping>."""
    for method, line in METHODS.items():
        yield line, {float(name.split("-", 1)[1]): accuracy for name, accuracy in values.items() if name.startswith(method)}


def figure() -> Figure:
    """One panel an amount: accuracy against dampening, a line a method."""
    return against_damping("figure-S12", "Three layers (9,216 weights), m = 1,000, b = 1", lines)


if __name__ == "__main__":
    sys.exit(save("figS12", figure, __doc__))
