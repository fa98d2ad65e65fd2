"""A stage of a cell: whether it is done, and what is written when it ends.

`common.running.places` says in which folder. A record is written last, after the file it speaks of;
half-done work lies beside it in snapshots and is taken up again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from common.cells.errors import UserError
from common.cells.record import Record, record_id
from common.cells.spec import Spec, without_folder
from common.data import sources as D
from common.nets import checkpoint
from common.nets import masks as M
from common.nets.flops import Costs
from common.pruning.pruned import Pruned
from common.running import reuse
from common.running.options import method_of
from common.running.places import cell_folder, dense_folder, file_sha256, pinned
from common.running.timing import Timer
from common.system import code, distributed, machine
from common.system.claims import claim

FILES = {
    "train": "model.safetensors",
    "prune": "pruned.safetensors",
    "finetune": "finetuned.safetensors",
}
_MOMENT = "moment."  # before the names of the optimiser's tensors in a checkpoint
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


# -- the frame of a verb ---------------------------------------------------------------------------


@dataclass
class Stage:
    """A stage that is to be computed, or that is `done`.

    start: what it starts from: the record of the stage before, or the network to train. mark: of
    what decides the result; half-done work under another mark is left alone.
    """

    spec: Spec
    name: str
    folder: Path
    done: Record | None = None
    start: typing.Any = None
    identity: dict = field(default_factory=dict)
    mark: str = ""
    timer: Timer | None = None

    def snapshot(self, step: int | str = "") -> Path:
        """Where the stage, or one step of it, keeps its half-done work."""
        return self.folder / f"{self.name}-snapshot{step}-{self.mark}.safetensors"

    def save(self, path: Path, result: Pruned, data: D.Data, extra: dict | None = None) -> str:
        """Write the network with what a half-done course needs beside it; returns its digest."""
        return checkpoint.save(
            path,
            result.model,
            architecture(self.spec, data),
            result.edits,
            result.masks,
            extra=extra,
            extra_tensors=kept_tensors(result),
        )

    def publish(self, record: Record, result: Pruned, data: D.Data) -> Record:
        """Save the network, then the record that says it is there, then drop half-done work."""
        if distributed.rank() == 0:
            sha256 = self.save(self.folder / FILES[self.name], result, data)
            record.identity |= {"file_sha256": sha256, "mask_sha256": mask_digest(result)}
            record.write(self.folder / f"{self.name}.json")
            _drop_snapshots(self.folder, self.name)
        distributed.barrier()
        return record


@contextlib.contextmanager
def stage(
    spec: Spec, name: str, start: Callable[[Spec], Record | nn.Module], wait: bool = False
) -> Iterator[Stage]:
    """Hold the stage's folder while it is computed; `done` is set where its record is there.

    start: makes what the stage starts from, before the folder is held, so that what cannot start
    leaves no folder. wait: for another process that computes this stage, instead of raising Busy.
    """
    spec = pinned(spec)
    folder = dense_folder(spec) if name == "train" else cell_folder(spec)
    if (done := finished(spec, folder, name)) is not None:
        yield Stage(spec, name, folder, done)
        return
    begun = start(spec)
    with claim(folder, wait):
        # another process may have finished it meanwhile
        if (done := finished(spec, folder, name)) is not None:
            yield Stage(spec, name, folder, done, begun)
            return
        identity = identity_of(spec, name)
        made_of = identity
        if isinstance(begun, Record):
            made_of = identity | {"dense_hash": begun.dense_hash}
        mark = reuse.mark(made_of)
        work = Stage(spec, name, folder, None, begun, identity, mark, Timer())
        work.timer.resumed = any(folder.glob(f"{name}-snapshot*-{mark}.safetensors"))
        yield work


def finished(spec: Spec, folder: Path, stage: str) -> Record | None:
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
    reuse.require_same(made, path, identity_of(spec, stage) | known)
    reuse.require_file(record, path, folder / FILES[stage])
    _drop_snapshots(folder, stage)
    return record


def _drop_snapshots(folder: Path, name: str) -> None:
    for stale in folder.glob(f"{name}-snapshot*"):
        stale.unlink(missing_ok=True)


def identity_of(spec: Spec, stage: str) -> dict:
    """What decides the result of the stage, by content. Loads the data."""
    options = {} if stage == "train" else dataclasses.asdict(method_of(spec)[1])
    options |= {
        f"{field}_sha256": code.source_digest(getattr(spec, field), field)
        for field in ("loss", "metric")
        if code.is_own(getattr(spec, field))
    }
    data = data_of(spec)
    return reuse.identity(
        spec, options, data.sha256, data.content, find_checkpoint(spec) if spec.checkpoint else None
    )


def mask_digest(result: Pruned) -> str:
    """A digest of what was kept: masks by name and bit, surgery by its edits; "" for a dense
    network.
    """
    if not (result.masks or result.edits):
        return ""
    return hashlib.sha256(
        (M.digest(result.masks) + json.dumps(result.edits, sort_keys=True)).encode()
    ).hexdigest()


def kept_tensors(result: Pruned) -> dict[str, torch.Tensor]:
    """What a checkpoint keeps of a half-done course beside its network: latent weights and the
    optimiser's moments.
    """
    return result.latent | {_MOMENT + name: value for name, value in result.moments.items()}


def recalled_tensors(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """The inverse of `kept_tensors`: {"latent": ..., "moments": ...}."""
    moments = {
        name.removeprefix(_MOMENT): value
        for name, value in tensors.items()
        if name.startswith(_MOMENT)
    }
    return {
        "latent": {name: value for name, value in tensors.items() if not name.startswith(_MOMENT)},
        "moments": moments,
    }


def architecture(spec: Spec, data: D.Data) -> dict:
    """What a checkpoint says of its network."""
    found = {"model": spec.model, "classes": data.classes, "input_shape": list(data.input_shape)}
    if code.is_own(spec.model):
        found["source_sha256"] = code.source_digest(spec.model)
    return found


def data_of(spec: Spec) -> D.Data:
    """The cell's data set and what its network is for; read once while it is among the last
    two."""
    data = _load(spec.dataset, str(D.data_root(spec.data_dir)))
    if (spec.loss, spec.metric) == (Spec.loss, Spec.metric):
        return data
    told = {
        field: code.function(name, field) if code.is_own(name) else name
        for field, name in (("loss", spec.loss), ("metric", spec.metric))
        # an object that this process was given is in the data's task already
        if name and not name.startswith(f"{code.GIVEN}:")
    }
    return dataclasses.replace(data, task=dataclasses.replace(data.task, **told))


@functools.lru_cache(maxsize=2)
def _load(dataset: str, root: str) -> D.Data:
    return D.load(dataset, root)


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
            found = file_sha256(path) if spec.checkpoint_sha256 else ""
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


def record_of(
    work: Stage, data: D.Data, before: Costs, after: Costs, where: torch.device
) -> Record:
    """A record of the stage with everything that does not depend on the verb. Paths of the machine
    stay out of it.
    """
    spec, stage = work.spec, work.name
    seed = spec.dense_seed if stage == "train" else spec.seed
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
        **{
            name: without_folder(getattr(spec, name))
            for name in ("model", "dataset", "loss", "metric")
        },
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
        spec.series,
        requested=requested,
        achieved=achieved,
        layers=layers,
        timing=work.timer.report(),
        provenance=provenance_of(work, data, where),
        identity=work.identity,
    )


def provenance_of(work: Stage, data: D.Data, where: torch.device) -> dict:
    """For Record.provenance: code, machine and its load while the stage ran."""
    seed = work.spec.dense_seed if work.name == "train" else work.spec.seed
    return machine.provenance(where, seed, data.sha256) | {"load": work.timer.load()}
