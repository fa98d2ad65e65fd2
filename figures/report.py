"""The report: one HTML file that opens offline, with the table, the figures and each run's
provenance (templates/report.html).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from common.cells.record import Record
from figures import paired
from figures.columns import Column
from figures.page import page
from figures.panels import Drawing
from figures.records import ALONE, GROUPS, UNITS, Comparison, Row

WHEN = {"accuracy_finetuned": "after fine-tuning", "accuracy_pruned": "after pruning"}


def rankings(comparison: Comparison) -> list[list[Row]]:
    """For each group, unit and amount with a result: the rows that have a final accuracy and did
    not come short, best first.
    """
    final = comparison.final()
    there = (row for row in comparison.rows if row.stat(final).n and not row.short)
    return [
        sorted(rows, key=lambda row: -row.stat(final).mean)
        for _, rows in groupby(there, key=lambda row: (row.group, row.unit, row.amount))
    ]


def margin(ranked: list[Row], final: str) -> tuple[float, float | None]:
    """The best mean minus the second, and the larger of the two seed standard deviations; None
    where neither has one.
    """
    best, second = (row.stat(final) for row in ranked[:2])
    return best.mean - second.mean, max(
        (s for s in (best.std, second.std) if s is not None), default=None
    )


def overview(comparison: Comparison) -> list[str]:
    """A sentence for each group: which methods come first how often, and how often by more than the
    seeds scatter.
    """
    final, sentences = comparison.final(), []
    for group, lists in groupby(rankings(comparison), key=lambda ranked: ranked[0].group):
        lists = list(lists)
        firsts = Counter(ranked[0].label for ranked in lists).most_common()
        known = [
            (gap, scatter)
            for ranked in lists
            if len(ranked) > 1
            for gap, scatter in [margin(ranked, final)]
            if scatter is not None
        ]
        wins = ", ".join(f"{label} at {n} of {len(lists)}" for label, n in firsts)
        verdict = (
            "The margin over the next method exceeds the seed standard deviation at "
            f"{sum(g > s for g, s in known)} of the "
            f"{len(known)} amounts that have one"
            if known
            else "No seed standard deviation is known to hold the margins against"
        )
        sentences.append(
            f"{GROUPS[group]}, best accuracy {WHEN[final]}: {wins} amounts. {verdict}."
        )
    return sentences or ["No accuracy is recorded."]


def summary(comparison: Comparison) -> list[str]:
    """A sentence for each amount: the best method, its margin over the next, and whether that
    exceeds the seeds' scatter.
    """
    final, sentences = comparison.final(), []
    for ranked in rankings(comparison):
        best, stat = ranked[0], ranked[0].stat(final)
        seeds = (
            f"{stat.n} of {best.expected} seeds"
            if stat.n < best.expected
            else f"{stat.n} seed{'s' * (stat.n > 1)}"
        )
        text = (
            f"{GROUPS[best.group]}, {UNITS[best.unit]} {best.amount:g}: {best.label}, "
            f"{100 * stat.mean:.2f}% ({seeds})"
        )
        if len(ranked) == 1:
            sentences.append(text + "; no other method has a result.")
            continue
        gap, scatter = margin(ranked, final)
        text += f", {100 * gap:.2f} points above {ranked[1].label}"
        if scatter is None:
            text += "; too few seeds for a standard deviation"
        else:
            text += (
                f"; {'more' if gap > scatter else 'not more'} than the seed standard "
                f"deviation, {100 * scatter:.2f}"
            )
        kept = [row.stat("kept_weights").mean for row in ranked if row.stat("kept_weights").n]
        if kept and max(kept) - min(kept) > 0.01:
            text += (
                f". Kept weights differ, {100 * min(kept):.1f}% to {100 * max(kept):.1f}%: "
                "compare the curves"
            )
        sentences.append(text + ".")
    return sentences


def provenance(seed: int, record: Record) -> dict[str, object]:
    """Where a record comes from, in words."""
    known = record.provenance
    versions = known.get("versions") if isinstance(known.get("versions"), dict) else {}
    dirty = " with uncommitted changes" if known.get("dirty") else ""
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    fields = {
        "record": record.id,
        "git": f"{known.get('git', 'unknown')}{dirty}",
        "versions": listed or "unknown",
        "device": known.get("device", "unknown"),
        "threads": known.get("threads", "unknown"),
        "seed": seed,
        "data sha256": known.get("data_sha256", "unknown"),
        "command": known.get("command", "unknown"),
    }
    return fields | ({"notes": "; ".join(map(str, record.notes))} if record.notes else {})


def render(
    comparison: Comparison, columns: Sequence[Column], images: Sequence[tuple[Drawing, bytes]]
) -> str:
    """The page. images: each drawing with its PNG."""
    dense, tuned = comparison.dense, comparison.final() == "accuracy_finetuned"
    batches = f"{dense['recalibrate_bn']} batches" if dense["recalibrate_bn"] else "none"
    facts = {
        "Dense accuracy": "unknown"
        if dense["accuracy"] is None
        else f"{100 * dense['accuracy']:.2f}%",
        "Model": dense["model"],
        "Data set": dense["dataset"],
        "Scale": dense["scale"],
        "Methods": len({row.method for row in comparison.rows}),
        "Seeds": ", ".join(map(str, comparison.seeds)),
        "Fine-tuning": dense["finetune"],
        "Fine-tuned accuracy": "of the last epoch",
        "BatchNorm recalibration": batches,
        "Dense hash": dense["dense_hash"] or "unknown",
    }
    return page(
        "report",
        f"Pruning methods compared: {dense['model']} on {dense['dataset']}",
        facts=facts,
        overview=overview(comparison),
        summary=summary(comparison),
        tested=list(paired.sentences(comparison)),
        notes=comparison.notes,
        alone=ALONE,
        columns=columns,
        rows=comparison.rows,
        best=[ranked[0] for ranked in rankings(comparison)],
        final="Accuracy fine-tuned %" if tuned else "Accuracy pruned %",
        provenance=provenance,
        images=images,
    )
