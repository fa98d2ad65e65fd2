"""A gradual run: the one loop under all of them, and what it needs to know of a method.

Prune to each level of a schedule, fine-tune between, keep every finished step on disk; stop at the
last level, or where the Spec says enough. With a bound on the added error the last network within
it is the result; `patience` prunings in a row may be beyond the bound before the run gives up, as
an epoch of fine-tuning moves the error by more than a pruning. `common.running.pipeline` makes
records of it.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import types
import typing
from pathlib import Path

import torch
from torch import nn

from common.cells import registry
from common.cells.errors import UserError
from common.cells.spec import Recipe, Spec
from common.cells.trace import Prune, Train, course
from common.data import sources as D
from common.nets import checkpoint
from common.nets.flops import costs
from common.pruning.pruned import Pruned
from common.running import train as T
from common.running.timing import Timer
from common.system import distributed, machine

# calibration examples where neither the Spec nor the method says how many
DEFAULT_CALIBRATION = 1_000
BN_BATCH = 128
MOMENT = "moment."  # before the names of the optimiser's tensors in a checkpoint
METHOD_FIELDS = ("scope", "fisher", "fisher_batch_size", "damping", "chunk", "recompute", "update")


def run(
    spec: Spec,
    model: nn.Module,
    data: D.Data,
    function: typing.Callable,
    options: object,
    timer: Timer,
    folder: Path,
    accuracy: float,
    macs: int,
    mark: str = "",
) -> tuple[Pruned, list[dict]]:
    """Prune to each level of the schedule, fine-tuning `step_epochs` between, until the last or a
    stop that the Spec names; every finished step is kept on disk, under the mark of what decides
    the run. accuracy, macs: the dense network's."""
    prunings, stretches = _rounds(spec, len(data.train))
    goals = [event.amount for event in prunings]
    keep = functools.partial(snapshot, folder, "prune", mark=mark)
    within, beyond = keep(), keep("-beyond")
    result, trajectory = (
        _resume(within, next(model.parameters()).device) if within.exists() else (Pruned(model), [])
    )
    # the last network within the bound, and how many entries lead to it
    best, reached = result, len(trajectory)
    if beyond.exists():
        further = _resume(beyond, next(model.parameters()).device)
        result, trajectory = further if len(further[1]) > reached else (result, trajectory)
    judge = _judged_by(data, spec.step_test_samples)
    # on the course's clock training may come before the first pruning
    if not trajectory and -1 in stretches:
        with timer.phase("finetune"):
            _train(
                spec,
                result,
                judge,
                stretches[-1],
                seed=spec.seed * 1_000 + 999,
                snapshot=keep("-before"),
                desc="before the first pruning",
            )
    faster = trajectory and trajectory[-1].get("speedup", 0) >= (spec.speedup or math.inf)
    for step in range(len(trajectory), 0 if faster else len(goals)):
        generator = torch.Generator().manual_seed(spec.seed * 1_000 + step)
        with timer.phase("prune"):
            calibration = data.calibration(
                spec.num_samples or min(DEFAULT_CALIBRATION, len(data.train)),
                seed=spec.seed * 1_000 + step,
            )
            amount = prunings[step].layers or goals[step]
            home = next(result.model.parameters()).device
            desk = machine.curvature_device(home)
            given = result.model if desk == home else copy.deepcopy(result.model).to(desk)
            new = function(given, calibration, amount, options, generator, **_so_far(result))
            new.model.to(home)
            result = dataclasses.replace(
                new,
                edits=result.edits + new.edits,
                notes=result.notes + new.notes,
                moments=result.moments,
            )
        if spec.recalibrate_bn:
            with timer.phase("recalibrate_bn"):
                T.recalibrate_bn(
                    result.model, data.train_loader(BN_BATCH, seed=spec.seed), spec.recalibrate_bn
                )
        if len(goals) == 1:
            break
        before = T.evaluate(result.model, judge.test_loader())
        entry = {
            "step": step,
            "epoch": round(prunings[step].epoch, 6),
            "amount": goals[step],
            "pruned": before[1],
            "predicted_increase": result.predicted_increase,
        }
        # of the dense weights, which go on beside the masked ones
        if registry.load_training(spec.method) is not None:
            entry["latent_norms"] = {
                name: round(float(weight.norm()), 5) for name, weight in result.latent.items()
            }
        after = costs(result.model, data.input_shape, result.masks)
        entry |= {"kept_params": after.kept_params, "kept_macs": after.nonzero_macs}
        if spec.speedup is not None:
            entry["speedup"] = round(macs / after.nonzero_macs, 4)
        last = step + 1 == len(goals) or entry.get("speedup", 0) >= (spec.speedup or math.inf)
        if step in stretches and (not last or spec.max_error_increase is not None):
            with timer.phase("finetune"):
                fit = _train(
                    spec,
                    result,
                    judge,
                    stretches[step],
                    seed=spec.seed * 1_000 + step,
                    before=before,
                    snapshot=keep(step),
                    desc=f"step {step + 1} of {len(goals)}",
                )
            entry["tuned"] = fit.last
        added = 100 * (accuracy - entry.get("tuned", entry["pruned"]))
        within_bound = spec.max_error_increase is None or added <= spec.max_error_increase + 1e-9
        trajectory.append(entry if within_bound else entry | {"beyond": round(added, 4)})
        if within_bound:
            best, reached = result, len(trajectory)
        elif last or len(trajectory) - reached > spec.patience:
            failed = trajectory[reached:]
            note = (
                f"stopped before amount {goals[reached]:.5g}: from there on the test error is "
                f"{', '.join(format(entry['beyond'], '.2f') for entry in failed)} points above "
                "the dense network's"
            )
            return dataclasses.replace(best, notes=[*best.notes, note]), trajectory[:reached]
        if distributed.rank() == 0:
            checkpoint.save(
                within if within_bound else beyond,
                result.model,
                architecture(spec, data),
                result.edits,
                result.masks,
                extra={
                    "trajectory": trajectory,
                    "notes": result.notes,
                    "layers": result.layers,
                    "predicted_increase": result.predicted_increase,
                },
                extra_tensors=kept(result),
            )
        if last:
            break
    if spec.speedup is not None and trajectory and trajectory[-1]["speedup"] < spec.speedup:
        result.notes.append(
            f"{len(trajectory)} steps reached {trajectory[-1]['speedup']:g} times fewer MACs, not "
            f"{spec.speedup:g}"
        )
    return result, trajectory


