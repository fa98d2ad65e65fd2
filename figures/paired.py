"""Statistics over a comparison's rows: ranks, paired differences over seeds, how well losses are
predicted, who agrees with whom.

Seeds pair: seed k has the same calibration images and the same order of fine-tuning under every
method. Amounts are the blocks of the rank test, each with its mean over seeds. With the two or
three seeds of a small comparison a t-test has little power, and the corrected p says so.
"""

from __future__ import annotations

import csv
import itertools
import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from common.cells.errors import UserError
from figures.records import GROUPS, UNITS, Comparison, Row, Stat
from figures.stats import paired_p, spearman
from figures.style import look, rank

LEVEL = 0.05


@dataclass(frozen=True)
class Ranking:
    """Mean ranks (1 is best) over the amounts at which every one of the methods has a result, and
    Friedman's p of equal methods. At each amount methods are ranked by their means over the seeds
    that all of them have."""

    group: str
    unit: str
    amounts: tuple[float, ...]
    ranks: tuple[tuple[str, float], ...]  # method, mean rank; best first
    p: float | None


def rankings(comparison: Comparison, quantity: str | None = None) -> list[Ranking]:
    """One for each group and unit with two methods or more, by a key of QUANTITIES where more is
    better (default: the final accuracy). Ties share their rank. p is None below three methods or
    two amounts. An amount at which a method came short (Row.short) has no ranks, and a method that
    came short at all of them is not ranked."""
    final, out = quantity or comparison.final(), []
    for group, unit in itertools.product(GROUPS, UNITS):
        found = _runs(comparison, group, unit).dropna(subset=final)
        found = found[~found.groupby("method").short.transform("all").astype(bool)]
        found = found[~found.amount.isin(found[found.short].amount)]
        wide = found.pivot(index=["amount", "seed"], columns="method", values=final)
        wide = wide.loc[:, (wide.groupby("amount").count() > 0).all()]
        means = wide.dropna().groupby("amount").mean().round(12)
        if means.shape[1] < 2 or means.empty:
            continue
        ranks = means.rank(axis=1, ascending=False).mean().to_dict()
        tested = means.shape[1] > 2 and len(means) > 1
        p = stats.friedmanchisquare(*means.to_numpy().T).pvalue if tested else math.nan
        order = sorted(ranks.items(), key=lambda pair: (pair[1], rank(pair[0])))
        p = None if math.isnan(p) else float(p)
        out.append(Ranking(group, unit, tuple(means.index), tuple(order), p))
    return out


def _runs(comparison: Comparison, group: str, unit: str) -> pd.DataFrame:
    runs = comparison.runs
    return runs[(runs.group == group) & (runs.unit == unit)]


@dataclass(frozen=True)
class Difference:
    """`method` minus `reference` in final accuracy (fractions) over the seeds that both have."""

    method: str
    reference: str
    unit: str
    amount: float
    n: int
    mean: float
    # 95% interval of Student's t; None below two seeds, and where all seeds differ by the same
    low: float | None
    high: float | None
    p: float | None  # two-sided paired t-test, Holm-corrected over the methods at this amount

    @property
    def clear(self) -> bool:
        return self.p is not None and self.p < LEVEL


def differences(comparison: Comparison) -> list[Difference]:
    """Every method against the best-ranked of its group, at every amount that both have."""
    final, out = comparison.final(), []
    for ranking in rankings(comparison):
        reference = ranking.ranks[0][0]
        runs = _runs(comparison, ranking.group, ranking.unit)
        wide = runs[~runs.short].pivot(index=["amount", "seed"], columns="method", values=final)
        for amount in ranking.amounts:
            at = wide.loc[amount]
            mine = [
                _difference(at[[method, reference]].dropna(), ranking.unit, amount)
                for method in sorted(at, key=rank)
                if method != reference
            ]
            out += _holm([one for one in mine if one is not None])
    return out


def _difference(pair: pd.DataFrame, unit: str, amount: float) -> Difference | None:
    """Of a method's column and the reference's, a line a seed; None without a seed."""
    if pair.empty:
        return None
    (method, mine), (reference, theirs) = pair.items()
    gaps, low, high = mine - theirs, None, None
    p = paired_p(mine, theirs)
    if p is not None:
        low, high = map(float, stats.t.interval(0.95, len(gaps) - 1, gaps.mean(), gaps.sem()))
    mean = float(gaps.mean())
    return Difference(method, reference, unit, amount, len(gaps), mean, low, high, p)


