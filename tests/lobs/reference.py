"""Dense, obvious twins of what only L-OBS computes: loops over inputs and units, explicit matrices,
float64.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.reference import matrix_order, seen_by_positions


def rows_of(module: nn.Module, x: Tensor, bias: bool) -> Tensor:
    """Every input the layer answers, [groups, n, in (+1)]."""
    seen = seen_by_positions(module, x, bias)
    return seen.transpose(0, 1).reshape(seen.shape[1], -1, seen.shape[3])


def matrix_of(module: nn.Module, bias: bool) -> Tensor:
    """The layer's weights, [groups, out, in (+1)]."""
    groups = getattr(module, "groups", 1)
    width = seen_width(module)
    W = module.weight.detach().flatten()[matrix_order(module)].reshape(groups, -1, width)
    return torch.cat([W, module.bias.detach().reshape(groups, -1, 1)], 2) if bias else W


def seen_width(module: nn.Module) -> int:
    """Weights that make one output."""
    outputs = [getattr(module, name, None) for name in ("out_channels", "out_features", "nf")]
    return module.weight.numel() // next(number for number in outputs if number)


def hessian(rows: Tensor) -> Tensor:
    """Eq. 9, one outer product at a time: [groups, in, in]."""
    total = torch.zeros(rows.shape[0], rows.shape[2], rows.shape[2], dtype=torch.float64)
    for g in range(rows.shape[0]):
        for row in rows[g]:
            total[g] += torch.outer(row, row)
    return total / rows.shape[1]


def woodbury(rows: Tensor, alpha: float) -> Tensor:
    """The recursion of Sec. 3.4.1 with the indices mended: from αI, one input at a time, n in every
    denominator.
    """
    inverse = alpha * torch.eye(rows.shape[1], dtype=rows.dtype)
    for y in rows:
        v = inverse @ y
        inverse = inverse - torch.outer(v, v) / (len(rows) + y @ v)
    return inverse


def paper_layer(rows: Tensor, W: Tensor, ridge: float, remove: int, free: int) -> Tensor:
    """The released procedure for one layer without groups: rank every weight of the first `free`
    columns once by Eq. 6, then walk the list, moving the unit's other weights each time by the
    current value. Weights behind an input that was always zero cost nothing and come first."""
    psi = hessian(rows[None])[0]
    inverse = torch.linalg.inv(psi + ridge * torch.eye(rows.shape[1], dtype=torch.float64))
    ranked = sorted(
        (float(W[i, q] ** 2 / (2 * inverse[q, q])) if psi[q, q] else 0.0, i, q)
        for i in range(len(W))
        for q in range(free)
    )
    new, gone = W.clone(), []
    for _, i, q in ranked[:remove]:
        new[i] -= new[i, q] / inverse[q, q] * inverse[:, q]
        gone.append((i, q))
    for i, q in gone:
        new[i, q] = 0
    return new


def best_layer(seen: Tensor, wanted: Tensor, W: Tensor, kept: Tensor, ridge: float) -> Tensor:
    """Least squares, unit by unit: argmin ½ mean (w·x − z)² + ½ρ‖w − W‖² over the kept weights
    alone.

    seen [n, in], wanted [n, out] the outputs asked for, kept [out, in].
    """
    new = torch.zeros_like(W)
    n = len(seen)
    for i in range(len(W)):
        k = kept[i].nonzero().flatten()
        if len(k):
            A = torch.cat(
                [seen[:, k] / n**0.5, ridge**0.5 * torch.eye(len(k), dtype=torch.float64)]
            )
            b = torch.cat([wanted[:, i] / n**0.5, ridge**0.5 * W[i, k]])
            new[i, k] = torch.linalg.lstsq(A, b[:, None]).solution[:, 0]
    return new


def layer_error(seen: Tensor, new: Tensor, wanted: Tensor) -> float:
    """½ mean ‖Wx − z‖² by carrying it out."""
    return 0.5 * float((seen @ new.T - wanted).square().sum()) / len(seen)


def alone(rows: Tensor, W: Tensor, unit: int, q: int) -> Tensor:
    """The layer after the one deletion of Eq. 5: weight q of one unit goes and the unit's others
    take their least-squares optimum.
    """
    kept = torch.ones_like(W, dtype=torch.bool)
    kept[unit, q] = False
    return best_layer(rows, rows @ W.T, W, kept, 0.0)


def rms(a: Tensor, b: Tensor) -> float:
    """Eq. 2: the root of the mean squared distance of two outputs [n, out]."""
    return float((a - b).square().sum() / len(a)) ** 0.5
