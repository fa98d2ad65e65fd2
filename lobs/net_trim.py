"""Net-Trim (Aghasi et al. 2017), the ℓ1 method that L-OBS's Sec. 4.2 compares with: the sparsest
weights that reproduce a ReLU layer's output.

    min ‖U‖₁   s.t.   ‖(UX − Y)_Ω‖_F ≤ ξ ‖Y‖_F,   (UX)_Ωᶜ ≤ 0,
    Ω: where the dense output Y = ReLU(WX) is positive

is the convex form of ‖ReLU(UX) − Y‖_F ≤ ξ‖Y‖_F. ADMM solves it with the splitting S = U (sparse),
Z = UX (feasible):

    U ← (S − a + (Z − b)Xᵀ)(I + XXᵀ)⁻¹
    S ← soft(U + a, 1/ρ)        Z ← project(UX + b)
    a ← a + U − S               b ← b + UX − Z

Every iteration holds a few arrays [out, n]: unlike L-OBS's Hessian they grow with the number of
samples n.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from common.cells.errors import NumericalError, UserError


@dataclass(frozen=True)
class Options:
    """xi: allowed relative error of the layer's output, ξ_r of Table 2. The bias (last row of X,
    all ones) is not penalised.
    """

    xi: float = 0.1
    rho: float = 1.0  # ADMM's penalty, in units of the mean |weight|⁻¹; ours
    iterations: int = 300  # ours
    bias: bool = True


def net_trim(W: Tensor, X: Tensor, options: Options) -> tuple[Tensor, dict]:
    """(U, report): U like W [out, in], exactly sparse; X [in, n] inputs by column. report: xi
    reached, violation on Ωᶜ, kept.

    Raises UserError for a ξ outside (0, 1), NumericalError where the iteration leaves the finite
    numbers.
    """
    if not 0 < options.xi < 1:
        raise UserError(
            "xi",
            options.xi,
            "outside (0, 1)",
            "it is the relative error that the layer's output may have",
        )
    W, X = W.double(), X.double()
    Y = (W @ X).clamp_min(0)
    positive, radius = Y > 0, options.xi * float(Y.norm())
    scale = float(X.square().sum(0).mean())  # brings both splittings to one size
    X, Y, radius = X / scale**0.5, Y / scale**0.5, radius / scale**0.5
    factor = torch.linalg.cholesky(torch.eye(len(X), dtype=X.dtype) + X @ X.T)
    threshold = torch.full_like(W, float(W.abs().mean()) / options.rho)
    if options.bias:
        threshold[:, -1] = 0
    S, Z = W.clone(), _project(W @ X, Y, positive, radius)
    a, b = torch.zeros_like(S), torch.zeros_like(Z)
    for _ in range(options.iterations):
        U = torch.cholesky_solve(((S - a) + (Z - b) @ X.T).T, factor).T
        S = torch.sign(U + a) * ((U + a).abs() - threshold).clamp_min(0)
        UX = U @ X
        Z = _project(UX + b, Y, positive, radius)
        a += U - S
        b += UX - Z
    if not torch.isfinite(S).all():
        raise NumericalError("net-trim", "ADMM diverged", "lower rho")
    answer = S @ X
    weights = S[:, :-1] if options.bias else S
    return S, {
        "xi": float((answer.clamp_min(0) - Y).norm() / Y.norm()),
        "asked": options.xi,
        "violation": float(answer[~positive].clamp_min(0).norm() / Y.norm()),
        "kept": float((weights != 0).double().mean()),
    }


def net_trim_keeping(
    W: Tensor, X: Tensor, kept: float, options: Options | None = None, tolerance: float = 1e-3
) -> tuple[Tensor, dict]:
    """`net_trim` at the ξ that keeps the fraction `kept` of the weights, within `tolerance`.

    Bisection: the more error is allowed, the fewer weights are kept. Raises NumericalError where no
    ξ in (0, 1) keeps that many.
    """
    options = options or Options()
    low, high = 0.0, 1.0
    for _ in range(20):
        xi = (low + high) / 2
        answer, report = net_trim(W, X, dataclasses.replace(options, xi=xi))
        if abs(report["kept"] - kept) <= tolerance:
            return answer, report
        low, high = (xi, high) if report["kept"] > kept else (low, xi)
    raise NumericalError(
        "net-trim",
        f"keeps {report['kept']:.4f} of the weights at ξ {xi:.5f}, not {kept:g}",
        "allow a larger tolerance",
    )


def _project(Z: Tensor, Y: Tensor, positive: Tensor, radius: float) -> Tensor:
    """The nearest feasible output: inside the ball around Y on Ω, at most zero elsewhere."""
    apart = torch.where(positive, Z - Y, 0.0)
    shrink = min(1.0, radius / max(float(apart.norm()), 1e-300))
    return torch.where(positive, Y + shrink * apart, Z.clamp_max(0))


def constraint_entries(samples: int, outputs: int, inputs: int) -> int:
    """Entries of the matrix Q in the quadratic constraints, as L-OBS counts them (Sec. 4.2): 2 n
    m_l² m_{l−1}.
    """
    return 2 * samples * outputs**2 * inputs
