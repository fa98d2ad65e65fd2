"""Fig. 2: the training loss along one layer's pruning direction, measured and as the local
quadratic model has it.

The first-order term is left out, as in the paper: L(w + tδ) ≈ L(w) + ½ t² δᵀF̂δ.

    python -m woodfisher.local_quadratic     ResNet-20, three layers to 50%; writes
                                             results/local_quadratic.json
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from common.cells.errors import Parser
from common.cells.record import Record, write_json
from common.data import sources as D
from common.nets import checkpoint
from common.nets import layers as L
from common.running import pipeline
from common.running import train as T
from common.running.cli import guarded
from woodfisher.cells.networks import R20
from woodfisher.method import Options, prune

FOLDER = Path(__file__).resolve().parents[1]
# one a stage; the paper's three are not named
LAYERS = ("layer1.0.conv1", "layer2.1.conv1", "layer3.2.conv2")
GRID = tuple(i / 4 for i in range(-2, 5))
EXAMPLES = 1000
log = logging.getLogger(__name__)


def line(
    model: nn.Module,
    layer: str,
    calibration: Iterable,
    examples: Iterable[tuple[Tensor, Tensor]],
    amount: float = 0.5,
    grid: Sequence[float] = GRID,
    options: Options | None = None,
) -> list[dict]:
    """[{t, measured, predicted}]: mean loss over `examples` in evaluation mode at w + tδ, where δ
    prunes `layer` to `amount` and ends with the pruned weights at exactly zero (t = 1). The model
    is left as it was."""
    others = tuple(name for name in L.prunable(model) if name != layer)
    options = options or Options(fisher_batch_size=1, skip=others)
    pruned = prune(model, calibration, amount, options, torch.Generator().manual_seed(0))
    weight = model.get_parameter(f"{layer}.weight")
    start = weight.detach().clone()
    delta = pruned.model.get_parameter(f"{layer}.weight").detach() - start
    dense, _ = T.evaluate(model, examples)
    points = []
    try:
        for t in grid:
            with torch.no_grad():
                weight.copy_(start + t * delta)
            points.append(
                {
                    "t": t,
                    "measured": T.evaluate(model, examples)[0],
                    "predicted": dense + t * t * pruned.predicted_increase,
                }
            )
    finally:
        with torch.no_grad():
            weight.copy_(start)
    return points


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    Parser(description=__doc__).parse_args(argv)
    return guarded(write)


def write() -> None:
    """The three lines of Fig. 2 on the dense network of the ResNet-20 cells."""
    dense: Record = pipeline.train(R20)
    model = checkpoint.load(pipeline.dense_folder(R20) / "model.safetensors").model
    data = D.load(R20.dataset)
    result = {
        "model": R20.model,
        "dataset": R20.dataset,
        "dense_hash": dense.dense_hash,
        "amount": 0.5,
        "rows": EXAMPLES,
        "examples": EXAMPLES,
        "lines": {},
    }
    for layer in LAYERS:
        result["lines"][layer] = line(
            model, layer, data.calibration(EXAMPLES), data.calibration(EXAMPLES, batch_size=250)
        )
        end = result["lines"][layer][-1]
        log.info(
            "%s at t = 1: measured %.4f, predicted %.4f", layer, end["measured"], end["predicted"]
        )
    write_json(FOLDER / "results" / "local_quadratic.json", result)
