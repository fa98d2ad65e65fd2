"""The damped Fisher of gradient rows, F = λI + (1/m) GᵀG, in blocks, and what pruning asks of its
inverse.

WoodFisher (Singh & Alistarh 2020, Eqs. 2-4) builds each c × c inverse by m rank-one updates: O(m
c²). With fewer rows than weights in a block the same matrix has a low-rank form by the Woodbury
identity, with only an m × m factorisation:
    F⁻¹ = (1/λ) (I − Gᵀ K⁻¹ G),   K = mλ I + G Gᵀ = L Lᵀ,
    diag F⁻¹ = (1 − Σ_i Z_i²)/λ,   Z = L⁻¹ G.
Blocks with at least as many rows as weights are inverted directly. Either way the answer is the
recursion's, to rounding. Rows are stored as given (float32 is enough), in memory or in a file
(spool.py); every factorisation is float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from common.cells.errors import NumericalError, UserError
from common.system import distributed

# float64 entries of the blocks taken together (8 MB: about a core's share of cache)
WORK_ENTRIES = 1 << 20
# rows of a triangular or symmetric product formed together: its other triangle is never computed
STRIP = 128
KEPT_ENTRIES = 1 << 27  # float64 entries of factors kept (1 GB)
WALK = 512  # weights of the triangular walk solved together


class Rows(Protocol):
    """Gradient rows [m, d] that can be read by columns: a Tensor, or spool.SpooledRows."""

    shape: tuple[int, ...]
    device: torch.device

    def __getitem__(self, key: tuple[slice, slice]) -> Tensor: ...


class _Run:
    """G of a run of blocks, as (columns, G [blocks, m, width] float64, contiguous): all of them at
    once where that fits the working memory, and then kept; one block that is too wide comes in
    tiles of its columns, made anew each time."""

    def __init__(self, rows: Rows, where: slice, size: int):
        self.rows, self.where, self.size = rows, where, size
        width = max(1, WORK_ENTRIES // rows.shape[0])
        one = where.stop - where.start > size or size <= max(width, rows.shape[0])
        self.places = (
            [where]
            if one
            else [
                slice(i, min(i + width, where.stop)) for i in range(where.start, where.stop, width)
            ]
        )
        self._kept: Tensor | None = None

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        for place in self.places:
            G = self._kept
            if G is None:
                width = min(self.size, place.stop - place.start)
                parts = self.rows[:, place].reshape(self.rows.shape[0], -1, width).transpose(0, 1)
                G = parts.to(torch.float64, memory_format=torch.contiguous_format)
            if len(self.places) == 1:
                self._kept = G
            yield place, G


class BlockFisher:
    """F = λI + GᵀG/m over a flat weight vector, block-diagonal in consecutive chunks (the last may
    be shorter).

    rows: [m, d]. damping: λ > 0. chunk: block size, None for one block. turn: the process, counted
    round, that factorises the first run of blocks; the next run goes to the next process. Layers
    numbered in their order spread evenly, even where each is one block. A curvature for obs.py.
    Blocks are converted and factorised a run at a time, so that the work stays in cache and in
    bounds; their Cholesky factors, small beside the rows, are kept up to a limit and made again
    beyond it.
    """

    def __init__(
        self, rows: Rows, damping: float, chunk: int | None = None, name: str = "", turn: int = 0
    ):
        if not (damping > 0 and math.isfinite(damping)):
            raise UserError(
                "damping", damping, "must be positive and finite", "the paper's is 1e-5"
            )
        if chunk is not None and chunk < 1:
            raise UserError(
                "chunk",
                chunk,
                "must be at least 1",
                "give a block size, or leave it out for one block",
            )
        if len(rows.shape) != 2 or not all(rows.shape):
            raise UserError(
                "rows",
                tuple(rows.shape),
                "must be [m, d] with at least one gradient and one weight",
            )
        self.rows, self.damping, self.name, self.turn = rows, float(damping), name, turn
        self.count, self.size = rows.shape
        self.chunk = min(chunk or self.size, self.size)
        self._factors: dict[tuple[int, int], Tensor] = {}
        self._diagonal: Tensor | None = None

    def damped(self, damping: float) -> BlockFisher:
        """The same rows under another damping."""
        return BlockFisher(self.rows, damping, self.chunk, self.name, self.turn)

    # -- blocks ------------------------------------------------------------------------------------

    def _runs(self) -> Iterator[_Run]:
        """Runs of equal blocks that fit the working memory together."""
        step = self.chunk * max(
            1, WORK_ENTRIES // (self.chunk * (self.count + min(self.chunk, self.count)))
        )
        whole = self.size // self.chunk * self.chunk
        for start in range(0, whole, step):
            yield _Run(self.rows, slice(start, min(start + step, whole)), self.chunk)
        if whole < self.size:
            yield _Run(self.rows, slice(whole, self.size), self.size - whole)

    def _mine(self) -> Iterator[_Run]:
        """The runs that this process computes; all of them without torchrun."""
        return (
            run for index, run in enumerate(self._runs()) if distributed.mine(self.turn + index)
        )

    def _dual(self, run: _Run) -> bool:
        """Whether blocks have fewer rows than weights, so that K is what is factorised."""
        return self.count < run.size

    def _factor_of(self, run: _Run) -> Tensor:
        """The Cholesky factor, kept while there is room."""
        factor = self._factors.get((run.where.start, run.where.stop))
        if factor is None:
            factor = self._factor(run)
            if sum(f.numel() for f in self._factors.values()) + factor.numel() <= KEPT_ENTRIES:
                self._factors[run.where.start, run.where.stop] = factor
        return factor

    def _factor(self, run: _Run, pruned: Tensor | None = None) -> Tensor:
        """Cholesky factor of K [blocks, m, m] when m < c, of F itself [blocks, c, c] otherwise;
        with the weights `pruned` [d] left out of G."""
        dual, matrix = self._dual(run), None
        for place, G in run:
            if pruned is not None:
                G = _without(G, pruned[place])
            matrix = _add_gram(matrix, G if dual else G.mT)
        if not dual:
            matrix /= self.count
        matrix.diagonal(dim1=-2, dim2=-1).add_(self.damping * (self.count if dual else 1))
        factor, info = torch.linalg.cholesky_ex(matrix)
        if info.any() or not torch.isfinite(factor.diagonal(dim1=-2, dim2=-1)).all():
            raise NumericalError(
                self.name,
                f"its Fisher is singular or not finite at damping {self.damping:g}",
                "raise --damping",
            )
        return factor

    def _solve(self, run: _Run, factor: Tensor, v: Tensor) -> Tensor:
        """F⁻¹ v for the run's blocks: v and the result [weights of the run, k]."""
        if not self._dual(run):
            return torch.cholesky_solve(_by_block(v, len(factor)), factor).flatten(0, 1)
        pull = torch.cholesky_solve(
            sum(G @ _by_block(v[_inside(place, run)], len(G)) for place, G in run), factor
        )
        return (
            torch.cat(
                [
                    (_by_block(v[_inside(place, run)], len(G)) - G.mT @ pull).flatten(0, 1)
                    for place, G in run
                ]
            )
            / self.damping
        )

    # -- what obs.py asks --------------------------------------------------------------------------

    def diagonal(self) -> Tensor:
        """diag F⁻¹, [d], float64; kept, for a statistic and an update both ask for it."""
        if self._diagonal is None:
            self._diagonal = torch.zeros(self.size, dtype=torch.float64, device=self.rows.device)
            for run in self._mine():
                self._diagonal[run.where] = torch.cat(list(self._inverse_diagonal(run)))
            distributed.add_up([self._diagonal])
        return self._diagonal

    def _inverse_diagonal(self, run: _Run) -> Iterator[Tensor]:
        factor = self._factor_of(run)
        if not self._dual(run):
            yield torch.cholesky_inverse(factor).diagonal(dim1=-2, dim2=-1).flatten()
            return
        unit = torch.eye(self.count, dtype=torch.float64, device=factor.device).expand_as(factor)
        # faster than solving for all of G
        L_inverse = torch.linalg.solve_triangular(factor, unit, upper=False)
        for _, G in run:
            Z = _lower_times(L_inverse, G)
            yield at_least((1 - Z.square_().sum(-2)) / self.damping, G, self.damping).flatten()

    def solve(self, v: Tensor) -> Tensor:
        """F⁻¹ v, float64, for v [d] or the columns of [d, k]; runs of blocks where v is zero cost
        nothing."""
        result = torch.zeros(v.shape, dtype=torch.float64, device=self.rows.device)
        for run in self._mine():
            part = v[run.where].double().reshape(run.where.stop - run.where.start, -1)
            if part.any():
                solved = self._solve(run, self._factor_of(run), part)
                result[run.where] = solved.reshape(result[run.where].shape)
        distributed.add_up([result])
        return result

    def inverse_sums(self, sets: Tensor, count: int) -> Tensor:
        """e_Qᵀ F⁻¹ e_Q of `count` sets Q of weights, e_Q one at the weights of Q: [count], float64.
        sets: the number of each weight's set, [d]. With fewer rows than weights a block's share is
        (|Q| − sᵀ (mλI + GGᵀ)⁻¹ s) / λ, s = G e_Q: no column of F⁻¹ is formed."""
        result = torch.zeros(count, dtype=torch.float64, device=self.rows.device)
        for run in self._mine():
            factor = self._factor_of(run)
            here, ids = sets[run.where].unique(return_inverse=True)
            ids = ids.reshape(len(factor), -1)
            if self._dual(run):
                sizes = factor.new_zeros(len(factor), len(here))  # weights a set and block
                sizes.scatter_add_(1, ids, factor.new_ones(1).expand(ids.shape))
                s = factor.new_zeros(len(factor), self.count, len(here))
                for place, G in run:
                    part = ids.flatten()[_inside(place, run)].reshape(len(G), -1)
                    for block in range(len(G)):
                        s[block].index_add_(1, part[block], G[block])
                pull = (s * torch.cholesky_solve(s, factor)).sum(1)
                shares = (sizes - pull) / self.damping
            else:
                E = F.one_hot(ids, len(here)).double()
                shares = (E * torch.cholesky_solve(E, factor)).sum(1)
            result.index_add_(0, here, shares.sum(0))
        distributed.add_up([result])
        return result

    def times(self, v: Tensor) -> Tensor:
        """F v, [d], float64."""
        result = self.damping * v.double()
        for run in self._runs():
            pull = (
                sum(G @ _by_block(v[place].double()[:, None], len(G)) for place, G in run)
                / self.count
            )
            for place, G in run:
                result[place] += (G.mT @ pull).flatten()
        return result

    def mean_row(self) -> Tensor:
        """The mean of the rows, [d], float64."""
        return torch.cat([G.mean(1).flatten() for run in self._runs() for _, G in run])

    def submatrix(self, index: Tensor) -> Tensor:
        """F⁻¹[index, index], [k, k], zero between blocks."""
        block = index // self.chunk
        result = torch.zeros(len(index), len(index), dtype=torch.float64, device=self.rows.device)
        for b in block.unique():
            mine = (block == b).nonzero().flatten()
            start, stop = int(b) * self.chunk, min((int(b) + 1) * self.chunk, self.size)
            run = _Run(self.rows, slice(start, stop), stop - start)
            unit = torch.zeros(
                stop - start, len(mine), dtype=torch.float64, device=self.rows.device
            )
            unit[index[mine] - start, torch.arange(len(mine), device=self.rows.device)] = 1
            result[mine[:, None], mine[None, :]] = self._solve(run, self._factor(run), unit)[
                index[mine] - start
            ]
        return result

    def joint(self, w: Tensor, pruned: Tensor) -> Tensor:
        """The exact optimum δ of ½ δᵀFδ with δ_S = −w_S, [d], float64; `pruned` is the bool mask of
        S.

        Eliminating S, the kept weights K move by δ_K = G_Kᵀ (mλI + G_K G_Kᵀ)⁻¹ G_S w_S: again m ×
        m, however large S is.
        """
        moves = torch.zeros(self.size, dtype=torch.float64, device=self.rows.device)
        for run in self._mine():
            if not pruned[run.where].any() or pruned[run.where].all():
                continue
            factor = self._factor(run, pruned)
            pull = sum(
                (G - _without(G, pruned[place])) @ _by_block(w[place].double()[:, None], len(G))
                for place, G in run
            )
            if self._dual(run):
                pull = torch.cholesky_solve(pull, factor)
            for place, G in run:
                # Kᵀ (mλI + KKᵀ)⁻¹ pull = (λI + KᵀK/m)⁻¹ Kᵀ pull / m, the push-through identity
                move = _without(G, pruned[place]).mT @ pull
                if not self._dual(run):
                    move = torch.cholesky_solve(move, factor) / self.count
                moves[place] = move.flatten()
        distributed.add_up([moves])
        return torch.where(pruned, -w.double(), moves)

    def walk(self, w: Tensor, order: Tensor) -> Tensor:
        """λ of the sequential walk, tril(F⁻¹[S, S]) λ = w_S with S in `order`, scattered into [d],
        float64.

        Blocks are walked each by itself. In the dual form all that the weights before s did to it
        is z_s · P / λ, P = Σ z λ over them, so that a step costs m numbers and not a solve.
        """
        multipliers = torch.zeros(self.size, dtype=torch.float64, device=self.rows.device)
        diagonal, w = self.diagonal(), w.double()
        for run in self._mine():
            mine = order[(order >= run.where.start) & (order < run.where.stop)]
            block = (mine - run.where.start) // run.size
            for b, factor in enumerate(self._factor_of(run)):
                here = mine[block == b]
                if not len(here):
                    continue
                if self._dual(run):
                    multipliers[here] = self._dual_walk(run, b, factor, here, w, diagonal)
                else:
                    inside = here - run.where.start - b * run.size
                    lower = torch.cholesky_inverse(factor)[inside][:, inside].tril_()
                    multipliers[here] = _forward(lower, w[here])
        distributed.add_up([multipliers])
        return multipliers

    def _dual_walk(
        self, run: _Run, b: int, factor: Tensor, index: Tensor, w: Tensor, diagonal: Tensor
    ) -> Tensor:
        """λ [k] of the weights `index` [k] of block b, by its factor of K [m, m]."""
        P, steps = w.new_zeros(self.count), []
        for part in index.split(WALK):
            G = self._columns(run, b, part)
            Z = torch.linalg.solve_triangular(factor, G, upper=False)
            lower = (Z.mT @ Z).tril_(-1).div_(-self.damping)
            lower.diagonal().copy_(diagonal[part])
            steps.append(_forward(lower, w[part] + Z.mT @ P / self.damping))
            P += Z @ steps[-1]
        return torch.cat(steps)

    def _columns(self, run: _Run, b: int, index: Tensor) -> Tensor:
        """The columns `index` [k] of G, all of block b of the run: [m, k]."""
        found = index.new_empty(self.count, len(index), dtype=torch.float64)
        for place, G in run:
            inside = ((index >= place.start) & (index < place.stop)).nonzero()[:, 0]
            first = place.start + (b * run.size if len(G) > 1 else 0)
            found[:, inside] = G[min(b, len(G) - 1)][:, index[inside] - first]
        return found


