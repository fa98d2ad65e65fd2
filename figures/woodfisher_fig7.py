"""WoodFisher Fig. 7: one-shot MLPNet after two epochs of training, WoodTaylor against the rest."""

import functools
import sys

from figures import style, woodfisher_cells
from figures.woodfisher_cells import Line, panel, save

LINES = {
    "woodtaylor-single": Line("WoodTaylor, 2,000 rows of 1", style.GREEN, "^"),
    "woodtaylor": Line("WoodTaylor, 1,000 rows of 8", style.GREEN, "v", "--"),
    "woodtaylor-network": Line("WoodTaylor, 1,000 rows of 8, one block", style.GREEN, "D", ":"),
    "woodfisher": Line("WoodFisher, 1,000 rows of 8", style.BLUE),
    "magnitude-global": Line("Global magnitude", style.BLACK),
    "magnitude-layer": Line("Magnitude", style.BLACK, "s", "--"),
    "diagonal-fisher-global": Line("Diagonal Fisher, global", style.ORANGE),
    "diagonal-fisher-layer": Line("Diagonal Fisher, per layer", style.ORANGE, "s", "--"),
}
table = functools.partial(woodfisher_cells.table, "figure-7", LINES)

if __name__ == "__main__":
    sys.exit(
        save(
            "fig7",
            lambda: panel("figure-7", "MLPNet, MNIST, after two epochs: one-shot", LINES),
            __doc__,
            table=table,
        )
    )
