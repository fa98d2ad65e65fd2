"""WoodFisher Fig. 3b: one-shot ResNet-20 by chunk size, down to one block over the whole network (ours)."""

import sys
from collections.abc import Iterator

from figures import style
from figures.woodfisher_cells import RESULTS, Line, panel, save, series

COLOURS = (style.GREY, style.SKY, style.GREEN, style.ORANGE, style.PINK, style.VERMILION)


def lines() -> Iterator[tuple[str, Line]]:
    """One line a chunk size, in rising order; the network's block last."""
    sizes = [name.removeprefix("chunk-") for name in series("figure-3b", RESULTS)]
    for colour, size in zip(COLOURS, sorted(sizes, key=lambda s: (s == "network", int(s) if s.isdigit() else 0)), strict=False):
        label = "One block over all layers (ours)" if size == "network" else f"Chunks of {int(size):,}"
        yield f"chunk-{size}", Line(label, colour)


if __name__ == "__main__":
    sys.exit(save("fig3b", panel("figure-3b", "ResNet-20, CIFAR-10 as JPEG: chunk size", dict(lines())), __doc__))
