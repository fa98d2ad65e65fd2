"""Spec: everything that decides a result, as data. A cell of a table is a Spec; its hash names its
folder.

Fields left at their default do not enter the hash, so a new option never renames an old run. Fields
in `NOT_IDENTITY` say where or how fast something runs, not what comes out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import typing
from dataclasses import dataclass, field, fields
from pathlib import Path

from common.cells.errors import UserError, choose

SCALES = ("quick", "cpu", "paper")
CLOCKS = ("interval", "course")
LOSSES = ("cross_entropy", "language_model", "binary", "mse")  # common.data.task says what they are
# version of the names of runs: 1 ended in six hexadecimal digits, 2 in twelve that begin with the
# same six
NAMING = 2
DIGITS = {1: 6, 2: 12}
MAX_INT, MAX_EPOCHS = (1 << 63) - 1, 1_000_000
NOT_IDENTITY = (
    "paper",
    "table",
    "cell",
    "series",
    "data_dir",
    "seed",
    "device",
    "memory_budget",
    "output_dir",
    "allow_untrained",
)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained or fine-tuned. `epochs` may be fractional; `max_steps` > 0 caps the
    optimiser steps.
    """

    epochs: float = 0.0
    lr: float = 0.01
    batch_size: int = 64
    optimizer: str = "sgd"  # sgd | adam | adamw
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"  # constant | multistep | cosine | exponential
    # epochs at which multistep multiplies the learning rate by `gamma`
    milestones: tuple[float, ...] = ()
    # factor per milestone (multistep) or per epoch (exponential)
    gamma: float = 0.1
    augment: bool = False
    max_steps: int = 0
    # subgradient of an L1 penalty on BatchNorm scales (Liu et al. 2017: 1e-4)
    bn_l1: float = 0.0

    def __post_init__(self):
        _typed(self)
        choose("optimizer", self.optimizer, ("sgd", "adam", "adamw"))
        choose("schedule", self.schedule, ("constant", "multistep", "cosine", "exponential"))
        for name, least in (
            ("epochs", 0),
            ("lr", 0),
            ("weight_decay", 0),
            ("batch_size", 1),
            ("max_steps", 0),
            ("bn_l1", 0),
        ):
            value = getattr(self, name)
            if not math.isfinite(value) or value < least:
                raise UserError(name, value, f"must be a finite number of at least {least}")
        if self.epochs > MAX_EPOCHS:
            raise UserError("epochs", self.epochs, f"must be at most {MAX_EPOCHS:,}")
        object.__setattr__(self, "milestones", _numbers("milestones", self.milestones))

    @classmethod
    def of(cls, name: str, values: dict) -> Recipe:
        """A Recipe from its fields; UserError in the field `name` for one that it does not have."""
        unknown = sorted(values.keys() - {f.name for f in fields(cls)})
        if unknown:
            raise UserError(name, unknown[0], "no such field of a recipe")
        return cls(**values)


