"""EigenDamage (Wang et al. 2019, arXiv:1905.05934): prune a layer's rows and columns in the
eigenbasis of its Kronecker-factored Fisher.

Letters as in the paper: A and S the factors of the Fisher S ⊗ A, Q Λ Qᵀ their eigendecompositions,
W' the rotated weight, Θ the importance of its entries. A layer becomes three plain ones, Q_Aᵀ -> W'
-> Q_S; its bias stays on the last and is not scored. Uses common.curvature.kron (A and S),
threshold.py (the percentile), depthwise.py (Eq. 18) and bottleneck.py (the three layers, Eq. 16).
Deviations: README. What goes beyond the paper: ours.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import choose, require
from common.curvature import memory
from common.curvature.kron import Kron, kron_factors
from common.curvature.labels import FISHERS
from common.nets import layers as L
from common.nets import masks as M
from common.nets.clone import clone
from common.pruning.pruned import Pruned
from eigendamage.bottleneck import (
    factors_of,
    is_bottleneck,
    larger,
    place,
    require_once_more,
    rotatable,
)
from eigendamage.depthwise import joined, separate
from eigendamage.threshold import CAP, percentile, require_cap


@dataclass(frozen=True)
class Options:
    """`amount` is p: a fraction of all rows and columns of the rotated layers."""

    fisher: str = "sampled"  # labels of S: one drawn from the model an example (released code)
    factor: str = "channel"  # A over channels (Sec. 4.5); "patch": over all that a filter reads
    cap: float = CAP  # of a layer's rows, and of its columns, at most 95% go at once (Sec. 5.2)
    depthwise: bool = False  # Sec. 4.6: cores with a kernel become depthwise convolutions
    skip: tuple[str, ...] = ()  # layers left as they are, beside the last Linear (released code)

    def __post_init__(self):
        choose("fisher", self.fisher, FISHERS)
        choose("factor", self.factor, ("channel", "patch"))
        has_kernel = self.factor == "channel" or not self.depthwise
        remedy = "use factor='channel'"
        require(has_kernel, "depthwise", True, "needs a core that has the kernel", remedy)
        require_cap(self.cap)


@dataclass
class Rotated:
    """A layer in its KFE. W: W' [out, in, offsets], a kernel offset at a time; QA [in, in], QS
    [out, out]; curvature: diag(Λ_S) diag(Λ_A)ᵀ [out, in].
    """

    W: Tensor
    QA: Tensor
    QS: Tensor
    curvature: Tensor

    @property
    def theta(self) -> Tensor:
        """Θ = ½ W' ∘ diag(Λ_S) diag(Λ_A)ᵀ ∘ W' summed over the offsets, [out, in] (line 4)."""
        return self.increase(torch.zeros_like(self.W))

    def increase(self, new: Tensor) -> Tensor:
        """The predicted loss increase of each entry of Θ when W' becomes `new`, [out, in]."""
        return 0.5 * (self.W - new).square().sum(2) * self.curvature


def rotate(weight: Tensor, factors: Kron) -> Rotated:
    """Q_S, Λ_S = Eigen(S), Q_A, Λ_A = Eigen(A) and W' = Q_Sᵀ W Q_A (Eq. 15; lines 2 and 3).
    weight: [1, out, in] or the layer's own shape; with a patch-wide A all offsets lie in its one
    basis."""
    (A,), (S,) = factors.A, factors.G
    (lambda_A, QA), (lambda_S, QS) = torch.linalg.eigh(A), torch.linalg.eigh(S)
    W = torch.einsum("os,oip,ia->sap", QS, weight.detach().double().reshape(len(S), len(A), -1), QA)
    return Rotated(W, QA, QS, torch.outer(lambda_S.clamp(min=0), lambda_A.clamp(min=0)))


def remove(
    layer: Rotated, rows: Tensor, columns: Tensor, depthwise: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(Q_A [in, a], W' [r, a, offsets], Q_S [out, r]) of the rows and columns that are kept (line
    9), and W' in the layer's own basis, [out, in, offsets], zero where it is gone. depthwise: W'
    becomes U D_i Vᵀ at offset i (Eq. 18); V and U go into the bases."""
    QA, W, QS = layer.QA[:, columns], layer.W[rows][:, columns], layer.QS[:, rows]
    left, new = W, torch.zeros_like(layer.W)
    if depthwise and W.shape[2] > 1:
        U, D, V = separate(W)
        QA, W, QS, left = QA @ V, D.T[:, None], QS @ U, joined(U, D, V)
    new[rows.nonzero(), columns.nonzero().T] = left
    return QA, W, QS, new


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float,
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
    *,
    shape: Callable[[list[Tensor]], list[Tensor]] = lambda weights: weights,
) -> Pruned:
    """A copy of `model` with `amount` of its eigenvectors removed (Algorithm 1). Layers keep their
    outer shapes. A bottleneck that was pruned before is pruned in its core (Sec. 4.4). shape
    (ours.py): what is made of a new bottleneck's weights.
    """
    M.require_none(masks, "rotate")
    modules, result = rotatable(model, options.skip), Pruned(clone(model))
    require_once_more(model, modules, options.factor, options.depthwise)
    memory.require("channel", modules, options)
    # 1: A = E[aaᵀ], S = E[{∇_s L}{∇_s L}ᵀ]
    labels, channel = options.fisher, options.factor == "channel"
    factors = kron_factors(
        model, calibration, modules, fisher=labels, channel_only=channel, generator=generator
    )
    # 2, 3: the eigenbases and W'
    layers = {
        name: rotate(L.to_matrix(module, module.weight), factors.pop(name))
        for name, module in modules.items()
    }
    # 4 to 7: ΔL_r = Θ_r,· 1 and ΔL_c = 1ᵀ Θ_·,c
    delta_L = {
        f"{name} {side}": layer.theta.sum(axis)
        for name, layer in layers.items()
        for side, axis in (("rows", 1), ("columns", 0))
    }
    # 8: the p-th percentile τ of ΔL over all layers
    kept, result.notes = percentile(delta_L, amount, options.cap)
    # 9: rows and columns with ΔL ≤ τ go from W', and their eigenvectors from Q_S and Q_A
    result.predicted_increase = 0.0
    for name, layer in layers.items():
        rows, columns = kept[f"{name} rows"], kept[f"{name} columns"]
        QA, W, QS, new = remove(layer, rows, columns, options.depthwise)
        result.layers[name] = {"rows": int(rows.sum()), "columns": int(columns.sum())}
        weights = factors_of(modules[name], QA, W, QS)
        if not is_bottleneck(model.get_submodule(name)):
            weights = shape(weights)
        if note := larger(model, name, weights):
            result.notes.append(note)
            continue
        result.edits += place(result.model, name, weights)  # merged into the bases before: Eq. 16
        result.predicted_increase += float(layer.increase(new).sum())
    return result
