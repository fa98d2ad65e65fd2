"""WoodTaylor (WoodFisher Sec. 6.2): the local quadratic model with its first-order term, for
networks away from a minimum.

With u = F̂⁻¹ ∇L, Eq. 23 is (w_q − u_q)² / (2 [F̂⁻¹]_qq), and Eq. 21 is −u plus the classic update
of w − u. So WoodTaylor is the Newton step −u to the minimum of the quadratic model, and WoodFisher
from there: that is how it is written here. Eq. 22's last term, −½ ∇Lᵀ F̂⁻¹ ∇L, is the gain of the
Newton step; it is the same whichever weight goes, in every layer, and is left out of the ranking
(Eq. 23) but not out of the prediction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from common.cells.errors import NumericalError, UserError, require
from common.curvature.fisher import Part, notes
from common.nets import masks as M
from common.nets.clone import clone
from common.pruning.pruned import Pruned
from common.running.train import evaluate
from woodfisher.method import FisherOptions, SurgeonOptions, fisher_parts
from woodfisher.ours import UpdateOptions
from woodfisher.surgeon import selection, statistic, step


@dataclass(frozen=True)
class Options(FisherOptions, SurgeonOptions, UpdateOptions):
    """λ couples the two terms, so it matters more than WoodFisher's."""

    damping: float = 0.1  # Fig. 7 on MLPNet; 1e-3 was best for ResNet-20 (S8.1)
    # ours: λ is raised tenfold until the Newton step promises no more than this part of the loss,
    # which cannot fall below zero; None takes λ as it is
    trust: float | None = None

    def __post_init__(self):
        FisherOptions.__post_init__(self)
        SurgeonOptions.__post_init__(self)
        UpdateOptions.__post_init__(self)
        bounded = self.trust is None or 0 < self.trust <= 1
        require(bounded, "trust", self.trust, "is outside (0, 1]", "give a part of the loss")
        if self.fisher != "empirical":
            raise UserError(
                "fisher",
                self.fisher,
                "its rows do not average to the loss's gradient",
                "use --fisher empirical",
            )


def newton(part: Part) -> tuple[Tensor, float]:
    """(u = F̂⁻¹ ∇L, ½ ∇Lᵀ F̂⁻¹ ∇L) with ∇L the mean of the rows; u flat, float64."""
    gradient = part.curvature.mean_row()
    u = part.curvature.solve(gradient)
    if not torch.isfinite(u).all():
        raise NumericalError(
            next(iter(part.layers)), "its Newton step is not finite", "raise --damping"
        )
    return u, 0.5 * float(gradient @ u)


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float | Mapping[str, float],
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """A copy of `model` with `amount` of its weights removed; the kept ones move even where nothing
    is removed (amount 0).
    """
    calibration = list(calibration) if isinstance(calibration, Iterator) else calibration
    result = Pruned(clone(model), dict(masks or {}))
    M.apply(result.model, result.masks)
    parts = fisher_parts(result.model, calibration, options, generator, result.masks)
    raised = []
    if options.trust is not None:
        bound = options.trust * evaluate(result.model, calibration)[0]
        parts, raised = trusted(parts, bound, options.damping)
    # − F̂⁻¹ ∇L, the last term of Eqs. 21, 22
    gain = _move(parts)
    rho = statistic(parts)  # Eq. 23
    result.masks = selection(rho, amount, options.scope, masks, options.min_keep)
    # the first term of Eq. 21, masked
    increase = step(result.model, parts, result.masks, rho, options.update)
    result.predicted_increase, result.notes = increase - gain, notes(parts) + raised
    return result


def trusted(parts: list[Part], most: float, damping: float) -> tuple[list[Part], list[str]]:
    """(the parts under the least λ of damping · 10^k whose Newton steps together promise to lower
    the loss by no more than `most`, a note where k > 0). Raises NumericalError where none of thirty
    does."""
    asked = damping
    for _ in range(30):
        gain = sum(newton(part)[1] for part in parts)
        if gain <= most:
            told = f"damping raised from {asked:g} to {damping:g}, where the Newton step is trusted"
            return parts, [told] if damping > asked else []
        damping *= 10
        parts = [replace(part, curvature=part.curvature.damped(damping)) for part in parts]
    name = next(iter(parts[0].layers))
    raise NumericalError(name, "its Newton step promises more than the loss at any damping")


@torch.no_grad()
def _move(parts: list[Part]) -> float:
    """Take the Newton step in every layer; returns how much the quadratic model falls."""
    total = 0.0
    for part, (u, gain) in [(part, newton(part)) for part in parts]:
        for name, change in part.split(u).items():
            part.layers[name].weight -= change
        total += gain
    return total
