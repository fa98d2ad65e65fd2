"""What pruning a network takes of memory: `python -m tests.trust.peak METHOD NETWORK` prints, for
a budget that just does not hold the forecast and for one that just does, the forecast, the resident
memory above the start at its peak, both in MB, and the refusal, if there was one.
"""

import ctypes
import gc
import json
import sys
import typing

import torch
from torch import nn

from common.cells import registry
from common.cells.errors import UserError
from common.curvature import memory
from common.nets import layers as L
from common.pruning import channels
from common.system import machine
from tests import toy

ROWS = 40


def wide(width: int) -> nn.Module:
    """One square layer, and narrow ones before and behind it."""
    return nn.Sequential(
        nn.Linear(48, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def deep(width: int) -> nn.Module:
    """Four layers of one size."""
    layers = [nn.Linear(48, width), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def convolutions(width: int) -> nn.Module:
    """Kernels that unfold nine times, with BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(3, width // 4, 3, padding=1),
        nn.BatchNorm2d(width // 4),
        nn.ReLU(),
        nn.Conv2d(width // 4, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 10),
    )


# what to make, how wide, how wide for a first try that loads what libraries load once
NETWORKS = {
    "wide": (wide, 1_000, 24, (48,)),
    "deep": (deep, 500, 24, (48,)),
    "convolutions": (convolutions, 128, 8, (3, 6, 6)),
    "kernels": (convolutions, 256, 8, (3, 6, 6)),
}


def prune(method: str, model: nn.Module, shape: tuple[int, ...], fraction: float) -> dict:
    """The two numbers."""
    entry, function = registry.lookup(method), registry.load(method)
    rows = {"num_rows": ROWS, "fisher_batch_size": 1} if entry.curvature == "rows" else {}
    options = typing.get_type_hints(function)["options"](**entry.preset, **rows)
    g = toy.generator()
    loader = [(torch.randn(24, *shape, generator=g), torch.arange(24) % 10) for _ in range(8)]
    layers = L.prunable(model)
    if entry.kind == "channels":  # those whose channels can go
        found = channels.find(model, loader[0][0]).layers
        layers = {name: layers[name] for name in found}
    sizes = [module.weight.numel() for module in layers.values()]
    forecast = (
        4 * ROWS * sum(sizes) + memory.rows_work(sizes, ROWS, options.chunk)
        if rows
        else memory.peak(entry.curvature, layers, options)
    )
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    machine.reset_peak_memory()
    start, said = machine.resident_gb() * 1024, ""
    with machine.memory_budget(fraction * forecast / 2**30):
        try:
            function(model, loader, 0.5, options, g)
        except UserError as error:
            said = str(error)
    return {
        "forecast": round(forecast / 2**20, 1),
        "peak": round(machine.peak_memory_mb() - start, 1),
        "said": said,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    make, width, small, shape = NETWORKS[sys.argv[2]]
    found = []
    for size, fraction in ((small, 1e6), (width, 0.9), (width, 1.01)):
        torch.manual_seed(0)
        found.append(prune(sys.argv[1], make(size).eval(), shape, fraction))
    sys.stdout.write(json.dumps(found[1:]))
