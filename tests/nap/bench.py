"""What keeping up the statistics costs: the training between two prunings with an update at every
step beside the same without.

    python -m tests.nap.bench [--rounds 3] [--output cost.json]

One thread, measured in turn in CPU seconds; the cells' own minibatches of 128, T and options,
random images (the cost does not depend on what they show). `updates` of the T steps are taken:
those before weigh less than 0.1% at the pruning.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import torch

from common.cells.errors import Parser, whole
from common.cells.spec import Recipe
from common.data.images import Images
from common.data.sources import Data
from common.nets import layers as L
from common.nets import models
from common.pruning.pruned import Pruned
from common.running import train as T
from common.system import machine
from nap.method import Options
from nap.statistics import Statistics, factors_of, pack

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
CASES = (
    ("lenet300", MNIST, 469, 0),
    ("lenet300", MNIST, 938, 0),
    ("lenet5", MNIST, 469, 32),
    ("lenet5", MNIST, 938, 32),
    ("cifarnet", CIFAR, 117, 32),
    ("cifarnet", CIFAR, 195, 16),
    ("vgg16:width=0.25", CIFAR, 20, 32),
    # network, input, T in steps, examples of the minibatch that an update reads (0: all)
    ("resnet20", CIFAR, 12, 32),
)


def seconds(
    name: str, shape: tuple[int, ...], steps: int, options: Options | None
) -> tuple[float, int]:
    """(CPU seconds of a stretch of training, updates of the statistics); without statistics where
    there are no options.
    """
    g = torch.Generator().manual_seed(0)
    part = Images(
        torch.rand(128 * 8, *shape, generator=g), torch.randint(10, (128 * 8,), generator=g), 10
    )
    data = Data(name, 10, shape, part, Images(part.images[:10], part.labels[:10], 10), "")
    model = models.build(name, 10, shape, 0)
    watch = []
    if options is not None:
        latent = pack(
            factors_of(model, data.calibration(128, 128), L.prunable(model), options, g, None)
        )
        watch = [Statistics(Pruned(model, latent=latent), options, 0)]
    start = time.process_time()
    T.fit(
        model,
        data,
        Recipe(epochs=steps / 8, lr=0.01, batch_size=128),
        callbacks=watch,
        before=(0.0, 0.0),
    )
    return time.process_time() - start, watch[0].estimator.updates if watch else 0


def main(argv: list[str] | None = None) -> int:
    """Print a table, and write it as JSON with --output."""
    p = Parser(description=__doc__)
    p.add_argument(
        "--rounds",
        type=whole(),
        default=3,
        help="times each side is timed; the median counts (default: 3)",
    )
    p.add_argument("--output", type=Path, help="also write the numbers here")
    a = p.parse_args(argv)
    torch.set_num_threads(1)
    rows = []
    for name, shape, steps, examples in CASES:
        pairs = [
            (
                seconds(name, shape, steps, None)[0],
                seconds(name, shape, steps, Options(examples=examples)),
            )
            for _ in range(a.rounds)
        ]
        plain, watched = (
            statistics.median(times)
            for times in ([p for p, _ in pairs], [w for _, (w, _) in pairs])
        )
        rows.append(
            {
                "network": name,
                "T": steps,
                "examples": examples or 128,
                "updates": pairs[0][1][1],
                "step_ms": round(1e3 * plain / steps, 2),
                "added_pct": round(100 * (watched / plain - 1), 1),
            }
        )
        print(rows[-1], flush=True)
    if a.output:
        a.output.write_text(
            json.dumps(
                {"machine": machine.provenance(torch.device("cpu"), 0, ""), "rows": rows}, indent=1
            )
            + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
