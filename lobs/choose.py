"""Step 5 of L-OBS: how much of a layer is removed. A given fraction, all that the paper's tolerance
ε allows, or all that the network's accuracy allows.

Every rule returns the fraction removed. Sensitivities L_q carry the ½ (README, Units): √(2 L_q) is
the RMS error of the layer's output once weight q is removed, which Eq. 3 and Eq. 7 call √δE.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from common.cells.errors import UserError, choose, require
from common.data.sources import rebatch
from common.nets import layers as L
from common.nets.clone import clone
from common.running.train import evaluate
from lobs.hessian import Layer

STOPS = ("ratio", "tolerance", "performance")
RISE_BY = 0.8  # each tolerance keeps this fraction of the weights that the one before it kept
# (layer, its weights [groups, out, in]) -> accuracy of the network with these weights there
Accuracy = Callable[[str, Tensor], float]


class Rule(Protocol):
    """The options that say how much of a layer goes; lobs.method.Options explains them."""

    stop: str
    epsilon: float
    bound: float
    held_out: int
    batch_size: int


def require_stop(options: Rule, known: Iterable[str]) -> None:
    """Raise UserError for a rule that is not among `known`, or for its numbers out of range."""
    choose("stop", options.stop, known)
    require(
        math.isfinite(options.bound) and options.bound >= 0,
        "bound",
        options.bound,
        "must be finite and not negative",
        "give a fraction, 0.005 for half a point",
    )
    require(
        options.held_out >= 1,
        "held_out",
        options.held_out,
        "judges nothing",
        "give at least one image",
    )


def stopping(
    layer: Layer,
    L_q: Tensor,
    most: float,
    options: Rule,
    pruned: Callable[[float], Tensor],
    accuracy: Accuracy,
) -> float:
    """The fraction of the layer that goes by the rule options.stop: at most `most`, at least what
    earlier prunings removed.

    L_q: sensitivities [groups, out, in]. pruned: the layer's weights once a fraction is removed.
    """
    if options.stop == "ratio":
        return most
    scores, least = layer.free(L_q).flatten(), 1 - layer.share(layer.kept)
    if options.stop == "performance":
        dense = accuracy(layer.name, layer.target())
        return watched(
            scores,
            least,
            most,
            lambda removed: dense - accuracy(layer.name, pruned(removed)),
            options.bound,
        )
    rule = tolerated(scores, options.epsilon) if options.stop == "tolerance" else inflection(scores)
    return max(min(rule, most), least)


def output_errors(scores: Tensor) -> Tensor:
    """The right side of Eq. 7 for every weight, |Θ_q| / √(2 [H⁻¹]_qq), which is √(2 L_q): the E of
    Eq. 3 has the Hessian H = 2Ψ."""
    return (2 * scores).sqrt()


def tolerated(scores: Tensor, epsilon: float) -> float:
    """Step 5: the fraction of weights of which each alone changes the layer's output by at most ε
    (RMS)."""
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise UserError(
            "epsilon",
            epsilon,
            "must be positive and finite",
            "it bounds the error of the layer's output, in its units",
        )
    return float((output_errors(scores) <= epsilon).double().mean())


def rising(scores: Tensor) -> Iterator[float]:
    """Growing tolerances, each so large that it keeps RISE_BY of the weights that the one before it
    kept."""
    errors = output_errors(scores).flatten().sort().values
    kept = RISE_BY
    while kept * len(errors) >= 1:
        yield float(errors[len(errors) - 1 - int(kept * len(errors))])
        kept *= RISE_BY


def watched(
    scores: Tensor, least: float, most: float, cost: Callable[[float], float], bound: float
) -> float:
    """Secs. 3.4.1 and 4.1: raise ε from a small value and stop where the network's accuracy falls.

    cost: from the fraction removed of the layer to the accuracy (a fraction) that the network
    loses. Returns the fraction removed at the last ε before the first that costs more than `bound`;
    fractions below `least` or above `most` are not tried.
    """
    best = least
    for epsilon in rising(scores):
        removed = min(tolerated(scores, epsilon) if epsilon else 0.0, most)
        if removed > best:
            if cost(removed) > bound:
                break
            best = removed
    return best


def inflection(scores: Tensor) -> float:
    """The elbow of the sensitivities, without the network (ours): the curve of sorted √L_q against
    the fraction removed, scaled to the unit square, is furthest below its chord there. Beyond it a
    further weight costs more than the average one."""
    curve = scores.sqrt().sort().values
    if len(curve) < 3 or float(curve[-1]) <= float(curve[0]):
        return 0.0
    height = (curve - curve[0]) / (curve[-1] - curve[0])
    return int(
        (torch.linspace(0, 1, len(curve), dtype=curve.dtype, device=curve.device) - height).argmax()
    ) / len(curve)


def set_apart(calibration: Iterable, options: Rule) -> tuple[list, Iterable]:
    """(batches that judge the network, the rest for the Hessian): with stop="performance" the first
    batches, of at least `held_out` examples, else none. Raises UserError where nothing is left."""
    if options.stop != "performance":
        return [], calibration
    batches = list(rebatch(calibration, options.batch_size))
    number = math.ceil(options.held_out / options.batch_size)
    require(
        number < len(batches),
        "held_out",
        options.held_out,
        f"leaves none of {sum(len(x) for x, _ in batches)} examples for the Hessian",
        "raise --num-samples, or hold out fewer",
    )
    return batches[:number], batches[number:]


def judged_on(model: nn.Module, batches: list) -> Accuracy:
    """The accuracy, on `batches`, of the model with one layer's weights exchanged."""

    def accuracy(name: str, weights: Tensor) -> float:
        other = clone(model)
        L.write_joined(other.get_submodule(name), weights)
        return evaluate(other, batches)[1]

    return accuracy
