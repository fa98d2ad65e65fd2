"""The papers' cells (<paper>/experiments.py, data without torch) with what is committed of each."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import math
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace

from common.cells.committed import Stages, by_cell
from common.cells.errors import UserError
from common.cells.library import table_name
from common.cells.record import Record
from common.cells.spec import Spec
from common.cells.trace import steps_between
from figures.records import number
from figures.values import ROOT, Value, select

SEED = re.compile(r"-seed\d+$")


@functools.cache
def groups(paper: str) -> dict[str, dict[str, Spec]]:
    """ "Table 1", "Figure 2a" -> its cells by name; empty for a paper without experiments.py."""
    if importlib.util.find_spec(f"{paper}.experiments") is None:
        return {}
    module = importlib.import_module(f"{paper}.experiments")
    return {f"Table {label}": cells for label, cells in module.TABLES.items()} | {
        f"Figure {label}": cells for label, cells in module.FIGURES.items()
    }


@functools.cache
def by_name(paper: str) -> dict[str, Spec]:
    """A paper's cells by their names, those that no two tables share."""
    every = [(name, spec) for cells in groups(paper).values() for name, spec in cells.items()]
    many = Counter(name for name, _ in every)
    return {name: spec for name, spec in every if many[name] == 1}


def runs(spec: Spec, root: Path = ROOT) -> dict[int, Stages]:
    """seed -> stages that are committed of a cell; records made with other settings than the cell's
    own now do not count.
    """
    found: dict[int, Stages] = {}
    wanted = spec.slug()
    for record in by_cell(spec.paper, root).get((table_name(spec.table), spec.cell), ()):
        if _slug(record) == wanted:
            found.setdefault(record.spec.get("seed", 0), {})[record.stage] = record
    return found


def _slug(record: Record) -> str:
    try:
        return Spec.from_dict(record.spec).slug()
    except (UserError, TypeError):
        return ""


def verb(spec: Spec) -> str:
    """The verb that makes everything a cell asks for."""
    return "finetune" if spec.finetune.epochs else "prune"


def command(paper: str, label: str, names: Iterable[str]) -> str:
    """The shortest command line that runs these cells of a group (and perhaps others whose names
    begin alike).
    """
    cells, names = groups(paper)[label], list(names)
    kind, _, short = label.partition(" ")
    common = os.path.commonprefix(names)
    one = f"python -m {paper}.{verb(cells[names[0]])} --{kind.lower()} {shlex.quote(short)}"
    return (
        one
        if set(names) == set(cells)
        else f"{one} --cell {shlex.quote(common)}"
        if common
        else one
    )


def numbers(stages: Stages) -> SimpleNamespace:
    """What the quantities are made of, as the records name it, nan where they do not have it.
    final, top5_final: after the last epoch of fine-tuning, or right after pruning where nothing is
    tuned after it.
    """
    told = stages.get("finetune") or stages.get("prune") or next(iter(stages.values()))
    made = stages.get("prune") or told
    tuned = "finetune" in stages

    def read(part: dict, *keys: str) -> dict[str, float]:
        found = {key: number(part.get(key)) for key in keys}
        return {key: math.nan if value is None else value for key, value in found.items()}

    n = SimpleNamespace(
        **read(told.accuracy, "dense", "pruned", "top5_dense", "top5_pruned"),
        **read(told.accuracy if tuned else {}, "last", "top5_last"),
        **read(made.achieved, "sparsity", "kept_params", "dense_params", "kept_macs"),
        **read(made.achieved, "dense_macs", "model_params", "dense_model_params"),
        iterations=float(iterations(told)) if tuned else math.nan,
    )
    n.final, n.top5_final = (n.last, n.top5_last) if tuned else (n.pruned, n.top5_pruned)
    return n


def iterations(record: Record) -> int:
    """Optimiser steps of a finetune record in all: those between prunings, whole or capped, and
    those after.
    """
    return steps_between(Spec.from_dict(record.spec)) + record.trajectory[-1]["steps"]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


