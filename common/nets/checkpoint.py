"""Checkpoints: one safetensors file each, tensors beside a JSON description; nothing in it is ever
executed, but for a network of one's own, whose code a person must have named too (system.code).

    tensors   model.<state-dict key>, mask.<parameter name> (bool), optimizer.<parameter
              index>.<state key>, extra.<name>
    metadata  "checkpoint": JSON {format, architecture, edits, optimizer, extra}; "sha256": of this
              text and all tensors

A model is built by its name, cut by its edits and filled: {"model": "resnet20:shortcut=B",
"classes": 10, "input_shape": [3, 32, 32]} says which. Files are written whole or not at all, and
what was changed after writing is refused.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from common.cells.errors import UserError
from common.nets import models, tensorfile
from common.nets.edits import apply_edits
from common.nets.masks import Masks
from common.system import code

FORMAT = 1
# of a network that a file describes, before and after each edit; VGG-16 has 138 million
MAX_PARAMETERS = 500_000_000
_BROKEN = (
    SafetensorError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
)


@dataclass
class Checkpoint:
    """What a file holds. optimizer_state is for `restore_optimizer`; {} where none was saved."""

    model: nn.Module
    architecture: dict
    edits: list[dict] = field(default_factory=list)
    masks: Masks = field(default_factory=dict)
    optimizer_state: dict = field(default_factory=dict)
    extra: dict = field(default_factory=dict)
    extra_tensors: dict[str, Tensor] = field(default_factory=dict)


# -- writing ---------------------------------------------------------------------------------------


def save(
    path: str | Path,
    model: nn.Module,
    architecture: Mapping,
    edits: Iterable[Mapping] = (),
    masks: Masks | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    extra: Mapping | None = None,
    extra_tensors: Mapping[str, Tensor] | None = None,
) -> str:
    """Write a checkpoint atomically: whatever happens, `path` holds the old file or the whole new
    one. Returns its digest.

    architecture: {"model", "classes", "input_shape"} as for `models.build`, of a network of one's
    own "source_sha256" too; edits: those made since. extra: JSON-able (epoch, spec). extra_tensors:
    e.g. random generators' states. Raises UserError for weights that are not finite, for a model
    that the architecture and edits do not give, and in "output_dir" where the file cannot be
    written.
    """
    architecture, edits = _architecture(architecture), list(edits)
    _require_fit(path, model.state_dict(), _skeleton(architecture, edits))
    tensors = {f"mask.{name}": mask for name, mask in (masks or {}).items()}
    tensors |= {f"extra.{name}": tensor for name, tensor in (extra_tensors or {}).items()}
    return _write(
        Path(path),
        model,
        optimizer,
        tensors,
        {"architecture": architecture, "edits": edits, "extra": dict(extra or {})},
    )


def save_state(
    path: str | Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    extra: Mapping | None = None,
    extra_tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """A snapshot of a run, for a process that knows the network: weights, optimiser and extras,
    without an architecture.
    """
    tensors = {f"extra.{name}": tensor for name, tensor in (extra_tensors or {}).items()}
    _write(Path(path), model, optimizer, tensors, {"extra": dict(extra or {})})


def _write(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    tensors: dict[str, Tensor],
    description: dict,
) -> str:
    tensors = {f"model.{key}": tensor for key, tensor in model.state_dict().items()} | tensors
    if optimizer is not None:
        state = optimizer.state_dict()
        loose: dict[str, dict] = {}
        for index, entries in state["state"].items():
            loose[str(index)] = {
                key: value for key, value in entries.items() if not torch.is_tensor(value)
            }
            tensors |= {
                f"optimizer.{index}.{key}": value
                for key, value in entries.items()
                if torch.is_tensor(value)
            }
        description["optimizer"] = {
            "class": type(optimizer).__name__,
            "groups": state["param_groups"],
            "state": loose,
        }
    bad = next((name for name, tensor in tensors.items() if not _finite(tensor)), None)
    if bad is not None:
        raise UserError(
            "checkpoint",
            path.name,
            f"not written: {bad!r} has non-finite values",
            "training diverged: lower --lr",
        )
    try:
        text = json.dumps({"format": FORMAT, **description})
    except (TypeError, ValueError) as error:
        raise UserError(
            "checkpoint",
            path.name,
            f"not written: what lies beside the tensors is not JSON ({error})",
        ) from None
    return tensorfile.write(path, tensors, text)


# -- reading ---------------------------------------------------------------------------------------


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint and build its model, on the CPU, in training mode. Raises UserError
    ("checkpoint") for whatever is wrong with the file: on shapes alone, before any memory is taken
    for a network it describes but does not hold."""
    with _reading(path):
        tensors, description = _read(path)
        architecture, edits = (
            _architecture(description.get("architecture")),
            description.get("edits"),
        )
        state, masks = _below("model", tensors), _below("mask", tensors)
        skeleton = _skeleton(architecture, edits)
        _require_fit(path, state, skeleton)
        shapes = {
            name: parameter.shape
            for name, parameter in skeleton.named_parameters(remove_duplicate=False)
        }
        for name, mask in masks.items():
            if mask.dtype != torch.bool or mask.shape != shapes.get(name):
                raise ValueError(f"the mask of {name!r} does not fit")
        # in the model's order, not the file's
        masks = {name: masks[name] for name in shapes if name in masks}
        model = _build(architecture)
        apply_edits(model, edits)
        model.load_state_dict(state, strict=True, assign=True)
        return Checkpoint(
            model,
            architecture,
            edits,
            masks,
            _optimizer_state(tensors, description),
            description["extra"],
            _below("extra", tensors),
        )


