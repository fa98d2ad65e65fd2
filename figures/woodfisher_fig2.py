"""WoodFisher Fig. 2: training loss along three layers' pruning directions, measured and by the
local quadratic model.
"""

import json
import sys

import matplotlib
from matplotlib.figure import Figure

from figures import style
from figures.script import stored
from figures.woodfisher_cells import RESULTS, save


def figure() -> Figure:
    """One panel a layer."""
    lines = json.loads(
        stored(RESULTS / "local_quadratic.json", "python -m woodfisher.local_quadratic").read_text()
    )["lines"]
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(11, 3.4), layout="constrained")
        for ax, (layer, points) in zip(
            result.subplots(1, len(lines), squeeze=False)[0], lines.items(), strict=True
        ):
            t = [point["t"] for point in points]
            ax.plot(
                t,
                [point["measured"] for point in points],
                color=style.BLUE,
                marker="o",
                label="Training loss",
            )
            ax.plot(
                t,
                [point["predicted"] for point in points],
                color=style.ORANGE,
                marker="s",
                label="Local quadratic model",
            )
            ax.set(
                title=f"{layer} to 50%",
                xlabel="t along the pruning direction (1 is pruned)",
                ylabel="Training loss [nats]",
            )
        ax.legend()
        return result


if __name__ == "__main__":
    sys.exit(save("fig2", figure, __doc__))
