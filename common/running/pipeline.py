"""The three verbs over a Spec, and the one loop under all gradual runs. A stage whose record exists
is not run again.

    train(spec)     dense network
                    <output>/<paper>/dense/<slug>/seed<k>/train.json, model.safetensors
    prune(spec)     steps × (prune, fine-tune between)   <output>/<paper>/<table or
                    cells>/<slug>/seed<k>/prune.json, pruned.safetensors
    finetune(spec)  the final fine-tuning                ... the same folder: finetune.json,
                    finetuned.safetensors

A record is written last, after the file it speaks of; half-done work lies beside it in snapshots
and is taken up again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from pathlib import Path

import torch

from common.cells.errors import NumericalError, UserError
from common.cells.record import Record, record_id
from common.cells.spec import NAMING, Spec
from common.data import sources as D
from common.nets import checkpoint, models
from common.nets import masks as M
from common.nets.flops import Costs, costs
from common.pruning.pruned import Pruned
from common.running import gradual, reuse
from common.running import train as T
from common.running.gradual import architecture, method_of, snapshot
from common.running.timing import Timer, claim
from common.system import distributed, machine

LOSS_EXAMPLES = 5_000  # un-augmented training examples on which losses are compared, seed 0
FILES = {
    "train": "model.safetensors",
    "prune": "pruned.safetensors",
    "finetune": "finetuned.safetensors",
}
_COSTS = ("sparsity", "kept_params", "dense_params", "dense_macs")
# numbers that later stages read
NEEDED = {
    "train": {"accuracy": ("last",), "loss": ("dense",), "achieved": _COSTS},
    "prune": {
        "accuracy": ("dense", "pruned"),
        "loss": ("dense", "pruned", "pruned_test"),
        "achieved": _COSTS,
    },
    "finetune": {"accuracy": ("dense", "pruned", "last"), "achieved": _COSTS},
}


# -- folders ---------------------------------------------------------------------------------------


def dense_folder(spec: Spec) -> Path:
    """Where the dense network of a cell lies; cells with the same dense Spec share it."""
    return _folder(
        Path(spec.output_dir) / spec.paper / "dense", pinned(spec).dense(), spec.dense_seed
    )


def cell_folder(spec: Spec) -> Path:
    """Where a cell's pruning and fine-tuning lie: below its table's or job's name."""
    return _folder(
        Path(spec.output_dir) / spec.paper / (spec.table or "cells"), pinned(spec), spec.seed
    )


def pinned(spec: Spec) -> Spec:
    """The Spec with the digest of a checkpoint that is given by its path, so that files of one name
    in different folders are different networks. A name in the data root's checkpoints folder stays
    a name: there the digest is compared on reuse."""
    path = Path(spec.checkpoint)
    if spec.checkpoint and not spec.checkpoint_sha256 and path.is_file():
        return spec.but(checkpoint_sha256=reuse.file_sha256(path)[:16])
    return spec


def _folder(group: Path, spec: Spec, seed: int) -> Path:
    """The run's folder under its name or, where only that is there, under a name of an older
    version that holds the same Spec. An older record cannot say which file a checkpoint given by
    its path was, so such a cell is computed anew."""
    newest = group / spec.slug() / f"seed{seed}"
    if not newest.exists():
        for naming in range(NAMING - 1, 0, -1):
            older = group / spec.slug(naming) / f"seed{seed}"
            if any(_spec_in(path) == spec.identity() for path in sorted(older.glob("*.json"))):
                return older
    return newest


def _spec_in(path: Path) -> dict | None:
    """The identity of the Spec in a record; None for what is no record."""
    try:
        return Spec.from_dict(Record.read(path).spec).identity()
    except (UserError, TypeError):
        return None


# -- verbs -----------------------------------------------------------------------------------------


