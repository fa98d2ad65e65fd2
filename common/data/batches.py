"""What a loader gives, brought to one form: pairs of tensors (inputs [batch, ...], labels [batch,
...]).

Every estimator reads its data through here, so that a loader of another form is told so in the same
words whatever is estimated. A Calibration (task.py) gives batches of any form as such pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from common.cells.errors import UserError
from common.data.task import Inputs


def batches(loader: Iterable) -> Iterator[tuple[Tensor, Tensor]]:
    """The loader's batches as (inputs, labels), without empty ones. NumPy arrays and lists of
    numbers become tensors.

    Raises UserError (field "calibration") for batches that are no such pairs.
    """
    if not isinstance(loader, Iterable):
        raise UserError(
            "calibration", type(loader).__name__, "cannot be read", "give batches (inputs, labels)"
        )
    for batch in loader:
        canonical = isinstance(batch, tuple) and batch and isinstance(batch[0], Inputs)
        x, y = batch if canonical else _pair(batch)
        if len(x):
            yield x, y


def first(loader: Iterable) -> tuple[Tensor, Tensor]:
    """The first batch of a loader that can be read again. Raises UserError where there is none."""
    for batch in batches(loader):
        return batch
    raise UserError("calibration", 0, "no batch was seen", "give at least one example")


def _pair(batch: object) -> tuple[Tensor, Tensor]:
    if isinstance(batch, Mapping):
        keys = [*map(repr, batch), "...", "..."]
        raise UserError(
            "calibration",
            type(batch).__name__,
            "its batches are no pairs (inputs, labels)",
            f"give [(batch[{keys[0]}], batch[{keys[1]}]) for batch in loader], or prune by "
            "common.prune, which takes any batch",
        )
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        raise UserError(
            "calibration",
            type(batch).__name__ + size,
            "its batches are no pairs (inputs, labels)",
            "give [(batch[0], batch[1]) for batch in loader]",
        )
    x, y = _tensor("inputs", batch[0]), _tensor("labels", batch[1])
    if not x.dim() or not y.dim() or len(x) != len(y):
        raise UserError(
            "calibration",
            f"{tuple(x.shape)}, {tuple(y.shape)}",
            "a batch has not as many labels as inputs",
            "give inputs [batch, ...] and labels [batch]",
        )
    return x, y


def _tensor(field: str, value: object) -> Tensor:
    try:
        tensor = torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError):
        raise UserError(
            "calibration",
            type(value).__name__,
            f"the {field} of a batch are no tensor",
            f"give one tensor [batch, ...] of {field}",
        ) from None
    if tensor.layout != torch.strided or tensor.is_meta:
        raise UserError(
            "calibration",
            "meta" if tensor.is_meta else str(tensor.layout),
            f"the {field} of a batch are not all there",
            "give x.to_dense(), or inputs that hold values",
        )
    return tensor
