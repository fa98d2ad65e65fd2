"""The Fisher of gradient rows over a network's layers, F = λI + (1/m) Σ_i ∇_i ∇_iᵀ, ready to be
inverted: a block a layer, smaller blocks, or one block over all layers.

Rows stay in memory where the memory budget holds them and the work on them, else they go to a file
(spool.py). Inside `sharing.sharing()` an estimate is kept for the next call that asks for the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import UserError
from common.cells.registry import OPEN_ROWS
from common.curvature import sharing
from common.curvature.blocks import BlockFisher, Rows
from common.curvature.labels import require_curvature
from common.curvature.memory import rows_work
from common.curvature.rows import gradient_rows, silent
from common.data.batches import batches
from common.nets import layers as L
from common.system import distributed, machine

NETWORK = "network"  # chunk: one block over all layers


@dataclass
class Part:
    """A curvature, as common.pruning.obs asks for it, over the flattened weights of some layers,
    one after the other.
    """

    layers: dict[str, nn.Module]
    curvature: object
    shared: bool = False  # whether the curvature was ready (sharing.py)
    b: int = 1  # examples averaged into each of its rows

    def flat(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Weight-shaped tensors by layer name as this part's flat vector [d]."""
        return torch.cat([L.flat(module, tensors[name]) for name, module in self.layers.items()])

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """The inverse of `flat`: tensors by layer name, weight-shaped."""
        pieces = vector.split([module.weight.numel() for module in self.layers.values()])
        return {
            name: L.to_weight(module, piece)
            for (name, module), piece in zip(self.layers.items(), pieces, strict=True)
        }

    def weights(self) -> Tensor:
        """The weights of its layers, flat [d], in the network's dtype."""
        return self.flat({name: module.weight.detach() for name, module in self.layers.items()})


def count(calibration: Iterable) -> int:
    """Number of examples in the loader; a DataLoader is asked, anything else is gone through."""
    known = getattr(calibration, "batch_sampler", None)
    return sum(map(len, known if known is not None else (y for _, y in batches(calibration))))


def rows_of(calibration: Iterable, m: int | None, b: int | None) -> tuple[int, int]:
    """(m, b): rows and examples a row. What is None follows from the other one and the number of
    examples; where both are, all examples make at most OPEN_ROWS rows.

    Raises UserError where the data is too little."""
    examples, asked = count(calibration), m
    if m is None:
        m = min(OPEN_ROWS, examples) if b is None else examples // b
    b = b or max(1, examples // max(m, 1))
    if m < 1 or m * b > examples:
        raise UserError(
            "num_rows" if asked else "fisher_batch_size",
            asked or b,
            f"{max(m, 1)} rows of {b} examples take {max(m, 1) * b}, the calibration data has "
            f"{examples}",
            "raise --num-samples, or lower --fisher-batch-size or num_rows",
        )
    return m, b


def block_fisher(
    model: nn.Module,
    layers: dict[str, nn.Module],
    calibration: Iterable,
    rows: tuple[int, int],
    labels: str,
    damping: float,
    chunk: int | str | None,
    generator: torch.Generator,
    masks: Mapping[str, Tensor] | None = None,
) -> list[Part]:
    """The damped Fisher of `layers`, a Part a layer; with chunk="network" one Part over all layers.

    rows: (m, b), m rows that are each the mean gradient of b examples. labels: "empirical" or
    "sampled". damping: λ > 0. chunk: weights a block, None for a block a layer. masks: parameter
    name -> bool; gradients of weights that are gone (False) count as zero.

    Raises UserError where the memory budget does not hold the work, NumericalError for gradients
    that are not finite or all zero.
    """
    what = (labels, *rows, damping, chunk, tuple(layers))
    key = sharing.key(model, calibration, what, generator, masks)
    curvatures = sharing.find(key) if key else None
    ready = curvatures is not None
    if not ready:
        gone = {
            name: ~L.flat(module, masks[f"{name}.weight"])
            for name, module in layers.items()
            if masks is not None and f"{name}.weight" in masks
        }
        curvatures = list(
            _estimate(model, layers, calibration, rows, labels, damping, chunk, generator, gone)
        )
        if key:
            sharing.keep(key, curvatures)
    if chunk == NETWORK:
        return [Part(layers, curvatures[0], ready, rows[1])]
    return [
        Part({name: module}, curvature, ready, rows[1])
        for (name, module), curvature in zip(layers.items(), curvatures, strict=True)
    ]


def notes(parts: list[Part]) -> list[str]:
    """What a record says of an estimate: its rows, the layers without any gradient, and whether it
    was shared.
    """
    m, b = parts[0].curvature.count, parts[0].b
    rows = (
        f"the Fisher has m = {m:,} rows, each the mean gradient of b = {b:,} example{'s' * (b > 1)}"
    )
    without = [
        name
        for part in parts
        if len(part.layers) == 1 and silent(part.curvature.rows)
        for name in part.layers
    ]
    return [
        rows,
        *(f"{name}: all gradients are zero; its weights score λw²/2" for name in without),
        *[sharing.NOTE] * parts[0].shared,
    ]


def _estimate(
    model: nn.Module,
    layers: dict[str, nn.Module],
    calibration: Iterable,
    rows: tuple[int, int],
    labels: str,
    damping: float,
    chunk: int | str | None,
    generator: torch.Generator,
    gone: Mapping[str, Tensor],
) -> Iterator[BlockFisher]:
    """The curvatures of `block_fisher`, in the order of the layers."""
    m, b = rows
    together, out = _room(layers, m, chunk, gone)
    found = gradient_rows(model, calibration, m, b, layers, labels, generator=generator, out=out)
    for name, lost in gone.items():
        if isinstance(found[name], Tensor):  # a file has zeros there already
            found[name][:, lost] = 0
    require_curvature(all(map(silent, found.values())), found)
    if chunk == NETWORK:
        yield BlockFisher(together, damping, name="the whole network")
        return
    for turn, name in enumerate(layers):
        yield BlockFisher(found[name], damping, chunk, name, turn)


def _room(
    layers: dict[str, nn.Module], m: int, chunk: int | str | None, gone: Mapping[str, Tensor]
) -> tuple[Rows | None, dict[str, Rows]]:
    """(rows over all layers where they are one block, each layer's rows), to be filled: in memory
    if the budget holds them, else on disk. UserError where it does not even hold the work on
    them."""
    like = next(iter(layers.values())).weight.detach()
    sizes = {name: module.weight.numel() for name, module in layers.items()}
    rows, work = (
        m * sum(sizes.values()) * like.element_size() / 2**30,
        rows_work(sizes.values(), m, chunk) / 2**30,
    )
    what = f"{m} gradient rows and the work on them"
    if distributed.world() > 1:
        machine.require_memory(
            what, rows + work, "lower --num-samples, or run one process, which has a disk for them"
        )
    if not machine.fits(what, rows + work):
        machine.require_memory(
            f"the work on {m} gradient rows, with {rows:.1f} GB of them on disk",
            work,
            "raise --memory-budget, or leave layers out with skip",
        )
        from common.curvature.spool import spooled

        return spooled(layers, m, gone)
    if chunk != NETWORK:
        return None, {name: like.new_empty(m, size) for name, size in sizes.items()}
    together = like.new_empty(m, sum(sizes.values()))
    return together, dict(zip(layers, together.split(list(sizes.values()), 1), strict=True))
