"""Curvature estimators: Kronecker factors, gradient rows, diagonal, and the blocked inverse made
from rows.

Three names say which labels make a Fisher; an unknown name raises. Losses are "cross_entropy"
(logits or log-probabilities [batch, classes], integer labels) and "mse" (½‖f − y‖², unit-variance
Gaussian model; y like f).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from common.cells.errors import NumericalError, UserError, choose
from common.nets.assumptions import prediction
from common.nets.layers import at_least_single

FISHERS = ("sampled", "empirical", "exact")
LOSSES = ("cross_entropy", "mse")


def losses(
    output: Tensor, y: Tensor, fisher: str, loss: str, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """Scalar losses, summed over the batch, whose per-example gradients g make the Fisher: F = E_b
    Σ_losses g gᵀ.

    sampled: one label drawn from the model's own distribution. empirical: the true label (not the
    Fisher, but what WoodFisher uses). exact: one loss per class, weighted so that the sum of outer
    products is the expectation.
    """
    choose("fisher", fisher, FISHERS)
    output = _predictions(output, loss)
    if fisher == "empirical":
        y = targets(output, y, loss)
    if fisher == "sampled" and generator is None:
        raise UserError(
            "generator", None, "sampled labels need one", "pass a seeded torch.Generator"
        )
    if loss == "mse":
        if fisher == "empirical":
            yield 0.5 * (output - y).pow(2).sum()
        elif fisher == "sampled":
            noise = torch.randn(output.shape, generator=generator, dtype=output.dtype).to(
                output.device
            )
            yield (output * noise).sum()
        else:
            yield from (output[:, c].sum() for c in range(output.shape[1]))
        return
    log_p = F.log_softmax(output, dim=1)
    if fisher == "empirical":
        yield F.nll_loss(log_p, y, reduction="sum")
    elif fisher == "sampled":
        if torch.isnan(log_p).any():
            raise NumericalError(
                "output",
                "the model's predictions are not finite",
                "check the data and the checkpoint",
            )
        drawn = torch.multinomial(log_p.detach().exp().cpu(), 1, generator=generator).to(
            output.device
        )
        yield -log_p.gather(1, drawn).sum()
    else:
        weight = log_p.detach().mul(0.5).exp()  # √p: outer products are then weighted by p
        yield from (-(weight[:, c] * log_p[:, c]).sum() for c in range(output.shape[1]))


def mean_loss(output: Tensor, y: Tensor, loss: str = "cross_entropy") -> Tensor:
    """The training loss itself, averaged over the batch."""
    output = _predictions(output, loss)
    y = targets(output, y, loss)
    return (
        F.cross_entropy(output, y)
        if loss == "cross_entropy"
        else 0.5 * (output - y).pow(2).sum() / len(y)
    )


def _predictions(output: Tensor, loss: str) -> Tensor:
    """The output, float32 at least; UserError for one that the loss has no curvature in."""
    choose("loss", loss, LOSSES)
    if prediction(output).dim() != 2:
        raise UserError(
            "model",
            tuple(output.shape),
            "its output is not [batch, classes]",
            "curvature needs one prediction an example",
        )
    if loss == "cross_entropy" and output.shape[1] == 1:
        raise UserError(
            "model",
            tuple(output.shape),
            "cross-entropy over one class is zero whatever the weights are",
            "give the network two outputs or more, or take the loss mse",
        )
    return at_least_single(output)


def targets(output: Tensor, y: Tensor, loss: str = "cross_entropy") -> Tensor:
    """The labels y as the loss takes them: int64 [batch] of 0..classes-1 for cross-entropy, like
    `output` for mse. Integers of other widths are converted; whatever else does not fit raises
    UserError.
    """
    if loss == "mse":
        if y.shape != output.shape:
            raise UserError(
                "labels",
                tuple(y.shape),
                f"are not shaped like the output, {tuple(output.shape)}",
                "mse compares number by number",
            )
        return y
    if y.dtype == torch.bool or y.is_floating_point() or y.is_complex():
        remedy = "give class numbers, as y.argmax(1) does" if y.dim() == 2 else "give y.long()"
        raise UserError("labels", str(y.dtype), "are no class numbers", remedy)
    if y.shape != output.shape[:1]:
        remedy = "give y.squeeze(1)" if y.shape == (*output.shape[:1], 1) else ""
        raise UserError(
            "labels",
            tuple(y.shape),
            f"are not one number an example, {tuple(output.shape[:1])}",
            remedy or "give class numbers [batch]",
        )
    if y.numel() and not (int(y.min()) >= 0 and int(y.max()) < output.shape[1]):
        wrong = y[(y < 0) | (y >= output.shape[1])]
        raise UserError(
            "labels",
            int(wrong[0]),
            f"is no class of 0 to {output.shape[1] - 1}",
            "leave out examples without a label, or give the network that many outputs",
        )
    return (y.clone() if y.is_inference() else y).long()


def require_curvature(zero: bool, layers: Iterable[str]) -> None:
    """Raise NumericalError if `zero`: the gradients in all these layers vanish, and whatever is
    made of them would remove weights in the order of their numbers."""
    if zero:
        raise NumericalError(
            next(iter(layers)),
            "every gradient is zero, here and in all other layers",
            "prune before the loss is exactly zero, or use fisher=sampled",
        )
