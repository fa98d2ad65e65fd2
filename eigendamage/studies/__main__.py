"""What EigenDamage shows that is not a cell: the Fisher in two bases (Fig. 2), Example 1, the
promised wall-clock speed-ups, and where prediction and measurement part.

    python -m eigendamage.studies fisher-basis | example1 | prediction | latency [--table 1
      --network cpu-resnet32] [--output-dir ...]

Each writes one record; the numbers are in its trajectory, the matrices of Fig. 2 in an .npz beside
it. latency reads the networks that `eigendamage.prune` left below runs/.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

from common.cells.errors import Parser, choose
from common.cells.spec import Spec
from common.running import study
from common.running.cli import guarded
from common.running.timing import Timer
from eigendamage.cells.networks import VGG
from eigendamage.experiments import TABLES
from eigendamage.studies import example1, fisher_basis, latency, prediction

log = logging.getLogger(__name__)
STUDIES: dict[str, tuple[Callable, Spec]] = {
    "fisher-basis": (fisher_basis.fisher_basis, fisher_basis.MLP),
    "example1": (
        example1.rows,
        Spec(paper="eigendamage", table="Example 1", cell="example1", method="example1"),
    ),
    "prediction": (
        prediction.predictions,
        VGG.but(table="prediction", cell="prediction", method="eigendamage", fisher="exact"),
    ),
    "latency": (
        latency.wall_clock,
        Spec(paper="eigendamage", table="latency", method="latency", scale="cpu"),
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run a study; returns the exit status."""
    p = Parser(description=__doc__)
    p.add_argument("study", help=", ".join(STUDIES))
    p.add_argument("--table", default="1", help=f"for latency: {', '.join(TABLES)} (default: 1)")
    p.add_argument(
        "--network",
        default="cpu-resnet32",
        help="for latency: how the names of its cells begin (default: cpu-resnet32)",
    )
    p.add_argument(
        "--data-dir", default="", help="data root (default: $DATA_DIR, ./data, or ../data)"
    )
    p.add_argument("--runs", default="runs", help="where networks are kept (default: runs)")
    p.add_argument(
        "--output-dir",
        default="runs/eigendamage/studies",
        help="where the record goes (default: runs/eigendamage/studies)",
    )
    arguments = p.parse_args(argv)

    def work() -> None:
        name, output = choose("study", arguments.study, STUDIES), Path(arguments.output_dir)
        function, spec = STUDIES[name]
        spec, timer, more = (
            spec.but(data_dir=arguments.data_dir, output_dir=arguments.runs),
            Timer(),
            {},
        )
        if name == "latency":
            spec = spec.but(cell=f"latency-{arguments.network}")
            more = {"table": arguments.table, "network": arguments.network}
        record = study.write(spec, function(spec, timer, output, **more), timer, output)
        if name == "latency":  # measured on one thread, whatever the rest of the process has
            record.provenance["threads"] = 1
            record.write(output / f"{spec.cell}.json")
        log.info("wrote %s", record.id)

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
