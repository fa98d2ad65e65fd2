"""The papers' cells (<paper>/experiments.py, data without torch) with what is committed of each."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

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


def _accuracy(key: str, stage: str | None = None) -> Callable[[Stages], float | None]:
    def read(stages: Stages) -> float | None:
        record = stages.get(stage) if stage else stages.get("finetune") or stages.get("prune")
        return number(record.accuracy.get(key)) if record else None

    return read


def _final(stages: Stages) -> float | None:
    """Accuracy of the last epoch of fine-tuning; right after pruning where nothing is fine-tuned
    after it.
    """
    return (
        _accuracy("last", "finetune")(stages)
        if "finetune" in stages
        else _accuracy("pruned")(stages)
    )


def _achieved(key: str, over: str | None = None) -> Callable[[Stages], float | None]:
    def read(stages: Stages) -> float | None:
        record = stages.get("prune") or stages.get("finetune")
        value, total = (
            number(record.achieved.get(key)),
            number(record.achieved.get(over)) if over else 1.0,
        )
        return None if value is None or not total else value / total

    return read


def iterations(record: Record) -> int:
    """Optimiser steps of a finetune record in all: those between prunings, whole or capped, and
    those after.
    """
    return steps_between(Spec.from_dict(record.spec)) + record.trajectory[-1]["steps"]


def _tuning(stages: Stages) -> float | None:
    return float(iterations(stages["finetune"])) if "finetune" in stages else None


def _of(
    read: Callable[[Stages], float | None], form: Callable[[float], float]
) -> Callable[[Stages], float | None]:
    def value(stages: Stages) -> float | None:
        one = read(stages)
        return None if one is None else form(one)

    return value


def _points(stages: Stages) -> float | None:
    dense, final = _accuracy("dense")(stages), _final(stages)
    return None if dense is None or final is None else 100 * (dense - final)


def _points_top5(stages: Stages) -> float | None:
    dense, final = _accuracy("top5_dense")(stages), _final_top5(stages)
    return None if dense is None or final is None else 100 * (dense - final)


def _final_top5(stages: Stages) -> float | None:
    return (
        _accuracy("top5_last", "finetune")(stages)
        if "finetune" in stages
        else _accuracy("top5_pruned")(stages)
    )


def _drop(stages: Stages) -> float | None:
    dense, final = _accuracy("dense")(stages), _final(stages)
    return None if not dense or final is None else 100 * (final - dense) / dense


_DENSE, _PRUNED, _LAST = _accuracy("dense"), _accuracy("pruned"), _accuracy("last", "finetune")
_error, _percent, _gone = (lambda a: 100 * (1 - a)), (lambda a: 100 * a), (lambda a: 100 * (1 - a))
# of a cell's stages; a quantity not here is not in a record
QUANTITIES: dict[str, Callable[[Stages], float | None]] = {
    "orig_err_top1_pct": _of(_DENSE, _error),
    "err_after_pruning_top1_pct": _of(_PRUNED, _error),
    "retrained_err_top1_pct": _of(_LAST, _error),
    "pruned_err_pct": _of(_PRUNED, _error),
    "retrain_iterations": _tuning,
    "total_retrain_iterations": _tuning,
    "top1_dense_pct": _of(_DENSE, _percent),
    "top1_pruned_pct": _of(_final, _percent),
    "relative_drop_pct": _drop,
    "test_acc_pct": _of(_final, _percent),
    "top1_pct": _of(_final, _percent),
    "top5_pct": _of(_final_top5, _percent),
    "orig_err_top5_pct": _of(_accuracy("top5_dense"), _error),
    "err_after_pruning_top5_pct": _of(_accuracy("top5_pruned"), _error),
    "retrained_err_top5_pct": _of(_accuracy("top5_last", "finetune"), _error),
    "delta_top5_err_pct": _points_top5,
    "lead_points": _of(_final, _percent),
    "dense_params": _achieved("dense_params"),
    "remaining_params_m": _of(_achieved("kept_params"), lambda n: n / 1e6),
    "flops_m": _of(_achieved("kept_macs"), lambda n: n / 1e6),
    "weights_reduction_pct": _of(_achieved("model_params", "dense_model_params"), _gone),
    "flops_reduction_pct": _of(_achieved("kept_macs", "dense_macs"), _gone),
    "delta_top1_err_pct": _points,
    "delta_err_pct": _points,
    "compression_ratio_x": _of(
        _achieved("kept_params", "dense_params"), lambda share: 1 / share if share else None
    ),
    "speedup_x": _of(
        _achieved("kept_macs", "dense_macs"), lambda share: 1 / share if share else None
    ),
    "remaining_pct": _of(_achieved("kept_params", "dense_params"), _percent),
    "sparsity_pct": _of(_achieved("sparsity"), _percent),
}
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
    spec = next(iter(stages.values())).spec
    units = spec.get("unit_ratio") is not None or spec.get("speedup") is not None
    names = ("model_params", "dense_model_params") if units else ("kept_params", "dense_params")
    return _of(_achieved(*names), _percent)(stages)


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
            quantity = DEVIATIONS.get(value.quantity, value.quantity)
            read = QUANTITIES.get(quantity)
            one = (
                of_layer(stages, quantity, layer)
                if layer not in ("", *WHOLE)
                else read(stages)
                if read
                else None
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
