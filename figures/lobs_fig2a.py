"""L-OBS Fig. 2a: accuracy against the fraction kept in every layer. The paper's ResNet-50, and ours
where data allows: ResNet-20.
"""

import sys

import matplotlib
from matplotlib.figure import Figure

from common.cells.errors import UserError
from figures import style
from figures.lobs_records import paper_values, records, save

DENSE = "r20tuned-100-dense"  # nothing removed, its BatchNorm re-estimated like the others'
METHODS = {
    "l-obs": ("L-OBS, the paper's walk", style.GREEN, "^"),
    "l-obs-joint": ("L-OBS, joint optimum", style.BLUE, "D"),
    "magnitude-layer": ("Magnitude, per layer", style.BLACK, "s"),
}


def curves() -> dict[str, dict[float, float]]:
    """Method -> percent kept -> test accuracy right after pruning, percent."""
    found: dict[str, dict[float, float]] = {}
    for r in records("prune", "r20tuned-"):
        if r.cell == DENSE:
            continue
        found.setdefault(r.method, {})[round(100 * (1 - r.requested["sparsity"]), 6)] = (
            100 * r.accuracy["pruned"]
        )
    if not found:
        raise UserError(
            "results", "r20tuned", "no such record", "run python -m lobs.prune --figure 2a"
        )
    return found


def table() -> str:
    """Markdown of the right panel."""
    found = curves()
    kept = sorted({percent for points in found.values() for percent in points}, reverse=True)
    text = [
        "| kept | " + " | ".join(f"{percent:g}%" for percent in kept) + " |",
        "|---" * (1 + len(kept)) + "|",
    ]
    text += [
        f"| {label} | "
        + " | ".join(
            f"{found[method][percent]:.2f}" if percent in found[method] else "" for percent in kept
        )
        + " |"
        for method, (label, _, _) in METHODS.items()
        if method in found
    ]
    return "\n".join(text) + "\n"


def figure() -> Figure:
    """Left the paper's curve, top-5; right CIFAR-10 (JPEG), top-1, no retraining, BatchNorm
    re-estimated.
    """
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(9.6, 3.9), layout="constrained")
        left, right = result.subplots(1, 2)
        points = [
            (float(row["kept_pct"]), float(row["value"])) for row in paper_values("Figure 2a")
        ]
        left.plot(
            *zip(*points, strict=True),
            color=style.GREY,
            marker="o",
            label="L-OBS, read off the paper's figure",
        )
        left.set(
            title="ResNet-50 on ImageNet, top-5 (paper)",
            xlabel="Weights kept in every layer [%]",
            ylabel="Top-5 accuracy [%]",
        )
        left.legend()
        found = curves()
        for method, (label, colour, marker) in METHODS.items():
            if method in found:
                right.plot(
                    *zip(*sorted(found[method].items()), strict=True),
                    color=colour,
                    marker=marker,
                    label=label,
                )
        right.axhline(
            100 * records("prune", DENSE)[0].accuracy["pruned"],
            color="#444444",
            linewidth=1,
            linestyle=(0, (1, 2)),
            label="Dense network, BatchNorm re-estimated too",
        )
        right.legend()
        right.set(
            title="ResNet-20 on CIFAR-10 (JPEG), top-1 (ours)",
            xlabel="Weights kept in every layer [%]",
            ylabel="Top-1 accuracy [%]",
        )
        for ax in (left, right):
            ax.invert_xaxis()
        return result


if __name__ == "__main__":
    sys.exit(save("fig2a", figure, __doc__, table=table))
