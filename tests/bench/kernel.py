"""Speed of the curvature kernel against the textbook, as ratios.

Each pair computes the same thing, which is checked before it is timed. Times are medians of
torch.utils.benchmark.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch.utils import benchmark

from common.curvature.blocks import BlockFisher
from common.curvature.kron import kron_factors
from common.curvature.rows import gradient_rows
from common.nets import layers as L
from common.nets import models
from common.nets.capture import capture
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


def inverse_pair(
    m: int, c: int, blocks: int, recursion: Callable = reference.recursive_inverse
) -> tuple[Callable, Callable]:
    """Diagonal and one solve over a layer of `blocks` blocks, against building each block's inverse
    by m rank-one updates (WoodFisher Eq. 2) in float32."""
    generator = torch.Generator().manual_seed(0)
    rows, v = (
        torch.randn(m, c * blocks, generator=generator),
        torch.randn(c * blocks, generator=generator),
    )

    def ours() -> tuple:
        fisher = BlockFisher(rows, 1e-5, c)
        return fisher.diagonal(), fisher.solve(v)

    def textbook(rows: torch.Tensor = rows, v: torch.Tensor = v) -> tuple:
        inverses = (recursion(block, 1e-5) for block in rows.split(c, dim=1))
        parts = [
            (inverse.diagonal().clone(), inverse @ part)
            for inverse, part in zip(inverses, v.split(c), strict=True)
        ]
        return tuple(torch.cat(values) for values in zip(*parts, strict=True))

    for mine, truth in zip(ours(), textbook(rows.double(), v.double()), strict=True):
        torch.testing.assert_close(mine, truth, rtol=1e-5, atol=1e-5 * float(truth.abs().max()))
    return ours, textbook


def _resnet20(examples: int) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    model = models.build("resnet20", 10, (3, 32, 32), 0).eval()
    generator = torch.Generator().manual_seed(0)
    return (
        model,
        torch.randn(examples, 3, 32, 32, generator=generator),
        torch.randint(10, (examples,), generator=generator),
    )


def rows_pair(examples: int = 32) -> tuple[Callable, Callable]:
    """Per-example gradients of ResNet-20 against one backward pass an example. Held equal in
    float64 (in float32 a ReLU near its kink may fall on either side), timed in float32."""

    def pair(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[Callable, Callable]:
        weights = [module.weight for module in L.prunable(model).values()]

        def loop() -> list:
            losses = (
                torch.nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
                for i in range(len(x))
            )
            gradients = [torch.autograd.grad(loss, weights) for loss in losses]
            return [torch.stack([g[j].flatten() for g in gradients]) for j in range(len(weights))]

        return lambda: list(gradient_rows(model, [(x, y)], len(x)).values()), loop

    model, x, y = _resnet20(examples)
    ours, loop = pair(copy.deepcopy(model).double(), x[:4].double(), y[:4])
    for mine, truth in zip(ours(), loop(), strict=True):
        torch.testing.assert_close(mine, truth, rtol=1e-9, atol=1e-9 * float(truth.abs().max()))
    return pair(model, x, y)


def kron_pair(channel_only: bool, examples: int = 128) -> tuple[Callable, Callable]:
    """A pass of Kronecker statistics (sampled labels) of ResNet-20 against a plain forward and
    backward pass; the ratio is a cost.
    """
    model, x, y = _resnet20(examples)
    generator = torch.Generator().manual_seed(0)

    def plain() -> None:
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()

    return plain, lambda: kron_factors(
        model, [(x, y)], generator=generator, channel_only=channel_only
    )


def factors_pair(by: str, examples: int = 128) -> tuple[Callable, Callable]:
    """The same pass against the textbook's (unfold every input, multiply) or curvlinops'. Held
    equal with exact labels, on few images.
    """
    model, x, y = _resnet20(examples)
    layers = L.prunable(model)

    def ours(x: torch.Tensor = x, y: torch.Tensor = y, fisher: str = "empirical") -> dict:
        return kron_factors(model, [(x, y)], layers, fisher=fisher)

    def unfolded(x: torch.Tensor = x, y: torch.Tensor = y) -> dict:
        with capture(model, layers) as tape:
            tape.backward(torch.nn.functional.cross_entropy(tape.forward(x), y, reduction="sum"))
            return {
                name: reference.kfac_by_unfolding(module, tape.input(name), tape.gradient(name))
                for name, module in layers.items()
            }

    def curvlinops_factors(x: torch.Tensor = x, y: torch.Tensor = y) -> object:
        import curvlinops

        operator = curvlinops.KFACLinearOperator(
            model,
            torch.nn.CrossEntropyLoss(),
            [module.weight for module in layers.values()],
            [(x, y)],
            fisher_type=curvlinops.FisherType.EMPIRICAL,
            separate_weight_and_bias=False,
            check_deterministic=False,
        )
        # it computes when it is used
        operator @ torch.zeros(sum(module.weight.numel() for module in layers.values()))
        return operator

    mine, truth = ours(x[:4], y[:4]), unfolded(x[:4], y[:4])
    for name, (A, G) in truth.items():
        torch.testing.assert_close(
            mine[name].A[0].float(), A, rtol=1e-4, atol=1e-4 * float(A.abs().max())
        )
        torch.testing.assert_close(
            mine[name].G[0].float(), G, rtol=1e-4, atol=1e-4 * float(G.abs().max())
        )
    return ours, unfolded if by == "unfolding" else curvlinops_factors


PAIRS: dict[str, tuple[Callable[[], tuple[Callable, Callable]], str]] = {
    "blocked inverse, m=80, 32 blocks of 1000": (
        lambda: inverse_pair(80, 1000, 32),
        "times faster than the rank-one recursion",
    ),
    "blocked inverse, m=400, 4 blocks of 2000": (
        lambda: inverse_pair(400, 2000, 4),
        "times faster than the rank-one recursion",
    ),
    "blocked inverse, m=80, 32 blocks of 1000 (2)": (
        lambda: inverse_pair(80, 1000, 32, recursion_in_place),
        "times faster than the recursion made in place",
    ),
    "per-example gradients, ResNet-20, 32 images": (
        rows_pair,
        "times faster than a loop of backward passes",
    ),
    "K-FAC pass, full A, ResNet-20, 128 images": (
        lambda: kron_pair(False),
        "times the cost of a plain forward and backward",
    ),
    "K-FAC pass, channel-only A": (
        lambda: kron_pair(True),
        "times the cost of a plain forward and backward",
    ),
    "K-FAC pass, full A, true labels": (
        lambda: factors_pair("unfolding"),
        "times faster than unfolding every input",
    ),
    "K-FAC pass, full A, true labels (2)": (
        lambda: factors_pair("curvlinops"),
        "times faster than curvlinops",
    ),
}


def ratios() -> dict[str, dict]:
    """{name: {ratio, seconds of both, meaning}}, printed as they come."""
    found = {}
    for name, (make, meaning) in PAIRS.items():
        first, second = make()
        fast, slow = seconds(first), seconds(second)
        found[name] = {"ratio": round(slow / fast, 2), "seconds": [fast, slow], "meaning": meaning}
        print(
            f"{name:46} {slow / fast:8.1f} {meaning}  ({slow * 1e3:.2f} ms / {fast * 1e3:.2f} ms)",
            flush=True,
        )
    return found
