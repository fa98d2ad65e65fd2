"""A table of records as two files: the numbers that a reviewer reads, and the rest.

    <table>.csv    a line a record, sorted by cell, seed and stage. A column is called by its place
                   in the record, `accuracy.pruned`; what the record does not have is empty.
    <table>.jsonl  {"base": name, "record": {...}}
                       the shape of some of the records, with the values that most of them have
                   {"provenance": name, "of": {...}}
                       a machine and a command, each distinct one once
                   {"id": ..., "base": name, "provenance": name, "line": digest, "own": {...}}
                       a record: what neither its line in the .csv, nor its base, nor its provenance
                       says of it

Every record is read back whole, with its keys in their order. A new record adds lines; the others
stay as they are. Bases and provenances are named by their content, so that two branches can be
merged line by line. `line` is the digest of the record's line in the .csv: two files that do not
belong together are refused.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from common.cells.errors import UserError
from common.cells.record import STAGES, replace_files

WORDS = ("id", "cell", "series", "method", "stage", "provenance.git")  # columns that hold text
COLUMNS = (
    *("id", "cell", "series", "method", "stage", "spec.seed"),
    *("requested.sparsity", "requested.unit_ratio"),
    *("achieved.sparsity", "achieved.kept_params", "achieved.kept_macs", "achieved.model_params"),
    *("accuracy.dense", "accuracy.pruned", "accuracy.last", "accuracy.best", "accuracy.valid"),
    *("loss.dense", "loss.pruned", "loss.predicted_increase", "loss.measured_increase"),
    *("loss.pruned_test", "timing.core_s", "provenance.git", "provenance.dirty"),
)
Fields = dict  # a record as JSON: field -> value
Place = tuple[str, ...]  # ("id",) or ("accuracy", "pruned")
PLACES: list[Place] = [tuple(column.split(".")) for column in COLUMNS]


def read(stem: Path) -> list[Fields]:
    """The records of <stem>.csv and <stem>.jsonl, in the order of the lines; none where there is no
    such table. Raises UserError for files that do not belong together."""
    bases, provenances, lines = _parts(stem)
    if not lines:
        return []
    try:
        with _named(stem, ".csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except OSError as error:
        raise _damaged(stem, f"its .csv cannot be read ({error.strerror})") from None
    columns = [tuple(name.split(".")) for name in rows[0]]
    told = {row[0]: row for row in rows[1:]}
    if len(told) != len(rows) - 1 or told.keys() != lines.keys():
        raise _damaged(stem, "its two files list different records")
    found = []
    for name, row in told.items():
        line = lines[name]
        if _digest(_said(rows[0], row)) != line["line"]:
            raise _damaged(stem, f"the line of {name} in the .csv is not the one of the .jsonl")
        given = {p: _value(p, text) for p, text in zip(columns, row, strict=True) if text}
        machine = {"provenance": provenances[line["provenance"]]} if line["provenance"] else {}
        found.append(_whole(bases[line["base"]], given, line["own"] | machine))
    return found


def merge(stem: Path, records: Iterable[Fields], without: Iterable[str] = ()) -> None:
    """Add records to <stem>.csv and <stem>.jsonl. One of an id that is there takes its place; the
    others are kept, except those of the ids `without`. Both files are written whole before either
    is replaced."""
    bases, provenances, _ = _parts(stem)
    gone = set(without)
    kept = {record["id"]: record for record in read(stem) if record["id"] not in gone}
    kept |= {record["id"]: record for record in records}
    shapes = {_shape(base): name for name, base in reversed(bases.items())}
    ordered = sorted(kept.values(), key=order)
    new: dict[tuple, list[Fields]] = {}
    for record in ordered:
        if _shape(record) not in shapes:
            new.setdefault(_shape(record), []).append(record)
    for shape, alike in new.items():
        base = _common(alike)
        shapes[shape] = _digest(base)
        bases[shapes[shape]] = base
    rows, lines, used = [], [], set()
    for record in ordered:
        name = shapes[_shape(record)]
        row = [_text(place, record) for place in PLACES]
        given = {place for place, text in zip(PLACES, row, strict=True) if text}
        own = _own(bases[name], given, record)
        machine = own.pop("provenance", {})
        if machine:
            provenances[_digest(machine)] = machine
        rows.append(row)
        lines.append(
            {
                "id": record["id"],
                "base": name,
                "provenance": _digest(machine) if machine else "",
                "line": _digest(_said(COLUMNS, row)),
                "own": own,
            }
        )
        used |= {name, lines[-1]["provenance"]}
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([COLUMNS, *rows])
    rest = [
        *({"base": name, "record": base} for name, base in bases.items() if name in used),
        *({"provenance": n, "of": of} for n, of in sorted(provenances.items()) if n in used),
        *lines,
    ]
    replace_files(
        {
            _named(stem, ".jsonl"): "".join(_json(entry) + "\n" for entry in rest),
            _named(stem, ".csv"): table.getvalue(),
        }
    )


def order(record: Fields) -> tuple:
    """By cell, seed and stage, as the lines of a table stand."""
    seed = record["spec"].get("seed", 0)
    return record["cell"], seed, STAGES.index(record["stage"]), record["id"]


# -- the parts of a record -------------------------------------------------------------------------


def _shape(record: Fields) -> tuple:
    """The record's keys and those of its fields, in their order."""
    return tuple((k, tuple(v) if isinstance(v, dict) else None) for k, v in record.items())


