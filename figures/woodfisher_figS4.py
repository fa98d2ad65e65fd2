"""WoodFisher Fig. S4: exact Hessian and empirical Fisher of MLPNet's last layer in the course of
training.
"""

import json
import sys

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from figures import style
from figures.script import stored
from figures.woodfisher_cells import RESULTS, save

COMMAND = "python -m woodfisher.hessian S4"


def figure() -> Figure:
    """Hessian above Fisher, one column a number of epochs; every picture on its own scale, as the
    paper's.
    """
    numbers = json.loads(stored(RESULTS / "hessian_s4.json", COMMAND).read_text())
    with (
        np.load(stored(RESULTS / "hessian_s4.npz", COMMAND)) as pictures,
        matplotlib.rc_context(style.RC),
    ):
        result = Figure(figsize=(3.2 * len(numbers), 6.4), layout="constrained")
        for column, point in zip(
            result.subplots(2, len(numbers), squeeze=False).T, numbers, strict=True
        ):
            for ax, name in zip(column, ("hessian", "fisher"), strict=True):
                ax.imshow(pictures[f"{name}_{point['epochs']:g}"].astype(np.float32), cmap="magma")
                ax.grid(False)
                ax.set_xticks([])
                ax.set_yticks([])
            column[0].set_title(
                f"Hessian, {point['epochs']:g} epochs\n{100 * point['accuracy']:.1f}% test accuracy"
            )
            column[1].set_title(f"Empirical Fisher\ncosine to the Hessian {point['cosine']:.3f}")
        return result


if __name__ == "__main__":
    sys.exit(save("figS4", figure, __doc__))
