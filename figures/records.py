"""Records grouped into rows, one per (method, requested amount), and the check that they may stand
in one table at all.

Fractions stay fractions here; percent is a matter of the tables and figures. Standard deviations
are the sample's (n - 1).
"""

from __future__ import annotations

import functools
import json
import logging
import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pandas as pd

from common.cells.errors import UserError
from common.cells.record import Record, wall_seconds
from common.cells.registry import METHODS, OPEN_ROWS
from common.cells.spec import NOT_IDENTITY, Spec, quality
from figures.style import base, look, rank

# key of Record.requested -> how it is written
UNITS = {"sparsity": "sparsity", "unit_ratio": "unit ratio"}
GROUPS = {"weights": "Single weights", "units": "Channels and low rank"}
log = logging.getLogger(__name__)
# Spec fields that belong to the method: they may differ between methods, never within one.
OF_METHOD = (
    "scope",
    "fisher",
    "num_samples",
    "fisher_batch_size",
    "damping",
    "chunk",
    "recompute",
    "update",
    "options",
)
# Spec fields that may differ freely; a checkpoint is known by dense_hash, not by its path. Every
# other field must agree.
FREE = {"method", "sparsity", "unit_ratio", "checkpoint", *OF_METHOD, *NOT_IDENTITY}
OF_DENSE = ("model", "dataset", "scale", "train", "dense_seed", "amp")
COUNTERS = ("dense_params", "dense_macs", "dense_model_params")


def number(value: object) -> float | None:
    """`value` as a finite float, or None: a record may hold null, NaN or text where a number
    belongs.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


@dataclass(frozen=True)
class Stat:
    """One quantity over the seeds that have it."""

    values: tuple[float, ...] = ()

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation; None below two seeds."""
        return statistics.stdev(self.values) if self.n > 1 else None


@dataclass
class Run:
    """The stages of one seed of one cell."""

    seed: int
    stages: dict[str, Record] = field(default_factory=dict)

    def first(self, *stages: str) -> Record | None:
        """The first of the stages that is there."""
        return next((self.stages[s] for s in stages if s in self.stages), None)


def _part(
    whole: str, key: str, over: str | None = None, stages: tuple[str, ...] = ("prune", "finetune")
) -> Callable:
    def read(run: Run) -> float | None:
        record = run.first(*stages)
        values = getattr(record, whole) if record else {}
        value, total = number(values.get(key)), number(values.get(over)) if over else 1.0
        return None if value is None or not total else value / total

    return read


ALONE = "on a machine with at most 1.1 runnable processes a core"


def core_seconds(record: Record) -> float | None:
    """Processor seconds of a stage on a machine that it had to itself (ALONE, by the rule of
    common.system.machine.contention); None where others wanted the cores meanwhile, where the
    stage went on from half-done work, and of records that do not say.
    """
    load = record.provenance.get("load")
    alone = isinstance(load, dict) and load.get("contended") is False
    return (
        number(record.timing.get("core_s")) if alone and not record.timing.get("resumed") else None
    )


def _pruning(run: Run) -> float | None:
    """Of the processor seconds of the prune stage, evaluations included, the share that curvature,
    scores and pruning have of its wall time.
    """
    record = run.first("prune")
    if record is None or (spent := core_seconds(record)) is None:
        return None
    part, whole = number(record.timing.get("prune_s")), wall_seconds(record)
    return None if part is None or not whole else spent * part / whole


QUANTITIES: dict[str, Callable[[Run], float | None]] = {
    "achieved_sparsity": _part("achieved", "sparsity"),
    "kept_weights": _part("achieved", "kept_params", "dense_params"),
    "kept_macs": _part("achieved", "kept_macs", "dense_macs"),
    "accuracy_pruned": _part("accuracy", "pruned"),
    "accuracy_finetuned": _part("accuracy", "last", stages=("finetune",)),
    "predicted_increase": _part("loss", "predicted_increase"),
    "measured_increase": _part("loss", "measured_increase"),
    "core_s": _pruning,
    "peak_rss_mb": _part("timing", "peak_rss_mb"),
}


