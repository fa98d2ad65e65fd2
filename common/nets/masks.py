"""Masks: a plain dict from parameter name to a bool tensor of its shape, True where the weight is
kept. No wrappers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from common.cells.errors import UserError
from common.nets import layers as L

Masks = dict[str, Tensor]


def _parameters(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
    """The masked parameters, checked for name and shape."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, mask in masks.items():
        if name not in parameters:
            raise UserError("mask", name, "the model has no such parameter")
        if parameters[name].shape != mask.shape or mask.dtype != torch.bool:
            raise UserError(
                "mask",
                name,
                f"is {mask.dtype} {tuple(mask.shape)}, the parameter "
                f"{tuple(parameters[name].shape)}",
            )
    return {name: parameters[name] for name in masks}


def require_none(masks: Mapping[str, Tensor] | None, deed: str) -> None:
    """UserError where single weights were removed before, for a method that changes the shape of
    layers. deed: what it does, "remove units from" (a network).
    """
    if masks:
        raise UserError(
            "masks",
            sorted(masks)[0],
            "single weights were masked before",
            f"{deed} a network without masks",
        )


@torch.no_grad()
def apply(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set every masked weight to exactly zero (whatever it was: NaN too)."""
    for name, parameter in _parameters(model, masks).items():
        parameter.masked_fill_(~masks[name].to(parameter.device), 0)


def by_layer(layers: Mapping[str, nn.Module], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Which weights of each layer are there, [groups, out, in]; all of them where there is no
    mask."""
    result = {}
    for name, module in layers.items():
        mask = masks.get(f"{name}.weight")
        mask = torch.ones_like(module.weight, dtype=torch.bool) if mask is None else mask
        result[name] = L.to_matrix(module, mask.to(module.weight.device))
    return result


class Hold:
    """Keeps masked weights at zero through training: call before the first step and after every
    optimiser step.

    Weights are zeroed again after the step, which undoes gradient, momentum and weight decay alike,
    and the optimiser's own state (momentum, Adam moments) is zeroed there too, so that nothing is
    left to revive them if a mask is lifted.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]):
        parameters = _parameters(model, masks)
        self._pairs = [(p, ~masks[name].to(p.device)) for name, p in parameters.items()]

    @torch.no_grad()
    def __call__(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        for parameter, gone in self._pairs:
            parameter.masked_fill_(gone, 0)
            for value in (optimizer.state.get(parameter, {}) if optimizer else {}).values():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    value.masked_fill_(gone, 0)


def attach(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """The model, in place, with its masks as torch.nn.utils.prune keeps them: <name>_orig beside
    <name>_mask, until prune.remove makes them permanent."""
    _parameters(model, masks)
    for name, mask in masks.items():
        layer, _, parameter = name.rpartition(".")
        module = model.get_submodule(layer)
        prune.custom_from_mask(module, parameter, mask.to(getattr(module, parameter)))
    return model


def nested(inner: Mapping[str, Tensor], outer: Mapping[str, Tensor]) -> bool:
    """Whether everything `inner` keeps is kept by `outer` too: pruning went on and revived
    nothing.
    """
    return all(bool((~mask | outer[name]).all()) for name, mask in inner.items() if name in outer)


def sparsity(masks: Mapping[str, Tensor]) -> float:
    """Fraction of the masked tensors' entries that is removed."""
    total = sum(mask.numel() for mask in masks.values())
    return 1 - sum(int(mask.sum()) for mask in masks.values()) / total if total else 0.0


def digest(masks: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes and bits: equal exactly when the masks are."""
    sha = hashlib.sha256()
    for name in sorted(masks):
        sha.update(f"{name} {tuple(masks[name].shape)} ".encode())
        sha.update(masks[name].cpu().contiguous().to(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
