"""Losses, and the Fisher that each of them makes.

A Fisher's per-example gradients g are those of the losses that `losses` yields. Three names say
which: "empirical" (the true labels; not the Fisher, but what WoodFisher uses), "sampled" (labels
drawn from the network's own distribution), "exact" (the expectation over it). An unknown name
raises.

    loss             an example's loss                            the network's distribution
    cross_entropy    mean over its P positions of −log p[label]   categorical at each position
    language_model   the same over its tokens                     categorical at each token
    binary           mean over its P outputs of the cross-entropy Bernoulli for each output
    mse              ½‖f − y‖²                                    Gaussian of unit variance

Positions and outputs are independent under the network. The Fisher of a mean over P of them is
(1/P²) Σ_p g_p g_pᵀ, the curvature of that mean (1/P) Σ_p E g_p g_pᵀ. Sampled and exact losses make
the curvature, so that predicted increases are in units of the training loss; empirical ones are the
gradients of the examples' losses as they are. For P = 1, a label an example, the two are one.
Positions whose label is Task.ignore_index count in neither. A loss of one's own says nothing of a
distribution, so it has empirical gradients alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from common.cells.errors import NumericalError, UserError, choose
from common.cells.spec import LOSSES
from common.data.task import Inputs, Task
from common.nets.assumptions import prediction
from common.nets.layers import at_least_single

FISHERS = ("sampled", "empirical", "exact")
# backward passes of a batch's exact Fisher: a class of ImageNet each
MOST_PASSES = 1_000
CATEGORICAL = ("cross_entropy", "language_model")


def losses(
    output: Tensor | object,
    y: Tensor | Inputs,
    fisher: str,
    loss: str | Task,
    generator: torch.Generator | None,
) -> Iterator[Tensor]:
    """Scalar losses, summed over the batch, whose per-example gradients g make the Fisher: F = E_b
    Σ_losses g gᵀ: one loss for empirical and sampled labels, one a class and position for the exact
    Fisher. Raises UserError for an output, labels or a Fisher that the loss does not go with.
    """
    choose("fisher", fisher, FISHERS)
    task = Task(loss) if isinstance(loss, str) else loss
    if fisher == "sampled" and generator is None:
        raise UserError(
            "generator", None, "sampled labels need one", "pass a seeded torch.Generator"
        )
    if callable(task.loss):
        if fisher != "empirical":
            raise UserError(
                "fisher",
                fisher,
                "a loss of one's own says nothing of the network's distribution",
                f"use fisher=empirical, or a loss by name: {', '.join(LOSSES)}",
            )
        yield own(output, y).sum()
        return
    output = _predictions(output, task)
    family = {"mse": _gaussian, "binary": _bernoulli}.get(task.loss, _categorical)
    yield from family(output, y, fisher, task, generator)


def _gaussian(
    output: Tensor, y: Tensor, fisher: str, task: Task, generator: torch.Generator | None
) -> Iterator[Tensor]:
    if fisher == "empirical":
        yield 0.5 * (output - targets(output, y, task)).pow(2).sum()
    elif fisher == "sampled":
        noise = torch.randn(output.shape, generator=generator, dtype=output.dtype).to(output.device)
        yield (output * noise).sum()
    else:
        columns = output.reshape(len(output), -1)
        _require_few(columns.shape[1])
        yield from (columns[:, c].sum() for c in range(columns.shape[1]))


def _bernoulli(
    output: Tensor, y: Tensor, fisher: str, task: Task, generator: torch.Generator | None
) -> Iterator[Tensor]:
    z = output.reshape(len(output), -1)
    share = 1 / z.shape[1]
    if fisher == "empirical":
        y = targets(output, y, task).reshape(z.shape)
        yield F.binary_cross_entropy_with_logits(z, y, reduction="sum") * share
        return
    p = z.detach().sigmoid()
    if fisher == "sampled":
        _require_finite(p)
        drawn = torch.bernoulli(p.cpu(), generator=generator).to(z)
        yield F.binary_cross_entropy_with_logits(z, drawn, reduction="sum") * share**0.5
    else:
        _require_few(z.shape[1])
        # the logit's gradient is p − y, of variance p(1 − p)
        weight = (p * (1 - p) * share).sqrt()
        yield from ((weight[:, k] * z[:, k]).sum() for k in range(z.shape[1]))


def _categorical(
    output: Tensor, y: Tensor, fisher: str, task: Task, generator: torch.Generator | None
) -> Iterator[Tensor]:
    log_p = F.log_softmax(_rows(output, task), dim=-1)  # [batch, positions, classes]
    examples, positions, classes = log_p.shape
    many = positions > 1 or task.ignore_index is not None
    counted = None
    if fisher == "empirical" or many:
        y = targets(output, y, task).reshape(examples, positions)
        counted = y != task.ignore_index if task.ignore_index is not None else None
    scale = _shares(counted, log_p)
    if fisher == "empirical":
        # a label that is not counted is no class
        label = y if counted is None else y.where(counted, torch.zeros_like(y))
        yield -(log_p.gather(2, label[..., None])[..., 0] * scale).sum()
        return
    if fisher == "sampled":
        _require_finite(log_p)
        p = log_p.detach().exp().cpu().reshape(-1, classes)
        drawn = torch.multinomial(p, 1, generator=generator).to(output.device)
        drawn = drawn.reshape(examples, positions, 1)
        yield -(log_p.gather(2, drawn)[..., 0] * scale.sqrt()).sum()
    else:
        _require_few(positions * classes)
        weight = log_p.detach().mul(0.5).exp()  # √p: outer products are then weighted by p
        weight = weight * scale.sqrt()[..., None]
        yield from (
            -(weight[:, t, c] * log_p[:, t, c]).sum()
            for t in range(positions)
            for c in range(classes)
        )


def _rows(output: Tensor, task: Task) -> Tensor:
    """Logits as [batch, positions, classes]."""
    if task.loss == "language_model":
        return output.reshape(len(output), -1, output.shape[-1])
    return output[:, None] if output.dim() == 2 else output.flatten(2).mT


def _shares(counted: Tensor | None, log_p: Tensor) -> Tensor:
    """What each position is of its example's mean, [batch, positions]; 0 where it does not
    count."""
    if counted is None:
        return log_p.new_full(log_p.shape[:2], 1 / log_p.shape[1])
    return counted / counted.sum(1, keepdim=True).clamp(min=1).to(log_p)


def own(output: object, y: Inputs) -> Tensor:
    """The loss of each example under a loss of one's own, [batch]: the function is asked of one
    example at a time, so that it may be a sum or a mean over examples, or give one number each."""
    values = []
    for i in range(len(y)):
        one = _cut(output, slice(i, i + 1), len(y))
        value = y.task.loss(one, y[i : i + 1].content)
        if not torch.is_tensor(value) or value.numel() != 1 or not value.is_floating_point():
            what = tuple(value.shape) if torch.is_tensor(value) else type(value).__name__
            raise UserError(
                "loss_fn",
                what,
                "is what it gives for one example, and no number",
                "give the mean loss of the batch as a tensor",
            )
        values.append(value.reshape(()))
    return torch.stack(values)


def _cut(output: object, part: slice, examples: int) -> object:
    """The examples `part` of an output of `examples` examples, in its own form."""
    if torch.is_tensor(output):
        return output[part] if output.dim() and len(output) == examples else output
    if isinstance(output, dict):
        cut = {key: _cut(value, part, examples) for key, value in output.items()}
        # a library's own class, which has its fields as attributes too
        return cut if type(output) is dict else type(output)(**cut)
    if isinstance(output, (tuple, list)):
        cut = [_cut(value, part, examples) for value in output]
        return type(output)(*cut) if hasattr(output, "_fields") else type(output)(cut)
    return output


def mean_loss(
    output: Tensor | object, y: Tensor | Inputs, loss: str | Task = "cross_entropy"
) -> Tensor:
    """The training loss itself, the mean of the examples' losses."""
    task = Task(loss) if isinstance(loss, str) else loss
    if callable(task.loss):
        return own(output, y).mean()
    output = _predictions(output, task)
    if task.loss == "cross_entropy" and output.dim() == 2 and task.ignore_index is None:
        return F.cross_entropy(output, targets(output, y, task))
    return sum(losses(output, y, "empirical", task, None)) / len(y)


