"""Networks and data of one's own: `from common import prune, compare`."""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import nn

from common.cells import registry
from common.cells.errors import UserError
from common.cells.jobs import FALLBACK
from common.cells.record import Record
from common.cells.spec import Recipe, Spec
from common.commands.compare import cells_of, work
from common.data import sources
from common.data.batches import batches
from common.data.task import Calibration, Task
from common.nets import checkpoint, dense
from common.nets import layers as L
from common.nets.models import own
from common.pruning.pattern import Pattern, require
from common.pruning.pruned import Pruned
from common.running.options import resolved
from common.system import code

SAMPLES = 1_000


def prune(
    model: nn.Module,
    loader: Iterable,
    amount: float | str | Mapping[str, float],
    method: str = "woodfisher",
    *,
    loss: str = "cross_entropy",
    loss_fn: Callable | None = None,
    forward_fn: Callable | None = None,
    ignore_index: int | None = None,
    skip: Iterable[str] = (),
    num_samples: int | None = SAMPLES,
    seed: int = 0,
    **options: object,
) -> Pruned:
    """A pruned copy of `model`; print it to see what was removed, and what stayed dense and why.

    loader: batches of any form: (inputs, labels), dicts, tuples whose last is the labels. amount:
    the fraction of weights REMOVED, of the network's without the layers in `skip`; of the units for
    methods that remove channels; one fraction a layer; or "2:4", which keeps 2 of every 4 weights
    along a layer's inputs, as sparse tensor cores run them. method: any that
    `common.cells.registry.METHODS` lists; options: its own, by keyword (chunk=2000).

    loss: cross_entropy (also of positions), language_model, binary or mse; or loss_fn(output,
    batch). forward_fn(model, batch): the output, where calling the model with all of the batch but
    its labels is not it. ignore_index: the label that does not count. skip: names of layers or
    patterns ("blocks.*.qkv"). num_samples: examples taken from the front of the loader; None takes
    all. seed: of whatever is drawn, a loader's own shuffling included.

    Raises UserError for what does not fit, and for an amount that cannot be met because of what
    stays dense.
    """
    entry = registry.lookup(method)
    left_out = dense.skipped(model, skip)
    stays = dense.left_dense(model, left_out)
    named = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
    if named_out := dense.prunable_among(model, left_out):
        named["skip"] = named_out
    function, settings = resolved(method, entry.own | named)
    layers = L.prunable(model, named_out if "skip" in _fields(settings) else ())
    before = {name: module.weight.numel() for name, module in layers.items()}
    if isinstance(amount, str):
        amount = Pattern.parse(amount)
        if entry.kind != "weights":
            raise UserError(
                "amount", str(amount), f"is of weights, method {method!r} removes {entry.kind}"
            )
    elif entry.kind == "weights" and not isinstance(amount, Mapping):
        amount = _share(amount, sum(before.values()), stays)
    task = Task(loss_fn or loss, forward_fn, None, ignore_index)
    data = Calibration(read(loader, task, num_samples, seed), task)
    pruned = function(model, data, amount, settings, torch.Generator().manual_seed(seed))
    if isinstance(amount, Pattern):
        require(pruned.model, pruned.masks, amount, method)
    pruned.weights = _kept(pruned, before)
    pruned.dense = {name: left.why for name, left in stays.items()}
    _require_met(pruned, entry.kind, amount, settings)
    return pruned


def read(loader: Iterable, task: Task, num_samples: int | None, seed: int) -> list[tuple]:
    """The loader's first examples as batches in canonical form, read once, so that a loader that
    shuffles has one order; what it draws from the global generator is decided by `seed`."""
    if num_samples is not None and num_samples < 1:
        raise UserError("num_samples", num_samples, "must be at least 1")
    found, count = [], 0
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for x, y in batches(Calibration(loader, task)):
            room = len(x) if num_samples is None else num_samples - count
            found.append((x[:room], y[:room]))
            count += len(found[-1][0])
            if count == num_samples:
                break
    if not found:
        raise UserError("calibration", 0, "no batch was seen", "give at least one example")
    return found


def _fields(settings: object) -> set[str]:
    return {f.name for f in fields(settings)}


def _share(amount: float, prunable: int, stays: Mapping[str, dense.Left]) -> float:
    """The amount as a fraction of the weights that can go, where it is asked of all that count.
    UserError where they are too few."""
    others = {name: left for name, left in stays.items() if left.counted}
    total = prunable + sum(left.weights for left in others.values())
    if not 0 <= amount < 1 or not others:
        return amount  # what is outside is told by the method
    if amount * total >= prunable:
        name, left = max(others.items(), key=lambda each: each[1].weights)
        raise UserError(
            "amount",
            amount,
            f"of {total:,} weights cannot be met: {total - prunable:,} stay dense in "
            f"{', '.join(others)} ({name}: {left.why})",
            f"ask for less than {prunable / total:.3f}, or name them in skip, and the amount is of "
            "the others",
        )
    return amount * total / prunable


