"""Lines 2 to 5 of Algorithm 1: A and DS kept up while the network is fine-tuned between two
prunings.

    A_l  ← 0.95 A_l  + 0.05 a aᵀ
    DS_l ← 0.95 DS_l + 0.05 (∇_s L)(∇_s L)ᵀ      (means over a minibatch)

`Statistics` is a callback of common.running.train.fit. The gradients are those of labels drawn from
the model's distribution (footnote 5), so each update takes a forward and a backward pass of its own
on the step's minibatch. After n further updates an update weighs 0.95ⁿ. Steps whose updates would
weigh next to nothing at the next pruning (`unheard`) are skipped, so that a long fine-tuning costs
no more than a short one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import choose, require
from common.curvature.kron import Kron, kron_factors
from common.curvature.labels import FISHERS
from common.curvature.moving import MovingKron
from common.data.sources import rebatch
from common.nets import layers as L
from common.pruning.pruned import Pruned
from common.running.train import State


@dataclass(frozen=True)
class StatisticsOptions:
    """How A and DS are estimated."""

    fisher: str = "sampled"  # footnote 5: the expectation is over the model's distribution
    decay: float = 0.95  # Sec. 3.2: "a decay factor of 0.95 in all experiments"
    every: int = 1  # steps between two updates; lines 2 to 5: every step updates
    examples: int = 0  # of the minibatch that an update reads; 0 is all of it, as in line 3
    unheard: float = 1e-3  # weight at the pruning of all steps passed over; ours, 0 takes each
    batch_size: int = 128  # examples a pass over calibration data; a matter of memory alone
    skip: tuple[str, ...] = ()  # layers left as they are

    def __post_init__(self):
        choose("fisher", self.fisher, FISHERS)
        require(0 <= self.decay < 1, "decay", self.decay, "outside [0, 1)", "the paper's is 0.95")
        for name in ("every", "batch_size"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(0 <= self.unheard < 1, "unheard", self.unheard, "outside [0, 1)", "ours is 1e-3")
        require(
            self.examples >= 0,
            "examples",
            self.examples,
            "must not be negative",
            "0 is the whole minibatch",
        )


class Statistics:
    """A callback that keeps A and DS up during fine-tuning. `latent` holds them at the end, for the
    next pruning.

    result: the pruned network; the moving average starts from the factors it was pruned by
    (result.latent). seed: labels are drawn from (seed, step), so that a resumed run draws the same.
    """

    def __init__(self, result: Pruned, options: StatisticsOptions, seed: int):
        self.options, self.seed, self.latent = options, seed, result.latent
        self.estimator: MovingKron | None = None

    def __call__(self, state: State) -> None:
        if state.event == "begin":
            start = unpack(self.latent)
            layers = {
                name: module
                for name, module in L.weighted(state.model, self.options.skip).items()
                # before the first pruning there are none: the average begins at the first batch
                if name in start or not start
            }
            self.estimator = MovingKron(
                state.model,
                layers,
                decay=self.options.decay,
                start=start,
                fisher=self.options.fisher,
                bias=True,
                generator=torch.Generator(),
            )
        elif (
            state.event == "step"
            and (state.step - 1) % self.options.every == 0
            and self._heard(state)
        ):
            self.estimator.generator.manual_seed(self.seed * 1_000_003 + state.step)
            self.estimator.update(*(part[: self.options.examples or None] for part in state.batch))
        elif state.event == "end" and self.estimator.seen:
            self.latent = pack(self.estimator.factors(), self.estimator.seen)

    def _heard(self, state: State) -> bool:
        """Whether all updates up to this one together weigh more than `unheard` at the end: decay
        to the power of the number of updates after it."""
        after = (state.total - 1) // self.options.every - (state.step - 1) // self.options.every
        return self.options.decay**after > self.options.unheard


def factors_of(
    model: nn.Module,
    calibration: Iterable,
    layers: Mapping[str, nn.Module],
    options: StatisticsOptions,
    generator: torch.Generator,
    latent: Mapping[str, Tensor] | None,
) -> dict[str, Kron]:
    """A and DS of each layer: from `latent`, if the fine-tuning before this pruning kept them up,
    else their means over the calibration data."""
    kept = unpack(latent) if latent and latent["seen"] else {}
    if set(layers) <= set(kept):
        return {name: kept[name] for name in layers}
    return kron_factors(
        model,
        rebatch(calibration, options.batch_size),
        dict(layers),
        fisher=options.fisher,
        bias=True,
        generator=generator,
    )


def pack(factors: Mapping[str, Kron], seen: int = 0) -> dict[str, Tensor]:
    """Factors as the plain tensors <layer>.A, <layer>.DS and <layer>.T, which a checkpoint can
    store. seen: examples of the fine-tuning that entered them; 0 if they are only the start of the
    next average."""
    return {"seen": torch.tensor(seen)} | {
        f"{name}.{key}": tensor
        for name, f in factors.items()
        for key, tensor in (("A", f.A), ("DS", f.G), ("T", torch.tensor(f.positions)))
    }


def unpack(latent: Mapping[str, Tensor] | None) -> dict[str, Kron]:
    """The inverse of `pack`."""
    names = [key.removesuffix(".A") for key in latent or {} if key.endswith(".A")]
    return {
        name: Kron(latent[f"{name}.A"], latent[f"{name}.DS"], int(latent[f"{name}.T"]))
        for name in names
    }
