"""The papers' printed numbers, and which of our cells or files stand beside each.

<paper>/paper_values.csv has one number a line. Its columns:

    table      as the paper calls it: Table 1, Table S2, Figure 5a, Example 1; `text` for numbers of
               the running text
    model, dataset, method   the row, in the paper's words; method may be a quoted one
    quantity   what the number is; the suffix is its unit: _pct percent, _x factor, _m millions, _ms
               milliseconds
    value      the number, empty where the paper prints none
    cells      what of ours stands beside it, empty where nothing does (below)
    note       where the number stands, or what is odd about it
    any other  part of the row's setting, called by the column's heading: kept_pct, sparsity_pct,
               layer, ...

`cells` holds patterns apart by `|`. A pattern names cells of <paper>/experiments.py, shell
wildcards allowed, in the row's own table (lenet300-8.4-l-obs) or in another (Figure
3a/woodfisher-0.7-seed*). A pattern with `.json` reads a number of a study's record, or of another
committed file: `lenet300-net-trim.json?method=l-obs&kept=0.074#error*100` is the field `error`,
times 100, of the one entry so described; a description that fits several is an error. `A~B` is the
lead of the cells A over the cells B of the same table, seed by seed.
"""

from __future__ import annotations

import csv
import functools
import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from common.cells.errors import UserError
from common.cells.library import of_cell

ROOT = Path(__file__).resolve().parent.parent
PAPERS = {"eigendamage": "EigenDamage", "lobs": "L-OBS", "nap": "NAP", "woodfisher": "WoodFisher"}
FIXED = ("table", "model", "dataset", "method", "quantity", "value", "cells", "note")
NEEDED = FIXED[:6]
NAMES = {  # of quantities, as a heading; those not here are called by their own name
    "orig_err_top1_pct": "dense error, %",
    "orig_err_top5_pct": "dense top-5 error, %",
    "err_after_pruning_top1_pct": "error after pruning, %",
    "err_after_pruning_top5_pct": "top-5 error after pruning, %",
    "retrained_err_top1_pct": "error retrained, %",
    "retrained_err_top5_pct": "top-5 error retrained, %",
    "retrain_iterations": "iterations of retraining",
    "pruned_err_pct": "error after pruning, %",
    "xi_r": "relative error of the layer",
    "top1_dense_pct": "dense accuracy, %",
    "top1_pruned_pct": "accuracy pruned, %",
    "top1_pruned_std": "its deviation",
    "relative_drop_pct": "relative drop, %",
    "remaining_params_m": "weights left, M",
    "flops_m": "MACs, M",
    "top5_pct": "top-5, %",
    "test_acc_pct": "test accuracy, %",
    "test_acc_std": "its deviation",
    "weights_reduction_pct": "weights removed, %",
    "weights_reduction_std": "its deviation",
    "flops_reduction_pct": "FLOPs removed, %",
    "flops_reduction_std": "its deviation",
    "delta_top1_err_pct": "top-1 error, points more",
    "delta_top5_err_pct": "top-5 error, points more",
    "delta_err_pct": "error, points more",
    "compression_ratio_x": "compression",
    "speedup_x": "speed-up by FLOPs",
    "remaining_pct": "kept, %",
    "sparsity_pct": "removed, %",
    "dense_params": "weights",
}


# the papers' networks -> ours that are the same, options of training such as dropout among them
MODELS = {
    "LeNet-300-100": ("lenet300",),
    "LeNet-300-100 (second layer only)": ("lenet300",),
    "LeNet-5": ("lenet5",),
    "CIFAR-Net": ("cifarnet", "cifarnet:dropout=0.1"),
    "MLPNet": ("mlpnet",),
    "ResNet-20": ("resnet20",),
    "ResNet-50": ("resnet50",),
    "MobileNetV1": ("mobilenet_v1",),
    "AlexNet": ("alexnet",),
    "VGG-16": ("vgg16",),
    "VGG19": ("vgg19",),
    "VGG19+L1": ("vgg19",),
    "ResNet32": ("resnet32:width=4,shortcut=B",),
    "PreResNet29+L1": ("preresnet29:width=4",),
}
DATA = {  # their data sets -> ours without options; CIFAR-10 as JPEG files is another
    "MNIST": "mnist",
    "CIFAR-10": "cifar10",
    "CIFAR-100": "cifar100",
    "ImageNet": "imagenet",
    "ImageNet ILSVRC-2012": "imagenet",
    "Tiny-ImageNet": "tiny-imagenet",
}


