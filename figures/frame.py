"""Committed records, studies and printed values as pandas frames: what figures and tables group and
average.

`records(paper)` has one line a record, its scalars as columns; accuracies and shares are percent.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from common.cells import library
from common.cells.errors import UserError
from common.cells.record import Record
from figures import values
from figures.values import ROOT

SEED = re.compile(r"-seed\d+$")


def results(paper: str) -> Path:
    """Where a paper's committed results lie."""
    return ROOT / paper / "results"


@functools.cache
def records(paper: str) -> pd.DataFrame:
    """Every committed record of a paper, in the order of their files.

    Columns: table, cell, name (the cell without its seed), network and series (of its curve),
    method, stage, scale, seed, model, dataset; sparsity, unit_ratio (asked for, fractions); dense,
    pruned, last (test accuracy, %), added (points of error above dense); loss_dense, loss_pruned;
    kept, params, macs (left of the weights, of all parameters, of the MACs, %), compression,
    speedup; record, the whole of it.
    """
    return frame(library.records(paper))


def frame(found: Iterable[Record]) -> pd.DataFrame:
    """`records` of any records."""
    columns = list(_line(Record("", "", "", "", "", "", "", {})))
    return pd.DataFrame([_line(record) for record in found], columns=columns)


def _line(record: Record) -> dict:
    name = SEED.sub("", record.cell)
    network, _, series = record.series.rpartition("/")
    dense, pruned, last = (_percent(record.accuracy, key) for key in ("dense", "pruned", "last"))
    kept, params, macs = (left(record, what) for what in ("weights", "params", "macs"))
    return {
        "table": record.table,
        "cell": record.cell,
        "name": name,
        "network": network or str(record.spec.get("model", "")).partition(":")[0],
        "series": series,
        "method": record.method,
        "stage": record.stage,
        "scale": record.scale,
        "seed": record.spec.get("seed", 0),
        "model": str(record.spec.get("model", "")),
        "dataset": str(record.spec.get("dataset", "")),
        "sparsity": record.requested.get("sparsity", np.nan),
        "unit_ratio": record.requested.get("unit_ratio", np.nan),
        "dense": dense,
        "pruned": pruned,
        "last": last,
        "added": dense - last,
        "loss_dense": record.loss.get("dense", np.nan),
        "loss_pruned": record.loss.get("pruned", np.nan),
        "kept": kept,
        "params": params,
        "macs": macs,
        "compression": 100 / kept if kept else np.nan,
        "speedup": 100 / macs if macs else np.nan,
        "record": record,
    }


def left(record: Record, what: str) -> float:
    """Percent that is left of the "weights", of all "params", or of the "macs"."""
    of, over = {
        "weights": ("kept_params", "dense_params"),
        "params": ("model_params", "dense_model_params"),
        "macs": ("kept_macs", "dense_macs"),
    }[what]
    return _percent(record.achieved, of, over)


def _percent(part: dict, key: str, over: str = "") -> float:
    value, whole = part.get(key), part.get(over) if over else 1
    return np.nan if value is None or not whole else 100 * value / whole


def some(found: pd.DataFrame, what: str, remedy: str) -> pd.DataFrame:
    """The same frame; UserError where it is empty."""
    if found.empty:
        raise UserError("results", what, "no such record", f"run {remedy}")
    return found


def study(paper: str, cell: str, remedy: str) -> Record:
    """The record of one study; UserError says how to make it."""
    found = records(paper)
    return some(found[found.cell == cell], cell, remedy).record.iloc[0]


def trajectory(found: pd.DataFrame) -> pd.DataFrame:
    """The entries of the records' trajectories, each with its record's cell."""
    return pd.DataFrame([{"cell": r.cell, **entry} for r in found.record for entry in r.trajectory])


def stored(paper: str, file: str, remedy: str) -> Path:
    """The path of another committed result; UserError says which is missing and what makes it."""
    path = results(paper) / file
    if not path.exists():
        raise UserError("results", file, "no such record", f"run {remedy}")
    return path


def measured(paper: str, file: str, remedy: str) -> object:
    """The content of a committed JSON file that is no record."""
    return json.loads(stored(paper, file, remedy).read_text(encoding="utf-8"))


@functools.cache
def printed(paper: str, table: str) -> pd.DataFrame:
    """The numbers that a paper prints in one of its tables or figures: a line each, columns as in
    paper_values.csv, and `number`, which is empty where the value is none.
    """
    lines = [
        {
            "model": v.model,
            "dataset": v.dataset,
            "method": v.method,
            "quantity": v.quantity,
            "value": v.value,
            "number": np.nan if v.number is None else v.number,
            **dict(v.setting),
        }
        for v in values.read(paper)
        if v.table == table
    ]
    return pd.DataFrame(lines)


def wide(found: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """Printed numbers with a line for each row of the paper's, a column of text a quantity."""
    return found.pivot_table(
        index=list(keys), columns="quantity", values="value", aggfunc="first", sort=False
    ).reset_index()


def spread(numbers: Iterable[float], form: str = ".2f") -> str:
    """Mean, with the range over several numbers."""
    found = pd.Series(list(numbers), dtype=float)
    text = f"{found.mean():{form}}"
    return text + (f" ({found.min():{form}} to {found.max():{form}})" if len(found) > 1 else "")


def markdown(heads: Sequence[str], lines: Iterable[Sequence[object]], rule: str = "---") -> str:
    """A Markdown table. DataFrame.to_markdown pads every column to its widest cell, so that one
    changed number would change each line of the committed tables."""
    head, *body = (f"| {' | '.join(map(str, line))} |" for line in (heads, *lines))
    return "\n".join([head, f"|{rule}" * len(heads) + "|", *body, ""])
