"""What a network costs: weights and multiply-accumulates (MACs) per layer for one image, dense and
with zeros left out.

A weight of a convolution or linear layer costs one MAC at each output position (of a transposed
convolution: at each input position), so a layer's MACs are weights × positions, grouped
convolutions included. What else multiplies matrices (attention, recurrent layers, functional calls)
is counted by torch's own counter and kept whole. Biases, BatchNorm, activations and pooling add no
MACs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from common.cells.errors import LayerError, UserError
from common.nets import attention
from common.nets.assumptions import Given, one_example
from common.nets.layers import kind, weighted


@dataclass(frozen=True)
class LayerCost:
    """One layer. params: its weights, without bias. nonzero: those that the mask keeps, or that are
    not zero where there is no mask. macs, nonzero_macs: the same times output positions, summed
    over every call of the layer."""

    name: str
    params: int
    nonzero: int
    macs: int
    nonzero_macs: int


@dataclass(frozen=True)
class Costs:
    """All layers in definition order. model_params: every parameter of the model, biases and
    BatchNorm included. other_macs: of one image in products outside of these layers.
    """

    layers: list[LayerCost] = field(default_factory=list)
    model_params: int = 0
    other_macs: int = 0

    @property
    def params(self) -> int:
        """Weights of all layers."""
        return sum(layer.params for layer in self.layers)

    @property
    def kept_params(self) -> int:
        """Weights of all layers that are kept."""
        return sum(layer.nonzero for layer in self.layers)

    @property
    def macs(self) -> int:
        """MACs of one image, zeros included."""
        return sum(layer.macs for layer in self.layers) + self.other_macs

    @property
    def nonzero_macs(self) -> int:
        """MACs of one image in kept weights and outside of the layers."""
        return sum(layer.nonzero_macs for layer in self.layers) + self.other_macs


def costs(
    model: nn.Module,
    example: tuple[int, ...] | Tensor | Given,
    masks: Mapping[str, Tensor] | None = None,
) -> Costs:
    """Count `model` on one image of the shape (c, h, w), or on an example [1, ...] of any kind, in
    evaluation mode, where the model lies (the meta device too, whose weights all count as kept).
    The model is left as it was.

    masks: parameter name -> bool, True = kept; only "<layer>.weight" matters. Raises UserError for
    a mask that fits no parameter of the model, LayerError where two layers share one weight.
    """
    layers, masks = weighted(model), masks or {}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, mask in masks.items():
        if name not in parameters:
            raise UserError("masks", name, "the model has no such parameter")
        if mask.shape != parameters[name].shape:
            raise UserError(
                "masks",
                name,
                f"has shape {tuple(mask.shape)}, the parameter {tuple(parameters[name].shape)}",
            )
    positions = dict.fromkeys(layers, 0)

    def count(name: str):
        def hook(module: nn.Module, inputs: tuple, kwargs: dict, output: Tensor) -> None:
            if not torch.is_tensor(output):
                raise LayerError(name, f"gives a {type(output).__name__}, not a tensor")
            x = inputs[0] if inputs else kwargs["input"]
            positions[name] += kind(module).uses(module, x, output)

        return hook

    with (
        _evaluating(model),
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),  # matrix products, which the counter sees
        FlopCounterMode(display=False) as counter,
    ):
        handles = [
            layer.register_forward_hook(count(name), with_kwargs=True)
            for name, layer in layers.items()
        ]
        try:
            like = next(model.parameters(), torch.empty(0))
            x = torch.zeros(1, *example) if isinstance(example, (tuple, list)) else example
            plain = torch.is_tensor(x) and x.is_floating_point()
            one_example(model, x.to(like.device, like.dtype) if plain else x.to(like.device))
        finally:
            for handle in handles:
                handle.remove()
    counted = []
    for name, layer in layers.items():
        params, kept = layer.weight.numel(), _kept(layer.weight, masks.get(f"{name}.weight"))
        counted.append(
            LayerCost(name, params, kept, params * positions[name], kept * positions[name])
        )
    # what stands in the place of attention's projection while the layer is called costs as much
    twice = attention.projections(model)
    other = counter.get_total_flops() // 2 - sum(
        layer.macs * (1 + (layers[layer.name] in twice)) for layer in counted
    )
    return Costs(counted, sum(parameter.numel() for parameter in model.parameters()), max(0, other))


def _kept(weight: Tensor, mask: Tensor | None) -> int:
    if mask is not None:
        return int(torch.count_nonzero(mask))
    return weight.numel() if weight.is_meta else int(torch.count_nonzero(weight.detach()))


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; every module's own mode is put back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
