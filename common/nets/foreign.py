"""Checkpoints of other programs: read without running anything, and the one state dict in them
that is a network's.

torch.load reads tensors and plain containers only (weights_only). The classes in INERT, which
training scripts often keep beside the weights, are read as objects that hold nothing; a file with
any other class is refused by that class's name.
"""

from __future__ import annotations

import logging
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from common.cells.errors import UserError
from common.nets import tensorfile

log = logging.getLogger(__name__)

# keys below which programs keep the weights of a network: where several mappings fit, one below
# these is meant, and not a copy below another name ("model_ema")
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")
# parts of a name that a wrapper of the network added: parallel training, torch.compile, FSDP,
# activation checkpoints
WRAPPED = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# last parts of the names of tensors that count, and that no output depends on: AveragedModel, thop
COUNTERS = ("n_averaged", "total_ops", "total_params")
MAX_DEPTH, MAX_MAPPINGS, MAX_PARTS, MAX_PREFIXES = 4, 1_000, 16, 8
INERT = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib.PurePosixPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
)


class Inert:
    """Stands for an object of a class in INERT, and keeps nothing of it: not even the type of a
    numpy scalar, whose state numpy would take unchecked."""

    def __new__(cls, *_: object) -> Inert:
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        return


@dataclass
class Reading:
    """Tensors of a file under a network's names. place: the keys above them; prefix: what all
    their names begin with; left_out: names beside that prefix. masks: of torch.nn.utils.prune,
    not yet multiplied in."""

    place: tuple[str, ...]
    prefix: str
    state: dict[str, Tensor]
    masks: dict[str, Tensor] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def where(self) -> str:
        """For a person."""
        return repr("/".join([*self.place, self.prefix] if self.prefix else self.place))


