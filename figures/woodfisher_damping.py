"""WoodFisher and K-FAC by dampening (not in the paper): one-shot LeNet-300-100, test accuracy right
after pruning.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping

from matplotlib.figure import Figure

from figures.style import look
from figures.woodfisher_cells import Line, against_damping, by_setting, save

FOLDER, MAGNITUDE = "table-damping", "magnitude-global"
METHODS = ("woodfisher", "kfac-prune")


def points(values: Mapping[str, float]) -> dict[str, dict[float, float]]:
    """method -> dampening -> accuracy, of settings <method>-damping-<dampening>."""
    found: dict[str, dict[float, float]] = defaultdict(dict)
    for name, accuracy in values.items():
        if match := re.fullmatch(r"(.+)-damping-(.+)", name):
            found[match[1]][float(match[2])] = accuracy
    return found


def lines(values: Mapping[str, float]) -> Iterator[tuple[Line, dict[float, float]]]:
    """A line a method, and global magnitude's level."""
    found = points(values)
    for method in METHODS:
        yield Line(look(method).label, look(method).colour, look(method).marker), found[method]
    yield (
        Line(look(MAGNITUDE).label, look(MAGNITUDE).colour, ""),
        dict.fromkeys((d for at in found.values() for d in at), values[MAGNITUDE]),
    )


def figure() -> Figure:
    """One panel an amount."""
    return against_damping(FOLDER, "LeNet-300-100, m = 100, b = 10", lines)


def table() -> str:
    """Markdown: dampening across, methods down, for each amount; global magnitude knows none."""
    amounts = by_setting(FOLDER)[1]
    every = sorted({d for values in amounts.values() for at in points(values).values() for d in at})
    text = [
        "| removed | method | " + " | ".join(f"λ = {d:g}" for d in every) + " |",
        "|---" * (2 + len(every)) + "|",
    ]
    for amount, values in amounts.items():
        for line, at in lines(values):
            told = " | ".join(f"{at[d]:.2f}" if d in at else "" for d in every)
            text.append(f"| {100 * amount:g}% | {line.label} | {told} |")
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    sys.exit(save("damping", figure, __doc__, table=table))
