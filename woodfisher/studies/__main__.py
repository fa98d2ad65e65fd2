"""WoodFisher's experiments that are no (prune, fine-tune) cell.

    python -m woodfisher.studies choice --model resnet20     does WoodFisher choose otherwise than
                                                             magnitude? by rows and chunks
    python -m woodfisher.studies gradients --seed 0          the same by images, labels and lengths
                                                             of gradients, LeNet-300-100
    python -m woodfisher.studies hessian S2                  Figs. 1, S2, S3; S4
    python -m woodfisher.studies local-quadratic             Fig. 2
    python -m woodfisher.studies cost-tables                 Tables S6-S8
    python -m woodfisher.studies size resnet50               memory and seconds of a step

The first two write one record each, <study>-<network>-seed<k>.json; the others write into
woodfisher/results and have a help of their own.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from common.cells.errors import Parser, choose, whole
from common.cells.jobs import JOBS, job_of
from common.cells.record import Record
from common.cells.spec import Spec
from common.running import pipeline, study
from common.running.cli import guarded
from common.running.stages import data_of
from common.running.timing import Timer
from woodfisher.studies import choice, cost_tables, gradients, hessian, local_quadratic, size
from woodfisher.studies.parts import DAMPING, Entry

log = logging.getLogger(__name__)


def spec_of(name: str, model: str, seed: int) -> Spec:
    """The dense network of the comparison that has this network, under the study's own name."""
    dataset = {network: data for data, network in JOBS}[
        choose("model", model, [network for _, network in JOBS])
    ]
    job = job_of(dataset, model)
    full = f"{dataset}:{job.dataset_options}" if job.dataset_options else dataset
    return Spec(
        paper="woodfisher",
        table=name,
        cell=f"{name}-{model}-seed{seed}",
        scale=job.scale,
        model=model,
        dataset=full,
        train=job.train,
        checkpoint=job.checkpoint,
        method="woodfisher",
        damping=DAMPING,
        seed=seed,
    )


STUDIES: dict[str, tuple[Callable[[Spec, Timer], Iterator[Entry]], str]] = {
    "choice": (choice.choice, "resnet20"),
    "gradients": (gradients.gradients, "lenet300"),
}
# those with a command line of their own
OTHERS: dict[str, Callable[[list[str]], int]] = {
    "hessian": hessian.main,
    "local-quadratic": local_quadratic.main,
    "cost-tables": cost_tables.main,
    "size": size.main,
}


def run(name: str, spec: Spec, output: Path) -> Record:
    """Run one study and write its record."""
    timer, entries = Timer(), []
    for entry in STUDIES[name][0](spec, timer):
        entries.append(entry)
        log.info(", ".join(f"{key} {value}" for key, value in entry.items()))
    sha256 = data_of(spec).sha256
    return study.write(spec, entries, timer, output, pipeline.train(spec).dense_hash, sha256)


def main(argv: list[str] | None = None) -> int:
    """Run a study; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in OTHERS:
        return OTHERS[argv[0]](argv[1:])
    p = Parser(description=__doc__)
    p.add_argument("study", help=", ".join((*STUDIES, *OTHERS)))
    p.add_argument(
        "--model",
        help="a network of the comparison, for choice (default: resnet20); gradients is about "
        "lenet300",
    )
    p.add_argument(
        "--seed",
        type=whole(0),
        default=0,
        help="of the images, labels and young networks (default: 0)",
    )
    p.add_argument(
        "--data-dir", default="", help="data root (default: $DATA_DIR, ./data, or ../data)"
    )
    p.add_argument("--runs", default="runs", help="where dense networks are kept (default: runs)")
    p.add_argument(
        "--output-dir",
        default="runs/woodfisher/studies",
        help="where the record goes (default: runs/woodfisher/studies)",
    )
    arguments = p.parse_args(argv)

    def work() -> None:
        choose("study", arguments.study, (*STUDIES, *OTHERS))
        usual = STUDIES[arguments.study][1]
        model = arguments.model or usual
        if arguments.study == "gradients":
            choose("model", model, (usual,))
        spec = spec_of(arguments.study, model, arguments.seed).but(
            data_dir=arguments.data_dir, output_dir=arguments.runs
        )
        log.info("wrote %s", run(arguments.study, spec, Path(arguments.output_dir)).id)

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