def _places(record: Fields) -> dict[Place, object]:
    """Place -> value, of all fields and of the entries of those that are dicts."""
    found: dict[Place, object] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            found |= {(key, name): entry for name, entry in value.items()}
        else:
            found[key,] = value
    return found


def _common(records: list[Fields]) -> Fields:
    """What records of one shape share: at each place the value of most of them; None where no two
    have the same, and for what the .csv or a provenance says."""
    counts: dict[Place, Counter[str]] = {}
    for record in records:
        for place, value in _places(record).items():
            counts.setdefault(place, Counter())[_json(value)] += 1
    base: Fields = {
        k: dict.fromkeys(v) if isinstance(v, dict) else None for k, v in records[0].items()
    }
    for place, values in counts.items():
        text, many = values.most_common(1)[0]
        elsewhere = ".".join(place) in COLUMNS or place[0] == "provenance"
        if not elsewhere and (many > 1 or place[0] == "spec"):
            *above, last = place
            (base[above[0]] if above else base)[last] = json.loads(text)
    return base


def _own(base: Fields, given: set[Place], record: Fields) -> Fields:
    """What of a record neither its base nor the places `given` in the .csv say."""
    usual, own = _places(base), {}
    for place, value in _places(record).items():
        if place not in given and (_json(value) != _json(usual[place]) or place[0] == "provenance"):
            *above, last = place
            (own.setdefault(above[0], {}) if above else own)[last] = value
    return own


def _whole(base: Fields, given: dict[Place, object], own: Fields) -> Fields:
    record = {}
    for key, usual in base.items():
        if isinstance(usual, dict):
            mine = own.get(key, {})
            record[key] = {
                name: mine[name] if name in mine else given.get((key, name), value)
                for name, value in usual.items()
            }
        else:
            record[key] = own[key] if key in own else given.get((key,), usual)
    return record


def _text(place: Place, record: Fields) -> str:
    """A value as the .csv has it; empty where there is none or it is no number."""
    field, *below = place
    found = record.get(field)
    for name in below:
        if not isinstance(found, dict) or name not in found:
            return ""
        found = found[name]
    if ".".join(place) in WORDS:
        return found if isinstance(found, str) else ""
    number = field in record and isinstance(found, bool | int | float | None)
    return _json(found) if number else ""


def _said(columns: Sequence[str], row: Sequence[str]) -> dict[str, str]:
    """What a line of the .csv says, by column; a column that came later changes nothing."""
    return {name: text for name, text in sorted(zip(columns, row, strict=True)) if text}


def _value(place: Place, text: str) -> object:
    return text if ".".join(place) in WORDS else json.loads(text)


# -- the files -------------------------------------------------------------------------------------


def _parts(stem: Path) -> tuple[dict[str, Fields], dict[str, Fields], dict[str, Fields]]:
    """(bases, provenances, lines of the records), each by name; empty where there is no table."""
    bases: dict[str, Fields] = {}
    provenances: dict[str, Fields] = {}
    lines: dict[str, Fields] = {}
    path = _named(stem, ".jsonl")
    if not path.exists():
        return bases, provenances, lines
    for number, text in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], 1):
        try:
            entry = json.loads(text)
            if "record" in entry:
                bases[entry["base"]] = entry["record"]
            elif "of" in entry:
                provenances[entry["provenance"]] = entry["of"]
            elif entry["id"] in lines:
                raise ValueError(f"{entry['id']} stands there twice")
            else:
                lines[entry["id"]] = entry
        except (ValueError, TypeError, KeyError) as error:
            raise _damaged(stem, f"line {number} of the .jsonl: {error}") from None
    return bases, provenances, lines


def _named(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def _damaged(stem: Path, what: str) -> UserError:
    return UserError("table", str(stem), what, "take both from one commit, or publish them again")


def _json(value: object) -> str:
    """Raises ValueError for NaN and infinities, which are no JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _digest(value: object) -> str:
    return hashlib.sha256(_json(value).encode()).hexdigest()[:8]