@dataclass
class Row:
    """One method at one requested amount; `expected` seeds, of which `runs` exist."""

    method: str  # as `method_of` calls it
    unit: str  # a key of UNITS
    amount: float
    expected: int
    runs: list[Run] = field(default_factory=list)

    @property
    def label(self) -> str:
        return look(self.method).label

    @property
    def kind(self) -> str:
        """weights | channels | low-rank; of a method nobody registered, what its requested unit
        says.
        """
        name = base(self.method)
        return (
            METHODS[name].kind
            if name in METHODS
            else "weights"
            if self.unit == "sparsity"
            else "channels"
        )

    @property
    def asked(self) -> str:
        """ "sparsity 0.9"."""
        return f"{UNITS[self.unit]} {self.amount:g}"

    @property
    def group(self) -> str:
        return "weights" if self.kind == "weights" else "units"

    @property
    def short(self) -> bool:
        """Whether it removed less than half of the share that was asked for, of the weights: the
        dense network, or nearly, under a method's name. Such rows are marked, and are in no rank,
        test or median. Units that go take about their share of the weights along; rotations in
        their place (EigenDamage, CP) can cost as much as they save.
        """
        kept = self.stat("kept_weights").mean
        return kept is not None and 1 - kept < self.amount / 2

    @property
    def untouched(self) -> bool:
        """Whether it was to remove something and every seed kept every weight."""
        return self.short and min(self.stat("kept_weights").values) == 1

    @property
    def mark(self) -> str:
        """What a short row is called; "" of the others."""
        return "removed nothing" if self.untouched else "short" if self.short else ""

    def stat(self, quantity: str) -> Stat:
        """A key of QUANTITIES over the seeds."""
        values = (QUANTITIES[quantity](run) for run in self.runs)
        return Stat(tuple(v for v in values if v is not None))

    def kept_by_layer(self) -> dict[str, float]:
        """Layer name -> kept fraction, mean over the seeds, in the network's order."""
        kept: dict[str, list[float]] = {}
        for run in self.runs:
            for layer in run.first("prune", "finetune").layers:
                if (
                    isinstance(layer, dict)
                    and number(layer.get("total"))
                    and number(layer.get("kept")) is not None
                ):
                    kept.setdefault(str(layer.get("name")), []).append(
                        layer["kept"] / layer["total"]
                    )
        return {name: statistics.fmean(values) for name, values in kept.items()}


@dataclass
class Comparison:
    """Everything the tables, figures and report show. `dense` has model, dataset, scale,
    dense_hash, data_sha256, accuracy (fraction or None), finetune (the budget in words) and
    recalibrate_bn."""

    rows: list[Row]
    dense: dict
    seeds: list[int]
    notes: list[str]

    @functools.cached_property
    def runs(self) -> pd.DataFrame:
        """A line a seed of a row: method, group, unit, amount, short, untouched, seed, and every
        key of QUANTITIES, nan where the records do not have it.
        """
        lines = [
            (row.method, row.group, row.unit, row.amount, row.short, row.untouched, run.seed)
            + tuple(read(run) for read in QUANTITIES.values())
            for row in self.rows
            for run in row.runs
        ]
        columns = ["method", "group", "unit", "amount", "short", "untouched", "seed", *QUANTITIES]
        return pd.DataFrame(lines, columns=columns).astype(dict.fromkeys(QUANTITIES, float))

    def group(self, name: str) -> list[Row]:
        return [row for row in self.rows if row.group == name]

    def groups(self) -> list[str]:
        return [name for name in GROUPS if self.group(name)]

    def final(self) -> str:
        """The quantity methods are ranked by: accuracy after fine-tuning, or after pruning when
        nothing was fine-tuned.
        """
        tuned = any(row.stat("accuracy_finetuned").n for row in self.rows)
        return "accuracy_finetuned" if tuned else "accuracy_pruned"


def method_of(record: Record) -> str:
    """The record's method; where its Fisher is made of gradient rows and the Spec says neither how
    many nor of how many examples, with what they then are: "woodfisher (m 100, b 10)"."""
    spec = record.spec
    known = METHODS.get(record.method)
    if (
        known is None
        or known.curvature != "rows"
        or spec.get("fisher_batch_size")
        or "num_rows" in (spec.get("options") or {})
    ):
        return record.method
    samples = spec.get("num_samples") or 1_000
    m = min(OPEN_ROWS, samples)
    return f"{record.method} (m {m}, b {max(1, samples // m)})"


