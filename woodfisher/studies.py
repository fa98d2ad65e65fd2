"""Experiments that are no (prune, fine-tune) cell: what decides whether WoodFisher chooses
otherwise than magnitude.

    python -m woodfisher.studies choice --model resnet20     rows m of b images and chunks c, beside
                                                             global magnitude
    python -m woodfisher.studies gradients --seed 0          which images, labels and lengths of
                                                             gradients, LeNet-300-100

Each writes one record, stage "study", <study>-<network>-seed<k>.json: an entry a setting and
amount, accuracies right after pruning. `overlap` is the share of the kept weights that global
magnitude keeps too, intersection over union. Neither is a pruning report: `gradients` estimates one
of its Fishers from test images, and measures all accuracies on the other half of them.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from common.cells.errors import Parser, choose, whole
from common.cells.jobs import JOBS, job_of
from common.cells.record import Record
from common.cells.spec import Recipe, Spec
from common.commands.agreement import overlap
from common.curvature.blocks import BlockFisher
from common.curvature.fisher import Part
from common.curvature.rows import gradient_rows
from common.data import sources as D
from common.data.images import Loader
from common.nets import checkpoint, models
from common.nets import layers as L
from common.nets import masks as M
from common.nets.clone import clone
from common.pruning import baselines
from common.running import pipeline
from common.running import train as T
from common.running.cli import guarded
from common.running.timing import Timer
from common.system import machine
from woodfisher.surgeon import selection, statistic, step

DAMPING = 1e-5  # Sec. S1.2
ROWS = ((100, 10), (400, 10), (1000, 1))  # (m, b)
CHUNKS = (None, 2000, 100)  # None: a block a layer
# amounts of `choice` at which accuracy is measured too; ResNet-20's test takes as long as its
# Fisher
JUDGED, SLOW = (0.7, 0.8, 0.9), {"resnet20": (0.8,)}
# `gradients`: m = 1,000 rows of one image; blocks of 500 have more rows than weights
MANY, FULL_RANK, AMOUNTS = 1000, 500, (0.9, 0.95)
EPOCHS = (0.25, 1.0, 4.0, 16.0)  # of the networks trained here, a constant rate
YOUNG = Recipe(lr=0.05, batch_size=128)
Batches = Iterable[tuple[Tensor, Tensor]]
Entry = dict[str, object]
log = logging.getLogger(__name__)


# -- what both measure -----------------------------------------------------------------------------


def pruned(
    model: nn.Module, curvatures: Mapping[str, BlockFisher], amount: float, update: str = "diagonal"
) -> tuple[nn.Module, M.Masks]:
    """A copy of `model` pruned by joint WoodFisher from ready curvatures by layer, and its
    masks.
    """
    result = clone(model)
    parts = [Part({name: module}, curvatures[name]) for name, module in L.prunable(result).items()]
    rho = statistic(parts)
    masks = selection(rho, amount, "global")
    step(result, parts, masks, rho, update)
    return result, masks


def magnitude(model: nn.Module, amount: float) -> tuple[nn.Module, M.Masks]:
    """Global magnitude pruning of a copy."""
    result = baselines.magnitude(model, [], amount, baselines.ScopeOptions(), torch.Generator())
    return result.model, result.masks


def shared(one: M.Masks, other: M.Masks) -> float:
    """Intersection over union of the weights that two sets of masks keep."""
    return overlap(
        *(torch.cat([masks[name].flatten() for name in sorted(one)]) for masks in (one, other))
    )


def lengths(rows: Mapping[str, Tensor]) -> Tensor:
    """Squared length of every gradient row over all layers, [m], float64."""
    return sum(part.double().square().sum(1) for part in rows.values())


def effective(squares: Tensor) -> float:
    """How many rows of one length would weigh as much: (Σ |g|²)² / Σ |g|⁴, m for rows of one
    length, 1 where one has it all.
    """
    return float(squares.sum().square() / squares.square().sum())


def _accuracy(model: nn.Module, test: Batches) -> float:
    return round(T.evaluate(model, test)[1], 5)


# -- choice ----------------------------------------------------------------------------------------


def choices(
    model: nn.Module,
    data: D.Data,
    amounts: Iterable[float],
    judged: Iterable[float],
    seed: int = 0,
    rows: Iterable[tuple[int, int]] = ROWS,
    chunks: Iterable[int | None] = CHUNKS,
) -> Iterator[Entry]:
    """For each m, b and c and each amount: overlap with global magnitude, and at `judged` amounts
    both accuracies. Where the data has fewer than m · b images, b is what it has for m rows."""
    test, judged = list(data.test_loader()), set(judged)
    rivals = {amount: magnitude(model, amount) for amount in amounts}
    level = {amount: _accuracy(rivals[amount][0], test) for amount in rivals if amount in judged}
    for m, b in rows:
        b = max(1, min(b, len(data.train) // m))
        G = gradient_rows(model, data.calibration(m * b, seed=seed * 1_000), m, b)
        for chunk in chunks:
            curvatures = {name: BlockFisher(part, DAMPING, chunk, name) for name, part in G.items()}
            for amount, (_, kept) in rivals.items():
                network, masks = pruned(model, curvatures, amount)
                entry = {
                    "m": m,
                    "b": b,
                    "chunk": chunk or "layer",
                    "amount": amount,
                    "overlap": round(shared(masks, kept), 5),
                }
                yield entry | (
                    {"accuracy": _accuracy(network, test), "magnitude": level[amount]}
                    if amount in judged
                    else {}
                )


def choice(spec: Spec, timer: Timer) -> Iterator[Entry]:
    """`choices` on a dense network of the comparison."""
    model, data = _dense(spec)
    job = job_of(spec.dataset, spec.model)
    with timer.phase("study"):
        yield from choices(model, data, job.sparsities, SLOW.get(spec.model, JUDGED), spec.seed)


# -- gradients -------------------------------------------------------------------------------------


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
            "accuracy": _accuracy(network, test),
            "choice": _accuracy(alone, test),
            "magnitude": _accuracy(rival, test),
        }


def gradients(spec: Spec, timer: Timer) -> Iterator[Entry]:
    """The comparison's LeNet-300-100 with other rows; then networks in the course of their training
    with the plain ones.
    """
    model, data = _dense(spec)
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
                    "dense": _accuracy(young, test),
                } | entry


# -- records ---------------------------------------------------------------------------------------


def spec_of(name: str, model: str, seed: int) -> Spec:
    """The dense network of the comparison that has this network, under the study's own name."""
    dataset = {network: data for data, network in JOBS}[
        choose("model", model, [network for _, network in JOBS])
    ]
    job = job_of(dataset, model)
    full = f"{dataset}:{job.dataset_options}" if job.dataset_options else dataset
    return Spec(
        paper="woodfisher",
        table=name,
        cell=f"{name}-{model}-seed{seed}",
        scale=job.scale,
        model=model,
        dataset=full,
        train=job.train,
        checkpoint=job.checkpoint,
        method="woodfisher",
        damping=DAMPING,
        seed=seed,
    )


