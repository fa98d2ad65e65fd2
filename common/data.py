"""Data sets by name: `load("mnist:norm=standard", data_dir)`. digits and synthetic need neither files nor a network.

All randomness is explicit: an order comes from its seed alone, the augmentation of image i from (seed, i) alone, so neither
batch size, worker processes, ranks nor a resumed run change what an image looks like. The global generator is never drawn from.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import hashlib
import io
import logging
import math
import os
import socket
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import pil_to_tensor

from common.errors import UserError, choose
from common.models.options import read_options
from common.progress import progress
from common.spec import split_options

REPOSITORY = Path(__file__).resolve().parents[1]
IN_MEMORY_BYTES = 2 << 30  # folders whose decoded images fit in this are decoded once; larger ones are read as needed
MAX_WORKERS = 8
DOWNLOAD_TIMEOUT = 15.0    # seconds without a byte
SPLIT_SEED, TEST_SHARE = 0, 0.2
log = logging.getLogger(__name__)

Norm = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation a channel, of values in [0, 1]
UNIT: Norm = ((0.0,), (1.0,))
IMAGENET: Norm = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR10: Norm = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
NORMS: dict[str, dict[str, Norm]] = {
    "mnist": {"unit": UNIT,                              # L-OBS: inputs in [0, 1]
              "standard": ((0.1307,), (0.3081,))},       # WoodFisher
    "cifar10": {"standard": CIFAR10,                     # EigenDamage and WoodFisher
                "imagenet": IMAGENET, "unit": UNIT},     # widely used public checkpoints take ImageNet's
    "cifar100": {"standard": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)), "unit": UNIT},            # EigenDamage
    "tiny-imagenet": {"standard": ((0.48025, 0.44807, 0.39755), (0.27699, 0.26906, 0.28208)), "unit": UNIT},  # EigenDamage
    "imagefolder": {"imagenet": IMAGENET, "unit": UNIT},
}


class Images(Dataset):
    """Images in memory: uint8 [n, c, h, w] or float32 (then taken as they are), labels int64 [n].

    crop: zero pixels around the image from which an augmented one is cut; flip: whether augmentation mirrors. A batch of
    indices is served at once as (float32 [b, c, h, w], int64 [b]). Raises UserError for labels outside 0..classes-1.
    """

    def __init__(self, images: Tensor, labels: Tensor, classes: int, norm: Norm = UNIT, crop: int = 0, flip: bool = False):
        if len(images) != len(labels) or len(images) == 0:
            raise UserError("dataset", f"{len(images)} images", f"beside {len(labels)} labels", "give one label an image")
        if labels.min() < 0 or labels.max() >= classes:
            wrong = int(labels.max()) if labels.max() >= classes else int(labels.min())
            raise UserError("dataset", wrong, f"label outside 0..{classes - 1}", "number the classes from 0")
        self.images, self.labels = images, labels
        self.mean, self.std = (torch.tensor(values).view(1, -1, 1, 1) for values in norm)
        self.crop, self.flip = crop, flip
        self._moves: Tensor | None = None

    def augmented(self, seed: int) -> Images:
        """The same images, each with one random crop and flip that `seed` decides."""
        other, generator, count = copy.copy(self), torch.Generator().manual_seed(seed), len(self)
        shifts = torch.randint(0, 2 * self.crop + 1, (count, 2), generator=generator)
        mirror = torch.randint(0, 2, (count, 1), generator=generator) * self.flip
        other._moves = torch.cat([shifts, mirror], dim=1)
        return other

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        x, y = self.__getitems__([index])
        return x[0], int(y[0])

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.as_tensor(indices)
        x = self.images[chosen]
        if self._moves is not None:
            x = _move(x, self._moves[chosen], self.crop)
        return _normalise(x, self.mean, self.std), self.labels[chosen]


class Files(Dataset):
    """Images on disk, decoded when asked for; `plain` and `random` map a PIL image to one of the common size."""

    def __init__(self, folder: Folder, norm: Norm, plain: Callable, random: Callable):
        self.folder, self.plain, self.random = folder, plain, random
        self.mean, self.std = (torch.tensor(values).view(1, -1, 1, 1) for values in norm)
        self._seed: int | None = None

    def augmented(self, seed: int) -> Files:
        """The same images under the random transform, whose draws for image i are decided by (seed, i)."""
        other = copy.copy(self)
        other._seed = seed
        return other

    def __len__(self) -> int:
        return len(self.folder.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return _normalise(self._read(index)[None], self.mean, self.std)[0], self.folder.labels[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor] | _Failure:
        try:
            x = torch.stack([self._read(i) for i in indices])
        except UserError as error:
            return _Failure(error.field, error.value, error.problem, error.remedy)
        return _normalise(x, self.mean, self.std), torch.tensor([self.folder.labels[i] for i in indices])

    def _read(self, index: int) -> Tensor:
        path = self.folder.paths[index]
        if self._seed is None:
            return _decode(path, self.plain)
        with torch.random.fork_rng(devices=[]):  # torchvision's random transforms draw from the global generator
            torch.default_generator.manual_seed((self._seed * 1_000_003 + index) % (1 << 63))
            return _decode(path, self.random)


@dataclass(frozen=True)
class _Failure:
    """A UserError on its way out of a worker process, which could not be pickled as the exception it is."""

    field: str
    value: object
    problem: str
    remedy: str


class Loader(DataLoader):
    """Batches of `dataset` in the given order; iterating again gives the same batches again."""

    def __init__(self, dataset: Dataset, order: Tensor, batch_size: int):
        if batch_size < 1:
            raise UserError("batch_size", batch_size, "must be at least 1")
        batches = [chunk.tolist() for chunk in order.split(batch_size)]
        workers = min(MAX_WORKERS, os.cpu_count() or 1, len(batches)) if isinstance(dataset, Files) else 0
        super().__init__(dataset, batch_sampler=batches, collate_fn=_as_it_is, num_workers=workers, generator=torch.Generator())

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in super().__iter__():
            if isinstance(batch, _Failure):
                raise UserError(*dataclasses.astuple(batch))
            yield batch


@dataclass(frozen=True, eq=False)
class Data:
    """A classification data set. input_shape is (c, h, w); `sha256` identifies the images and labels, not the options."""

    name: str
    classes: int
    input_shape: tuple[int, int, int]
    train: Images | Files
    test: Images | Files
    sha256: str

    def train_loader(self, batch_size: int, seed: int = 0, augment: bool = False, rank: int = 0, world: int = 1) -> Loader:
        """The training set in an order that `seed` alone decides. Of `world` ranks each takes every world-th image of that
        order; the order wraps around so that all shares are of equal length."""
        if not 0 <= rank < world:
            raise UserError("rank", rank, f"outside 0..{world - 1}")
        count = len(self.train)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        mine = torch.arange(rank, math.ceil(count / world) * world, world) % count
        return Loader(self.train.augmented(seed) if augment else self.train, order[mine], batch_size)

    def test_loader(self, batch_size: int = 256) -> Loader:
        """The test set in its own order."""
        return Loader(self.test, torch.arange(len(self.test)), batch_size)

    def calibration(self, num_samples: int, batch_size: int = 64, seed: int = 0) -> Loader:
        """`num_samples` un-augmented training images, drawn by `seed` without replacement; a larger draw with the same seed
        begins with the smaller one."""
        count = len(self.train)
        if not 1 <= num_samples <= count:
            raise UserError("num_samples", num_samples, f"outside 1..{count}", f"{self.name} has {count} training images")
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        return Loader(self.train, order[:num_samples], batch_size)


def rebatch(loader: Iterable[tuple[Tensor, Tensor]], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The same examples in the same order, in batches of exactly `size`; only the last may be shorter."""
    if size < 1:
        raise UserError("batch_size", size, "must be at least 1")
    return _rebatch(loader, size)


