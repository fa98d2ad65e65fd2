"""Kronecker factors of a layer's Fisher block (Martens & Grosse 2015; convolutions: Grosse &
Martens 2016, KFC).

One convention, for B examples and T output positions, with per-example gradients g and layer inputs
a (layers.py's rows):
    A = (1/B) Σ_b Σ_t a aᵀ         [groups, in, in]
    G = (1/T) (1/B) Σ_b Σ_t g gᵀ   [groups, out, out]
so that G ⊗ A (row-major weight [out, in]) is the KFC block of the mean loss, at one scale across
all layers. Channel-only A ("doubly factored", EigenDamage Sec. 4.5) is [groups, cin/groups,
cin/groups], the mean of A's k² diagonal position blocks, so that G ⊗ A_channel ⊗ I_k² keeps that
scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.cells.errors import LayerError, NumericalError, UserError, choose
from common.curvature import memory, patches
from common.curvature.labels import FISHERS, losses, require_curvature
from common.data.batches import batches
from common.data.task import Inputs, task_of
from common.nets import layers as L
from common.nets.capture import Tape, capture
from common.nets.kinds import pad
from common.system import distributed, machine

POSITIONS = 64  # of an example's patches that are worth a product of their own
# columns of a symmetric product formed together: two thirds of a whole product's time at 785
# columns, half at 2,305
STRIP = 160


@dataclass
class Kron:
    """One layer's factors in float64: A [groups, in (+1 with bias), same], G [groups, out, out];
    positions = T.
    """

    A: Tensor
    G: Tensor
    positions: int

    def shapes(self) -> tuple:
        """The factors' shapes: what has to agree for two to be averaged."""
        return self.A.shape, self.G.shape

    def dense(self) -> Tensor:
        """The blocks they stand for, [groups, out·in, out·in], rows ordered like a flattened weight
        matrix.
        """
        return torch.stack([torch.kron(g, a) for a, g in zip(self.A, self.G, strict=True)])


