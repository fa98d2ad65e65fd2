"""Beyond L-OBS (ours). With all options at their defaults this is the paper's algorithm,
lobs.method.

update="joint"   all kept weights move to the exact optimum, where the paper walks with a fixed Ψ⁻¹
rescore=n        n steps, each scored by the inverse restricted to what is left: the score of a
                 weight is then exactly what the optimum loses
greedy           a step a weight: the exact greedy elimination of Frantar & Alistarh (2022, OBC) in
                 each unit, over all units by what a weight costs when its turn comes
inputs="pruned"  layers in order, each matched to the dense layer's output from what the layers
                 pruned before it feed it
scope="global"   one budget over all layers: divided by their errors relative to their outputs
                 (lobs.budget) or, with `weigh`, one ranking in units of the loss
weigh            the error of a unit's output counts by what it costs the loss (lobs.weigh)
relative         damping in units of Ψ's mean diagonal
stop             "inflection" too: the elbow of the sorted sensitivities
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from common.cells.errors import choose, require
from common.curvature import memory
from common.curvature.elimination import Elimination
from common.nets import layers as L
from common.nets import masks as M
from common.nets.clone import clone
from common.pruning import obs
from common.pruning.pruned import Pruned
from common.pruning.select import by_layer, select
from common.system import distributed
from lobs import method
from lobs.budget import divide, shares
from lobs.choose import STOPS, judged_on, require_stop, set_apart, stopping
from lobs.hessian import Layer, Outcome, layer_statistics, statistics_of, write
from lobs.weigh import output_weights

# the pruning along which scope="global" measures each layer's error
CURVE_STEPS, CURVE_LEAST = 24, 2e-3
CURVE_POINTS = 200  # of that curve where one elimination has it whole
Known = TypeVar("Known")


@dataclass(frozen=True)
class Options(method.Options):
    """The paper's options, and ours beside them; the defaults are the paper's algorithm."""

    update: str = "triangular"  # the paper's walk | joint | diagonal | none
    relative: bool = False  # damping in units of Ψ's mean diagonal
    scope: str = "layer"  # every layer by itself (Sec. 3.4.1) | global: one budget
    weigh: bool = False  # units weighed by the loss's mean squared gradient in their output
    rescore: int = 0  # steps scored by the inverse of what is left; 0 scores once
    greedy: bool = False  # every weight scored so
    inputs: str = "dense"  # of the dense network (Sec. 3.2) | pruned

    def __post_init__(self):
        require_stop(self, (*STOPS, "inflection"))
        choose("update", self.update, obs.UPDATES)
        choose("scope", self.scope, ("layer", "global"))
        choose("inputs", self.inputs, ("dense", "pruned"))
        require(
            not self.rescore or self.update == "joint",
            "rescore",
            self.rescore,
            "needs the joint optimum at every step",
            "use --update joint",
        )
        require(
            not self.greedy or (self.update == "joint" and not self.rescore),
            "greedy",
            self.greedy,
            "re-scores every weight at the joint optimum",
            "use --update joint, and no rescore",
        )
        require(
            self.scope == "layer" or self.stop == "ratio",
            "stop",
            self.stop,
            "is a rule for single layers",
            "use --scope layer",
        )
        require(
            self.stop != "performance" or self.inputs == "dense",
            "stop",
            self.stop,
            "watches one layer at a time in the dense network",
            "use --inputs dense",
        )


@dataclass
class Fit:
    """A layer's state while it is pruned: its weights, which of them are kept (both [groups, out,
    in]), and the diagonal of each unit's inverse restricted to those."""

    layer: Layer
    weights: Tensor
    kept: Tensor
    inverse_diagonal: Tensor
    unit_weights: Tensor | None = None  # s of each unit, [groups, out]; None weighs all alike
    is_optimal: bool = False  # the weights are the joint optimum over the kept ones
    eliminated: Elimination | None = None  # with `greedy`, from the start to the last weight

    @classmethod
    def start(cls, layer: Layer, unit_weights: Tensor | None = None, greedy: bool = False) -> Fit:
        """The state before any weight is removed but those that earlier prunings removed."""
        fit = cls(layer, layer.target(), layer.kept, layer.inverse_diagonal(), unit_weights)
        return replace(fit, eliminated=layer.eliminated()) if greedy else fit

    def sensitivity(self) -> Tensor:
        """L_q [groups, out, in], the increase of the layer's error; with `greedy` the one when its
        turn comes. If units are weighed, s_j L_q of unit j: the increase of the loss."""
        if self.eliminated is not None:
            L_q = self.eliminated.score.clone()
        else:
            L_q = method.sensitivity(self.layer, self.weights, self.inverse_diagonal)
        return L_q if self.unit_weights is None else L_q.mul_(self.unit_weights[..., None])

    def refitted(self, kept: Tensor) -> Fit:
        """The state with the weights `kept`, at their joint optimum."""
        if kept is self.kept and (self.is_optimal or kept.all()):
            return self
        pairs = zip(self.layer.problems, kept, strict=True)
        parts = [problem.matrix.refit(problem.target, k) for problem, k in pairs]
        weights, diagonals = (torch.stack(tensors) for tensors in zip(*parts, strict=True))
        return Fit(self.layer, weights, kept, diagonals, self.unit_weights, is_optimal=True)

    def left(self) -> tuple[float, int]:
        """(kept weights, all weights), of those that may be removed."""
        return self.layer.share(self.kept) * self.layer.total, self.layer.total


