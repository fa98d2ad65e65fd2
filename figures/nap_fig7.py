"""NAP Fig. 7: in how many of the runs of Table 5, at five settings of (p, T), each channel of
VGG-16 survives.
"""

from __future__ import annotations

import sys

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from figures import style
from figures.nap_records import save, study


def figure() -> Figure:
    """One row a layer, channels by how often they survive; white where a layer has no more."""
    rows = [row for row in study("survivors").trajectory if row["name"].startswith("features")]
    width = max(len(row["survives"]) for row in rows)
    shown = np.full((len(rows), width), np.nan)
    for place, row in enumerate(rows):
        shown[place, : len(row["survives"])] = np.array(row["survives"]) / row["runs"]
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(9, 4), layout="constrained")
        ax = result.subplots()
        picture = ax.imshow(
            shown, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest"
        )
        ax.set_facecolor("#eeeeee")
        ax.grid(visible=False)
        ax.set_yticks(range(len(rows)), [row["name"].rpartition(".")[2] for row in rows])
        ax.set(
            xlabel="Channel",
            title=f"VGG-16 at a quarter width: share of {rows[0]['runs']} runs in which a channel "
            "survives",
        )
        result.colorbar(picture, ax=ax, label="Share of runs")
        return result


if __name__ == "__main__":
    sys.exit(save("fig7", figure, __doc__))
