"""Every public formula beside its slow, dense, obvious twin: the table that `make oracles` prints
and the suite asserts.

    python -m tests.trust.oracles [part of a name or source ...]

A formula is computed by the library in float64 and in float32; its twin always in float64, from the
same (rounded) numbers. The error is the largest absolute difference over the largest entry of the
twin, over all cases. A new formula is one function below `tests/trust/oracles_*.py`, decorated with
`oracle`, that yields (name of the case, library's tensor, twin's tensor).
"""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import Parser, UserError
from common.running.cli import guarded
from tests import toy

PARTS = ("curvature", "updates", "papers", "networks")
Case = tuple[str, Tensor, Tensor]


@dataclass(frozen=True)
class Oracle:
    """name: what is computed. source: the equation. double, single: largest relative errors
    allowed.
    """

    name: str
    source: str
    cases: Callable[[torch.dtype], Iterator[Case]]
    double: float
    single: float

    def tolerance(self, dtype: torch.dtype) -> float:
        return self.double if dtype == torch.float64 else self.single

    def measure(self, dtype: torch.dtype) -> tuple[float, str, int]:
        """(worst relative error, its case, number of cases). AssertionError for a case that could
        not fail.
        """
        worst, where, count = -1.0, "", 0
        for name, ours, truth in self.cases(dtype):
            ours, truth = ours.detach().double(), truth.detach()
            assert truth.dtype == torch.float64 and ours.shape == truth.shape and truth.numel(), (
                f"{self.name}, {name}: shapes or types"
            )
            size = float(truth.abs().max())
            assert torch.isfinite(truth).all() and size > 0, (
                f"{self.name}, {name}: its twin is zero or not finite"
            )
            error = float((ours - truth).abs().max()) / size
            error = error if error == error else float("inf")
            count += 1
            if error > worst:
                worst, where = error, name
        assert count, f"{self.name}: no case"
        return worst, where, count


ORACLES: list[Oracle] = []


def oracle(name: str, source: str, double: float = 1e-8, single: float = 1e-4) -> Callable:
    """Register a generator function of a dtype."""

    def register(cases: Callable[[torch.dtype], Iterator[Case]]) -> Callable:
        ORACLES.append(Oracle(name, source, cases, double, single))
        return cases

    return register


def every() -> list[Oracle]:
    """All of them, by part."""
    for part in PARTS:
        importlib.import_module(f"tests.trust.oracles_{part}")
    return ORACLES


def pair(model: nn.Module, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """(the model in `dtype`, its twin of the same numbers in float64)."""
    model = model.to(dtype)
    return model, copy.deepcopy(model).double()


def numbers(dtype: torch.dtype, *tensors: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Each tensor as (in `dtype`, the same numbers in float64); whole numbers stay what they
    are.
    """
    return [
        (t.to(dtype), t.to(dtype).double()) if t.is_floating_point() else (t, t) for t in tensors
    ]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=toy.generator(seed), dtype=torch.float64)


def floats(*values: float) -> Tensor:
    """Python's numbers as they are."""
    return torch.tensor(values, dtype=torch.float64)


def main(argv: list[str] | None = None) -> int:
    """Print the table; 1 if an error is above its tolerance."""
    p = Parser(description=__doc__)
    p.add_argument(
        "words",
        nargs="*",
        help="only formulas whose name or source holds all of them (default: all formulas)",
    )
    words, failed = p.parse_args(argv).words, []
    return guarded(lambda: failed.append(measured(words))) or int(bool(failed[0]))


def measured(words: list[str]) -> int:
    """Print a line a formula; how many errors are above their tolerance."""
    chosen = [
        one
        for one in every()
        if all(word.lower() in f"{one.name} {one.source}".lower() for word in words)
    ]
    if not chosen:
        raise UserError(
            "words", " ".join(words), "no formula is called so", "run make oracles for the list"
        )
    torch.set_num_threads(1)
    line = "{:72} {:48} {:>5} {:>9} {:>7} {:>9} {:>7}\n".format
    sys.stdout.write(line("formula", "source", "cases", "float64", "allowed", "float32", "allowed"))
    failed = 0
    for one in chosen:
        (double, where, count), (single, other, _) = (
            one.measure(torch.float64),
            one.measure(torch.float32),
        )
        sys.stdout.write(
            line(
                one.name,
                one.source,
                count,
                f"{double:.1e}",
                f"{one.double:.0e}",
                f"{single:.1e}",
                f"{one.single:.0e}",
            )
        )
        for error, allowed, case in ((double, one.double, where), (single, one.single, other)):
            if error > allowed:
                failed += 1
                sys.stdout.write(f"    FAILED: {case}\n")
    sys.stdout.write(f"{len(chosen)} formulas, {failed} failures\n")
    return failed


if __name__ == "__main__":
    # one registry, whichever name this module runs under
    from tests.trust.oracles import main as registered

    sys.exit(registered())