@dataclass(frozen=True)
class Value:
    """One printed number. `setting` has the row's further columns that are not empty, in the file's
    order.
    """

    paper: str
    table: str
    model: str
    dataset: str
    method: str
    quantity: str
    value: str
    cells: str
    note: str
    setting: tuple[tuple[str, str], ...]

    @property
    def row(self) -> tuple:
        """What lines of one printed row share."""
        return self.model, self.dataset, self.method, self.setting

    def like(self, model: str, dataset: str) -> bool:
        """Whether ours is of the printed row's own network and data set; what names neither (a
        count, three weights) is of the row's.
        """
        return (not model or model == self.model or model in MODELS.get(self.model, ())) and (
            not dataset or dataset.partition(":")[0] == DATA.get(self.dataset)
        )

    @property
    def number(self) -> float | None:
        try:
            return float(self.value)
        except ValueError:
            return None


@functools.cache
def read(paper: str, root: Path = ROOT) -> tuple[Value, ...]:
    """The lines of a paper's file; UserError names the file and what is wrong with it."""
    path = root / paper / "paper_values.csv"
    if not path.exists():
        return ()
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if lacking := [name for name in NEEDED if name not in (reader.fieldnames or ())]:
            raise UserError(
                "paper_values.csv",
                str(path.relative_to(root)),
                f"has no column {lacking[0]!r}",
                "see figures/values.py",
            )
        free = [name for name in reader.fieldnames if name not in FIXED]
        return tuple(
            Value(
                paper,
                *(line[name] for name in NEEDED),
                line.get("cells") or "",
                line.get("note") or "",
                tuple((name, line[name]) for name in free if line[name]),
            )
            for line in reader
        )


def tables(paper: str, root: Path = ROOT) -> list[str]:
    """The labels in the file, in its order."""
    return list(dict.fromkeys(value.table for value in read(paper, root)))


def _content(folder: Path, name: str) -> object:
    """Of the file, or as a dict of the record of a study that is so called; None where there is
    none."""
    if (folder / name).exists():
        return _json(folder / name)
    found = of_cell(folder, name.removesuffix(".json"))
    return vars(found[0]) if found else None


@functools.cache
def _json(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


def spread(values: list[float]) -> str:
    """Mean, and the sample's deviation over several seeds with their number: "86.83 ± 0.10 (3)";
    empty where there is none.
    """
    if not values:
        return ""
    return f"{statistics.fmean(values):.2f}" + (
        f" ± {statistics.stdev(values):.2f} ({len(values)})" if len(values) > 1 else ""
    )


class Found(NamedTuple):
    """A number of a committed file: None, with empty dicts, where the file or the entry is
    missing.
    """

    number: float | None
    file: dict  # the file's content, {} where that is a list
    entry: dict  # the entry that the number stands in


def select(folder: Path, pattern: str) -> Found:
    """The number of `file.json?key=value&...#field[*factor]`. UserError where the description fits
    several entries.

    Entries are the file itself if it is a list, its `trajectory` if it is a record, else its top
    level. Numbers match to a thousandth.
    """
    name, _, rest = (
        pattern.partition("?")
        if "?" in pattern
        else (pattern.partition("#")[0], "", "#" + pattern.partition("#")[2])
    )
    conditions, _, field = rest.partition("#")
    field, _, factor = field.partition("*")
    data = _content(folder, name)
    if data is None:
        return Found(None, {}, {})
    entries = data if isinstance(data, list) else data.get("trajectory") or [data]
    wanted = [condition.split("=", 1) for condition in conditions.split("&") if condition]
    fitting = [
        entry for entry in entries if all(_same(entry.get(key), text) for key, text in wanted)
    ]
    if len(fitting) > 1:
        varying = [key for key in fitting[0] if len({str(entry.get(key)) for entry in fitting}) > 1]
        raise UserError(
            "pattern",
            pattern,
            f"fits {len(fitting)} entries of {name}",
            f"say which, by {' or '.join(varying[:3])}",
        )
    if not fitting:
        return Found(None, {}, {})
    found = fitting[0]
    for part in field.split("."):
        found = (
            found[int(part)]
            if isinstance(found, list)
            else found.get(part)
            if isinstance(found, dict)
            else None
        )
    number = None if found is None else float(found) * float(factor or 1)
    return Found(number, data if isinstance(data, dict) else {}, fitting[0])


def _same(value: object, text: str) -> bool:
    try:
        return math.isclose(float(value), float(text), rel_tol=1e-3)
    except (TypeError, ValueError):
        return str(value) == text
