"""Rules that say what was seen of a paper's claim, and the numbers that they rest on, each with
where it comes from.

How to write a rule, in figures/<paper>_claims.py:

    @shows("Table 5", "Figure 6")          # the gallery's entries that it decides
                                           (figures/gallery.toml)
    @claim                                 # leave this out for a rule that has no paragraph of its
                                           own in docs/claims.md
    def gradual_lead() -> Evidence:
        \"\"\"Pruned to 90% WoodFisher ends .06 points above global magnitude (Table 1).\"\"\"
        ours, other = (
            cell("woodfisher", "Figure 6", f"resnet20-{m}-0.9-seed*", "top1_pct")
            for m in ("woodfisher", "magnitude-global")
        )
        line = f"ResNet-20: {ours} against {other} (paper ...); {ours.source}."
        return verdict(ours.mean > other.mean), [line]

The docstring is the paper's claim in one sentence, with its number and where it stands. `verdict`
is of what the paper says, each part a bool. A record that is missing raises Missing, and the
verdict is then "not tested": never return one by hand.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import re
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pandas as pd

from common.cells.library import read_all, table_name
from common.cells.record import Record
from figures import cells
from figures.records import Comparison, Stat, gather
from figures.style import base
from figures.values import ROOT, Value, read, select

HOLDS, PART, FAILS, OPEN = "holds", "in-part", "fails", "open"
# of an entry of the gallery
SEEN = {HOLDS: "holds", PART: "in part", FAILS: "not seen here", OPEN: "not tested"}
Evidence = tuple[str, list[str]]  # a verdict and its lines
# of figures/results
JOBS = ("resnet20-cifar10-jpeg", "lenet5-mnist", "lenet300-mnist", "digits_cnn-digits")
CLAIMS: dict[str, Callable[[], Evidence]] = {}


def claim(function: Callable[[], Evidence]) -> Callable[[], Evidence]:
    """Register the rule of a claim under the function's name with dashes."""
    CLAIMS[function.__name__.replace("_", "-")] = function
    return function


# (paper, the gallery's label) -> the rules that decide it
ENTRIES: dict[tuple[str, str], list[Callable[[], Evidence]]] = {}


def shows(*labels: str) -> Callable[[Callable[[], Evidence]], Callable[[], Evidence]]:
    """The rule decides what was seen of these entries of its paper, whose name begins the rule's
    module.
    """

    def register(function: Callable[[], Evidence]) -> Callable[[], Evidence]:
        paper = function.__module__.rpartition(".")[2].partition("_")[0]
        for label in labels:
            ENTRIES.setdefault((paper, label), []).append(function)
        return function

    return register


def judged(rule: Callable[[], Evidence]) -> Evidence:
    """What a rule says; open where a record that it needs is missing."""
    try:
        return rule()
    except Missing as gap:
        return OPEN, [f"Not committed: {gap}."]


def seen(paper: str, label: str) -> tuple[str, list[tuple[str, Evidence]]]:
    """(what was seen of an entry, [(the paper's claim, the rule's evidence)]). Several rules: of
    those that could be tested all hold, none, or a part."""
    found = [
        (" ".join((rule.__doc__ or "").split()), judged(rule))
        for rule in ENTRIES.get((paper, label), ())
    ]
    tested = {verdict for _, (verdict, _) in found} - {OPEN}
    word = SEEN[tested.pop() if len(tested) == 1 else PART if tested else OPEN]
    return word, found


class Missing(LookupError):
    """A record that the evidence needs is not committed."""


@dataclass
class Number:
    """A quantity over seeds with where it comes from."""

    values: list[float]
    source: str
    seeds: list[int] = dataclasses.field(default_factory=list)  # of the values, where known

    @property
    def by_seed(self) -> dict[int, float]:
        """The values by their seeds, which pair with those of another number."""
        return dict(zip(self.seeds or range(len(self.values)), self.values, strict=True))

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float:
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    def __str__(self) -> str:
        spread = (
            f" ± {self.std:.2f} ({len(self.values)} seeds)" if len(set(self.values)) > 1 else ""
        )
        return f"{self.mean:.2f}{spread}"


def cell(paper: str, label: str, pattern: str, quantity: str) -> Number:
    """A number of a paper's own cell, as `paper_values.csv` would name it."""
    found = cells.beside(Value(paper, label, "", "", "", quantity, "", pattern, "", ()))
    values = [v for one in found for v in one.values]
    if not values:
        raise Missing(f"{paper} {label} {pattern}")
    if idle := [one.name for one in found if one.idle]:
        raise Missing(f"{paper} {label} {idle[0]}: removed nothing of what was asked")
    seeds = [seed for one in found for seed in one.seeds]
    source = named(i for one in found for i in one.ids)
    return Number(values, source, seeds if len(set(seeds)) == len(values) else [])


