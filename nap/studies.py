"""What NAP shows that is not a cell: Fig. 4 and Figs. 2 and 3 (weights and importance), Fig. 7
(channels that survive), latency, and the ImageNet networks' whole pruning path.

    python -m nap.studies importance [--cell lenet5-200x-nap-seed0]
    python -m nap.studies survivors
    python -m nap.studies latency [--cell resnet20-]
    python -m nap.studies imagenet --model vgg16 --data-dir <folder with train/>
        [--output-dir runs/nap/studies]

Each writes one record; the numbers are in its trajectory. All but imagenet read networks that
`nap.finetune` has left below runs/; ImageNet networks have random weights, so that no accuracy is
claimed of them.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch

from common.cells.errors import Parser, UserError, choose
from common.cells.record import Record
from common.cells.spec import Spec
from common.curvature.kron import kron_factors
from common.nets import checkpoint, latency, models
from common.nets import layers as L
from common.nets.flops import costs
from common.running import pipeline
from common.running.cli import guarded
from common.running.timing import Timer
from common.system import machine
from nap import channels
from nap.experiments import TABLES
from nap.method import Options, importance, inverse_fisher, normalised

log = logging.getLogger(__name__)
POINTS, BINS = 60, 41  # of a layer in Fig. 4; of its histogram in Figs. 2 and 3
# speed-up wanted, layers that stay
IMAGENET = {"vgg16": (5.4, ("classifier.0", "classifier.3")), "resnet50": (2.3, ())}


def weights(spec: Spec, timer: Timer) -> list[dict]:
    """|w| and ΔL of every layer's remaining weights, before and after the cell's run: a draw of
    points, a histogram of w, and how much of each layer a cut at the median over all layers would
    take, by |w| and by importance (App. A)."""
    data, rows = pipeline.data_of(spec), []
    options = Options(**{k: v for k, v in dict(spec.options).items() if k in ("damping", "fisher")})
    for moment, path in (
        ("early", pipeline.dense_folder(spec) / "model.safetensors"),
        ("late", pipeline.cell_folder(spec) / "finetuned.safetensors"),
    ):
        loaded = checkpoint.load(_there(path))
        layers = L.prunable(loaded.model)
        with timer.phase("statistics"):
            factors = kron_factors(
                loaded.model,
                data.calibration(1_000, 100),
                layers,
                bias=True,
                generator=torch.Generator().manual_seed(0),
            )
        W, F = L.finite_weights(layers), inverse_fisher(factors, options)
        seen = {}
        for name, module in layers.items():
            kept = L.to_matrix(
                module,
                loaded.masks.get(
                    f"{name}.weight", torch.ones_like(module.weight, dtype=torch.bool)
                ),
            )
            width = kept.shape[-1]
            score = normalised(importance(W[name], F[name])[..., :width], kept)
            seen[name] = W[name][..., :width][kept], score[kept]
        medians = [
            float(torch.cat([value.abs() for value in values]).median())
            for values in zip(*seen.values(), strict=True)
        ]
        for name, (w, score) in seen.items():
            drawn = torch.randperm(len(w), generator=torch.Generator().manual_seed(0))[:POINTS]
            reach = float(w.abs().max())
            rows.append(
                {
                    "moment": moment,
                    "name": name,
                    "left": len(w),
                    "reach": _short(reach),
                    "below_median_magnitude": _short((w.abs() < medians[0]).double().mean()),
                    "below_median_importance": _short((score < medians[1]).double().mean()),
                    "magnitude": [_short(v, 3) for v in w.abs()[drawn].tolist()],
                    "importance": [_short(v, 3) for v in score[drawn].tolist()],
                    "histogram": torch.histc(w, BINS, -reach, reach).int().tolist(),
                }
            )
    return rows


def survivors(specs: list[Spec]) -> list[dict]:
    """Fig. 7: of every channel of every layer, in how many of the runs it survives. All runs start
    from the same dense network.
    """
    counts: dict[str, torch.Tensor] = {}
    runs = [
        checkpoint.load(path)
        for spec in specs
        if (path := pipeline.cell_folder(spec) / "pruned.safetensors").exists()
    ]
    if not runs:
        raise UserError(
            "results",
            "table 5",
            "no run has left a network",
            "run python -m nap.prune --table 5 --scale cpu",
        )
    for run in runs:
        dense = models.build(
            run.architecture["model"],
            run.architecture["classes"],
            tuple(run.architecture["input_shape"]),
            0,
        )
        left = {
            name: torch.arange(len(module.weight)) for name, module in L.prunable(dense).items()
        }
        for edit in run.edits:
            if edit["axis"] == "out" and edit["module"] in left:
                left[edit["module"]] = left[edit["module"]][edit["keep"]]
        for name, kept in left.items():
            total = counts.setdefault(
                name, torch.zeros(len(dense.get_submodule(name).weight), dtype=torch.int64)
            )
            total[kept] += 1
    return [
        {"name": name, "survives": total.tolist(), "runs": len(runs)}
        for name, total in counts.items()
    ]


def latencies(specs: list[Spec], timer: Timer, batch: int = 64) -> list[dict]:
    """Seconds of one forward pass of `batch` images, each pruned network beside its dense one, and
    MACs beside them.
    """
    rows = []
    for spec in specs:
        path = pipeline.cell_folder(spec) / "finetuned.safetensors"
        if not path.exists():
            continue
        dense, pruned = (
            checkpoint.load(p).model.eval()
            for p in (pipeline.dense_folder(spec) / "model.safetensors", path)
        )
        shape = pipeline.data_of(spec).input_shape
        with timer.phase("latency"):
            seconds = latency.medians(
                {"dense": dense, "pruned": pruned}, torch.randn(batch, *shape), rounds=15
            )
        macs = costs(dense, shape).macs, costs(pruned, shape).macs
        rows.append(
            {
                "name": spec.cell,
                "speedup_macs": _short(macs[0] / macs[1]),
                "dense_s": _short(seconds["dense"]),
                "pruned_s": _short(seconds["pruned"]),
                "batch": batch,
                "speedup_latency": _short(seconds["dense"] / seconds["pruned"]),
            }
        )
    if not rows:
        raise UserError(
            "results",
            "table 1",
            "no run has left a network",
            "run python -m nap.finetune --table 1 --scale cpu",
        )
    return rows


def imagenet(
    model_name: str, data_dir: str, timer: Timer, ratio: float = 0.2, examples: int = 2
) -> list[dict]:
    """Prune channels at 224 pixels until the paper's speed-up: one row a step. Random weights."""
    wanted, skip = IMAGENET[choose("model", model_name, IMAGENET)]
    data = pipeline.data_of(Spec(paper="nap", dataset="imagenet", data_dir=data_dir))
    model = models.build(model_name, data.classes, data.input_shape, 0).eval()
    whole, options, rows = (
        costs(model, data.input_shape).macs,
        channels.Options(skip=skip, batch_size=2),
        [],
    )
    while not rows or rows[-1]["speedup"] < wanted:
        with timer.phase("prune"):
            generator = torch.Generator().manual_seed(len(rows))
            result = channels.prune(model, data.calibration(examples, 2), ratio, options, generator)
        model = result.model
        layers = {name: module for name, module in L.prunable(model).items() if name not in skip}
        rows.append(
            {
                "step": len(rows),
                "speedup": round(whole / costs(model, data.input_shape).macs, 4),
                "channels": sum(len(module.weight) for module in layers.values()),
                "predicted_increase": _short(result.predicted_increase),
            }
        )
        log.info("%s", rows[-1])
    rows[-1]["widths"] = {name: len(module.weight) for name, module in layers.items()}
    return rows


