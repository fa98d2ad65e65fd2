"""The bottleneck of a rotated layer: Q_Aᵀ -> W' -> Q_S as three plain layers, or two; and a second
rotation merged into the first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.nets.edits import FACTORS
from common.nets.surgery import apply_edits, factorize


def is_bottleneck(module: nn.Module) -> bool:
    """Whether `factorize` made it."""
    return isinstance(module, nn.Sequential) and list(dict(module.named_children())) == list(
        FACTORS
    )


def factors_of(module: nn.Module, QA: Tensor, W: Tensor, QS: Tensor) -> list[Tensor]:
    """[first, core, last], in the layer's own kind, of kept bases QA [in, a] and QS [out, r] and
    core W [r, a, offsets].
    """
    if isinstance(module, nn.Linear):
        return [QA.T, W[..., 0], QS]
    # whole: A spans the patch, so the first layer has the kernel
    kernel, whole = module.kernel_size, W.shape[2] == 1
    return [
        QA.T.reshape(QA.shape[1], module.in_channels, *(kernel if whole else (1, 1))),
        W.reshape(*W.shape[:2], *((1, 1) if whole else kernel)),
        QS[..., None, None],
    ]


def folded(weights: list[Tensor]) -> list[Tensor]:
    """The same map with one basis multiplied into the core where that leaves fewer weights, which
    for 1x1 kernels it always does (ours: with q = min(r, a), q (in + out) ≤ a in + a r + r out).
    Exact."""
    first, core, last = weights
    return min(
        [first, product(last, core)],
        [product(core, first), last],
        weights,
        key=lambda ws: sum(w.numel() for w in ws),
    )


def product(left: Tensor, right: Tensor) -> Tensor:
    """The weight of `left` [out, mid, ...] after `right` [mid, in, ...], of which at most one has a
    kernel.
    """
    if left[0, 0].numel() > 1:
        return torch.einsum("om...,mi->oi...", left, right.flatten(1))
    return torch.einsum("om,mi...->oi...", left.flatten(1), right)


@torch.no_grad()
def place(model: nn.Module, name: str, weights: list[Tensor]) -> list[dict]:
    """Put these weights, three or two, in the place of the layer `name`; where a bottleneck stands,
    its core is what was rotated, and the new bases are merged: Q_A <- Q_A Q_A', Q_S <- Q_S Q_S'
    (Eq. 16). Returns the edits."""
    old = model.get_submodule(name)
    if not is_bottleneck(old):
        return [factorize(model, name, *weights)]
    first, core, last = weights
    merged = {
        "first": (first.flatten(1) @ old.first.weight.double().flatten(1)).reshape(
            -1, *old.first.weight.shape[1:]
        ),
        "core": core,
        "last": (old.last.weight.double().flatten(1) @ last.flatten(1)).reshape(
            len(old.last.weight), *last.shape[1:]
        ),
    }
    slices = (
        ("first", "out", len(first)),
        ("core", "in", len(first)),
        ("core", "out", len(core)),
        ("last", "in", len(core)),
    )
    edits = [
        {"op": "slice", "module": f"{name}.{part}", "axis": axis, "keep": list(range(n))}
        for part, axis, n in slices
    ]
    apply_edits(model, edits)
    for part, weight in merged.items():
        old.get_submodule(part).weight.copy_(weight)
    return edits
