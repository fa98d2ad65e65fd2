"""What keeping up the statistics costs: a training step with an update every k steps beside one without, measured in turn.

    python -m tests.nap.bench [--data-dir ...]

One thread, the cells' own minibatches and options, MNIST-shaped random images (the cost does not depend on what they show).
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import torch

from common import layers as L
from common import machine, models
from common import train as T
from common.data import Data
from common.errors import Parser, whole
from common.images import Images
from common.pruned import Pruned
from common.spec import Recipe
from nap.method import Options, factors_of
from nap.statistics import Statistics, pack

NETWORKS = {"lenet300": ((1, 28, 28), 150, {}), "lenet5": ((1, 28, 28), 48, {"examples": 32}),
            "cifarnet": ((3, 32, 32), 24, {"examples": 32})}  # input, steps a measurement, options of the cells
EVERY = (0, 1, 8, 16, 32)  # 0: no statistics


def seconds_a_step(name: str, every: int) -> float:
    """CPU seconds of one training step."""
    shape, steps, options = NETWORKS[name]
    g = torch.Generator().manual_seed(0)
    part = Images(torch.rand(128 * 8, *shape, generator=g), torch.randint(10, (128 * 8,), generator=g), 10)
    data = Data(name, 10, shape, part, Images(part.images[:10], part.labels[:10], 10), "")
    model = models.build(name, 10, shape, 0)
    chosen = Options(every=every or 1, **options)
    latent = pack(factors_of(model, data.calibration(128, 128), L.prunable(model), chosen, g, None))
    watch = [Statistics(Pruned(model, latent=latent), chosen, 0)] if every else []
    start = time.process_time()
    T.fit(model, data, Recipe(epochs=steps / 8, lr=0.01, batch_size=128), callbacks=watch, before=(0.0, 0.0))
    return (time.process_time() - start) / steps


def main(argv: list[str] | None = None) -> int:
    """Print a table, and write it as JSON with --output."""
    p = Parser(description=__doc__)
    p.add_argument("--rounds", type=whole(), default=3, help="times each side is timed; the median counts (default: 3)")
    p.add_argument("--output", type=Path, help="also write the numbers here")
    a = p.parse_args(argv)
    torch.set_num_threads(1)
    rows = []
    for name, (_, _, options) in NETWORKS.items():
        measured: dict[int, list[float]] = {k: [] for k in EVERY}
        for _ in range(a.rounds):
            for k in EVERY:
                measured[k].append(seconds_a_step(name, k))
        plain = statistics.median(measured[0])
        for k in EVERY[1:]:
            share = statistics.median(measured[k]) / plain - 1
            rows.append({"network": name, "examples": options.get("examples", 128), "every": k, "step_ms": round(1e3 * plain, 2),
                         "added_pct": round(100 * share, 1)})
            print(rows[-1], flush=True)
    if a.output:
        a.output.write_text(json.dumps({"machine": machine.provenance(torch.device("cpu"), 0, ""), "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
