"""What was seen of WoodFisher's figures of the Hessian, the empirical Fisher and the local quadratic model."""

from __future__ import annotations

import json

from figures.evidence import Evidence, Missing, field, shows, verdict
from figures.values import ROOT


@shows("Figure 1", "Figure S2")
def alike_on_the_diagonal() -> Evidence:
    """Diagonal blocks of Hessian and empirical Fisher have one structure and differ in scale (Sec. 3.2, Figs. 1, S2). Here: their cosine
    is above 0.7."""
    return _blocks(("1-1", "2-2", "3-3"))


@shows("Figure S3")
def alike_off_the_diagonal() -> Evidence:
    """Off-diagonal blocks of Hessian and empirical Fisher have one structure, too (Fig. S3). Here: their cosine is above 0.7."""
    return _blocks(("1-3", "2-3"))


def _blocks(names: tuple[str, ...]) -> Evidence:
    cosines = {name: field("woodfisher", f"hessian_s2.json?block={name}#cosine") for name in names}
    scales = {name: field("woodfisher", f"hessian_s2.json?block={name}#scale") for name in names}
    return (verdict(*(one > 0.7 for one in cosines.values())),
            ["CIFAR-Net of fully connected layers, blocks of layers, cosine and scale of Hessian over Fisher: "
             + ", ".join(f"{name} {cosines[name]:.2f} and {scales[name]:.2f}" for name in names) + "; hessian_s2.json."])


@shows("Figure 2")
def local_quadratic_model() -> Evidence:
    """The local quadratic model predicts the loss along the pruning direction of three layers of ResNet-20 accurately (Sec. 3.3, Fig. 2).
    Here: within a factor of two of the increase at the pruned weights."""
    path = ROOT / "woodfisher" / "results" / "local_quadratic.json"
    if not path.exists():
        raise Missing(path.name)
    each, lines = [], []
    for layer, points in json.loads(path.read_text(encoding="utf-8"))["lines"].items():
        at = {point["t"]: point for point in points}
        real, model = (at[1.0][k] - at[0.0][k] for k in ("measured", "predicted"))
        each.append(0.5 < model / real < 2)
        lines.append(f"{layer}, half of it removed: the loss rises by {real:.4f}, the model says {model:.4f}; local_quadratic.json.")
    return verdict(*each), lines