def read(path: str | Path) -> Mapping:
    """What a file holds: the tensors of a safetensors file whatever its name, or the mapping that
    torch.save put there, mapped into memory where the format allows it. Raises ValueError, OSError
    or SafetensorError for a damaged file, UserError for one that must be saved another way."""
    path = Path(path)
    tensorfile.require_regular(path)
    with path.open("rb") as file:
        head = file.read(9)
    zipped = head.startswith(b"PK") and zipfile.is_zipfile(path)
    named = path.suffix == ".safetensors" and not head.startswith((b"PK", b"\x80"))
    if named or head[8:] == b"{":
        tensorfile.require_header(path)
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  safe_open is no dict
    if zipped:
        _require_plain_archive(path)
    inert = [(Inert, name) for name in INERT]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(inert):
            warnings.simplefilter("ignore")
            # the format before torch 1.6 cannot be mapped; by a path torch may go by its suffix
            if zipped and path.suffix != ".safetensors":
                state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            else:
                with path.open("rb") as opened:
                    state = torch.load(opened, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file may fail anywhere in the reader
        if held := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise UserError(
                "checkpoint",
                str(path),
                f"holds an object of {held[1]}, and no code is run from a file",
                "save the network's state_dict() alone",
            ) from None
        raise ValueError("damaged, or no file of torch.save or safetensors") from None
    if not isinstance(state, Mapping):
        raise ValueError(f"holds a {type(state).__name__}, not a state dict")
    return state


def _require_plain_archive(path: Path) -> None:
    """torch.save compresses nothing, so that an archive is no larger in memory than on disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, UnicodeDecodeError):
        raise ValueError("damaged archive") from None
    if any("/code/" in entry.filename for entry in entries):
        raise UserError(
            "checkpoint",
            str(path),
            "is a TorchScript archive, whose code is not run",
            "save the network's state_dict() alone",
        )
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("a compressed archive, which torch.save does not write")


def fitting(path: str | Path, contents: Mapping, expected: Mapping[str, Tensor]) -> Reading:
    """The one mapping in `contents` whose tensors have the names and shapes of `expected`, a
    network's state dict; where none fits, the one that shares most names, for the caller to say
    what does not fit. What was taken and what was left out is said in the log. Raises UserError
    where several fit."""
    found = [
        reading
        for place, tensors in _mappings(contents)
        for reading in _readings(place, tensors, expected)
    ]
    fits = [reading for reading in found if _fits(reading.state, expected)]
    usual = [reading for reading in fits if set(reading.place) <= set(WRAPPERS)]
    if len(usual) == 1:
        fits = usual
    if len(fits) > 1:
        raise UserError(
            "checkpoint",
            str(path),
            f"holds several networks that fit: {', '.join(sorted(r.where() for r in fits)[:5])}",
            "save the one that is meant in a file of its own",
        )
    if not fits:
        none = Reading((), "", {})
        return max(found, key=lambda r: len(r.state.keys() & expected.keys()), default=none)
    if fits[0].place or fits[0].prefix or fits[0].left_out:
        left = fits[0].left_out
        log.info(
            "%s: took the %d tensors below %s%s",
            Path(path).name,
            len(fits[0].state),
            fits[0].where(),
            f", left out {len(left)} beside them ({left[0]!r})" if left else "",
        )
    return fits[0]


def _mappings(contents: Mapping) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """(keys above it, its tensors by name) of every mapping in `contents`, breadth first, each
    once: a mapping may hold itself."""
    queue: list[tuple[tuple[str, ...], Mapping]] = [((), contents)]
    seen = {id(contents)}
    for place, mapping in queue:  # grows meanwhile
        tensors = {}
        for key, value in mapping.items():
            if not isinstance(key, str):
                continue
            if isinstance(value, Tensor):
                tensors[key] = value
            elif (
                isinstance(value, Mapping)
                and id(value) not in seen
                and len(place) < MAX_DEPTH
                and len(queue) < MAX_MAPPINGS
            ):
                seen.add(id(value))
                queue.append(((*place, key), value))
        yield place, tensors


def _readings(
    place: tuple[str, ...], tensors: dict[str, Tensor], expected: Mapping[str, Tensor]
) -> Iterator[Reading]:
    """The tensors under the names of `expected`, once for each beginning that some names share."""
    if tensors and all(name.startswith(tensorfile.OURS) for name in tensors):
        tensors = _below("model.", tensors)
    own = {part for name in expected for part in name.split(".")}
    added = set(WRAPPED) - own
    plain = {".".join(p for p in n.split(".") if p not in added): t for n, t in tensors.items()}
    if len(plain) == len(tensors):  # else two names would become one
        tensors = plain
    tensors = {
        name: tensor
        for name, tensor in tensors.items()
        if name in expected or name.rpartition(".")[2] not in COUNTERS
    }
    masks = {
        name: tensors[f"{name}_mask"]
        for name in (key.removesuffix("_mask") for key in tensors if key.endswith("_mask"))
        if f"{name}_orig" in tensors
    }
    # in the place of the weight that torch.nn.utils.prune computes from the two
    tensors = {
        (name.removesuffix("_orig") if name.removesuffix("_orig") in masks else name): tensor
        for name, tensor in tensors.items()
        if not (name.endswith("_mask") and name.removesuffix("_mask") in masks)
    }
    prefixes: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".", MAX_PARTS)
        for depth in range(len(parts)):
            if ".".join(parts[depth:]) in expected:
                prefixes["".join(f"{part}." for part in parts[:depth])] += 1
    for prefix, _ in prefixes.most_common(MAX_PREFIXES) or [("", 0)]:
        yield Reading(
            place,
            prefix,
            _below(prefix, tensors),
            _below(prefix, masks),
            [name for name in tensors if not name.startswith(prefix)],
        )


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _fits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Every name but of BatchNorm's counter, no other, and every shape."""
    needed = {name for name in expected if not name.endswith("num_batches_tracked")}
    return needed <= state.keys() <= expected.keys() and all(
        tensor.shape == expected[name].shape for name, tensor in state.items()
    )
