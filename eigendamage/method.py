"""EigenDamage (Wang et al. 2019, arXiv:1905.05934): prune a layer's rows and columns in the
eigenbasis of its Kronecker Fisher.

Letters as in the paper: S ⊗ A the Fisher, Q Λ Qᵀ eigendecompositions, W' the rotated weight, Θ its
importances. Uses common.curvature.kron, eigendamage.bottleneck, eigendamage.threshold. A layer
becomes Q_Aᵀ -> W' -> Q_S, three plain layers; its bias stays on the last and is not scored. Pruned
again, a bottleneck's own core is rotated (Eq. 16), while the two layers that `fold` leaves count as
plain ones. Deviations: README.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import LayerError, NumericalError, UserError, choose
from common.curvature.kron import Kron, kron_factors
from common.curvature.labels import FISHERS
from common.nets import layers as L
from common.nets import masks as M
from common.pruning.pruned import Pruned
from eigendamage.bottleneck import factors_of, folded, is_bottleneck, place
from eigendamage.depthwise import joined, separate
from eigendamage.threshold import CAP, percentile, require_cap


@dataclass(frozen=True)
class Options:
    """`amount` is a fraction of all rows and columns (eigenvectors) of the rotated layers."""

    # one label drawn from the model's own distribution an example (released code)
    fisher: str = "sampled"
    # Sec. 4.5: A over channels, one basis for all kernel offsets; "patch": A over all that a filter
    # reads
    factor: str = "channel"
    # Sec. 5.2: at most 95% of a layer's rows, and of its columns, goes at once
    cap: float = CAP
    depthwise: bool = False  # Sec. 4.6: cores with a kernel become depthwise convolutions
    # ours: a basis is multiplied into the core where that leaves fewer weights; the same function
    fold: bool = False
    skip: tuple[str, ...] = ()  # layers left as they are, besides the last Linear (released code)

    def __post_init__(self):
        choose("fisher", self.fisher, FISHERS)
        choose("factor", self.factor, ("channel", "patch"))
        if self.depthwise and self.factor != "channel":
            raise UserError(
                "depthwise", True, "needs a core that has the kernel", "use factor='channel'"
            )
        if self.depthwise and self.fold:
            raise UserError(
                "fold",
                True,
                "a depthwise core has no basis to take in",
                "choose one of fold and depthwise",
            )
        require_cap(self.cap)


@dataclass
class Rotated:
    """A layer in its KFE. W: W' [out, in, offsets] in eigen-directions; QA [in, in], QS [out, out];
    curvature: λ_S λ_Aᵀ [out, in].
    """

    W: Tensor
    QA: Tensor
    QS: Tensor
    curvature: Tensor

    @property
    def theta(self) -> Tensor:
        """Θ = ½ W'∘W' λ_S λ_Aᵀ summed over the offsets, [out, in] (Algorithm 1, line 4)."""
        return self.increase(torch.zeros_like(self.W))

    def increase(self, new: Tensor) -> Tensor:
        """The predicted loss increase of each row and column's meeting when W' becomes `new`, [out,
        in].
        """
        return 0.5 * (self.W - new).square().sum(2) * self.curvature


def rotatable(model: nn.Module, skip: Iterable[str] = ()) -> dict[str, nn.Module]:
    """The layers to rotate by name, without the last Linear; of a bottleneck its core, under the
    bottleneck's name. Raises LayerError for a grouped convolution that `skip` does not name."""
    narrow = {name: module.core for name, module in model.named_modules() if is_bottleneck(module)}
    skip = set(skip)
    plain = {
        name: module
        for name, module in L.prunable(model, skip - set(narrow)).items()
        if name.rpartition(".")[0] not in narrow
    }
    heads = [name for name, module in plain.items() if isinstance(module, nn.Linear)]
    layers = {
        name: module
        for name, module in (plain | narrow).items()
        if name not in skip | set(heads[-1:])
    }
    for name, module in layers.items():
        if L.groups(module) > 1:
            raise LayerError(name, "a grouped convolution cannot be rotated; name it in skip")
        if not torch.isfinite(module.weight).all():
            raise NumericalError(name, "its weights are not finite", "check the checkpoint")
    if not layers:
        raise UserError(
            "model", type(model).__name__, "has no layer to rotate", "leave less in skip"
        )
    return layers


