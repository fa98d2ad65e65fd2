"""The three verbs over a Spec. A stage whose record exists is not run again.

    train(spec)     the dense network
    prune(spec)     steps x (prune, fine-tune between)
    finetune(spec)  the final fine-tuning, masks held

`common.running.stages` says where each lies and what is written.
"""

from __future__ import annotations

import dataclasses
import math

import torch

from common.cells.errors import NumericalError, UserError
from common.cells.record import Record, record_id
from common.cells.spec import Spec
from common.data import sources as D
from common.nets import checkpoint, models
from common.nets.flops import costs
from common.pruning.pruned import Pruned
from common.running import gradual
from common.running import train as T
from common.running.options import method_of
from common.running.places import cell_folder, dense_folder
from common.running.stages import (
    data_of,
    find_checkpoint,
    provenance_of,
    recalled_tensors,
    record_of,
    stage,
)
from common.system import machine

# the verbs, and where their files and data lie
__all__ = [
    "VERBS",
    "cell_folder",
    "data_of",
    "dense_folder",
    "find_checkpoint",
    "finetune",
    "method_of",
    "prune",
    "train",
    "trained",
]

LOSS_EXAMPLES = 5_000  # un-augmented training examples on which losses are compared, seed 0


def train(spec: Spec) -> Record:
    """The dense network: built, loaded from `spec.checkpoint` if given, trained by `spec.train`."""
    with stage(spec.dense(), "train", start=_network, wait=True) as work:
        if work.done is not None:
            return work.done
        spec, timer = work.spec, work.timer
        data, where = data_of(spec), machine.device(spec.device)
        model = work.start.to(where)
        with timer.phase("train"):
            fit = T.fit(
                model,
                data,
                spec.train,
                seed=spec.dense_seed,
                amp=spec.amp,
                snapshot=work.snapshot(),
                desc=f"train {spec.model}",
            )
        with timer.phase("evaluate"):
            loss, _ = T.evaluate(model, _loss_loader(data))
        cost = costs(model, data.example())
        record = record_of(work, data, cost, cost, where)
        record.dense_hash = checkpoint.state_hash(model)
        record.accuracy = _accuracy(fit, model, data)
        record.accuracy |= {"dense": record.accuracy["last"]} | _top5(model, data, "dense")
        record.loss = {"dense": loss, "examples": min(LOSS_EXAMPLES, len(data.train))}
        record.trajectory, record.notes = fit.history, _divergence(fit)
        return work.publish(record, Pruned(model), data)


def prune(spec: Spec) -> Record:
    """The dense network pruned to `spec.amount`, at once or in steps with fine-tuning between."""
    spec.amount  # noqa: B018  a missing amount is reported before anything is computed
    function, options = method_of(spec)
    trained(spec)
    if spec.num_samples is not None:
        data_of(spec).require_samples(spec.num_samples)  # said before anything trains
    with stage(spec, "prune", start=train) as work:
        if work.done is not None:
            return work.done
        spec, dense, timer = work.spec, work.start, work.timer
        data, where = data_of(spec), machine.device(spec.device)
        start = checkpoint.load(dense_folder(spec) / "model.safetensors").model.to(where)
        before = costs(start, data.example())
        with machine.memory_budget(spec.memory_budget):
            result, trajectory = gradual.run(
                work, start, data, function, options, _judged(dense), before.macs
            )
        with timer.phase("evaluate"):
            loss, _ = T.evaluate(result.model, _loss_loader(data))
            test_loss, accuracy = T.evaluate(result.model, data.test_loader())
        for value in (test_loss, loss):
            if not math.isfinite(value):
                raise NumericalError(
                    "output",
                    f"the pruned network's loss is {value}",
                    "remove less, or raise --damping",
                )
        after = costs(result.model, data.example(), result.masks)
        record = record_of(work, data, before, after, where)
        record.dense_hash = dense.dense_hash
        record.accuracy = {"dense": dense.accuracy["last"], "pruned": accuracy}
        record.accuracy |= _top5(result.model, data, "pruned")
        record.accuracy |= {k: v for k, v in dense.accuracy.items() if k == "top5_dense"}
        record.loss = dense.loss | {
            "pruned": loss,
            "predicted_increase": result.predicted_increase if len(trajectory) < 2 else None,
            "measured_increase": loss - dense.loss["dense"],
            "pruned_test": test_loss,
        }
        record.trajectory, record.notes = trajectory, result.notes
        record.layers = [layer | result.layers.get(layer["name"], {}) for layer in record.layers]
        return work.publish(record, result, data)