def _holm(family: list[Difference]) -> list[Difference]:
    """Holm's correction of the p of one family."""
    tested = sorted((d for d in family if d.p is not None), key=lambda d: d.p)
    corrected, worst = {}, 0.0
    for i, one in enumerate(tested):
        worst = max(worst, min(1.0, one.p * (len(tested) - i)))
        corrected[one.method] = worst
    return [Difference(**{**vars(one), "p": corrected.get(one.method)}) for one in family]


COSTS = {"kept_weights": "kept weights", "kept_macs": "kept MACs"}
LEVELS = (0.8, 0.6, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)


def at_equal_cost(comparison: Comparison, group: str, cost: str) -> dict[str, dict[float, Stat]]:
    """method -> kept fraction -> final accuracy there, a value a seed; fractions that two methods
    reach at least.

    Methods asked for the same units keep different shares of weights and MACs; here each seed's
    curve is read at equal shares, by linear interpolation in the logarithm of what is kept, never
    beyond its ends. What came short stands there at what it kept, unless it kept all.
    """
    runs, out = comparison.runs, {}
    runs = runs[(runs.group == group) & ~runs.untouched & (runs[cost] > 0)]
    runs = runs.dropna(subset=comparison.final()).sort_values([cost, comparison.final()])
    for (method, _), curve in runs.groupby(["method", "seed"]):
        across, up = np.log(curve[cost]), curve[comparison.final()]
        for level in LEVELS:
            if across.iloc[0] <= math.log(level) <= across.iloc[-1]:
                read = float(np.interp(math.log(level), across, up))
                out.setdefault(method, {}).setdefault(level, []).append(read)
    out = {m: {a: Stat(tuple(v)) for a, v in found.items()} for m, found in out.items()}
    shared = {level for level in LEVELS if sum(level in found for found in out.values()) > 1}
    return {
        m: {a: s for a, s in out[m].items() if a in shared}
        for m in sorted(out, key=rank)
        if shared & set(out[m])
    }


@dataclass(frozen=True)
class Prediction:
    """How a method's predicted loss increase follows the measured one over its amounts and
    seeds.
    """

    method: str
    n: int
    # between predicted and measured; None below three points or where one never changes
    spearman: float | None
    ratio: float  # median of predicted / measured
    within: float  # share of points within a factor of two


def predictions(comparison: Comparison) -> list[Prediction]:
    """Methods that predict, in the order of legends; only points where both increases are positive
    count, of rows that did not come short.
    """
    runs = comparison.runs
    found = runs[~runs.short & (runs.predicted_increase > 0) & (runs.measured_increase > 0)]
    out = []
    for method in sorted(found.method.unique(), key=rank):
        points = found[found.method == method]
        ratios = points.predicted_increase / points.measured_increase
        order = spearman(points.predicted_increase, points.measured_increase)
        within = float(ratios.between(0.5, 2).mean())
        out.append(Prediction(method, len(points), order, float(ratios.median()), within))
    return out


@dataclass(frozen=True)
class Agreement:
    """A symmetric matrix of rank correlations between methods; nan where two share too little."""

    what: str
    methods: tuple[str, ...]
    values: np.ndarray


def profiles(comparison: Comparison, group: str) -> Agreement:
    """Of the kept fraction of each layer, averaged over the amounts that two methods share: do they
    cut in the same layers?

    Rows that keep the same fraction in every layer, up to a weight or to chance, have nothing to
    rank and do not count; nor do those that came short of what was asked.
    """
    rows = [
        row
        for row in comparison.group(group)
        if row.runs and row.method != "random" and not row.short and not _even(row)
    ]
    methods = tuple(sorted({row.method for row in rows}, key=rank))
    kept = {(row.method, row.unit, row.amount): row.kept_by_layer() for row in rows}
    values = np.full((len(methods), len(methods)), np.nan)
    for i, one in enumerate(methods):
        for j, other in enumerate(methods[: i + 1]):
            shared = [
                (mine, kept[other, unit, amount])
                for (m, unit, amount), mine in kept.items()
                if m == one and (other, unit, amount) in kept
            ]
            found = [
                spearman([a[n] for n in a if n in b], [b[n] for n in a if n in b])
                for a, b in shared
            ]
            found = [f for f in found if f is not None]
            if found:
                values[i, j] = values[j, i] = statistics.fmean(found)
    return Agreement("kept fraction of each layer", methods, values)


def _even(row: Row) -> bool:
    layers = [
        e
        for e in row.runs[0].first("prune", "finetune").layers
        if isinstance(e, dict) and e.get("total")
    ]
    share = sum(e["kept"] for e in layers) / max(1, sum(e["total"] for e in layers))
    return all(abs(e["kept"] - share * e["total"]) <= 1.5 for e in layers)