def settings(record: Record) -> dict[str, object]:
    """The fields of a record that must agree in one table, nested ones dotted: finetune.lr,
    provenance.data_sha256.
    """
    spec = Spec.from_dict(record.spec).to_dict()
    dense = record.stage == "train"
    flat: dict[str, object] = {"scale": record.scale}
    for name, value in spec.items():
        if name in FREE or name == "scale" or dense and name not in OF_DENSE:
            continue
        flat |= (
            {f"{name}.{key}": v for key, v in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
    if record.dense_hash or not dense:
        flat["dense_hash"] = record.dense_hash
    flat["provenance.data_sha256"] = record.provenance.get("data_sha256")
    # records from before it are compared by the line above alone
    if content := record.identity.get("data_content_sha256"):
        flat["identity.data_content_sha256"] = content
    if not dense:
        flat |= {f"{method_of(record)}: {name}": spec.get(name) for name in OF_METHOD}
    flat |= {
        f"achieved.{name}": record.achieved[name]
        for name in COUNTERS
        if record.achieved.get(name) is not None
    }
    return flat


def check_comparable(records: Iterable[Record]) -> None:
    """UserError that names the first field in which the records differ, although only method,
    amount and seed may.
    """
    seen: dict[str, dict[str, tuple[object, str]]] = {}
    for record in records:
        for name, value in settings(record).items():
            seen.setdefault(name, {}).setdefault(
                json.dumps(value, sort_keys=True), (value, record.id)
            )
    for name, values in seen.items():
        if len(values) > 1:
            (_, one), (_, other), *_ = values.values()
            raise UserError(
                name,
                [value for value, _ in values.values()],
                f"differs, first between {one} and {other}",
                "in one table only method, amount and seed may; give the folders of one comparison",
            )


def _readable(records: Iterable[Record]) -> Iterator[Record]:
    """The records whose spec can be read and, of pruned networks, that say how much was to be
    removed; warns of the others.
    """
    for record in records:
        try:
            Spec.from_dict(record.spec)
        except (UserError, TypeError) as error:
            log.warning("passed over: record %s has no readable spec (%s)", record.id, error)
            continue
        if record.stage == "train" or any(
            number(record.requested.get(unit)) is not None for unit in UNITS
        ):
            yield record
        else:
            log.warning("passed over: record %s does not say how much was to be removed", record.id)


def _cell(record: Record) -> tuple[str, str, float]:
    unit = next(unit for unit in UNITS if number(record.requested.get(unit)) is not None)
    return method_of(record), unit, round(record.requested[unit], 6)


def gather(records: Iterable[Record]) -> Comparison:
    """Group comparable records; every method gets a row for every amount that any method was asked
    for in the same unit.

    Raises UserError when there is nothing to compare, when `check_comparable` refuses, or when one
    cell has two outcomes.
    """
    used = list(_readable(records))
    cells: dict[tuple[str, str, float], dict[int, Run]] = {}
    for record in (record for record in used if record.stage != "train"):
        seed = Spec.from_dict(record.spec).seed
        run = cells.setdefault(_cell(record), {}).setdefault(seed, Run(seed))
        twin = run.stages.setdefault(record.stage, record)
        if settings(twin) == settings(record) and any(
            getattr(twin, part) != getattr(record, part)
            for part in ("accuracy", "loss", "achieved")
        ):
            raise UserError(
                "records", record.id, "found twice, with different outcomes", "give one folder only"
            )
    if not cells:
        raise UserError(
            "records",
            len(used),
            "no record of a pruned network among them",
            "run the comparison first",
        )
    check_comparable(used)
    seeds = sorted({seed for runs in cells.values() for seed in runs})
    amounts = {unit: sorted({a for _, u, a in cells if u == unit}) for unit in UNITS}
    asked = {(method, unit) for method, unit, _ in cells}
    rows = [
        Row(
            method,
            unit,
            amount,
            len(seeds),
            [run for _, run in sorted(cells.get((method, unit, amount), {}).items())],
        )
        for method, unit in asked
        for amount in amounts[unit]
    ]
    rows.sort(
        key=lambda row: (list(GROUPS).index(row.group), row.unit, row.amount, rank(row.method))
    )
    comparison = Comparison(rows, _dense(used), seeds, [])
    comparison.notes = _notes(comparison, used)
    return comparison


def _dense(used: list[Record]) -> dict:
    record = next(r for r in used if r.stage != "train")
    spec = Spec.from_dict(record.spec).to_dict()
    recipe = spec["finetune"]
    words = (
        f"{recipe['epochs']:g} epoch{'' if recipe['epochs'] == 1 else 's'} of "
        f"{recipe['optimizer']}, "
        f"lr {recipe['lr']:g} ({recipe['schedule']}), batch {recipe['batch_size']}"
    )
    if recipe["max_steps"]:
        words += f", at most {recipe['max_steps']} steps"
    if spec["steps"] > 1:
        words = (
            f"{spec['steps']} pruning steps with {spec['step_epochs']:g} epochs each, then {words}"
        )
    accuracy = [a for r in used for a in [number(r.accuracy.get("dense"))] if a is not None]
    return {
        "model": spec["model"],
        "dataset": spec["dataset"],
        "scale": record.scale,
        "dense_hash": record.dense_hash,
        "data_sha256": record.provenance.get("data_sha256"),
        "recalibrate_bn": spec["recalibrate_bn"],
        "accuracy": statistics.median(accuracy) if accuracy else None,
        "quality": quality(Spec.from_dict(record.spec)),
        "finetune": words,
    }


def _notes(comparison: Comparison, used: list[Record]) -> list[str]:
    """What a reader must know before trusting the table; an empty list when there is nothing."""
    notes = []
    if comparison.dense["quality"] != "accuracy":
        notes.append(
            "What is called accuracy in this table and its figures is "
            f"{comparison.dense['quality']}, times 100."
        )
    lacking = [
        row
        for row in comparison.rows
        if min(row.stat("accuracy_pruned").n, row.stat(comparison.final()).n) < row.expected
    ]
    if lacking:
        named = [
            f"{row.label} at {UNITS[row.unit]} {row.amount:g} ({row.stat(comparison.final()).n} "
            f"of {row.expected})"
            for row in lacking
        ]
        more = f" and {len(named) - 8} more" if len(named) > 8 else ""
        notes.append(
            f"{len(named)} of {len(comparison.rows)} cells lack a seed or a stage: "
            f"{'; '.join(named[:8])}{more}."
        )
    if short := [row for row in comparison.rows if row.short]:
        named = [
            f"{row.label} at {UNITS[row.unit]} {row.amount:g} "
            f"({100 * (1 - row.stat('kept_weights').mean):.1f}%)"
            for row in short
        ]
        notes.append(
            f"{len(short)} cells removed less of the weights than half of what was asked, and are "
            f"in no rank, test or median (what they removed): {'; '.join(named)}."
        )
    absent = [
        METHODS[m].label for m in METHODS if m not in {base(row.method) for row in comparison.rows}
    ]
    if absent:
        notes.append(f"Registered but without a record: {'; '.join(absent)}.")
    dense = {number(r.accuracy.get("dense")) for r in used} - {None}
    if len(dense) > 1:
        notes.append(
            f"The dense accuracy differs between records ({100 * min(dense):.2f}% to "
            f"{100 * max(dense):.2f}%)."
        )
    for field_name, what in (("git", "commits"), ("versions", "sets of library versions")):
        distinct = {json.dumps(r.provenance.get(field_name), sort_keys=True) for r in used}
        if len(distinct) > 1:
            notes.append(
                f"The records come from {len(distinct)} {what}; see the provenance of each run."
            )
    if dirty := sum(bool(r.provenance.get("dirty")) for r in used):
        notes.append(f"{dirty} of {len(used)} records were made with uncommitted changes.")
    if len({(str(r.provenance.get("device")), str(r.provenance.get("threads"))) for r in used}) > 1:
        notes.append(
            "The records come from several devices or thread counts: do not compare their "
            "core-seconds and memory."
        )
    return [*notes, *_timings(comparison)]


def _timings(comparison: Comparison) -> list[str]:
    """Which core-seconds are shown, and under which load they were taken."""
    every = [
        (QUANTITIES["core_s"](run), run.first("prune").provenance.get("load"))
        for row in comparison.rows
        for run in row.runs
        if run.first("prune") is not None
    ]
    loads = [load["mean"] for seconds, load in every if seconds is not None]
    if len(loads) == len(every):
        return []
    shown = f"; the load of the others was at most {max(loads):.2f}" if loads else ""
    return [
        f"{len(every) - len(loads)} of {len(every)} timings are not shown, as they were not taken "
        f"{ALONE}, or their records do not say{shown}."
    ]
