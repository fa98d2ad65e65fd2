"""The second moment of a convolution's patches without forming them.

At stride 1 the entry of A for kernel offsets i, j depends, but for the image's border, only on j − i: of the k⁴ products of
offsets (2k−1)² are distinct, and all of them together are the weight gradient of a convolution with a (2k−1)-wide kernel,
    R_δ[c, c'] = Σ_u P[c, u] P[c', u + δ]                      P: the padded input, u over all its pixels,
and since R_−δ = R_δᵀ, a kernel of half that height finds them.
An output position t sees u = t + i, so offset i leaves out the k−1 rows and columns of P that no such t reaches; by inclusion
and exclusion A_ij = R_(j−i) − rows_i − columns_i + corners_i, each the same sum over the left-out rows, columns, or pixels.
Rows and columns that are zero padding contribute nothing and are skipped. Exact: the same sums in another order.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import layers as L


def applies(module: nn.Module) -> bool:
    """Whether `patch_moment` covers the layer: a k × k convolution, k > 1, of stride and dilation 1 in one group."""
    return (isinstance(module, nn.Conv2d) and module.stride == (1, 1) and module.dilation == (1, 1) and module.groups == 1
            and max(module.kernel_size) > 1)


def patch_moment(module: nn.Conv2d, x: Tensor, bias: bool = False) -> Tensor:
    """Σ_b Σ_t a aᵀ over the patches a of x [B, C, H, W], with a last entry of one in a if `bias`: [1, d, d], float64,
    d = C·kh·kw (+1)."""
    kh, kw = module.kernel_size
    padded = L.pad(module, x)
    channels, height, width = padded.shape[1:]
    wide = F.pad(padded, (kw - 1, kw - 1, kh - 1, kh - 1))  # so that u + δ always exists
    zero_rows, zero_columns = _zero_border(module, height, width)

    def correlation(rows: slice, columns: slice) -> Tensor:
        """Σ over u in the box of P[c, u] P[c', u + δ]: [c, c', 2kh−1, 2kw−1]."""
        box = padded[:, :, rows, columns]
        around = wide[:, :, rows.start:rows.stop + 2 * (kh - 1), columns.start:columns.stop + 2 * (kw - 1)]
        return torch.nn.grad.conv2d_weight(around, (channels, channels, 2 * kh - 1, 2 * kw - 1), box).double()

    every_row, every_column = slice(0, height), slice(0, width)
    below = torch.nn.grad.conv2d_weight(wide[:, :, kh - 1:], (channels, channels, kh, 2 * kw - 1), padded).double()  # δ's rows from 0
    whole = torch.cat([below.flip(2, 3).transpose(0, 1)[:, :, :-1], below], dim=2)
    out_rows, out_columns = _left_out(height, kh, zero_rows), _left_out(width, kw, zero_columns)
    by_row = {u: correlation(slice(u, u + 1), every_column) for u in {u for e in out_rows for u in e}}
    by_column = {u: correlation(every_row, slice(u, u + 1)) for u in {u for e in out_columns for u in e}}
    by_pixel = {(u, v): correlation(slice(u, u + 1), slice(v, v + 1)) for u in by_row for v in by_column}
    moment = whole.new_empty(channels, kh, kw, channels, kh, kw)
    for i in range(kh):
        for j in range(kw):
            seen = whole.clone()
            for u in out_rows[i]:
                seen -= by_row[u]
            for v in out_columns[j]:
                seen -= by_column[v]
                for u in out_rows[i]:
                    seen += by_pixel[u, v]
            # δ = (p, q) − (i, j) lies at index δ + k − 1; all p, q at once are a kh × kw window
            moment[:, i, j] = seen[:, :, kh - 1 - i:2 * kh - 1 - i, kw - 1 - j:2 * kw - 1 - j]
    moment = moment.reshape(1, channels * kh * kw, channels * kh * kw)
    if not bias:
        return moment
    ones = padded.new_ones(len(x), 1, height - kh + 1, width - kw + 1)
    sums = torch.nn.grad.conv2d_weight(padded, (1, channels, kh, kw), ones).double().reshape(1, 1, -1)
    below = torch.cat([sums, sums.new_full((1, 1, 1), ones.numel())], dim=2)
    return torch.cat([torch.cat([moment, sums.mT], dim=2), below], dim=1)


def _left_out(size: int, k: int, zero: set[int]) -> list[list[int]]:
    """For each kernel offset i, the rows (or columns) of the padded input that it never meets, without the zero ones."""
    reach = size - k + 1  # output positions
    return [[u for u in (*range(i), *range(i + reach, size)) if u not in zero] for i in range(k)]


def _zero_border(module: nn.Conv2d, height: int, width: int) -> tuple[set[int], set[int]]:
    """Rows and columns of the padded input that are zeros."""
    if module.padding_mode != "zeros":
        return set(), set()
    left, right, top, bottom = L.spatial_padding(module)
    return ({*range(top), *range(height - bottom, height)}, {*range(left), *range(width - right, width)})