# of `numbers`; a quantity not here is not in a record
QUANTITIES: dict[str, Callable[[SimpleNamespace], float]] = {
    "orig_err_top1_pct": lambda n: 100 * (1 - n.dense),
    "err_after_pruning_top1_pct": lambda n: 100 * (1 - n.pruned),
    "retrained_err_top1_pct": lambda n: 100 * (1 - n.last),
    "pruned_err_pct": lambda n: 100 * (1 - n.pruned),
    "retrain_iterations": lambda n: n.iterations,
    "total_retrain_iterations": lambda n: n.iterations,
    "top1_dense_pct": lambda n: 100 * n.dense,
    "top1_pruned_pct": lambda n: 100 * n.final,
    "relative_drop_pct": lambda n: _ratio(100 * (n.final - n.dense), n.dense),
    "test_acc_pct": lambda n: 100 * n.final,
    "top1_pct": lambda n: 100 * n.final,
    "top5_pct": lambda n: 100 * n.top5_final,
    "orig_err_top5_pct": lambda n: 100 * (1 - n.top5_dense),
    "err_after_pruning_top5_pct": lambda n: 100 * (1 - n.top5_pruned),
    "retrained_err_top5_pct": lambda n: 100 * (1 - n.top5_last),
    "delta_top5_err_pct": lambda n: 100 * (n.top5_dense - n.top5_final),
    "lead_points": lambda n: 100 * n.final,
    "dense_params": lambda n: n.dense_params,
    "remaining_params_m": lambda n: n.kept_params / 1e6,
    "flops_m": lambda n: n.kept_macs / 1e6,
    "weights_reduction_pct": lambda n: 100 * (1 - _ratio(n.model_params, n.dense_model_params)),
    "flops_reduction_pct": lambda n: 100 * (1 - _ratio(n.kept_macs, n.dense_macs)),
    "delta_top1_err_pct": lambda n: 100 * (n.dense - n.final),
    "delta_err_pct": lambda n: 100 * (n.dense - n.final),
    "compression_ratio_x": lambda n: _ratio(1, _ratio(n.kept_params, n.dense_params)),
    "speedup_x": lambda n: _ratio(1, _ratio(n.kept_macs, n.dense_macs)),
    "remaining_pct": lambda n: 100 * _ratio(n.kept_params, n.dense_params),
    "sparsity_pct": lambda n: 100 * n.sparsity,
}


def quantity(stages: Stages, name: str) -> float | None:
    """A number of a cell's stages; None where the records do not have it."""
    value = QUANTITIES[name](numbers(stages)) if name in QUANTITIES else math.nan
    return None if math.isnan(value) else value


# a spread -> what it is the spread of
DEVIATIONS = {
    "test_acc_std": "test_acc_pct",
    "weights_reduction_std": "weights_reduction_pct",
    "flops_reduction_std": "flops_reduction_pct",
    "top1_pruned_std": "top1_pruned_pct",
}


def kept(stages: Stages) -> float | None:
    """Percent of the prunable weights that a cell kept; where it removed units, of all parameters
    of the smaller network.
    """
    spec, n = next(iter(stages.values())).spec, numbers(stages)
    units = spec.get("unit_ratio") is not None or spec.get("speedup") is not None
    share = 100 * _ratio(
        *((n.model_params, n.dense_model_params) if units else (n.kept_params, n.dense_params))
    )
    return None if math.isnan(share) else share


WHOLE = ("total", "0 Overall", "Overall", "FLOPs")  # what a table calls the row of all layers
_FC = ("fc1", "fc2", "fc3")
LAYERS = {  # the papers' names of layers, in the order of the network's own
    "alexnet": (*(f"conv{n}" for n in range(1, 6)), *_FC),
    "vgg16": (
        *(
            f"conv{block}_{n}"
            for block, many in enumerate((2, 2, 3, 3, 3), 1)
            for n in range(1, many + 1)
        ),
        *_FC,
    ),
}


def of_layer(stages: Stages, quantity: str, layer: str) -> float | None:
    """remaining_pct, sparsity_pct or dense_params of one layer, by its name or by its number in the
    network ("3 layer1.0.conv2").
    """
    if "prune" not in stages:
        return None
    found, model = stages["prune"].layers, str(stages["prune"].spec.get("model")).partition(":")[0]
    place, _, name = layer.partition(" ")
    entry = next((e for e in found if e.get("name") in (layer, name)), None)
    at = (
        int(place) - 1
        if place.isdigit()
        else LAYERS[model].index(layer)
        if layer in LAYERS.get(model, ())
        else len(found)
    )
    if entry is None and 0 <= at < len(found):
        entry = found[at]
    if entry is None or not entry.get("total"):
        return None
    kept = 100 * entry["kept"] / entry["total"]
    return {
        "remaining_pct": kept,
        "sparsity_pct": 100 - kept,
        "dense_params": float(entry["total"]),
    }.get(quantity)


