"""Folders of image files: which images, which classes, and their decoded pixels, kept so that they
are decoded once.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from common.system import machine
from common.cells.errors import UserError
from common.data.images import decode, square
from common.system.progress import progress

SPLIT_SEED, TEST_SHARE = 0, 0.2
ORPHAN_SECONDS = 3_600  # no decoded folder takes longer to write
# files read from disk are all hashed up to this; above it, HASHED_FILES of them
HASHED_BYTES = 4 << 30
HASHED_FILES = 10_000
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folder:
    """Image files and their labels; two folders are equal if their place and their files' names,
    sizes and times of change are. digest: of labels, names and sizes, which a copy of the folder
    shares. changed: of the times of modification and of status change, which say what to read
    again: `cp -p` keeps the first, nothing keeps the second."""

    root: str
    digest: str
    changed: str
    classes: tuple[str, ...] = field(compare=False)
    paths: tuple[str, ...] = field(compare=False, repr=False)
    labels: tuple[int, ...] = field(compare=False, repr=False)

    @classmethod
    def of(
        cls, root: Path, classes: Sequence[str], paths: Sequence[str], labels: Sequence[int]
    ) -> Folder:
        """A Folder with its digest. Raises UserError for fewer than two classes or a class without
        images.
        """
        if len(classes) < 2:
            raise UserError(
                "data_dir",
                str(root),
                f"has {len(classes)} class folders, and a classifier needs at least 2",
                "put each class's images into a folder of its own",
            )
        empty = sorted(set(range(len(classes))) - set(labels))
        if empty:
            raise UserError(
                "data_dir",
                str(root),
                f"class {classes[empty[0]]!r} has no images",
                "add some, or delete the folder",
            )
        states = [os.stat(path) for path in paths]
        lines = (
            f"{label}\t{os.path.relpath(path, root)}\t{state.st_size}"
            for path, label, state in zip(paths, labels, states, strict=True)
        )
        changed = digest_of(*(f"{state.st_mtime_ns} {state.st_ctime_ns}" for state in states))
        return cls(
            str(root),
            digest_of(*sorted(lines)),
            changed,
            tuple(classes),
            tuple(paths),
            tuple(labels),
        )

    def split(self) -> tuple[Folder, Folder]:
        """(train, test) by class and hashed file name. Raises UserError for a class with a single
        image.
        """
        single = [label for label, count in Counter(self.labels).items() if count < 2]
        if single:
            raise UserError(
                "data_dir",
                self.root,
                f"class {self.classes[single[0]]!r} has one image, which cannot be split",
                "give a test folder, or add images",
            )
        train, test = (
            Folder.of(
                Path(self.root),
                self.classes,
                [self.paths[i] for i in part],
                [self.labels[i] for i in part],
            )
            for part in split_indices(
                [os.path.relpath(path, self.root) for path in self.paths], self.labels
            )
        )
        return train, test


def locate(root: Path, *names: str) -> Path:
    """The first of root/<name>, or root itself, that has a train folder."""
    for folder in (*(root / name for name in names), root):
        if (folder / "train").is_dir():
            return folder
    raise UserError(
        "data_dir",
        str(root),
        f"no {names[0]}/train in it",
        f"put {names[0]} there, or give another --data-dir",
    )


def below(folder: Path, name: str) -> Path:
    """folder/name; UserError where it does not exist."""
    if not (folder / name).is_dir():
        raise UserError(
            "data_dir", str(folder), f"no {name} folder beside train", "complete the data set"
        )
    return folder / name


def scan(folder: Path) -> Folder:
    """Every image below the folder's class folders, hidden files and folders passed over."""
    classes = sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith(".")
    )
    samples = (
        make_dataset(
            str(folder),
            {name: label for label, name in enumerate(classes)},
            allow_empty=True,
            extensions=IMG_EXTENSIONS,
        )
        if classes
        else []
    )
    samples = [
        (path, label) for path, label in samples if not os.path.basename(path).startswith(".")
    ]
    return Folder.of(
        folder, classes, [path for path, _ in samples], [label for _, label in samples]
    )


def annotated(val: Path, classes: Sequence[str]) -> Folder:
    """Tiny-ImageNet's published val folder: images/ and lines of file name, class and box,
    separated by tabs.
    """
    table, label_of = (
        val / "val_annotations.txt",
        {name: label for label, name in enumerate(classes)},
    )
    paths, labels = [], []
    for number, line in enumerate(
        table.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
    ):
        name, _, rest = line.partition("\t")
        synset, path = rest.partition("\t")[0].strip(), val / "images" / name
        if synset not in label_of:
            raise UserError(
                "data_dir",
                f"{table}:{number}",
                f"class {synset!r} is not among the training classes",
            )
        if not path.is_file():
            raise UserError(
                "data_dir",
                f"{table}:{number}",
                f"names {name!r}, which is not in images/",
                "complete the data set",
            )
        paths.append(str(path))
        labels.append(label_of[synset])
    return Folder.of(val, classes, paths, labels)


