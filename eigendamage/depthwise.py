"""The depthwise-separable step (Wang et al. 2019, Sec. 4.6): a core W' as U D_i Vᵀ with bases
shared by all kernel offsets i.
"""

from __future__ import annotations

import torch
from torch import Tensor

SWEEPS = 50  # of the alternating least squares; the paper states none


def separate(
    W: Tensor, sweeps: int = SWEEPS, rank: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(U [r, q], D [offsets, q], V [a, q]) that make Σ_i ‖U diag(D_i) Vᵀ − W[:, :, i]‖² small (Eq.
    18); W [r, a, offsets], q = `rank`, or min(r, a). The same as a CP-decomposition of W.

    Alternating least squares from the SVD of the mean over offsets, so the error never grows;
    columns of U and V have unit norm. What a rank above min(r, a) adds starts at random, the same
    on every call.
    """
    U, _, Vt = torch.linalg.svd(W.mean(2), full_matrices=False)
    generator = torch.Generator().manual_seed(0)
    U, V = (_start(basis, rank or U.shape[1], generator) for basis in (U, Vt.T))
    D = _offsets(W, U, V)
    for _ in range(sweeps):
        U = _unit(_solve(torch.einsum("rap,aq,pq->rq", W, V, D), V, D))
        D = _offsets(W, U, V)
        V = _unit(_solve(torch.einsum("rap,rq,pq->aq", W, U, D), U, D))
        D = _offsets(W, U, V)
    return U, D, V


def joined(U: Tensor, D: Tensor, V: Tensor) -> Tensor:
    """U diag(D_i) Vᵀ at every offset, [r, a, offsets]."""
    return torch.einsum("rq,pq,aq->rap", U, D, V)


def _start(basis: Tensor, rank: int, generator: torch.Generator) -> Tensor:
    """The first `rank` columns; random ones where there are not so many."""
    more = max(0, rank - basis.shape[1])
    return torch.cat(
        [
            basis[:, :rank],
            _unit(torch.randn(len(basis), more, generator=generator, dtype=basis.dtype)).to(
                basis.device
            ),
        ],
        1,
    )


def _offsets(W: Tensor, U: Tensor, V: Tensor) -> Tensor:
    """The best D for these bases, [offsets, q]."""
    return _solve(torch.einsum("rap,rq,aq->pq", W, U, V), U, V)


def _solve(right: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The least squares of one factor given two: right (firstᵀfirst ∘ secondᵀsecond)⁺."""
    return right @ torch.linalg.pinv((first.T @ first) * (second.T @ second), hermitian=True)


def _unit(basis: Tensor) -> Tensor:
    return basis / basis.norm(dim=0).clamp(min=torch.finfo(basis.dtype).tiny)
