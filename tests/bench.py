"""Speed of the curvature kernel against the textbook, measured side by side in one process and printed as ratios.

    python -m tests.bench [--json FILE]

Each pair computes the same thing, which is checked before it is timed. Times are medians of torch.utils.benchmark.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable

import torch
from torch.utils import benchmark

from common import layers as L
from common import machine, models
from common.fisher.inverse import BlockFisher
from common.fisher.kron import kron_factors
from common.fisher.rows import gradient_rows
from common.record import write_json
from tests import reference


def seconds(work: Callable[[], object], least: float = 1.0) -> float:
    """Median seconds of one call on all threads."""
    timer = benchmark.Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=least).median


def recursion_in_place(rows: torch.Tensor, damping: float) -> torch.Tensor:
    """The same recursion without a temporary: the most that can be had from it."""
    m, d = rows.shape
    inverse = torch.eye(d, dtype=rows.dtype).div_(damping)
    for g in rows:
        v = inverse @ g
        inverse.addr_(v, v, alpha=-1 / float(m + g @ v))
    return inverse


def inverse_pair(m: int, c: int, blocks: int, recursion: Callable = reference.recursive_inverse) -> tuple[Callable, Callable]:
    """Diagonal and one solve over a layer of `blocks` blocks, against building each block's inverse by m rank-one updates
    (WoodFisher Eq. 2) in float32."""
    generator = torch.Generator().manual_seed(0)
    rows, v = torch.randn(m, c * blocks, generator=generator), torch.randn(c * blocks, generator=generator)

    def ours() -> tuple:
        fisher = BlockFisher(rows, 1e-5, c)
        return fisher.diagonal(), fisher.solve(v)

    def textbook(rows: torch.Tensor = rows, v: torch.Tensor = v) -> tuple:
        inverses = (recursion(block, 1e-5) for block in rows.split(c, dim=1))
        parts = [(inverse.diagonal().clone(), inverse @ part) for inverse, part in zip(inverses, v.split(c), strict=True)]
        return tuple(torch.cat(values) for values in zip(*parts, strict=True))

    for mine, truth in zip(ours(), textbook(rows.double(), v.double()), strict=True):
        torch.testing.assert_close(mine, truth, rtol=1e-5, atol=1e-5 * float(truth.abs().max()))
    return ours, textbook


def _resnet20(examples: int) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    model = models.build("resnet20", 10, (3, 32, 32), 0).eval()
    generator = torch.Generator().manual_seed(0)
    return model, torch.randn(examples, 3, 32, 32, generator=generator), torch.randint(10, (examples,), generator=generator)


def rows_pair(examples: int = 32) -> tuple[Callable, Callable]:
    """Per-example gradients of ResNet-20 against one backward pass an example. Held equal in float64 (in float32 a ReLU near
    its kink may fall on either side), timed in float32."""
    def pair(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[Callable, Callable]:
        weights = [module.weight for module in L.prunable(model).values()]

        def loop() -> list:
            losses = (torch.nn.functional.cross_entropy(model(x[i:i + 1]), y[i:i + 1]) for i in range(len(x)))
            gradients = [torch.autograd.grad(loss, weights) for loss in losses]
            return [torch.stack([g[j].flatten() for g in gradients]) for j in range(len(weights))]

        return lambda: list(gradient_rows(model, [(x, y)], len(x)).values()), loop

    model, x, y = _resnet20(examples)
    ours, loop = pair(copy.deepcopy(model).double(), x[:4].double(), y[:4])
    for mine, truth in zip(ours(), loop(), strict=True):
        torch.testing.assert_close(mine, truth, rtol=1e-9, atol=1e-9 * float(truth.abs().max()))
    return pair(model, x, y)


def kron_pair(channel_only: bool, examples: int = 128) -> tuple[Callable, Callable]:
    """A pass of Kronecker statistics (sampled labels) of ResNet-20 against a plain forward and backward pass; the ratio is a cost."""
    model, x, y = _resnet20(examples)
    generator = torch.Generator().manual_seed(0)

    def plain() -> None:
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()

    return plain, lambda: kron_factors(model, [(x, y)], generator=generator, channel_only=channel_only)


PAIRS: dict[str, tuple[Callable[[], tuple[Callable, Callable]], str]] = {
    "blocked inverse, m=80, 32 blocks of 1000": (lambda: inverse_pair(80, 1000, 32), "times faster than the rank-one recursion"),
    "blocked inverse, m=400, 4 blocks of 2000": (lambda: inverse_pair(400, 2000, 4), "times faster than the rank-one recursion"),
    "blocked inverse, m=80, 32 blocks of 1000 (2)": (lambda: inverse_pair(80, 1000, 32, recursion_in_place),
                                                     "times faster than the recursion made in place"),
    "per-example gradients, ResNet-20, 32 images": (rows_pair, "times faster than a loop of backward passes"),
    "K-FAC pass, full A, ResNet-20, 128 images": (lambda: kron_pair(False), "times the cost of a plain forward and backward"),
    "K-FAC pass, channel-only A": (lambda: kron_pair(True), "times the cost of a plain forward and backward"),
}


def main() -> int:
    """Print the ratios and the machine; with --json also write them."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--json", help="also write the numbers here")
    arguments = p.parse_args()
    where = machine.provenance(torch.device("cpu"), 0)
    print(f"{where['device']}, {where['threads']} threads, torch {where['versions']['torch']}")
    result = {"provenance": where, "ratios": {}}
    for name, (make, meaning) in PAIRS.items():
        first, second = make()
        fast, slow = seconds(first), seconds(second)
        result["ratios"][name] = {"ratio": round(slow / fast, 2), "seconds": [fast, slow], "meaning": meaning}
        print(f"{name:46} {slow / fast:8.1f} {meaning}  ({slow * 1e3:.2f} ms / {fast * 1e3:.2f} ms)", flush=True)
    if arguments.json:
        write_json(arguments.json, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
