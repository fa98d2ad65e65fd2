"""Data sets by name: `load("mnist:norm=standard", data_dir)`. digits and synthetic need neither
files nor a network.

All randomness is explicit: orders and augmentations come from a seed alone, and never from the
global generator.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import logging
import math
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch
import torchvision
from torch import Tensor
from torchvision import transforms

from common.cells.errors import UserError, choose
from common.cells.options import read_options
from common.cells.spec import is_own, split_options
from common.data import own
from common.data.batches import batches
from common.data.folders import (
    Folder,
    annotated,
    below,
    contents,
    decoded,
    digest_of,
    halves,
    locate,
    parts,
    same_classes,
    scan,
    split_indices,
)
from common.data.images import UNIT, Files, Images, Loader, Norm, square
from common.data.own import Examples
from common.data.task import Calibration, Inputs, Task, joined
from common.system import code

REPOSITORY = Path(__file__).resolve().parents[2]
# folders whose decoded images fit in this are decoded once; larger ones are read as needed
IN_MEMORY_BYTES = 2 << 30
MAX_SYNTHETIC = 1 << 29
DOWNLOAD_TIMEOUT = 15.0  # seconds without a byte
log = logging.getLogger(__name__)

IMAGENET: Norm = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LITE: Norm = ((0.498,) * 3, (0.502,) * 3)  # EfficientNet-Lite
CIFAR10: Norm = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
NORMS: dict[str, dict[str, Norm]] = {
    "mnist": {
        "unit": UNIT,  # L-OBS: inputs in [0, 1]
        "standard": ((0.1307,), (0.3081,)),  # WoodFisher
    },
    "cifar10": {
        "standard": CIFAR10,  # EigenDamage and WoodFisher
        "imagenet": IMAGENET,  # widely used public checkpoints
        "unit": UNIT,
    },
    "cifar100": {  # EigenDamage
        "standard": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
        "unit": UNIT,
    },
    "tiny-imagenet": {  # EigenDamage
        "standard": ((0.48025, 0.44807, 0.39755), (0.27699, 0.26906, 0.28208)),
        "unit": UNIT,
    },
    "imagenet-sample": {"lite": LITE, "imagenet": IMAGENET, "unit": UNIT},
    "imagefolder": {"imagenet": IMAGENET, "unit": UNIT},
}
IMAGENET_CLASSES = 1_000
# (classes, (c, h, w)) of the data sets whose name says it
SHAPES = {
    "digits": (10, (1, 8, 8)),
    "mnist": (10, (1, 28, 28)),
    "cifar10": (10, (3, 32, 32)),
    "cifar10-jpeg": (10, (3, 32, 32)),
    "cifar100": (100, (3, 32, 32)),
    "tiny-imagenet": (200, (3, 64, 64)),
    "imagenet": (1_000, (3, 224, 224)),
}


@dataclass(frozen=True, eq=False)
class Data:
    """A data set and what its network is for. input_shape is (c, h, w), of examples that are no
    images whatever it is, of several tensors (); `sha256` identifies the images and labels, not the
    options: of known sets of files by their names and sizes, of all others by content. `content` is
    a digest of every pixel, label and class; of a set that memory does not hold, of the files'
    bytes in place of pixels (folders.contents). `valid` are training images held out by the option
    `holdout`: all that is decided on the way is decided on them, and `test` is for the report
    alone."""

    name: str
    classes: int
    input_shape: tuple[int, int, int]
    train: Images | Files
    test: Images | Files
    sha256: str
    content: str = ""
    valid: Images | Files | None = None
    task: Task = Task()

    def example(self) -> tuple[int, ...] | Tensor | Inputs:
        """What costs are counted on: the shape of an image, or an example of another kind."""
        if isinstance(self.train, Examples):
            x, _ = self.task.canonical(self.train[0])
            return x if torch.is_tensor(x) else x.plain()
        return self.input_shape

    def _given(self, loader: Loader) -> Loader | Calibration:
        """The batches together with the task, where it is not the usual one of pairs."""
        plain = self.task == Task() and not isinstance(self.train, Examples)
        return loader if plain else Calibration(loader, self.task)

    def train_loader(
        self, batch_size: int, seed: int = 0, augment: bool = False, rank: int = 0, world: int = 1
    ) -> Loader:
        """The training set in an order that `seed` alone decides, in batches of which each of
        `world` ranks takes every world-th image (images.Loader).
        """
        if not 0 <= rank < world:
            raise UserError("rank", rank, f"outside 0..{world - 1}")
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
        images = self.train.augmented(seed) if augment else self.train
        return self._given(Loader(images, order, batch_size, rank, world))

    @property
    def evaluation_batch(self) -> int:
        """Images a batch where no gradient is taken: few large ones, whose features then stay in
        the processor's cache, a third faster there."""
        return 256 if math.prod(self.input_shape[1:]) <= 64 * 64 else 16

    def test_loader(self, batch_size: int | None = None) -> Loader:
        """The test set in its own order."""
        return self._in_order(self.test, batch_size)

    def judge_loader(self, batch_size: int | None = None) -> Loader:
        """The images that decide between epochs and steps: held out ones, if there are any."""
        judge = self.test if self.valid is None else self.valid
        return self._in_order(judge, batch_size)

    def _in_order(self, part: Images | Files | Examples, batch_size: int | None) -> Loader:
        size = batch_size or self.evaluation_batch
        return self._given(Loader(part, torch.arange(len(part)), size))

    def require_samples(self, num_samples: int) -> None:
        """UserError unless there are as many training images."""
        count = len(self.train)
        if not 1 <= num_samples <= count:
            raise UserError(
                "num_samples",
                num_samples,
                f"outside 1..{count}",
                f"{self.name} has {count} training images",
            )

    def calibration(self, num_samples: int, batch_size: int = 64, seed: int = 0) -> Loader:
        """`num_samples` un-augmented training images, drawn by `seed` without replacement; a larger
        draw with the same seed begins with the smaller one."""
        self.require_samples(num_samples)
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
        return self._given(Loader(self.train, order[:num_samples], batch_size))


