"""The rows that stand for each paper on the first page and in docs/headlines.md, each beside what
it was chosen among and what it must beat: its own other recipes, the dense network trained as long,
the strongest baseline on the same schedule.

The rows are listed in figures/gallery.toml; all that stands beside them is found among the records
of the same table, by what their Specs say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import fmean

from common.cells.errors import UserError
from common.cells.registry import METHODS
from common.cells.spec import NOT_IDENTITY, Spec
from figures import cells, gallery, tables
from figures.cells import SEED, Ours, groups, runs
from figures.style import look
from figures.values import Value, read

AMOUNTS = ("sparsity", "unit_ratio", "speedup")
DENSE = ("model", "train", "checkpoint", "checkpoint_sha256", "dense_seed")
SCHEDULE = (
    "steps",
    "step_schedule",
    "step_epochs",
    "initial_sparsity",
    "levels",
    "step_ratio",
    "max_error_increase",
    "patience",
    "recalibrate_bn",
    "between",
    "finetune",
    "clock",
    "first_epoch",
)
# what two recipes of one method may differ in; the data set in its options
RECIPE = {*SCHEDULE, "dataset", "damping", "amp"}
NO_RECIPE = {*NOT_IDENTITY, "series", "step_test_samples"}
HEADS = (
    "",
    "paper",
    "ours",
    "recipes tried",
    "dense, trained alike",
    "strongest baseline",
    "ours is of",
    "scale",
    "command",
)
NOTE = (
    "*Recipes tried*: cells of the same method, network and amount that differ in schedule, rates, "
    "shifts, damping or precision; where ours is the best of them it was chosen on test error, and "
    "the others are named. *Dense, trained alike*: the unpruned network after as many steps on the "
    "same images, or the most that were run. *Strongest baseline*: the best of the other methods' "
    "cells on the same schedule and images. –: nothing of the kind was run. ± is over seeds, of "
    "the number in brackets, of one dense network."
)


def rows() -> str:
    """The table of README.md."""
    lines = [f"| {' | '.join(HEADS)} |", "| --- |" + " ---: |" * 2 + " --- |" * (len(HEADS) - 3)]
    for entry in gallery.headlines():
        mine = named(entry, entry["cell"])
        data, ours = mine.dataset.partition(":")[0], _ours(entry, mine)
        fields = [
            entry["what"],
            entry.get("printed") or _printed(entry),
            ours,
            *beside(entry, mine),
            f"{mine.model}, {gallery.DATASETS.get(data, data)}",
            mine.scale,
            f"`{SEED.sub('', mine.command)}`",
        ]
        lines.append(f"| {' | '.join(fields)} |")
    return "\n".join([*lines, "", NOTE, ""])


def front() -> str:
    """The first page's table: at most a dozen rows, each beside what it must beat."""
    heads = ("", "paper", "ours", "dense, trained alike", "strongest baseline", "scale")
    lines = [f"| {' | '.join(heads)} |", "| --- | ---: | ---: | --- | --- | --- |"]
    for entry in gallery.headlines():
        if "front" not in entry:
            continue
        mine = named(entry, entry["cell"])
        _, control, rival = beside(entry, mine)
        printed = entry.get("printed") or _printed(entry)
        fields = [entry["front"], printed, _ours(entry, mine), control, rival, mine.scale]
        lines.append(f"| {' | '.join(fields)} |")
    note = "± is over seeds of one dense network, their number in brackets; without it, one seed."
    return "\n".join([*lines, "", note, ""])


def _ours(entry: dict[str, str], mine: Ours) -> str:
    """The number, or its lead over that of another cell."""
    if "over" not in entry:
        return tables.spread(mine, entry["quantity"]) if mine.values else "not run"
    other = named(entry, entry["over"])
    if not mine.values or not other.values:
        return "not run"
    return f"{fmean(mine.values) - fmean(other.values):.2f}"


def beside(entry: dict[str, str], mine: Ours) -> list[str]:
    """(recipes tried, dense control, strongest baseline) of a row; of a lead, which is over such a
    cell already, and of what is no accuracy, nothing.
    """
    quantity = entry["quantity"]
    if "over" in entry or not mine.values or not is_accuracy(quantity):
        return ["–"] * 3
    spec = _spec(entry, mine.name)
    others = [one for one in _of(entry, siblings(entry, spec)) if one.name != mine.name]
    rivals = _of(entry, baselines(entry, spec))
    return [
        _recipes(quantity, mine, others),
        _control(entry, spec),
        _rival(entry, _best(quantity, rivals)) if rivals else "–",
    ]


def is_accuracy(quantity: str) -> bool:
    """Whether a quantity of figures.cells is an accuracy or an error of a test set."""
    return any(word in quantity for word in ("err", "acc", "top1", "top5"))


def better(quantity: str) -> Callable[[float], float]:
    """A key whose least value is the best one."""
    return (lambda value: value) if "err" in quantity else (lambda value: -value)


def _best(quantity: str, found: Iterable[Ours]) -> Ours:
    return min(found, key=lambda one: better(quantity)(fmean(one.values)))


def _recipes(quantity: str, mine: Ours, others: list[Ours]) -> str:
    if not others:
        return "one"
    others = sorted(others, key=lambda one: better(quantity)(fmean(one.values)))
    listed = ", ".join(tables.spread(one, quantity) for one in others)
    many = len(others) + 1
    if _best(quantity, [mine, *others]) is mine:
        return f"best of {many}, chosen on test error; the other{'s' * (many > 2)}: {listed}"
    return f"{many}, not the best of them; the other{'s' * (many > 2)}: {listed}"