def same_classes(train: Folder, test: Folder) -> tuple[Folder, Folder]:
    """Both, if they have the same classes."""
    different = sorted(set(train.classes) ^ set(test.classes))
    if different:
        raise UserError(
            "data_dir",
            test.root,
            f"{len(test.classes)} classes where {train.root} has {len(train.classes)}; "
            f"{different[0]!r} is only in one",
            "give both the same class folders",
        )
    return train, test


@functools.lru_cache(maxsize=4)
def decoded(folder: Folder, side: int, cache: Path | None) -> Tensor:
    """All images of a folder, uint8 [n, 3, side, side]; kept for the process, and in the file
    `cache` if it can be written. The cache is of files by name, size and time of change, so that an
    image that was replaced is read again."""
    key, shape = f"{folder.digest}-{folder.changed}-{side}", (len(folder.paths), 3, side, side)
    if cache:
        with (
            contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile),
            np.load(cache, allow_pickle=False) as stored,
        ):
            if str(stored["key"]) == key and stored["images"].shape == shape:
                return torch.from_numpy(stored["images"])
    images = torch.empty(shape, dtype=torch.uint8)
    plain = square(side)
    with (
        ThreadPoolExecutor(machine.cores()) as pool,
        progress(len(images), f"decoding {folder.root}", unit="image") as bar,
    ):
        for index, image in enumerate(pool.map(lambda path: decode(path, plain), folder.paths)):
            images[index] = image
            bar.update(1)
    if cache:
        _atomically(cache, lambda file: np.savez(file, key=np.array(key), images=images.numpy()))
    return images


@functools.lru_cache(maxsize=4)
def contents(folder: Folder, cache: Path | None) -> str:
    """SHA-256 of the labels and bytes of a folder's files, for one that memory does not hold; kept
    like `decoded`. Above HASHED_BYTES it is of HASHED_FILES files that a hash of their names
    chooses, and a single image that is replaced may go unseen."""
    if cache:
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            stored = json.loads(cache.read_text(encoding="utf-8"))
            if stored["key"] == f"{folder.digest}-{folder.changed}":
                return str(stored["sha256"])
    chosen = range(len(folder.paths))
    if sum(map(os.path.getsize, folder.paths)) > HASHED_BYTES:
        names = [os.path.relpath(path, folder.root) for path in folder.paths]
        chosen = sorted(
            sorted(chosen, key=lambda i: hashlib.sha256(names[i].encode()).digest())[:HASHED_FILES]
        )
        log.info(
            "%s is large: %d of its %d files are compared by content",
            folder.root,
            len(chosen),
            len(names),
        )
    with (
        ThreadPoolExecutor(machine.cores()) as pool,
        progress(len(chosen), f"hashing {folder.root}", unit="image") as bar,
    ):
        lines = []
        for i, sha256 in zip(
            chosen, pool.map(lambda i: _file_digest(folder.paths[i]), chosen), strict=True
        ):
            lines.append(f"{i} {folder.labels[i]} {sha256}")
            bar.update(1)
    found = digest_of(str(len(folder.paths)), *lines)
    if cache:
        _atomically(
            cache,
            lambda file: file.write(
                json.dumps({"key": f"{folder.digest}-{folder.changed}", "sha256": found}).encode()
            ),
        )
    return found


def _file_digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            "data_dir", path, f"cannot be read ({error.strerror})", "replace it or delete it"
        ) from None


def _atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a file that is there whole or not at all, and not where the folder cannot be
    written.
    """
    temporary = None
    try:
        path.parent.mkdir(exist_ok=True)
        for orphan in path.parent.glob(f".{path.name}.*"):  # of a process that was killed
            if time.time() - orphan.stat().st_mtime > ORPHAN_SECONDS:
                orphan.unlink(missing_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as handle:
            temporary = handle.name
            write(handle)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        log.info("%s is not kept on disk: %s", path.name, error)
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def split_indices(keys: Sequence[str], labels: Sequence[int]) -> tuple[list[int], list[int]]:
    """(train, test) indices in ascending order. Of each class the test part is the fifth (rounded,
    at least one) whose keys have the smallest hashes: fixed whatever the versions of the libraries,
    and an added example moves few others."""
    members: dict[int, list[int]] = {}
    for index in sorted(
        range(len(keys)), key=lambda i: hashlib.sha256(f"{SPLIT_SEED}/{keys[i]}".encode()).digest()
    ):
        members.setdefault(labels[index], []).append(index)
    test = sorted(
        i for group in members.values() for i in group[: max(1, round(TEST_SHARE * len(group)))]
    )
    held_out = set(test)
    return [i for i in range(len(keys)) if i not in held_out], test


def digest_of(*parts: str | Tensor) -> str:
    """SHA-256 of texts and of tensors with their shape and type."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            total.update(f"{part.dtype}{tuple(part.shape)}".encode())
            total.update(np.ascontiguousarray(part.numpy()))
        else:
            total.update(part.encode() + b"\n")
    return total.hexdigest()
