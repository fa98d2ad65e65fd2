"""Gradient rows in a file: what the memory budget does not hold goes to disk, and comes back a few
columns at a time.

The file has no name, so the system frees it however the process ends; the environment variable
TMPDIR says on which disk it lies. Reading and writing do not map it: its pages never count as the
process's memory.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from common.cells.errors import UserError
from common.nets import layers as L

_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


class _File:
    """An unnamed file of `size` bytes; UserError where the disk has no room for it."""

    def __init__(self, size: int):
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if size > free:
            raise UserError(
                "memory_budget",
                round(free / 2**30, 1),
                f"gradient rows of {size / 2**30:.1f} GB fit neither into memory nor onto the "
                "disk of the temporary files",
                "lower --num-samples, raise --memory-budget, or set TMPDIR to a larger disk",
            )
        self.handle = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  lives as long as its rows

    def write(self, data: memoryview, at: int) -> None:
        """All of `data`, from byte `at` on."""
        self.handle.seek(at)
        while data:  # a call may be cut short
            data = data[self.handle.write(data) :]

    def read(self, data: memoryview, at: int) -> None:
        """Fill `data` from byte `at` on."""
        self.handle.seek(at)
        while data:
            done = self.handle.readinto(data)
            if not done:
                raise ValueError("these rows were never written")
            data = data[done:]


class SpooledRows:
    """Rows [m, d] of a file, or some columns of them. Takes whole rows (`rows[3:5] = ...`), gives
    columns (`rows[:, 10:20]`).

    `gone`: bool [d], weights whose gradients are written as zero. The range of what was written is
    kept (`aminmax`).
    """

    def __init__(
        self, count: int, size: int, dtype: torch.dtype, device: torch.device | None = None
    ):
        self.shape, self.dtype, self.device = (
            (count, size),
            _NUMPY[dtype],
            device or torch.device("cpu"),
        )
        self.start, self.total = 0, size
        self.gone: Tensor | None = None
        self.range = (math.inf, -math.inf)
        self.file = _File(count * size * self._bytes)

    @property
    def _bytes(self) -> int:
        return np.dtype(self.dtype).itemsize

    def columns(self, start: int, stop: int, gone: Tensor | None = None) -> SpooledRows:
        """The columns from start to stop, in the same file."""
        part = object.__new__(SpooledRows)
        part.__dict__ |= self.__dict__ | {
            "shape": (self.shape[0], stop - start),
            "start": self.start + start,
            "gone": gone,
        }
        return part

    def _offset(self, row: int, column: int) -> int:
        return (row * self.total + self.start + column) * self._bytes

    def __setitem__(self, where: slice, rows: Tensor) -> None:
        rows = rows if self.gone is None else rows.masked_fill(self.gone.to(rows.device), 0)
        low, high = (float(edge) for edge in rows.aminmax())
        self.range = (
            (min(self.range[0], low), max(self.range[1], high))
            if low == low
            else (math.nan, math.nan)
        )
        for row, values in zip(
            range(*where.indices(self.shape[0])),
            rows.cpu().numpy().astype(self.dtype, copy=False),
            strict=True,
        ):
            self.file.write(
                memoryview(np.ascontiguousarray(values)).cast("B"), self._offset(row, 0)
            )

    def __getitem__(self, key: tuple[slice, slice]) -> Tensor:
        rows, columns = key[0].indices(self.shape[0]), key[1].indices(self.shape[1])
        result = np.empty((len(range(*rows)), columns[1] - columns[0]), self.dtype)
        for values, row in zip(result, range(*rows), strict=True):
            self.file.read(memoryview(values).cast("B"), self._offset(row, columns[0]))
        return torch.from_numpy(result).to(self.device)

    def aminmax(self) -> tuple[Tensor, Tensor]:
        """The least and largest entry that was written; NaN if any was."""
        return torch.tensor(self.range[0], dtype=torch.float64), torch.tensor(
            self.range[1], dtype=torch.float64
        )

    def any(self) -> bool:
        """Whether any entry that was written is not zero."""
        return self.range != (0.0, 0.0)


def spooled(
    layers: Mapping[str, nn.Module], count: int, gone: Mapping[str, Tensor]
) -> tuple[SpooledRows, dict[str, SpooledRows]]:
    """(rows over all layers' weights one after the other, each layer's part of them by name), in
    one file.

    gone: by layer name, which weights' gradients stay zero (flat).
    """
    like = next(iter(layers.values())).weight
    together = SpooledRows(
        count,
        sum(module.weight.numel() for module in layers.values()),
        L.single(like.dtype),
        like.device,
    )
    parts, start = {}, 0
    for name, module in layers.items():
        parts[name] = together.columns(start, start + module.weight.numel(), gone.get(name))
        start += module.weight.numel()
    return together, parts