def rebatch(loader: Iterable[tuple[Tensor, Tensor]], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The same examples in the same order, in batches of exactly `size`; only the last may be
    shorter.
    """
    if size < 1:
        raise UserError("batch_size", size, "must be at least 1")
    return _rebatch(loader, size)


def _rebatch(loader: Iterable[tuple[Tensor, Tensor]], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    held: list[tuple[Tensor, Tensor]] = []
    count = 0
    for x, y in batches(loader):
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


def named(name: str) -> tuple[str, Callable[..., Data], dict[str, object]]:
    """(the name before its colon, source, options); UserError for an unknown name, option, kind of
    value or normalisation, without a look at any file."""
    if is_own(name) and name.partition(":")[0] not in SOURCES:
        return name, _own, {}
    base, texts = split_options(name, "dataset")
    source = SOURCES[choose("dataset", base, SOURCES)]
    _holdout(name, texts.pop("holdout", None))
    options = read_options("dataset", name, source, texts)
    if "norm" in options:
        _norm("cifar10" if base == "cifar10-jpeg" else base, options["norm"])
    return base, source, options


def load(name: str, data_dir: str = "") -> Data:
    """The data set called `name`, options after a colon. Raises UserError, naming the file or
    folder, for whatever is wrong.

    data_dir: where the files are, or MNIST and CIFAR are downloaded to; "" means the environment
    variable DATA_DIR, else `data` in the repository, else `data` beside it.
    """
    base, source, options = named(name)
    if source is _own:
        return _own(name, data_root(data_dir))
    if base == "imagefolder" and not (data_dir or os.environ.get("DATA_DIR")):
        raise UserError(
            "data_dir", data_dir, "missing", "give --data-dir, the folder that holds your images"
        )
    data = dataclasses.replace(source(data_root(data_dir), **options), name=name)
    fraction = _holdout(name, split_options(name, "dataset")[1].get("holdout"))
    return hold_out(data, fraction) if fraction else data


def hold_out(data: Data, fraction: float) -> Data:
    """`data` with a `fraction` of its training images as `valid`. A hash of the image decides, so
    that the same image is held out whatever the order, the normalisation and the seed are. Raises
    UserError where nothing would be left to train on, or to judge by."""
    parts: tuple[list[int], list[int]] = [], []
    for index, key in enumerate(data.train.keys()):
        drawn = int.from_bytes(hashlib.sha256(key).digest()[:8], "big")
        parts[drawn < fraction * 2**64].append(index)
    if not all(parts):
        raise UserError(
            "dataset",
            data.name,
            f"has {len(data.train)} training images, of which {len(parts[1])} would be held out",
            "choose another holdout",
        )
    train, valid = (data.train.subset(part) for part in parts)
    return dataclasses.replace(data, train=train, valid=valid)


def _holdout(name: str, text: str | None) -> float:
    """The option `holdout` of every data set, the fraction of the training images that is held
    out; 0 where it is not given."""
    if text is None:
        return 0.0
    with contextlib.suppress(ValueError):
        if 0 < (fraction := float(text)) < 1:
            return fraction
    raise UserError(
        "dataset", name, f"cannot read holdout={text!r}", "give a fraction between 0 and 1"
    )


def data_root(data_dir: str = "") -> Path:
    """The folder `load` looks into."""
    given = data_dir or os.environ.get("DATA_DIR", "")
    if given:
        try:
            return Path(given).expanduser()
        except RuntimeError:
            raise UserError("data_dir", given, "nobody of that name has a home here") from None
    candidates = (REPOSITORY / "data", REPOSITORY.parent / "data")
    return next((folder for folder in candidates if folder.is_dir()), candidates[0])


_given: dict[str, Data] = {}


def give(train: Iterable, test: Iterable, task: Task) -> str:
    """A name for loaders that are there already, for as long as this process lasts."""
    parts = own.read(train, task), own.read(test, task)
    data = _of_examples("own", *parts)
    name = f"{code.GIVEN}:data-{data.sha256[:12]}"
    _given[name] = dataclasses.replace(data, name=name)
    return name


def _own(name: str, root: Path) -> Data:
    """A data set of one's own."""
    if name in _given:
        return _given[name]
    return _of_examples(name, *own.sets(name, root, Task()))


def _of_examples(name: str, train: Examples, test: Examples) -> Data:
    sha256 = digest_of(train.digest(), test.digest())
    classes, shape = own.classes_of(train, test), own.shape_of(train)
    return Data(name, classes, shape, train, test, sha256, sha256, task=train.task)


# Sources: source(root, *, options) -> Data


def digits(root: Path) -> Data:
    """scikit-learn's bundled 8x8 digits, 1,797 images scaled to [0, 1], split 80/20 by class once
    and for all. Augmentation shifts by up to one pixel and never mirrors."""
    from sklearn.datasets import load_digits  # imported here: slow, and needed for nothing else

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().div(16).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).long()
    train, test = split_indices([str(i) for i in range(len(labels))], labels.tolist())
    parts = [Images(images[part], labels[part], 10, crop=1) for part in (train, test)]
    return _in_memory("digits", 10, *parts)


