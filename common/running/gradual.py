"""A gradual run: prune to each level of a schedule, fine-tune between, keep every finished step.

The run stops at the last level, or where the Spec says enough (`speedup`, `max_error_increase`).
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from common.cells import registry
from common.cells.errors import UserError
from common.cells.spec import Recipe, Spec
from common.cells.trace import Prune, Train, course
from common.data import sources as D
from common.nets import checkpoint
from common.nets.clone import clone
from common.nets.flops import costs
from common.pruning.pattern import Pattern, require
from common.pruning.pruned import Pruned
from common.running import train as T
from common.running.options import method_of
from common.running.stages import Stage, recalled_tensors
from common.system import distributed, machine

# calibration examples where neither the Spec nor the method says how many
DEFAULT_CALIBRATION = 1_000
BN_BATCH = 128


def run(
    work: Stage,
    model: nn.Module,
    data: D.Data,
    function: typing.Callable,
    options: object,
    accuracy: float,
    macs: int,
) -> tuple[Pruned, list[dict]]:
    """The network at the end of the schedule, and an entry a pruning (none for a single pruning).

    work: the stage; every finished step is kept in its folder, and a run goes on from there.
    function, options: the method. accuracy, macs: the dense network's.
    """
    spec, timer = work.spec, work.timer
    prunings, stretches = _rounds(spec, len(data.train))
    judge = _judged_by(data, spec.step_test_samples)
    result, trajectory, bound = _begin(work, model, accuracy)
    # on the course's clock training may come before the first pruning
    if not trajectory and -1 in stretches:
        with timer.phase("finetune"):
            _train(
                spec,
                result,
                judge,
                stretches[-1],
                seed=spec.seed * 1_000 + 999,
                snapshot=work.snapshot("-before"),
                desc="before the first pruning",
            )
    for step in range(len(trajectory), len(prunings)):
        if trajectory and _fast_enough(spec, trajectory[-1]):
            break
        with timer.phase("prune"):
            result = _prune(spec, result, data, function, options, prunings[step], step)
        if spec.recalibrate_bn:
            with timer.phase("recalibrate_bn"):
                loader = data.train_loader(BN_BATCH, seed=spec.seed)
                T.recalibrate_bn(result.model, loader, spec.recalibrate_bn)
        if len(prunings) == 1:
            return result, []
        before = T.evaluate(result.model, judge.judge_loader())
        entry = _entry(spec, result, data, prunings[step], step, before[1], macs)
        last = step + 1 == len(prunings) or _fast_enough(spec, entry)
        # after the last pruning comes the final fine-tuning, unless its error decides here
        if step in stretches and (not last or bound.limited):
            with timer.phase("finetune"):
                fit = _train(
                    spec,
                    result,
                    judge,
                    stretches[step],
                    seed=spec.seed * 1_000 + step,
                    before=before,
                    snapshot=work.snapshot(step),
                    desc=f"step {step + 1} of {len(prunings)}",
                )
            entry["tuned"] = fit.last
        trajectory.append(entry)
        within = bound.judge(result, trajectory)
        if not within and (last or bound.patience_is_out(trajectory)):
            return bound.retreat(trajectory)
        _keep(work, result, trajectory, data, "" if within else "-beyond")
    if spec.speedup is not None and trajectory and not _fast_enough(spec, trajectory[-1]):
        result.notes.append(
            f"{len(trajectory)} steps reached {trajectory[-1]['speedup']:g} times fewer MACs, not "
            f"{spec.speedup:g}"
        )
    return result, trajectory


@dataclass
class Bound:
    """The bound on the added error (`max_error_increase`, in points; None for no bound).

    The result is the last network within it. `patience` prunings in a row may lie beyond, as an
    epoch of fine-tuning moves the error by more than a pruning.
    """

    spec: Spec
    accuracy: float  # the dense network's
    best: Pruned  # the last network within the bound
    reached: int  # entries of the trajectory that lead to it

    @property
    def limited(self) -> bool:
        return self.spec.max_error_increase is not None

    def judge(self, result: Pruned, trajectory: list[dict]) -> bool:
        """Whether the last entry is within the bound; one that is not is marked "beyond"."""
        entry = trajectory[-1]
        added = 100 * (self.accuracy - entry.get("tuned", entry["pruned"]))
        if self.limited and added > self.spec.max_error_increase + 1e-9:
            entry["beyond"] = round(added, 4)
            return False
        self.best, self.reached = result, len(trajectory)
        return True

    def patience_is_out(self, trajectory: list[dict]) -> bool:
        return len(trajectory) - self.reached > self.spec.patience

    def retreat(self, trajectory: list[dict]) -> tuple[Pruned, list[dict]]:
        """The last network within the bound, with a note of what lay beyond."""
        failed = trajectory[self.reached :]
        note = (
            f"stopped before amount {failed[0]['amount']:.5g}: from there on the test error is "
            f"{', '.join(format(entry['beyond'], '.2f') for entry in failed)} points above the "
            "dense network's"
        )
        best = dataclasses.replace(self.best, notes=[*self.best.notes, note])
        return best, trajectory[: self.reached]


# -- steps of the run ------------------------------------------------------------------------------


def _begin(work: Stage, model: nn.Module, accuracy: float) -> tuple[Pruned, list[dict], Bound]:
    """Where a killed run stood, or the dense network."""
    where = next(model.parameters()).device
    result, trajectory = Pruned(model), []
    if (path := work.snapshot()).exists():
        result, trajectory = _resume(path, where)
    bound = Bound(work.spec, accuracy, result, len(trajectory))
    if (path := work.snapshot("-beyond")).exists():
        further = _resume(path, where)
        if len(further[1]) > len(trajectory):
            result, trajectory = further
    return result, trajectory, bound


def _prune(
    spec: Spec,
    result: Pruned,
    data: D.Data,
    function: typing.Callable,
    options: object,
    event: Prune,
    step: int,
) -> Pruned:
    """One pruning, of the network that the prunings before have left."""
    seed = spec.seed * 1_000 + step
    samples = spec.num_samples or min(DEFAULT_CALIBRATION, len(data.train))
    calibration = data.calibration(samples, seed=seed)
    home = next(result.model.parameters()).device
    desk = machine.curvature_device(home)
    given = result.model if desk == home else clone(result.model).to(desk)
    # what an already pruned network tells the method, if there is any
    so_far = {"masks": result.masks, "latent": result.latent}
    new = function(
        given,
        calibration,
        Pattern.parse(spec.pattern) if spec.pattern else event.layers or event.amount,
        options,
        torch.Generator().manual_seed(seed),
        **{name: value for name, value in so_far.items() if value},
    )
    new.model.to(home)
    if spec.pattern:
        require(new.model, new.masks, Pattern.parse(spec.pattern), spec.method)
    return dataclasses.replace(
        new, edits=result.edits + new.edits, notes=result.notes + new.notes, moments=result.moments
    )


def _entry(
    spec: Spec, result: Pruned, data: D.Data, event: Prune, step: int, accuracy: float, macs: int
) -> dict:
    """What the trajectory says of a pruning; accuracy: right after it."""
    entry = {
        "step": step,
        "epoch": round(event.epoch, 6),
        "amount": event.amount,
        "pruned": accuracy,
        "predicted_increase": result.predicted_increase,
    }
    # the dense weights, which go on beside the masked ones
    if registry.load_training(spec.method) is not None:
        entry["latent_norms"] = {
            name: round(float(weight.norm()), 5) for name, weight in result.latent.items()
        }
    after = costs(result.model, data.example(), result.masks)
    entry |= {"kept_params": after.kept_params, "kept_macs": after.nonzero_macs}
    if spec.speedup is not None:
        entry["speedup"] = round(macs / after.nonzero_macs, 4)
    return entry


def _fast_enough(spec: Spec, entry: dict) -> bool:
    return spec.speedup is not None and entry["speedup"] >= spec.speedup


def _keep(work: Stage, result: Pruned, trajectory: list[dict], data: D.Data, where: str) -> None:
    """Write the finished step, from which a killed run goes on."""
    if distributed.rank() == 0:
        extra = {
            "trajectory": trajectory,
            "notes": result.notes,
            "layers": result.layers,
            "predicted_increase": result.predicted_increase,
        }
        work.save(work.snapshot(where), result, data, extra)


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
        **recalled_tensors(loaded.extra_tensors),
        **{
            name: loaded.extra[name]
            for name in ("notes", "layers", "predicted_increase")
            if name in loaded.extra
        },
    ), trajectory


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
    """The same data, judged by a fixed draw of the images that judge; by all of them for 0."""
    judges = data.test if data.valid is None else data.valid
    if not samples or samples >= len(judges):
        return data
    drawn = torch.randperm(len(judges), generator=torch.Generator().manual_seed(0))
    fewer = judges.subset(drawn[:samples].tolist())
    return dataclasses.replace(data, **{"test" if data.valid is None else "valid": fewer})


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
    if spec.pattern:  # a method may choose again as it trains
        require(result.model, result.masks, Pattern.parse(spec.pattern), spec.method)
    result.moments = fit.moments if whole else {}
    return fit
