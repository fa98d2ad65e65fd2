"""WoodFisher Fig. 3a: one-shot ResNet-20, WoodFisher against magnitude and the diagonal Fisher."""

import functools
import sys

from figures import style, woodfisher_cells
from figures.woodfisher_cells import Line, panel, save

LINES = {
    "woodfisher": Line("WoodFisher, joint", style.BLUE),
    "woodfisher-joint-update": Line("WoodFisher, joint update (ours)", style.BLUE, "D", "-."),
    "woodfisher-no-update": Line("WoodFisher's choice, no update (ours)", style.BLUE, "x", ":"),
    "woodfisher-layer": Line("WoodFisher, independent", style.BLUE, "s", "--"),
    "magnitude-global": Line("Global magnitude", style.BLACK),
    "magnitude-layer": Line("Magnitude", style.BLACK, "s", "--"),
    "diagonal-fisher-16000": Line("Diagonal Fisher, 16,000 images", style.ORANGE, "s", "--"),
    "diagonal-fisher": Line("Diagonal Fisher, 2,000 images", style.ORANGE, "x", ":"),
}
table = functools.partial(woodfisher_cells.table, "figure-3a", LINES)

if __name__ == "__main__":
    title = "ResNet-20, CIFAR-10 as JPEG: one-shot, m = 1,000, b = 1"
    sys.exit(save("fig3a", lambda: panel("figure-3a", title, LINES), __doc__, table=table))
