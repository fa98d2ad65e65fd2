"""EigenDamage's wall-clock speed-up: every pruned network's latency against its dense parent's,
beside the ratio of operations.
"""

import sys

import matplotlib
from matplotlib.figure import Figure

from common.cells.errors import UserError
from common.cells.library import read_all
from figures import style
from figures.eigendamage_records import NETWORKS, RESULTS, save


def figure() -> Figure:
    """One panel a batch size; on the dotted diagonal a network is as much faster as it has fewer
    multiply-accumulates.
    """
    found = [r for r in read_all(RESULTS) if r.table == "latency"]
    if not found:
        raise UserError(
            "results", "latency", "no such record", "run python -m eigendamage.studies latency"
        )
    fills = dict(zip((r.cell for r in found), ("full", "none", "left", "right"), strict=False))
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(11.2, 4.4), layout="constrained")
        for ax, batch in zip(result.subplots(1, 2, sharey=True), (1, 64), strict=True):
            seen, reach = set(), [1.0]
            for record in found:
                for row in (row for row in record.trajectory if row["batch"] == batch):
                    look = style.look(row["method"])
                    ax.plot(
                        row["macs_ratio"],
                        row["speedup"],
                        look.marker,
                        color=look.colour,
                        fillstyle=fills[record.cell],
                        label=None if look.label in seen else look.label,
                        gid=row["cell"],
                    )
                    seen.add(look.label)
                    reach.append(row["macs_ratio"])
            for record in found:
                name = record.cell.removeprefix("latency-")
                ax.plot(
                    [],
                    [],
                    "o",
                    color="#444444",
                    fillstyle=fills[record.cell],
                    label=NETWORKS.get(name, name),
                )
            ax.plot(
                (1, max(reach)),
                (1, max(reach)),
                color="#444444",
                linewidth=1,
                linestyle=(0, (1, 2)),
                label="As many times faster",
            )
            ax.axhline(1, color="#BBBBBB", linewidth=1)
            ax.set(
                xscale="log",
                yscale="log",
                xlabel="Dense MACs / MACs",
                title=f"Batch of {batch}, one thread",
            )
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(
                    matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}")
                )
                axis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        result.axes[0].set_ylabel("Dense latency / latency")
        result.axes[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
        return result


if __name__ == "__main__":
    sys.exit(save("latency", figure, __doc__))