@dataclass
class Ours:
    """What of ours stands beside one printed number: one cell and its seeds; `values` has one entry
    a seed that ran, `kept` what each of those seeds kept of the weights, in percent, where that is
    known, `idle` how many seeds kept all although something was to go, `networks` the digests of
    the dense networks that they start from."""

    scale: str
    model: str
    dataset: str
    name: str  # of the cell, without its seed; or of the file
    command: str
    asked: int = 0
    values: list[float] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    idle: int = 0
    networks: set[str] = field(default_factory=set)


def beside(
    value: Value, commands: dict[tuple[str, str], str] | None = None, root: Path = ROOT
) -> list[Ours]:
    """Ours beside a printed number, one entry for each cell with its seeds; UserError for a pattern
    that names no cell.

    commands: (paper, label) -> command, for numbers that come from a file that names none.
    """
    found: dict[tuple, Ours] = {}
    for pattern in filter(None, value.cells.split("|")):
        if ".json" in pattern:
            one, data, entry = select(root / value.paper / "results", pattern)
            spec = data.get("spec") or {}
            if (
                named := by_name(value.paper).get(entry.get("cell") or entry.get("name"))
            ) is not None:
                spec = named.to_dict()  # the entry is about a cell
            elif not spec.get("checkpoint") and not spec.get("train", {}).get("epochs"):
                spec = {}  # a study without a network: its spec says nothing
            name = (
                pattern.partition("#")[0].replace(".json", "").replace("?", ", ").replace("&", ", ")
            )
            known = (
                data.get("scale", ""),
                entry.get("model") or spec.get("model", ""),
                spec.get("dataset", ""),
                name,
            )
            ours = found.setdefault(
                known,
                Ours(
                    *known,
                    data.get("provenance", {}).get("command")
                    or (commands or {}).get((value.paper, value.table), ""),
                    1,
                ),
            )
            if one is not None:
                ours.values.append(one)
                ours.ids.append(data.get("id") or pattern.partition("?")[0].partition("#")[0])
                share = number(entry.get("kept_then", entry.get("kept")))
                ours.kept += [] if share is None else [100 * share]
            continue
        pattern, _, rival = pattern.partition("~")
        label, _, names = pattern.rpartition("/")
        label = label or value.table
        cells = {
            n: s for n, s in groups(value.paper).get(label, {}).items() if fnmatchcase(n, names)
        }
        if not cells:
            raise UserError(
                "cells",
                pattern,
                f"{value.paper} has no such cell in {label}",
                f"see python -m {value.paper}.prune --list",
            )
        _add(value, label, cells, found, root)
        if rival:
            _less(
                next(reversed(found.values())),
                beside(dataclasses.replace(value, cells=f"{label}/{rival}"), root=root),
            )
    return list(found.values())


def _less(ours: Ours, rivals: list[Ours]) -> None:
    """Make of ours its lead over a rival: seed by seed, or over the one run of a rival without
    chance.
    """
    (rival,) = rivals
    theirs = {seed: i for i, seed in enumerate(rival.seeds)}
    pairs = [
        (i, theirs.get(seed, 0))
        for i, seed in enumerate(ours.seeds)
        if seed in theirs or rival.asked == len(theirs) == 1
    ]
    ours.ids = [one for i, j in pairs for one in (ours.ids[i], rival.ids[j])]
    ours.values = [ours.values[i] - rival.values[j] for i, j in pairs]
    ours.seeds = [ours.seeds[i] for i, _ in pairs]


def _add(
    value: Value, label: str, cells: dict[str, Spec], found: dict[tuple, Ours], root: Path
) -> None:
    layer = dict(value.setting).get("layer", "")
    for name, spec in cells.items():
        known = (spec.scale, spec.model, spec.dataset, SEED.sub("", name))
        ours = found.setdefault(
            known,
            Ours(
                *known,
                command(
                    value.paper,
                    label,
                    (
                        n
                        for n, s in cells.items()
                        if s.scale == spec.scale and SEED.sub("", n) == known[3]
                    ),
                ),
            ),
        )
        ours.asked += 1
        for seed, stages in runs(spec, root).items():
            name = DEVIATIONS.get(value.quantity, value.quantity)
            one = (
                of_layer(stages, name, layer)
                if layer not in ("", *WHOLE)
                else quantity(stages, name)
            )
            if one is not None:
                ours.values.append(one)
                ours.seeds.append(seed)
                ours.ids.append(max(stages.values(), key=lambda r: r.stage == "finetune").id)
                ours.networks |= {record.dense_hash for record in stages.values()}
                share = kept(stages)
                ours.kept += [] if share is None else [share]
                to_go = spec.sparsity or spec.unit_ratio or spec.speedup
                ours.idle += bool(to_go) and share is not None and share > 100 - 1e-9