def _dense(spec: Spec) -> tuple[nn.Module, D.Data]:
    pipeline.train(spec)
    return checkpoint.load(pipeline.dense_folder(spec) / "model.safetensors").model.eval(), D.load(
        spec.dataset, spec.data_dir
    )


STUDIES: dict[str, tuple[Callable[[Spec, Timer], Iterator[Entry]], str]] = {
    "choice": (choice, "resnet20"),
    "gradients": (gradients, "lenet300"),
}


def study(name: str, spec: Spec, output: Path) -> Record:
    """Run one study and write its record."""
    timer, entries = Timer(), []
    for entry in STUDIES[name][0](spec, timer):
        entries.append(entry)
        log.info(", ".join(f"{key} {value}" for key, value in entry.items()))
    told = spec.but(data_dir="", output_dir=Spec.output_dir).to_dict()
    data = D.load(spec.dataset, spec.data_dir)
    record = Record(
        f"woodfisher-{spec.cell}",
        spec.paper,
        spec.table,
        spec.cell,
        spec.method,
        "study",
        spec.scale,
        told,
        dense_hash=pipeline.train(spec).dense_hash,
        trajectory=entries,
        timing=timer.report(),
        provenance=machine.provenance(torch.device("cpu"), spec.seed, data.sha256),
    )
    record.write(output / f"{spec.cell}.json")
    return record


def main(argv: list[str] | None = None) -> int:
    """Run a study; returns the exit status."""
    p = Parser(description=__doc__)
    p.add_argument("study", help=", ".join(STUDIES))
    p.add_argument(
        "--model",
        help="a network of the comparison, for choice (default: resnet20); gradients is about "
        "lenet300",
    )
    p.add_argument(
        "--seed",
        type=whole(0),
        default=0,
        help="of the images, labels and young networks (default: 0)",
    )
    p.add_argument(
        "--data-dir", default="", help="data root (default: $DATA_DIR, ./data, or ../data)"
    )
    p.add_argument("--runs", default="runs", help="where dense networks are kept (default: runs)")
    p.add_argument(
        "--output-dir",
        default="runs/woodfisher/studies",
        help="where the record goes (default: runs/woodfisher/studies)",
    )
    arguments = p.parse_args(argv)

    def work() -> None:
        usual = STUDIES[choose("study", arguments.study, STUDIES)][1]
        model = arguments.model or usual
        if arguments.study == "gradients":
            choose("model", model, (usual,))
        spec = spec_of(arguments.study, model, arguments.seed).but(
            data_dir=arguments.data_dir, output_dir=arguments.runs
        )
        log.info("wrote %s", study(arguments.study, spec, Path(arguments.output_dir)).id)

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