def ranked(
    fits: Mapping[str, Fit], removed: float, rescore: int, names: Iterable[str] | None = None
) -> dict[str, Fit]:
    """The layers after the lowest sensitivities among all of them are removed, a fraction `removed`
    of their weights in all. With `rescore` it takes so many steps, each refitting the weights to
    the joint optimum; without, weights stay as they are.

    names: all layers that are ranked, where other processes hold some of them; None if `fits` has
    all.
    """

    def known(of: Callable[[Fit], Known]) -> dict[str, Known]:
        if names is None:
            return {name: of(fit) for name, fit in fits.items()}
        return dict(distributed.each(names, lambda name: of(fits[name])))

    if rescore:
        fits = {name: fit.refitted(fit.kept) for name, fit in fits.items()}
    fits = dict(fits)
    counts = known(Fit.left).values()
    before = sum(left for left, _ in counts) / sum(total for _, total in counts)
    for share in shares(before, 1 - removed, max(1, rescore)):
        scores = known(lambda fit: fit.layer.free(fit.sensitivity()))
        kept = known(lambda fit: fit.layer.free(fit.kept))
        chosen = select(scores, 1 - share, "global", kept)
        for name, fit in fits.items():
            now = fit.layer.cut(fit.kept, chosen[name])
            fits[name] = fit.refitted(now) if rescore else replace(fit, kept=now)
    return fits


def prune_layer(start: Fit, removed: float, options: Options) -> tuple[Tensor, Tensor]:
    """(new weights, which are kept), [groups, out, in], of one layer."""
    if options.rescore or options.greedy:
        fit = ranked({start.layer.name: start}, removed, options.rescore)[start.layer.name]
        fit = fit.refitted(fit.kept)
        return fit.weights, fit.kept
    return method.prune_layer(start.layer, start.sensitivity(), removed, options.update)


def error_curve(fit: Fit) -> tuple[list[tuple[float, float]], int]:
    """([(kept fraction, layer error / energy of its output)], number of weights), measured along a
    pruning by the joint optimum that is re-scored at each step."""
    layer = fit.layer
    if fit.eliminated is not None:
        return _eliminated_curve(fit), layer.total
    points = [(1.0, 0.0)]
    for share in shares(1.0, CURVE_LEAST, CURVE_STEPS):
        if 1 < share * layer.total < layer.share(fit.kept) * layer.total:
            fit = ranked({layer.name: fit}, 1 - share, 1)[layer.name]
            points.append((share, layer.error(fit.weights) / (layer.energy() or 1.0)))
    return points, layer.total


