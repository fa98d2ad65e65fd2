"""L-OBS Theorem 3.2: the error that accumulates through LeNet-300-100, beside its bound, layer by
layer.
"""

import sys

import matplotlib
from matplotlib.figure import Figure

from figures import style
from figures.lobs_records import save, study

TITLES = {
    "l-obs": "The paper's walk",
    "l-obs-joint": "Joint optimum",
    "l-obs-ours": "Joint, re-scored, pruned inputs",
}


def figure() -> Figure:
    """One panel a way of pruning, keeps 6.7, 20 and 65%."""
    rows = study("lenet300-theorem").trajectory
    methods = list(dict.fromkeys(row["method"] for row in rows))
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(3.6 * len(methods) + 0.6, 3.8), layout="constrained")
        for ax, method in zip(
            result.subplots(1, len(methods), sharey=True, squeeze=False)[0], methods, strict=True
        ):
            mine = [row for row in rows if row["method"] == method]
            names = [row["name"] for row in mine]
            for key, label, colour, marker in (
                ("bound", "Bound, Eq. 8", style.VERMILION, "v"),
                ("spectral_bound", "Bound with spectral norms, ours", style.ORANGE, "D"),
                ("accumulated", "Accumulated error, measured", style.BLUE, "o"),
                ("layer_error", "Layer's own error", style.GREEN, "^"),
            ):
                ax.plot(names, [row[key] for row in mine], color=colour, marker=marker, label=label)
            ax.set(yscale="log", title=TITLES.get(method, method), xlabel="Layer")
        result.axes[0].set_ylabel("RMS distance of outputs")
        result.axes[-1].legend(fontsize=7.5)
        return result


if __name__ == "__main__":
    sys.exit(save("theorem32", figure, __doc__))
