"""The damped Fisher of gradient rows, F = λI + (1/m) GᵀG, in blocks, and what pruning asks of its inverse.

WoodFisher (Singh & Alistarh 2020, Eqs. 2-4) builds each c × c inverse by m rank-one updates: O(m c²). With fewer rows than
weights in a block the same matrix has a low-rank form by the Woodbury identity, with only an m × m factorisation:
    F⁻¹ = (1/λ) (I − Gᵀ K⁻¹ G),   K = mλ I + G Gᵀ = L Lᵀ,   Z = L⁻¹ G,   diag F⁻¹ = (1 − Σ_i Z_i²)/λ.
Blocks with at least as many rows as weights are inverted directly. Either way the answer is the recursion's, to rounding.
Rows are stored as given (float32 is enough); every factorisation is float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from common.errors import NumericalError, UserError

WORK_ENTRIES = 1 << 20  # float64 entries of the blocks taken together (8 MB: about a core's share of cache)
KEPT_ENTRIES = 1 << 27  # float64 entries of factors kept (1 GB)


class BlockFisher:
    """F = λI + GᵀG/m over a flat weight vector, block-diagonal in consecutive chunks (the last may be shorter).

    rows: [m, d]. damping: λ > 0. chunk: block size, None for one block. A curvature for obs.py.
    Blocks are converted and factorised a group at a time, so that the work stays in cache; their Cholesky factors, small beside
    the rows, are kept up to a limit and made again beyond it.
    """

    def __init__(self, rows: Tensor, damping: float, chunk: int | None = None, name: str = ""):
        if not (damping > 0 and math.isfinite(damping)):
            raise UserError("damping", damping, "must be positive and finite", "the paper's is 1e-5")
        if chunk is not None and chunk < 1:
            raise UserError("chunk", chunk, "must be at least 1", "give a block size, or leave it out for one block")
        if rows.dim() != 2 or not rows.numel():
            raise UserError("rows", tuple(rows.shape), "must be [m, d] with at least one gradient and one weight")
        self.rows, self.damping, self.name = rows, float(damping), name
        self.count, self.size = rows.shape
        self.chunk = min(chunk or self.size, self.size)
        self._factors: dict[tuple[int, int], Tensor] = {}
        self._diagonal: Tensor | None = None

    # -- blocks ---------------------------------------------------------------------------------------------------------

    def _groups(self) -> Iterator[tuple[slice, int]]:
        """(slice of the weights, block size) for runs of equal blocks that fit the working memory together."""
        step = self.chunk * max(1, WORK_ENTRIES // (self.chunk * (self.count + min(self.chunk, self.count))))
        whole = self.size // self.chunk * self.chunk
        for start in range(0, whole, step):
            yield slice(start, min(start + step, whole)), self.chunk
        if whole < self.size:
            yield slice(whole, self.size), self.size - whole

    def _blocks(self, where: slice, size: int) -> Tensor:
        """G of the blocks in `where`: [blocks, m, size], float64, contiguous."""
        parts = self.rows[:, where].reshape(self.count, -1, size).transpose(0, 1)
        return parts.to(torch.float64, memory_format=torch.contiguous_format)

    def _factored(self, where: slice, size: int) -> tuple[Tensor, Tensor]:
        """(G, Cholesky factor) of the blocks in `where`."""
        G = self._blocks(where, size)
        factor = self._factors.get((where.start, where.stop))
        if factor is None:
            factor = self._factor(G)
            if sum(f.numel() for f in self._factors.values()) + factor.numel() <= KEPT_ENTRIES:
                self._factors[where.start, where.stop] = factor
        return G, factor

    def _dual(self, G: Tensor) -> bool:
        """Whether blocks have fewer rows than weights, so that K is what is factorised."""
        return self.count < G.shape[-1]

    def _factor(self, G: Tensor) -> Tensor:
        """Cholesky factor of K [blocks, m, m] when m < c, of F itself [blocks, c, c] otherwise."""
        if self._dual(G):
            matrix = G @ G.mT
            matrix.diagonal(dim1=-2, dim2=-1).add_(self.count * self.damping)
        else:
            matrix = G.mT @ G / self.count
            matrix.diagonal(dim1=-2, dim2=-1).add_(self.damping)
        factor, info = torch.linalg.cholesky_ex(matrix)
        if info.any() or not torch.isfinite(factor.diagonal(dim1=-2, dim2=-1)).all():
            raise NumericalError(self.name, f"its Fisher is singular or not finite at damping {self.damping:g}", "raise --damping")
        return factor

    def _solve(self, G: Tensor, factor: Tensor, v: Tensor) -> Tensor:
        """F⁻¹ v for blocks G [blocks, m, c], their factor, and v [blocks, c, k]."""
        if not self._dual(G):
            return torch.cholesky_solve(v, factor)
        return (v - G.mT @ torch.cholesky_solve(G @ v, factor)) / self.damping

    # -- what obs.py asks -----------------------------------------------------------------------------------------------

    def diagonal(self) -> Tensor:
        """diag F⁻¹, [d], float64; kept, for a statistic and an update both ask for it."""
        if self._diagonal is None:
            self._diagonal = self._inverse_diagonal()
        return self._diagonal

    def _inverse_diagonal(self) -> Tensor:
        parts = []
        for where, size in self._groups():
            G, factor = self._factored(where, size)
            if self._dual(G):
                unit = torch.eye(self.count, dtype=torch.float64, device=G.device).expand_as(factor)
                Z = torch.linalg.solve_triangular(factor, unit, upper=False) @ G  # faster than solving for all of G
                parts.append(at_least((1 - Z.square_().sum(-2)) / self.damping, G, self.damping).flatten())
            else:
                parts.append(torch.cholesky_inverse(factor).diagonal(dim1=-2, dim2=-1).flatten())
        return torch.cat(parts)

    def solve(self, v: Tensor) -> Tensor:
        """F⁻¹ v, [d], float64; groups of blocks where v is zero cost nothing."""
        result = torch.zeros(self.size, dtype=torch.float64, device=self.rows.device)
        for where, size in self._groups():
            part = v[where].double().reshape(-1, size, 1)
            if part.any():
                result[where] = self._solve(*self._factored(where, size), part).flatten()
        return result

    def times(self, v: Tensor) -> Tensor:
        """F v, [d], float64."""
        result = torch.empty(self.size, dtype=torch.float64, device=self.rows.device)
        for where, size in self._groups():
            G, part = self._blocks(where, size), v[where].double().reshape(-1, size, 1)
            result[where] = (self.damping * part + G.mT @ (G @ part) / self.count).flatten()
        return result

    def submatrix(self, index: Tensor) -> Tensor:
        """F⁻¹[index, index], [k, k], zero between blocks."""
        block = index // self.chunk
        result = torch.zeros(len(index), len(index), dtype=torch.float64, device=self.rows.device)
        for b in block.unique():
            mine = (block == b).nonzero().flatten()
            start, stop = int(b) * self.chunk, min((int(b) + 1) * self.chunk, self.size)
            G = self.rows[:, start:stop].double()[None]
            unit = torch.zeros(1, stop - start, len(mine), dtype=torch.float64, device=self.rows.device)
            unit[0, index[mine] - start, torch.arange(len(mine), device=self.rows.device)] = 1
            result[mine[:, None], mine[None, :]] = self._solve(G, self._factor(G), unit)[0, index[mine] - start]
        return result

    def joint(self, w: Tensor, pruned: Tensor) -> Tensor:
        """The exact optimum δ of ½ δᵀFδ with δ_S = −w_S, [d], float64; `pruned` is the bool mask of S.

        Eliminating S, the kept weights K move by δ_K = G_Kᵀ (mλI + G_K G_Kᵀ)⁻¹ G_S w_S: again m × m, however large S is.
        """
        delta = torch.where(pruned, -w.double(), 0.0)
        for where, size in self._groups():
            gone = pruned[where].reshape(-1, size)
            active = gone.any(-1) & ~gone.all(-1)
            if not active.any():
                continue
            G = self._blocks(where, size)[active]
            gone = gone[active][:, None, :]
            kept = G.masked_fill(gone, 0.0)
            pull = (G - kept) @ w[where].double().reshape(-1, size)[active][..., None]
            factor = self._factor(kept)
            # Kᵀ (mλI + KKᵀ)⁻¹ pull = (λI + KᵀK/m)⁻¹ Kᵀ pull / m, the push-through identity
            move = (kept.mT @ torch.cholesky_solve(pull, factor) if self._dual(G)
                    else torch.cholesky_solve(kept.mT @ pull, factor) / self.count)
            full = delta[where].reshape(-1, size)
            full[active] = torch.where(gone[:, 0], full[active], move[..., 0])
            delta[where] = full.flatten()
        return delta


def at_least(diagonal: Tensor, G: Tensor, damping: float) -> Tensor:
    """A diagonal of F⁻¹ that was the difference of two numbers, [..., d], raised to its least possible value 1/F_qq: where rows
    outweigh the damping 10¹⁶ times, rounding makes it zero or negative. G: [..., m, d] with F = damping·I + GᵀG/m."""
    own = torch.linalg.vector_norm(G, dim=-2).square() / G.shape[-2]
    return torch.maximum(diagonal, 1 / (own + damping))
