"""What C-OBD, C-OBS, Kron-OBD and Kron-OBS share: their options, and the removal of filters.

A unit scores the sum of its filters' scores. With coupling="groups" it is a channel with all that
must go with it (common.pruning.channels); with coupling="union", the paper's way with residual
networks, every filter is a unit of its own, and eigendamage.union cuts one layer after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import NumericalError, choose
from common.curvature import memory
from common.curvature.kron import KronInverse, kron_factors
from common.curvature.labels import FISHERS
from common.nets import layers as L
from common.nets import masks as M
from common.nets.clone import clone
from common.pruning import channels
from common.pruning.pruned import Pruned
from eigendamage import union
from eigendamage.threshold import CAP, percentile, require_cap

FORMS = ("paper", "released")
# (layer, which filters go [filters]) -> (δ like L.joined, its increase)
Update = Callable[[str, Tensor], tuple[Tensor, float]]


@dataclass(frozen=True)
class FilterOptions:
    """`amount` is a fraction of all units; the classifier's outputs are not among them."""

    # one label drawn from the model's own distribution an example (released code)
    fisher: str = "sampled"
    # of residual branches: what meets goes together; "union": each layer alone (the paper)
    coupling: str = "groups"
    cap: float = CAP  # Sec. 5.2: at most 95% of a layer goes at once
    skip: tuple[str, ...] = ()  # layers whose filters stay

    def __post_init__(self):
        choose("fisher", self.fisher, FISHERS)
        choose("coupling", self.coupling, ("groups", "union"))
        require_cap(self.cap)


@dataclass(frozen=True)
class KronOptions(FilterOptions):
    """For the methods that invert K-FAC. The paper states no damping; the released code adds 1e-10
    to each eigenvalue, which a singular factor makes an arbitrary score. Ours is relative to the
    mean eigenvalues and π-corrected, and is recorded."""

    damping: float = 1e-4  # γ: each factor gets √γ = 1% of its mean eigenvalue


class Filters:
    """A network's units and, by name, the layers whose filters they are made of."""

    def __init__(
        self,
        model: nn.Module,
        calibration: Iterable,
        skip: Iterable[str] = (),
        masks: M.Masks | None = None,
        coupling: str = "groups",
    ):
        M.require_none(masks, "remove units from")
        self.model, self.coupling = model, coupling
        self.calibration, self.example = channels.with_example(calibration)
        whole = model
        if coupling == "union":  # filters that went before keep their places in the streams
            whole = clone(model)
            union.widen(whole, self.example)
        self.channels = channels.find(whole, self.example, skip)
        self.layers = {
            name: model.get_submodule(union.inner(model, name)) for name in self.channels.layers
        }
        for name, module in self.layers.items():
            if not torch.isfinite(module.weight).all():
                raise NumericalError(name, "its weights are not finite", "check the checkpoint")

    def inverses(self, options: KronOptions, generator: torch.Generator) -> dict[str, KronInverse]:
        """Damped (S ⊗ A)⁻¹ by layer; A has the bias's coordinate where the layer has a bias."""
        memory.require("kron", self.layers, options)
        factors = kron_factors(
            self.model,
            self.calibration,
            self.layers,
            fisher=options.fisher,
            bias=True,
            generator=generator,
        )
        return {
            name: KronInverse.of(
                factors.pop(name), options.damping, relative=True, name=name, own=True
            )
            for name in list(factors)
        }

    def remove(
        self, scores: Mapping[str, Tensor], amount: float, cap: float, update: Update | None = None
    ) -> Pruned:
        """A copy of the network without the units that score lowest. `scores`: [filters] by layer.
        `update` moves what stays in the producing layers first; without it the predicted increase
        is the sum of what went."""
        alone = self.coupling == "union"
        kept, notes = percentile(scores if alone else self.channels.scores(scores), amount, cap)
        gone = {n: ~k for n, k in kept.items()} if alone else self.channels.filters_gone(kept)
        result = Pruned(
            clone(self.model), predicted_increase=0.0, notes=notes + self.channels.notes()
        )
        for name, filters in ((name, gone[name]) for name in self.layers):
            if update is None:
                result.predicted_increase += float(scores[name][filters].sum())
            elif filters.any():
                delta, increase = update(name, filters)
                result.predicted_increase += increase
                moved = result.model.get_submodule(union.inner(result.model, name))
                module = self.layers[name]
                L.write_joined(moved, L.joined(module, module.bias is not None) + delta)
        result.edits = (
            union.cut(result.model, self.channels.groups, gone, self.example)
            if alone
            else self.channels.cut(result.model, kept)
        )
        return result


def input_form(W: Tensor, A: Tensor, form: str) -> Tensor:
    """θ_iᵀ A θ_i of each filter, [groups, out] (Eqs. 13, 14); form="released" is the released
    code's (θ_i ∘ θ_i)ᵀ A 1.
    """
    choose("form", form, FORMS)
    return ((W @ A) * W if form == "paper" else W.square() @ A).sum(-1)


def damping_of(inverses: Mapping[str, KronInverse]) -> dict[str, dict]:
    """What was added to each factor's diagonal (mean over convolution groups), for the record."""
    return {name: inverse.added() for name, inverse in inverses.items()}