def read_agreement(path: Path, comparison: Comparison) -> Agreement:
    """agreement.csv of `python -m common.agreement`: how alike two methods order the weights.
    UserError when it is of another network.
    """
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    hashes = {line["dense_hash"] for line in lines}
    if hashes != {comparison.dense["dense_hash"]}:
        raise UserError(
            "dense_hash",
            sorted(hashes),
            f"of {path.name} is not the records' {comparison.dense['dense_hash']}",
            "run python -m common.agreement again",
        )
    methods = tuple(sorted({line[end] for line in lines for end in ("method", "other")}, key=rank))
    values = np.full((len(methods), len(methods)), np.nan)
    for line in lines:
        i, j = methods.index(line["method"]), methods.index(line["other"])
        values[i, j] = values[j, i] = float(line["spearman"])
    return Agreement("order in which single weights go", methods, values)


def sentences(comparison: Comparison) -> Iterator[str]:
    """The statistics in words, a line each."""
    for ranking in rankings(comparison):
        listed = ", ".join(f"{look(method).label} {mean:.1f}" for method, mean in ranking.ranks)
        p = "" if ranking.p is None else f"; Friedman's test of equal methods p = {ranking.p:.2g}"
        amounts = f"{len(ranking.amounts)} amount{'s' * (len(ranking.amounts) > 1)}"
        yield f"{GROUPS[ranking.group]}, mean rank over {amounts}: {listed}{p}."
        mine = [
            d
            for d in differences(comparison)
            if d.reference == ranking.ranks[0][0] and d.unit == ranking.unit
        ]
        tested = [d for d in mine if d.p is not None]
        if tested:
            clear = sum(d.clear for d in tested)
            yield (
                f"Paired over seeds against {look(mine[0].reference).label}: {clear} of "
                f"{len(tested)} differences are clear of zero "
                f"(two-sided paired t-test, Holm-corrected at each amount, level {LEVEL:g}; the "
                "seeds are of pruning and fine-tuning one dense network)."
            )
    told = [
        f"{look(p.method).label} {p.ratio:.2g}"
        + ("" if p.spearman is None else f" (order {p.spearman:.2f})")
        for p in predictions(comparison)
    ]
    if told:
        yield (
            "Predicted over measured loss increase, median over amounts and seeds, and "
            "Spearman's correlation of the two: "
            f"{', '.join(told)}."
        )


def markdown(comparison: Comparison) -> str:
    """statistics.md: the sentences, and a table of the paired differences for each group."""

    def row(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    lines = [f"- {sentence}" for sentence in sentences(comparison)]
    every = differences(comparison)
    for reference, unit in dict.fromkeys((d.reference, d.unit) for d in every):
        mine = {
            (d.method, d.amount): d for d in every if (d.reference, d.unit) == (reference, unit)
        }
        amounts, methods = sorted({a for _, a in mine}), dict.fromkeys(m for m, _ in mine)
        lines += [
            "",
            f"Final accuracy minus that of {look(reference).label}, in points over paired seeds "
            "[95% interval]; a star: clear of "
            f"zero at {LEVEL:g} after Holm's correction.",
            "",
            row([UNITS[unit], *(f"{a:g}" for a in amounts)]),
            row(["---", *("---:" for _ in amounts)]),
        ]
        lines += [
            row([_safe(look(m).label), *(_told(mine.get((m, a))) for a in amounts)])
            for m in methods
        ]
    for group in comparison.groups():
        for cost, words in COSTS.items():
            table = at_equal_cost(comparison, group, cost)
            # asked for alike already
            if group == "weights" and cost == "kept_weights" or not table:
                continue
            shares = sorted({a for found in table.values() for a in found}, reverse=True)
            lines += [
                "",
                f"{GROUPS[group]}: final accuracy in percent at equal {words}, read off each "
                "seed's curve.",
                "",
                row([f"% of {words}", *(f"{100 * a:g}" for a in shares)]),
                row(["---", *("---:" for _ in shares)]),
            ]
            lines += [
                row([_safe(look(m).label), *(_stat(found.get(a)) for a in shares)])
                for m, found in table.items()
            ]
    return "\n".join(lines) + "\n"


def _stat(one: Stat | None) -> str:
    return (
        "–"
        if one is None
        else f"{100 * one.mean:.2f}"
        + ("" if one.std is None else f" ± {100 * one.std:.2f} ({one.n})")
    )


def _safe(label: str) -> str:
    return (
        "".join(c if c.isprintable() else " " for c in label)
        .replace("|", "\\|")
        .replace("<", "&lt;")
    )


def _told(one: Difference | None) -> str:
    if one is None:
        return "–"
    interval = "" if one.low is None else f" [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"
    return f"{100 * one.mean:+.2f}{interval}{' *' * one.clear}"
