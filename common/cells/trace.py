"""The protocol of a cell as a list of events: what happens at which epoch, readable before anything
runs.

    course(spec)  the events that a gradual run goes through: the runner and the reader share this
                  one list
    trace(spec)   the same as lines for people, the dense network first; `--dry-run` prints them
    points(spec)  the same as numbers: sparsity and learning rate against epochs, for a picture

Epochs count the training after the dense network. Standard library only, so that figures can draw
it.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass
from itertools import pairwise

from common.cells import registry, schedule
from common.cells.errors import UserError
from common.cells.spec import Recipe, Spec, split_options

EXAMPLES = {
    "digits": 1_438,
    "mnist": 60_000,
    "cifar10": 50_000,
    "cifar10-jpeg": 50_000,
    "cifar100": 50_000,
    # training images, where a name says how many
    "tiny-imagenet": 100_000,
    "imagenet": 1_281_167,
}
RATES = 12  # of more than so many rates in a stretch the first and the last are printed
LINES = 60  # of a longer trace the beginning and the end are printed


@dataclass(frozen=True)
class Prune:
    """Pruning number `step` at `epoch`. amount: the fraction removed, of all weights for weights
    methods with a growing schedule, of what is left for the others. layers: the amounts a layer,
    where the cell gives them."""

    epoch: float
    step: int
    amount: float
    layers: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Train:
    """A stretch of training. clock, whole: where the recipe's clock stands as it begins, and the
    epochs of that clock in all. stage: before (the first pruning) | between | final. Step-limited
    recipes have `epochs` where the number of training images is known."""

    epoch: float
    epochs: float
    recipe: Recipe
    stage: str
    clock: float = 0.0
    whole: float = 0.0

    def rate(self, after: float) -> float:
        """The learning rate `after` so many epochs of this stretch."""
        return schedule.learning_rate(self.recipe, self.clock + after, 1, self.whole)

    def rates(self) -> list[tuple[float, float]]:
        """(epochs into the stretch, learning rate) where the rate changes; for a cosine the start,
        the middle and the end.
        """
        if self.recipe.schedule == "cosine":
            return [(part * self.epochs, self.rate(part * self.epochs)) for part in (0.0, 0.5, 1.0)]
        turns = self.recipe.milestones if self.recipe.schedule == "multistep" else ()
        if self.recipe.schedule == "exponential":
            turns = tuple(range(math.ceil(self.clock + 1e-9), math.ceil(self.clock + self.epochs)))
        inside = [
            turn - self.clock for turn in turns if self.clock < turn < self.clock + self.epochs
        ]
        return [(at, self.rate(at)) for at in (0.0, *inside)]


Event = Prune | Train


def course(spec: Spec, examples: int | None = None) -> list[Event]:
    """The events of a cell from its dense network to the end of fine-tuning. examples: training
    images, for recipes that count steps; by default those of the data set's name. Raises UserError
    for prunings that a course has no room for."""
    examples = examples or training_images(spec.dataset)
    amounts = goals(spec)
    by_layer = layer_levels(spec, amounts)
    if spec.clock == "course":
        return _on_one_clock(spec, amounts, by_layer)
    events: list[Event] = []
    epoch, between = 0.0, between_recipe(spec)
    for step, amount in enumerate(amounts):
        events.append(
            Prune(epoch, step, amount, {name: levels[step] for name, levels in by_layer.items()})
        )
        last = step + 1 == len(amounts)
        if (
            _trains(between)
            and len(amounts) > 1
            and (not last or spec.max_error_increase is not None)
        ):
            events.append(_stretch(epoch, between, "between", examples))
            epoch += events[-1].epochs
    if _trains(spec.finetune):
        events.append(_stretch(epoch, spec.finetune, "final", examples))
    return events


def _on_one_clock(
    spec: Spec, amounts: list[float], by_layer: dict[str, list[float]]
) -> list[Event]:
    whole = spec.finetune.epochs
    at = [spec.first_epoch + i * spec.step_epochs for i in range(len(amounts))]
    if len(amounts) > 1 and not spec.step_epochs:
        raise UserError(
            "step_epochs",
            0.0,
            "leaves no training between prunings",
            "give the epochs from one to the next",
        )
    if at[-1] > whole + 1e-9:
        raise UserError(
            "finetune.epochs",
            whole,
            f"ends before the last pruning, at epoch {at[-1]:g}",
            "train for longer",
        )
    events: list[Event] = []
    if at[0]:
        events.append(Train(0.0, at[0], spec.finetune, "before", 0.0, whole))
    for step, (begin, end) in enumerate(pairwise([*at, whole])):
        events.append(
            Prune(
                begin,
                step,
                amounts[step],
                {name: levels[step] for name, levels in by_layer.items()},
            )
        )
        if end > begin:
            stage = "final" if step + 1 == len(at) else "between"
            events.append(Train(begin, end - begin, spec.finetune, stage, begin, whole))
    return events


def _stretch(epoch: float, recipe: Recipe, stage: str, examples: int | None) -> Train:
    """A recipe from the start of its own clock, in whole steps where the number of training images
    is known.
    """
    epochs = recipe.epochs
    if examples:
        an_epoch = math.ceil(examples / recipe.batch_size)
        steps = round(epochs * an_epoch)
        epochs = (min(steps, recipe.max_steps) if recipe.max_steps else steps) / an_epoch
    return Train(epoch, epochs, recipe, stage, 0.0, epochs)


def _trains(recipe: Recipe) -> bool:
    return recipe.epochs > 0


def steps_between(spec: Spec) -> int:
    """Optimiser steps before the last pruning, of a data set whose size its name says
    (EXAMPLES).
    """
    examples = training_images(spec.dataset)
    if examples is None:
        raise KeyError(spec.dataset)
    return sum(
        round(event.epochs * math.ceil(examples / event.recipe.batch_size))
        for event in course(spec, examples)
        if isinstance(event, Train) and event.stage != "final"
    )


def training_images(dataset: str) -> int | None:
    """How many training images a data set has, where its name says it; None for a folder's, and
    where some are held out.
    """
    base, options = split_options(dataset, "dataset")
    return None if "holdout" in options else EXAMPLES.get(base)


def goals(spec: Spec) -> list[float]:
    """The amount of every pruning of a run. Raises UserError for a ratio of what is left where
    units are pruned.
    """
    if spec.levels:
        return list(spec.levels)
    if spec.step_ratio is None:
        return schedule.levels(spec.steps, spec.amount, spec.initial_sparsity, spec.step_schedule)
    if spec.sparsity is None:
        raise UserError(
            "step_ratio",
            spec.step_ratio,
            "is for weights",
            "--unit-ratio is already of the units that are left",
        )
    return schedule.shrinking(spec.step_ratio, spec.sparsity)


def layer_levels(spec: Spec, amounts: list[float]) -> dict[str, list[float]]:
    """The amounts of every pruning in the layers that the cell gives amounts of their own: one
    number is the layer's last amount, a list its amount at each pruning. With `levels` a layer with
    one number goes the same share of its way at each pruning as the whole network does. Raises
    UserError for a list of another length than there are prunings."""
    options: dict[str, typing.Any] = dict(spec.options)
    given = options.get("layer_sparsity", {})
    _require_amounts(given)
    own = {
        name: [float(level) for level in value]
        for name, value in given.items()
        if isinstance(value, list | tuple)
    }
    for name, levels in own.items():
        if len(levels) != len(amounts) or levels != sorted(levels):
            raise UserError(
                "layer_sparsity",
                levels,
                f"of {name!r} are no {len(amounts)} growing amounts",
                "give one for each pruning",
            )
    finals = {name: value for name, value in given.items() if name not in own}
    if not spec.levels:
        found = {
            name: schedule.levels(
                spec.steps, final, min(spec.initial_sparsity, final), spec.step_schedule
            )
            for name, final in finals.items()
        }
    else:
        first, last = amounts[0], spec.amount
        left = [(last - amount) / (last - first) if last > first else 0.0 for amount in amounts]
        found = {
            name: [final - (final - min(first, final)) * part for part in left]
            if len(amounts) > 1
            else [final]
            for name, final in finals.items()
        }
    return {name: own.get(name) or found[name] for name in given}


def _require_amounts(given: object) -> None:
    """layer_sparsity is {layer: an amount, or a list of amounts}, each in [0, 1]."""
    amounts = given.values() if isinstance(given, dict) else [None]
    flat = [v for value in amounts for v in (value if isinstance(value, list | tuple) else [value])]
    if any(type(v) not in (int, float) or not 0 <= v <= 1 for v in flat):
        raise UserError(
            "layer_sparsity",
            given,
            "is no {layer: amount or list of amounts}",
            "write --option 'layer_sparsity={\"fc1\": 0.9}', fractions REMOVED",
        )


def between_recipe(spec: Spec) -> Recipe:
    """How a run on the interval clock trains after each pruning but the last."""
    if spec.between is not None:
        return spec.between
    return dataclasses.replace(spec.finetune, epochs=spec.step_epochs, max_steps=0)


# -- for people ------------------------------------------------------------------------------------


def trace(spec: Spec, examples: int | None = None) -> list[str]:
    """The protocol in lines: the dense network, each pruning, each stretch of training, and the
    stops.
    """
    lines = [_dense(spec)]
    if spec.sparsity is not None or spec.unit_ratio is not None:
        lines += [_line(spec, event) for event in course(spec, examples)] + stops(spec)
    if len(lines) <= LINES:
        return lines
    head, tail = LINES * 2 // 3, LINES // 3
    return [*lines[:head], f"... {len(lines) - head - tail} events more, alike", *lines[-tail:]]


def _dense(spec: Spec) -> str:
    source = (
        f"checkpoint {spec.checkpoint}"
        if spec.checkpoint
        else f"initialised by seed {spec.dense_seed}"
    )
    if not _trains(spec.train):
        return f"dense: {source}, not trained"
    stretch = Train(0.0, spec.train.epochs, spec.train, "dense", 0.0, spec.train.epochs)
    return (
        f"dense: {source}, trained for {stretch.epochs:.6g} epochs{_cap(spec.train)} at "
        f"{_told(stretch)}; {_settings(spec.train)}"
    )


def _line(spec: Spec, event: Event) -> str:
    if isinstance(event, Prune):
        unit = "weights" if spec.sparsity is not None else registry.lookup(spec.method).kind
        part = f"{100 * event.amount:.5g}% of the {unit}"
        if spec.sparsity is None and (spec.steps > 1 or spec.levels):
            part += " that are left"
        layers = "".join(f", {name} {100 * amount:.5g}%" for name, amount in event.layers.items())
        norm = (
            f"; BatchNorm re-estimated over {spec.recalibrate_bn} batches"
            if spec.recalibrate_bn
            else ""
        )
        return f"epoch {event.epoch:.6g}: prune to {part} removed by {spec.method}{layers}{norm}"
    end = event.epoch + event.epochs
    return (
        f"epoch {event.epoch:.6g} to {end:.6g}{_cap(event.recipe)}: train ({event.stage}) at "
        f"{_told(event)}; "
        f"{_settings(event.recipe)}"
    )


def _told(stretch: Train) -> str:
    """The rates of a stretch: a cosine's first and last, or every step; of many steps the first and
    the last.
    """
    rates = stretch.rates()
    if stretch.recipe.schedule == "cosine":
        return f"{rates[0][1]:.6g} to {rates[-1][1]:.6g} (cosine)"
    words = [f"{rates[0][1]:.6g}"] + [
        f"{rate:.6g} from {stretch.epoch + at:.6g}" for at, rate in rates[1:]
    ]
    return ", ".join(
        words if len(words) <= RATES else [*words[:3], f"{len(words) - 4} rates more", words[-1]]
    )


def _cap(recipe: Recipe) -> str:
    return f" (at most {recipe.max_steps:,} steps)" if recipe.max_steps else ""


def _settings(recipe: Recipe) -> str:
    momentum = (
        f" momentum {recipe.momentum:g}{' (Nesterov)' if recipe.nesterov else ''},"
        if recipe.optimizer == "sgd"
        else ""
    )
    l1 = f", L1 {recipe.bn_l1:g} on BatchNorm scales" if recipe.bn_l1 else ""
    images = "augmented" if recipe.augment else "plain"
    return (
        f"{recipe.optimizer},{momentum} decay {recipe.weight_decay:g}, batch "
        f"{recipe.batch_size}, {images} images{l1}"
    )


def stops(spec: Spec) -> list[str]:
    """What ends a run before its last event, a line each."""
    found = []
    if spec.speedup is not None:
        found.append(f"stops at the pruning that leaves {spec.speedup:g} times fewer MACs")
    if spec.max_error_increase is not None:
        found.append(
            f"stops before the error is {spec.max_error_increase:g} points above the dense "
            "network's, "
            f"{spec.patience} prunings in a row excepted"
        )
    return found


# -- for pictures ----------------------------------------------------------------------------------


def points(spec: Spec, examples: int | None = None) -> dict[str, list[tuple[float, float]]]:
    """{"removed": (epoch, fraction removed in all by then), "rate": (epoch, learning rate), in
    order}. Where a pruning removes its amount of the units that are left, removed = 1 - Π (1 -
    amount)."""
    removed, rates, kept = [], [], 1.0
    for event in course(spec, examples):
        if isinstance(event, Prune):
            kept = 1 - event.amount if spec.sparsity is not None else kept * (1 - event.amount)
            removed.append((event.epoch, 1 - kept))
            continue
        smooth = event.recipe.schedule == "cosine"
        turns = (
            [part * event.epochs / 24 for part in range(25)]
            if smooth
            else [at for at, _ in event.rates()]
        )
        steps = [(event.epoch + at, event.rate(at)) for at in turns]
        if not smooth:  # a step function: each rate holds up to the next
            ends = [epoch for epoch, _ in steps[1:]] + [event.epoch + event.epochs]
            steps = [
                point
                for (epoch, rate), end in zip(steps, ends, strict=True)
                for point in ((epoch, rate), (end, rate))
            ]
        rates += steps
    return {"removed": removed, "rate": rates}
