"""DPF, dynamic pruning with feedback (Lin et al. 2020), a baseline of Tables 1 and 2: the gradient is taken at the masked
weights and the step is made on the dense ones, so that a weight that was removed too early can come back.

A callback of common.train.fit and no prune function: it needs the training data. Masks are of the largest |w| over all layers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from common import layers as L
from common import masks as M
from common import schedule
from common.data import Data
from common.errors import UserError
from common.select import select
from common.spec import Recipe
from common.train import Fit, State, fit

EVERY = 16  # optimiser steps between two choices of the masks (Lin et al., Sec. 5)


class Feedback:
    """Callback. sparsity: progress in [0, 1] -> fraction removed; every: steps between two choices; skip: layers left dense.

    At every event but "gradient" the model holds the masked weights, so that evaluations are of the pruned network; the dense
    ones wait in `dense`. A run with it does not resume from a snapshot, which has the masked weights alone.
    """

    def __init__(self, sparsity: Callable[[float], float], every: int = EVERY, skip: tuple[str, ...] = ()):
        if every < 1:
            raise UserError("every", every, "must be at least 1")
        self.sparsity, self.every, self.skip = sparsity, every, skip
        self.masks: M.Masks = {}
        self.dense: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, state: State) -> None:
        if state.event == "gradient":
            for name, weight in self.dense.items():
                state.model.get_parameter(name).copy_(weight)
        elif state.event in ("begin", "step"):
            self.dense = {f"{name}.weight": module.weight.clone() for name, module in L.prunable(state.model, self.skip).items()}
            if state.event == "begin" or state.step % self.every == 0 or state.step == state.total:
                progress = min(1.0, state.step / state.total) if state.total else 1.0
                self.masks = select({name: weight.abs() for name, weight in self.dense.items()}, self.sparsity(progress))
            M.apply(state.model, self.masks)


def train(model: nn.Module, data: Data, recipe: Recipe, sparsity: float, ramp: float = 0.5, every: int = EVERY,
          skip: tuple[str, ...] = (), seed: int = 0) -> tuple[Fit, M.Masks]:
    """Train `model` in place to `sparsity`, which grows by the cubic schedule over the first `ramp` of the run; (history, masks)."""
    if not 0 < ramp <= 1:
        raise UserError("ramp", ramp, "outside (0, 1]")
    feedback = Feedback(lambda progress: schedule.sparsity_at(min(1.0, progress / ramp), sparsity), every, skip)
    result = fit(model, data, recipe, callbacks=[feedback], seed=seed, desc=f"DPF to {sparsity:g}")
    return result, feedback.masks