def _rebatch(loader: Iterable[tuple[Tensor, Tensor]], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    held: list[tuple[Tensor, Tensor]] = []
    count = 0
    for x, y in loader:
        while len(x):
            part = size - count
            held.append((x[:part], y[:part]))
            count += len(held[-1][0])
            x, y = x[part:], y[part:]
            if count == size:
                yield _joined(held)
                held, count = [], 0
    if held:
        yield _joined(held)


def load(name: str, data_dir: str = "") -> Data:
    """The data set called `name`, options after a colon. Raises UserError, naming the file or folder, for whatever is wrong.

    data_dir: where the files are, or MNIST and CIFAR are downloaded to; "" means the environment variable DATA_DIR, else
    `data` in the repository, else `data` beside it.
    """
    base, texts = split_options(name, "dataset")
    source = SOURCES[choose("dataset", base, SOURCES)]
    options = read_options("dataset", name, source, texts)
    if base == "imagefolder" and not data_dir:
        raise UserError("data_dir", data_dir, "missing", "give --data-dir, the folder that holds your images")
    return dataclasses.replace(source(data_root(data_dir), **options), name=name)


def data_root(data_dir: str = "") -> Path:
    """The folder `load` looks into."""
    given = data_dir or os.environ.get("DATA_DIR", "")
    if given:
        return Path(given).expanduser()
    candidates = (REPOSITORY / "data", REPOSITORY.parent / "data")
    return next((folder for folder in candidates if folder.is_dir()), candidates[0])


# Sources: source(root, *, options) -> Data


def digits(root: Path) -> Data:
    """scikit-learn's bundled 8x8 digits, 1,797 images scaled to [0, 1], split 80/20 by class once and for all.
    Augmentation shifts by up to one pixel and never mirrors."""
    from sklearn.datasets import load_digits  # imported here: slow, and needed for nothing else
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().div(16).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).long()
    train, test = _split([str(i) for i in range(len(labels))], labels.tolist())
    parts = [Images(images[part], labels[part], 10, crop=1) for part in (train, test)]
    return _in_memory("digits", 10, *parts)


