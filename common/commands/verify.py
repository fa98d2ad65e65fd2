"""Run committed cells again and say whether the same comes out: picked by a seed, each from its
record's own Spec.

    python -m common.verify --cells 40 --seed 1                    any papers, cells of at most five
                                                                   core-minutes
    python -m common.verify --cells 5 --paper lobs --table 1 --max-seconds 60

A cell is `bitwise` where every number and digest that both records have is the same, `equal` where
accuracies and kept counts are, and else `off`, with what differs. Each runs with the threads of its
record, as sums over threads round differently. Outcomes are written after every cell, with date,
commit and machine; a run that was stopped goes on at the same commit. Exit status 1 where a cell is
off or could not run.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from common.cells import committed
from common.cells.errors import LayerError, NumericalError, Parser, UserError, choose, whole
from common.cells.library import read_all, table_name
from common.cells.record import Record, core_seconds, write_json
from common.cells.spec import Spec
from common.running.cli import guarded

PAPERS = ("eigendamage", "lobs", "nap", "woodfisher", "compare")
OUTCOMES = ("bitwise", "equal", "off", "not run")
OUTPUT = committed.ROOT / "docs" / "evidence" / "verify.json"
COUNTS = ("sparsity", "kept_params", "kept_macs", "model_params")  # of Record.achieved
ACCURACIES = ("dense", "pruned", "last", "best")
LOSSES = ("dense", "pruned", "pruned_test", "predicted_increase", "measured_increase")
DIGESTS = ("data_sha256", "data_content_sha256", "mask_sha256", "file_sha256")  # of Record.identity
UNKNOWN = float("inf")


@dataclass(frozen=True, eq=False)
class Cell:
    """A committed cell: its last record, its Spec, and its core-seconds with and without its dense
    network's training.
    """

    record: Record
    spec: Spec
    seconds: float
    dense: float

    @property
    def name(self) -> str:
        return f"{self.spec.paper} {self.spec.table} {self.spec.cell} seed {self.spec.seed}"


def pool(papers: Sequence[str] = PAPERS, table: str = "") -> list[Cell]:
    """All committed cells, in an order of their own."""
    found = []
    for paper in papers:
        stages: dict[tuple[str, str, str], dict[str, Record]] = {}
        for record in read_all(committed.results(paper)):
            if (
                record.paper == paper
                and record.stage in ("prune", "finetune")
                and table_name(table) in ("", record.table)
            ):
                stages.setdefault(
                    (record.table, record.cell, record.id.removesuffix(f"-{record.stage}")), {}
                )[record.stage] = record
        found += [cell for _, these in sorted(stages.items()) if (cell := _cell(these)) is not None]
    return found


def _cell(stages: dict[str, Record]) -> Cell | None:
    last = stages.get("finetune") or stages["prune"]
    spec = committed.spec_of(last)
    if spec is None:
        return None
    train = committed.stages(spec).get("train")
    dense = _seconds(train) if train else UNKNOWN if spec.train.epochs else 0.0
    return Cell(
        last, spec, sum(map(_seconds, stages.values())) if "prune" in stages else UNKNOWN, dense
    )


def _seconds(record: Record) -> float:
    return UNKNOWN if record.timing.get("resumed") else core_seconds(record)


def chosen(cells: Sequence[Cell], count: int, seed: int, most: float) -> list[Cell]:
    """`count` of the cells that take at most `most` core-seconds, their dense networks included, by
    `seed`; all if there are fewer.
    """
    able = [cell for cell in cells if cell.seconds + cell.dense <= most]
    return random.Random(seed).sample(able, min(count, len(able)))


# -- the same again --------------------------------------------------------------------------------


def again(cell: Cell, folder: Path, data_dir: str, dense_runs: Path | None) -> Record:
    """The cell's last record, computed anew in `folder` with the threads and on the kind of device
    that the record names.
    """
    import torch

    from common.running import pipeline

    told = cell.record.provenance
    device = "cpu" if "cores" in str(told.get("device", "cores")) else "cuda"
    spec = cell.spec.but(
        output_dir=str(folder), data_dir=data_dir, device=device, allow_untrained=True
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(told.get("threads") or 1)
    try:
        if dense_runs is not None:
            _take_dense(cell, spec, dense_runs)
        return pipeline.VERBS[cell.record.stage](spec)
    finally:
        torch.set_num_threads(threads)
        shutil.rmtree(pipeline.cell_folder(spec), ignore_errors=True)


def _take_dense(cell: Cell, spec: Spec, runs: Path) -> None:
    """Copy the dense network from other runs where its digest is the one in the record."""
    from common.running import pipeline

    there, here = pipeline.dense_folder(spec.but(output_dir=str(runs))), pipeline.dense_folder(spec)
    if (
        (there / "train.json").exists()
        and not here.exists()
        and Record.read(there / "train.json").dense_hash == cell.record.dense_hash
    ):
        shutil.copytree(there, here, ignore=shutil.ignore_patterns(".*", "*.lock"))


def differences(old: Record, new: Record) -> tuple[str, list[str]]:
    """(outcome, what differs as "name: committed -> now"), over what both records have."""
    coarse = [
        *_differ("accuracy", old.accuracy, new.accuracy, ACCURACIES),
        *_differ("achieved", old.achieved, new.achieved, COUNTS),
    ]
    kept = [{layer["name"]: layer["kept"] for layer in record.layers} for record in (old, new)]
    coarse += _differ("kept", *kept, sorted(kept[0].keys() | kept[1].keys()))
    fine = [
        *_differ("loss", old.loss, new.loss, LOSSES),
        *_differ("identity", old.identity, new.identity, DIGESTS),
        *_differ("dense", {"hash": old.dense_hash}, {"hash": new.dense_hash}, ("hash",)),
    ]
    if old.trajectory and new.trajectory:
        ends = [
            {k: v for k, v in record.trajectory[-1].items() if not k.startswith("seconds")}
            for record in (old, new)
        ]
        fine += _differ("trajectory", *ends, sorted(ends[0]))
    return ("off" if coarse else "equal" if fine else "bitwise"), coarse + fine


def _differ(part: str, old: dict, new: dict, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if name in old and name in new and old[name] not in ("", None) and old[name] != new[name]:
            yield f"{part}.{name}: {_short(old[name])} -> {_short(new[name])}"


def _short(value: object) -> str:
    return value[:12] if isinstance(value, str) else f"{value!r}"


# -- the command line ------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status, 1 where a cell is off or could not run."""
    p = Parser(description=__doc__)
    p.add_argument("--cells", type=whole(), default=10, help="how many (default: 10)")
    p.add_argument("--seed", type=whole(0), default=1, help="of the choice (default: 1)")
    p.add_argument(
        "--max-seconds",
        type=whole(),
        default=300,
        help="core-seconds of a cell, dense network included (default: 300)",
    )
    p.add_argument(
        "--paper",
        default="",
        help=f"only this one's: {', '.join(PAPERS)} (compare: of the comparisons)",
    )
    p.add_argument("--table", default="", help="only this table's, as the records call it")
    p.add_argument(
        "--dense-runs",
        type=Path,
        help="take dense networks from these runs, where their digest is the record's",
    )
    p.add_argument(
        "--data-dir", default="", help="data root (default: $DATA_DIR, ./data, or ../data)"
    )
    p.add_argument(
        "--folder",
        type=Path,
        default=Path("runs/verify"),
        help="where cells are run (default: runs/verify)",
    )
    p.add_argument(
        "--output",
        type=Path,
        default=OUTPUT,
        help="file of the outcomes (default: docs/evidence/verify.json)",
    )
    arguments = p.parse_args(argv)
    bad: list[bool] = []
    return guarded(lambda: bad.append(_main(arguments))) or int(any(bad))