@dataclass(frozen=True)
class Spec:
    """One cell: a dense network, a pruning method at one amount, and a fine-tuning budget.

    `model` and `dataset` take options after a colon: "resnet32:width=4,shortcut=B",
    "mnist:norm=standard". Fields that are None leave the choice to the method's own options, whose
    defaults are the paper's.
    """

    paper: str = "common"
    table: str = ""
    cell: str = ""
    series: str = ""  # the curve that the cell is a point of
    scale: str = "quick"  # quick | cpu | paper
    # the dense network
    model: str = "digits_cnn"
    dataset: str = "digits"
    data_dir: str = ""
    # start from this file; "" starts from a seeded initialisation
    checkpoint: str = ""
    # of a file given by its path: two of one name are two networks (places.pinned)
    checkpoint_sha256: str = ""
    # of the code that builds a network of one's own (common.system.code)
    model_sha256: str = ""
    # what the output is held against (common.data.task.LOSSES), or a function of one's own
    loss: str = "cross_entropy"
    metric: str = ""  # a function of one's own; "" is the loss's own: accuracy, or R²
    train: Recipe = field(default_factory=Recipe)
    dense_seed: int = 0
    # what is removed
    method: str = "magnitude-global"
    sparsity: float | None = None  # fraction of prunable weights removed
    unit_ratio: float | None = None  # fraction of channels or eigen-directions removed
    # "2:4" keeps 2 of every 4 weights along a layer's inputs; `sparsity` is then one half
    pattern: str = ""
    scope: str | None = None  # global | layer
    fisher: str | None = None  # sampled | empirical | exact
    num_samples: int | None = None  # calibration examples
    fisher_batch_size: int | None = None  # examples averaged into one gradient row
    damping: float | None = None
    chunk: int | str | None = None
    recompute: int | None = None
    update: str | None = None  # diagonal | triangular | joint
    options: tuple[tuple[str, object], ...] = ()  # the method's further options
    # gradual pruning: `steps` times (prune, fine-tune `step_epochs`), then the final fine-tuning
    steps: int = 1
    step_schedule: str = "cubic"  # constant | linear | cubic | geometric
    step_epochs: float = 0.0
    initial_sparsity: float = 0.0
    # the amount of every pruning, in place of the four fields around this one
    levels: tuple[float, ...] = ()
    # of what is left, removed by each pruning; decides `steps` (NAP's p, for weights)
    step_ratio: float | None = None
    # test images that judge the network between steps; 0 is all of them
    step_test_samples: int = 0
    # stop at the step that has so many times fewer MACs than the dense network
    speedup: float | None = None
    # percentage points: stop before the step whose test error is further above the dense
    max_error_increase: float | None = None
    # prunings in a row that may be beyond that bound before the run gives up
    patience: int = 0
    # batches of BatchNorm re-estimation after each pruning; 0 keeps the statistics
    recalibrate_bn: int = 0
    # training after each pruning but the last; None: `finetune` for `step_epochs`
    between: Recipe | None = None
    finetune: Recipe = field(default_factory=Recipe)
    # interval: rates start anew after each pruning | course: `finetune` is the whole run
    clock: str = "interval"
    first_epoch: float = 0.0  # of the course's training before its first pruning
    # how it runs
    seed: int = 0
    device: str = "auto"
    amp: bool = False
    # prune a network that has neither a checkpoint nor an epoch of training
    allow_untrained: bool = False
    memory_budget: float = 0.0  # GB; 0 is 60% of what is free
    output_dir: str = "runs"

    def __post_init__(self):
        _typed(self)
        choose("scale", self.scale, SCALES)
        choose("step_schedule", self.step_schedule, ("constant", "linear", "cubic", "geometric"))
        choose("clock", self.clock, CLOCKS)
        for name, known in (("loss", LOSSES), ("metric", ("",))):
            if not is_own(getattr(self, name)):
                choose(name, getattr(self, name), [*known, "path/to/file.py:function"])
        for name in ("train", "between", "finetune"):
            if isinstance(getattr(self, name), dict):
                object.__setattr__(self, name, Recipe.of(name, getattr(self, name)))
            value = getattr(self, name)
            if not (isinstance(value, Recipe) or (name == "between" and value is None)):
                raise UserError(name, value, "is no recipe")
        object.__setattr__(self, "levels", _numbers("levels", self.levels))
        try:
            options = dict(self.options)
        except (TypeError, ValueError):
            raise UserError("options", self.options, "are no names with values") from None
        named = sorted((str(name), value) for name, value in options.items())
        object.__setattr__(self, "options", tuple(named))
        if self.sparsity is not None and self.unit_ratio is not None:
            raise UserError(
                "unit_ratio", self.unit_ratio, "given together with sparsity", "give one of the two"
            )
        for name in ("sparsity", "unit_ratio", "initial_sparsity"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UserError(
                    name, value, "outside [0, 1)", "give the fraction REMOVED, 0.9 for 90%"
                )
        if self.step_ratio is not None and not 0 < self.step_ratio < 1:
            raise UserError(
                "step_ratio",
                self.step_ratio,
                "outside (0, 1)",
                "give the fraction of what is left that a step removes",
            )
        if self.speedup is not None and not (math.isfinite(self.speedup) and self.speedup > 1):
            raise UserError(
                "speedup",
                self.speedup,
                "is met already by the dense network",
                "ask for more than 1",
            )
        if self.max_error_increase is not None and not math.isfinite(self.max_error_increase):
            raise UserError(
                "max_error_increase",
                self.max_error_increase,
                "must be finite",
                "give percentage points, 0.1",
            )
        for name, known in (
            ("scope", ("global", "layer")),
            ("fisher", ("sampled", "empirical", "exact")),
            ("update", ("diagonal", "triangular", "joint", "none")),
        ):
            if getattr(self, name) is not None:
                choose(name, getattr(self, name), known)
        for name, least in (
            ("num_samples", 1),
            ("fisher_batch_size", 1),
            ("steps", 1),
            ("recompute", 0),
            ("recalibrate_bn", 0),
            ("step_test_samples", 0),
            ("patience", 0),
            ("step_epochs", 0),
            ("first_epoch", 0),
            ("dense_seed", 0),
            ("seed", 0),
            ("memory_budget", 0),
        ):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= least):
                raise UserError(name, value, f"must be at least {least}")
        if self.damping is not None and not (math.isfinite(self.damping) and self.damping >= 0):
            raise UserError("damping", self.damping, "must be finite and not negative")

        if self.pattern and self.sparsity != removed_by(self.pattern):
            raise UserError(
                "sparsity",
                self.sparsity,
                f"is not what pattern {self.pattern} removes, {removed_by(self.pattern):g}",
                "leave one of the two out",
            )
        if self.pattern and (self.steps > 1 or self.levels or self.step_ratio is not None):
            raise UserError("pattern", self.pattern, "is reached at one cut", "leave the steps out")
        self._check_course()

    def _check_course(self) -> None:
        """Raise UserError where the fields of a gradual run contradict each other."""
        if self.levels:
            if any(not 0 <= level < 1 for level in self.levels):
                raise UserError(
                    "levels",
                    self.levels,
                    "outside [0, 1)",
                    "give the fractions REMOVED, 0.9 for 90%",
                )
            if self.steps != 1 or self.step_ratio is not None or self.initial_sparsity:
                raise UserError(
                    "levels",
                    self.levels,
                    "given together with steps, step_ratio or initial_sparsity",
                    "levels alone say how much each pruning removes",
                )
            weights = self.sparsity is not None
            if weights and list(self.levels) != sorted(set(self.levels)):
                raise UserError(
                    "levels",
                    self.levels,
                    "do not grow",
                    "each pruning removes more of all weights than the last",
                )
            if weights and self.levels[-1] > self.sparsity + 1e-9:
                raise UserError(
                    "levels",
                    self.levels,
                    f"end above sparsity={self.sparsity:g}",
                    "end at the sparsity, or before it",
                )
        if self.between is not None and self.step_epochs:
            raise UserError(
                "step_epochs",
                self.step_epochs,
                "given together with between",
                "between has epochs of its own",
            )
        if self.clock == "interval":
            if self.first_epoch:
                raise UserError(
                    "first_epoch",
                    self.first_epoch,
                    "is for clock='course'",
                    "name that clock, or leave it out",
                )
            return
        for name, unset in (("between", None), ("max_error_increase", None), ("speedup", None)):
            if getattr(self, name) != unset:
                raise UserError(
                    name,
                    getattr(self, name),
                    "does not go with clock='course'",
                    "use the interval clock",
                )
        if self.finetune.max_steps:
            raise UserError(
                "max_steps",
                self.finetune.max_steps,
                "does not go with clock='course'",
                "give finetune.epochs",
            )

    @property
    def amount(self) -> float:
        """The fraction removed, in whichever unit the cell asks for."""
        for amount in (self.sparsity, self.unit_ratio):
            if amount is not None:
                return amount
        raise UserError(
            "sparsity", None, "missing", "give --sparsity (weights) or --unit-ratio (channels)"
        )

    def but(self, **changes) -> Spec:
        """A copy with some fields changed."""
        unknown = [name for name in changes if name not in {f.name for f in fields(self)}]
        if unknown:
            raise UserError(unknown[0], changes[unknown[0]], "no such field of a Spec")
        return dataclasses.replace(self, **changes)

    def dense(self) -> Spec:
        """The Spec of the dense network alone: cells that share it share one training run."""
        keep = (
            "paper",
            "scale",
            "model",
            "dataset",
            "data_dir",
            "checkpoint",
            "checkpoint_sha256",
            "model_sha256",
            "loss",
            "metric",
            "train",
            "dense_seed",
            "device",
            "amp",
            "memory_budget",
            "output_dir",
        )
        return Spec(**{name: getattr(self, name) for name in keep})

    def to_dict(self) -> dict:
        """All fields as JSON types."""
        values = dataclasses.asdict(self)
        values["options"] = dict(values["options"])
        return json.loads(json.dumps(values))

    @classmethod
    def from_dict(cls, values: dict) -> Spec:
        """The inverse of `to_dict`; unknown fields raise UserError."""
        return cls().but(**values)

    def identity(self) -> dict:
        """The fields that decide the result and differ from their defaults (checkpoints and files
        of code count by file name).
        """
        mine, default = self.to_dict(), Spec().to_dict()
        changed = {k: v for k, v in mine.items() if k not in NOT_IDENTITY and v != default[k]}
        plain = dataclasses.asdict(Recipe()) | {"milestones": []}
        for name in ("train", "between", "finetune"):
            if name in changed:
                changed[name] = {k: v for k, v in changed[name].items() if v != plain[k]}
        if self.checkpoint:
            changed["checkpoint"] = Path(self.checkpoint).name
        for name in ("model", "dataset", "loss", "metric"):
            if name in changed:
                changed[name] = without_folder(changed[name])
        return changed

    def digest(self, naming: int = NAMING) -> str:
        """Hexadecimal digits of the identity; six of them (naming 1) collided among some thousand
        cells.
        """
        text = json.dumps(self.identity(), sort_keys=True).encode()
        return hashlib.sha256(text).hexdigest()[: DIGITS[naming]]

    def slug(self, naming: int = NAMING) -> str:
        """A readable name plus the digest: lenet300-mnist-magnitude-global-s0.9-1a2b3c4d5e6f."""
        parts = [without_folder(self.model), without_folder(self.dataset)]
        if self.sparsity is not None or self.unit_ratio is not None:
            parts += [self.method, ("s" if self.sparsity is not None else "u") + f"{self.amount:g}"]
        return re.sub(r"[^A-Za-z0-9_.-]+", "_", "-".join(parts)) + "-" + self.digest(naming)


