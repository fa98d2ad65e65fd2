"""Example 1 (Wang et al. 2019, Sec. 3.1): three weights on which the surgeon is better for one
removal and worse for two.

`python -m eigendamage.example1` prints the table. The loss is a quadratic with a given Hessian, not
a network's.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from common.cells.errors import Parser
from common.cells.spec import Spec
from common.pruning import obs
from common.running.timing import Timer

WEIGHTS = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
HESSIAN = torch.tensor([[1.0, 0.99, 0.0], [0.99, 1.0, 0.01], [0.0, 0.01, 0.5]], dtype=torch.float64)
# what the paper removes: OBD's and OBS's one weight, OBD's and OBS's two
CASES = ((2,), (0,), (1, 2), (0, 1))


@dataclass(frozen=True)
class Explicit:
    """A curvature, as common.pruning.obs asks for it, from a given Hessian H [d, d]."""

    matrix: Tensor

    def diagonal(self) -> Tensor:
        """diag H⁻¹."""
        return torch.linalg.inv(self.matrix).diagonal()

    def solve(self, v: Tensor) -> Tensor:
        """H⁻¹ v."""
        return torch.linalg.solve(self.matrix, v)

    def times(self, v: Tensor) -> Tensor:
        """H v."""
        return self.matrix @ v

    def submatrix(self, index: Tensor) -> Tensor:
        """H⁻¹[index, index]."""
        return torch.linalg.inv(self.matrix)[index][:, index]


def obd_scores() -> Tensor:
    """½ θ_q² H_qq (Eq. 8)."""
    return 0.5 * WEIGHTS.square() * HESSIAN.diagonal()


def obs_scores() -> Tensor:
    """½ θ_q² / [H⁻¹]_qq (Eq. 10)."""
    return obs.score(WEIGHTS, Explicit(HESSIAN).diagonal())


def removal(which: tuple[int, ...], kind: str) -> tuple[Tensor, float]:
    """(δθ, the true increase ½ δᵀHδ) of removing `which`. kind: "zero" for plain zeroing, else an
    update of common.pruning.obs.
    """
    gone = torch.zeros(3, dtype=torch.bool).index_fill(0, torch.tensor(which), True)
    if kind == "zero":
        delta = torch.where(gone, -WEIGHTS, 0.0)
        return delta, obs.increase(Explicit(HESSIAN), delta)
    return obs.update(WEIGHTS, Explicit(HESSIAN), gone, kind)


def rows(spec: Spec, timer: Timer, output: Path) -> list[dict]:
    """Example 1: what OBD and OBS remove, the true increase with the paper's update, and what each
    criterion predicts.
    """
    scores = {"obd": obd_scores(), "obs": obs_scores()}
    result = []
    for criterion, which, kind in (
        ("obd", (2,), "zero"),
        ("obs", (0,), "diagonal"),
        ("obd", (1, 2), "zero"),
        ("obs", (0, 1), "zero"),
    ):
        change, increase = removal(which, kind)
        result.append(
            {
                "case": f"{criterion}-{len(which)}",
                "removed": [q + 1 for q in which],
                "change": [round(v, 5) for v in change.tolist()],
                "increase": round(increase, 5),
                "predicted": round(float(scores[criterion][list(which)].sum()), 5),
            }
        )
    return result


def table() -> str:
    """The scores, and every case with plain zeroing, with each weight's own update, and with the
    joint optimum.
    """
    lines = [
        f"scores  OBD {_row(obd_scores())}  OBS {_row(obs_scores())}",
        f"{'removed':8} {'update':9} {'increase':>9}  change",
    ]
    for which in CASES:
        for kind in ("zero", "diagonal", "joint"):
            delta, increase = removal(which, kind)
            lines.append(
                f"{','.join(str(q + 1) for q in which):8} {kind:9} {increase:9.5f}  {_row(delta)}"
            )
    return "\n".join(lines) + "\n"


def _row(values: Tensor) -> str:
    return "[" + ", ".join(f"{value:.5f}" for value in values.tolist()) + "]"


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    Parser(description=__doc__).parse_args(argv)
    sys.stdout.write(table())
    return 0
