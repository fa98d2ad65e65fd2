"""Cells that differ only in the amount or the update have one Fisher: inside `sharing()` the last
one is kept and used again.

It is known by its contents (weights, masks, data, order, options, generator), so a hit is what
would be computed. Off unless asked for, because rows are large: one shared Fisher of ResNet-20
holds a gigabyte. Timings of a cell that found its Fisher ready do not contain it; the record's
notes say so.
"""

from __future__ import annotations

import dataclasses
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
    """Keep the last Fisher inside."""
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
    options: object,
    generator: torch.Generator,
    masks: Mapping[str, Tensor] | None,
) -> tuple | None:
    """What decides a Fisher; None where sharing is off, or the data does not say what it is."""
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
    return sha.hexdigest(), calibration.dataset, dataclasses.astuple(options)
