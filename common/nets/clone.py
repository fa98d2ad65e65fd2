"""A copy of a network, with weights of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from common.cells.errors import UserError


def clone(model: nn.Module) -> nn.Module:
    """The model, deeply copied. Outputs that its modules keep come along without their graph, which
    torch does not copy. Raises UserError for a model that holds something without a copy."""
    kept = {
        id(tensor): tensor.detach().clone()
        for module in model.modules()
        for tensor in _tensors(vars(module))
        if tensor.grad_fn is not None
    }
    try:
        return copy.deepcopy(model, kept)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            "model",
            type(model).__name__,
            f"cannot be copied ({str(error).splitlines()[0]})",
            "take what it keeps beside weights and buffers out of its attributes",
        ) from error


def _tensors(value: object) -> Iterator[Tensor]:
    """The tensors in an attribute, its lists and its dicts."""
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
