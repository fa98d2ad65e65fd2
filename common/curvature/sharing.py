"""One estimate of a Fisher for several cells: inside `sharing()` the last one is kept and used
again.

Cells that differ only in the amount or the update ask for the same Fisher. It is known by its
contents (weights, masks, data and their order, settings, generator), so what is found is what would
be computed. Nothing is kept unless asked for, because rows are large: those of ResNet-20 take a
gigabyte. The timing of a cell that finds its Fisher ready leaves the estimate out; its record's
notes say so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from common.curvature.blocks import BlockFisher

_kept: ContextVar[dict | None] = ContextVar("shared Fisher", default=None)
NOTE = "the Fisher was ready from another cell; prune_s leaves its time out"


@contextmanager
def sharing() -> Iterator[None]:
    """Keep the last estimate that is made inside."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def find(key: tuple) -> list[BlockFisher] | None:
    """The curvatures kept under `key`; anything else that was kept is let go, to make room."""
    kept = _kept.get()
    if kept is not None and key not in kept:
        kept.clear()
    return None if kept is None else kept.get(key)


def keep(key: tuple, curvatures: list[BlockFisher]) -> None:
    """Keep them if sharing is on."""
    kept = _kept.get()
    if kept is not None:
        kept[key] = curvatures


def key(
    model: nn.Module,
    calibration: Iterable,
    settings: tuple,
    generator: torch.Generator,
    masks: Mapping[str, Tensor] | None,
) -> tuple | None:
    """What decides an estimate, `settings` among it; None where sharing is off, or where the data
    does not say which examples it holds in which order.
    """
    batches = getattr(calibration, "batch_sampler", None)
    if _kept.get() is None or not isinstance(batches, list):
        return None
    sha = hashlib.sha256()
    for name, tensor in [
        *model.state_dict().items(),
        *sorted((masks or {}).items()),
        ("generator", generator.get_state()),
    ]:
        sha.update(name.encode())
        sha.update(
            tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            if tensor.dim()
            else repr(tensor.item()).encode()
        )
    sha.update(repr(batches).encode())
    return sha.hexdigest(), calibration.dataset, getattr(calibration, "task", None), settings
