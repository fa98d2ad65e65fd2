"""DPF, dynamic pruning with feedback (Lin et al. 2020), a baseline of Tables 1 and 2: the gradient
is taken at the masked weights and the step is made on the dense ones, so that a weight that was
removed too early can come back.

Masks are of the largest |w| over all layers. `prune` chooses them, `Feedback` chooses them again
while the network is trained; a gradual run of the method "dpf" does both on the schedule of the
others, `train` the original's one run from dense to sparse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells import schedule
from common.cells.errors import UserError
from common.cells.spec import Recipe
from common.curvature import memory
from common.data.sources import Data
from common.nets import layers as L
from common.nets import masks as M
from common.nets.clone import clone
from common.pruning.baselines import ScopeOptions
from common.pruning.pruned import Pruned
from common.pruning.select import select
from common.running.train import Fit, State, fit

EVERY = 16  # optimiser steps between two choices of the masks (Lin et al., Sec. 5)


@dataclass(frozen=True)
class Options(ScopeOptions):
    """Scope "global" is Lin et al.'s."""

    every: int = EVERY
    # ours: gradients as if a convolution's masked weights had the norm of its dense ones
    equal_norms: bool = False

    def __post_init__(self):
        if self.every < 1:
            raise UserError("every", self.every, "must be at least 1")


class Feedback:
    """Callback. sparsity: progress in [0, 1] -> fraction removed, as `select` takes it; latent:
    dense weights by parameter name to go on from, instead of the model's.

    At every event but "gradient" the model holds the masked weights, so that evaluations are of the
    pruned network; the dense ones wait in `latent`. A run with it does not resume from a snapshot,
    which has the masked weights alone.
    """

    def __init__(
        self,
        sparsity: Callable[[float], float | Mapping[str, float]],
        options: Options | None = None,
        latent: Mapping[str, Tensor] | None = None,
    ):
        self.sparsity, self.options = sparsity, options or Options()
        self.masks: M.Masks = {}
        self.latent: dict[str, Tensor] = dict(latent or {})
        self._epoch = self.masks, self.latent

    @torch.no_grad()
    def __call__(self, state: State) -> None:
        if state.event == "gradient":
            if self.options.equal_norms:
                _rescale(state.model, self.latent)
            for name, weight in self.latent.items():
                state.model.get_parameter(name).copy_(weight)
        elif state.event in ("begin", "step"):
            if state.event == "step" or not self.latent:
                self.latent = weights(state.model, self.options.skip)
            due = (
                state.event == "begin"
                or state.step % self.options.every == 0
                or state.step == state.total
            )
            # else the next loss says so
            if due and all(torch.isfinite(weight).all() for weight in self.latent.values()):
                progress = min(1.0, state.step / state.total) if state.total else 1.0
                self.masks = largest(self.latent, self.sparsity(progress), self.options)
            M.apply(state.model, self.masks)
        elif state.event == "diverged":
            self.masks, self.latent = self._epoch
        if state.event in ("begin", "epoch"):
            self._epoch = self.masks, self.latent


def weights(model: nn.Module, skip: Iterable[str] = ()) -> dict[str, Tensor]:
    """Copies of the prunable weights by parameter name, whatever they are: a training that diverges
    says so itself.
    """
    layers = L.weighted(model, skip)
    return {f"{name}.weight": module.weight.detach().clone() for name, module in layers.items()}


@torch.no_grad()
def _rescale(model: nn.Module, latent: Mapping[str, Tensor]) -> None:
    """Multiply each convolution's gradient by ‖masked weights‖ / ‖dense weights‖. Batch
    normalization makes the output indifferent to the scale of the convolution before it, so its
    gradient goes with one over the norm of the weights that it is taken at."""
    for name, dense in latent.items():
        weight = model.get_parameter(name)
        if weight.dim() == 4 and weight.grad is not None and dense.any():
            weight.grad.mul_(weight.norm() / dense.norm())


def largest(
    dense: Mapping[str, Tensor], amount: float | Mapping[str, float], options: Options
) -> M.Masks:
    """The masks of these dense weights, none removed before."""
    kept = select(
        {name.removesuffix(".weight"): weight.abs() for name, weight in dense.items()},
        amount,
        options.scope,
    )
    return {f"{name}.weight": mask for name, mask in kept.items()}


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float | Mapping[str, float],
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
    latent: Mapping[str, Tensor] | None = None,
) -> Pruned:
    """A copy of `model` with `amount` of the dense weights `latent` (its own, if none are given)
    masked. What `masks` removed before may come back."""
    memory.require("", L.prunable(model, options.skip), options)
    dense = dict(latent or weights(model, options.skip))
    result = Pruned(clone(model), largest(dense, amount, options), latent=dense)
    with torch.no_grad():
        for name, weight in dense.items():
            result.model.get_parameter(name).copy_(weight)
    M.apply(result.model, result.masks)
    return result


def training(result: Pruned, options: Options) -> Feedback:
    """What the pipeline trains with: feedback at the sparsity that `prune` left, per layer or over
    all.
    """
    kept = {
        name.removesuffix(".weight"): 1 - float(mask.double().mean())
        for name, mask in result.masks.items()
    }
    amount = kept if options.scope == "layer" else M.sparsity(result.masks)
    return Feedback(lambda progress: amount, options, result.latent)


def train(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    sparsity: float,
    ramp: float = 0.5,
    options: Options | None = None,
    seed: int = 0,
) -> tuple[Fit, M.Masks]:
    """Train `model` in place to `sparsity`, which grows by the cubic schedule over the first `ramp`
    of the run; (history, masks).
    """
    if not 0 < ramp <= 1:
        raise UserError("ramp", ramp, "outside (0, 1]")
    feedback = Feedback(
        lambda progress: schedule.sparsity_at(min(1.0, progress / ramp), sparsity), options
    )
    result = fit(model, data, recipe, callbacks=[feedback], seed=seed, desc=f"DPF to {sparsity:g}")
    return result, feedback.masks
