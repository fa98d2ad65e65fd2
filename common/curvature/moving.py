"""Kronecker factors as a moving average beside the training of their network (NAP, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

import torch
from torch import Tensor, nn

from common.cells.errors import UserError
from common.curvature.kron import Kron, KronEstimator, input_moment, require_finite
from common.nets import layers as L


class MovingKron(KronEstimator):
    """An exponential moving average: F ← decay · F + (1 − decay) · batch, begun at the factors
    `start` of the layers that have them in their present shapes, else at the first batch.

    An update stands between two steps of training and must cost less than they do. So the batches
    are added up in place and in their own precision, products of rows without an intermediate;
    `start` stays in float64 and joins them in `factors`.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: dict[str, nn.Module] | None = None,
        *,
        decay: float,
        start: Mapping[str, Kron] | None = None,
        **options,
    ):
        super().__init__(model, layers, **options)
        if not 0 <= decay < 1:
            raise UserError("decay", decay, "outside [0, 1)")
        self.decay, self.updates = decay, 0
        self.start = {
            name: kron
            for name, kron in (start or {}).items()
            if name in self.layers and self._fits(kron, self.layers[name])
        }
        self._recent: dict[str, Kron] = {}

    def update(self, x: Tensor, y: Tensor) -> None:
        """Take one batch in: one forward pass, one backward pass a label draw."""
        with closing(self.passes(x, y)) as passes:
            for name, draw, tensor in passes:
                self._add(name, draw, tensor, len(x))
        self.seen += len(x)
        self.updates += 1

    def _fits(self, kron: Kron, module: nn.Module) -> bool:
        groups, out, inner = L.shape(module)
        inner = inner // L.offsets(module) if self.channel_only else inner + self.with_bias(module)
        return kron.shapes() == ((groups, inner, inner), (groups, out, out))

    def _add(self, name: str, draw: int | None, tensor: Tensor, examples: int) -> None:
        module, recent = (
            self.layers[name],
            self._recent.setdefault(name, Kron(tensor.new_zeros(()), tensor.new_zeros(()), 1)),
        )
        first = not self.updates and name not in self.start
        keep, weight = (0.0, 1.0) if first else (self.decay, 1 - self.decay)
        if draw is not None:
            rows = L.gradients(module, tensor)
            recent.positions = rows.shape[2]
            recent.G = _blend(
                recent.G, rows, 1.0 if draw else keep, weight / (rows.shape[2] * examples)
            )
        elif L.offsets(module) > 1 or isinstance(module, nn.Conv2d):
            A = input_moment(module, tensor, self.with_bias(module), self.channel_only).to(
                tensor.dtype
            )
            recent.A = (
                A.mul_(weight / examples)
                if recent.A.dim() == 0
                else recent.A.mul_(keep).add_(A, alpha=weight / examples)
            )
        else:
            recent.A = _blend(
                recent.A, L.inputs(module, tensor, self.with_bias(module)), keep, weight / examples
            )

    def factors(self) -> dict[str, Kron]:
        """The current average by layer name, in float64. Raises NumericalError for inputs or
        gradients that were not finite.
        """
        self._factors, left = {}, self.decay**self.updates
        for name, recent in self._recent.items():
            new = Kron(recent.A.double(), recent.G.double(), recent.positions)
            require_finite(name, new.A, new.G)
            start = self.start.get(name)
            if start is not None:
                new = Kron(
                    new.A.add_(start.A, alpha=left), new.G.add_(start.G, alpha=left), new.positions
                )
            self._factors[name] = new
        return super().factors()


def _blend(total: Tensor, rows: Tensor, keep: float, scale: float) -> Tensor:
    """keep · total + scale · Σ row rowᵀ over batch and positions, in place where `total` is not a
    scalar yet: [groups, d, d].
    """
    flat = rows.transpose(0, 1).reshape(rows.shape[1], -1, rows.shape[-1])
    if total.dim() == 0:
        return torch.bmm(flat.mT, flat).mul_(scale)
    return total.baddbmm_(flat.mT, flat, beta=keep, alpha=scale)
