"""Images as batches of tensors: held in memory, or read from disk, and served in an order that is
given.

All randomness is explicit: the augmentation of image i comes from (seed, i) alone, so neither batch
size, worker processes, ranks nor a resumed run change what an image looks like. The global
generator is never drawn from.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import pil_to_tensor

from common.cells.errors import UserError
from common.system import machine

MAX_WORKERS = 8
log = logging.getLogger(__name__)
# whatever a file's name says; others have readers that start programs (EPS)
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# added to a seed, so that crops and flips are not drawn from the numbers that shuffle
MOVES = 0x9E3779B9

# mean and standard deviation a channel, of values in [0, 1]
Norm = tuple[tuple[float, ...], tuple[float, ...]]
UNIT: Norm = ((0.0,), (1.0,))


class Images(Dataset):
    """Images in memory: uint8 [n, c, h, w] or float32 (then taken as they are), labels int64 [n].

    crop: zero pixels around the image from which an augmented one is cut; flip: whether
    augmentation mirrors. A batch of indices is served at once as (float32 [b, c, h, w], int64 [b]).
    Raises UserError for labels outside 0..classes-1.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        classes: int,
        norm: Norm = UNIT,
        crop: int = 0,
        flip: bool = False,
    ):
        if len(images) != len(labels) or len(images) == 0:
            raise UserError(
                "dataset",
                f"{len(images)} images",
                f"beside {len(labels)} labels",
                "give one label an image",
            )
        if labels.min() < 0 or labels.max() >= classes:
            wrong = int(labels.max()) if labels.max() >= classes else int(labels.min())
            raise UserError(
                "dataset", wrong, f"label outside 0..{classes - 1}", "number the classes from 0"
            )
        self.images, self.labels = images, labels
        self.mean, self.std = (torch.tensor(values).view(1, -1, 1, 1) for values in norm)
        self.crop, self.flip = crop, flip
        self._moves: Tensor | None = None

    def augmented(self, seed: int) -> Images:
        """The same images, each with one random crop and flip that `seed` decides."""
        other, generator, count = (
            copy.copy(self),
            torch.Generator().manual_seed(seed + MOVES),
            len(self),
        )
        shifts = torch.randint(0, 2 * self.crop + 1, (count, 2), generator=generator)
        mirror = torch.randint(0, 2, (count, 1), generator=generator) * self.flip
        other._moves = torch.cat([shifts, mirror], dim=1)
        return other

    def subset(self, indices: Sequence[int]) -> Images:
        """Only the images at `indices`."""
        other = copy.copy(self)
        chosen = torch.as_tensor(indices)
        other.images, other.labels = self.images[chosen], self.labels[chosen]
        return other

    def keys(self) -> Iterator[bytes]:
        """What tells an image from the others: its pixels."""
        return (image.numpy().tobytes() for image in self.images)

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
    """Images on disk, decoded when asked for; `plain` and `random` map a PIL image to one of the
    common size.
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: Sequence[int],
        norm: Norm,
        plain: Callable,
        random: Callable,
    ):
        self.paths, self.labels, self.plain, self.random = paths, labels, plain, random
        self.mean, self.std = (torch.tensor(values).view(1, -1, 1, 1) for values in norm)
        self._seed: int | None = None

    def augmented(self, seed: int) -> Files:
        """The same images under the random transform, whose draws for image i are decided by (seed,
        i).
        """
        other = copy.copy(self)
        other._seed = seed
        return other

    def subset(self, indices: Sequence[int]) -> Files:
        """Only the images at `indices`."""
        other = copy.copy(self)
        other.paths = [self.paths[i] for i in indices]
        other.labels = [self.labels[i] for i in indices]
        return other

    def keys(self) -> Iterator[bytes]:
        """What tells an image from the others: its class folder and file name."""
        return (os.fsencode(os.path.join(*Path(path).parts[-2:])) for path in self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return _normalise(self._read(index)[None], self.mean, self.std)[0], self.labels[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor] | _Failure:
        try:
            x = torch.stack([self._read(i) for i in indices])
        except UserError as error:
            return _Failure(error.field, error.value, error.problem, error.remedy)
        return _normalise(x, self.mean, self.std), torch.tensor([self.labels[i] for i in indices])

    def _read(self, index: int) -> Tensor:
        path = self.paths[index]
        if self._seed is None:
            return decode(path, self.plain)
        # torchvision's random transforms draw from the global generator
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed((self._seed * 1_000_003 + index) % (1 << 63))
            return decode(path, self.random)


@dataclass(frozen=True)
class _Failure:
    """A UserError on its way out of a worker process: DataLoader rebuilds exceptions from their
    message alone.
    """

    field: str
    value: object
    problem: str
    remedy: str


class Loader(DataLoader):
    """Batches of `dataset` in the given order; iterating again gives the same batches again. Of
    `world` processes this is the loader of number `rank`, which takes every world-th image of each
    batch, and the first image of a batch that has none for it.
    """

    def __init__(
        self, dataset: Dataset, order: Tensor, batch_size: int, rank: int = 0, world: int = 1
    ):
        if batch_size < 1:
            raise UserError("batch_size", batch_size, "must be at least 1")
        batches = [
            chunk[rank::world].tolist() or chunk[:1].tolist() for chunk in order.split(batch_size)
        ]
        workers = _workers(dataset, batches) if isinstance(dataset, Files) else 0
        super().__init__(
            dataset,
            batch_sampler=batches,
            collate_fn=_as_it_is,
            num_workers=workers,
            generator=torch.Generator(),
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in super().__iter__():
            if isinstance(batch, _Failure):
                raise UserError(*dataclasses.astuple(batch))
            if self.num_workers:  # out of the memory that is shared with the workers
                batch = (batch[0].clone(), batch[1])
            yield batch


def _workers(dataset: Files, batches: list[list[int]]) -> int:
    """How many processes read images: as many as there are cores for, and as the memory has room
    for that they hand batches over in. Where it is full (64 MB in a Docker container) they die."""
    workers, free = min(MAX_WORKERS, machine.cores(), len(batches)), machine.shared_memory()
    if free is None or not batches:
        return workers
    try:
        batch = dataset[batches[0][0]][0].numel() * 4 * max(map(len, batches))
    except UserError:  # said where the image is read
        return workers
    # of a process two batches are ready, and one is on its way
    room = int(free // (3 * batch))
    if room < workers:
        log.info(
            "/dev/shm has %.3g GB free: images are read by %d processes in place of %d "
            "(docker run --shm-size=4g)",
            free / (1 << 30),
            room,
            workers,
        )
    return min(workers, room)


def square(side: int, resize: int | None = None) -> Callable:
    """The short side to `resize` (default `side`) pixels, then the central square of `side`
    pixels.
    """
    return transforms.Compose([transforms.Resize(resize or side), transforms.CenterCrop(side)])


def decode(path: str, transform: Callable) -> Tensor:
    """One file as uint8 [3, h, w] after a transform of PIL images; UserError names a file that
    cannot be read.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return pil_to_tensor(transform(_rgb(image, path)))
    except UserError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            "data_dir", path, f"damaged image ({type(error).__name__})", "replace it or delete it"
        ) from None