def _eliminated_curve(fit: Fit) -> list[tuple[float, float]]:
    """error_curve's points: the losses of an elimination add up to the layer's error."""
    layer, found = fit.layer, fit.eliminated
    start, energy = layer.error(fit.refitted(fit.kept).weights), layer.energy() or 1.0
    scores, losses = (layer.free(values).flatten() for values in (found.score, found.loss))
    errors = start + losses[scores.argsort()].cumsum(0)  # after each removal
    counts = torch.logspace(0, math.log10(CURVE_LEAST), CURVE_POINTS, dtype=torch.float64)
    counts = (counts * layer.total).round().long().clamp(min=1).unique()
    counts = counts[counts < layer.total]
    points = zip((counts / layer.total).tolist(), errors[-1 - counts].tolist(), strict=True)
    return [(1.0, 0.0), *((share, error / energy) for share, error in points)]


def one_budget(
    fit_of: Callable[[str], Fit], layers: Mapping[str, nn.Module], amount: float, options: Options
) -> tuple[dict[str, float], M.Masks]:
    """(fraction removed of each layer, masks by parameter name) for scope="global". Without `weigh`
    only fractions are decided, and the masks are empty."""
    if not options.weigh:
        curves = dict(distributed.each(layers, lambda name: error_curve(fit_of(name))))
        sizes = {name: size for name, (_, size) in curves.items()}
        return divide({name: curve for name, (curve, _) in curves.items()}, sizes, amount), {}
    fits = {name: fit_of(name) for name in distributed.dealt(layers)}
    fits = ranked(fits, amount, options.rescore, layers)
    masks = {k: v for fit in fits.values() for k, v in fit.layer.masks(fit.kept).items()}
    each = distributed.each(layers, lambda name: 1 - fits[name].layer.share(fits[name].kept))
    return dict(each), masks


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float | Mapping[str, float],
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """lobs.method.prune with our options. `generator` draws labels for `weigh` and nothing else.
    With scope="global" `amount` is one fraction, of all layers' weights together."""
    calibration = list(calibration) if isinstance(calibration, Iterator) else calibration
    held_out, calibration = set_apart(calibration, options)
    layers = L.prunable(model, options.skip)
    fractions = by_layer(amount, layers)
    memory.require("moment", layers, options)
    require(
        options.scope == "layer" or not isinstance(amount, Mapping),
        "scope",
        options.scope,
        "divides one fraction over the layers",
        "use --scope layer",
    )
    accuracy, how = judged_on(model, held_out), (options.bias, options.batch_size)
    behind = options.inputs == "pruned"
    seen = (
        {}
        if behind and options.scope == "layer"
        else layer_statistics(model, calibration, layers, *how)
    )
    units = (
        output_weights(model, calibration, layers, options.batch_size, generator)
        if options.weigh
        else {}
    )

    found: M.Masks = {}

    def fit_of(name: str) -> Fit:
        layer = Layer.of(
            name, seen[name], options.damping, options.prune_bias, masks, options.relative
        )
        return Fit.start(layer, units.get(name), options.greedy and not found)

    if options.scope == "global":
        fractions, found = one_budget(fit_of, layers, amount, options)
        masks = found or masks
    result = Pruned(clone(model))

    def pruned(name: str) -> Outcome:
        if behind:
            here = {name: result.model.get_submodule(name)}
            seen.update(statistics_of(result.model, calibration, here, *how, dense=model))
        fit = fit_of(name)
        del seen[name]
        removed = stopping(
            fit.layer,
            fit.sensitivity(),
            fractions[name],
            options,
            lambda r: prune_layer(fit, r, options)[0],
            accuracy,
        )
        return fit.layer.outcome(*prune_layer(fit, removed, options))

    for name, outcome in distributed.each(layers, pruned, in_turn=behind):
        write(result, name, outcome)
    M.apply(result.model, result.masks)
    return result