def synthetic(
    root: Path,
    *,
    classes: int = 4,
    size: int = 8,
    channels: int = 1,
    samples: int = 512,
    noise: float = 2.0,
    seed: int = 0,
) -> Data:
    """Gaussian noise around one Gaussian prototype image a class, in equal numbers; a quarter as
    many test samples. A linear classifier learns it; `noise` is the noise's standard deviation
    where the prototypes' is 1. Not augmented."""
    for key, value, least in (
        ("classes", classes, 2),
        ("size", size, 1),
        ("channels", channels, 1),
        ("samples", samples, 4 * classes),
        ("seed", seed, 0),
    ):
        if value < least:
            raise UserError(
                "dataset", f"synthetic:{key}={value}", f"{key} must be at least {least}"
            )
    if not (math.isfinite(noise) and noise >= 0):
        raise UserError(
            "dataset", f"synthetic:noise={noise:g}", "noise must be finite and not negative"
        )
    if max(classes, samples) * channels * size * size > MAX_SYNTHETIC:
        raise UserError(
            "dataset",
            f"synthetic:samples={samples},channels={channels},size={size}",
            f"is more than {MAX_SYNTHETIC:,} pixels",
            "ask for fewer or smaller images",
        )
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(classes, channels, size, size, generator=generator)
    parts = []
    for count in (samples, samples // 4):
        labels = torch.arange(count) % classes
        images = prototypes[labels] + noise * torch.randn(
            count, channels, size, size, generator=generator
        )
        parts.append(Images(images, labels, classes))
    return _in_memory("synthetic", classes, *parts)


def mnist(root: Path, *, norm: str = "unit", shift: int = 2) -> Data:
    """MNIST. Augmentation shifts by up to `shift` pixels and never mirrors."""
    if not 0 <= shift <= 14:
        raise UserError("dataset", f"mnist:shift={shift}", "shift must be between 0 and 14 pixels")
    chosen = _norm("mnist", norm)
    parts = []
    for part in _fetch("mnist", torchvision.datasets.MNIST, root):
        images, labels = part.data, part.targets
        if images.dtype != torch.uint8 or images.shape[1:] != (28, 28) or labels.ndim != 1:
            raise UserError(
                "data_dir",
                str(root),
                f"MNIST there holds {images.dtype} images of {list(images.shape[1:])}, no digits",
                "replace it, or delete it to download it again",
            )
        parts.append(Images(images.unsqueeze(1), labels, 10, chosen, crop=shift))
    return _in_memory("mnist", 10, *parts)


def cifar10(root: Path, *, norm: str = "standard") -> Data:
    """CIFAR-10 as published (python version)."""
    return _cifar("cifar10", torchvision.datasets.CIFAR10, 10, root, norm)


def cifar100(root: Path, *, norm: str = "standard") -> Data:
    """CIFAR-100 as published (python version)."""
    return _cifar("cifar100", torchvision.datasets.CIFAR100, 100, root, norm)


def cifar10_jpeg(root: Path, *, norm: str = "standard") -> Data:
    """CIFAR-10 as JPEG files, cifar10-jpeg/{train,test}/<class>/*.jpg: recompressed, so not the
    published pixels.
    """
    here = locate(root, "cifar10-jpeg")
    train, test = same_classes(scan(here / "train"), scan(below(here, "test")))
    return _from_folders(
        "cifar10-jpeg", train, test, 32, _norm("cifar10", norm), crop=4, cache=root / ".cache"
    )


def tiny_imagenet(root: Path, *, norm: str = "standard") -> Data:
    """Tiny-ImageNet, 200 classes at 64x64, in the folder tiny-imagenet-200. The official val folder
    is the test set: either as published (images/ and val_annotations.txt) or rearranged into class
    folders."""
    here = locate(root, "tiny-imagenet-200", "tiny-imagenet")
    train, val = scan(here / "train"), below(here, "val")
    test = annotated(val, train.classes) if (val / "val_annotations.txt").is_file() else scan(val)
    train, test = same_classes(train, test)
    return _from_folders(
        "tiny-imagenet",
        train,
        test,
        64,
        _norm("tiny-imagenet", norm),
        crop=4,
        cache=root / ".cache",
    )


def imagenet(root: Path) -> Data:
    """ImageNet, train/<synset>/ and val/<synset>/ at 224x224, read from disk. Plain: short side to
    256, centre crop; augmented: random resized crop and flip. Without val the training images serve
    as the test set, and the log says so."""
    here = locate(root, "imagenet")
    train = test = scan(here / "train")
    if (here / "val").is_dir():
        _, test = same_classes(train, scan(here / "val"))
    else:
        log.warning("%s has no val folder: accuracies are measured on its TRAINING images", here)
    random = transforms.Compose(
        [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()]
    )
    parts = [
        Files(part.paths, part.labels, IMAGENET, square(224, resize=256), random)
        for part in (train, test)
    ]
    return Data(
        "imagenet",
        len(train.classes),
        (3, 224, 224),
        *parts,
        sha256=digest_of(train.digest, test.digest),
        content=_on_disk("imagenet", {"train": train, "test": test}, root / ".cache"),
    )


def imagenet_sample(root: Path, *, norm: str = "lite") -> Data:
    """A small part of ImageNet, imagenet-sample/train/<synset>/ with images of all 1,000 classes,
    split in two halves by a hash of the files' names: the first to calibrate on (its "training"
    images), the second to test on. A network that was trained on ImageNet has seen both. Short side
    to 256, central 224; augmentation shifts by up to 16 pixels and mirrors. Raises UserError where
    a class is missing, as the classes are numbered in their names' order."""
    here = locate(root, "imagenet-sample")
    sample = scan(here / "train")
    if len(sample.classes) != IMAGENET_CLASSES:
        raise UserError(
            "data_dir",
            str(here),
            f"has {len(sample.classes)} class folders, ImageNet has {IMAGENET_CLASSES:,}",
            "complete it, or load it as --dataset imagefolder",
        )
    cache = root / ".cache" / "imagenet-sample-224.npz"
    whole = Images(
        decoded(sample, 224, cache, resize=256),
        torch.tensor(sample.labels),
        IMAGENET_CLASSES,
        _norm("imagenet-sample", norm),
        crop=16,
        flip=True,
    )
    parts = halves([os.path.join(*Path(path).parts[-2:]) for path in sample.paths])
    data = _in_memory("imagenet-sample", IMAGENET_CLASSES, *map(whole.subset, parts))
    return dataclasses.replace(data, sha256=sample.digest)


def imagefolder(root: Path, *, size: int = 32, norm: str = "imagenet") -> Data:
    """Anyone's images: train/<class>/ with test/<class>/ or val/<class>/ beside it (or another of
    their usual names, folders.parts), or one folder a class.

    Without a test folder a fifth of each class, at least one image, is set apart by a hash of the
    files' names, so that adding images moves few others. The short side is resized to `size` pixels
    and the central square cut out; augmentation shifts it by up to an eighth and mirrors.
    """
    if not 4 <= size <= 1024:
        raise UserError(
            "dataset", f"imagefolder:size={size}", "size must be between 4 and 1024 pixels"
        )
    if not root.is_dir():
        raise UserError(
            "data_dir",
            str(root),
            "no such folder",
            "give --data-dir, the folder that holds your images",
        )
    trained, tested = parts(root)
    train = scan(trained or root)
    train, test = same_classes(train, scan(tested)) if tested else train.split()
    return _from_folders(
        "imagefolder", train, test, size, _norm("imagefolder", norm), crop=size // 8, cache=None
    )


SOURCES: dict[str, Callable[..., Data]] = {
    "digits": digits,
    "synthetic": synthetic,
    "mnist": mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "cifar10-jpeg": cifar10_jpeg,
    "tiny-imagenet": tiny_imagenet,
    "imagenet": imagenet,
    "imagenet-sample": imagenet_sample,
    "imagefolder": imagefolder,
}


def _norm(table: str, norm: str) -> Norm:
    """The normalisation called `norm` in NORMS[table]; UserError lists the known ones."""
    known = {f"norm={key}": values for key, values in NORMS[table].items()}
    return known[choose("dataset", f"norm={norm}", known)]


def _in_memory(name: str, classes: int, train: Images, test: Images) -> Data:
    """Data of two sets in memory, identified by their pixels and labels."""
    sha256 = digest_of(train.images, train.labels, test.images, test.labels)
    return Data(name, classes, tuple(train.images.shape[1:]), train, test, sha256, sha256)


def _cifar(name: str, kind: type, classes: int, root: Path, norm: str) -> Data:
    chosen = _norm(name, norm)
    parts = [
        Images(
            torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(),
            torch.tensor(part.targets),
            classes,
            chosen,
            crop=4,
            flip=True,
        )
        for part in _fetch(name, kind, root)
    ]
    return _in_memory(name, classes, *parts)


def _fetch(name: str, kind: type, root: Path) -> list:
    """torchvision's training and test parts, downloaded if missing; one UserError for all that can
    go wrong.
    """
    timeout = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
        with contextlib.redirect_stdout(io.StringIO()):  # torchvision prints each mirror it tries
            return [kind(str(root), train=train, download=True) for train in (True, False)]
    except (
        OSError,
        RuntimeError,
        ValueError,
        AssertionError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        HTTPException,
    ) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            "data_dir",
            str(root),
            f"{name} is missing or damaged there, and downloading it failed ({reason})",
            "connect to a network, point --data-dir at a copy, or use --dataset digits",
        ) from None
    finally:
        socket.setdefaulttimeout(timeout)


