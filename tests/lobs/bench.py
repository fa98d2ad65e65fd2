"""Hessian and inverse of every layer of LeNet-300-100 from all of MNIST's training images, against
the textbook recursion.

    python -m tests.lobs.bench [--samples 2000] [--json FILE]

It also sets the Hessian of a convolution beside the product of its own patches, which are formed
before the clock starts.

The recursion (Sec. 3.4.1 of L-OBS: one rank-one update an image) is timed on the first `samples`
images and scaled up, since each of its steps costs the same; its result on those images is held to
ours first. Times are of the processor, over all threads, so that other work on the machine does not
count, and medians over rounds in which the two take turns: the recursion's temporaries of 5 MB make
it up to four times slower where the allocator hands their pages back after every step.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

from common.cells.errors import Parser, whole
from common.cells.record import write_json
from common.curvature.kron import input_moment
from common.curvature.shared import DenseMatrix
from common.data import sources as D
from common.nets import layers as L
from common.nets import models
from common.nets.capture import capture
from common.system import machine
from lobs.hessian import Layer, layer_statistics
from tests.lobs import reference

ALPHA, BATCH, ROUNDS = 1e6, 1_000, 5
CONVOLUTIONS = (
    (20, 24, 5, 1, 64),
    (16, 32, 3, 1, 64),
    (64, 8, 3, 1, 64),
    (16, 32, 3, 2, 64),
    (64, 56, 1, 1, 8),
    (128, 28, 3, 1, 8),
)


def ours(model, loader) -> dict:
    """Statistics and inverse of every layer."""
    seen = layer_statistics(model, loader, L.prunable(model), True, BATCH)
    return {name: Layer.of(name, one, 1 / ALPHA).problems[0].matrix for name, one in seen.items()}


def measure(samples: int, total: int) -> dict:
    """Seconds of both, and their ratio for `total` images."""
    data = D.load("mnist")
    model = models.build("lenet300", data.classes, data.input_shape, 0).eval()
    layers = L.prunable(model)
    loader = data.calibration(samples, samples)
    with capture(model, layers, gradients=False) as tape:
        tape.forward(next(iter(loader))[0])
    rows = {
        name: reference.rows_of(module, tape.input(name).reshape(samples, -1), True)[0].double()
        for name, module in layers.items()
    }
    textbook = {name: reference.woodbury(x, ALPHA) for name, x in rows.items()}
    for name, x in rows.items():
        exact = DenseMatrix(x.T @ x / samples, 1 / ALPHA, name).inverse
        torch.testing.assert_close(
            textbook[name], exact, rtol=1e-4, atol=1e-4 * float(exact.abs().max())
        )
    rounds = [
        (
            _timed(lambda: [reference.woodbury(x, ALPHA) for x in rows.values()]) / samples * total,
            _timed(lambda: ours(model, data.calibration(total, BATCH))),
        )
        for _ in range(ROUNDS)
    ]
    slow, fast = (statistics.median(column) for column in zip(*rounds, strict=True))
    return {
        "images": total,
        "recursion_timed_on": samples,
        "recursion_s": round(slow, 2),
        "ours_s": round(fast, 3),
        "ratio": round(slow / fast, 1),
        "recursion_rounds_s": [round(s, 1) for s, _ in rounds],
        "ours_rounds_s": [round(f, 3) for _, f in rounds],
    }


def convolutions(repeats: int) -> list[dict]:
    """Seconds of each convolution's Hessian from its input, and of the bare product of its patches,
    the better of `repeats`.
    """
    rows = []
    for channels, size, kernel, stride, batch in CONVOLUTIONS:
        module = torch.nn.Conv2d(
            channels, channels, kernel, stride, padding=kernel // 2, bias=False
        )
        x = torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(0))
        patches = L.inputs(module, x).flatten(0, 2)
        torch.testing.assert_close(
            input_moment(module, x)[0],
            (patches.T.double() @ patches.double()),
            rtol=1e-3,
            atol=1e-3 * len(patches),
        )
        both = {
            "hessian_s": lambda m=module, x=x: input_moment(m, x),
            "patch_product_s": lambda p=patches: (p.T @ p).double(),
        }
        seconds = {key: min(_timed(work) for _ in range(repeats)) for key, work in both.items()}
        rows.append(
            {
                "layer": f"{channels} x {size} x {size}, {kernel} x {kernel}, stride {stride}, "
                f"batch {batch}",
                **{key: round(value, 5) for key, value in seconds.items()},
                "ratio": round(seconds["hessian_s"] / seconds["patch_product_s"], 2),
            }
        )
    return rows


def _timed(work) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> int:
    """Print the ratio; with --json also write it."""
    p = Parser(description=__doc__)
    p.add_argument(
        "--samples",
        type=whole(),
        default=2_000,
        help="images of the recursion that are timed (default: %(default)s)",
    )
    p.add_argument(
        "--images",
        type=whole(),
        default=60_000,
        help="images that both are for (default: %(default)s)",
    )
    p.add_argument(
        "--repeats",
        type=whole(),
        default=3,
        help="times each convolution is timed; the best counts (default: 3)",
    )
    p.add_argument("--json", help="also write the numbers here")
    arguments = p.parse_args()
    result = measure(arguments.samples, arguments.images)
    print(
        f"{result['images']} images: recursion {result['recursion_s']} s (timed on "
        f"{result['recursion_timed_on']}), "
        f"ours {result['ours_s']} s, {result['ratio']} times"
    )
    result["convolutions"] = convolutions(arguments.repeats)
    for row in result["convolutions"]:
        print(
            f"{row['layer']}: Hessian {1e3 * row['hessian_s']:.1f} ms, product of its patches "
            f"{1e3 * row['patch_product_s']:.1f} ms, "
            f"ratio {row['ratio']}"
        )
    if arguments.json:
        write_json(
            arguments.json, result | {"provenance": machine.provenance(torch.device("cpu"), 0)}
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