def load_masks(path: str | Path) -> Masks:
    """The masks of a checkpoint alone: no network is built, whoever's code makes it."""
    with _reading(path):
        masks = _below("mask", _read(path)[0])
        for name, mask in masks.items():
            if mask.dtype != torch.bool:
                raise ValueError(f"the mask of {name!r} is {mask.dtype}")
        return masks


def load_state(
    path: str | Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    extra_tensors: dict[str, Tensor] | None = None,
) -> dict:
    """Put a snapshot of `save_state` back into `model` and `optimizer`, and its extra tensors into
    the dict given for them; returns its `extra`."""
    with _reading(path):
        tensors, description = _read(path)
        state, extra = _below("model", tensors), description["extra"]
        _require_fit(path, state, model)
        optimizer_state = _optimizer_state(tensors, description)
    restore_optimizer(optimizer, optimizer_state)
    model.load_state_dict(state)
    if extra_tensors is not None:
        extra_tensors.update(_below("extra", tensors))
    return extra


def load_weights(path: str | Path, model: nn.Module) -> None:
    """Fill `model` from a file of any origin: safetensors, or torch.save's, read without executing
    anything.

    The one mapping in it that fits is taken (foreign.fitting): at the top or below other keys, with
    or without what parallel training, torch.compile or a class around the network put before the
    names, and weights as torch.nn.utils.prune keeps them, <name>_orig beside <name>_mask. Every
    name and shape must fit, and every value be finite in the network's own type, or the model stays
    as it was and a UserError says what does not fit.
    """
    from common.nets import foreign  # most networks start from none

    with _reading(path, "fetch it again"):
        found = foreign.fitting(path, foreign.read(path), model.state_dict())
        _require_fit(path, found.state, model)
        for name, mask in found.masks.items():
            shape = found.state[name].shape
            if mask.shape != shape:
                raise UserError(
                    "checkpoint",
                    str(path),
                    f"the mask of {name!r} is {list(mask.shape)}, the weight {list(shape)}",
                )
            found.state[name] = found.state[name] * mask
        _require_fit(path, found.state, model)
    model.load_state_dict(found.state)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping) -> None:
    """Put the optimiser back exactly: a Checkpoint's `optimizer_state` into one of the same class
    over the same parameters, in the same order. Raises UserError where they differ."""
    ours = type(optimizer).__name__
    if state.get("class") != ours:
        raise UserError(
            "optimizer", ours, f"the checkpoint holds the state of {state.get('class', 'none')}"
        )
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, entries in state["state"].items():
        shape = parameters[index].shape if 0 <= index < len(parameters) else None
        if any(
            torch.is_tensor(value) and value.ndim and value.shape != shape
            for value in entries.values()
        ):
            raise UserError(
                "optimizer",
                ours,
                f"the checkpoint's state of parameter {index} does not fit the model",
            )
    try:
        groups = copy.deepcopy(state["param_groups"])
        # their number is load_state_dict's to check
        for group, mine in zip(groups, optimizer.param_groups, strict=False):
            # JSON has lists only
            group.update(
                {key: tuple(group[key]) for key in group if isinstance(mine.get(key), tuple)}
            )
        optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            "optimizer", ours, f"the checkpoint's state does not fit ({error})"
        ) from None


def state_hash(model: nn.Module) -> str:
    """16 hexadecimal digits that say which weights these are: of every name, type, shape and byte
    of the state dict.
    """
    return tensorfile.digest(model.state_dict())[:16]


# -- parts -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _reading(path: str | Path, remedy: str = "delete it, or fetch it again") -> Iterator[None]:
    """Whatever a bad file makes fail inside becomes one UserError about that file, of one line."""
    try:
        yield
    except UserError as error:
        if error.field == "checkpoint":
            raise
        raise UserError("checkpoint", str(path), str(error)) from None
    except _BROKEN as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError("checkpoint", str(path), f"unreadable ({line[:300]})", remedy) from None


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """(tensors, description) of a file of ours."""
    tensors, text = tensorfile.read(path)
    description = json.loads(text)
    if description.get("format") != FORMAT:
        raise ValueError(f"format {description.get('format')!r}, this program reads {FORMAT}")
    stranger = next((name for name in tensors if not name.startswith(tensorfile.OURS)), None)
    if stranger is not None:
        raise ValueError(f"unknown tensor {stranger!r}")
    return tensors, description


