"""WoodFisher Fig. S14: WoodTaylor on MLPNet after two epochs, by dampening and number of single
gradients.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping

from matplotlib.figure import Figure

from figures import style
from figures.woodfisher_cells import Line, against_damping, save

LOOKS = ((style.ORANGE, "^"), (style.GREEN, "s"), (style.BLUE, "o"))


def lines(values: Mapping[str, float]) -> Iterator[tuple[Line, dict[float, float]]]:
    """A line a number of samples, of settings damping-<damping>-samples-<n>."""
    points: dict[int, dict[float, float]] = defaultdict(dict)
    for name, accuracy in values.items():
        damping, samples = re.fullmatch(r"damping-(.+)-samples-(\d+)", name).groups()
        points[int(samples)][float(damping)] = accuracy
    for (samples, by_damping), look in zip(sorted(points.items()), LOOKS, strict=False):
        yield Line(f"{samples:,} gradients", *look), by_damping


def figure() -> Figure:
    """One panel an amount: accuracy against dampening, a line a number of samples."""
    return against_damping("figure-S14", "WoodTaylor", lines)


if __name__ == "__main__":
    sys.exit(save("figS14", figure, __doc__))
