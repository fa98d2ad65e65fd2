"""Tables S6-S8: what the paper's per-layer sparsities cost, by this repository's counter.

python -m woodfisher.cost_tables     writes results/cost_tables.json
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from common.cells.errors import Parser
from common.cells.record import write_json
from common.nets import models
from common.nets.flops import Costs, costs
from common.nets.layers import prunable
from common.running.cli import guarded

FOLDER = Path(__file__).resolve().parents[1]
NETWORKS = {"ResNet-50": "resnet50", "MobileNetV1": "mobilenet_v1"}
IMAGE = (3, 224, 224)
log = logging.getLogger(__name__)


def profiles() -> Iterator[tuple[dict, list[float]]]:
    """(what it is of, fraction removed a layer in the network's order) for each column of Tables
    S6, S7 and S8.
    """
    columns: dict[tuple, dict[int, float]] = {}
    with (FOLDER / "paper_values.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if (
                row["table"] in ("Table S6", "Table S7", "Table S8")
                and row["quantity"] == "sparsity_pct"
            ):
                place = int(row["layer"].split()[0])
                if place:  # 0 is the whole network
                    key = (
                        row["table"].removeprefix("Table "),
                        row["model"],
                        row["method"],
                        row["setting"],
                        row["sparsity_pct"],
                    )
                    columns.setdefault(key, {})[place] = float(row["value"]) / 100
    for key, column in columns.items():
        yield (
            dict(zip(("table", "model", "method", "setting", "target_pct"), key, strict=True)),
            [column[i] for i in sorted(column)],
        )


def masks_of(model: nn.Module, removed: list[float]) -> dict[str, Tensor]:
    """Masks that keep round((1 − removed) · n) weights of each layer, in definition order."""
    masks = {}
    for (name, module), fraction in zip(prunable(model).items(), removed, strict=True):
        total = module.weight.numel()
        masks[f"{name}.weight"] = (torch.arange(total) >= round(fraction * total)).reshape(
            module.weight.shape
        )
    return masks


def cost(model_name: str, removed: list[float]) -> Costs:
    """The counter's answer, on the meta device: no weight is made."""
    with torch.device("meta"):
        model = models.build(NETWORKS[model_name], 1000, IMAGE, 0)
    return costs(model, IMAGE, masks_of(model, removed))


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    Parser(description=__doc__).parse_args(argv)
    return guarded(write)


def write() -> None:
    """Every column's cost."""
    rows = []
    for what, removed in profiles():
        found = cost(what["model"], removed)
        rows.append(
            what
            | {
                "sparsity": 1 - found.kept_params / found.params,
                "kept_params": found.kept_params,
                "kept_macs": found.nonzero_macs,
                "dense_macs": found.macs,
            }
        )
        log.info("%(table)s %(model)s %(method)s %(setting)s", what)
        log.info(
            "    %.2f%% of the weights gone, %.1f M MACs",
            100 * rows[-1]["sparsity"],
            found.nonzero_macs / 1e6,
        )
    write_json(FOLDER / "results" / "cost_tables.json", rows)