def _resume(path: Path, device: torch.device) -> tuple[Pruned, list[dict]]:
    """The network of the last step that a killed run has kept, and its trajectory."""
    loaded = checkpoint.load(path)
    trajectory = loaded.extra.get("trajectory")
    if not (isinstance(trajectory, list) and all(isinstance(entry, dict) for entry in trajectory)):
        raise UserError(
            "checkpoint", path.name, "is no half-done pruning", "delete it to begin again"
        )
    return Pruned(
        loaded.model.to(device),
        loaded.masks,
        loaded.edits,
        **recalled(loaded.extra_tensors),
        **{
            name: loaded.extra[name]
            for name in ("notes", "layers", "predicted_increase")
            if name in loaded.extra
        },
    ), trajectory


def kept(result: Pruned) -> dict[str, torch.Tensor]:
    """What a checkpoint keeps of a half-done course beside its network: latent weights and the
    optimiser's moments.
    """
    return result.latent | {MOMENT + name: value for name, value in result.moments.items()}


def recalled(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """The inverse of `kept`: {"latent": ..., "moments": ...}."""
    moments = {
        name.removeprefix(MOMENT): value
        for name, value in tensors.items()
        if name.startswith(MOMENT)
    }
    return {
        "latent": {name: value for name, value in tensors.items() if not name.startswith(MOMENT)},
        "moments": moments,
    }


def _rounds(spec: Spec, examples: int) -> tuple[list[Prune], dict[int, Train]]:
    """The prunings of the course, and the training that follows each of them; before the first
    under -1. The final training is the next verb's."""
    prunings, stretches = [], {}
    for event in course(spec, examples):
        if isinstance(event, Prune):
            prunings.append(event)
        elif event.stage != "final":
            stretches[len(prunings) - 1] = event
    return prunings, stretches


def final(spec: Spec, examples: int) -> tuple[Recipe, tuple[float, float] | None]:
    """The recipe of the training after the last pruning and, on the course's clock, where its rates
    begin and end.
    """
    if spec.clock == "interval":
        return spec.finetune, None
    last = course(spec, examples)[-1]
    epochs, at = (
        (last.epochs, last.clock) if isinstance(last, Train) else (0.0, spec.finetune.epochs)
    )
    return dataclasses.replace(spec.finetune, epochs=epochs), (at, spec.finetune.epochs)


def _train(spec: Spec, result: Pruned, data: D.Data, stretch: Train, **how: object) -> T.Fit:
    """Train for a stretch of the course that is not its last."""
    recipe, clock = stretch.recipe, None
    if spec.clock == "course":
        recipe, clock = (
            dataclasses.replace(recipe, epochs=stretch.epochs),
            (stretch.clock, stretch.whole),
        )
    return tune(spec, result, data, recipe, between=True, clock=clock, **how)


def _judged_by(data: D.Data, samples: int) -> D.Data:
    """The same data with a fixed draw of its test images; all of them for 0."""
    if not samples or samples >= len(data.test):
        return data
    drawn = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))[
        :samples
    ].tolist()
    return dataclasses.replace(data, test=torch.utils.data.Subset(data.test, drawn))