def train(spec: Spec) -> Record:
    """The dense network: built, loaded from `spec.checkpoint` if given, trained by `spec.train`,
    saved, recorded.
    """
    spec = pinned(spec).dense()
    folder = dense_folder(spec)
    if (done := _finished(spec, folder, "train")) is not None:
        return done
    data, where = _data(spec), machine.device(spec.device)
    model = models.build(spec.model, data.classes, data.input_shape, spec.dense_seed)
    if spec.checkpoint:
        checkpoint.load_weights(find_checkpoint(spec), model)
    model.to(where)
    with claim(folder, wait=True):
        if (done := _finished(spec, folder, "train")) is not None:  # meanwhile, by another process
            return done
        timer, wanted = Timer(), _identity(spec, "train")
        mark = _resuming(timer, folder, "train", wanted)
        with timer.phase("train"):
            fit = T.fit(
                model,
                data,
                spec.train,
                seed=spec.dense_seed,
                amp=spec.amp,
                snapshot=snapshot(folder, "train", mark=mark),
                desc=f"train {spec.model}",
            )
        with timer.phase("evaluate"):
            loss, _ = T.evaluate(model, _loss_loader(data))
        cost = costs(model, data.input_shape)
        record = _record(spec, "train", spec.dense_seed, data, cost, cost, where, timer, wanted)
        record.dense_hash = checkpoint.state_hash(model)
        record.accuracy = {"dense": fit.last, **_accuracy(fit)} | _top5(model, data, "dense")
        record.loss = {"dense": loss, "examples": min(LOSS_EXAMPLES, len(data.train))}
        record.trajectory, record.notes = fit.history, _divergence(fit)
        return _publish(record, folder, Pruned(model), architecture(spec, data))


def prune(spec: Spec) -> Record:
    """The dense network pruned to `spec.amount` by `spec.method`, at once or in `spec.steps` with
    fine-tuning between.
    """
    spec.amount  # noqa: B018  a missing amount is reported before anything is computed
    function, options = method_of(spec)
    trained(spec)
    spec = pinned(spec)
    folder = cell_folder(spec)
    if (done := _finished(spec, folder, "prune")) is not None:
        return done
    dense = train(spec)
    data, where = _data(spec), machine.device(spec.device)
    start = checkpoint.load(dense_folder(spec) / "model.safetensors").model.to(where)
    before = costs(start, data.input_shape)
    with claim(folder):
        if (done := _finished(spec, folder, "prune")) is not None:
            return done
        timer, wanted = Timer(), _identity(spec, "prune")
        mark = _resuming(timer, folder, "prune", wanted | {"dense_hash": dense.dense_hash})
        with machine.memory_budget(spec.memory_budget):
            result, trajectory = gradual.run(
                spec,
                start,
                data,
                function,
                options,
                timer,
                folder,
                dense.accuracy["last"],
                before.macs,
                mark,
            )
        with timer.phase("evaluate"):
            loss, _ = T.evaluate(result.model, _loss_loader(data))
            test_loss, accuracy = T.evaluate(result.model, data.test_loader())
        if not (math.isfinite(loss) and math.isfinite(test_loss)):
            raise NumericalError(
                "output",
                f"the pruned network's loss is {loss if math.isfinite(test_loss) else test_loss}",
                "remove less, or raise --damping",
            )
        after = costs(result.model, data.input_shape, result.masks)
        record = _record(spec, "prune", spec.seed, data, before, after, where, timer, wanted)
        record.dense_hash = dense.dense_hash
        record.accuracy = {"dense": dense.accuracy["last"], "pruned": accuracy} | _top5(
            result.model, data, "pruned"
        )
        record.accuracy |= {
            name: value for name, value in dense.accuracy.items() if name == "top5_dense"
        }
        record.loss = dense.loss | {
            "pruned": loss,
            "predicted_increase": result.predicted_increase if len(trajectory) < 2 else None,
            "measured_increase": loss - dense.loss["dense"],
            "pruned_test": test_loss,
        }
        record.trajectory, record.notes = trajectory, result.notes
        record.layers = [layer | result.layers.get(layer["name"], {}) for layer in record.layers]
        return _publish(record, folder, result, architecture(spec, data))


