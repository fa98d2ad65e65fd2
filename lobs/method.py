"""L-OBS (Dong, Chen & Pan 2017, arXiv:1705.07565): prune each layer by the second-order surgeon of
its own output error.

Letters as in the paper: Ψ the Hessian that every output unit shares, L_q the sensitivity. Uses
lobs.hessian (Ψ and the layer's error), common.curvature.shared (Ψ's inverse), common.pruning.obs
(Eq. 6 and the updates), lobs.choose (how much of each layer). Beyond the paper, and ours:
update="joint", rescore, inputs="pruned", scope="global", relative damping. Deviations: README.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import UserError, choose
from common.curvature.shared import SharedRows
from common.data.sources import rebatch
from common.nets import layers as L
from common.nets import masks as M
from common.pruning import obs
from common.pruning.pruned import Pruned
from common.pruning.select import select
from common.running.train import evaluate
from common.system import distributed
from lobs.choose import divide, inflection, shares, tolerated, watched
from lobs.hessian import BLOCK_ENTRIES, Layer, LayerProblem, layer_statistics, stacked
from lobs.weigh import output_weights

STOPS = ("ratio", "tolerance", "performance", "inflection")
Judge = Callable[[str, Tensor], float]
# the pruning along which scope="global" measures each layer's error
CURVE_STEPS, CURVE_LEAST = 24, 2e-3


@dataclass(frozen=True)
class Options:
    """`amount` is what each layer loses at stop="ratio", and the most it may lose at the other
    stops.
    """

    # the released code: one weight after the other with a fixed Ψ⁻¹. Ours: joint
    update: str = "triangular"
    damping: float = 1e-6  # 1/α, α in [1e4, 1e8] (Sec. 3.4.1); the released code's α is 1e6
    relative: bool = False  # ours: damping in units of Ψ's mean diagonal
    bias: bool = True  # the bias is a weight whose input is 1 (released code)
    prune_bias: bool = False  # the released code lets biases go too, and counts them
    # Sec. 3.4.1: every layer by itself. Ours: global, one budget divided by relative error
    scope: str = "layer"
    # ours: units weighed by the loss's mean squared gradient in their output; global is then one
    # ranking
    weigh: bool = False
    # ratio (Sec. 4.1) | tolerance (Step 5) | performance (Secs. 3.4.1, 4.1) | ours: inflection
    stop: str = "ratio"
    # of stop="tolerance": the RMS error of the layer's output that one weight may cost (Eq. 7)
    epsilon: float = 0.0
    # of stop="performance": the accuracy that a layer may cost, a fraction; ours
    bound: float = 0.005
    # of stop="performance": calibration images that judge the network and stay out of Ψ; ours
    held_out: int = 5_000
    # ours: this many steps, each scored by the inverse restricted to what is left
    rescore: int = 0
    # Sec. 3.2: the dense network's. Ours: pruned, those behind the layers pruned before
    inputs: str = "dense"
    batch_size: int = 256  # examples a pass; a matter of memory alone
    skip: tuple[str, ...] = ()  # layers left as they are

    def __post_init__(self):
        for name, known in (
            ("update", obs.UPDATES),
            ("scope", ("layer", "global")),
            ("stop", STOPS),
            ("inputs", ("dense", "pruned")),
        ):
            choose(name, getattr(self, name), known)
        if self.rescore and self.update != "joint":
            raise UserError(
                "rescore",
                self.rescore,
                "needs the joint optimum at every step",
                "use --update joint",
            )
        if self.scope == "global" and self.stop != "ratio":
            raise UserError("stop", self.stop, "is a rule for single layers", "use --scope layer")
        if self.stop == "performance" and self.inputs != "dense":
            raise UserError(
                "stop",
                self.stop,
                "watches one layer at a time in the dense network",
                "use --inputs dense",
            )
        if not (math.isfinite(self.bound) and self.bound >= 0):
            raise UserError(
                "bound",
                self.bound,
                "must be finite and not negative",
                "give a fraction, 0.005 for half a point",
            )
        if self.held_out < 1:
            raise UserError("held_out", self.held_out, "judges nothing", "give at least one image")


def sensitivity(layer: Layer, weights: Tensor, inverse_diagonal: Tensor) -> Tensor:
    """L_q = ½ Θ_q² / [Ψ⁻¹]_qq (Eq. 6), [groups, out, in]; zero behind a dead input, so that those
    weights go first. With output weights s (ours) unit j's are s_j L_q, increases of the loss and
    not of the layer's error."""
    return (
        obs.score(weights, inverse_diagonal)
        .masked_fill_(layer.dead(), 0.0)
        .mul_(layer.weigh[..., None])
    )