def _typed(values: Recipe | Spec) -> None:
    """Every field is of its type, or a UserError: fields come from records and command lines too.
    Whole numbers in float fields become floats: 1 and 1.0 are one cell, with one name."""
    for f in fields(values):
        value, kinds = getattr(values, f.name), f.type.split(" | ")
        if "tuple" in f.type or "Recipe" in kinds:
            continue
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_INT:
            raise UserError(f.name, value, "is larger than 64 bits hold", "give a smaller number")
        if "float" in kinds and type(value) is int:
            object.__setattr__(values, f.name, float(value))
        elif not any(_is_of(value, kind) for kind in kinds):
            raise UserError(f.name, value, "has the wrong type", f"give {f.type}")


def _is_of(value: object, kind: str) -> bool:
    if kind == "None":
        return value is None
    if kind in ("int", "float"):
        return isinstance(value, _KINDS[kind]) and not isinstance(value, bool)
    return isinstance(value, _KINDS[kind])


_KINDS = {"int": int, "float": float, "bool": bool, "str": str}


def _numbers(name: str, values: typing.Any) -> tuple[float, ...]:
    """A list of numbers, as floats."""
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        raise UserError(name, values, "is no list of numbers", "write [0.5, 0.9]") from None


def named(table: str, cells: dict[str, Spec]) -> dict[str, Spec]:
    """The cells of a table under their own names, each with the series that it says or that its
    name does."""
    return {
        name: spec.but(table=table, cell=name, series=spec.series or series_of(name))
        for name, spec in cells.items()
    }