def synthetic(root: Path, *, classes: int = 4, size: int = 8, channels: int = 1, samples: int = 512, noise: float = 2.0,
              seed: int = 0) -> Data:
    """Gaussian noise around one Gaussian prototype image a class, in equal numbers; a quarter as many test samples.
    A linear classifier learns it; `noise` is the noise's standard deviation where the prototypes' is 1. Not augmented."""
    for key, value, least in (("classes", classes, 2), ("size", size, 1), ("channels", channels, 1), ("samples", samples, 4 * classes)):
        if value < least:
            raise UserError("dataset", f"synthetic:{key}={value}", f"{key} must be at least {least}")
    if not (math.isfinite(noise) and noise >= 0):
        raise UserError("dataset", f"synthetic:noise={noise:g}", "noise must be finite and not negative")
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(classes, channels, size, size, generator=generator)
    parts = []
    for count in (samples, samples // 4):
        labels = torch.arange(count) % classes
        images = prototypes[labels] + noise * torch.randn(count, channels, size, size, generator=generator)
        parts.append(Images(images, labels, classes))
    return _in_memory("synthetic", classes, *parts)


def mnist(root: Path, *, norm: str = "unit") -> Data:
    """MNIST. Augmentation shifts by up to two pixels and never mirrors."""
    chosen = _norm("mnist", norm)
    parts = [Images(part.data.unsqueeze(1), part.targets, 10, chosen, crop=2)
             for part in _fetch("mnist", torchvision.datasets.MNIST, root)]
    return _in_memory("mnist", 10, *parts)


def cifar10(root: Path, *, norm: str = "standard") -> Data:
    """CIFAR-10 as published (python version)."""
    return _cifar("cifar10", torchvision.datasets.CIFAR10, 10, root, norm)


def cifar100(root: Path, *, norm: str = "standard") -> Data:
    """CIFAR-100 as published (python version)."""
    return _cifar("cifar100", torchvision.datasets.CIFAR100, 100, root, norm)


def cifar10_jpeg(root: Path, *, norm: str = "standard") -> Data:
    """CIFAR-10 as JPEG files, cifar10-jpeg/{train,test}/<class>/*.jpg: recompressed, so not the published pixels."""
    here = _locate(root, "cifar10-jpeg")
    train, test = _same_classes(_scan(here / "train"), _scan(_below(here, "test")))
    return _from_folders("cifar10-jpeg", train, test, 32, _norm("cifar10", norm), crop=4, cache=root / ".cache")


def tiny_imagenet(root: Path, *, norm: str = "standard") -> Data:
    """Tiny-ImageNet, 200 classes at 64x64, in the folder tiny-imagenet-200. The official val folder is the test set: either as
    published (images/ and val_annotations.txt) or rearranged into class folders."""
    here = _locate(root, "tiny-imagenet-200", "tiny-imagenet")
    train, val = _scan(here / "train"), _below(here, "val")
    test = _annotated(val, train.classes) if (val / "val_annotations.txt").exists() else _scan(val)
    train, test = _same_classes(train, test)
    return _from_folders("tiny-imagenet", train, test, 64, _norm("tiny-imagenet", norm), crop=4, cache=root / ".cache")


def imagenet(root: Path) -> Data:
    """ImageNet, train/<synset>/ and val/<synset>/ at 224x224, read from disk. Plain: short side to 256, centre crop; augmented:
    random resized crop and flip. Without val the training images serve as the test set, and the log says so."""
    here = _locate(root, "imagenet")
    train = test = _scan(here / "train")
    if (here / "val").is_dir():
        _, test = _same_classes(train, _scan(here / "val"))
    else:
        log.warning("%s has no val folder: accuracies are measured on its TRAINING images", here)
    random = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()])
    parts = [Files(part, IMAGENET, _square(224, resize=256), random) for part in (train, test)]
    return Data("imagenet", len(train.classes), (3, 224, 224), *parts, sha256=_digest(train.digest, test.digest))