def _main(a: argparse.Namespace) -> bool:
    """Whether a cell is off or could not run."""
    papers = (choose("paper", a.paper, PAPERS),) if a.paper else PAPERS
    cells = pool(papers, a.table)
    picked = chosen(cells, a.cells, a.seed, a.max_seconds)
    if not picked:
        raise UserError(
            "max_seconds",
            a.max_seconds,
            f"none of {len(cells)} cells takes so little",
            "raise it, or choose another table",
        )
    import torch

    from common.system import machine

    told = machine.provenance(torch.device("cpu"), a.seed)
    asked = {
        "cells": a.cells,
        "seed": a.seed,
        "max_seconds": a.max_seconds,
        "paper": a.paper,
        "table": a.table,
    }
    rows = _rows(a.output, told, asked)
    folder = a.folder / told["git"][:12]
    if told["dirty"]:
        shutil.rmtree(folder, ignore_errors=True)  # made by other code, for all we know
    print(
        f"{len(picked)} of {sum(cell.seconds + cell.dense <= a.max_seconds for cell in cells)} "
        f"cells of at most {a.max_seconds} "
        f"core-seconds ({len(cells)} in all); {len(rows)} done before",
        flush=True,
    )
    done, start, spent = {(row["cell"], row["id"]) for row in rows}, time.monotonic(), 0.0
    todo = [cell for cell in picked if (cell.name, cell.record.id) not in done]
    for i, cell in enumerate(todo):
        row = _row(cell, folder, a, told)
        rows.append(row)
        write_json(a.output, _report(told, asked, len(cells), rows))
        spent += cell.seconds
        ahead = sum(other.seconds for other in todo[i + 1 :])
        left = ahead * (time.monotonic() - start) / max(spent, 1e-9) / 60
        print(
            f"[{len(rows)}/{len(picked)}] {row['outcome']:8} {cell.name}, {row['seconds']:.0f} s; "
            f"about {left:.0f} min left"
        )
        print("".join(f"    {line}\n" for line in row["differs"]), end="", flush=True)
    write_json(a.output, _report(told, asked, len(cells), rows))
    shutil.rmtree(folder, ignore_errors=True)
    counts = Counter(row["outcome"] for row in rows)
    print(", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES) + f"; {a.output}")
    return bool(counts["off"] or counts["not run"])


def _row(cell: Cell, folder: Path, a: argparse.Namespace, told: dict) -> dict:
    """Run one cell and say what came of it."""
    made, start = cell.record.provenance, time.monotonic()
    try:
        outcome, differs = differences(cell.record, again(cell, folder, a.data_dir, a.dense_runs))
    except (UserError, NumericalError, LayerError) as error:
        outcome, differs = (
            "not run",
            [" ".join(str(error).split()).replace(str(folder), folder.name)],
        )
    same = {
        "machine": made.get("machine", "") == told["machine"] if made.get("machine") else None,
        "device": made.get("device") == told["device"],
        "versions": made.get("versions") == told["versions"],
    }
    return {
        "cell": cell.name,
        "id": cell.record.id,
        "outcome": outcome,
        "differs": differs,
        "threads": made.get("threads"),
        "seconds": round(time.monotonic() - start, 1),
        "recorded_at": made.get("git", ""),
        "recorded_dirty": made.get("dirty"),
        "same": same,
    }


def _rows(output: Path, told: dict, asked: dict) -> list[dict]:
    """The rows of a run with the same settings from the same commit that was stopped; [] where
    there is none.
    """
    try:
        before = json.loads(output.read_text(encoding="utf-8"))
        same = (before["commit"], before["dirty"], before["asked"], before["machine"]) == (
            told["git"],
            False,
            asked,
            told["machine"],
        )
        return before["rows"] if same and not told["dirty"] else []
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _report(told: dict, asked: dict, size: int, rows: list[dict]) -> dict:
    counts = Counter(row["outcome"] for row in rows)
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": told["git"],
        "dirty": told["dirty"],
        "machine": told["machine"],
        "device": told["device"],
        "versions": told["versions"],
        "command": told["command"],
        "asked": asked,
        "committed_cells": size,
        "outcomes": {outcome: counts[outcome] for outcome in OUTCOMES},
        "rows": rows,
    }


if __name__ == "__main__":
    sys.exit(main())
