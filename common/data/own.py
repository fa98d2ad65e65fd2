"""Data sets of one's own: whatever a loader gives, read once and held in memory.

path/to/file.py:loaders, package.module:loaders   a function (common.system.code) that gives
                                                   (training, test) loaders, or data sets
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from common.cells.errors import UserError
from common.data.batches import batches
from common.data.task import Calibration, Inputs, Task, as_tensor, contents_joined, mapped
from common.system import code, machine

READ_BATCH = 256


class Examples(Dataset):
    """Examples in memory, whatever they consist of: a batch of indices is served in the form of the
    loader's batches. Not augmented."""

    def __init__(self, content: object, task: Task):
        self.content, self.task = content, task

    def augmented(self, seed: int) -> Examples:
        """The same: what augments data of one's own is not known."""
        return self

    def subset(self, indices: Sequence[int]) -> Examples:
        """Only the examples at `indices`."""
        other = copy.copy(self)
        other.content = self.__getitems__(indices)
        return other

    def keys(self) -> Iterator[bytes]:
        """What tells an example from the others: all its numbers."""
        return (b"".join(map(_bytes, self._at([i]).tensors())) for i in range(len(self)))

    def __len__(self) -> int:
        return len(Inputs(self.content, self.task))

    def __getitem__(self, index: int) -> object:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> object:
        return self._at(indices).content

    def _at(self, indices: Sequence[int]) -> Inputs:
        return Inputs(self.content, self.task)[torch.as_tensor(indices)]

    def digest(self) -> str:
        """SHA-256 of every tensor: its name or place, type, shape and numbers."""
        sha = hashlib.sha256()

        def add(leaf: object) -> None:
            if torch.is_tensor(leaf):
                sha.update(f"{leaf.dtype} {tuple(leaf.shape)} ".encode() + _bytes(leaf))
            else:
                sha.update(repr(leaf).encode())

        sha.update(_names(self.content).encode())
        mapped(add, self.content)
        return sha.hexdigest()


def read(loader: Iterable, task: Task, what: str = "dataset") -> Examples:
    """All examples of a loader or a data set, in the order that it gives under seed 0. Raises
    UserError for what cannot be read, and where memory does not hold it."""
    if isinstance(loader, Dataset) and not isinstance(loader, IterableDataset):
        loader = DataLoader(loader, READ_BATCH)
    found, size = [], 0
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        for batch in loader if isinstance(loader, Iterable) else Calibration(loader, task):
            content = mapped(as_tensor, batch)
            found.append(content)
            size += sum(t.numel() * t.itemsize for t in Inputs(content, task).tensors())
            machine.require_memory(
                "the examples of the data set", 2 * size / 2**30, "give fewer, or smaller ones"
            )
    if not found:
        raise UserError(what, 0, "no batch was seen", "give at least one example")
    examples = Examples(contents_joined(found), task)
    next(iter(batches(Calibration([examples[0]], task))))  # says what is wrong with it
    return examples


def sets(name: str, root: Path, task: Task) -> tuple[Examples, Examples]:
    """The training and test examples that the function called `name` gives. It may take `data_dir`.
    Raises UserError for a function that gives no such pair."""
    code.allow(name)
    function = code.function(name, "dataset")
    given = {"data_dir": str(root)} if "data_dir" in inspect.signature(function).parameters else {}
    try:
        made = function(**given)
    except UserError:
        raise
    except Exception as error:  # other people's code, whatever it raises
        line = (str(error).splitlines() or [""])[0]
        raise UserError(
            "dataset", name, f"failed ({type(error).__name__}: {line[:300]})"
        ) from error
    if not (isinstance(made, (tuple, list)) and len(made) == 2):
        what = f"{len(made)} parts" if isinstance(made, (tuple, list)) else type(made).__name__
        raise UserError("dataset", name, f"gives {what}", "give (training loader, test loader)")
    train, test = (read(part, task) for part in made)
    return train, test


def classes_of(*parts: Examples) -> int:
    """How many classes the labels of all parts number, 0 where they are no classes."""
    found = 0
    for part in parts:
        x, y = part.task.canonical(part.content)
        if torch.is_tensor(y) and not (y.is_floating_point() or y.dtype == torch.bool):
            counted = y[y != part.task.ignore_index] if part.task.ignore_index is not None else y
            found = max(found, int(counted.max()) + 1 if counted.numel() else 0)
    return found


def shape_of(part: Examples) -> tuple[int, ...]:
    """The shape of an example's input, where it is one tensor; else ()."""
    x, _ = part.task.canonical(part[0])
    x = x if torch.is_tensor(x) else x.plain()
    return tuple(x.shape[1:]) if torch.is_tensor(x) else ()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _names(content: object) -> str:
    """The form of a batch: names of dicts, lengths of tuples."""
    if isinstance(content, dict):
        return "{" + ",".join(f"{key}:{_names(value)}" for key, value in content.items()) + "}"
    if isinstance(content, tuple):
        return "(" + ",".join(map(_names, content)) + ")"
    return "."