def imagefolder(root: Path, *, size: int = 32, norm: str = "imagenet") -> Data:
    """Anyone's images: train/<class>/ with test/<class>/ or val/<class>/ beside it, or one folder a class.

    Without a test folder a fifth of each class, at least one image, is set apart by a hash of the files' names, so that adding
    images moves few others. The short side is resized to `size` pixels and the central square cut out; augmentation shifts it
    by up to an eighth and mirrors.
    """
    if not 4 <= size <= 1024:
        raise UserError("dataset", f"imagefolder:size={size}", "size must be between 4 and 1024 pixels")
    if not root.is_dir():
        raise UserError("data_dir", str(root), "no such folder", "give --data-dir, the folder that holds your images")
    beside = [root / name for name in ("test", "val") if (root / name).is_dir()]
    if (root / "train").is_dir():
        train = _scan(root / "train")
        train, test = _same_classes(train, _scan(beside[0])) if beside else train.split()
    elif beside:
        raise UserError("data_dir", str(root), f"has {beside[0].name} but no train", "put the training images into train/<class>/")
    else:
        train, test = _scan(root).split()
    return _from_folders("imagefolder", train, test, size, _norm("imagefolder", norm), crop=size // 8, cache=None)


SOURCES: dict[str, Callable[..., Data]] = {
    "digits": digits, "synthetic": synthetic, "mnist": mnist, "cifar10": cifar10, "cifar100": cifar100,
    "cifar10-jpeg": cifar10_jpeg, "tiny-imagenet": tiny_imagenet, "imagenet": imagenet, "imagefolder": imagefolder}


def _norm(table: str, norm: str) -> Norm:
    known = {f"norm={key}": values for key, values in NORMS[table].items()}
    return known[choose("dataset", f"norm={norm}", known)]


def _in_memory(name: str, classes: int, train: Images, test: Images) -> Data:
    sha256 = _digest(train.images, train.labels, test.images, test.labels)
    return Data(name, classes, tuple(train.images.shape[1:]), train, test, sha256)


def _cifar(name: str, kind: type, classes: int, root: Path, norm: str) -> Data:
    chosen = _norm(name, norm)
    parts = [Images(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets), classes, chosen,
                    crop=4, flip=True) for part in _fetch(name, kind, root)]
    return _in_memory(name, classes, *parts)


