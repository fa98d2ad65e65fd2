"""One command line for all papers: Spec <-> flags, --table/--cell/--list, and errors that are one
line.

A paper's train.py, prune.py and finetune.py are `run(paper, verb, tables, figures)`; tables and
figures map a label to a dict of cells, name -> Spec.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping

from common.cells import registry, trace
from common.cells.errors import LayerError, NumericalError, Parser, UserError, choose, printable
from common.cells.spec import LOSSES, SCALES, Recipe, Spec, removed_by
from common.running import places
from common.system import shard

Cells = Mapping[str, Mapping[str, Spec]]
MAX_LINE = 2_000  # characters of an error
RECIPE_FLAGS = ("epochs", "lr", "batch_size")


def parser(verb: str, description: str = "") -> argparse.ArgumentParser:
    """The flags of a verb. Values that are left out stay at the cell's own, or at the paper's
    default.
    """
    p = Parser(description=description)
    add = p.add_argument
    add("--table", help="run the cells of this table (see --list)")
    add("--figure", help="run the cells of this figure (see --list)")
    add("--cell", help="only this cell, or where none has that name all whose name contains it")
    add("--list", action="store_true", help="show every cell with what exists of it, and stop")
    add(
        "--scale",
        choices=SCALES,
        help="quick: seconds, offline; cpu: real data, hours on 2 cores; paper: the paper's own "
        "setting",
    )
    add(
        "--model",
        help="network, options after a colon: resnet20, resnet32:width=4,shortcut=B; one of your "
        "own: path/to/file.py:build, package.module:build, torchvision:resnet18, timm:<name>",
    )
    add(
        "--dataset",
        help="data set, options after a colon: digits, mnist:norm=standard, imagefolder; one of "
        "your own: path/to/file.py:loaders, which gives (training, test) loaders",
    )
    add(
        "--loss",
        help=f"what the output is held against: {', '.join(LOSSES)}, or path/to/file.py:function "
        "of (output, batch)",
    )
    add("--metric", help="path/to/file.py:function of (output, batch), higher is better")
    add("--data-dir", help="data root (default: $DATA_DIR, ./data, or ../data)")
    add(
        "--checkpoint",
        help="start from this dense network: a file, or a name in the data root's checkpoints "
        "folder",
    )
    add(
        "--epochs",
        type=float,
        help=f"epochs of {'training' if verb == 'train' else 'fine-tuning'}; may be a fraction",
    )
    add("--lr", type=float, help="learning rate at the start, a step of the optimiser")
    add("--batch-size", type=int, help="examples a step of the optimiser")
    add(
        "--seed",
        type=int,
        help="seed of calibration, label sampling and fine-tuning (train: of the dense network)",
    )
    add("--device", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    add("--amp", action="store_true", help="bfloat16 autocast (default: float32)")
    add("--output-dir", help="where runs are kept (default: runs)")
    add(
        "--shard",
        default="1/1",
        metavar="I/N",
        help="this process is the I-th of N that share the chosen cells (default: 1/1)",
    )
    add(
        "--dry-run",
        action="store_true",
        help="print the resolved settings, the protocol (prunings, rates), the folder and a "
        "forecast of memory, and stop",
    )
    if verb != "train":
        add("--method", help="a registered method; an unknown name lists them")
        add("--sparsity", type=float, help="fraction of prunable weights REMOVED: 0.9 removes 90%%")
        add(
            "--pattern",
            help="N:M, in place of --sparsity: N of every M weights along a layer's inputs stay "
            "(2:4 for sparse tensor cores)",
        )
        add("--unit-ratio", type=float, help="fraction of channels or eigen-directions REMOVED")
        add("--scope", help="global: one cut over all layers; layer: the same fraction in each")
        add("--fisher", help="labels of the Fisher: sampled, empirical or exact")
        add(
            "--num-samples", type=int, help="calibration examples (default: 1000, or all there are)"
        )
        add("--fisher-batch-size", type=int, help="examples averaged into one gradient row")
        add(
            "--damping",
            type=float,
            help="added to the curvature's eigenvalues (mean training loss per squared weight)",
        )
        add(
            "--chunk",
            help="weights a block of the inverse, or 'network' for one block over all layers "
            "(default: a block a layer)",
        )
        add(
            "--recompute",
            type=int,
            help="times the curvature is computed again on the way to the target",
        )
        add(
            "--step-ratio",
            type=float,
            help="fraction of the weights left that each step of a gradual run removes (NAP's p)",
        )
        add("--speedup", type=float, help="stop at the step with so many times fewer MACs")
        add(
            "--max-error-increase",
            type=float,
            help="stop before the step with so many points more test error than the dense network",
        )
        add("--update", help="of the kept weights: diagonal, triangular, joint or none")
        add(
            "--memory-budget",
            type=float,
            help="GB that curvature and the work on it may take (default: 60%% of what is free)",
        )
        add(
            "--allow-untrained",
            action="store_true",
            default=None,
            help="prune a network that has neither a checkpoint nor an epoch of training",
        )
        add(
            "--option",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="any further option of the method; value as JSON or text",
        )
    return p


def overrides(arguments: argparse.Namespace, verb: str, base: Spec) -> dict:
    """The Spec fields that the command line changes."""
    given = {
        k: v
        for k, v in vars(arguments).items()
        if v is not None and k in {f.name for f in dataclasses.fields(Spec)}
    }
    for name in ("table", "cell", "train", "finetune"):
        given.pop(name, None)
    if not given.get("amp"):
        given.pop("amp", None)
    recipe = {
        name: getattr(arguments, name)
        for name in RECIPE_FLAGS
        if getattr(arguments, name) is not None
    }
    if recipe:
        field = "train" if verb == "train" else "finetune"
        given[field] = dataclasses.replace(getattr(base, field), **recipe)
    if verb == "train" and "seed" in given:
        given["dense_seed"] = given.pop("seed")
    for name in ("sparsity", "unit_ratio"):
        if name in given and base.levels:
            raise UserError(
                name,
                given[name],
                f"cell {base.cell} says itself how much each pruning removes",
                "choose the cell of that amount",
            )
    if "pattern" in given and "sparsity" not in given:
        given["sparsity"] = removed_by(given["pattern"])
    if "sparsity" in given or "unit_ratio" in given:
        given = {"sparsity": None, "unit_ratio": None, "pattern": ""} | given
    if isinstance(given.get("chunk"), str):
        with contextlib.suppress(ValueError):
            given["chunk"] = int(given["chunk"])
    if getattr(arguments, "option", None):
        given["options"] = dict(base.options) | dict(_option(text) for text in arguments.option)
    return given


def _option(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UserError("option", text, "cannot be read", "write --option name=value")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def run(
    paper: str,
    verb: str,
    tables: Cells | None = None,
    figures: Cells | None = None,
    argv: list[str] | None = None,
    base: Spec | None = None,
) -> int:
    """A paper's command line for one verb; returns the exit status. base: the cell that the flags
    change where none is named.
    """
    words = (
        f"{verb} cells of {paper}. A stage whose record exists is not run again.\n"
        "A flag that is left out keeps the cell's own value; without a cell, the method's, which "
        "is the paper's."
    )
    return guarded(
        lambda: _run(
            base or Spec(paper=paper),
            verb,
            tables or {},
            figures or {},
            parser(verb, words).parse_args(argv),
        )
    )


def _run(
    base: Spec, verb: str, tables: Cells, figures: Cells, arguments: argparse.Namespace
) -> None:
    shard.parse(arguments.shard)
    cells = list(_chosen(base, tables, figures, arguments))
    specs = [cell.but(**overrides(arguments, verb, cell)) for cell in cells]
    if arguments.list:
        for spec in specs:
            print(_status(spec))
        return
    # torch: needed neither for --help nor for --list
    from common.running import judge, pipeline
    from common.system import distributed, machine

    if arguments.dry_run:
        from common.running import forecast

        for spec in specs:
            folder = places.dense_folder(spec) if verb == "train" else places.cell_folder(spec)
            memory = forecast.forecast(spec, verb)
            print(
                json.dumps(
                    {
                        "verb": verb,
                        "folder": str(folder),
                        "memory_gb": memory,
                        "spec": spec.to_dict(),
                        "trace": trace.trace(spec.dense() if verb == "train" else spec),
                    },
                    indent=1,
                )
            )
        return
    for spec in specs:
        judge.flags(spec, verb)
    distributed.start(machine.device(specs[0].device))
    # pruned one after the other, cells that differ in the amount alone share their curvature
    methods = [spec.method for spec in specs] if verb == "prune" else []
    try:
        with registry.sessions(methods):
            for i, record in shard.work(specs, pipeline.VERBS[verb], arguments.shard):
                if distributed.rank() == 0:
                    print(f"[{i + 1}/{len(specs)}] {summary(record)}", flush=True)
    except (RuntimeError, TypeError) as error:
        known = distributed.abandoned(error) or machine.unsupported(error)
        if known is None:
            raise
        raise known from None
    finally:
        distributed.stop()


def _chosen(
    base: Spec, tables: Cells, figures: Cells, arguments: argparse.Namespace
) -> Iterator[Spec]:
    """The cells that --table, --figure, --cell and --scale select; without any of them, one cell
    from the flags alone.
    """
    groups = {f"table {k}": v for k, v in tables.items()} | {
        f"figure {k}": v for k, v in figures.items()
    }
    for kind, known in (("table", tables), ("figure", figures)):
        if (label := getattr(arguments, kind)) is not None:
            groups = {f"{kind} {choose(kind, label, known)}": known[label]}
    if (
        arguments.table is None
        and arguments.figure is None
        and arguments.cell is None
        and not arguments.list
    ):
        yield base
        return
    found = False
    exact = any(arguments.cell in group for group in groups.values())
    for group in groups.values():
        for name, spec in group.items():
            named = arguments.cell is None or (
                arguments.cell == name if exact else arguments.cell in name
            )
            if named and arguments.scale in (None, spec.scale):
                found = True
                yield spec
    if not found and not arguments.list:
        raise UserError("cell", arguments.cell, "no such cell", "see --list for the cells")


def _status(spec: Spec) -> str:
    """A cell with the stages that lie in the output folder and those whose records are
    committed.
    """
    from common.cells import committed  # reads the library of results: for --list alone

    dense, cell = places.dense_folder(spec), places.cell_folder(spec)
    done = [
        stage
        for stage, folder in (("train", dense), ("prune", cell), ("finetune", cell))
        if (folder / f"{stage}.json").exists()
    ]
    kept = list(committed.stages(spec))
    state = [", ".join(done)] if done else []
    state += [f"committed: {', '.join(kept)}"] if kept else []
    # a table S2 is "S2", "table-S2" or "table S2"
    named = re.match(r"(table|figure)[- ](.+)", spec.table)
    group = f"{named[1]} {named[2]}" if named else f"table {spec.table}"
    return f"{group:10} {spec.cell:40} {spec.scale:6} {'; '.join(state) or 'not run'}"


def summary(record) -> str:
    """One line for a person."""
    accuracy = ", ".join(
        f"{name} {100 * value:.2f}%"
        for name, value in record.accuracy.items()
        if isinstance(value, float)
    )
    return (
        f"{record.id}: kept {100 * (1 - record.achieved['sparsity']):.2f}% of the weights; "
        f"accuracy {accuracy}"
    )


def guarded(work: Callable[[], None]) -> int:
    """Run `work`; a person's mistake or trouble with the numbers becomes one line and status 2,
    Ctrl-C status 130.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this process
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  for the process's life
    level = os.environ.get("LOG_LEVEL", "INFO").upper()
    known = logging.getLevelNamesMapping()
    logging.basicConfig(level=known.get(level, "INFO"), format="%(message)s", stream=sys.stderr)
    try:
        choose("LOG_LEVEL", level, known)
        work()
        sys.stdout.flush()
    except (UserError, NumericalError, LayerError) as error:
        return _fail(str(error))
    except BrokenPipeError:
        _abandon_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno is None:
            raise
        try:
            sys.stdout.flush()
        except OSError:
            _abandon_output()
        return _fail(
            f"{error.strerror}{f': {error.filename}' if error.filename else ''}; check the folder "
            "and its free space"
        )
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


def _abandon_output() -> None:
    """So that the interpreter, as it ends, does not try again to write what it holds."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> int:
    print("error: " + printable(message)[:MAX_LINE], file=sys.stderr)
    return 2


__all__ = ["Recipe", "guarded", "overrides", "parser", "run", "summary"]
