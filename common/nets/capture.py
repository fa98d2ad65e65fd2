"""Capture what curvature is made of: each layer's input, and the gradient of a loss in each layer's
output.

What the formulas take for granted of the network is tried on its first batch (assumptions.py).

Only activations are differentiated: the parameters are frozen meanwhile, so no weight gradient is
computed, `.grad` is never touched, and the first layer's input needs no gradient either. Mode,
flags and hooks are restored in `finally`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from common.cells.errors import LayerError, NumericalError, UserError
from common.nets import assumptions
from common.nets import layers as L


class Tape:
    """What one forward pass, and the backward passes after it, left behind. Made by `capture`."""

    def __init__(self, model: nn.Module, layers: dict[str, nn.Module]):
        self._model, self._layers = model, layers
        self._inputs: dict[str, tuple[Tensor, int]] = {}
        self._gradients: dict[str, Tensor] = {}
        self._leaves: list[Tensor] = []
        self._trying = False  # a trial pass is not captured
        self._running = False  # nor what gradient checkpointing computes again in a backward pass

    def forward(self, x: Tensor | assumptions.Given) -> Tensor | object:
        """Run the model, forgetting what was captured before; its predictions, or all that it gives
        where the loss reads that. Raises LayerError for a layer used
        twice or not at all, and where the network breaks an assumption (assumptions.py).
        """
        if x.is_inference():
            x = x.clone()  # autograd saves no tensor of inference mode
        self._trying = True
        try:
            with _failures_told(self._model, x):
                assumptions.check(self._model, self._layers, x)
        finally:
            self._trying = False
        self._inputs, self._gradients, self._leaves = {}, {}, []
        self._running = True
        try:
            with _failures_told(self._model, x):
                output = assumptions.output_of(self._model, x)
        finally:
            self._running = False
        for name in self._layers:
            if name not in self._inputs:
                raise LayerError(name, "saw no input in the forward pass; name it in skip")
        return output

    def backward(self, loss: Tensor, retain: bool = False) -> None:
        """Gradients of `loss` in every layer's output; for a loss summed over the batch they are
        per example.
        """
        self._gradients = {}
        if not (loss.requires_grad and self._leaves):
            raise LayerError(next(iter(self._layers)), "its output does not reach the loss")
        torch.autograd.grad(loss, self._leaves, retain_graph=retain, allow_unused=True)

    def input(self, name: str) -> Tensor:
        """The layer's input, [batch, ...], float32 at least. Raises LayerError if it was
        overwritten in place since.
        """
        x, version = self._inputs[name]
        if x._version != version:
            raise LayerError(
                name,
                "its input was changed in place after the layer read it; use inplace=False there",
            )
        return L.at_least_single(x)

    def gradient(self, name: str) -> Tensor:
        """The last backward pass's gradient in the layer's output, [batch, ...], float32 at
        least.
        """
        if name not in self._gradients:
            raise LayerError(name, "its output does not reach the loss")
        return L.at_least_single(self._gradients[name])

    def _see_input(self, name: str, x: Tensor) -> None:
        if not self._running:
            return
        if name in self._inputs:
            raise LayerError(name, assumptions.USED_TWICE)
        self._inputs[name] = (x.detach(), x._version)

    def _see_output(self, name: str, output: Tensor) -> Tensor:
        if self._trying:
            return output
        if not torch.is_grad_enabled():
            raise LayerError(
                name,
                "runs without gradients (torch.no_grad in the forward pass, or re-entrant gradient "
                "checkpointing); switch that off",
            )
        if not output.requires_grad:
            leaf = output.detach().requires_grad_()
            if self._running:
                self._leaves.append(leaf)
            output = leaf.clone()  # not the leaf itself: a later in-place ReLU may change it
        if not self._running:
            return output
        # a tensor hook, unlike autograd.grad(loss, output), still means this output after an
        # in-place ReLU
        output.register_hook(lambda g: self._gradients.__setitem__(name, g))
        return output


@contextmanager
def _failures_told(model: nn.Module, x: Tensor | assumptions.Given) -> Iterator[None]:
    """Turns what goes wrong in a network's own forward pass into a UserError; what the machine
    lacks stays as it is."""
    try:
        yield
    except (UserError, LayerError, NumericalError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if "MPS" in str(error):
            raise
        shapes = [x] if torch.is_tensor(x) else x.tensors()
        line = next(iter(str(error).splitlines()), "")
        raise UserError(
            "model",
            type(model).__name__,
            f"fails on inputs of shape {', '.join(str(tuple(each.shape)) for each in shapes)} "
            f"({type(error).__name__}: {line})",
            "give inputs as the network takes them",
        ) from error


@contextmanager
def capture(
    model: nn.Module, layers: dict[str, nn.Module], gradients: bool = True
) -> Iterator[Tape]:
    """A Tape over `layers` (name -> module of `model`), in evaluation mode; `gradients=False`
    records inputs only.
    """
    tape = Tape(model, layers)
    modes = {module: module.training for module in model.modules()}
    frozen = {parameter: parameter.requires_grad for parameter in model.parameters()}
    hooks = []
    try:
        model.eval()
        for parameter in frozen:
            parameter.requires_grad_(False)
        for name, module in layers.items():
            hooks.append(
                module.register_forward_pre_hook(
                    lambda module, args, kwargs, name=name: tape._see_input(
                        name, assumptions.read(name, module, args, kwargs)
                    ),
                    with_kwargs=True,
                )
            )
            if gradients:
                hooks.append(
                    module.register_forward_hook(
                        lambda _, args, out, name=name: tape._see_output(name, out)
                    )
                )
        with torch.inference_mode(False), torch.set_grad_enabled(gradients):
            yield tape
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, flag in frozen.items():
            parameter.requires_grad_(flag)
        for module, training in modes.items():
            module.training = training