def _predictions(output: Tensor, task: Task) -> Tensor:
    """The output, float32 at least; UserError for one that the loss has no curvature in."""
    output = prediction(output)
    least = {"cross_entropy": 2, "language_model": 3}.get(task.loss, 1)
    if output.dim() < least or not output.is_floating_point():
        raise UserError(
            "model",
            tuple(output.shape),
            f"its output is not {SHAPES[task.loss]}",
            "curvature needs one prediction an example",
        )
    classes = {"cross_entropy": 1, "language_model": -1}.get(task.loss)
    if classes is not None and output.shape[classes] == 1:
        raise UserError(
            "model",
            tuple(output.shape),
            "cross-entropy over one class is zero whatever the weights are",
            "give the network two outputs or more, or take the loss binary or mse",
        )
    return at_least_single(output)


SHAPES = {
    "cross_entropy": "[batch, classes]",
    "language_model": "[batch, tokens, vocabulary]",
    "binary": "[batch, ...]",
    "mse": "[batch, ...]",
}


def targets(output: Tensor, y: Tensor, loss: str | Task = "cross_entropy") -> Tensor:
    """The labels y as the loss takes them: int64 of 0..classes-1, or the ignored one, for each
    position under cross-entropy; like `output` for binary and mse. Integers of other widths are
    converted; whatever else does not fit raises UserError.
    """
    task = Task(loss) if isinstance(loss, str) else loss
    if task.loss not in CATEGORICAL:
        return _numbers(output, y, task)
    if y.dtype == torch.bool or y.is_floating_point() or y.is_complex():
        remedy = "give class numbers, as y.argmax(1) does" if y.dim() == 2 else "give y.long()"
        raise UserError("labels", str(y.dtype), "are no class numbers", remedy)
    shape = list(output.shape)
    classes = shape.pop(1 if task.loss == "cross_entropy" else -1)
    if list(y.shape) != shape:
        remedy = "give y.squeeze(1)" if list(y.shape) == [shape[0], 1, *shape[1:]] else ""
        transposed = task.loss == "cross_entropy" and list(y.shape) == list(output.shape[:-1])
        if output.dim() > 2 and transposed:
            remedy = "take the loss language_model for logits [batch, tokens, vocabulary]"
        what = "one number an example" if output.dim() == 2 else "one number a position"
        raise UserError(
            "labels",
            tuple(y.shape),
            f"are not {what}, {tuple(shape)}",
            remedy
            or f"give class numbers {SHAPES[task.loss].split(',')[0]}"
            + ("]" if len(shape) == 1 else ", ...]"),
        )
    wrong = (y < 0) | (y >= classes)
    if task.ignore_index is not None:
        wrong &= y != task.ignore_index
    if wrong.any():
        raise UserError(
            "labels",
            int(y[wrong][0]),
            f"is no class of 0 to {classes - 1}",
            "leave out examples without a label (ignore_index names positions without one), or "
            "give the network that many outputs",
        )
    return (y.clone() if y.is_inference() else y).long()


