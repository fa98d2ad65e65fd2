"""The main job: every registered method on one dense network, at several sparsities and seeds, with
one fine-tuning budget.

    python -m common.compare [--dataset digits --model digits_cnn ...]

trains or loads the dense network, then prunes and fine-tunes a grid of cells, one JSON record a
stage, into runs/compare/<job>/. Finished cells are skipped, so a killed or extended run continues.
A method that finds nothing to prune in this network (CP-decomposition without a convolution) is
left out and named at the end, unless --methods asks for it. `make compare` draws the records next.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.cells import registry
from common.cells.errors import LayerError, Parser, UserError, choose
from common.cells.jobs import USUAL, Job, job_of
from common.cells.record import Record
from common.cells.spec import LOSSES, Spec, is_own, quality, removed_by, without_folder
from common.running.cli import guarded
from common.system import shard
from common.system.progress import progress, quiet


def grid(arguments: argparse.Namespace, available: int | None = None) -> list[Spec]:
    """The cells, method by method within each seed, so that an early stop still leaves whole
    seeds. available: how many training images there are, where that is known; a number of
    calibration examples that nobody asked for is no larger.
    """
    dataset = arguments.dataset
    base_name = dataset.partition(":")[0]
    if is_own(dataset) and not arguments.model:
        raise UserError("model", None, "missing", "give --model beside a data set of your own")
    model = arguments.model or USUAL[choose("dataset", base_name, USUAL)]
    job = job_of(dataset, model)
    told = without_folder(model), without_folder(dataset)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", "-".join(told))
    if job.dataset_options and ":" not in dataset:
        dataset = f"{dataset}:{job.dataset_options}"
    finetune = (
        job.finetune if arguments.epochs is None else replace(job.finetune, epochs=arguments.epochs)
    )
    train = (
        job.train
        if arguments.train_epochs is None
        else replace(job.train, epochs=arguments.train_epochs)
    )
    chosen = _words(arguments.methods) if arguments.methods else list(registry.METHODS)
    amounts = _fractions(arguments.sparsities) if arguments.sparsities else None
    if arguments.pattern:
        amounts = (removed_by(arguments.pattern),)
        if not arguments.methods:
            chosen = [name for name in chosen if registry.lookup(name).kind == "weights"]
    base = Spec(
        paper="compare",
        table=name,
        scale=job.scale,
        model=model,
        dataset=dataset,
        data_dir=arguments.data_dir,
        train=train,
        checkpoint=job.checkpoint if arguments.checkpoint is None else arguments.checkpoint,
        finetune=finetune,
        num_samples=job.num_samples if arguments.num_samples is None else arguments.num_samples,
        device=arguments.device,
        output_dir=arguments.output_dir,
        allow_untrained=arguments.allow_untrained,
        loss=arguments.loss or Spec.loss,
        metric=arguments.metric or Spec.metric,
    )
    if any(
        getattr(arguments, changed) is not None
        for changed in ("epochs", "train_epochs", "num_samples", "checkpoint", "loss", "metric")
    ):
        # another budget or dense network is another comparison
        base = base.but(table=f"{name}-{base.digest()}")
    if available is not None and arguments.num_samples is None:
        base = base.but(num_samples=min(base.num_samples, available))
    cells = cells_of(base, chosen, amounts, arguments.seeds, job)
    if not arguments.pattern:
        return cells
    named = arguments.pattern.replace(":", "of")
    return [cell.but(pattern=arguments.pattern, cell=f"{cell.method}-{named}") for cell in cells]


def cells_of(
    base: Spec, methods: Sequence[str], amounts: Sequence[float] | None, seeds: int, job: Job
) -> list[Spec]:
    """Every method at every amount, the job's where none are given, seed after seed."""
    cells = []
    rows = {"fisher_batch_size": max(1, base.num_samples // job.rows)}
    for seed in range(seeds):
        for method in methods:
            weights = registry.lookup(method).kind == "weights"
            own = dict(rows) if registry.lookup(method).curvature == "rows" else {}
            if is_own(base.model) and registry.lookup(method).own:
                own["options"] = tuple(registry.lookup(method).own.items())
            for amount in amounts or (job.sparsities if weights else job.unit_ratios):
                unit = {"sparsity": amount} if weights else {"unit_ratio": amount}
                cells.append(
                    base.but(
                        method=method,
                        seed=seed,
                        cell=f"{method}-{amount:g}",
                        series=method,
                        **unit,
                        **own,
                    )
                )
    return cells


def parser() -> argparse.ArgumentParser:
    """The flags of a comparison."""
    p = Parser(description=__doc__)
    p.add_argument("--config", help="a TOML file with any of these flags: model, dataset, methods")
    p.add_argument(
        "--dataset", default="digits", help="data set (default: digits, which needs no download)"
    )
    p.add_argument(
        "--model",
        default=None,
        help="network (default: the usual one for the data set); one of your own: "
        "path/to/file.py:build, package.module:build, torchvision:resnet18, timm:<name>",
    )
    p.add_argument("--loss", help=f"{', '.join(LOSSES)}, or path/to/file.py:function")
    p.add_argument("--metric", help="path/to/file.py:function of (output, batch); higher is better")
    p.add_argument(
        "--data-dir", default="", help="data root (default: $DATA_DIR, ./data, or ../data)"
    )
    p.add_argument("--checkpoint", default=None, help="dense network to start from; '' trains one")
    p.add_argument("--methods", help="comma-separated registered methods (default: all)")
    p.add_argument("--sparsities", help="comma-separated fractions REMOVED (default: by job)")
    p.add_argument(
        "--pattern",
        help="N:M in place of --sparsities, for methods of single weights: 2:4 keeps 2 of every 4 "
        "weights along a layer's inputs",
    )
    p.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    p.add_argument("--epochs", type=float, help="epochs of fine-tuning a cell (default: by job)")
    p.add_argument("--train-epochs", type=float, help="epochs of dense training (default: by job)")
    p.add_argument(
        "--allow-untrained",
        action="store_true",
        help="compare on a network with neither a checkpoint nor an epoch",
    )
    p.add_argument("--num-samples", type=int, help="calibration examples (default: by job)")
    p.add_argument(
        "--share-curvature",
        action="store_true",
        help="cells that differ in the amount alone share their curvature, whose time only one of "
        "them then has",
    )
    p.add_argument(
        "--threads",
        type=int,
        help="CPU threads (default: 1 for quick jobs, which gain nothing from more, else all)",
    )
    p.add_argument(
        "--shard",
        default="1/1",
        metavar="I/N",
        help="this process is the I-th of N on one output folder (default: 1/1)",
    )
    p.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    p.add_argument("--output-dir", default="runs", help="where runs are kept (default: runs)")
    p.add_argument("--dry-run", action="store_true", help="print the folders of the cells and stop")
    p.add_argument(
        "--print-folder",
        action="store_true",
        help="print the folder that the records go to and stop",
    )
    return p


def main(argv: list[str] | None = None) -> int:
    """Run the grid; returns the exit status."""
    return guarded(lambda: _main(_read(argv)))


def _read(argv: list[str] | None) -> argparse.Namespace:
    """The flags, laid over those of --config, whose files of code lie beside it."""
    p = parser()
    first = p.parse_args(argv)
    if first.config is None:
        return first
    path = Path(first.config)
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise UserError("config", str(path), error.strerror or "cannot be read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError("config", str(path), f"is no TOML ({error})") from None
    known = sorted(vars(first).keys() - {"config"})
    told = {}
    for name, value in values.items():
        choose("config", name.replace("-", "_"), known)
        if value is False:
            continue
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        if is_own(text) and (path.parent / text.partition(".py:")[0]).with_suffix(".py").is_file():
            text = str(path.parent / text)
        told[name.replace("_", "-")] = "" if value is True else text
    flags = [part for name, text in told.items() for part in (f"--{name}", text) if part]
    return p.parse_args([*flags, *(argv if argv is not None else sys.argv[1:])])


def _main(arguments: argparse.Namespace) -> None:
    for name in ("seeds", "threads"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise UserError(name, getattr(arguments, name), "must be at least 1")
    shard.parse(arguments.shard)
    cells = grid(arguments)
    folder = Path(arguments.output_dir) / cells[0].paper / cells[0].table
    if arguments.print_folder:
        print(folder)
        return

    from common.running import judge, pipeline

    for cell in cells:
        judge.flags(cell, "finetune", files=not arguments.dry_run)
    cells = grid(arguments, _available(cells[0], arguments.dry_run))
    if arguments.dry_run:
        for cell in cells:
            print(pipeline.cell_folder(cell))
        return
    work(cells, arguments)


def work(cells: list[Spec], arguments: argparse.Namespace) -> Path:
    """Run the cells that are not there yet; returns the folder of their records. arguments: those
    of the command."""
    import torch

    from common.running import pipeline

    folder = Path(cells[0].output_dir) / cells[0].paper / cells[0].table
    if arguments.threads or cells[0].scale == "quick":
        torch.set_num_threads(arguments.threads or 1)
    dense = pipeline.train(cells[0])
    print(
        f"dense {dense.spec['model']} on {dense.spec['dataset']}: {_quality(cells[0], dense)}, "
        f"{dense.achieved['dense_params']:,} prunable weights, {dense.achieved['dense_macs']:,} "
        "MACs",
        flush=True,
    )
    unfit: dict[str, str] = {}
    there = sum((pipeline.cell_folder(cell) / "finetune.json").exists() for cell in cells)
    shared = registry.sessions({cell.method for cell in cells} if arguments.share_curvature else ())
    with (
        shared,
        progress(total=len(cells), desc="compare", unit="cell", leave=True) as bar,
        quiet(),
    ):

        def run(cell: Spec) -> bool:
            bar.set_postfix_str(f"{cell.cell} seed {cell.seed}", refresh=True)
            if cell.method not in unfit:
                try:
                    pipeline.finetune(cell)
                except (LayerError, UserError) as error:
                    if arguments.methods or getattr(error, "field", "model") != "model":
                        # a method that was asked for by name, or trouble that is not the network's
                        raise
                    unfit[cell.method] = str(error)
            bar.update(1)
            return cell.method not in unfit

        done = sum(ran for _, ran in shard.work(cells, run, arguments.shard))
    for method, why in unfit.items():
        print(f"left out {method}: {why}")
    asked = sum(cell.method not in unfit for cell in cells)
    told = f"{done} of {asked} cells" if done < asked else f"{done} cells"
    print(f"{told} in {folder}: {max(0, done - there)} ran, {min(done, there)} were there")
    return folder


def _quality(cell: Spec, dense: Record) -> str:
    """How well the dense network does, in the metric's own words."""
    value, what = dense.accuracy["last"], quality(cell)
    fraction = what.endswith("accuracy")
    return f"test {what} " + (f"{100 * value:.2f}%" if fraction else f"{value:.4g}")


def _available(cell: Spec, dry_run: bool) -> int | None:
    """How many training images the cell's data have; None for published sets, which have more than
    any job asks for, and for files that a dry run does not find."""
    from common.running import stages

    if cell.dataset.partition(":")[0] in ("digits", "mnist", "cifar10", "cifar100"):
        return None
    try:
        return len(stages.data_of(cell).train)
    except UserError:
        if dry_run:
            return None
        raise


def _words(text: str) -> list[str]:
    return [
        choose("method", word.strip(), registry.METHODS) for word in text.split(",") if word.strip()
    ]


def _fractions(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UserError("sparsities", text, "not a list of numbers", "write 0.5,0.8,0.9") from None
    for value in values:
        Spec(sparsity=value)
    return values


if __name__ == "__main__":
    sys.exit(main())
