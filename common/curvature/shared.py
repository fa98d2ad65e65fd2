"""A curvature that all output units of a layer share: each row of the weight [out, in] has F = Ψ +
ρI, Ψ = (1/n) Σ a aᵀ.

Ψ is the mean over the n inputs a that the layer saw, so that ½ Σ_rows δᵀΨδ is the layer's mean
squared output error, halved (L-OBS, Dong et al. 2017, Sec. 3.4 and Fig. 1). One [in, in] inverse
serves all rows: the three updates of obs.py cost a few matrix products over rows. With fewer inputs
than weights a row (n < in) the same F is kept as the inputs themselves:
    F⁻¹ = (1/ρ) (I − ZᵀZ),   Z = L⁻¹X,   LLᵀ = nρI + XXᵀ,   X [n, in]
which is what a layer of 25,088 inputs needs, whose dense F takes 5 GB.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from common.cells.errors import NumericalError, UserError
from common.curvature.blocks import at_least
from common.curvature.elimination import Elimination, greedy
from common.system import machine

WALK = 256  # weights a row that the triangular walk solves together
WORK_ENTRIES = 1 << 24  # float64 entries of one batch of rows (128 MB)
WALK_ENTRIES = 1 << 22  # the same of the triangular walk, whose rows do not see each other


class Matrix(Protocol):
    """F [in, in] as operations on rows V [rows, in]; everything float64."""

    width: int
    ridge: float  # ρ

    def diagonal(self) -> Tensor: ...  # diag F⁻¹, [in]
    def times(self, V: Tensor) -> Tensor: ...  # V F
    def solve(self, V: Tensor) -> Tensor: ...  # V F⁻¹
    # F⁻¹[index_r, index_r], [rows, k, k]
    def local(self, index: Tensor) -> Tensor: ...
    # see SharedRows.walk
    def walk(self, W: Tensor, index: Tensor, goes: Tensor) -> Tensor: ...
    # see SharedRows.refit
    def refit(self, target: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]: ...
    # see elimination.greedy
    def eliminated(
        self, target: Tensor, kept: Tensor, free: Tensor, dead: Tensor
    ) -> Elimination: ...


class DenseMatrix:
    """F = moment / count + ridge·I as it stands, with its inverse; moment [in, in]."""

    def __init__(self, moment: Tensor, ridge: float, name: str = "", count: int = 1):
        self.name, self.ridge = name, _positive(ridge)
        # the moment, F, its Cholesky factor and its inverse
        machine.require_memory(
            f"the Hessian of layer {name!r}",
            4 * 8 * len(moment) ** 2 / 2**30,
            f"leave it dense (--option 'skip=[\"{name}\"]'), or raise --memory-budget",
        )
        self.F = moment.double() / count
        self.F.diagonal().add_(self.ridge)
        self.width = len(self.F)
        self.inverse = torch.cholesky_inverse(_cholesky(self.F, self.ridge, name))

    def diagonal(self) -> Tensor:
        return self.inverse.diagonal()

    def times(self, V: Tensor) -> Tensor:
        return V @ self.F

    def solve(self, V: Tensor) -> Tensor:
        return V @ self.inverse

    def local(self, index: Tensor) -> Tensor:
        return self.inverse[index[:, :, None], index[:, None, :]]

    def walk(self, W: Tensor, index: Tensor, goes: Tensor) -> Tensor:
        """Forward substitution with tril(F⁻¹[S, S]), `WALK` weights of every row at once; what lies
        behind them is one product.
        """
        multipliers = torch.zeros_like(W)
        for start in range(0, int(goes.sum(1).max()), WALK):
            part, here = index[:, start : start + WALK], goes[:, start : start + WALK]
            current = (W - self.solve(multipliers)).gather(1, part)
            sizes = torch.full((len(W),), part.shape[1] ** 2, device=W.device)
            every = torch.arange(len(W), device=W.device)
            for rows in _batches(every, sizes, WALK_ENTRIES):
                lower = self.local(part[rows]).tril()
                step = torch.linalg.solve_triangular(lower, current[rows][..., None], upper=False)[
                    ..., 0
                ]
                multipliers[rows[:, None], part[rows]] = torch.where(here[rows], step, 0.0)
        return multipliers

    def refit(self, target: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """F_KK w_K = (F target)_K, row by row in batches of similar size; the padding is an
        identity block.
        """
        goal, counts = self.times(target), kept.sum(1)
        new, inverse = torch.zeros_like(goal), torch.ones_like(goal)
        by_size = torch.argsort(counts)
        for rows in _batches(by_size, counts[by_size].square()):
            most = int(counts[rows].max())
            index = torch.argsort(kept[rows], dim=1, descending=True, stable=True)[:, :most]
            real = kept[rows].gather(1, index)
            block = torch.where(
                real[:, :, None] & real[:, None, :],
                self.F[index[:, :, None], index[:, None, :]],
                torch.eye(most, dtype=torch.float64, device=goal.device),
            )
            factor = _cholesky(block, self.ridge, self.name)
            solution = torch.cholesky_solve(
                (goal[rows].gather(1, index) * real)[..., None], factor
            )[..., 0]
            at = rows[:, None].expand_as(index)[real], index[real]
            new[at], inverse[at] = (
                solution[real],
                torch.cholesky_inverse(factor).diagonal(dim1=-2, dim2=-1)[real],
            )
        return new, inverse

    def eliminated(self, target: Tensor, kept: Tensor, free: Tensor, dead: Tensor) -> Elimination:
        """Every weight of the rows of `target` with what it costs when it goes one by one."""
        floor = self.F.diagonal().reciprocal()
        return greedy(self.inverse, floor, target, kept, free, dead, self.name)


class LowRankMatrix:
    """F = ridge·I + XᵀX/n, kept as X [n, in]; never more than n·in entries."""

    def __init__(self, X: Tensor, ridge: float, name: str = ""):
        self.X, self.ridge, self.name = X.double(), _positive(ridge), name
        self.count, self.width = X.shape
        self.Z = torch.linalg.solve_triangular(self._factor(self.X @ self.X.T), self.X, upper=False)

    def _factor(self, gram: Tensor) -> Tensor:
        ridge = (
            self.count * self.ridge * torch.eye(self.count, dtype=gram.dtype, device=gram.device)
        )
        return _cholesky(gram + ridge, self.ridge, self.name)

    def diagonal(self) -> Tensor:
        return at_least((1 - self.Z.square().sum(0)) / self.ridge, self.X, self.ridge)

    def times(self, V: Tensor) -> Tensor:
        return self.ridge * V + (V @ self.X.T) @ self.X / self.count

    def solve(self, V: Tensor) -> Tensor:
        return (V - (V @ self.Z.T) @ self.Z) / self.ridge

    def local(self, index: Tensor) -> Tensor:
        Z = self.Z.T[index]
        return (torch.eye(index.shape[1], dtype=Z.dtype, device=Z.device) - Z @ Z.mT) / self.ridge

    def walk(self, W: Tensor, index: Tensor, goes: Tensor) -> Tensor:
        """One weight of every row after the other: all that the earlier ones did to it is in P =
        Zλ, n numbers a row.
        """
        multipliers, columns, diagonal = torch.zeros_like(W), self.Z.T.contiguous(), self.diagonal()
        P = W.new_zeros(len(W), self.count)
        for at, here in zip(
            index[:, : int(goes.sum(1).max())].T[..., None], goes.T[..., None], strict=False
        ):
            z = columns[at[:, 0]]
            current = W.gather(1, at) + (P * z).sum(1, keepdim=True) / self.ridge
            step = torch.where(here, current / diagonal[at], 0.0)
            multipliers.scatter_(1, at, step)
            P += step * z
        return multipliers

    def refit(self, target: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """δ_K = X_Kᵀ (nρI + X_K X_Kᵀ)⁻¹ X_S w_S, and the diagonal of the restricted inverse by the
        same factor.
        """
        new, inverse = torch.where(kept, target, 0.0), torch.ones_like(target)
        sizes = torch.full((len(target),), self.X.numel(), device=target.device)
        for rows in _batches(torch.arange(len(target), device=target.device), sizes):
            X = self.X * kept[rows][:, None, :]
            factor = self._factor(X @ X.mT)
            pull = (torch.where(kept[rows], 0.0, target[rows]) @ self.X.T)[..., None]
            new[rows] += (X.mT @ torch.cholesky_solve(pull, factor))[..., 0]
            removed_share = torch.linalg.solve_triangular(factor, X, upper=False).square().sum(1)
            inverse[rows] = torch.where(
                kept[rows], at_least((1 - removed_share) / self.ridge, X, self.ridge), 1.0
            )
        return new, inverse

    def eliminated(self, target: Tensor, kept: Tensor, free: Tensor, dead: Tensor) -> Elimination:
        """As DenseMatrix.eliminated, by F⁻¹ written out."""
        machine.require_memory(
            f"the inverse Hessian of layer {self.name!r}",
            2 * 8 * self.width**2 / 2**30,
            "score in steps (--option rescore=16), or raise --memory-budget",
        )
        inverse = self.Z.T @ self.Z
        inverse.neg_().diagonal().add_(1)
        inverse /= self.ridge
        inverse.diagonal().copy_(self.diagonal())
        floor = (self.ridge + self.X.square().mean(0)).reciprocal()
        return greedy(inverse, floor, target, kept, free, dead, self.name)


class SharedRows:
    """The curvature for obs.py: I ⊗ F over the flat weights of `rows` output units."""

    def __init__(self, matrix: Matrix, rows: int):
        self.matrix, self.rows = matrix, rows

    def _as_rows(self, v: Tensor) -> Tensor:
        return v.double().reshape(self.rows, self.matrix.width)

    def diagonal(self) -> Tensor:
        """diag F⁻¹ of every weight, flat."""
        return self.matrix.diagonal().repeat(self.rows)

    def solve(self, v: Tensor) -> Tensor:
        """F⁻¹ v, flat."""
        return self.matrix.solve(self._as_rows(v)).flatten()

    def times(self, v: Tensor) -> Tensor:
        """F v, flat."""
        return self.matrix.times(self._as_rows(v)).flatten()

    def submatrix(self, index: Tensor) -> Tensor:
        """F⁻¹[index, index], [k, k], zero between rows."""
        row, column = index // self.matrix.width, index % self.matrix.width
        return torch.where(row[:, None] == row[None, :], self.matrix.local(column[None])[0], 0.0)

    def joint(self, w: Tensor, pruned: Tensor) -> Tensor:
        """The exact optimum δ of ½ δᵀFδ with δ_S = −w_S, flat."""
        target = self._as_rows(w)
        return (self.matrix.refit(target, ~pruned.reshape(target.shape))[0] - target).flatten()

    def refit(self, target: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """(the weights nearest to `target` in F with only `kept` ones non-zero, diag of each row's
        inverse restricted to the kept ones, 1 elsewhere), [rows, in] each: what the next weight to
        go is scored by."""
        return self.matrix.refit(target, kept)

    def walk(self, w: Tensor, order: Tensor) -> Tensor:
        """λ of the sequential walk, flat. Rows do not see each other: the matrix gets, for each,
        its columns in the order in which they go (index [rows, in]) and which of those do go
        (goes)."""
        W = self._as_rows(w)
        never = W.numel()
        rank = torch.full((never,), never, device=W.device)
        rank[order] = torch.arange(len(order), device=W.device)
        rank, index = rank.reshape(W.shape).sort(dim=1)
        return self.matrix.walk(W, index, rank < never).flatten()


def _batches(rows: Tensor, sizes: Tensor, most: int = WORK_ENTRIES) -> Iterator[Tensor]:
    """`rows` cut into runs whose largest size times their number is at most `most`; sizes rise
    along `rows`.
    """
    start, size = 0, sizes.tolist()
    while start < len(rows):
        stop = start + 1
        while stop < len(rows) and (stop + 1 - start) * size[stop] <= most:
            stop += 1
        yield rows[start:stop]
        start = stop


def _positive(ridge: float) -> float:
    if not (ridge > 0 and math.isfinite(ridge)):
        raise UserError(
            "damping",
            ridge,
            "must be positive and finite",
            "L-OBS's 1/α lies between 1e-8 and 1e-4",
        )
    return float(ridge)


def _cholesky(matrix: Tensor, ridge: float, name: str) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(matrix)
    if info.any() or not torch.isfinite(factor.diagonal(dim1=-2, dim2=-1)).all():
        raise NumericalError(
            name, f"its Hessian is singular or not finite at damping {ridge:g}", "raise --damping"
        )
    return factor