class KronEstimator:
    """Kronecker factors of `layers` (all prunable ones by default), averaged over all examples
    seen. loss: by default that of the data's task.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: dict[str, nn.Module] | None = None,
        fisher: str = "sampled",
        loss: str | None = None,
        bias: bool = False,
        channel_only: bool = False,
        generator: torch.Generator | None = None,
    ):
        choose("fisher", fisher, FISHERS)
        if bias and channel_only:
            raise UserError(
                "channel_only",
                True,
                "has no homogeneous coordinate",
                "use bias=False with channel-only factors",
            )
        self.model, self.layers = model, L.prunable(model) if layers is None else layers
        self.fisher, self.loss, self.bias, self.channel_only = fisher, loss, bias, channel_only
        self.generator, self.seen = generator, 0
        self._factors: dict[str, Kron] = {}
        self._fits_memory = False

    def skip(self, x: Tensor, y: Tensor) -> None:
        """Leave one batch to another process, but draw its labels, so that all processes draw
        alike.
        """
        if self.fisher == "sampled":
            with torch.no_grad(), capture(self.model, {}, gradients=False) as tape:
                next(self._losses(tape.forward(x), x, y))

    def update(self, x: Tensor, y: Tensor) -> None:
        """Take one batch in: one forward pass, one backward pass a label draw. Raises UserError at
        the first where the factors and the patches of a batch would not fit the memory budget."""
        seen = self.seen + len(x)
        share, sums = len(x) / seen, {}
        with closing(self.passes(x, y)) as passes:
            for name, draw, tensor in passes:
                module = self.layers[name]
                if draw is None:
                    A = input_moment(module, tensor, self.with_bias(module), self.channel_only)
                    self._take(name, "A", A.div_(len(x)), share)
                    continue
                rows = L.gradients(module, tensor)
                G = second_moment(rows).div_(rows.shape[2] * len(x))
                sums[name] = sums[name].add_(G) if name in sums else G
                self._factors[name].positions = rows.shape[2]
        for name in self.layers:
            self._take(name, "G", sums.pop(name), share)
        self.seen = seen

    def _take(self, name: str, which: str, new: Tensor, share: float) -> None:
        """Move a layer's mean factor towards a batch's, which is `share` of all examples; the first
        batch's becomes the mean itself.
        """
        require_finite(name, new)
        kron = self._factors.setdefault(name, Kron(new, new.new_zeros(()), 1))
        old = getattr(kron, which)
        setattr(kron, which, new if old is new or old.dim() == 0 else old.lerp_(new, share))

    def passes(self, x: Tensor, y: Tensor) -> Iterator[tuple[str, int | None, Tensor]]:
        """(layer, None, its input) of every layer, then for each draw (layer, the draw's number,
        the gradient in its output).
        """
        with capture(self.model, self.layers) as tape:
            output = tape.forward(x)
            self._require_memory(tape)
            for name in self.layers:
                yield name, None, tape.input(name)
            draws = list(self._losses(output, x, y))
            for i, loss in enumerate(draws):
                tape.backward(loss, retain=i + 1 < len(draws))
                for name in self.layers:
                    yield name, i, tape.gradient(name)

    def _losses(self, output: object, x: Tensor | Inputs, y: Tensor | Inputs) -> Iterator[Tensor]:
        return losses(output, y, self.fisher, self.loss or task_of(x), self.generator)

    def _require_memory(self, tape: Tape) -> None:
        """Of the factors, and of the patches of a layer that unfolds: as unfolded, brought to rows,
        and with ones.
        """
        if self._fits_memory:
            return
        sizes = memory.Sizes.of(self.layers.values(), self.bias, self.channel_only)
        unfolded = [
            L.inputs(module, tape.input(name).to("meta")).numel()
            for name, module in self.layers.items()
            if isinstance(module, nn.Conv2d) and not (self.channel_only or patches.applies(module))
        ]
        size = memory.estimated(sizes) + 3 * 4 * max(unfolded, default=0)
        machine.require_memory(
            "Kronecker factors", size / 2**30, f"give smaller batches, {memory.SMALLER}"
        )
        self._fits_memory = True

    def with_bias(self, module: nn.Module) -> bool:
        """Whether a layer's A has the homogeneous coordinate."""
        return self.bias and module.bias is not None

    def factors(self) -> dict[str, Kron]:
        """The current factors by layer name; under torchrun the mean over all processes' examples,
        which all must ask for.
        """
        if not self._factors:
            raise UserError(
                "calibration",
                0,
                "no batch was seen",
                "give at least one example, and a batch to each process",
            )
        factors = self._factors if distributed.world() == 1 else self._over_processes()
        zero = not any(kron.A.any() and kron.G.any() for kron in factors.values())
        require_curvature(zero, factors)
        return factors

    def _over_processes(self) -> dict[str, Kron]:
        """The mean of all processes' factors, each weighted by its examples."""
        seen = next(iter(self._factors.values())).A.new_tensor(float(self.seen))
        distributed.add_up([seen])
        share = self.seen / float(seen)
        total = {
            name: Kron(kron.A * share, kron.G * share, kron.positions)
            for name, kron in self._factors.items()
        }
        distributed.add_up(factor for kron in total.values() for factor in (kron.A, kron.G))
        return total


def require_finite(name: str, *factors: Tensor) -> None:
    """Raise NumericalError for a layer whose factors are not finite."""
    if not all(torch.isfinite(torch.stack(factor.aminmax())).all() for factor in factors):
        raise NumericalError(
            name, "its inputs or gradients are not finite", "check the data and the checkpoint"
        )


def kron_factors(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    layers: dict[str, nn.Module] | None = None,
    **options,
) -> dict[str, Kron]:
    """Factors averaged over all of `loader`; options as for KronEstimator."""
    estimator = KronEstimator(model, layers, **options)
    device = next(model.parameters()).device
    for index, (x, y) in enumerate(batches(loader)):
        take = estimator.update if distributed.mine(index) else estimator.skip
        take(x.to(device), y.to(device))
    return estimator.factors()


def second_moment(rows: Tensor) -> Tensor:
    """Σ over batch and positions of row rowᵀ: [batch, groups, T, d] -> [groups, d, d], float64."""
    flat = rows.transpose(0, 1).reshape(rows.shape[1], -1, rows.shape[-1])
    total = flat.new_empty(len(flat), flat.shape[2], flat.shape[2], dtype=torch.float64)
    # the strip from the diagonal on; the rest of a symmetric matrix is its mirror
    for start in range(0, flat.shape[2], STRIP):
        strip = flat[..., start : start + STRIP].mT @ flat[..., start:]
        total[:, start : start + STRIP, start:] = strip
        total[:, start:, start : start + STRIP] = strip.mT
    return total