def finetune(spec: Spec) -> Record:
    """The pruned network fine-tuned by `spec.finetune`, its masks held; "last" is the accuracy that
    tables quote.
    """
    spec = pinned(spec)
    folder = cell_folder(spec)
    if (done := _finished(spec, folder, "finetune")) is not None:
        return done
    pruning = prune(spec)
    data, where = _data(spec), machine.device(spec.device)
    loaded = checkpoint.load(folder / "pruned.safetensors")
    model = loaded.model.to(where)
    with claim(folder):
        if (done := _finished(spec, folder, "finetune")) is not None:
            return done
        timer, wanted = Timer(), _identity(spec, "finetune")
        mark = _resuming(timer, folder, "finetune", wanted | {"dense_hash": pruning.dense_hash})
        result = Pruned(model, loaded.masks, loaded.edits, **gradual.recalled(loaded.extra_tensors))
        with timer.phase("finetune"):
            recipe, clock = gradual.final(spec, len(data.train))
            fit = gradual.tune(
                spec,
                result,
                data,
                recipe,
                clock=clock,
                seed=spec.seed,
                snapshot=snapshot(folder, "finetune", mark=mark),
                before=(pruning.loss["pruned_test"], pruning.accuracy["pruned"]),
                desc=f"fine-tune {spec.method} {spec.amount:g}",
            )
        record = dataclasses.replace(
            pruning,
            id=record_id(spec.slug(), spec.seed, "finetune"),
            stage="finetune",
            timing=timer.report(),
            accuracy=pruning.accuracy | _accuracy(fit) | _top5(model, data, "last"),
            trajectory=fit.history,
            notes=pruning.notes + _divergence(fit),
            provenance=machine.provenance(where, spec.seed, data.sha256) | {"load": timer.load()},
            identity=wanted,
        )
        if result.masks is not loaded.masks:  # the method chose again
            after = costs(model, data.input_shape, result.masks)
            kept = {layer.name: layer.nonzero for layer in after.layers}
            record.achieved = pruning.achieved | {
                "sparsity": 1 - after.kept_params / pruning.achieved["dense_params"],
                "kept_params": after.kept_params,
                "kept_macs": after.nonzero_macs,
            }
            record.layers = [layer | {"kept": kept[layer["name"]]} for layer in pruning.layers]
        return _publish(
            record, folder, Pruned(model, result.masks, loaded.edits), architecture(spec, data)
        )


VERBS = {"train": train, "prune": prune, "finetune": finetune}


# -- parts of the verbs ----------------------------------------------------------------------------


def trained(spec: Spec) -> None:
    """Raise UserError for a dense network that is nothing but its initialisation: what is pruned
    then says little.
    """
    if not (spec.checkpoint or spec.train.epochs or spec.allow_untrained):
        raise UserError(
            "checkpoint",
            spec.checkpoint,
            "and no epochs of training: the dense network would be its initialisation",
            "give --checkpoint, train it, or say --allow-untrained",
        )


def _resuming(timer: Timer, folder: Path, stage: str, made_of: dict) -> str:
    """The mark of the stage's half-done work; the timer is told where there is some, as it cannot
    know what that took.
    """
    mark = reuse.mark(made_of)
    timer.resumed = any(folder.glob(f"{stage}-snapshot*-{mark}.safetensors"))
    return mark


def _identity(spec: Spec, stage: str) -> dict:
    """What decides the result of the stage, by content. Loads the data."""
    options = {} if stage == "train" else dataclasses.asdict(method_of(spec)[1])
    data = _data(spec)
    return reuse.identity(
        spec, options, data.sha256, data.content, find_checkpoint(spec) if spec.checkpoint else None
    )


def _finished(spec: Spec, folder: Path, stage: str) -> Record | None:
    """The stage's record, if it and the network it speaks of are there; half-done work of a process
    that was killed right after writing it goes. Raises UserError for a record that lacks what later
    stages read, or that was made of other data, another checkpoint, other options or another dense
    network, or whose network file was exchanged."""
    path = folder / f"{stage}.json"
    if not (path.exists() and (folder / FILES[stage]).exists()):
        return None
    record = Record.read(path)
    lacking = [
        f"{part}.{key}"
        for part, keys in NEEDED[stage].items()
        for key in keys
        if not isinstance(getattr(record, part).get(key), int | float)
    ]
    lacking += [
        f"layers.{key}"
        for key in ("name", "kept", "total")
        for layer in record.layers
        if not (isinstance(layer, dict) and key in layer)
    ]
    if record.stage != stage or lacking:
        raise UserError(
            "record",
            str(path),
            f"lacks {lacking[0]}" if lacking else f"is of the stage {record.stage!r}",
            "delete it to compute the cell again",
        )
    dense = dense_folder(spec) / "train.json"
    known = (
        {"dense_hash": Record.read(dense).dense_hash} if stage != "train" and dense.exists() else {}
    )
    made = (
        dataclasses.replace(record, identity=record.identity | {"dense_hash": record.dense_hash})
        if record.identity
        else record
    )
    reuse.require_same(made, path, _identity(spec, stage) | known)
    reuse.require_file(record, path, folder / FILES[stage])
    for stale in folder.glob(f"{stage}-snapshot*"):
        stale.unlink(missing_ok=True)
    return record