def committed(paper: str, label: str, name: str, stage: str) -> list[Record]:
    """The records of a cell's seeds with the settings that it has now; `name` is the cell's without
    its seed. Raises Missing where there is none.
    """
    found = [
        stages[stage]
        for seeded, spec in cells.groups(paper).get(label, {}).items()
        if seeded.rpartition("-seed")[0] == name
        for stages in cells.runs(spec).values()
        if stage in stages
    ]
    if not found:
        raise Missing(f"{paper} {label} {name} {stage}")
    return found


def kept_by_layer(found: Iterable[Record]) -> dict[str, float]:
    """Layer -> percent of its weights that is left, mean over the records."""
    layers = pd.DataFrame([layer for record in found for layer in record.layers])
    return (100 * layers.kept / layers.total).groupby(layers.name, sort=False).mean().to_dict()


def named(ids: Iterable[str]) -> str:
    """Record ids without stage, seeds together: `woodfisher-s0.7-1b417b` (seeds 0, 1, 2)."""
    seeds: dict[str, list[str]] = {}
    for one in ids:
        match = re.fullmatch(r"(.*)-seed(\d+)-(?:prune|finetune)", one)
        name, seed = match.groups() if match else (one, "")
        if seed not in seeds.setdefault(name, []):
            seeds[name].append(seed)
    return ", ".join(
        f"`{name}`" + (f" (seed{'s' * (len(s) > 1)} {', '.join(s)})" if s != [""] else "")
        for name, s in seeds.items()
    )


def printed(paper: str, table: str, method: str, quantity: str, **where: str) -> float:
    """The paper's number; where: model or a setting column."""
    for value in read(paper):
        have = dict(value.setting) | {"model": value.model, "dataset": value.dataset}
        if (value.table, value.method, value.quantity) == (table, method, quantity) and all(
            have.get(k) == v for k, v in where.items()
        ):
            return float(value.value)
    raise Missing(f"{paper} {table} {method} {quantity}")


def field(paper: str, pattern: str) -> float:
    """A number of a committed file, by the pattern of figures/values.py."""
    value = select(ROOT / paper / "results", pattern).number
    if value is None:
        raise Missing(pattern)
    return value


@functools.cache
def job(name: str) -> Comparison:
    """A comparison of figures/results."""
    folder = ROOT / "figures" / "results" / name
    if not folder.is_dir():
        raise Missing(name)
    return gather(read_all(folder))


@functools.cache
def table(paper: str, name: str, model: str, pattern: str = "*") -> Comparison:
    """The cells of a paper's own table on one network whose names match a shell pattern, as a
    comparison.
    """
    records = [
        r
        for r in read_all(ROOT / paper / "results")
        if r.table == table_name(name)
        and r.spec.get("model") == model
        and fnmatchcase(r.cell, pattern)
    ]
    if not records:
        raise Missing(f"{paper} {name} {model}")
    return gather(records)


def stat(name: str, method: str, amount: float, quantity: str = "accuracy_finetuned") -> Stat:
    """Of one cell of a comparison, of the method's `setting` there."""
    method = setting(name, method)
    for row in job(name).rows:
        if (row.method, row.amount) == (method, amount) and row.stat(quantity).n:
            if row.short:
                raise Missing(f"{name} {method} {amount:g}: {row.mark} of what was asked")
            return row.stat(quantity)
    raise Missing(f"{name} {method} {amount:g}")


def setting(name: str, method: str) -> str:
    """What a comparison has of a method: the method, or where that has no record, one with rows of
    its own: "woodfisher (m 100, b 10)".
    """
    there = dict.fromkeys(
        row.method for row in job(name).rows if row.runs and base(row.method) == method
    )
    return method if method in there or not there else next(iter(there))


def alike(name: str, one: str, other: str) -> tuple[float, list[float]]:
    """(Spearman of when each weight goes, intersection over union of the kept sets at each
    sparsity) of two methods of a comparison.
    """
    path = ROOT / "figures" / "results" / name / "agreement.csv"
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if {base(row["method"]), base(row["other"])} == {one, other}:
                    return float(row["spearman"]), [
                        float(share) for share in row["overlap"].split()
                    ]
    raise Missing(f"{name}/agreement.csv {one} {other}")


def verdict(*each: bool) -> str:
    """holds if all, fails if none, else in part."""
    return HOLDS if all(each) else PART if any(each) else FAILS


def percent(one: Stat) -> str:
    """ "96.21 ± 0.05 (3 seeds)"."""
    spread = "" if one.std is None else f" ± {100 * one.std:.2f} ({one.n} seeds)"
    return f"{100 * one.mean:.2f}{spread}"
