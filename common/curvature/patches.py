"""The second moment of a convolution's patches without forming them.

At stride 1 the entry of A for kernel offsets i, j depends, but for the image's border, only on j −
i: of the k⁴ products of offsets (2k−1)² are distinct, and all of them together are the weight
gradient of a convolution with a (2k−1)-wide kernel,
    R_δ[c, c'] = Σ_u P[c, u] P[c', u + δ]                      P: the padded input, u over all its
                                                               pixels,
and since R_−δ = R_δᵀ, a kernel of half that height finds them. An output position t sees u = t + i,
so offset i leaves out the k−1 rows and columns of P that no such t reaches; by inclusion and
exclusion A_ij = R_(j−i) − rows_i − columns_i + corners_i, each the same sum over the left-out rows,
columns, or pixels. Zero padding contributes nothing and is skipped, as u and as u + δ: for the
usual 3 × 3 convolution with padding 1 a left-out row is needed at one vertical offset and not at
five. Exact: the same sums in another order.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.nets.kinds import pad, padding

# where in [..., 2kh−1, 2kw−1] a sum over a border stands, and the sum [c, c', ...]
Border = tuple[tuple, Tensor]


def applies(module: nn.Module) -> bool:
    """Whether `patch_moment` covers the layer: a k × k convolution, k > 1, of stride and dilation 1
    in one group.
    """
    return (
        isinstance(module, nn.Conv2d)
        and module.stride == (1, 1)
        and module.dilation == (1, 1)
        and module.groups == 1
        and max(module.kernel_size) > 1
    )


def patch_moment(module: nn.Conv2d, x: Tensor, bias: bool = False) -> Tensor:
    """Σ_b Σ_t a aᵀ over the patches a of x [B, C, H, W], with a last entry of one in a if `bias`:
    [1, d, d], float64, d = C·kh·kw (+1)."""
    kh, kw = module.kernel_size
    padded = pad(module, x)
    channels, (height, width) = padded.shape[1], padded.shape[2:]
    left, right, top, bottom = padding(module) if module.padding_mode == "zeros" else (0, 0, 0, 0)
    # u and u + δ that may be other than zero, numbered from its corner
    core = x if module.padding_mode == "zeros" else padded
    wide = F.pad(core, (kw - 1, kw - 1, kh - 1, kh - 1))  # so that u + δ always exists

    def correlation(rows: slice, columns: slice, down: range, across: range) -> Border:
        """Σ over u in the box of P[c, u] P[c', u + δ], δ in down × across, which is all that is
        not zero.
        """
        around = wide[
            :,
            :,
            rows.start + down[0] + kh - 1 : rows.stop + down[-1] + kh - 1,
            columns.start + across[0] + kw - 1 : columns.stop + across[-1] + kw - 1,
        ]
        found = torch.nn.grad.conv2d_weight(
            around, (channels, channels, len(down), len(across)), core[:, :, rows, columns]
        )
        place = (
            ...,
            slice(kh - 1 + down[0], kh + down[-1]),
            slice(kw - 1 + across[0], kw + across[-1]),
        )
        return place, found.double()

    every_row, every_column = slice(0, core.shape[2]), slice(0, core.shape[3])
    below = torch.nn.grad.conv2d_weight(
        F.pad(core, (kw - 1, kw - 1, 0, kh - 1)), (channels, channels, kh, 2 * kw - 1), core
    ).double()
    # `below` has δ's rows from 0
    whole = torch.cat([below.flip(2, 3).transpose(0, 1)[:, :, :-1], below], dim=2)
    out_rows, out_columns = _left_out(height, kh, top, bottom), _left_out(width, kw, left, right)
    down, across = _offsets(out_rows, kh, core.shape[2]), _offsets(out_columns, kw, core.shape[3])
    all_down, all_across = range(1 - kh, kh), range(1 - kw, kw)
    by_row = {u: correlation(slice(u, u + 1), every_column, down[u], all_across) for u in down}
    by_column = {v: correlation(every_row, slice(v, v + 1), all_down, across[v]) for v in across}
    by_pixel = {
        (u, v): correlation(slice(u, u + 1), slice(v, v + 1), down[u], across[v])
        for u in down
        for v in across
    }
    size = channels * kh * kw
    joined = whole.new_empty(1, size + bias, size + bias)
    patches = (channels, kh, kw)
    moment = joined[0, :size, :size].unflatten(1, patches).unflatten(0, patches)
    for i in range(kh):
        for j in range(kw):
            seen = whole.clone()
            away = [by_row[u] for u in out_rows[i]] + [by_column[v] for v in out_columns[j]]
            back = [by_pixel[u, v] for u in out_rows[i] for v in out_columns[j]]
            for place, border in away:
                seen[place] -= border
            for place, border in back:
                seen[place] += border
            # δ = (p, q) − (i, j) lies at index δ + k − 1; all p, q at once are a kh × kw window
            moment[:, i, j] = seen[:, :, kh - 1 - i : 2 * kh - 1 - i, kw - 1 - j : 2 * kw - 1 - j]
    if not bias:
        return joined
    ones = padded.new_ones(len(x), 1, height - kh + 1, width - kw + 1)
    sums = (
        torch.nn.grad.conv2d_weight(padded, (1, channels, kh, kw), ones).double().reshape(1, 1, -1)
    )
    joined[:, -1:, :-1], joined[:, :-1, -1:], joined[:, -1, -1] = sums, sums.mT, ones.numel()
    return joined


def _left_out(size: int, k: int, before: int, after: int) -> list[list[int]]:
    """For each kernel offset i, the rows (or columns) of the input, padded to `size`, that it never
    meets: numbered from the first that is not one of `before` rows of zero padding, and without
    these and the `after` last ones."""
    reach = size - k + 1  # output positions
    return [
        [u - before for u in (*range(i), *range(i + reach, size)) if before <= u < size - after]
        for i in range(k)
    ]


def _offsets(left_out: list[list[int]], k: int, size: int) -> dict[int, range]:
    """By left-out row u the offsets j − i at which it is taken away, as far as row u + j − i, of
    `size`, is there.
    """
    by = {u: [i for i, rows in enumerate(left_out) if u in rows] for rows in left_out for u in rows}
    return {
        u: range(max(-max(at), -u), min(k - 1 - min(at), size - 1 - u) + 1) for u, at in by.items()
    }