def _fetch(name: str, kind: type, root: Path) -> list:
    """torchvision's training and test parts, downloaded if missing; one UserError for all that can go wrong."""
    timeout = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
        with contextlib.redirect_stdout(io.StringIO()):  # torchvision prints each mirror it tries
            return [kind(str(root), train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError, ValueError, AssertionError, IndexError, KeyError, EOFError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError("data_dir", str(root), f"{name} is missing or damaged there, and downloading it failed ({reason})",
                        "connect to a network, point --data-dir at a copy, or use --dataset digits") from None
    finally:
        socket.setdefaulttimeout(timeout)


# Folders of image files


@dataclass(frozen=True)
class Folder:
    """Image files and their labels; two folders are equal if their place and their file names and sizes are."""

    root: str
    digest: str
    classes: tuple[str, ...] = field(compare=False)
    paths: tuple[str, ...] = field(compare=False, repr=False)
    labels: tuple[int, ...] = field(compare=False, repr=False)

    @classmethod
    def of(cls, root: Path, classes: Sequence[str], paths: Sequence[str], labels: Sequence[int]) -> Folder:
        """A Folder with its digest. Raises UserError for fewer than two classes or a class without images."""
        if len(classes) < 2:
            raise UserError("data_dir", str(root), f"has {len(classes)} class folders, and a classifier needs at least 2",
                            "put each class's images into a folder of its own")
        empty = sorted(set(range(len(classes))) - set(labels))
        if empty:
            raise UserError("data_dir", str(root), f"class {classes[empty[0]]!r} has no images", "add some, or delete the class")
        lines = (f"{label}\t{os.path.relpath(path, root)}\t{os.path.getsize(path)}" for path, label in zip(paths, labels, strict=True))
        return cls(str(root), _digest(*sorted(lines)), tuple(classes), tuple(paths), tuple(labels))

    def split(self) -> tuple[Folder, Folder]:
        """(train, test) by class and hashed file name. Raises UserError for a class with a single image."""
        single = [label for label, count in Counter(self.labels).items() if count < 2]
        if single:
            raise UserError("data_dir", self.root, f"class {self.classes[single[0]]!r} has one image, which cannot be split",
                            "give a test folder, or add images")
        train, test = (Folder.of(Path(self.root), self.classes, [self.paths[i] for i in part], [self.labels[i] for i in part])
                       for part in _split([os.path.relpath(path, self.root) for path in self.paths], self.labels))
        return train, test


def _locate(root: Path, *names: str) -> Path:
    """The first of root/<name>, or root itself, that has a train folder."""
    for folder in (*(root / name for name in names), root):
        if (folder / "train").is_dir():
            return folder
    raise UserError("data_dir", str(root), f"no {names[0]}/train in it", f"put {names[0]} there, or give another --data-dir")


def _below(folder: Path, name: str) -> Path:
    if not (folder / name).is_dir():
        raise UserError("data_dir", str(folder), f"no {name} folder beside train", "complete the data set")
    return folder / name


def _scan(folder: Path) -> Folder:
    """Every image below the folder's class folders, hidden files and folders passed over."""
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    samples = torchvision.datasets.folder.make_dataset(
        str(folder), {name: label for label, name in enumerate(classes)}, allow_empty=True,
        extensions=torchvision.datasets.folder.IMG_EXTENSIONS) if classes else []
    samples = [(path, label) for path, label in samples if not os.path.basename(path).startswith(".")]
    return Folder.of(folder, classes, [path for path, _ in samples], [label for _, label in samples])


def _annotated(val: Path, classes: Sequence[str]) -> Folder:
    """Tiny-ImageNet's published val folder: images/ and lines of file name, class and box, separated by tabs."""
    table, label_of = val / "val_annotations.txt", {name: label for label, name in enumerate(classes)}
    paths, labels = [], []
    for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), start=1):
        name, _, rest = line.partition("\t")
        synset, path = rest.partition("\t")[0].strip(), val / "images" / name
        if synset not in label_of:
            raise UserError("data_dir", f"{table}:{number}", f"class {synset!r} is not among the training classes")
        if not path.is_file():
            raise UserError("data_dir", f"{table}:{number}", f"names {name!r}, which is not in images/", "complete the data set")
        paths.append(str(path))
        labels.append(label_of[synset])
    return Folder.of(val, classes, paths, labels)


def _same_classes(train: Folder, test: Folder) -> tuple[Folder, Folder]:
    """Both, if they have the same classes."""
    different = sorted(set(train.classes) ^ set(test.classes))
    if different:
        raise UserError("data_dir", test.root, f"{len(test.classes)} classes where {train.root} has {len(train.classes)}; "
                        f"{different[0]!r} is only in one", "give both the same class folders")
    return train, test


def _from_folders(name: str, train: Folder, test: Folder, side: int, norm: Norm, crop: int, cache: Path | None) -> Data:
    """Square images of `side` pixels: in memory if they fit, else from disk. Augmentation: zero-padded random crop and flip."""
    parts = {"train": train, "test": test}
    if (len(train.paths) + len(test.paths)) * 3 * side * side <= IN_MEMORY_BYTES:
        sets = [Images(_decoded(part, side, cache and cache / f"{name}-{key}.npz"), torch.tensor(part.labels), len(part.classes),
                       norm, crop, flip=True) for key, part in parts.items()]
    else:
        random = transforms.Compose([_square(side), transforms.RandomCrop(side, padding=crop), transforms.RandomHorizontalFlip()])
        sets = [Files(part, norm, _square(side), random) for part in parts.values()]
    return Data(name, len(train.classes), (3, side, side), *sets, sha256=_digest(train.digest, test.digest))


