"""The columns of the comparison's table: what each says of a row, and what it sorts by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from figures.records import UNITS, Row, Stat

NOTHING = "–"


@dataclass(frozen=True)
class Column:
    """A column of the printed tables: its heading, a row's text in it, and the number it sorts by
    (None sorts last).
    """

    heading: str
    text: Callable[[Row], str]
    value: Callable[[Row], float | str | None]


def spread(stat: Stat, expected: int) -> str:
    """Percent as "97.12 ± 0.31 (3)": mean, sample standard deviation, and seeds; "(2 of 3)" where
    seeds are missing.
    """
    seeds = f"({stat.n})" if stat.n == expected else f"({stat.n} of {expected})"
    if not stat.n:
        return f"missing {seeds}"
    return (
        f"{100 * stat.mean:.2f} ± {NOTHING if stat.std is None else f'{100 * stat.std:.2f}'} "
        f"{seeds}"
    )


def _mean(heading: str, quantity: str, form: str, factor: float = 1.0) -> Column:
    def value(row: Row) -> float | None:
        mean = row.stat(quantity).mean
        return None if mean is None else factor * mean

    return Column(
        heading, lambda row: NOTHING if value(row) is None else format(value(row), form), value
    )


def _kept() -> Column:
    """With a word on rows that came short of what was asked."""
    column = _mean("Kept weights %", "kept_weights", ".2f", 100)
    return replace(
        column, text=lambda row: column.text(row) + (f", {row.mark}" if row.short else "")
    )


def _accuracy(heading: str, quantity: str) -> Column:
    return Column(
        heading,
        lambda row: spread(row.stat(quantity), row.expected),
        lambda row: row.stat(quantity).mean,
    )


COLUMNS = (
    Column("Method", lambda row: row.label, lambda row: row.label.casefold()),
    Column("Kind", lambda row: row.kind, lambda row: row.kind),
    Column("Requested", lambda row: f"{UNITS[row.unit]} {row.amount:g}", lambda row: row.amount),
    _mean("Sparsity", "achieved_sparsity", ".4f"),
    _kept(),
    _mean("Kept MACs %", "kept_macs", ".2f", 100),
    _accuracy("Accuracy pruned %", "accuracy_pruned"),
    _accuracy("Accuracy fine-tuned %", "accuracy_finetuned"),
    _mean("Predicted Δloss", "predicted_increase", ".3g"),
    _mean("Measured Δloss", "measured_increase", ".3g"),
    _mean("Core-seconds", "core_s", ".2f"),
    Column(
        "Peak MB",
        lambda row: (
            format(max(row.stat("peak_rss_mb").values), ".0f")
            if row.stat("peak_rss_mb").n
            else NOTHING
        ),
        lambda row: max(row.stat("peak_rss_mb").values, default=None),
    ),
)
