"""The bottleneck that stands for a rotated layer, Q_Aᵀ -> W' -> Q_S, as three plain layers: which
layers become one, its weights, and its place in the network.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from common.cells.errors import LayerError, NumericalError, UserError
from common.nets import layers as L
from common.nets.edits import FACTORS, factorizable
from common.nets.kinds import CONVOLUTIONS
from common.nets.surgery import apply_edits, factorize


def is_bottleneck(module: nn.Module) -> bool:
    """Whether the module is one that `factorize` put in the place of a layer."""
    return isinstance(module, nn.Sequential) and list(dict(module.named_children())) == list(
        FACTORS
    )


def rotatable(model: nn.Module, skip: Iterable[str] = ()) -> dict[str, nn.Module]:
    """The layers to rotate by name, without the last Linear; of a bottleneck its core, under the
    bottleneck's name. Raises LayerError for a grouped convolution that `skip` does not name,
    NumericalError for weights that are not finite, UserError where no layer is left."""
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
    fixed = [name for name, module in layers.items() if not factorizable(module)]
    if fixed:
        raise LayerError(
            fixed[0],
            f"a grouped or transposed convolution cannot be rotated; name it in skip ({fixed})",
        )
    for name, module in layers.items():
        if not torch.isfinite(module.weight).all():
            raise NumericalError(name, "its weights are not finite", "check the checkpoint")
    if not layers:
        raise UserError(
            "model", type(model).__name__, "has no layer to rotate", "leave less in skip"
        )
    return layers


def require_once_more(model: nn.Module, names: Iterable[str], factor: str, depthwise: bool) -> None:
    """Raise UserError where one of these layers is a bottleneck that cannot be rotated once more in
    this way.
    """
    for name in names:
        layer = model.get_submodule(name)
        if not is_bottleneck(layer):
            continue
        if factor == "patch" and layer.core.weight[0, 0].numel() > 1:
            raise UserError(
                "factor",
                factor,
                f"the core of {name!r} has a kernel of its own, which no 1x1 basis merges with",
                "choose one factor for all steps",
            )
        if depthwise:
            raise UserError(
                "depthwise",
                True,
                f"{name!r} is a bottleneck already",
                "take the depthwise step at the first pruning",
            )


def factors_of(module: nn.Module, QA: Tensor, W: Tensor, QS: Tensor) -> list[Tensor]:
    """[first, core, last], the weights of a bottleneck of the layer's own kind, from the kept bases
    QA [in, a] and QS [out, r] and the core W [r, a, offsets].
    """
    if not isinstance(module, CONVOLUTIONS):
        return [QA.T, W[..., 0], QS]
    # whole: A spans the patch, so the first layer has the kernel
    kernel, whole = module.kernel_size, W.shape[2] == 1
    point = (1,) * len(kernel)
    return [
        QA.T.reshape(QA.shape[1], module.in_channels, *(kernel if whole else point)),
        W.reshape(*W.shape[:2], *(point if whole else kernel)),
        QS.reshape(*QS.shape, *point),
    ]


def larger(model: nn.Module, name: str, weights: list[Tensor]) -> str:
    """A note that the layer `name` stays dense, because these weights are more than it has; "" for
    one that becomes smaller, and for a bottleneck, which only ever does."""
    layer = model.get_submodule(name)
    after = sum(weight.numel() for weight in weights)
    if is_bottleneck(layer) or after <= layer.weight.numel():
        return ""
    return (
        f"{name}: left dense, its bottleneck would have {after} weights for {layer.weight.numel()}"
    )


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