def _architecture(value: object) -> dict:
    """{"model", "classes", "input_shape"}, checked for type and size."""
    if isinstance(value, Mapping):
        name, classes, shape = value.get("model"), value.get("classes"), value.get("input_shape")
        if (
            isinstance(name, str)
            and type(classes) is int
            and isinstance(shape, list | tuple)
            and all(type(n) is int and 1 <= n <= models.MAX_SIDE for n in shape)
        ):
            found = {"model": name, "classes": classes, "input_shape": list(shape)}
            source = value.get("source_sha256")
            if code.is_own(name):
                if isinstance(source, str) and source:
                    return found | {"source_sha256": source}
            elif 2 <= classes <= models.MAX_CLASSES and len(shape) == 3:
                return found
    raise UserError(
        "architecture",
        value,
        "needs a model's name, a number of classes and an input shape (c, h, w); a network of "
        "one's own the digest of its source too",
    )


def _build(architecture: Mapping) -> nn.Module:
    if code.is_own(architecture["model"]):
        code.require_allowed(architecture["model"], architecture["source_sha256"])
    return models.build(
        architecture["model"], architecture["classes"], tuple(architecture["input_shape"])
    )


def _skeleton(architecture: Mapping, edits: Iterable[Mapping]) -> nn.Module:
    """The model after its edits, without memory for its weights; UserError if it ever has more than
    MAX_PARAMETERS.
    """
    if code.is_own(architecture["model"]):
        model = _build(architecture).to("meta")  # its code may read values of its weights
    else:
        with torch.device("meta"):
            model = _build(architecture)
    for step in ([], *([edit] for edit in edits)):
        apply_edits(model, step)
        if sum(parameter.numel() for parameter in model.parameters()) > MAX_PARAMETERS:
            raise UserError(
                "architecture",
                architecture["model"],
                f"has more than {MAX_PARAMETERS:,} parameters",
            )
    return model


def _require_fit(path: str | Path, state: Mapping[str, Tensor], model: nn.Module) -> None:
    """`state` holds every tensor of the model, of its shape and kind and finite, and no other."""
    expected = model.state_dict()
    missing = [
        key for key in expected if key not in state and not key.endswith("num_batches_tracked")
    ]
    unknown = [key for key in state if key not in expected]
    if missing or unknown:
        what = ", ".join(
            f"{verb} {len(keys)} tensors ({keys[0]!r}{', ...' if len(keys) > 1 else ''})"
            for verb, keys in (("lacks", missing), ("has also", unknown))
            if keys
        )
        raise UserError(
            "checkpoint",
            str(path),
            f"not of this network: it {what}",
            "build the network that it was saved from",
        )
    for key, tensor in state.items():
        mine = expected[key]
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise UserError(
                "checkpoint",
                str(path),
                f"{key!r} is sparse, quantized or without values",
                "save it as a dense tensor",
            )
        if tensor.shape != mine.shape:
            raise UserError(
                "checkpoint",
                str(path),
                f"{key!r} is {list(tensor.shape)}, in the network {list(mine.shape)}",
                "classes, input shape and width must be those of the data set and model that it "
                "was trained with",
            )
        if tensor.dtype != mine.dtype and not (
            tensor.is_floating_point() and mine.is_floating_point()
        ):
            raise UserError(
                "checkpoint", str(path), f"{key!r} is {tensor.dtype}, in the network {mine.dtype}"
            )
        if not _finite(tensor.to(mine.dtype)):  # a large float64 overflows
            raise UserError(
                "checkpoint",
                str(path),
                f"{key!r} has values that are not finite",
                "use a checkpoint from before the training diverged",
            )


def _optimizer_state(tensors: Mapping[str, Tensor], description: Mapping) -> dict:
    """{"class", "state": {parameter index: {key: value}}, "param_groups"}, or {} where no optimiser
    was saved.
    """
    saved = description.get("optimizer")
    if saved is None:
        return {}
    state = {int(index): dict(entries) for index, entries in saved["state"].items()}
    for name, tensor in _below("optimizer", tensors).items():
        index, _, key = name.partition(".")
        state[int(index)][key] = tensor
    return {"class": saved["class"], "state": state, "param_groups": saved["groups"]}


def _below(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors named "<kind>.<name>", by <name>."""
    return {
        name.removeprefix(f"{kind}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{kind}.")
    }


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
