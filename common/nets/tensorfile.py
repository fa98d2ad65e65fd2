"""Our files of tensors, written whole or not at all and refused once changed.

One is a safetensors file whose metadata are a text ("checkpoint") and the SHA-256 of that
text and every tensor.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from common.cells.errors import UserError
from common.cells.lacking import where_supported

# bytes; the longest real one (ResNet-50 with a channel list for every layer) is some 0.3 MB
MAX_HEADER = 1 << 24
OURS = ("model.", "mask.", "optimizer.", "extra.")  # how names of tensors begin


def write(path: Path, tensors: Mapping[str, Tensor], text: str) -> str:
    """Write atomically and through to the disk: whatever happens, `path` holds the old file or the
    whole new one. Returns the digest that the file states of itself.

    Raises UserError ("output_dir") where it cannot be written.
    """
    tensors = _separate(tensors)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        sha256 = digest(tensors, text)
        save_file(tensors, temporary, {"checkpoint": text, "sha256": sha256})
        _sort_header(temporary)
        _sync(temporary)
        with where_supported():
            os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
        with where_supported():
            _sync(path.parent)
        return sha256
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(
            "output_dir",
            str(path.parent),
            f"cannot write {path.name} ({reason})",
            "free some space, or choose another --output-dir",
        ) from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def read(path: str | Path) -> tuple[dict[str, Tensor], str]:
    """(tensors in memory of their own, text) of a file that `write` wrote and nobody changed; else
    ValueError, OSError or SafetensorError."""
    require_header(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if "checkpoint" not in metadata:
            raise ValueError("none of our checkpoints; as --checkpoint its weights can be used")
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  safe_open is no dict
    if digest(tensors, metadata["checkpoint"]) != metadata.get("sha256"):
        raise ValueError("its contents are not what was written")
    return tensors, metadata["checkpoint"]


def stated_digest(path: str | Path) -> str | None:
    """The digest that a file of ours states of itself, from its header alone (`read` checks that it
    is true); None for any other file."""
    try:
        require_header(path)
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("sha256")
    except (OSError, ValueError, SafetensorError):
        return None


def digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """SHA-256 of `text` and of every tensor's name, type, shape and bytes, in the order of the
    names.
    """
    sha = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


def _sort_header(path: str | Path) -> None:
    """Write the header of a safetensors file again with its names in order, so that equal contents
    are equal bytes: the library writes the metadata in the order of a hash table that begins at
    random."""
    with Path(path).open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        text = json.dumps(
            header, sort_keys=True, separators=(",", ":"), ensure_ascii=False
        ).encode()
        if len(text) <= length:  # as long but for escapes, which JSON lets a writer choose
            file.seek(8)
            file.write(text.ljust(length))


def require_regular(path: str | Path) -> None:
    """ValueError for what is there and no regular file: a pipe would be waited for, and a device
    has no end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("no regular file")


def require_header(path: str | Path) -> None:
    """The length that a safetensors file gives its header is one that it can have, and that we are
    willing to read; ValueError otherwise.
    """
    require_regular(path)
    with Path(path).open("rb") as file:
        length, size = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
    if length > min(MAX_HEADER, size - 8):
        raise ValueError("no safetensors header at its start")


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors, none of which shares memory with another: what the format can
    hold.
    """
    separate, taken = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in taken:
            tensor = tensor.clone()
        taken.add(tensor.untyped_storage().data_ptr())
        separate[name] = tensor
    return separate


def _sync(path: str | Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