def _kept(pruned: Pruned, before: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """(weights kept, of how many) of each layer; what an edit made of a layer lies below its
    name."""
    now: dict[str, int] = {}
    for name, module in L.weighted(pruned.model).items():
        mask = pruned.masks.get(f"{name}.weight")
        now[name] = module.weight.numel() if mask is None else int(mask.sum())
    return {
        name: (
            now[name]
            if name in now
            else sum(kept for other, kept in now.items() if other.startswith(f"{name}.")),
            total,
        )
        for name, total in before.items()
    }


def _require_met(pruned: Pruned, kind: str, amount: float | Mapping, settings: object) -> None:
    """Raise UserError where much less went than was asked for."""
    kept, total = (sum(pair[i] for pair in pruned.weights.values()) for i in (0, 1))
    if isinstance(amount, Mapping) or getattr(settings, "stop", "ratio") != "ratio":
        return  # the method's own rule says when to stop
    rounding = len(pruned.weights)
    short = total - kept < amount * total - rounding
    if short if kind == "weights" else kept == total and amount > 0:
        most = max(pruned.weights, key=lambda name: pruned.weights[name][0])
        raise UserError(
            "amount",
            amount,
            f"was not met: {total - kept:,} of {total:,} weights went; {most!r} keeps "
            f"{pruned.weights[most][0]:,}",
            f"ask for {'less' if kind == 'weights' else 'more'}, or choose another method",
        )


@dataclass(frozen=True)
class Compared:
    """folder: of the records, table.md, table.csv, the figures and report.html. records: of the
    dense network and of every cell. table: table.md, which printing it shows."""

    folder: Path
    records: list[Record]
    table: str

    def __str__(self) -> str:
        return self.table


def compare(
    model: nn.Module,
    train: Iterable,
    test: Iterable,
    *,
    methods: Sequence[str] | None = None,
    amounts: Sequence[float] = (0.5, 0.7, 0.9),
    out: str | Path = "runs/own",
    finetune: Recipe | None = None,
    seeds: int = 1,
    loss: str = "cross_entropy",
    loss_fn: Callable | None = None,
    forward_fn: Callable | None = None,
    metric: Callable | None = None,
    ignore_index: int | None = None,
    num_samples: int = SAMPLES,
) -> Compared:
    """Every method at every amount on `model`, which is left as it is: table, figures and a report.

    train, test: loaders of batches of any form, as `prune` takes them, or data sets; they are read
    once and held in memory. methods: registered ones, by default all; what finds nothing to prune
    in this network is left out and named, unless it was asked for. amounts: fractions REMOVED, of
    weights or of units. finetune: the same training after each pruning, by default none. metric:
    (output, batch) -> a number, higher is better. The rest as for `prune`.

    Cells that are there are not run again: what they were made of is compared by content, the
    weights, the data and the source of functions included.
    """
    task = Task(loss_fn or loss, forward_fn, metric, ignore_index)
    model_name = own.give(model, checkpoint.state_hash(model))
    data_name = sources.give(train, test, task)
    functions = "".join(map(_source, (loss_fn, forward_fn, metric)))
    told = f"{loss} {ignore_index} {functions} {model_name} {data_name} {finetune} {num_samples}"
    examples = len(sources.load(data_name).train)
    base = Spec(
        paper="compare",
        scale="cpu",
        table=f"{type(model).__name__}-{hashlib.sha256(told.encode()).hexdigest()[:12]}",
        model=model_name,
        dataset=data_name,
        finetune=finetune or Recipe(),
        num_samples=min(num_samples, examples),
        loss=loss if loss_fn is None else _named(loss_fn),
        metric=Spec.metric if metric is None else _named(metric),
        device=str(next(model.parameters()).device),
        output_dir=str(out),
        allow_untrained=True,  # its weights are what they are
    )
    chosen = [*(methods or registry.METHODS)]
    for name in chosen:
        registry.lookup(name)
    cells = cells_of(base, chosen, amounts, seeds, FALLBACK)
    settings = argparse.Namespace(threads=None, share_curvature=False, shard="1/1", methods=methods)
    folder = work(cells, settings)
    report = importlib.import_module("figures.compare")
    report.compare([str(folder)], str(folder))
    records = [Record.read(path) for path in sorted(folder.rglob("finetune.json"))]
    return Compared(folder, records, (folder / "table.md").read_text())


def _named(function: Callable) -> str:
    """What records call a function that this process was given."""
    name = re.sub(r"\W+", "_", getattr(function, "__name__", type(function).__name__)).strip("_")
    return f"{code.GIVEN}:{name}-{hashlib.sha256(_source(function).encode()).hexdigest()[:12]}"


def _source(function: Callable | None) -> str:
    """The source of a function, by which a changed one is known; its name where there is none."""
    if function is None:
        return ""
    while isinstance(function, functools.partial):
        function = function.func
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return getattr(function, "__qualname__", type(function).__qualname__)
