"""NAP Tables 1 and 5 at cpu scale: accuracy against MACs of VGG-16 and ResNet-20 with channels
pruned; latency beside MACs.
"""

from __future__ import annotations

import re
import sys

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.cells.errors import UserError
from common.cells.record import Record
from figures import style
from figures.nap_records import (
    EVERY_STEP,
    added,
    against_control,
    by_cell,
    mean,
    paper,
    records,
    save,
    study,
)

NETWORKS = {"vgg16": "VGG-16, a quarter of its width", "resnet20": "ResNet-20"}
COLOURS = (style.VERMILION, style.BLUE, style.GREEN, style.ORANGE, style.PINK, style.SKY)
MARKERS = "*oDs^v"


def table() -> str:
    """Markdown: cells, then latency."""
    lines = [
        "| cell | fewer MACs | weights left % | dense error % | error % | error more, points | "
        "dense, tuned alike: error % | "
        "error more than that, points | seeds |",
        "|---" * 9 + "|",
    ]
    found = [r for r in records(stage="finetune") if r.table in ("table-1", "table-5")]
    for cell, seeds in by_cell(found).items():
        a = seeds[0].achieved
        lines.append(
            f"| {cell} | {speedup(seeds[0]):.2f} | "
            f"{100 * a['kept_params'] / a['dense_params']:.1f} | "
            f"{100 * (1 - seeds[0].accuracy['dense']):.2f} | "
            f"{mean([100 * (1 - r.accuracy['last']) for r in seeds])} | "
            f"{mean([added(r) for r in seeds])} | "
            f"{' | '.join(against_control(cell, seeds, found))} | {len(seeds)} |"
        )
    try:
        measured = study("latency")
    except UserError:
        return "\n".join(lines) + "\n"
    lines += [
        "",
        f"Latency, {measured.provenance.get('threads')} thread(s), median of side-by-side rounds:",
        "",
        "| cell | batch | dense ms | pruned ms | faster | fewer MACs |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['name']} | {r['batch']} | {1e3 * r['dense_s']:.1f} | {1e3 * r['pruned_s']:.1f} | "
        f"{r['speedup_latency']:.2f} | "
        f"{r['speedup_macs']:.2f} |"
        for r in measured.trajectory
    ]
    return "\n".join(lines) + "\n"


def speedup(record: Record) -> float:
    """Dense MACs over those left."""
    return record.achieved["dense_macs"] / record.achieved["kept_macs"]


def along(ax: Axes, found: list[Record], title: str) -> None:
    """Table 1: the run (lines, judged on a draw of test images) and the end of the final
    fine-tuning (markers).
    """
    for place, (cell, seeds) in enumerate(by_cell(found).items()):
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        for r in seeds:
            path = (
                [(e["speedup"], 100 * e["tuned"]) for e in r.trajectory if "tuned" in e]
                if r.stage == "prune"
                else []
            )
            if path:
                ax.plot(*zip(*path, strict=True), color=colour, linewidth=0.8, alpha=0.6)
        ends = [(speedup(r), 100 * r.accuracy["last"]) for r in seeds if r.stage == "finetune"]
        if ends:
            ax.plot(
                *zip(*ends, strict=True),
                linestyle="none",
                marker=marker,
                color=colour,
                markersize=10,
                label=cell.partition("-")[2],
            )
    ax.axhline(
        100 * found[0].accuracy["dense"], color="#444444", linewidth=1, linestyle=(0, (1, 2))
    )
    ax.set(xlabel="Times fewer MACs", ylabel="Test accuracy [%]", title=title)
    ax.legend(
        fontsize=7.5,
        loc="lower left",
        title="lines: a draw of test images\nmarkers: tuned, all images",
        title_fontsize=7.5,
    )


def settings(ax: Axes, found: list[Record]) -> None:
    """Table 5: error more than dense at each (p, T), and the speed-up reached, beside the paper's
    on ImageNet.
    """
    by_pair = {False: {}, True: {}}
    for cell, seeds in by_cell(found).items():
        by_pair[cell.endswith(EVERY_STEP)][tuple(map(float, re.findall(r"[pT]([\d.]+)", cell)))] = (
            seeds
        )
    ours = by_pair[False] | by_pair[True]
    pairs = sorted(ours)
    for stepwise, words, look in (
        (True, "ours, JPEG CIFAR-10, statistics at every step", "*-"),
        (False, "ours, statistics every tenth step", "*:"),
    ):
        points = [
            (place, sum(map(added, seeds)) / len(seeds))
            for place, pair in enumerate(pairs)
            if (seeds := by_pair[stepwise].get(pair))
        ]
        if points:
            ax.plot(
                *zip(*points, strict=True), look, color=style.VERMILION, markersize=10, label=words
            )
    printed = {
        tuple(map(float, re.findall(r"[pT]=([\d.]+)", dict(v.setting)["setting"]))): v.number
        for v in paper("Table 5", quantity="delta_top1_err_pct")
    }
    ax.plot(
        range(len(pairs)),
        [printed[pair] for pair in pairs],
        "o",
        markerfacecolor="none",
        color=style.BLACK,
        label="paper, ImageNet, top-1",
    )
    ax.set_xticks(
        range(len(pairs)), [f"p {p:g}%\nT {t:g}\n{speedup(ours[p, t][0]):.1f}x" for p, t in pairs]
    )
    ax.set(
        xlabel="T in the paper's epochs; ours are an eighth of it",
        ylabel="Error more than dense [points]",
        ylim=(0, None),
        title="Table 5: five settings, VGG-16",
    )
    ax.legend(fontsize=8)


def figure() -> Figure:
    """A panel a network of Table 1, and one for Table 5's settings."""
    first = records("1") if any(r.table == "table-1" for r in records()) else []
    shown = {n: found for n in NETWORKS if (found := [r for r in first if r.cell.startswith(n)])}
    if not shown:
        raise UserError(
            "results",
            "table 1",
            "no such record",
            "run python -m nap.finetune --table 1 --scale cpu",
        )
    fifth = [r for r in records(stage="finetune") if r.table == "table-5"]
    with matplotlib.rc_context(style.RC):
        panels = len(shown) + bool(fifth)
        result = Figure(figsize=(4.6 * panels, 4.2), layout="constrained")
        axes = result.subplots(1, panels, squeeze=False)[0]
        for ax, (network, found) in zip(axes, shown.items(), strict=False):
            along(ax, found, NETWORKS[network])
        if fifth:
            settings(axes[-1], fifth)
        return result


if __name__ == "__main__":
    sys.exit(save("channels", figure, __doc__, table=table))
