"""NAP Table 3 and its picture: error against compression on MNIST and CIFAR, ours beside the
paper's rows; and Table 6's layers.
"""

from __future__ import annotations

import re
import sys

import matplotlib
import matplotlib.ticker
from matplotlib.figure import Figure

from common.cells import library
from common.cells.errors import UserError
from figures import style
from figures.nap_records import (
    EVERY_STEP,
    added,
    against_control,
    by_cell,
    compression,
    mean,
    paper,
    records,
    save,
)

NETWORKS = {"lenet300": "LeNet-300-100", "lenet5": "LeNet-5", "cifarnet": "CIFAR-Net"}
# how the cells begin whose layers stand beside Table 6
PROFILED = ("lenet300-77x-nap", "lenet5-200x-nap", "cifarnet-15.6x-nap")
SIBLINGS = {
    "lobs": ("L-OBS, ours (its records)", style.GREEN, "^"),
    "woodfisher": ("WoodFisher (its records)", style.BLUE, "s"),
}


def table() -> str:
    """Markdown: ours, then the paper's rows, and the kept fraction of every layer."""
    lines = [
        "| network | method | compression | dense error % | error % | error more, points | dense, "
        "tuned alike: error % | "
        "error more than that, points | seeds |",
        "|---" * 9 + "|",
    ]
    found = [r for r in records(stage="finetune") if r.table in ("table-3", "curve", "nap-time")]
    places = list(NETWORKS)
    for cell, seeds in sorted(
        by_cell(found).items(),
        key=lambda item: (places.index(item[0].split("-")[0]), compression(item[1][0])),
    ):
        what = cell.split("-", 1)[1] + {
            "curve": ", short run",
            "nap-time": ", stopped by error",
        }.get(seeds[0].table, "")
        lines.append(
            f"| {NETWORKS[cell.split('-')[0]]} | ours: {what} | {compression(seeds[0]):.1f} | "
            f"{100 * (1 - seeds[0].accuracy['dense']):.2f} | "
            f"{mean([100 * (1 - r.accuracy['last']) for r in seeds])} | "
            f"{mean([added(r) for r in seeds])} | "
            f"{' | '.join(against_control(cell, seeds, found))} | {len(seeds)} |"
        )
    for row in paper("Table 3", quantity="delta_err_pct"):
        times = next(
            v.value for v in paper("Table 3", quantity="compression_ratio_x") if v.row == row.row
        )
        lines.append(f"| {row.model} | paper: {row.method} | {times} | | | {row.value} | | | |")
    lines += [
        "",
        "| network | layer | paper LWC % | paper DNS % | paper NAP % | ours % | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for network, name in NETWORKS.items():
        ours = [
            r
            for r in found
            if r.table == "table-3" and r.cell.startswith(network) and r.cell.startswith(PROFILED)
        ]
        for place, layer in enumerate(ours[0].layers if ours else []):
            lines_of = paper("Table 6", model=name, layer=layer["name"])
            printed = {
                m: next((v.value for v in lines_of if v.method == m), "-")
                for m in ("LWC", "DNS", "NAP")
            }
            kept = mean([100 * r.layers[place]["kept"] / r.layers[place]["total"] for r in ours])
            lines.append(
                f"| {name} | {layer['name']} | {printed['LWC']} | {printed['DNS']} | "
                f"{printed['NAP']} | {kept} | {len(ours)} |"
            )
    return "\n".join(lines) + "\n"


def siblings(network: str) -> list[tuple[str, float, float]]:
    """(paper, compression, error more) of the other papers' committed gradual or one-shot runs on
    the same network and data.
    """
    points = []
    for name in SIBLINGS:
        for r in library.records(name):
            if (
                r.stage == "finetune"
                and str(r.spec.get("model")) == network
                and str(r.spec.get("dataset")).startswith("mnist")
                and r.method.startswith(("l-obs", "woodfisher"))
                and r.achieved.get("kept_params")
            ):
                points.append((name, compression(r), added(r)))
    return points


def figure() -> Figure:
    """Added error against compression, a panel a network: ours, the siblings' records, and the
    paper's points hollow.
    """
    with matplotlib.rc_context(style.RC):
        found = [
            r
            for r in records(stage="finetune")
            if r.table in ("table-3", "curve", "nap-time") and "dense-tuned" not in r.cell
        ]
        shown = [n for n in NETWORKS if any(r.cell.startswith(n + "-") for r in found)]
        if not shown:
            raise UserError(
                "results", "table 3", "no such record", "run python -m nap.finetune --table 3"
            )
        result = Figure(figsize=(5.2 * len(shown) + 1.5, 5.2), layout="constrained")
        for ax, network in zip(
            result.subplots(1, len(shown), squeeze=False)[0], shown, strict=True
        ):
            for method in ("nap", "magnitude-global"):
                look = style.look(method)
                for source, text in (
                    ("curve", "short run"),
                    ("curve" + EVERY_STEP, "short run, statistics at every step"),
                    ("table-3", "long run"),
                    ("nap-time", "stopped by error"),
                ):
                    points = sorted(
                        (compression(r), added(r))
                        for r in found
                        if r.cell.startswith(network + "-")
                        and r.method == method
                        and r.table + EVERY_STEP * r.cell.endswith(EVERY_STEP) == source
                    )
                    if points:
                        label = look.label if method == "nap" else "Magnitude, same schedule"
                        ax.plot(
                            *zip(*points, strict=True),
                            linestyle={"curve": "-", "curve" + EVERY_STEP: ":"}.get(source, "none"),
                            color=look.colour,
                            label=f"{label}, {text}",
                            markersize=7,
                            marker={"3": "P", "nap-time": "X", "curve" + EVERY_STEP: "d"}.get(
                                source, look.marker
                            ),
                        )
            for name in SIBLINGS:
                points = [(x, y) for n, x, y in siblings(network) if n == name]
                label, colour, marker = SIBLINGS[name]
                if points:
                    ax.plot(
                        *zip(*points, strict=True),
                        linestyle="none",
                        color=colour,
                        marker=marker,
                        markersize=4,
                        label=label,
                    )
            for row in paper("Table 3", quantity="delta_err_pct", model=NETWORKS[network]):
                times = next(
                    v.number
                    for v in paper("Table 3", quantity="compression_ratio_x")
                    if v.row == row.row
                )
                ax.plot(times, row.number, "o", markerfacecolor="none", color="#555555")
                ax.annotate(
                    row.method,
                    (times, row.number),
                    fontsize=7,
                    textcoords="offset points",
                    xytext=(4, 4),
                    color="#555555",
                )
            for r in records("3", "finetune"):
                if r.cell.startswith(f"{network}-dense-tuned") and not re.search(
                    r"-seed[1-9]", r.cell
                ):
                    ax.axhline(
                        added(r),
                        color=style.BLACK,
                        linewidth=1,
                        linestyle="--",
                        label="Dense, trained as long"
                        + (", shifted images" if "shift" in str(r.spec["dataset"]) else ""),
                    )
            ax.axhline(0, color="#444444", linewidth=1, linestyle=(0, (1, 2)))
            ax.set(
                xscale="log",
                xlabel="Compression [dense weights / kept weights]",
                ylabel="Test error above the dense network [points]",
                title=NETWORKS[network],
            )
            ax.set_yscale("symlog", linthresh=1)
            ax.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter(
                matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}")
            )
            ax.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
            ax.yaxis.set_major_locator(
                matplotlib.ticker.FixedLocator([-0.5, -0.2, 0, 0.2, 0.5, 1, 2, 5, 10])
            )
            ax.yaxis.set_major_formatter(
                matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}")
            )
            ax.margins(y=0.08)
            # below: points lie everywhere
            ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
        result.suptitle(
            "Our records, filled; hollow: the paper's Table 3, of other dense networks", fontsize=9
        )
        return result


if __name__ == "__main__":
    sys.exit(save("table3", figure, __doc__, table=table))