def _rgb(image: Image.Image, path: str) -> Image.Image:
    """Eight bits a channel. Sixteen are rescaled, where Pillow would cut off what is above 255;
    whole numbers and floats of 32 bits say nothing of their range and are refused."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise UserError(
            "data_dir",
            path,
            f"has pixels of 32 bits (mode {image.mode}), whose range is not known",
            "save it with 8 or 16 bits a channel",
        )
    return image.convert("RGB")


def _move(x: Tensor, moves: Tensor, crop: int) -> Tensor:
    """Each image of [b, c, h, w] cut out of its zero-padded self at (row, column) moves[:, :2],
    mirrored where moves[:, 2].
    """
    batch, channels, height, width = x.shape
    columns = torch.arange(width).expand(batch, width)
    columns = torch.where(moves[:, 2:] > 0, columns.flip(1), columns) + moves[:, 1:2]
    rows = torch.arange(height) + moves[:, :1]
    padded = F.pad(x, (crop, crop, crop, crop))
    return padded[
        torch.arange(batch)[:, None, None, None],
        torch.arange(channels)[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def _normalise(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 is first brought to [0, 1]."""
    values = x.float().div_(255) if x.dtype == torch.uint8 else x
    return (values - mean) / std


def _as_it_is(batch: tuple[Tensor, Tensor] | _Failure) -> tuple[Tensor, Tensor] | _Failure:
    """The collate function: the data set has made the batch already."""
    return batch
