"""How alike two methods order the weights: Spearman's correlation of when each weight goes, from a
comparison's masks.

    python -m common.agreement runs/compare/digits_cnn-digits      writes agreement.csv into that
                                                                   folder

A method's masks at rising sparsities tell at which sparsity it gives a weight up. That level, over
all prunable weights, is compared between methods (ties share their rank); `overlap` is the share of
kept weights in common at one sparsity, intersection over union. Only methods that remove single
weights have masks. Seed 0 of every cell.
"""

from __future__ import annotations

import csv
import logging
import sys
from itertools import combinations
from pathlib import Path

import torch
from scipy import stats
from torch import Tensor

from common.cells.errors import Parser, UserError
from common.cells.record import Record
from common.nets import checkpoint
from common.running.cli import guarded

log = logging.getLogger(__name__)


def levels(masks: dict[float, Tensor]) -> Tensor:
    """[n] how many of the sparsities each weight survives, as float; masks: sparsity -> bool [n],
    True = kept.
    """
    return torch.stack([masks[s].double() for s in sorted(masks)]).sum(0)


def overlap(one: Tensor, other: Tensor) -> float:
    """Intersection over union of two sets of kept weights; 1 where both are empty."""
    union = (one | other).sum().item()
    return (one & other).sum().item() / union if union else 1.0


def read(folder: Path) -> tuple[str, dict[str, dict[float, Tensor]]]:
    """(dense hash, method -> sparsity -> bool [n]) of seed 0; UserError for no such folder or for
    two dense networks.
    """
    if not folder.is_dir():
        raise UserError("folder", str(folder), "no such folder", "run the comparison first")
    found: dict[str, dict[float, Tensor]] = {}
    hashes = set()
    for path in sorted(folder.rglob("seed0/prune.json")):
        record = Record.read(path)
        sparsity = record.requested.get("sparsity")
        masks = (
            checkpoint.load_masks(path.with_name("pruned.safetensors"))
            if sparsity is not None
            else {}
        )
        if masks:
            hashes.add(record.dense_hash)
            found.setdefault(record.method, {})[sparsity] = torch.cat(
                [masks[name].flatten().cpu() for name in sorted(masks)]
            )
    if len(hashes) > 1:
        raise UserError(
            "dense_hash",
            sorted(hashes),
            "differs between the records",
            "give the folder of one comparison",
        )
    return next(iter(hashes), ""), found


def agreement(found: dict[str, dict[float, Tensor]]) -> list[dict]:
    """One entry for each pair of methods, over the sparsities that both have."""
    rows = []
    for one, other in combinations(sorted(found), 2):
        shared = sorted(set(found[one]) & set(found[other]))
        if not shared:
            continue
        a, b = ({s: found[m][s] for s in shared} for m in (one, other))
        rows.append(
            {
                "method": one,
                "other": other,
                "sparsities": " ".join(f"{s:g}" for s in shared),
                "spearman": round(float(stats.spearmanr(levels(a), levels(b)).statistic), 4),
                "overlap": " ".join(f"{overlap(a[s], b[s]):.4f}" for s in shared),
            }
        )
    return rows


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    p = Parser(description=__doc__)
    p.add_argument("folder", type=Path, help="a folder of runs, with their networks")
    p.add_argument("--output", type=Path, help="folder of agreement.csv (default: the same)")
    arguments = p.parse_args(argv)
    return guarded(lambda: _main(arguments.folder, arguments.output or arguments.folder))


def _main(folder: Path, output: Path) -> None:
    dense_hash, found = read(folder)
    if len(found) < 2:
        log.info("fewer than two methods left masks: there is no agreement to measure")
        return
    rows = [{"dense_hash": dense_hash} | row for row in agreement(found)]
    output.mkdir(parents=True, exist_ok=True)
    with (output / "agreement.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    log.info("%s", output / "agreement.csv")


if __name__ == "__main__":
    sys.exit(main())
