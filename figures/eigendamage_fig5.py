"""EigenDamage Fig. 5: accuracy after fine-tuning, and training loss before it, against speed-up,
beside CP-decomposition.
"""

import sys

import matplotlib
from matplotlib.figure import Figure

from common.cells.record import Record
from figures import style
from figures.eigendamage_records import NETWORKS, Series, lines, records, save
from figures.style import Look

NETWORK = "cpu-vgg19-L1"
LOOKS = {
    "eigendamage": Look(style.GREEN, "*", "EigenDamage"),
    "depthwise": Look(style.SKY, "o", "EigenDamage, depthwise (Frobenius)"),
    "times": Look(style.ORANGE, "s", "CP, ranks 0.25 to 2 times the original", "--"),
    "ranks": Look(style.VERMILION, "v", "CP, ranks 4 to 32", ":"),
}


def grouped(found: list[Record]) -> Series:
    """EigenDamage by ratio; CP by its rank."""
    result: Series = {}
    for record in found:
        options = record.spec["options"]
        if record.method == "cp":
            name, at = "ranks" if options.get("absolute") else "times", options["rank"]
        elif record.method == "eigendamage":
            name, at = (
                "depthwise" if options.get("depthwise") else "eigendamage",
                record.requested["unit_ratio"],
            )
        else:
            continue
        result.setdefault(name, {}).setdefault(at, []).append(record)
    return {name: dict(sorted(result[name].items())) for name in LOOKS if name in result}


def speedup(record: Record) -> float:
    return record.achieved["dense_macs"] / record.achieved["kept_macs"]


def figure() -> Figure:
    """Speed-up in multiply-accumulates, bases included."""
    tables = ("1", "figure 5")
    tuned, pruned = (records(stage, tables, NETWORK) for stage in ("finetune", "prune"))
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(10.6, 4.2), layout="constrained")
        left, right = result.subplots(1, 2)
        lines(left, grouped(tuned), speedup, lambda r: 100 * r.accuracy["last"], LOOKS)
        lines(right, grouped(pruned), speedup, lambda r: r.loss["pruned"], LOOKS)
        left.axhline(
            100 * tuned[0].accuracy["dense"],
            color="#444444",
            linewidth=1,
            linestyle=(0, (1, 2)),
            label="Dense network",
        )
        right.axhline(pruned[0].loss["dense"], color="#444444", linewidth=1, linestyle=(0, (1, 2)))
        left.set(
            xlabel="Speed-up [dense MACs / MACs]",
            ylabel="Test accuracy after fine-tuning [%]",
            xscale="log",
        )
        right.set(
            xlabel="Speed-up [dense MACs / MACs]",
            ylabel="Training loss before fine-tuning [nats, log scale]",
            xscale="log",
            yscale="log",
        )
        for ax in (left, right):
            ax.set_xticks([1, 2, 3, 5, 10, 20], ["1", "2", "3", "5", "10", "20"])
            ax.minorticks_off()
        right.set_yticks([0.5, 1, 2, 5], ["0.5", "1", "2", "5"])
        left.legend(loc="lower left", fontsize=8)
        result.suptitle(f"{NETWORKS[NETWORK]}, CIFAR-10 (JPEG)", fontsize=10)
        return result


if __name__ == "__main__":
    sys.exit(save("fig5", figure, __doc__))
