"""WoodFisher Figs. 1, S2 and S3: blocks of CIFARNet's exact Hessian and empirical Fisher, on and
off the diagonal.
"""

import json
import sys

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from figures import style
from figures.script import stored
from figures.woodfisher_cells import RESULTS, save

COMMAND = "python -m woodfisher.hessian S2"
TITLES = {
    "1-1": "First layer",
    "2-2": "Second layer (Fig. 1)",
    "3-3": "Third layer (Fig. 1)",
    "1-3": "First and third (S3)",
    "2-3": "Second and third (S3)",
}


def figure() -> Figure:
    """Hessian above Fisher, one column a block; every picture on its own scale, as the paper's."""
    numbers = {
        point["block"]: point
        for point in json.loads(stored(RESULTS / "hessian_s2.json", COMMAND).read_text())
    }
    with (
        np.load(stored(RESULTS / "hessian_s2.npz", COMMAND)) as pictures,
        matplotlib.rc_context(style.RC),
    ):
        result = Figure(figsize=(14, 6.2), layout="constrained")
        for column, (block, title) in zip(
            result.subplots(2, len(TITLES)).T, TITLES.items(), strict=True
        ):
            for ax, kind in zip(column, ("hessian", "fisher"), strict=True):
                ax.imshow(
                    pictures[f"{kind}_{block}"].astype(np.float32), cmap="magma", aspect="auto"
                )
                ax.grid(False)
                ax.set_xticks([])
                ax.set_yticks([])
            column[0].set_title(f"{title}\nHessian")
            column[1].set_title(
                f"Empirical Fisher\ncosine to the Hessian {numbers[block]['cosine']:.3f}"
            )
        accuracy = next(iter(numbers.values()))["accuracy"]
        result.suptitle(
            f"CIFARNet 3072-16-64-10, {100 * accuracy:.1f}% test accuracy, 100 examples; absolute "
            "values, smoothed; the first "
            "layer's blocks are means over pairs of its units",
            fontsize=10,
        )
        return result


if __name__ == "__main__":
    sys.exit(save("figS2", figure, __doc__))
