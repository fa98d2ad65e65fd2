"""What C-OBD, C-OBS, Kron-OBD and Kron-OBS share: filters as units, coupled where the network
couples them, and their removal.

A unit is an output channel with all that must go with it: the filters of every layer that produces
it (several where residual branches meet), its BatchNorm entries, and the input columns of its
readers. It scores the sum of its filters' scores. With coupling="union" every filter is a unit of
its own, and eigendamage.union does the cutting, one time after the other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import NumericalError, UserError, choose
from common.curvature.kron import KronInverse, kron_factors
from common.curvature.labels import FISHERS
from common.nets import layers as L
from common.nets.surgery import channel_groups, narrow
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
    """A network's units and the layers whose filters they are made of."""

    def __init__(
        self,
        model: nn.Module,
        calibration: Iterable,
        skip: Iterable[str] = (),
        masks: Mapping[str, Tensor] | None = None,
        coupling: str = "groups",
    ):
        if masks:
            raise UserError(
                "masks",
                sorted(masks)[0],
                "single weights were masked before",
                "remove units from a network without masks",
            )
        self.model = model
        self.calibration = list(calibration) if isinstance(calibration, Iterator) else calibration
        example = next(iter(self.calibration), None)
        if example is None:
            raise UserError("calibration", 0, "no batch was seen", "give at least one example")
        self.example, self.coupling = example[0], coupling
        whole = model
        # filters that went before are not there; their places in the streams are
        if coupling == "union":
            whole = copy.deepcopy(model)
            union.widen(whole, example[0])
        self.groups = channel_groups(whole, example[0], skip)
        producers = {
            member.module
            for group in self.groups
            for member in group.members
            if member.axis == "out"
        }
        self.layers = {
            name: model.get_submodule(union.inner(model, name))
            for name in L.prunable(whole)
            if name in producers
        }
        if not self.groups:
            raise UserError(
                "model",
                type(model).__name__,
                "has no channels that can go",
                "leave less in skip, or choose another method",
            )
        for name, module in self.layers.items():
            if not torch.isfinite(module.weight).all():
                raise NumericalError(name, "its weights are not finite", "check the checkpoint")

    def inverses(self, options: KronOptions, generator: torch.Generator) -> dict[str, KronInverse]:
        """Damped (S ⊗ A)⁻¹ by layer; A has the bias's coordinate where the layer has a bias."""
        factors = kron_factors(
            self.model,
            self.calibration,
            self.layers,
            fisher=options.fisher,
            bias=True,
            generator=generator,
        )
        return {
            name: KronInverse.of(f, options.damping, relative=True, name=name)
            for name, f in factors.items()
        }

    def remove(
        self, scores: Mapping[str, Tensor], amount: float, cap: float, update: Update | None = None
    ) -> Pruned:
        """The units of the lowest scores gone from a copy of the network. `scores`: [filters] by
        layer. `update` moves what stays in the producing layers first; without it the prediction is
        the sum of what went."""
        units = (
            scores
            if self.coupling == "union"
            else {
                group.name: sum(
                    torch.stack([scores[member.module][rows].sum() for rows in member.map])
                    for member in group.members
                    if self._produces(member)
                )
                for group in self.groups
            }
        )
        kept, notes = percentile(units, amount, cap)
        filters = (
            {name: ~k for name, k in kept.items()}
            if self.coupling == "union"
            else self._filters_gone(kept)
        )
        result = Pruned(copy.deepcopy(self.model), predicted_increase=0.0, notes=notes)
        for name, gone in filters.items():
            if update is None:
                result.predicted_increase += float(scores[name][gone].sum())
            elif gone.any():
                delta, increase = update(name, gone)
                result.predicted_increase += increase
                module, moved = (
                    self.layers[name],
                    result.model.get_submodule(union.inner(result.model, name)),
                )
                L.write_joined(moved, L.joined(module, module.bias is not None) + delta)
        if self.coupling == "union":
            result.edits = union.cut(result.model, self.groups, filters, self.example)
            return result
        return self.cut(result, kept)

    def cut(self, result: Pruned, kept: Mapping[str, Tensor]) -> Pruned:
        """The units that are not `kept` (group name -> bool) cut out of `result`, a copy of the
        network.
        """
        result.edits = narrow(
            result.model,
            self.groups,
            {name: k.nonzero().flatten().tolist() for name, k in kept.items()},
        )
        return result

    def _produces(self, member) -> bool:
        return member.axis == "out" and member.module in self.layers

    def _filters_gone(self, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Which filters of each layer go with the units that are not `kept`."""
        gone = {
            name: torch.zeros(len(m.weight), dtype=torch.bool, device=m.weight.device)
            for name, m in self.layers.items()
        }
        for group in self.groups:
            for member in filter(self._produces, group.members):
                for unit in (~kept[group.name]).nonzero().flatten().tolist():
                    gone[member.module][member.map[unit]] = True
        return gone


def input_form(W: Tensor, A: Tensor, form: str) -> Tensor:
    """θ_iᵀ A θ_i of each filter, [groups, out] (Eqs. 13, 14); form="released" is the released
    code's (θ_i ∘ θ_i)ᵀ A 1.
    """
    choose("form", form, FORMS)
    return ((W @ A) * W if form == "paper" else W.square() @ A).sum(-1)


def damping_of(inverses: Mapping[str, KronInverse]) -> dict[str, dict]:
    """What was added to each factor's diagonal (mean over convolution groups), for the record."""
    return {
        name: {
            f"damping_{factor}": sum(i.damping[factor]) / len(i.damping[factor]) for factor in "AG"
        }
        for name, i in inverses.items()
    }
