"""EigenDamage Fig. 2: the Fisher of an MLP's second layer on MNIST, in the parameters' basis and in
the Kronecker-factored eigenbasis.
"""

import sys

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from figures import style
from figures.eigendamage_records import RESULTS, save, study
from figures.script import stored

TITLES = {"parameters": "Parameters' basis", "kfe": "Kronecker-factored eigenbasis"}


def figure() -> Figure:
    """|F_ij| / √(F_ii F_jj), the largest of each 4 x 4 entries; below, how much of F is off the
    diagonal.
    """
    record = study("fisher-basis")
    path = stored(RESULTS / "fisher-basis.npz", "python -m eigendamage.studies fisher-basis")
    with np.load(path) as pictures, matplotlib.rc_context(style.RC):
        result = Figure(figsize=(9.8, 5.4), layout="constrained")
        axes = result.subplots(1, 2)
        for ax, row in zip(axes, record.trajectory, strict=True):
            image = ax.imshow(
                pictures[row["basis"]] / 255,
                cmap="magma",
                vmin=0,
                vmax=1,
                extent=(0, row["size"], row["size"], 0),
            )
            ax.grid(False)
            ax.set(
                title=f"{TITLES[row['basis']]}\n{100 * row['off_diagonal_energy']:.0f}% of ‖F‖² "
                "off the diagonal, "
                f"mean correlation {row['mean_correlation']:.3f}",
                xlabel="Weight" if row["basis"] == "parameters" else "Direction",
            )
        result.colorbar(
            image, ax=list(axes), label="Normalised magnitude, largest of 4 × 4 entries", pad=0.015
        )
        result.suptitle("Exact Fisher of MLPNet's second layer (40 → 20) on MNIST", fontsize=10)
        return result


if __name__ == "__main__":
    sys.exit(save("fig2", figure, __doc__))
