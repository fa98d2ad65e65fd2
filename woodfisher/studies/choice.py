"""What decides whether WoodFisher chooses otherwise than magnitude: the rows m of b images and the
chunk c.

    python -m woodfisher.studies choice --model resnet20

An entry a setting and amount, accuracies right after pruning. `overlap` is the share of the kept
weights that global magnitude keeps too, intersection over union.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn

from common.cells.jobs import job_of
from common.cells.spec import Spec
from common.curvature.blocks import BlockFisher
from common.curvature.rows import gradient_rows
from common.data import sources as D
from common.running import study
from common.running.timing import Timer
from woodfisher.studies.parts import DAMPING, Entry, accuracy, magnitude, pruned, shared

ROWS = ((100, 10), (400, 10), (1000, 1))  # (m, b)
CHUNKS = (None, 2000, 100)  # None: a block a layer
# amounts at which accuracy is measured too; ResNet-20's test takes as long as its Fisher
JUDGED, SLOW = (0.7, 0.8, 0.9), {"resnet20": (0.8,)}


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
    level = {amount: accuracy(rivals[amount][0], test) for amount in rivals if amount in judged}
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
                    {"accuracy": accuracy(network, test), "magnitude": level[amount]}
                    if amount in judged
                    else {}
                )


def choice(spec: Spec, timer: Timer) -> Iterator[Entry]:
    """`choices` on a dense network of the comparison."""
    model, data = study.dense(spec)
    job = job_of(spec.dataset, spec.model)
    with timer.phase("study"):
        yield from choices(model, data, job.sparsities, SLOW.get(spec.model, JUDGED), spec.seed)