def series_of(cell: str) -> str:
    """<network>/<what> of a cell that is called <network>-<amount>-<what>-seed<k>; the amount, 8.4
    or 77x, and the seed may be missing."""
    network, _, rest = re.sub(r"-seed\d+$", "", cell).partition("-")
    what = re.sub(r"^[0-9][0-9.]*x?(-|$)", "", rest)
    return f"{network}/{what}" if what else network


def is_own(name: str) -> bool:
    """Whether a name says where a network, data set or function of one's own is: file.py:function,
    package.module:function, torchvision:resnet18."""
    return re.fullmatch(r"(.+\.py|[A-Za-z_][\w.]*):[A-Za-z_][\w.-]*(:.*)?", name) is not None


def removed_by(pattern: str) -> float:
    """The fraction of weights that "N:M" removes, 1 − N/M."""
    found = re.fullmatch(r"(\d{1,6}):(\d{1,6})", pattern)
    if found is None or not 0 < int(found[1]) < int(found[2]):
        raise UserError("pattern", pattern, "cannot be read", "write N:M, 2:4 keeps 2 of every 4")
    return 1 - int(found[1]) / int(found[2])


def quality(spec: Spec) -> str:
    """What a network's `accuracy` is, in words: higher is better in each."""
    for name, what in ((spec.metric, "metric"), (spec.loss, "loss")):
        if is_own(name):
            return f"{'minus the ' if what == 'loss' else ''}{what} {without_folder(name)}"
    return {"mse": "R²", "language_model": "token accuracy"}.get(spec.loss, "accuracy")


def without_folder(name: str) -> str:
    """A name as records have it: of a file of code its own name, for folders are the machine's."""
    return re.sub(r"^[^:]*/([^/:]+\.py:)", r"\1", name)


def split_options(text: str, field_name: str) -> tuple[str, dict[str, str]]:
    """ "name:key=value,key=value" -> (name, {key: value}); values stay text. Source of the
    mini-syntax of Spec.model.
    """
    name, _, rest = text.partition(":")
    options = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not (key and equals and value):
            raise UserError(
                field_name, text, f"cannot read {item!r}", "write name:key=value,key=value"
            )
        options[key] = value
    return name, options