def input_moment(
    module: nn.Module, x: Tensor, bias: bool = False, channel_only: bool = False
) -> Tensor:
    """Σ_b Σ_t a aᵀ of one batch, float64: [groups, in (+1), in (+1)]; channel-only [groups,
    cin/groups, cin/groups].
    """
    if channel_only and isinstance(module, nn.Conv2d):
        return _channel_moment(module, x)
    if channel_only and L.offsets(module) > 1:
        # [batch, groups, T, channels, offsets]: every offset a row of its own
        rows = L.inputs(module, x).unflatten(3, (-1, L.offsets(module)))
        return second_moment(rows.transpose(3, 4).flatten(2, 3)) / L.offsets(module)
    if patches.applies(module):
        return patches.patch_moment(module, x, bias)
    if isinstance(module, nn.Conv2d) and module.weight[0].numel() <= STRIP:
        return _narrow_moment(module, x, bias)
    return second_moment(L.inputs(module, x, bias))


def _narrow_moment(module: nn.Conv2d, x: Tensor, bias: bool) -> Tensor:
    """The same from the patches as unfolding leaves them, positions last, an example at a time:
    copying them into rows would cost as much as such a narrow product."""
    columns = pad(module, x)
    if max(*module.kernel_size, *module.stride) > 1:
        columns = F.unfold(
            columns, module.kernel_size, dilation=module.dilation, stride=module.stride
        )
    columns = columns.reshape(len(x), module.groups, module.weight[0].numel(), -1)
    if columns.shape[3] < POSITIONS:
        return second_moment(L.inputs(module, x, bias))
    total = columns.new_zeros(module.groups, columns.shape[2], columns.shape[2])
    for example in columns:
        total.baddbmm_(example, example.mT)
    if not bias:
        return total.double()
    sums = columns.double().sum((0, 3))[..., None]
    below = torch.cat([sums.mT, sums.new_full((len(sums), 1, 1), len(x) * columns.shape[3])], dim=2)
    return torch.cat([torch.cat([total.double(), sums], dim=2), below], dim=1)


def _channel_moment(module: nn.Conv2d, x: Tensor) -> Tensor:
    """Mean of the k² diagonal position blocks without unfolding: every padded pixel counts as often
    as a kernel offset meets it, so the sum over offsets and positions is one weighted product of
    pixels."""
    padded = pad(module, x)
    ones = torch.ones_like(padded[:1, :1])
    windows = F.unfold(ones, module.kernel_size, dilation=module.dilation, stride=module.stride)
    times = F.fold(
        windows,
        padded.shape[2:],
        module.kernel_size,
        dilation=module.dilation,
        stride=module.stride,
    )
    pixels = (padded * times.sqrt()).reshape(
        len(x), module.groups, padded.shape[1] // module.groups, -1
    )
    return second_moment(pixels.transpose(2, 3)) / (module.kernel_size[0] * module.kernel_size[1])


def input_hessian(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    layers: dict[str, nn.Module] | None = None,
    bias: bool = False,
) -> dict[str, Tensor]:
    """The layer-wise Hessian of L-OBS (Dong et al. 2017, Eq. 5): mean over examples and positions
    of a aᵀ, that is A / T.

    Streams: memory does not grow with the number of examples. Returns float64 [groups, in (+1), in
    (+1)] by layer name.
    """
    layers = L.prunable(model) if layers is None else layers
    device, sums, rows = next(model.parameters()).device, {}, {}
    for x, _ in batches(loader):
        with capture(model, layers, gradients=False) as tape:
            tape.forward(x.to(device))
            for name, module in layers.items():
                a = L.inputs(module, tape.input(name), bias and module.bias is not None)
                sums[name] = sums.get(name, 0.0) + second_moment(a)
                rows[name] = rows.get(name, 0) + a.shape[0] * a.shape[2]
    if not sums:
        raise UserError("calibration", 0, "no batch was seen", "give at least one example")
    for name, total in sums.items():
        if not torch.isfinite(total).all():
            raise NumericalError(
                name, "its inputs are not finite", "check the data and the checkpoint"
            )
    return {name: total / rows[name] for name, total in sums.items()}


