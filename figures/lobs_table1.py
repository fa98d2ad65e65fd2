"""L-OBS Table 1 and its picture: error after pruning and after light retraining, ours beside the
paper's, against iterations.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict

import matplotlib
import matplotlib.ticker
from matplotlib.figure import Figure

from common.cells.errors import UserError
from common.cells.record import Record
from figures import style
from figures.cells import iterations
from figures.lobs_records import paper_values, records, save

NETWORKS = {"lenet300": "LeNet-300-100", "lenet5": "LeNet-5", "cifarnet": "CIFAR-Net"}
SERIES = {
    "l-obs-iterative": ("L-OBS, ours, iterative, shifted images", style.VERMILION, "*"),
    "l-obs-iterative-plain": ("L-OBS, ours, iterative", style.PINK, "*"),
    "lwc-iterative": ("LWC, iterative, shifted images", style.GREY, "s"),
    "lwc-iterative-plain": ("LWC, iterative", style.GREY, "D"),
    "l-obs-ours": ("L-OBS, ours", style.BLUE, "o"),
    "l-obs-joint": ("L-OBS, joint optimum", style.GREEN, "D"),
    "l-obs": ("L-OBS, the paper's walk", style.GREEN, "^"),
    "lwc": ("LWC (magnitude)", style.BLACK, "s"),
    "obd": ("OBD (diagonal Fisher)", style.ORANGE, "v"),
    "l-obs-two-protocol": ("L-OBS, two prunings, the paper's protocol", style.VERMILION, "^"),
    "lwc-two-protocol": ("LWC, two prunings, the same protocol", style.BLACK, "D"),
    "l-obs-protocol": ("L-OBS, the paper's protocol", style.GREEN, "v"),
    "lwc-protocol": ("LWC, the same protocol", style.GREY, "o"),
    "obd-protocol": ("OBD, the same protocol", style.ORANGE, "o"),
    "l-obs-all-images": ("L-OBS, all images", style.GREEN, "o"),
    "dense-protocol": ("Dense, 510 or 740 iterations more", style.WINE, "s"),
    "dense-two-protocol": ("Dense, the two prunings' iterations more", style.WINE, "D"),
    "dense-iterative": ("Dense, ten prunings' iterations more, shifted images", style.WINE, "*"),
    "dense-iterative-plain": ("Dense, ten prunings' iterations more", style.WINE, "o"),
    "dense-510": ("Dense, 510 iterations more", style.WINE, "^"),
    "dense-740": ("Dense, 740 iterations more", style.WINE, "^"),
    "dense-841": ("Dense, 841 iterations more", style.WINE, "v"),
    "dense": ("Dense, retrained", style.WINE, "^"),
    "dns": ("DNS", style.SKY, ">"),
    "random": ("Random", style.GREY, "x"),
}


def series_of(cell: str) -> str:
    """The method in a cell's name, <network>-<kept>-<method>[-seed<k>]."""
    return cell.split("-", 2)[2].rsplit("-seed", 1)[0]


def grouped() -> dict[tuple[str, str, float], dict[str, list[Record]]]:
    """(network, method, kept percent) -> stage -> records of its seeds."""
    found: dict = defaultdict(lambda: defaultdict(list))
    for record in records():
        network = record.cell.split("-")[0]
        if record.table == "table-1" and network in NETWORKS:
            kept = round(100 * (1 - record.achieved["sparsity"]), 2)
            found[network, series_of(record.cell), kept][record.stage].append(record)
    return found


def percent(values: list[float]) -> str:
    """Mean error in percent, with the range over several seeds."""
    errors = [100 * (1 - v) for v in values]
    spread = f" ({min(errors):.2f} to {max(errors):.2f})" if len(errors) > 1 else ""
    return f"{statistics.fmean(errors):.2f}{spread}"


