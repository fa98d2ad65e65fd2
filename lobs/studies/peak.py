"""Peak memory of tensors alone, whatever else the process holds."""

from __future__ import annotations

import weakref

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class PeakBytes(TorchDispatchMode):
    """Peak bytes of the tensors that operations inside the block return and that are alive at
    once.
    """

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                self._see(tensor)
        return result

    def _see(self, tensor: Tensor) -> None:
        place, size = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
        if place not in self._alive:
            self.now += size
            self.peak = max(self.peak, self.now)
        self._alive[place] = self._alive.get(place, 0) + 1
        weakref.finalize(tensor, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self._alive[place] -= 1
        if not self._alive[place]:
            del self._alive[place]
            self.now -= size