def _numbers(output: Tensor, y: Tensor, task: Task) -> Tensor:
    """Labels that are compared with the output number by number."""
    if y.shape != output.shape:
        column = tuple(output.shape) == (*y.shape, 1)
        raise UserError(
            "labels",
            tuple(y.shape),
            f"are not shaped like the output, {tuple(output.shape)}",
            f"{task.loss} compares number by number"
            + (", so give y.unsqueeze(-1)" if column else ""),
        )
    if task.loss == "binary" and not bool(((y >= 0) & (y <= 1)).all()):
        raise UserError(
            "labels",
            float(y.min() if y.min() < 0 else y.max()),
            "is no probability",
            "binary takes labels in [0, 1]",
        )
    return y.to(output.dtype)


def _require_finite(values: Tensor) -> None:
    if torch.isnan(values).any():
        raise NumericalError(
            "output", "the model's predictions are not finite", "check the data and the checkpoint"
        )


def _require_few(passes: int) -> None:
    """The exact Fisher is for outputs of few numbers."""
    if passes > MOST_PASSES:
        raise UserError(
            "fisher",
            "exact",
            f"an output of {passes:,} numbers takes as many backward passes a batch",
            "use fisher=sampled or fisher=empirical",
        )


def require_curvature(zero: bool, layers: Iterable[str]) -> None:
    """Raise NumericalError if `zero`: the gradients in all these layers vanish, and whatever is
    made of them would remove weights in the order of their numbers."""
    if zero:
        raise NumericalError(
            next(iter(layers)),
            "every gradient is zero, here and in all other layers",
            "prune before the loss is exactly zero, or use fisher=sampled",
        )