def tune(
    spec: Spec, result: Pruned, data: D.Data, recipe: Recipe, between: bool = False, **how: object
) -> T.Fit:
    """Fine-tune `result` with its masks held; let the method choose them again on the way, or
    (between two prunings) gather its statistics: those two go on from a finished step, not from a
    snapshot. On the course's clock one run has the prunings inside it, so the optimiser keeps its
    momentum across them."""
    whole = spec.clock == "course"
    how |= {"moments": result.moments} if whole else {}
    watch = registry.load_statistics(spec.method) if between else None
    make = None if watch is not None else registry.load_training(spec.method)
    if watch is not None:
        callback = watch(result, method_of(spec)[1], how["seed"])
        fit = T.fit(
            result.model,
            data,
            recipe,
            result.masks,
            [callback],
            amp=spec.amp,
            **how | {"snapshot": None},
        )
        result.latent = callback.latent
    elif make is not None:
        callback = make(result, method_of(spec)[1])
        fit = T.fit(
            result.model,
            data,
            recipe,
            callbacks=[callback],
            amp=spec.amp,
            **how | {"snapshot": None},
        )
        result.masks, result.latent = callback.masks, callback.latent
    else:
        fit = T.fit(result.model, data, recipe, result.masks, amp=spec.amp, **how)
    result.moments = fit.moments if whole else {}
    return fit


def _so_far(result: Pruned) -> dict:
    """What an already pruned network tells the method: its masks and latent weights, if it has
    any.
    """
    return {
        name: value for name, value in (("masks", result.masks), ("latent", result.latent)) if value
    }


def method_of(spec: Spec) -> tuple[typing.Callable, object]:
    """(prune function, its Options) for a Spec. Options are the method's own defaults, then the
    registry's preset, then what the Spec says. Raises UserError for a field that the method does
    not have, so that no setting is silently ignored."""
    entry = registry.lookup(spec.method)
    unit, other = (
        ("sparsity", "unit_ratio") if entry.kind == "weights" else ("unit_ratio", "sparsity")
    )
    if getattr(spec, unit) is None and spec.amount is not None:
        raise UserError(
            other,
            spec.amount,
            f"method {spec.method!r} removes {entry.kind}",
            f"give --{unit.replace('_', '-')}",
        )
    if entry.kind != "weights" and spec.steps > 1 and spec.step_schedule != "constant":
        raise UserError(
            "step_schedule",
            spec.step_schedule,
            f"every step of {spec.method!r} removes its ratio of the units that are left",
            "use the constant schedule",
        )
    function = registry.load(spec.method)
    kind = typing.get_type_hints(function)["options"]
    known = {f.name for f in dataclasses.fields(kind)}
    types_of = typing.get_type_hints(kind)
    given = {name: getattr(spec, name) for name in METHOD_FIELDS if getattr(spec, name) is not None}
    given |= {
        name: tuple(v) if isinstance(v, list) else v
        for name, v in spec.options
        if name != "layer_sparsity"
    }
    for name, value in given.items():
        if name not in known:
            raise UserError(
                name,
                value,
                f"method {spec.method!r} has no such option",
                f"its options: {', '.join(sorted(known))}",
            )
        if not _is_a(value, types_of[name]):
            hint = types_of[name]
            raise UserError(
                name,
                value,
                "has the wrong type",
                f"give {hint.__name__ if isinstance(hint, type) else hint}",
            )
        if name in entry.preset and entry.preset[name] != value:
            raise UserError(
                name,
                value,
                f"contradicts method {spec.method!r}",
                "choose the method whose name says it",
            )
    return function, kind(**entry.preset | given)


def _is_a(value: object, hint: object) -> bool:
    """Whether an option's value, perhaps from a command line, is of its field's type; numbers must
    be finite.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_is_a(value, part) for part in parts)
    if origin is tuple:
        inner = (
            parts[:1] * len(value) if isinstance(value, tuple) and parts[1:] == (...,) else parts
        )
        return (
            isinstance(value, tuple) and len(value) == len(inner) and all(map(_is_a, value, inner))
        )
    if hint in (int, float):
        return (
            isinstance(value, int | hint) and not isinstance(value, bool) and math.isfinite(value)
        )
    return isinstance(value, origin or hint) if isinstance(origin or hint, type) else True


def snapshot(folder: Path, stage: str, step: int | str = "", mark: str = "") -> Path:
    """Where a stage (or one step of it) keeps its half-done work. mark: of what decides the stage,
    so that the work goes on under the same data, network and settings alone."""
    return folder / f"{stage}-snapshot{step}{mark and '-' + mark}.safetensors"


def architecture(spec: Spec, data: D.Data) -> dict:
    return {"model": spec.model, "classes": data.classes, "input_shape": list(data.input_shape)}
