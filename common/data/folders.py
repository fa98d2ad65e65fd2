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
from torchvision.datasets.folder import IMG_EXTENSIONS

from common.cells.errors import UserError
from common.cells.lacking import where_supported
from common.data.images import decode, square
from common.system import machine
from common.system.progress import progress

SPLIT_SEED, TEST_SHARE = 0, 0.2
EXTENSIONS = (*IMG_EXTENSIONS, ".gif", ".jfif", ".jpe")
# names of the parts of a data set, in any case; a class may be called "valid"
TRAIN, TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation")
ALSO_A_CLASS = ("valid",)
# what network drives, archives and file systems keep beside images: thumbnails and deleted files
OTHERS = (
    "@eaDir",
    "#recycle",
    "#snapshot",
    "$RECYCLE.BIN",
    "System Volume Information",
    "__MACOSX",
    "lost+found",
)
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


def parts(root: Path) -> tuple[Path | None, Path | None]:
    """The training and the test folder of `root`, by the names in TRAIN and TEST in any case; of
    several test folders the first in that order. What lies beside them is said in the log. Raises
    UserError where two have equal claims, and for test images without training images."""
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    train = [name for name in folders if name.casefold() in TRAIN]
    test = [name for name in folders if name.casefold() in TEST]
    test.sort(key=lambda name: TEST.index(name.casefold()))
    rivals = train if len(train) > 1 else test[:2]
    if len(rivals) > 1 and (rivals is train or rivals[0].casefold() == rivals[1].casefold()):
        raise UserError(
            "data_dir", str(root), f"has both {rivals[0]} and {rivals[1]}", "keep one of them there"
        )
    if not train:
        alone = [name for name in test if name.casefold() not in ALSO_A_CLASS]
        if alone:
            raise UserError(
                "data_dir",
                str(root),
                f"has {alone[0]} but no train",
                "put the training images into train/<class>/",
            )
        return None, None
    beside = [name for name in folders if name not in (*train, *test[:1]) and not _passed(name)]
    if beside:
        log.info("%s: left out %s, beside %s", root, ", ".join(beside), "/".join(train + test[:1]))
    return root / train[0], root / test[0] if test else None


def scan(folder: Path) -> Folder:
    """Every image below the folder's class folders, in the order of their paths. What is passed
    over is counted in the log: hidden files and folders and what other programs keep beside images
    (_passed), files that are no images, links that lead back to a folder above them."""
    classes = sorted(
        entry.name for entry in os.scandir(folder) if entry.is_dir() and not _passed(entry.name)
    )
    left_out: Counter[str] = Counter()
    samples = [
        (path, label)
        for label, name in enumerate(classes)
        for path in _images(str(folder / name), left_out)
    ]
    if left_out:
        told = ", ".join(f"{count} {what}" for what, count in sorted(left_out.items()))
        log.info("%s: left out %s", folder, told)
    return Folder.of(
        folder, classes, [path for path, _ in samples], [label for _, label in samples]
    )


def _images(folder: str, left_out: Counter[str]) -> list[str]:
    """Files below `folder` with an image's suffix, folder by folder in the order of their paths;
    counts the others in `left_out` by what they are."""
    found: list[tuple[str, list[str]]] = []
    waiting: list[tuple[str, frozenset]] = [(folder, frozenset())]
    while waiting:
        place, above = waiting.pop()
        files = []
        try:
            state = os.stat(place)
            entries = list(os.scandir(place))
        except OSError as error:
            raise UserError(
                "data_dir", place, f"cannot be read ({error.strerror})", "correct it or delete it"
            ) from None
        if (state.st_dev, state.st_ino) in above:
            left_out["link to a folder above it"] += 1
            continue
        for entry in entries:
            if _passed(entry.name):
                left_out[f"named {entry.name if entry.is_dir() else 'like a hidden file'}"] += 1
            elif entry.is_dir():
                waiting.append((entry.path, above | {(state.st_dev, state.st_ino)}))
            elif not entry.is_file():
                left_out["neither file nor folder"] += 1
            elif entry.name.lower().endswith(EXTENSIONS):
                files.append(entry.name)
            else:
                left_out[f"named *{os.path.splitext(entry.name)[1]}"] += 1
        found.append((place, sorted(files)))
    return [os.path.join(place, name) for place, names in sorted(found) for name in names]


def _passed(name: str) -> bool:
    """Whether a file or folder of this name is no part of anybody's data set."""
    return name.startswith(".") or name in OTHERS


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
def decoded(folder: Folder, side: int, cache: Path | None, resize: int | None = None) -> Tensor:
    """All images of a folder as `square(side, resize)` cuts them, uint8 [n, 3, side, side]; kept
    for the process, and in the file `cache` if it can be written. The cache is of files by name,
    size and time of change, so that an image that was replaced is read again."""
    key, shape = f"{folder.digest}-{folder.changed}-{side}", (len(folder.paths), 3, side, side)
    key += f"-{resize}" if resize else ""
    if cache:
        with (
            contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile),
            np.load(cache, allow_pickle=False) as stored,
        ):
            if str(stored["key"]) == key and stored["images"].shape == shape:
                return torch.from_numpy(stored["images"])
    images = torch.empty(shape, dtype=torch.uint8)
    plain = square(side, resize)
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
            sorted(chosen, key=lambda i: hashlib.sha256(os.fsencode(names[i])).digest())[
                :HASHED_FILES
            ]
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
        with where_supported():
            os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        log.info("%s is not kept on disk: %s", path.name, error)
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def halves(keys: Sequence[str]) -> tuple[list[int], list[int]]:
    """Two halves of the indices in ascending order; the second has the keys with the smallest
    hashes, which no order of files and no library changes."""
    order = sorted(range(len(keys)), key=lambda i: hashlib.sha256(os.fsencode(keys[i])).digest())
    return sorted(order[len(keys) // 2 :]), sorted(order[: len(keys) // 2])


def split_indices(keys: Sequence[str], labels: Sequence[int]) -> tuple[list[int], list[int]]:
    """(train, test) indices in ascending order. Of each class the test part is the fifth (rounded,
    at least one) whose keys have the smallest hashes: fixed whatever the versions of the libraries,
    and an added example moves few others."""
    members: dict[int, list[int]] = {}
    for index in sorted(
        range(len(keys)),
        key=lambda i: hashlib.sha256(os.fsencode(f"{SPLIT_SEED}/{keys[i]}")).digest(),
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
            total.update(os.fsencode(part) + b"\n")
    return total.hexdigest()