def refit(layer: Layer, kept: Tensor) -> tuple[Tensor, Tensor]:
    """The joint optimum over the kept weights, and the diagonal of each unit's inverse restricted
    to them.
    """
    parts = [p.matrix.refit(p.target, k) for p, k in zip(layer.problems, kept, strict=True)]
    return torch.stack([new for new, _ in parts]), torch.stack([diagonal for _, diagonal in parts])


def ranked(
    layers: list[Layer],
    removed: float,
    options: Options,
    shared: Callable[[dict], dict] = lambda known: known,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """(weights, kept, last scores) of each layer, [groups, out, in], when the units of all `layers`
    are ranked together and `removed` of their weights goes in the end. Weights are new ones only if
    re-scored: then they are the joint optimum. shared: adds to what is known of these layers, by
    name, what other processes know of theirs, with which they are ranked."""
    kept = [layer.kept for layer in layers]
    fits = [
        refit(layer, k)
        if options.rescore and not k.all()
        else (layer.target(), layer.inverse_diagonal())
        for layer, k in zip(layers, kept, strict=True)
    ]
    counts = shared(
        {
            layer.name: (layer.share(k) * layer.total, layer.total)
            for layer, k in zip(layers, kept, strict=True)
        }
    ).values()
    before = sum(left for left, _ in counts) / sum(total for _, total in counts)
    for share in shares(before, 1 - removed, max(1, options.rescore)):
        scores = [sensitivity(layer, *fit) for layer, fit in zip(layers, fits, strict=True)]
        known = shared(
            {
                layer.name: (layer.free(s), layer.free(k))
                for layer, s, k in zip(layers, scores, kept, strict=True)
            }
        )
        free = select(
            {name: s for name, (s, _) in known.items()},
            1 - share,
            "global",
            {name: k for name, (_, k) in known.items()},
        )
        kept = [layer.cut(k, free[layer.name]) for layer, k in zip(layers, kept, strict=True)]
        if options.rescore:
            fits = [refit(layer, k) for layer, k in zip(layers, kept, strict=True)]
    return [weights for weights, _ in fits], kept, scores


def prune_layer(layer: Layer, removed: float, options: Options) -> tuple[Tensor, Tensor]:
    """(new weights, kept), [groups, out, in]: Steps 3-5 with all output units ranked together;
    `removed` in the end.
    """
    (new,), (kept,), (scores,) = ranked([layer], removed, options)
    if options.rescore:
        return new, kept
    return stacked(
        [
            solution(*parts, options.update, layer.name)
            for parts in zip(layer.problems, kept, scores, strict=True)
        ]
    ), kept


def solution(problem: LayerProblem, kept: Tensor, scores: Tensor, update: str, name: str) -> Tensor:
    """A group's weights [out, in] after the update (Eq. 6, right). Units do not see each other:
    they go in blocks, by memory.
    """
    block, result = max(1, BLOCK_ENTRIES // kept.shape[1]), torch.empty_like(problem.target)
    parts = zip(
        result.split(block),
        problem.target.split(block),
        kept.split(block),
        scores.split(block),
        strict=True,
    )
    for new, w, k, s in parts:
        delta, _ = obs.update(
            w.flatten(), SharedRows(problem.matrix, len(w)), ~k.flatten(), update, s.flatten(), name
        )
        torch.add(w, delta.reshape(w.shape), out=new)
    return result


def error_curve(layer: Layer) -> list[tuple[float, float]]:
    """(kept fraction, layer error over layer energy) along a re-scored joint pruning of the
    layer.
    """
    points, joint = [(1.0, 0.0)], Options(update="joint", rescore=1)
    for share in shares(1.0, CURVE_LEAST, CURVE_STEPS):
        if 1 < share * layer.total < layer.share(layer.kept) * layer.total:
            new, layer.kept = prune_layer(layer, 1 - share, joint)
            points.append((share, layer.error(new) / (layer.energy() or 1.0)))
    return points


def stopping(layer: Layer, most: float, options: Options, judge: Judge | None = None) -> float:
    """The fraction that the layer loses by the options' rule, at most `most` and at least what it
    has lost already.
    """
    if options.stop == "ratio":
        return most
    scores, least = (
        layer.free(sensitivity(layer, layer.target(), layer.inverse_diagonal())).flatten(),
        1 - layer.share(layer.kept),
    )
    if options.stop == "performance":
        start = judge(layer.name, layer.target())
        return watched(
            scores,
            least,
            most,
            lambda removed: start - judge(layer.name, prune_layer(layer, removed, options)[0]),
            options.bound,
        )
    found = (
        tolerated(scores, options.epsilon) if options.stop == "tolerance" else inflection(scores)
    )
    return max(min(found, most), least)


def set_apart(calibration: Iterable, options: Options) -> tuple[list, list]:
    """(held out, the rest): the first batches, of at least `held_out` examples, judge the network.
    Raises UserError where nothing is left for the Hessian."""
    batches = list(rebatch(calibration, options.batch_size))
    number = math.ceil(options.held_out / options.batch_size)
    if number >= len(batches):
        raise UserError(
            "held_out",
            options.held_out,
            f"leaves none of {sum(len(x) for x, _ in batches)} examples for the Hessian",
            "raise --num-samples, or hold out fewer",
        )
    return batches[:number], batches[number:]


def judged_on(model: nn.Module, batches: list) -> Judge:
    """(layer, its weights [groups, out, in]) -> accuracy of the model with that layer's weights
    exchanged.
    """

    def accuracy(name: str, weights: Tensor) -> float:
        other = copy.deepcopy(model)
        L.write_joined(other.get_submodule(name), weights)
        return evaluate(other, batches)[1]

    return accuracy


def prune(
    model: nn.Module,
    calibration: Iterable,
    amount: float | Mapping[str, float],
    options: Options,
    generator: torch.Generator,
    masks: M.Masks | None = None,
) -> Pruned:
    """The network with `amount` (one fraction, or one a layer) of its layers' weights removed. Only
    `weigh` draws: labels.
    """
    calibration = list(calibration) if isinstance(calibration, Iterator) else calibration
    held, calibration = (
        set_apart(calibration, options) if options.stop == "performance" else ([], calibration)
    )
    modules = L.prunable(model, options.skip)
    fractions = dict(amount) if isinstance(amount, Mapping) else dict.fromkeys(modules, amount)
    if set(fractions) != set(modules):
        raise UserError(
            "sparsity",
            min(set(fractions) ^ set(modules)),
            "names no layer, or a layer has no fraction",
        )
    # all, but for torchrun
    own = {
        name: module
        for index, (name, module) in enumerate(modules.items())
        if distributed.mine(index)
    }
    # Steps 1 and 2
    statistics = (
        layer_statistics(model, calibration, own, options.bias, options.batch_size) if own else {}
    )
    weights = (
        output_weights(model, calibration, modules, options.batch_size, generator)
        if options.weigh
        else {}
    )

    def layer_of(name: str) -> Layer:
        return dataclasses.replace(
            Layer.of(name, statistics[name], options, masks),
            **{"weigh": weights[name]} if options.weigh else {},
        )

    def shared(known: dict, names: Iterable[str] = modules) -> dict:
        return distributed.gathered(known, names)

    if options.scope == "global":
        if isinstance(amount, Mapping):
            raise UserError(
                "scope", options.scope, "divides one fraction over the layers", "use --scope layer"
            )
        layers = [layer_of(name) for name in own]
        if options.weigh:
            kept = dict(zip(own, ranked(layers, amount, options, shared)[1], strict=True))
            masks = {
                name: mask
                for layer in layers
                for name, mask in layer.masks(kept[layer.name]).items()
            }
            fractions = shared({layer.name: 1 - layer.share(kept[layer.name]) for layer in layers})
        else:
            curves = shared({layer.name: (error_curve(layer), layer.total) for layer in layers})
            fractions = divide(
                {name: curve for name, (curve, _) in curves.items()},
                {name: n for name, (_, n) in curves.items()},
                amount,
            )
    result, judge = Pruned(copy.deepcopy(model)), judged_on(model, held)

    def solved(name: str) -> tuple[Tensor, M.Masks, dict[str, float], list[str]]:
        if options.inputs == "pruned":
            module = {name: result.model.get_submodule(name)}
            statistics.update(
                layer_statistics(
                    result.model, calibration, module, options.bias, options.batch_size, dense=model
                )
            )
        layer = layer_of(name)
        del statistics[name]
        # Steps 3 to 5
        new, kept = prune_layer(layer, stopping(layer, fractions[name], options, judge), options)
        return new, layer.masks(kept), layer.report(new), layer.notes()

    order, together = list(fractions), 1 if options.inputs == "pruned" else distributed.world()
    for names in (order[i : i + together] for i in range(0, len(order), together)):
        for name, (new, kept, report, notes) in shared(
            {name: solved(name) for name in names if name in own}, names
        ).items():
            L.write_joined(result.model.get_submodule(name), new)
            result.masks |= kept
            result.layers[name] = report
            result.notes += notes
    M.apply(result.model, result.masks)
    return result
