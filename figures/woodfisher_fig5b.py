"""WoodFisher Fig. 5b: one-shot MLPNet, WoodFisher against K-FAC with and without the damping π."""

import functools
import sys

from figures import style, woodfisher_cells
from figures.woodfisher_cells import Line, panel, save

LINES = {
    "woodfisher": Line("WoodFisher", style.BLUE),
    "woodfisher-joint-update": Line("WoodFisher, joint update (ours)", style.BLUE, "D", "-."),
    "kfac-pi": Line("K-FAC, with π", style.PINK, "P"),
    "kfac": Line("K-FAC, without π", style.PINK, "v", "--"),
    "magnitude-global": Line("Global magnitude", style.BLACK),
}
table = functools.partial(woodfisher_cells.table, "figure-5b", LINES)

if __name__ == "__main__":
    title = "MLPNet, MNIST: one-shot, m = 1,000, b = 50, K-FAC from 50,000 samples"
    sys.exit(
        save(
            "fig5b", lambda: panel("figure-5b", title, LINES, log_error=True), __doc__, table=table
        )
    )
