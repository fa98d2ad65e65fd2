"""EigenDamage on MNIST: LeNets at five ratios, accuracy right after pruning and after fine-tuning,
against the parameters left.
"""

import sys

import matplotlib
from matplotlib.figure import Figure

from common.cells.errors import UserError
from common.cells.record import Record
from figures import style
from figures.eigendamage_records import NETWORKS, Series, kept, lines, mean, records, save, series
from figures.panels import accuracy_axis
from figures.style import Look

SHOWN = ("lenet300", "lenet5", "lenet300-bn-L1", "lenet5-bn-L1")


FOLDED = {"folded": Look(style.PINK, "P", "EigenDamage, bases folded (ours)", "-.")}


def load(stage: str, table: str = "mnist") -> dict[str, list[Record]]:
    """Network -> records, of the networks that have any."""
    found = {}
    for network in SHOWN:
        try:
            found[network] = records(stage, (table,), network)
        except UserError:
            continue
    return found


def drawn(found: list[Record], folded: list[Record]) -> Series:
    """The methods' series, and the folded one."""
    return series(found) | ({"folded": series(folded)["eigendamage"]} if folded else {})


def table() -> str:
    """Markdown: accuracy right after pruning → after fine-tuning, means over the seeds, and the
    parameters left, by the ratio.
    """
    tuned, folds = load("finetune"), load("finetune", "fold")
    if not tuned:
        raise UserError(
            "results", "mnist", "no such record", "run python -m eigendamage.finetune --table mnist"
        )
    ratios = sorted(
        {
            ratio
            for found in tuned.values()
            for by_ratio in series(found).values()
            for ratio in by_ratio
        }
    )
    text = [
        "| network | method | seeds | "
        + " | ".join(f"{100 * ratio:g}%" for ratio in ratios)
        + " |",
        "|---" * (3 + len(ratios)) + "|",
    ]
    for network, found in tuned.items():
        for name, by_ratio in drawn(found, folds.get(network, [])).items():
            seeds = sorted({len(ran) for ran in by_ratio.values()})
            text.append(
                f"| {NETWORKS[network]} | {(FOLDED.get(name) or style.look(name)).label} | "
                f"{' to '.join(map(str, seeds))} | "
                + " | ".join(_cell(by_ratio.get(ratio, [])) for ratio in ratios)
                + " |"
            )
    return "\n".join(text) + "\n"


def _cell(ran: list[Record]) -> str:
    """ "98.4 → 98.4 (39%)", or nothing where no seed ran."""
    if not ran:
        return ""
    before, after = (
        mean(ran, lambda r, key=key: 100 * r.accuracy[key]) for key in ("pruned", "last")
    )
    return f"{before:.1f} → {after:.1f} ({mean(ran, lambda r: kept(r, 'params')):.0f}%)"


def figure() -> Figure:
    """One row a network; logarithmic in the error, so that small differences near the top can be
    seen.
    """
    pruned, tuned, folds = (
        load("prune"),
        load("finetune"),
        {stage: load(stage, "fold") for stage in ("prune", "finetune")},
    )
    if not pruned:
        raise UserError(
            "results", "mnist", "no such record", "run python -m eigendamage.finetune --table mnist"
        )
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(11, 3.9 * len(pruned)), layout="constrained")
        for row, (network, first) in zip(
            result.subplots(len(pruned), 2, squeeze=False), pruned.items(), strict=True
        ):
            for ax, found, stage, value, what in (
                (row[0], first, "prune", "pruned", "right after pruning"),
                (
                    row[1],
                    tuned.get(network, []),
                    "finetune",
                    "last",
                    "after fine-tuning, last epoch",
                ),
            ):
                data = drawn(found, folds[stage].get(network, []))
                lines(
                    ax,
                    data,
                    lambda r: kept(r, "params"),
                    lambda r, value=value: 100 * r.accuracy[value],
                    FOLDED,
                )
                ax.axhline(
                    100 * first[0].accuracy["dense"],
                    color="#444444",
                    linewidth=1,
                    linestyle=(0, (1, 2)),
                    label="Dense network",
                )
                ax.set(
                    xlabel="Parameters left [%, log scale]",
                    xscale="log",
                    title=f"{NETWORKS[network]}\n{what}",
                )
                ax.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda x, _: f"{x:g}"))
                ax.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
                ax.invert_xaxis()
                accuracy_axis(ax)
            row[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
        return result


if __name__ == "__main__":
    sys.exit(save("mnist", figure, __doc__, table=table))