def _control(entry: dict[str, str], spec: Spec) -> str:
    """The unpruned network that trained as long, or else longest of those that trained less."""
    wanted = _steps(spec)
    found = [(_steps(one), name) for name, one in controls(entry, spec).items()]
    found = [(steps, name) for steps, name in found if 0 < steps <= 1.02 * wanted]
    if not found:
        return "–"
    most = max(steps for steps, _ in found)
    alike = _of(entry, (name for steps, name in found if steps == most))
    told = tables.spread(_best(entry["quantity"], alike), entry["quantity"])
    return told if most >= 0.98 * wanted else f"{told}, {most:,.0f} steps for {wanted:,.0f}"


def _rival(entry: dict[str, str], one: Ours) -> str:
    return f"{look(_spec(entry, one.name).method).label} {tables.spread(one, entry['quantity'])}"


def named(entry: dict[str, str], name: str) -> Ours:
    """The cells of a name without its seed, in the row's table."""
    group = entry["table"]
    known = groups(entry["paper"]).get(group, ())
    pattern = "|".join(f"{group}/{cell}" for cell in known if name in (cell, SEED.sub("", cell)))
    if not pattern:
        raise UserError(
            "headline",
            name,
            f"no cell of {entry['paper']} {group} has this name",
            "see --list of the paper's scripts",
        )
    (found,) = cells.beside(
        Value(entry["paper"], group, "", "", "", entry["quantity"], "", pattern, "", ())
    )
    return found


def _of(entry: dict[str, str], names: Iterable[str]) -> list[Ours]:
    """What ran of these cells."""
    return [one for one in (named(entry, name) for name in names) if one.values]


def _spec(entry: dict[str, str], name: str) -> Spec:
    """Any seed's Spec of a cell."""
    known = groups(entry["paper"])[entry["table"]]
    return next(spec for cell, spec in known.items() if name in (cell, SEED.sub("", cell)))


def _others(entry: dict[str, str], spec: Spec) -> dict[str, Spec]:
    """The cells of the row's table, without their seeds, that start from the same dense network."""
    found: dict[str, Spec] = {}
    for cell, one in groups(entry["paper"])[entry["table"]].items():
        found.setdefault(SEED.sub("", cell), one)
    return {
        name: one
        for name, one in found.items()
        if one.scale == spec.scale
        and one.dataset.partition(":")[0] == spec.dataset.partition(":")[0]
        and all(getattr(one, field) == getattr(spec, field) for field in DENSE)
    }


def _amounts(spec: Spec) -> list[float]:
    return [getattr(spec, name) or 0 for name in AMOUNTS]


def siblings(entry: dict[str, str], spec: Spec) -> list[str]:
    """Cells of the same method and amount that differ in recipe alone, the row's own among them.
    What is read right after one pruning knows nothing of the training that follows.
    """
    free = RECIPE - ({"finetune"} if "pruning" in entry["quantity"] else set())
    own = spec.to_dict()
    out = []
    for name, one in _others(entry, spec).items():
        other = one.to_dict()
        differ = {key for key in own if own[key] != other[key]} - NO_RECIPE
        if "pruning" in entry["quantity"] and differ == {"finetune"}:
            continue
        if differ <= free and _amounts(one) == _amounts(spec):
            out.append(name)
    return out


def baselines(entry: dict[str, str], spec: Spec) -> list[str]:
    """Cells of other methods on the same schedule and images: of those that are nobody's own, and
    of those that the paper itself prints as rivals in this table.
    """
    printed = {v.method for v in read(entry["paper"]) if v.table == entry["table"]}
    return [
        name
        for name, one in _others(entry, spec).items()
        if one.method != spec.method
        and (METHODS[one.method].paper == "baseline" or look(one.method).label in printed)
        and one.dataset == spec.dataset
        and _amounts(one) == _amounts(spec)
        and all(getattr(one, field) == getattr(spec, field) for field in SCHEDULE)
    ]


def controls(entry: dict[str, str], spec: Spec) -> dict[str, Spec]:
    """Cells that remove nothing and train on the same images."""
    return {
        name: one
        for name, one in _others(entry, spec).items()
        if not any(_amounts(one)) and one.dataset == spec.dataset
    }


def _steps(spec: Spec) -> float:
    """Optimiser steps of any seed of a cell that was tuned; 0 where none was."""
    tuned = (stages["finetune"] for stages in runs(spec).values() if "finetune" in stages)
    return max((cells.iterations(record) for record in tuned), default=0)


def _printed(entry: dict[str, str]) -> str:
    """The paper's number beside the row's cell, or its lead over that beside another."""
    found = [
        next(
            (
                v
                for v in read(entry["paper"])
                if (v.table, v.quantity) == (entry["table"], entry["quantity"])
                and any(one.name == name for one in cells.beside(v))
            ),
            None,
        )
        for name in (entry["cell"], entry.get("over"))
        if name
    ]
    if None in found:
        raise UserError(
            "headline",
            entry["cell"],
            f"no line of {entry['paper']}/paper_values.csv names it",
            "see figures/values.py",
        )
    return found[0].value if len(found) == 1 else f"{found[0].number - found[1].number:.1f}"
