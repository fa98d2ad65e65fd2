"""NAP Tables 1 and 5 at cpu scale: accuracy against MACs of VGG-16 and ResNet-20 with channels pruned; latency beside MACs."""

from __future__ import annotations

import sys

import matplotlib
from matplotlib.figure import Figure

from common.errors import UserError
from figures import style
from figures.nap_records import added, by_cell, mean, records, save, study

NETWORKS = {"vgg16": "VGG-16, a quarter of its width", "resnet20": "ResNet-20"}


def table() -> str:
    """Markdown: cells, then latency."""
    lines = ["| cell | fewer MACs | weights left % | dense error % | error % | error more, points | seeds |", "|---" * 7 + "|"]
    for cell, seeds in by_cell([r for r in records(stage="finetune") if r.table in ("1", "5")]).items():
        a = seeds[0].achieved
        lines.append(f"| {cell} | {a['dense_macs'] / a['kept_macs']:.2f} | {100 * a['kept_params'] / a['dense_params']:.1f} | "
                     f"{100 * (1 - seeds[0].accuracy['dense']):.2f} | {mean([100 * (1 - r.accuracy['last']) for r in seeds])} | "
                     f"{mean([added(r) for r in seeds])} | {len(seeds)} |")
    try:
        measured = study("latency")
    except UserError:
        return "\n".join(lines) + "\n"
    lines += ["", f"Latency, {measured.provenance.get('threads')} thread(s), median of side-by-side rounds:", "",
              "| cell | batch | dense ms | pruned ms | faster | fewer MACs |", "|---|---|---|---|---|---|"]
    lines += [f"| {r['name']} | {r['batch']} | {1e3 * r['dense_s']:.1f} | {1e3 * r['pruned_s']:.1f} | {r['speedup_latency']:.2f} | "
              f"{r['speedup_macs']:.2f} |" for r in measured.trajectory]
    return "\n".join(lines) + "\n"


def figure() -> Figure:
    """A panel a network: along the run (small, judged on a draw of test images) and after the final fine-tuning (large)."""
    with matplotlib.rc_context(style.RC):
        found = [r for r in records() if r.table in ("1", "5")]
        shown = [n for n in NETWORKS if any(r.cell.startswith(n) for r in found)]
        if not shown:
            raise UserError("results", "table 1", "no such record", "run python -m nap.finetune --table 1 --scale cpu")
        result = Figure(figsize=(5.4 * len(shown), 4.2), layout="constrained")
        for ax, network in zip(result.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            cells = by_cell([r for r in found if r.cell.startswith(network)])
            for (cell, seeds), colour in zip(cells.items(), (style.VERMILION, style.BLUE, style.GREEN, style.ORANGE, style.PINK, style.SKY,
                                                             style.BLACK, style.WINE), strict=False):
                for r in seeds:
                    if r.stage == "prune":
                        path = [(e["speedup"], 100 * e["tuned"]) for e in r.trajectory if "tuned" in e]
                        if path:
                            ax.plot(*zip(*path, strict=True), color=colour, linewidth=0.8, alpha=0.6)
                    else:
                        ax.plot(r.achieved["dense_macs"] / r.achieved["kept_macs"], 100 * r.accuracy["last"], "*", color=colour,
                                markersize=11, label=cell)
                ax.axhline(100 * seeds[0].accuracy["dense"], color="#444444", linewidth=1, linestyle=(0, (1, 2)))
            ax.set(xlabel="Times fewer MACs", ylabel="Test accuracy [%]", title=NETWORKS[network])
            ax.legend(fontsize=7)
        result.suptitle("Lines: after each step, on a draw of test images; stars: after the final fine-tuning; dotted: dense", fontsize=9)
        return result


if __name__ == "__main__":
    sys.exit(save("channels", figure, __doc__, table=table))