def table() -> str:
    """Markdown: ours, then the paper's rows."""
    lines = [
        "| network | method | kept % | dense error % | after pruning % "
        "| retrained % | iterations |",
        "|---|---|---|---|---|---|---|",
    ]
    ordered = sorted(
        grouped().items(),
        key=lambda item: (
            list(NETWORKS).index(item[0][0]),
            list(SERIES).index(item[0][1]),
            item[0][2],
        ),
    )
    for (network, method, kept), stages in ordered:
        first, tuned = stages["prune"], stages["finetune"]
        lines.append(
            f"| {NETWORKS[network]} | {SERIES[method][0]} | {kept:g} | "
            f"{percent([first[0].accuracy['dense']])} | "
            f"{percent([r.accuracy['pruned'] for r in first])} | "
            + (
                f"{percent([r.accuracy['last'] for r in tuned])} | {iterations(tuned[0])} |"
                if tuned
                else " | |"
            )
        )
    rows: dict = defaultdict(dict)
    for row in paper_values("Table 1"):
        if row["model"] in NETWORKS.values():
            rows[row["model"], row["method"], row["kept_pct"]][row["quantity"]] = row["value"]
    for (network, method, kept), values in rows.items():
        lines.append(
            f"| {network} | paper: {method} | {kept} | {values['orig_err_top1_pct']} | "
            f"{values.get('err_after_pruning_top1_pct', '-')} | "
            f"{values['retrained_err_top1_pct']} | "
            f"{values['retrain_iterations']} |"
        )
    return "\n".join(lines) + "\n"


def figure() -> Figure:
    """Error against retraining iterations, one panel a network; the paper's end points are
    hollow.
    """
    with matplotlib.rc_context(style.RC):
        found = grouped()
        shown = [network for network in NETWORKS if any(key[0] == network for key in found)]
        if not shown:
            raise UserError(
                "results", "table 1", "no such record", "run python -m lobs.finetune --table 1"
            )
        result = Figure(figsize=(5 * len(shown), 5.2), layout="constrained")
        axes = result.subplots(1, len(shown), squeeze=False)[0]
        for ax, network in zip(axes, shown, strict=True):
            for (name, method, kept), stages in sorted(
                found.items(), key=lambda item: list(SERIES).index(item[0][1])
            ):
                if name != network or not stages["finetune"]:
                    continue
                label, colour, marker = SERIES[method]
                record = stages["finetune"][0]
                start = iterations(record) - record.trajectory[-1]["steps"]
                steps = [start + max(point["steps"], 1) for point in record.trajectory]
                ax.plot(
                    steps,
                    [100 * (1 - point["accuracy"]) for point in record.trajectory],
                    color=colour,
                    marker=marker,
                    markersize=4,
                    label=f"{label}, {kept:g}%",
                )
            for row in paper_values("Table 1", "retrain_iterations"):
                if row["model"] == NETWORKS[network]:
                    error = next(
                        r["value"]
                        for r in paper_values("Table 1", "retrained_err_top1_pct")
                        if all(r[k] == row[k] for k in ("model", "method", "kept_pct"))
                    )
                    ax.plot(
                        float(row["value"]),
                        float(error),
                        "o",
                        markerfacecolor="none",
                        color="#555555",
                    )
                    ax.annotate(
                        f"{row['method']} {row['kept_pct']}%",
                        (float(row["value"]), float(error)),
                        fontsize=6,
                        rotation=50,
                        textcoords="offset points",
                        xytext=(1, 5),
                        color="#555555",
                    )
            ax.set(
                xscale="log",
                yscale="log",
                xlabel="Retraining iterations (first point: none)",
                title=f"{NETWORKS[network]}",
                ylabel="Test error [%]" if ax is axes[0] else "",
            )
            ax.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter(
                matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}")
            )
            ax.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, fontsize=6.5)
        result.suptitle(
            "Error against light retraining. Lines: ours, first seed; hollow: the paper's end "
            "points; percent of weights kept",
            fontsize=9,
        )
        return result


if __name__ == "__main__":
    sys.exit(save("table1", figure, __doc__, table=table))
