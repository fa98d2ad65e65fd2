"""How long networks take on an input, measured side by side: one call of each in turn, round after
round, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from common.cells.errors import UserError


@torch.inference_mode()
def medians(
    runs: Mapping[str, Callable[[Tensor], object]], x: Tensor, rounds: int = 30, warmup: int = 3
) -> dict[str, float]:
    """Median seconds of one call by name. Networks must be in evaluation mode; torch's thread count
    is left as it is.
    """
    if rounds < 1:
        raise UserError("rounds", rounds, "must be at least 1")
    for name, run in runs.items():
        if getattr(run, "training", False):
            raise UserError("latency", name, "is in training mode", "call eval() first")
        for _ in range(warmup):
            run(x)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            _wait(x)
            start = time.perf_counter()
            run(x)
            _wait(x)
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