def _there(path: Path) -> Path:
    if not path.exists():
        raise UserError(
            "results",
            path.parent.parent.name,
            "its run has left no network here",
            "run python -m nap.finetune --table 3 first",
        )
    return path


def _short(value: object, digits: int = 5) -> float:
    return float(f"{float(value):.{digits}g}")


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    p = Parser(description=__doc__)
    p.add_argument(
        "study", choices=("importance", "survivors", "latency", "imagenet"), help="what to measure"
    )
    p.add_argument(
        "--cell",
        default="",
        help="only cells whose name contains this (importance: one cell of table 3)",
    )
    p.add_argument(
        "--model", default="vgg16", help="of imagenet: vgg16 or resnet50 (default: vgg16)"
    )
    p.add_argument(
        "--data-dir", default="", help="data root (default: $DATA_DIR, ./data, or ../data)"
    )
    p.add_argument(
        "--runs", default="runs", help="where nap.finetune has left its networks (default: runs)"
    )
    p.add_argument(
        "--output-dir",
        type=Path,
        default=Path("runs/nap/studies"),
        help="where the record goes (default: runs/nap/studies)",
    )
    return guarded(lambda: _study(p.parse_args(argv)))


def _study(a: argparse.Namespace) -> None:
    timer, cell, name = Timer(), a.cell, a.study
    place = {"output_dir": a.runs, "data_dir": a.data_dir}
    if a.study == "importance":
        cell = a.cell or "lenet5-200x-nap-seed0"
        spec = TABLES["3"][choose("cell", cell, TABLES["3"])].but(**place)
        rows, name = weights(spec, timer), f"{spec.model}-importance"
    elif a.study == "survivors":
        rows = survivors(
            [
                s.but(**place)
                for s in TABLES["5"].values()
                if s.scale == "cpu"
                and a.cell in s.cell
                # five settings, not ten
                and s.cell.endswith("-every-step") == a.cell.endswith("-every-step")
            ]
        )
    elif a.study == "latency":
        rows = latencies(
            [s.but(**place) for s in TABLES["1"].values() if s.scale == "cpu" and a.cell in s.cell],
            timer,
        )
    else:
        rows, name = imagenet(a.model, a.data_dir, timer), f"{a.model}-imagenet-path"
    record = Record(
        name,
        "nap",
        "studies",
        name,
        "nap" if a.study == "importance" else "nap-channel",
        "study",
        "cpu",
        Spec(paper="nap", cell=name).to_dict(),
        trajectory=rows,
        timing=timer.report(),
        provenance=machine.provenance(torch.device("cpu"), 0, ""),
    )
    record.write(a.output_dir / f"{name}.json")
    log.info("%s", a.output_dir / f"{name}.json")


if __name__ == "__main__":
    sys.exit(main())
