"""Dynamic network surgery (Guo, Yao & Chen 2016), the DNS rows of L-OBS's Table 1: all weights are
trained, only some are used.

The network computes with W ∘ T. Its gradient in W ∘ T updates all of W, unused weights too (their
Eq. 3), so that a weight can come back: T becomes 0 where |W| < a, 1 where |W| > b, and stays as it
is between (Eq. 4). a and b are the layer's magnitude at the wanted sparsity, times 1 ∓ `band`. T is
renewed every `interval` steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from common.cells.errors import UserError
from common.cells.spec import Recipe
from common.data.images import Images
from common.data.sources import Data
from common.nets import layers as L
from common.nets import masks as M
from common.nets.clone import clone
from common.pruning.pruned import Pruned
from common.pruning.select import by_layer, select
from common.running import train as T


@dataclass(frozen=True)
class Options:
    """The paper's runs take 16,000 to 34,000 iterations on MNIST."""

    steps: int = 2_000  # optimiser steps with surgery
    lr: float = 0.01  # ours, with momentum 0.9; theirs follows Caffe's examples
    batch_size: int = 64  # Caffe's for MNIST
    # steps between renewals of T; theirs decide by chance at each step
    interval: int = 20
    # half the width of the band in which T stays as it is; theirs: a = 0.9 t, b = 1.1 t
    band: float = 0.1
    skip: tuple[str, ...] = field(default=())


class Surgery:
    """A callback of common.running.train.fit. The parameters are W ∘ T during the forward pass and
    W during the optimiser's step."""

    def __init__(self, model: nn.Module, amounts: Mapping[str, float], options: Options):
        self.weights = {name: model.get_submodule(name).weight for name in amounts}
        self.whole = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.used = {
            name: torch.ones_like(weight, dtype=torch.bool) for name, weight in self.weights.items()
        }
        self.amounts, self.options = amounts, options

    @torch.no_grad()
    def __call__(self, state: T.State) -> None:
        for name, weight in self.weights.items():
            if state.event == "gradient":
                weight.copy_(self.whole[name])
            elif state.event == "step":
                self.whole[name].copy_(weight)
                if state.step % self.options.interval == 0:
                    self.used[name] = self.renewed(name, min(1.0, 2 * state.step / state.total))
                weight.mul_(self.used[name])

    def renewed(self, name: str, progress: float) -> Tensor:
        """Eq. 4 for one layer; the sparsity grows linearly over the first half of the run."""
        size = self.whole[name].abs()
        threshold = (
            size.flatten()
            .kthvalue(max(1, round(self.amounts[name] * progress * size.numel())))
            .values
        )
        low, high = threshold * (1 - self.options.band), threshold * (1 + self.options.band)
        return torch.where(size < low, False, torch.where(size > high, True, self.used[name]))

    def final(self) -> dict[str, Tensor]:
        """Masks of exactly the amounts asked for: used weights before unused ones, larger before
        smaller.
        """
        scores = {
            name: self.whole[name].abs().double() + self.used[name] * 1e6 for name in self.weights
        }
        return {
            f"{name}.weight": mask for name, mask in select(scores, self.amounts, "layer").items()
        }


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float | Mapping[str, float],
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
    watch: T.Callback | None = None,
) -> Pruned:
    """Train `model` with surgery on the calibration data. watch: another callback of the training,
    which sees the network as it is masked. Raises UserError for a network that was pruned
    before."""
    if masks:
        raise UserError("steps", "several", "surgery decides its masks in one run", "use steps=1")
    layers = L.prunable(model, options.skip)
    amounts = by_layer(amount, layers)
    x, y = (torch.cat(parts) for parts in zip(*calibration, strict=True))
    classes = int(y.max()) + 1
    result = Pruned(clone(model))
    surgery = Surgery(result.model, amounts, options)
    images = Images(x.float(), y, classes)
    data = Data(
        "calibration",
        classes,
        tuple(x.shape[1:]),
        images,
        Images(x[:256].float(), y[:256], classes),
        "",
    )
    recipe = Recipe(
        epochs=-(-options.steps * options.batch_size // len(x)) + 1,
        max_steps=options.steps,
        lr=options.lr,
        batch_size=options.batch_size,
    )
    callbacks = [surgery] if watch is None else [surgery, watch]
    T.fit(
        result.model,
        data,
        recipe,
        callbacks=callbacks,
        seed=generator.initial_seed() % 10_000,
        desc="dynamic surgery",
    )
    result.masks = surgery.final()
    result.notes = [f"{options.steps} iterations of surgery on {len(x)} examples"]
    M.apply(result.model, result.masks)
    return result
