"""Which Fisher: gradient rows of chosen layers, cut into the blocks that are inverted (WoodFisher
Secs. 2, 3.2, 5.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from common.cells.errors import UserError, choose
from common.cells.registry import OPEN_ROWS
from common.curvature.blocks import BlockFisher, Rows
from common.curvature.labels import require_curvature
from common.curvature.rows import gradient_rows
from common.curvature.spool import spooled, work_bytes
from common.nets import layers as L
from common.pruning.obs import Curvature
from common.system import distributed, machine
from woodfisher import sharing

NETWORK = "network"


@dataclass(frozen=True)
class FisherOptions:
    """How the Fisher is estimated and inverted. Of m and b, what is left open follows from the
    calibration data.
    """

    fisher: str = "empirical"  # true labels (Sec. 2); "sampled" is Table 8's other column
    # b, examples averaged into a row: 1 or 50 for ResNet-20, 100 to 2400 on ImageNet (Table S1)
    fisher_batch_size: int | None = None
    # m, outer products: 1,000 for ResNet-20 (Sec. 5.1), "typically between 100 to 400" (Sec. 3.2)
    num_rows: int | None = None
    damping: float = 1e-5  # λ, "set to 1e-5 in all the experiments" (S1.2)
    # None: a block a layer (Fig. 3a); 1,000 to 10,000 on ImageNet. Ours: "network", one block over
    # all
    chunk: int | str | None = None
    skip: tuple[str, ...] = ()  # layers left dense

    def __post_init__(self):
        choose("fisher", self.fisher, ("empirical", "sampled"))
        if not self.damping > 0:
            raise UserError("damping", self.damping, "must be positive", "the paper's is 1e-5")
        for name in ("fisher_batch_size", "num_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(name, value, "must be at least 1")
        if isinstance(self.chunk, str):
            choose("chunk", self.chunk, (NETWORK,))
        elif self.chunk is not None and self.chunk < 1:
            raise UserError(
                "chunk",
                self.chunk,
                "must be at least 1",
                f"give a block size, {NETWORK!r}, or nothing for a block a layer",
            )


@dataclass
class Part:
    """A curvature and the layers whose flattened weights, one after the other, it is over."""

    layers: dict[str, nn.Module]
    curvature: Curvature
    shared: bool = False  # the curvature was ready (sharing.py)
    b: int = 1  # examples averaged into each of its rows

    def flat(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Tensors by layer name as this part's flat vector [d]."""
        return torch.cat([tensors[name].flatten() for name in self.layers])

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """The inverse of `flat`: tensors by layer name, weight-shaped."""
        pieces = vector.split([module.weight.numel() for module in self.layers.values()])
        return {
            name: piece.reshape(module.weight.shape)
            for (name, module), piece in zip(self.layers.items(), pieces, strict=True)
        }


def count(calibration: Iterable) -> int:
    """Number of examples in the loader; a DataLoader is asked, anything else is gone through."""
    batches = getattr(calibration, "batch_sampler", None)
    return sum(map(len, batches if batches is not None else (y for _, y in calibration)))


def rows_of(calibration: Iterable, options: FisherOptions) -> tuple[int, int]:
    """(m, b): as the options say, else all the data in OPEN_ROWS rows, the least that Sec. 3.2
    calls typical.

    Raises UserError where the data is too little."""
    examples, m, b = count(calibration), options.num_rows, options.fisher_batch_size
    if m is None:
        m = min(OPEN_ROWS, examples) if b is None else examples // b
    b = b or max(1, examples // max(m, 1))
    if m < 1 or m * b > examples:
        raise UserError(
            "num_rows" if options.num_rows else "fisher_batch_size",
            options.num_rows or b,
            f"{max(m, 1)} rows of {b} examples take {max(m, 1) * b}, the calibration data has "
            f"{examples}",
            "raise --num-samples, or lower --fisher-batch-size or num_rows",
        )
    return m, b


def fisher_parts(
    model: nn.Module,
    calibration: Iterable,
    options: FisherOptions,
    generator: torch.Generator,
    masks: Mapping[str, Tensor] | None = None,
) -> list[Part]:
    """F̂ = λI + (1/m) Σ ∇∇ᵀ (Eq. 1) of every layer, or of all layers together; rows of weights that
    `masks` removed are zero.

    Raises UserError for too little data, NumericalError for gradients that are not finite or all
    zero.
    """
    layers = L.prunable(model, options.skip)
    chosen = FisherOptions(**{f.name: getattr(options, f.name) for f in fields(FisherOptions)})
    key = sharing.key(model, calibration, chosen, generator, masks)
    curvatures = sharing.find(key) if key else None
    ready = curvatures is not None
    if not ready:
        curvatures = _estimate(model, layers, calibration, chosen, generator, masks)
        if key:
            sharing.keep(key, curvatures)
    b = rows_of(calibration, chosen)[1]
    if options.chunk == NETWORK:
        return [Part(layers, curvatures[0], ready, b)]
    return [
        Part({name: module}, curvature, ready, b)
        for (name, module), curvature in zip(layers.items(), curvatures, strict=True)
    ]


def _estimate(
    model: nn.Module,
    layers: dict[str, nn.Module],
    calibration: Iterable,
    options: FisherOptions,
    generator: torch.Generator,
    masks: Mapping[str, Tensor] | None,
) -> list[BlockFisher]:
    """The curvatures of `fisher_parts`, in the order of the layers."""
    m, b = rows_of(calibration, options)
    gone = {
        name: ~masks[f"{name}.weight"].flatten()
        for name in layers
        if masks is not None and f"{name}.weight" in masks
    }
    together, out = _room(layers, m, options.chunk, gone)
    rows = gradient_rows(
        model, calibration, m, b, layers, options.fisher, generator=generator, out=out
    )
    for name, lost in gone.items():
        if isinstance(rows[name], Tensor):  # a file has zeros there already
            rows[name][:, lost] = 0
    require_curvature(not any(part.any() for part in rows.values()), rows)
    if options.chunk == NETWORK:
        return [BlockFisher(together, options.damping, name="the whole network")]
    return [
        BlockFisher(rows[name], options.damping, options.chunk, name, turn)
        for turn, name in enumerate(layers)
    ]


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
        work_bytes(sizes.values(), m, chunk) / 2**30,
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
        return spooled(layers, m, gone)
    if chunk != NETWORK:
        return None, {name: like.new_empty(m, size) for name, size in sizes.items()}
    together = like.new_empty(m, sum(sizes.values()))
    return together, dict(zip(layers, together.split(list(sizes.values()), 1), strict=True))