def _forward(lower: Tensor, v: Tensor) -> Tensor:
    """The solution of lower · x = v."""
    return torch.linalg.solve_triangular(lower, v[:, None], upper=False)[:, 0]


def _add_gram(total: Tensor | None, A: Tensor) -> Tensor:
    """total + A Aᵀ, [blocks, n, n]; on and below the diagonal (and somewhat above), which is all
    that a factorisation reads.
    """
    if total is None:
        total = A.new_zeros(len(A), A.shape[1], A.shape[1])
    for i in range(0, A.shape[1], STRIP):
        total[:, i : i + STRIP, : i + STRIP] += A[:, i : i + STRIP] @ A[:, : i + STRIP].mT
    return total


def _lower_times(L: Tensor, G: Tensor) -> Tensor:
    """L G for lower triangular L [blocks, n, n]."""
    return torch.cat(
        [L[:, i : i + STRIP, : i + STRIP] @ G[:, : i + STRIP] for i in range(0, L.shape[1], STRIP)],
        1,
    )


def at_least(diagonal: Tensor, G: Tensor, damping: float) -> Tensor:
    """A diagonal of F⁻¹ that was the difference of two numbers, [..., d], raised to its least
    possible value 1/F_qq: where rows outweigh the damping 10¹⁶ times, rounding makes it zero or
    negative. G: [..., m, d] with F = damping·I + GᵀG/m."""
    own = G.square().sum(-2) / G.shape[-2]  # vector_norm over rows takes five times as long
    return torch.maximum(diagonal, 1 / (own + damping))


def _by_block(v: Tensor, blocks: int) -> Tensor:
    """[weights, k] as [blocks, weights a block, k]."""
    return v.reshape(blocks, -1, v.shape[-1])


def _inside(place: slice, run: _Run) -> slice:
    return slice(place.start - run.where.start, place.stop - run.where.start)


def _without(G: Tensor, pruned: Tensor) -> Tensor:
    """G with the columns of the weights `pruned` (flat over its blocks) zero."""
    return G.masked_fill(pruned.reshape(len(G), 1, -1), 0.0)
