"""What NAP shows that is not a cell: Fig. 4 and Figs. 2 and 3 (weights and importance), Fig. 7
(channels that survive), latency, and the ImageNet networks' whole pruning path.

    python -m nap.studies importance [--cell lenet5-200x-nap-seed0]
    python -m nap.studies survivors
    python -m nap.studies latency [--cell resnet20-]
    python -m nap.studies imagenet --model vgg16 --data-dir <folder with train/>
        [--output-dir runs/nap/studies]

Each writes one record; the numbers are in its trajectory. All but imagenet read networks that
`nap.finetune` has left below runs/; ImageNet networks have random weights, so that no accuracy is
claimed of them.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from common.cells.errors import Parser, choose
from common.cells.spec import Spec
from common.running import study
from common.running.cli import guarded
from common.running.timing import Timer
from nap.experiments import TABLES
from nap.studies.imagenet import imagenet
from nap.studies.importance import weights
from nap.studies.latency import latencies
from nap.studies.survivors import survivors

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    p = Parser(description=__doc__)
    p.add_argument(
        "study", choices=("importance", "survivors", "latency", "imagenet"), help="what to measure"
    )
    p.add_argument(
        "--cell",
        default="",
        help="only cells whose name contains this (importance: one cell of table 3)",
    )
    p.add_argument(
        "--model", default="vgg16", help="of imagenet: vgg16 or resnet50 (default: vgg16)"
    )
    p.add_argument(
        "--data-dir", default="", help="data root (default: $DATA_DIR, ./data, or ../data)"
    )
    p.add_argument(
        "--runs", default="runs", help="where nap.finetune has left its networks (default: runs)"
    )
    p.add_argument(
        "--output-dir",
        type=Path,
        default=Path("runs/nap/studies"),
        help="where the record goes (default: runs/nap/studies)",
    )
    return guarded(lambda: _study(p.parse_args(argv)))


def _study(a: argparse.Namespace) -> None:
    timer, name, method = Timer(), a.study, "nap-channel"
    place = {"output_dir": a.runs, "data_dir": a.data_dir}

    def cells(table: str) -> list[Spec]:
        found = (spec for spec in TABLES[table].values() if spec.scale == "cpu")
        return [spec.but(**place) for spec in found if a.cell in spec.cell]

    if a.study == "importance":
        cell = choose("cell", a.cell or "lenet5-200x-nap-seed0", TABLES["3"])
        spec = TABLES["3"][cell].but(**place)
        rows, name, method = weights(spec, timer), f"{spec.model}-importance", "nap"
    elif a.study == "survivors":
        # five settings, not ten
        every = a.cell.endswith("every-step")
        rows = survivors([s for s in cells("5") if s.cell.endswith("-every-step") == every])
    elif a.study == "latency":
        rows = latencies(cells("1"), timer)
    else:
        rows, name = imagenet(a.model, a.data_dir, timer), f"{a.model}-imagenet-path"
    spec = Spec(paper="nap", table="studies", cell=name, scale="cpu")
    record = study.write(spec, rows, timer, a.output_dir, record_id=name, method=method)
    log.info("%s", a.output_dir / f"{record.cell}.json")


if __name__ == "__main__":
    sys.exit(main())