def _square(side: int, resize: int | None = None) -> Callable:
    """The short side to `resize` (default `side`) pixels, then the central square of `side` pixels."""
    return transforms.Compose([transforms.Resize(resize or side), transforms.CenterCrop(side)])


@functools.lru_cache(maxsize=4)
def _decoded(folder: Folder, side: int, cache: Path | None) -> Tensor:
    """All images of a folder, uint8 [n, 3, side, side]; kept for the process, and in the file `cache` if it can be written."""
    key, shape = f"{folder.digest}-{side}", (len(folder.paths), 3, side, side)
    if cache:
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), \
                np.load(cache, allow_pickle=False) as stored:
            if str(stored["key"]) == key and stored["images"].shape == shape:
                return torch.from_numpy(stored["images"])
    images = torch.empty(shape, dtype=torch.uint8)
    plain = _square(side)
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress(len(images), f"decoding {folder.root}", unit="image") as bar:
        for index, image in enumerate(pool.map(lambda path: _decode(path, plain), folder.paths)):
            images[index] = image
            bar.update(1)
    if cache:
        _write_cache(cache, key, images)
    return images


def _write_cache(path: Path, key: str, images: Tensor) -> None:
    """Atomically, and not at all where the folder cannot be written."""
    temporary = None
    try:
        path.parent.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as handle:
            temporary = handle.name
            np.savez(handle, key=np.array(key), images=images.numpy())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        log.info("decoded images are not kept on disk: %s", error)
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def _decode(path: str, transform: Callable) -> Tensor:
    """One file as uint8 [3, h, w] after a transform of PIL images; UserError names a file that cannot be read."""
    try:
        with Image.open(path) as image:
            return pil_to_tensor(transform(image.convert("RGB")))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError("data_dir", path, f"damaged image ({type(error).__name__})", "replace it or delete it") from None


# Small helpers


def _move(x: Tensor, moves: Tensor, crop: int) -> Tensor:
    """Each image of [b, c, h, w] cut out of its zero-padded self at (row, column) = moves[:, :2], mirrored where moves[:, 2]."""
    batch, channels, height, width = x.shape
    columns = torch.arange(width).expand(batch, width)
    columns = torch.where(moves[:, 2:] > 0, columns.flip(1), columns) + moves[:, 1:2]
    rows = torch.arange(height) + moves[:, :1]
    padded = F.pad(x, (crop, crop, crop, crop))
    return padded[torch.arange(batch)[:, None, None, None], torch.arange(channels)[:, None, None], rows[:, None, :, None],
                  columns[:, None, None, :]]


def _normalise(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 is first brought to [0, 1]."""
    values = x.float().div_(255) if x.dtype == torch.uint8 else x
    return (values - mean) / std


def _split(keys: Sequence[str], labels: Sequence[int]) -> tuple[list[int], list[int]]:
    """(train, test) indices in ascending order. Of each class the test part is the fifth (rounded, at least one) whose keys have
    the smallest hashes: fixed whatever the versions of the libraries, and an added example moves few others."""
    members: dict[int, list[int]] = {}
    for index in sorted(range(len(keys)), key=lambda i: hashlib.sha256(f"{SPLIT_SEED}/{keys[i]}".encode()).digest()):
        members.setdefault(labels[index], []).append(index)
    test = sorted(i for group in members.values() for i in group[:max(1, round(TEST_SHARE * len(group)))])
    held_out = set(test)
    return [i for i in range(len(keys)) if i not in held_out], test


def _digest(*parts: str | Tensor) -> str:
    """SHA-256 of texts and of tensors with their shape and type."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            total.update(f"{part.dtype}{tuple(part.shape)}".encode())
            total.update(np.ascontiguousarray(part.numpy()))
        else:
            total.update(part.encode() + b"\n")
    return total.hexdigest()


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if len(parts) == 1:
        return parts[0]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def _as_it_is(batch):
    return batch
