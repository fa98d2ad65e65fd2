"""Exact greedy elimination: every row of a weight loses its weights one by one, each time the one
whose removal costs least now, with all others at their new optimum (OBC, Frantar & Alistarh 2022).

A row has the curvature F = H⁻¹ and starts at its optimum w. Removing q costs w_q² / (2 H_qq), and
    w ← w − (w_q / H_qq) H e_q,    H ← H − (1 / H_qq) H e_q e_qᵀ H
over the weights that are left. Rows are independent and start from one shared H, so that a single
pass gives every level: what a level removes is a prefix of each row's order.

The updates of H are applied `BLOCK` at a time as one matrix product; until then the row of H that a
removal needs is put right by the pending ones, and H loses the rows of weights that are gone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from common.system import machine

BLOCK = 48  # removals whose updates of H are applied together
SHRINK = 0.8  # H is cut down when so much of it is left
WORK_ENTRIES = 1 << 24  # entries of H held at once (128 MB)


@dataclass
class Elimination:
    """What each weight of [rows, in] costs when its turn comes.

    loss: the increase of the row's error then. score: the largest loss of the row so far, raised by
    a rounding step where that is a tie, so that the weights below a threshold are a prefix of the
    row's order. Both are 0 for weights that were gone before, and infinite and 0 for those that may
    not go.
    """

    score: Tensor
    loss: Tensor


def greedy(
    inverse: Tensor,
    floor: Tensor,
    target: Tensor,
    kept: Tensor,
    free: Tensor,
    dead: Tensor,
    name: str = "",
) -> Elimination:
    """The elimination of the rows of `target` [rows, in], each at its optimum under F.

    inverse: H = F⁻¹ [in, in]. floor: 1 / F_qq [in], below which no H_qq falls. kept: bool [rows,
    in], what earlier prunings left; the rest goes first. free: bool [in], what may be removed at
    all. dead: bool [in], inputs that were always zero: F is diagonal there, and their weights go at
    no cost. Everything float64. Raises UserError where the memory budget does not hold the work.
    """
    score, loss = torch.full_like(target, torch.inf), torch.zeros_like(target)
    costless = (free & dead).nonzero()[:, 0]
    score[:, costless] = _increasing(torch.zeros_like(target[:, costless]))
    live = (free & ~dead).nonzero()[:, 0]
    index = torch.cat([live, (~free).nonzero()[:, 0]])
    width = max(1, len(index))
    batch = min(len(target), max(1, WORK_ENTRIES // width**2))
    machine.require_memory(
        f"the elimination of layer {name!r}",
        8 * width * (batch * (2 * width + BLOCK) + width) / 2**30,
        f"leave it dense (--option 'skip=[\"{name}\"]'), score in steps (--option rescore=16), or "
        "raise --memory-budget",
    )
    H, floor = inverse[index][:, index], floor[index]
    for start in range(0, len(target) if len(live) else 0, batch):
        rows = slice(start, start + batch)
        order, losses = _eliminate(
            H, floor, target[rows][:, index], kept[rows][:, index], len(live)
        )
        loss[rows].scatter_(1, live[order], losses)
        score[rows].scatter_(1, live[order], _increasing(losses))
    return Elimination(score.masked_fill_(~kept, 0.0), loss)


def _eliminate(
    H: Tensor, floor: Tensor, w: Tensor, kept: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """(order, losses), both [rows, count]: the first `count` of the `width` weights of each row of
    w, as they go. What was gone before goes first, at no cost."""
    rows, width = w.shape
    each = torch.arange(rows, device=w.device)
    # added to what a removal costs: first, never, or not again
    toll = torch.zeros_like(w).masked_fill_(~kept, -torch.inf)
    toll[:, count:] = torch.inf
    alive = torch.ones_like(kept)
    names, floor = (v.expand(rows, width) for v in (torch.arange(width, device=w.device), floor))
    w, diagonal = w.clone(), H.diagonal().expand(rows, width).clone()
    H = H.expand(rows, width, width).clone()
    order, losses = names.new_empty(rows, count), w.new_empty(rows, count)
    for start in range(0, count, BLOCK):
        pending = w.new_empty(rows, min(BLOCK, count - start), w.shape[1])
        for step in range(pending.shape[1]):
            least, q = w.square().div_(diagonal).add_(toll).min(1)
            order[:, start + step], losses[:, start + step] = names[each, q], least
            column = H[each, q]
            if step:
                known = pending[each, :step, q][:, None]
                column = torch.baddbmm(column[:, None], known, pending[:, :step], alpha=-1)[:, 0]
            pivot = diagonal[each, q][:, None]
            w.addcmul_(column, w[each, q][:, None] / pivot, value=-1)
            pending[:, step] = column.mul_(pivot.rsqrt())
            diagonal.addcmul_(column, column, value=-1).clamp_(min=floor)
            w[each, q], toll[each, q], alive[each, q] = 0.0, torch.inf, False
        if start + pending.shape[1] == count:
            break
        left = width - start - pending.shape[1]
        if left <= SHRINK * w.shape[1]:
            index = alive.nonzero()[:, 1].view(rows, left)
            H = _cut(H, index)
            pending = pending.gather(2, index[:, None].expand(-1, pending.shape[1], -1))
            w, diagonal, toll, alive, names, floor = (
                tensor.gather(1, index) for tensor in (w, diagonal, toll, alive, names, floor)
            )
        H.baddbmm_(pending.mT, pending, alpha=-1)
    return order, losses.div_(2).clamp_(min=0.0)


def _cut(H: Tensor, index: Tensor) -> Tensor:
    """H [rows, width, width] with the rows and columns of `index` [rows, left]."""
    left = index.shape[1]
    smaller = H.new_empty(len(H), left, left)
    for whole, here, out in zip(H, index, smaller, strict=True):
        torch.index_select(whole.index_select(0, here), 1, here, out=out)
    return smaller


def _increasing(losses: Tensor) -> Tensor:
    """The running maximum along each row, strictly increasing: a tie is a few rounding steps more
    than what stands before it, which a factor later on does not undo."""
    if not losses.numel():
        return losses
    # the bits of floats that are not negative are in the order of the floats
    bits = losses.contiguous().view(torch.int64)
    steps = 4 * torch.arange(bits.shape[1], device=bits.device)
    return ((bits - steps).cummax(1).values + steps).view(torch.float64)
