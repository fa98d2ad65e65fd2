"""Steps 1 and 2 of L-OBS (Dong et al. 2017, Sec. 3): inputs, Hessian and error of each layer, and
how its weights move.

A layer with weights W [out, in] (a last column holds the bias, whose input is 1) sees inputs x and
should output z. Its error is quadratic in the new weights W':
    E(W') = (1/2n) Σ ‖W'x − z‖² = ½ tr(W'ΨW'ᵀ) − tr(W'Bᵀ) + ½ mean‖z‖²,
    Ψ = (1/n) Σ xxᵀ,  B = (1/n) Σ zxᵀ
and Ψ is the Hessian for every output unit (Eq. 9). n counts inputs: examples × output positions. In
the paper x comes from the dense network: then B = WΨ and E = ½ tr(δΨδᵀ). In lobs.ours x may come
from a network whose earlier layers are pruned; z is still the dense network's output. Sums are kept
and not inputs, so that memory does not grow with the number of examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from common.cells.errors import NumericalError, UserError
from common.curvature.elimination import Elimination
from common.curvature.kron import input_moment, second_moment
from common.curvature.memory import BLOCK_ENTRIES
from common.curvature.shared import DenseMatrix, LowRankMatrix, Matrix, SharedRows
from common.data.sources import rebatch
from common.nets import layers as L
from common.nets.capture import capture
from common.pruning import obs
from common.pruning.pattern import Pattern
from common.pruning.pruned import Pruned
from common.pruning.select import select
from common.system import distributed

# a layer stores its inputs instead of Ψ while they are fewer than its width / FEW: products with
# few rows are cheaper
FEW = 8
# a layer wider than this stores them while they are fewer than its width: Ψ of VGG-16's first fully
# connected layer takes 5 GB
WIDE = 8_192
RIDGE_STEPS = 10  # times a singular Hessian's ridge may be raised tenfold


@dataclass
class LayerStatistics:
    """Sums over the inputs of one layer.

    moment: Σ xxᵀ [groups, in, in], or None while `rows` stores the inputs [groups, n, in]. wanted:
    Σ zxᵀ [groups, out, in], and energy: Σ ‖z‖² [groups]; both only where z comes from another
    network than x.
    """

    module: nn.Module
    bias: bool
    count: int = 0
    moment: Tensor | None = None
    rows: list[Tensor] = field(default_factory=list)
    wanted: Tensor | None = None
    energy: Tensor | None = None

    @torch.no_grad()
    def add(self, x: Tensor, dense: tuple[nn.Module, Tensor] | None = None) -> None:
        """Add a batch x of the layer's inputs. dense: the layer and the inputs that z comes from,
        if they are not this layer and x."""
        positions = L.inputs(self.module, x[:1].to("meta")).shape[2]
        self.count += len(x) * positions
        width = L.shape(self.module)[2] + self.bias
        if self.moment is None and self.count * (1 if width > WIDE else FEW) < width:
            self.rows.append(
                L.inputs(self.module, x, self.bias).transpose(0, 1).flatten(1, 2).clone()
            )
        elif self.moment is None:
            self.moment = sum(
                (second_moment(rows[None]) for rows in self.rows),
                input_moment(self.module, x, self.bias),
            )
            self.rows = []
        else:
            self.moment += input_moment(self.module, x, self.bias)
        if dense is not None:
            seen = L.inputs(self.module, x, self.bias).transpose(0, 1).flatten(1, 2).double()
            z = (
                L.inputs(dense[0], dense[1], self.bias).transpose(0, 1).flatten(1, 2).double()
                @ L.joined(dense[0], self.bias).mT
            )
            wanted, energy = z.mT @ seen, z.square().sum((1, 2))
            self.wanted, self.energy = (
                (wanted, energy)
                if self.wanted is None
                else (self.wanted + wanted, self.energy + energy)
            )

    def check(self, name: str) -> None:
        """Raise NumericalError naming the layer if an input was not finite."""
        if not all(
            torch.isfinite(t).all() for t in (*self.rows, self.moment, self.wanted) if t is not None
        ):
            raise NumericalError(
                name, "its inputs are not finite", "check the data and the checkpoint"
            )


@dataclass
class LayerProblem:
    """One convolution group of a layer as a least-squares problem: minimise E(W') + ½ρ‖W' − W‖².

    target: its solution [out, in]; W where x and z come from the same network. matrix: Ψ + ρI, the
    curvature of every row.
    """

    target: Tensor
    matrix: Matrix
    ridge: float
    raised: bool  # whether ρ had to be larger than the damping asked for
    energy: float  # mean‖z‖²
    dead: Tensor  # inputs that were always zero, bool [in]
    wanted: Tensor | None = None  # B, where it is not target Ψ: with another network's outputs

    @classmethod
    def of(
        cls, name: str, W: Tensor, seen: LayerStatistics, g: int, damping: float, relative: bool
    ) -> LayerProblem:
        """The problem of group g. ρ is `damping`, times Ψ's mean diagonal if `relative`, and ten
        times more until Ψ + ρI has a Cholesky factor."""
        rows = torch.cat([r[g] for r in seen.rows]) if seen.rows else None
        diagonal = (
            seen.moment[g].diagonal() / seen.count
            if rows is None
            else rows.double().square().mean(0)
        )
        ridge = damping * (float(diagonal.mean()) or 1.0) if relative else damping
        for raised in range(RIDGE_STEPS + 1):
            try:
                matrix = (
                    DenseMatrix(seen.moment[g], ridge, name, seen.count)
                    if rows is None
                    else LowRankMatrix(rows, ridge, name)
                )
                break
            except NumericalError:
                if raised == RIDGE_STEPS:
                    raise
                ridge *= 10
        if seen.wanted is None:
            return cls(W, matrix, ridge, raised > 0, _quadratic(matrix, W), diagonal == 0)
        wanted = seen.wanted[g] / seen.count
        return cls(
            matrix.solve(wanted + ridge * W),
            matrix,
            ridge,
            raised > 0,
            float(seen.energy[g]) / seen.count,
            diagonal == 0,
            wanted,
        )

    def error(self, W: Tensor) -> float:
        """E(W'): half the mean squared distance of the layer's output to the wanted one, in squared
        units of that output.
        """
        added = 0.5 * _quadratic(self.matrix, W, self.target)
        if self.wanted is None:  # the target has no error
            return max(0.0, added)
        residual = self.matrix.times(self.target) - self.ridge * self.target - self.wanted
        rest = 0.5 * (self.energy + float((self.target * (residual - self.wanted)).sum()))
        return max(0.0, added + float((residual * (W - self.target)).sum()) + rest)

    def updated(self, kept: Tensor, scores: Tensor, kind: str, name: str) -> Tensor:
        """Layer.updated for this group, [out, in]; a block of rows at a time, to bound memory. Rows
        are independent of each other."""
        block, result = max(1, BLOCK_ENTRIES // kept.shape[1]), torch.empty_like(self.target)
        parts = (tensor.split(block) for tensor in (result, self.target, kept, scores))
        for new, w, k, s in zip(*parts, strict=True):
            delta, _ = obs.update(
                w.flatten(), SharedRows(self.matrix, len(w)), ~k.flatten(), kind, s.flatten(), name
            )
            torch.add(w, delta.reshape(w.shape), out=new)
        return result


def _quadratic(matrix: Matrix, W: Tensor, origin: Tensor | None = None) -> float:
    """tr(δΨδᵀ), δ = W − origin, a few rows at a time: whole products with VGG-16's first fully
    connected layer take gigabytes.
    """
    rows, total = max(1, BLOCK_ENTRIES // matrix.width), 0.0
    for start in range(0, len(W), rows):
        delta = (
            W[start : start + rows]
            if origin is None
            else W[start : start + rows] - origin[start : start + rows]
        )
        moved = matrix.times(delta) - matrix.ridge * delta
        total += float((moved * delta).sum())
    return total


# a pruned layer: new weights [groups, out, in], masks by parameter name, numbers for the record,
# notes
Outcome = tuple[Tensor, dict[str, Tensor], dict[str, float], list[str]]


@dataclass
class Layer:
    """A layer that is to be pruned: a least-squares problem for each convolution group, and which
    weights [groups, out, in] earlier prunings kept."""

    name: str
    module: nn.Module
    problems: list[LayerProblem]
    kept: Tensor
    bias: bool  # whether the last column is the bias
    prune_bias: bool  # whether biases may be removed

    @classmethod
    def of(
        cls,
        name: str,
        seen: LayerStatistics,
        damping: float,
        prune_bias: bool = False,
        masks: Mapping[str, Tensor] | None = None,
        relative: bool = False,
    ) -> Layer:
        """Step 2: (Ψ + ρI)⁻¹ from the layer's statistics. ρ is `damping`, in units of Ψ's mean
        diagonal if `relative`. Raises NumericalError naming the layer."""
        W, masks = L.joined(seen.module, seen.bias), masks or {}
        problems = [LayerProblem.of(name, W[g], seen, g, damping, relative) for g in range(len(W))]
        kept = torch.ones_like(W, dtype=torch.bool)
        if f"{name}.weight" in masks:
            kept[..., : W.shape[2] - seen.bias] = L.to_matrix(seen.module, masks[f"{name}.weight"])
        if f"{name}.bias" in masks:
            kept[..., -1] = masks[f"{name}.bias"].reshape(W.shape[:2])
        return cls(name, seen.module, problems, kept, seen.bias, prune_bias)

    def target(self) -> Tensor:
        """The weights that pruning starts from, [groups, out, in]."""
        return stacked([problem.target for problem in self.problems])

    def inverse_diagonal(self) -> Tensor:
        """diag (Ψ + ρI)⁻¹, the same for every output unit: [groups, 1, in]."""
        return torch.stack([problem.matrix.diagonal() for problem in self.problems])[:, None]

    def dead(self) -> Tensor:
        """True where the input was always zero, [groups, 1, in]."""
        return torch.stack([problem.dead for problem in self.problems])[:, None]

    def eliminated(self) -> Elimination:
        """What each weight [groups, out, in] costs when the weights of a unit go one by one, each
        scored by the inverse of what is left."""
        parts = []
        for problem, kept in zip(self.problems, self.kept, strict=True):
            free = torch.ones_like(problem.dead)
            free[len(self.free(free)) :] = False
            parts.append(problem.matrix.eliminated(problem.target, kept, free, problem.dead))
        return Elimination(
            stacked([part.score for part in parts]), stacked([part.loss for part in parts])
        )

    def without_lowest(self, scores: Tensor, removed: float) -> Tensor:
        """Which weights are kept, [groups, out, in], once those of lowest score are removed. What
        earlier prunings removed counts towards the fraction `removed`."""
        free, kept = self.free(scores), self.free(self.kept)
        # a pattern is of the weight in its own shape
        if isinstance(removed, Pattern) and not self.prune_bias:
            free, kept = (L.to_weight(self.module, part) for part in (free, kept))
        chosen = select({self.name: free}, removed, masks={self.name: kept})[self.name]
        return self.cut(self.kept, chosen.reshape(self.free(scores).shape))

    def updated(self, kept: Tensor, scores: Tensor, kind: str) -> Tensor:
        """The weights [groups, out, in] after common.pruning.obs's update `kind` has removed what
        is not kept. The triangular update removes them in ascending score."""
        parts = zip(self.problems, kept, scores, strict=True)
        return stacked([problem.updated(k, s, kind, self.name) for problem, k, s in parts])

    def error(self, new: Tensor) -> float:
        """The layer's error E, groups added up."""
        return sum(problem.error(w) for problem, w in zip(self.problems, new, strict=True))

    def energy(self) -> float:
        """½ mean‖z‖² of the wanted output: the error of a layer that answers zero."""
        return 0.5 * sum(problem.energy for problem in self.problems)

    def free(self, values: Tensor) -> Tensor:
        """The columns of `values` [groups, out, in] that may be removed: without the bias, unless
        prune_bias."""
        return values[..., :-1] if self.bias and not self.prune_bias else values

    def cut(self, kept: Tensor, free: Tensor) -> Tensor:
        """`kept` with the columns that may be removed replaced by `free`."""
        return torch.cat([free, kept[..., free.shape[2] :]], 2)

    @property
    def total(self) -> int:
        """How many weights may be removed."""
        return self.free(self.kept).numel()

    def share(self, kept: Tensor) -> float:
        """Fraction of those that is kept."""
        return float(self.free(kept).double().mean())

    def masks(self, kept: Tensor) -> dict[str, Tensor]:
        """Masks by parameter name; the bias has one only if biases may be removed."""
        found = {
            f"{self.name}.weight": L.to_weight(self.module, kept[..., : kept.shape[2] - self.bias])
        }
        return found | (
            {f"{self.name}.bias": kept[..., -1].flatten()} if self.bias and self.prune_bias else {}
        )

    def notes(self) -> list[str]:
        """A line for a raised ridge and a line for dead inputs, where there are any."""
        raised = [
            f"{self.name}: its Hessian was singular, so its ridge is {p.ridge:g}"
            for p in self.problems
            if p.raised
        ]
        dead = int(self.dead().sum())
        return raised[:1] + (
            [f"{self.name}: {dead} of {self.dead().numel()} inputs dead, their weights first to go"]
            if dead
            else []
        )

    def report(self, new: Tensor) -> dict[str, float]:
        """For the record: predicted layer error E, E over the output's energy, ridge ρ, number of
        dead inputs.
        """
        error, dead = self.error(new), int(self.dead().sum())
        return {
            "predicted_error": error,
            "relative_error": error / (self.energy() or 1.0),
            "ridge": max(problem.ridge for problem in self.problems),
        } | ({"dead_inputs": dead} if dead else {})

    def outcome(self, new: Tensor, kept: Tensor) -> Outcome:
        """The layer once its weights are `new`, for `write`."""
        return new, self.masks(kept), self.report(new), self.notes()


def write(result: Pruned, name: str, outcome: Outcome) -> None:
    """Write a pruned layer into `result`: weights, masks, numbers for the record and notes."""
    new, masks, report, notes = outcome
    L.write_joined(result.model.get_submodule(name), new)
    result.masks |= masks
    result.layers[name] = report
    result.notes += notes


def stacked(parts: list[Tensor]) -> Tensor:
    """torch.stack, without a copy where there is one part."""
    return parts[0][None] if len(parts) == 1 else torch.stack(parts)


def layer_statistics(
    model: nn.Module,
    calibration: Iterable,
    layers: dict[str, nn.Module],
    bias: bool,
    batch_size: int,
) -> dict[str, LayerStatistics]:
    """Step 1: statistics_of the layers, under torchrun only those that distributed.each gives to
    this process."""
    own = distributed.dealt(layers)
    return statistics_of(model, calibration, own, bias, batch_size) if own else {}


def statistics_of(
    model: nn.Module,
    calibration: Iterable,
    layers: dict[str, nn.Module],
    bias: bool,
    batch_size: int,
    dense: nn.Module | None = None,
) -> dict[str, LayerStatistics]:
    """The input statistics of every layer, by name, in one pass over the calibration data. dense:
    the network whose outputs the layers should have, if it is not `model`.

    Raises UserError without data, NumericalError for inputs that are not finite, LayerError for a
    layer without any input.
    """
    device = next(model.parameters()).device
    result = {
        name: LayerStatistics(module, bias and module.bias is not None)
        for name, module in layers.items()
    }
    originals = {name: dense.get_submodule(name) for name in layers} if dense is not None else {}
    seen = False
    for x, _ in rebatch(calibration, batch_size):
        with capture(model, layers, gradients=False) as tape:
            tape.forward(x.to(device))
            for name, statistics in result.items():
                if dense is None:
                    statistics.add(tape.input(name))
                    continue
                with capture(dense, originals, gradients=False) as other:
                    other.forward(x.to(device))
                    statistics.add(tape.input(name), (originals[name], other.input(name)))
        seen = True
    if not seen:
        raise UserError("calibration", 0, "no batch was seen", "give at least one example")
    for name, statistics in result.items():
        statistics.check(name)
    return result
