"""L-OBS Fig. 2b: bytes that pruning the middle layer of LeNet-300-100 takes, against the number of
samples.
"""

import sys

import matplotlib
from matplotlib.figure import Figure

from figures import style
from figures.lobs_records import save, study


def figure() -> Figure:
    """One panel, both axes logarithmic."""
    rows = study("lenet300-memory").trajectory
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(6.4, 4.2), layout="constrained")
        ax = result.subplots()
        for key, label, colour, marker, line in (
            ("q_bytes", "Net-Trim: its constraint matrix Q, counted", style.WINE, "<", ":"),
            ("net_trim_bytes", "Net-Trim by ADMM, measured", style.WINE, "<", "-"),
            ("l_obs_bytes", "L-OBS, measured", style.GREEN, "^", "-"),
        ):
            points = [(row["samples"], row[key]) for row in rows if key in row]
            ax.plot(*zip(*points, strict=True), line, color=colour, marker=marker, label=label)
        ax.set(
            xscale="log",
            yscale="log",
            xlabel="Samples",
            ylabel="Peak bytes of live tensors",
            title="Memory to prune the 300 x 100 layer",
        )
        ax.legend()
        return result


if __name__ == "__main__":
    sys.exit(save("fig2b", figure, __doc__))