def finetune(spec: Spec) -> Record:
    """The pruned network fine-tuned by `spec.finetune`, its masks held.

    "last" is the accuracy that tables quote.
    """
    with stage(spec, "finetune", start=prune) as work:
        if work.done is not None:
            return work.done
        spec, pruning, timer = work.spec, work.start, work.timer
        data, where = data_of(spec), machine.device(spec.device)
        loaded = checkpoint.load(work.folder / "pruned.safetensors")
        model = loaded.model.to(where)
        latent = recalled_tensors(loaded.extra_tensors)
        result = Pruned(model, loaded.masks, loaded.edits, **latent)
        # known already, unless held out images judge
        start = (pruning.loss["pruned_test"], pruning.accuracy["pruned"])
        start = start if data.valid is None else None
        with timer.phase("finetune"):
            recipe, clock = gradual.final(spec, len(data.train))
            fit = gradual.tune(
                spec,
                result,
                data,
                recipe,
                clock=clock,
                seed=spec.seed,
                snapshot=work.snapshot(),
                before=start,
                desc=f"fine-tune {spec.method} {spec.amount:g}",
            )
        record = dataclasses.replace(
            pruning,
            id=record_id(spec.slug(), spec.seed, "finetune"),
            stage="finetune",
            timing=timer.report(),
            accuracy=pruning.accuracy | _accuracy(fit, model, data) | _top5(model, data, "last"),
            trajectory=fit.history,
            notes=pruning.notes + _divergence(fit),
            provenance=provenance_of(work, data, where),
            identity=work.identity,
        )
        if result.masks is not loaded.masks:  # the method chose again
            after = costs(model, data.example(), result.masks)
            kept = {layer.name: layer.nonzero for layer in after.layers}
            record.achieved = pruning.achieved | {
                "sparsity": 1 - after.kept_params / pruning.achieved["dense_params"],
                "kept_params": after.kept_params,
                "kept_macs": after.nonzero_macs,
            }
            record.layers = [layer | {"kept": kept[layer["name"]]} for layer in pruning.layers]
        return work.publish(record, Pruned(model, result.masks, loaded.edits), data)


VERBS = {"train": train, "prune": prune, "finetune": finetune}


def _network(spec: Spec) -> torch.nn.Module:
    """The network as it is initialised, or loaded from the Spec's checkpoint."""
    data = data_of(spec)
    model = models.build(spec.model, data.classes, data.input_shape, spec.dense_seed)
    if spec.checkpoint:
        checkpoint.load_weights(find_checkpoint(spec), model)
    return model


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


def _loss_loader(data: D.Data):
    return data.calibration(
        min(LOSS_EXAMPLES, len(data.train)), batch_size=data.evaluation_batch, seed=0
    )


def _top5(model: torch.nn.Module, data: D.Data, name: str) -> dict[str, float]:
    """Test accuracy over the five largest outputs, which tables on ImageNet quote; {} for at most
    ten classes, where it says little.
    """
    return {f"top5_{name}": T.top_accuracy(model, data.test_loader())} if data.classes > 10 else {}


def _accuracy(fit: T.Fit, model: torch.nn.Module, data: D.Data) -> dict:
    """For Record.accuracy. "last" is always the test set's. With images held out these decide:
    "valid" is their accuracy at the end, and "best" the best epoch's on them.
    """
    if data.valid is None:
        return {"last": fit.last, "best": fit.best, "best_selected_on": "test"}
    _, last = T.evaluate(model, data.test_loader())
    return {"last": last, "valid": fit.last, "best": fit.best, "best_selected_on": "held out"}


def _judged(dense: Record) -> float:
    """The dense network's accuracy on the images that judge a run."""
    return dense.accuracy.get("valid", dense.accuracy["last"])


def _divergence(fit: T.Fit) -> list[str]:
    if fit.diverged is None:
        return []
    return [f"training diverged at step {fit.diverged}; the last epoch's state was kept"]
