"""NAP: how much each choice that the paper leaves open matters, one cut of LeNet-300-100 and then
one epoch.
"""

from __future__ import annotations

import sys

import matplotlib
from matplotlib.figure import Figure

from figures import style
from figures.nap_records import records, save

AMOUNTS = ("90", "95")


def rows() -> dict[str, dict[tuple[str, str], float]]:
    """choice -> (amount, stage) -> test error in percent."""
    found: dict[str, dict] = {}
    for r in records("options"):
        _, amount, choice = r.cell.split("-", 2)
        found.setdefault(choice, {})[amount, r.stage] = 100 * (
            1 - r.accuracy["pruned" if r.stage == "prune" else "last"]
        )
    return dict(sorted(found.items(), key=lambda item: (item[0] != "default", item[0])))


def table() -> str:
    """Markdown."""
    lines = [
        "| choice | " + " | ".join(f"{a}% removed: pruned % | tuned %" for a in AMOUNTS) + " |",
        "|---" * (1 + 2 * len(AMOUNTS)) + "|",
    ]
    for choice, values in rows().items():
        cells = [
            f"{values[a, s]:.2f}" if (a, s) in values else "-"
            for a in AMOUNTS
            for s in ("prune", "finetune")
        ]
        lines.append(f"| {choice} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def figure() -> Figure:
    """Two bars a choice, after pruning and after one epoch; a panel an amount."""
    with matplotlib.rc_context(style.RC):
        found = rows()
        result = Figure(figsize=(10, 4), layout="constrained")
        for ax, amount in zip(result.subplots(1, len(AMOUNTS), sharey=True), AMOUNTS, strict=True):
            for shift, stage, colour, label in (
                (-0.2, "prune", style.VERMILION, "after pruning"),
                (0.2, "finetune", style.BLUE, "after one epoch"),
            ):
                ax.barh(
                    [i + shift for i in range(len(found))],
                    [v.get((amount, stage), 0) for v in found.values()],
                    0.38,
                    color=colour,
                    label=label,
                )
            ax.set_yticks(range(len(found)), list(found))
            ax.invert_yaxis()
            ax.set(xlabel="Test error [%]", title=f"{amount}% removed at once")
        ax.legend(fontsize=8)
        result.suptitle(
            "LeNet-300-100, NAP: choices that the paper leaves open (default: sampled labels, "
            "damping 1e-3, π, "
            "normalised, updated)",
            fontsize=9,
        )
        return result


if __name__ == "__main__":
    sys.exit(save("options", figure, __doc__, table=table))
