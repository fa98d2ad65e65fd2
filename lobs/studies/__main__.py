"""What L-OBS shows that is not a cell: Theorem 3.2, Table 2 (Net-Trim), Fig. 2b (memory), DNS, and
the ImageNet networks.

    python -m lobs.studies theorem | net-trim | dns | memory | imagenet [--model alexnet]
      [--examples 16] [--output-dir runs/lobs/studies]

Each writes one record; the numbers are in its trajectory. ImageNet networks are randomly
initialised: no accuracy is claimed.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

from common.cells.errors import Parser, choose, whole
from common.cells.spec import Spec
from common.running import study
from common.running.cli import guarded
from common.running.stages import data_of
from common.running.timing import Timer
from lobs.cells.networks import IMAGENET, LENET300
from lobs.studies.dns import surgery
from lobs.studies.imagenet import KEEPS, imagenet
from lobs.studies.memory import memory
from lobs.studies.net_trim import net_trim_table
from lobs.studies.theorem import theorem

log = logging.getLogger(__name__)
STUDIES: dict[str, tuple[Callable[..., list[dict]], Spec]] = {
    "theorem": (theorem, LENET300.but(table="theorem-3.2", cell="lenet300-theorem")),
    "net-trim": (net_trim_table, LENET300.but(table="2", cell="lenet300-net-trim")),
    "dns": (surgery, LENET300.but(table="1-dns", cell="lenet300-dns")),
    "memory": (memory, LENET300.but(table="figure-2b", cell="lenet300-memory")),
    "imagenet": (imagenet, IMAGENET),
}


def main(argv: list[str] | None = None) -> int:
    """Run a study; returns the exit status."""
    p = Parser(description=__doc__)
    p.add_argument("study", help=", ".join(STUDIES))
    p.add_argument(
        "--model",
        default="alexnet",
        help="for imagenet: alexnet, vgg16 or resnet50 (default: alexnet)",
    )
    p.add_argument(
        "--examples", type=whole(), default=16, help="for imagenet: images (default: 16)"
    )
    p.add_argument(
        "--data-dir", default="", help="data root; for imagenet the folder with train/<synset>/"
    )
    p.add_argument(
        "--output-dir",
        default="runs/lobs/studies",
        help="where the record goes (default: runs/lobs/studies)",
    )
    arguments = p.parse_args(argv)

    def work() -> None:
        name = choose("study", arguments.study, STUDIES)
        function, spec = STUDIES[name]
        spec, more = spec.but(data_dir=arguments.data_dir), {}
        if name == "imagenet":
            model = choose("model", arguments.model, KEEPS)
            spec = spec.but(model=model, sparsity=1 - KEEPS[model], cell=f"{model}-imagenet-path")
            more = {"examples": arguments.examples}
        timer = Timer()
        rows = function(spec, timer, **more)
        record = study.write(
            spec,
            rows,
            timer,
            Path(arguments.output_dir),
            data_sha256=data_of(spec).sha256,
            record_id=f"{spec.slug()}-{name}",
            method="l-obs",
        )
        log.info("wrote %s", record.id)

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
