"""Which gradients a Fisher is made of, and what WoodFisher chooses then: other images, labels and
lengths, and networks of other ages.

    python -m woodfisher.studies gradients --seed 0

An entry a setting and amount, accuracies right after pruning on LeNet-300-100. `overlap` is the
share of the kept weights that global magnitude keeps too, intersection over union. This is no
pruning report: one of the Fishers is estimated from test images, so all accuracies are measured on
the other half of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from common.cells.spec import Recipe, Spec
from common.curvature.blocks import BlockFisher
from common.curvature.rows import gradient_rows
from common.data import sources as D
from common.data.images import Loader
from common.nets import models
from common.running import study
from common.running import train as T
from common.running.timing import Timer
from woodfisher.studies.parts import (
    DAMPING,
    Batches,
    Entry,
    accuracy,
    effective,
    lengths,
    magnitude,
    pruned,
    shared,
)

# m = 1,000 rows of one image; blocks of 500 have more rows than weights
MANY, FULL_RANK, AMOUNTS = 1000, 500, (0.9, 0.95)
EPOCHS = (0.25, 1.0, 4.0, 16.0)  # of the networks trained here, a constant rate
YOUNG = Recipe(lr=0.05, batch_size=128)


def sources(
    model: nn.Module, data: D.Data, held_out: Batches, seed: int, many: int = MANY
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(what, rows of `many` single gradients by layer): the same draw of training images with true
    labels, with labels sampled
    from the model, with uniformly drawn ones, and shifted; held-out images; the training images of
      highest loss; and the
    first rows made equally long, the trace of their Fisher kept."""

    def rows(batches: Batches, fisher: str = "empirical") -> dict[str, Tensor]:
        return gradient_rows(
            model, batches, many, 1, fisher=fisher, generator=torch.Generator().manual_seed(seed)
        )

    draw = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed * 1_000))[
        :many
    ]
    plain = Loader(data.train, draw, 250)
    first = rows(plain)
    yield "training images", first
    squares = lengths(first)
    factor = (squares.mean() / squares.clamp_min(1e-60)).sqrt()[:, None]
    yield (
        "rows made equally long",
        {name: (part * factor).to(part.dtype) for name, part in first.items()},
    )
    yield "labels from the model", rows(plain, "sampled")
    generator = torch.Generator().manual_seed(seed)
    yield (
        "labels at random",
        rows([(x, torch.randint(data.classes, y.shape, generator=generator)) for x, y in plain]),
    )
    yield "shifted images", rows(Loader(data.train.augmented(seed), draw, 250))
    yield "held-out images", rows(held_out)
    yield "images of highest loss", rows(Loader(data.train, hardest(model, data, many), 250))


@torch.no_grad()
def hardest(model: nn.Module, data: D.Data, many: int) -> Tensor:
    """Indices of the training images with the highest loss."""
    every = Loader(data.train, torch.arange(len(data.train)), 1000)
    return torch.cat(
        [nn.functional.cross_entropy(model(x), y, reduction="none") for x, y in every]
    ).argsort(descending=True)[:many]


def compared(
    model: nn.Module, rows: Mapping[str, Tensor], test: Batches, chunk: int | None
) -> Iterator[Entry]:
    """An entry an amount: WoodFisher from these rows, its choice alone and global magnitude."""
    squares = lengths(rows)
    told = {
        "effective_rows": float(f"{effective(squares):.4g}"),
        "mean_square": float(f"{squares.mean():.4g}"),
    }
    curvatures = {name: BlockFisher(part, DAMPING, chunk, name) for name, part in rows.items()}
    for amount in AMOUNTS:
        rival, kept = magnitude(model, amount)
        network, masks = pruned(model, curvatures, amount)
        alone, _ = pruned(model, curvatures, amount, "none")
        yield told | {
            "chunk": chunk or "layer",
            "amount": amount,
            "overlap": round(shared(masks, kept), 5),
            "accuracy": accuracy(network, test),
            "choice": accuracy(alone, test),
            "magnitude": accuracy(rival, test),
        }


def gradients(spec: Spec, timer: Timer) -> Iterator[Entry]:
    """The comparison's LeNet-300-100 with other rows; then networks in the course of their training
    with the plain ones.
    """
    model, data = study.dense(spec)
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))
    test = list(Loader(data.test, order[len(order) // 2 :], 500))
    seen = order[: len(order) // 2][
        torch.randperm(len(order) // 2, generator=torch.Generator().manual_seed(spec.seed))[:MANY]
    ]
    with timer.phase("study"):
        for what, rows in sources(model, data, Loader(data.test, seen, 250), spec.seed):
            for chunk in (FULL_RANK, None) if spec.seed == 0 else (FULL_RANK,):
                for entry in compared(model, rows, test, chunk):
                    yield {"rows": what} | entry
        young = models.build(spec.model, data.classes, data.input_shape, spec.seed)
        before = 0.0
        for epochs in EPOCHS:
            T.fit(
                young,
                data,
                dataclasses.replace(YOUNG, epochs=epochs - before),
                seed=spec.seed * 100 + int(epochs),
            )
            before = epochs
            rows = gradient_rows(
                young.eval(), data.calibration(MANY, seed=spec.seed * 1_000), MANY, 1
            )
            for entry in compared(young, rows, test, FULL_RANK):
                yield {
                    "rows": f"after {epochs:g} epoch{'s' * (epochs != 1)}",
                    "dense": accuracy(young, test),
                } | entry
