"""L-OBS Fig. 2a: accuracy against the fraction kept in every layer. The paper's ResNet-50, and ours where data allows: ResNet-20."""

import sys

import matplotlib
from matplotlib.figure import Figure

from common.errors import UserError
from figures import style
from figures.lobs_records import paper_values, records, save

METHODS = {"l-obs": ("L-OBS, the paper's walk", style.GREEN, "^"), "l-obs-joint": ("L-OBS, joint optimum", style.BLUE, "D"),
           "magnitude-layer": ("Magnitude, per layer", style.BLACK, "s")}


def figure() -> Figure:
    """Left the paper's curve, top-5; right CIFAR-10 (JPEG), top-1, no retraining, BatchNorm re-estimated."""
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(9.6, 3.9), layout="constrained")
        left, right = result.subplots(1, 2)
        points = [(float(row["kept_pct"]), float(row["value"])) for row in paper_values("Figure 2a")]
        left.plot(*zip(*points, strict=True), color=style.GREY, marker="o", label="L-OBS, read off the paper's figure")
        left.set(title="ResNet-50 on ImageNet, top-5 (paper)", xlabel="Weights kept in every layer [%]", ylabel="Top-5 accuracy [%]")
        left.legend()
        found = records("prune", "resnet20-")
        if not found:
            raise UserError("results", "resnet20", "no such record", "run python -m lobs.prune --figure 2a")
        for method, (label, colour, marker) in METHODS.items():
            mine = sorted((100 * (1 - r.requested["sparsity"]), 100 * r.accuracy["pruned"]) for r in found if r.method == method)
            if mine:
                right.plot(*zip(*mine, strict=True), color=colour, marker=marker, label=label)
        right.axhline(100 * found[0].accuracy["dense"], color="#444444", linewidth=1, linestyle=(0, (1, 2)), label="Dense network")
        right.legend()
        right.set(title="ResNet-20 on CIFAR-10 (JPEG), top-1 (ours)", xlabel="Weights kept in every layer [%]",
                  ylabel="Top-1 accuracy [%]")
        for ax in (left, right):
            ax.invert_xaxis()
        return result


if __name__ == "__main__":
    sys.exit(save("fig2a", figure, __doc__))
