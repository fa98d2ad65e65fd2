"""Where the predicted increase of the loss and the measured one part: one layer at a time,
directions removed in its eigenbasis.

The loss moves by gᵀδ + ½ δᵀHδ + ..., and EigenDamage's score (Algorithm 1, lines 4 to 7) is ½ δᵀFδ
with Kronecker factors for the Fisher F, which stands for H, and without gᵀδ, as at a minimum.
Beside the score stand gᵀδ and ½ δᵀFδ of the layer's exact Fisher, so that what is lost by the
factors, by the gradient and by the quadratic can be told apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp

from common.cells.spec import Spec
from common.curvature.kron import kron_factors
from common.nets.clone import clone
from common.running import study
from common.running.timing import Timer
from common.system.progress import progress
from eigendamage.bottleneck import rotatable
from eigendamage.method import Rotated, rotate
from eigendamage.threshold import percentile

Batches = list[tuple[Tensor, Tensor]]


def without(layer: Rotated, ratio: float) -> Tensor:
    """W' [out, in, offsets] with the `ratio` of its rows and columns that score lowest at zero."""
    theta = layer.theta
    kept, _ = percentile({"rows": theta.sum(1), "columns": theta.sum(0)}, ratio, 1.0)
    return layer.W * kept["rows"][:, None, None] * kept["columns"][None, :, None]


def unrotate(layer: Rotated, W: Tensor, like: Tensor) -> Tensor:
    """Q_S W' Q_Aᵀ at every offset, in the shape and type of the weight `like`."""
    return torch.einsum("os,sap,ia->oip", layer.QS, W, layer.QA).reshape(like.shape).to(like)


def expansion(model: nn.Module, name: str, change: Tensor, batches: Batches) -> tuple[float, float]:
    """(gᵀδ, ½ δᵀFδ) of the mean training loss in nats, δ the change of one layer's weight. F is the
    exact Fisher over the model's own labels, diag(p) − ppᵀ of the logits pulled back through their
    directional derivative: no matrix of weights is formed."""
    weight = f"{name}.weight"
    held = {n: p.detach() for n, p in model.named_parameters()}
    first = second = examples = 0
    for x, y in batches:

        def logits(w: Tensor, x: Tensor = x) -> Tensor:
            return functional_call(model, held | {weight: w}, (x,))

        z, dz = jvp(logits, (held[weight],), (change,))
        p, dz = z.softmax(1).double(), dz.double()
        first += float(((p - F.one_hot(y, z.shape[1])) * dz).sum())
        second += float((p * dz.square()).sum() - (p * dz).sum(1).square().sum())
        examples += len(x)
    return first / examples, 0.5 * second / examples


@torch.no_grad()
def mean_loss(model: nn.Module, batches: Batches) -> float:
    """Mean cross-entropy, nats."""
    return sum(float(F.cross_entropy(model(x), y, reduction="sum")) for x, y in batches) / sum(
        len(y) for _, y in batches
    )


def rows(
    model: nn.Module,
    loader: Iterable,
    ratios: tuple[float, ...],
    factors: tuple[str, ...] = ("channel", "patch"),
) -> Iterator[dict]:
    """One row a factor of A, layer and ratio: the score, the exact expansion, and the measured
    increase over the same examples.
    """
    model, batches = clone(model).eval(), list(loader)
    modules, dense = rotatable(model), mean_loss(model, batches)
    with progress(
        total=len(factors) * len(modules) * len(ratios), desc="expansion", unit="removal"
    ) as bar:
        for factor in factors:
            kron = kron_factors(
                model, batches, modules, fisher="exact", channel_only=factor == "channel"
            )
            for name, module in modules.items():
                layer, before = (
                    rotate(module.weight, kron.pop(name)),
                    module.weight.detach().clone(),
                )
                for ratio in ratios:
                    new = without(layer, ratio)
                    change = unrotate(layer, new, before) - before
                    gradient, fisher = expansion(model, name, change, batches)
                    module.weight.data.copy_(before + change)
                    measured = mean_loss(model, batches) - dense
                    module.weight.data.copy_(before)
                    yield {
                        "layer": name,
                        "factor": factor,
                        "ratio": ratio,
                        "score": float(layer.increase(new).sum()),
                        "fisher": fisher,
                        "gradient": gradient,
                        "measured": measured,
                    }
                    bar.update(1)


def predictions(spec: Spec, timer: Timer, output: Path) -> list[dict]:
    """Each layer of the dense network by itself, a fifth and a half of its directions removed:
    score, exact expansion, measurement.
    """
    model, data = study.dense(spec)
    with timer.phase("expansion"):
        found = rows(model, data.calibration(spec.num_samples, 100), (0.2, 0.5))
        return [{key: study.short(value, 4) for key, value in row.items()} for row in found]