def _from_folders(
    name: str, train: Folder, test: Folder, side: int, norm: Norm, crop: int, cache: Path | None
) -> Data:
    """Square images of `side` pixels: in memory if they fit, else from disk. Augmentation:
    zero-padded random crop and flip.
    """
    parts = {"train": train, "test": test}
    if (len(train.paths) + len(test.paths)) * 3 * side * side <= IN_MEMORY_BYTES:
        sets = [
            Images(
                decoded(part, side, cache and cache / f"{name}-{key}-{side}.npz"),
                torch.tensor(part.labels),
                len(part.classes),
                norm,
                crop,
                flip=True,
            )
            for key, part in parts.items()
        ]
        content = digest_of(
            *train.classes, *(tensor for part in sets for tensor in (part.images, part.labels))
        )
    else:
        random = transforms.Compose(
            [
                square(side),
                transforms.RandomCrop(side, padding=crop),
                transforms.RandomHorizontalFlip(),
            ]
        )
        sets = [
            Files(part.paths, part.labels, norm, square(side), random) for part in parts.values()
        ]
        content = _on_disk(name, parts, cache)
    sha256 = content if name == "imagefolder" else digest_of(train.digest, test.digest)
    return Data(name, len(train.classes), (3, side, side), *sets, sha256=sha256, content=content)


def _on_disk(name: str, parts: dict[str, Folder], cache: Path | None) -> str:
    """The content digest of a set that is read as needed."""
    return digest_of(
        *parts["train"].classes,
        *(
            contents(part, cache and cache / f"{name}-{key}-contents.json")
            for key, part in parts.items()
        ),
    )


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if len(parts) == 1:
        return parts[0]
    first, *others = (x.shape[1:] if torch.is_tensor(x) else None for x, _ in parts)
    for other in others:
        if other != first:
            raise UserError(
                "calibration",
                f"{tuple(first)}, {tuple(other)}",
                "its batches hold examples of different shapes, which are worked on together",
                "bring them to one shape",
            )
    return joined([x for x, _ in parts]), joined([y for _, y in parts])