@dataclass
class KronInverse:
    """(G + ν I)⁻¹ ⊗ (A + μ I)⁻¹ of one layer; a curvature for obs.py over weights flattened from
    [groups, out, in].
    """

    A: Tensor
    G: Tensor
    A_inverse: Tensor
    G_inverse: Tensor
    damping: dict

    @classmethod
    def of(
        cls,
        factors: Kron,
        damping: float,
        pi: bool = True,
        relative: bool = False,
        name: str = "",
        own: bool = False,
    ) -> KronInverse:
        """Damped inverse. μ = π√γ and ν = √γ/π with π² = (tr A / dim A) / (tr G / dim G) per group,
        or π = 1 without `pi` (Martens & Grosse 2015, Sec. 6.3). `relative` scales γ by the product
        of the mean eigenvalues. own: the damping goes into `factors`
        themselves, which nobody needs any more.

        Raises NumericalError when the damped factors are still singular.
        """
        A, G = factors.A, factors.G
        mean_a = A.diagonal(dim1=-2, dim2=-1).mean(-1)
        mean_g = G.diagonal(dim1=-2, dim2=-1).mean(-1)
        dead = (mean_a <= 0) | (mean_g <= 0)
        mean_a, mean_g = (mean.where(mean > 0, torch.ones_like(mean)) for mean in (mean_a, mean_g))
        one = torch.ones_like(mean_a)
        # without signal there is no π of an absolute damping; a relative one still fits the factor
        # that has a size
        ratio = (mean_a / mean_g).where(~dead | relative, one).sqrt() if pi else one
        root = (damping * mean_a * mean_g if relative else damping * one).sqrt()
        if not own:
            A, G = A.clone(), G.clone()
        A.diagonal(dim1=-2, dim2=-1).add_((ratio * root)[:, None])
        G.diagonal(dim1=-2, dim2=-1).add_((root / ratio)[:, None])
        inverses = []
        for factor in (A, G):
            chol, info = torch.linalg.cholesky_ex(factor)
            if info.any():
                raise NumericalError(
                    name,
                    f"its Kronecker factors are singular at damping {damping:g}",
                    "raise --damping",
                )
            inverses.append(torch.cholesky_inverse(chol))
            del chol
        note = {
            "damping": damping,
            "relative": relative,
            "A": (ratio * root).tolist(),
            "G": (root / ratio).tolist(),
        }
        return cls(A, G, *inverses, note)

    def added(self) -> dict[str, float]:
        """What was added to each factor's diagonal, the mean over convolution groups: for the
        record."""
        return {
            f"damping_{name}": sum(self.damping[name]) / len(self.damping[name]) for name in "AG"
        }

    def _matrix(self, v: Tensor) -> Tensor:
        return v.double().reshape(self.G.shape[0], self.G.shape[1], self.A.shape[1])

    def diagonal(self) -> Tensor:
        """diag F⁻¹, flat."""
        return (
            self.G_inverse.diagonal(dim1=-2, dim2=-1)[:, :, None]
            * self.A_inverse.diagonal(dim1=-2, dim2=-1)[:, None, :]
        ).flatten()

    def solve(self, v: Tensor) -> Tensor:
        """F⁻¹ v, flat."""
        return (self.G_inverse @ self._matrix(v) @ self.A_inverse).flatten()

    def times(self, v: Tensor) -> Tensor:
        """F v (damped), flat."""
        return (self.G @ self._matrix(v) @ self.A).flatten()

    def submatrix(self, index: Tensor) -> Tensor:
        """F⁻¹[index, index], [k, k]."""
        out, width = self.G.shape[1], self.A.shape[1]
        group, row, column = index // (out * width), index // width % out, index % width
        same = group[:, None] == group[None, :]
        block = (
            self.G_inverse[group[:, None], row[:, None], row[None, :]]
            * self.A_inverse[group[:, None], column[:, None], column[None, :]]
        )
        return torch.where(same, block, torch.zeros_like(block))


def split_bias(factors: Kron, module: nn.Module) -> Kron:
    """Factors without the homogeneous coordinate, for weights alone (the marginal block, not the
    conditional one).
    """
    width = L.shape(module)[2]
    if factors.A.shape[-1] not in (width, width + 1):
        raise LayerError(type(module).__name__, "its A factor has another width (channel-only?)")
    return Kron(factors.A[:, :width, :width], factors.G, factors.positions)
