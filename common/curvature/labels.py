"""Curvature estimators: Kronecker factors, gradient rows, diagonal, and the blocked inverse made
from rows.

Three names say which labels make a Fisher; an unknown name raises. Losses are "cross_entropy"
(logits or log-probabilities [batch, classes], integer labels) and "mse" (½‖f − y‖², unit-variance
Gaussian model; y like f).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from common.cells.errors import NumericalError, UserError, choose

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
    choose("loss", loss, LOSSES)
    if output.dim() != 2:
        raise UserError(
            "model",
            tuple(output.shape),
            "its output is not [batch, classes]",
            "curvature needs one prediction an example",
        )
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
    choose("loss", loss, LOSSES)
    return (
        F.cross_entropy(output, y)
        if loss == "cross_entropy"
        else 0.5 * (output - y).pow(2).sum() / len(y)
    )