def _publish(record: Record, folder: Path, result: Pruned, architecture: dict) -> Record:
    """Save the network, then the record that says it is there, then drop the stage's half-done
    work.
    """
    if distributed.rank() == 0:
        sha256 = checkpoint.save(
            folder / FILES[record.stage],
            result.model,
            architecture,
            result.edits,
            result.masks,
            extra_tensors=gradual.kept(result),
        )
        record.identity |= {"file_sha256": sha256, "mask_sha256": _kept(result)}
        record.write(folder / f"{record.stage}.json")
        for stale in folder.glob(f"{record.stage}-snapshot*"):
            stale.unlink(missing_ok=True)
    distributed.barrier()
    return record


def _kept(result: Pruned) -> str:
    """A digest of what was kept: masks by name and bit, surgery by its edits; "" for a dense
    network.
    """
    if not (result.masks or result.edits):
        return ""
    return hashlib.sha256(
        (M.digest(result.masks) + json.dumps(result.edits, sort_keys=True)).encode()
    ).hexdigest()


def _data(spec: Spec) -> D.Data:
    return _load(spec.dataset, str(D.data_root(spec.data_dir)))


@functools.lru_cache(maxsize=2)
def _load(dataset: str, root: str) -> D.Data:
    return D.load(dataset, root)


def _loss_loader(data: D.Data):
    return data.calibration(min(LOSS_EXAMPLES, len(data.train)), batch_size=256, seed=0)


def find_checkpoint(spec: Spec) -> Path:
    """`spec.checkpoint` as a path, or by name in <data root>/checkpoints. Raises UserError where
    there is none, or where it is not the one that `spec.checkpoint_sha256` says."""
    folder = D.data_root(spec.data_dir) / "checkpoints"
    for path in (
        Path(spec.checkpoint),
        folder / spec.checkpoint,
        folder / f"{spec.checkpoint}.safetensors",
    ):
        if path.is_file():
            found = reuse.file_sha256(path) if spec.checkpoint_sha256 else ""
            if not found.startswith(spec.checkpoint_sha256):
                raise UserError(
                    "checkpoint",
                    spec.checkpoint,
                    f"is another file than the cell's: {found[: reuse.SHOWN]}, "
                    f"asked for is {spec.checkpoint_sha256[: reuse.SHOWN]}",
                    "give the path of that one",
                )
            return path
    raise UserError(
        "checkpoint",
        spec.checkpoint,
        "no such file",
        "give a path, or a name in the data root's checkpoints folder",
    )


def _top5(model: torch.nn.Module, data: D.Data, stage: str) -> dict[str, float]:
    """Test accuracy over the five largest outputs, which tables on ImageNet quote; {} for at most
    ten classes, where it says little.
    """
    return {f"top5_{stage}": T.top_accuracy(model, data.test_loader())} if data.classes > 10 else {}


def _accuracy(fit: T.Fit) -> dict:
    return {"last": fit.last, "best": fit.best, "best_selected_on": "test"}


def _divergence(fit: T.Fit) -> list[str]:
    return (
        []
        if fit.diverged is None
        else [f"training diverged at step {fit.diverged}; the last epoch's state was kept"]
    )


def _record(
    spec: Spec,
    stage: str,
    seed: int,
    data: D.Data,
    before: Costs,
    after: Costs,
    where: torch.device,
    timer: Timer,
    wanted: dict,
) -> Record:
    """A record of the stage with everything that does not depend on the verb. Paths of the machine
    stay out of it.
    """
    requested = {
        name: getattr(spec, name)
        for name in ("sparsity", "unit_ratio")
        if getattr(spec, name) is not None
    }
    achieved = {
        "sparsity": 1 - after.kept_params / before.params,
        "kept_params": after.kept_params,
        "kept_macs": after.nonzero_macs,
        "dense_params": before.params,
        "dense_macs": before.macs,
        "model_params": after.model_params,
        "dense_model_params": before.model_params,
    }
    told = spec.but(
        data_dir="",
        output_dir=Spec.output_dir,
        device=Spec.device,
        checkpoint=Path(spec.checkpoint).name,
    )
    kept = {layer.name: layer.nonzero for layer in after.layers}
    layers = [
        {
            "name": layer.name,
            "kept": kept.get(
                layer.name, sum(v for n, v in kept.items() if n.startswith(layer.name + "."))
            ),
            "total": layer.params,
        }
        for layer in before.layers
    ]
    return Record(
        record_id(spec.slug(), seed, stage),
        spec.paper,
        spec.table,
        spec.cell,
        spec.method if stage != "train" else "dense",
        stage,
        spec.scale,
        told.to_dict(),
        requested=requested,
        achieved=achieved,
        layers=layers,
        timing=timer.report(),
        provenance=machine.provenance(where, seed, data.sha256) | {"load": timer.load()},
        identity=wanted,
    )