def rotate(weight: Tensor, factors: Kron) -> Rotated:
    """W' = Q_Sᵀ W Q_A at every kernel offset (Eq. 15; Algorithm 1, lines 2 and 3). weight: the
    layer's own shape; with a patch-wide A all offsets lie in its one basis."""
    (A,), (S,) = factors.A, factors.G
    (lambda_A, QA), (lambda_S, QS) = torch.linalg.eigh(A), torch.linalg.eigh(S)
    W = torch.einsum("os,oip,ia->sap", QS, weight.detach().double().reshape(len(S), len(A), -1), QA)
    return Rotated(W, QA, QS, torch.outer(lambda_S.clamp(min=0), lambda_A.clamp(min=0)))


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float,
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """A copy of `model` with `amount` of its eigen-directions removed (Algorithm 1). Layers keep
    their outer shapes.
    """
    M.require_none(masks, "rotate")
    modules = rotatable(model, options.skip)
    for name, module in modules.items():
        if (
            options.factor == "patch"
            and is_bottleneck(model.get_submodule(name))
            and module.weight[0, 0].numel() > 1
        ):
            raise UserError(
                "factor",
                options.factor,
                f"the core of {name!r} has a kernel of its own, which no 1x1 basis merges with",
                "choose one factor for all steps",
            )
        if options.depthwise and is_bottleneck(model.get_submodule(name)):
            raise UserError(
                "depthwise",
                True,
                f"{name!r} is a bottleneck already",
                "take the depthwise step at the first pruning",
            )
    factors = kron_factors(
        model,
        calibration,
        modules,
        fisher=options.fisher,
        channel_only=options.factor == "channel",
        # line 1
        generator=generator,
    )
    # lines 2-4
    layers = {name: rotate(module.weight, factors.pop(name)) for name, module in modules.items()}
    scores = {
        f"{name} {side}": layer.theta.sum(dim)
        for name, layer in layers.items()
        # lines 5-7
        for side, dim in (("rows", 1), ("columns", 0))
    }
    # line 8
    kept, notes = percentile(scores, amount, options.cap)
    result = Pruned(copy.deepcopy(model), predicted_increase=0.0, notes=notes)
    # line 9
    for name, layer in layers.items():
        rows, columns = kept[f"{name} rows"], kept[f"{name} columns"]
        result.layers[name] = {"rows": int(rows.sum()), "columns": int(columns.sum())}
        QA, core, QS = layer.QA[:, columns], layer.W[rows][:, columns], layer.QS[:, rows]
        new = torch.zeros_like(layer.W)
        if options.depthwise and core.shape[2] > 1:
            # Eq. 18
            U, D, V = separate(core)
            new[rows.nonzero(), columns.nonzero().T] = joined(U, D, V)
            QA, core, QS = QA @ V, D.T[:, None], QS @ U
        else:
            new[rows.nonzero(), columns.nonzero().T] = core
        weights = factors_of(modules[name], QA, core, QS)
        if options.fold and not is_bottleneck(model.get_submodule(name)):
            weights = folded(weights)
        before, after = modules[name].weight.numel(), sum(weight.numel() for weight in weights)
        if not is_bottleneck(model.get_submodule(name)) and after > before:
            result.notes.append(
                f"{name}: left dense, its bottleneck would have {after} weights for {before}"
            )
            continue
        result.predicted_increase += float(layer.increase(new).sum())
        result.edits += place(result.model, name, weights)
    return result
