"""Data sets: fixed splits, orders and augmentations decided by seeds, folder layouts, and one line
for each thing wrong.
"""

from __future__ import annotations

import logging
import os
import socket

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from common.cells.errors import UserError
from common.data import folders
from common.data import sources as data
from common.data.images import Files, Images
from common.data.sources import load, rebatch
from common.nets.models import build


def ramp(count=20, side=4, classes=5, **options) -> Images:
    """Images whose pixels are all different, so that a crop can be told by its values; label i %
    classes.
    """
    pixels = (
        torch.arange(1, side * side + 1)
        .view(1, 1, side, side)
        .repeat(count, 1, 1, 1)
        .to(torch.uint8)
    )
    return Images(pixels, torch.arange(count) % classes, classes, **options)


def numbered(count: int) -> data.Data:
    """One-pixel images that show their own index."""
    pixels = torch.arange(float(count)).view(-1, 1, 1, 1)
    part = Images(pixels, torch.zeros(count, dtype=torch.int64), 2)
    return data.Data("numbered", 2, (1, 1, 1), part, part, "")


def indices(loader) -> list[int]:
    return [int(v) for x, _ in loader for v in x.flatten()]


def picture(path, colour, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


# If this changes, every accuracy on digits that was ever recorded is another data set's.
GOLDEN_DIGITS = "18a6f838dc17c13682c1e43300886812e7c953d303307e24153069bed158b8c8"
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


# Sets that need no files


def test_digits_are_always_the_same_stratified_split():
    digits = load("digits")
    assert (digits.classes, digits.input_shape, len(digits.train), len(digits.test)) == (
        10,
        (1, 8, 8),
        1438,
        359,
    )
    assert digits.train.labels.bincount().tolist() == [
        142,
        146,
        142,
        146,
        145,
        146,
        145,
        143,
        139,
        144,
    ]
    assert digits.test.labels.bincount().tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert digits.sha256 == load("digits").sha256 == GOLDEN_DIGITS
    assert (float(digits.train.images.min()), float(digits.train.images.max())) == (0, 1)
    x, y = digits.test[0]
    assert torch.equal(x, digits.test.images[0]) and y == int(digits.test.labels[0])


def test_split_is_disjoint_covering_and_hardly_moved_by_an_added_example():
    keys, labels = [f"{i}.png" for i in range(100)], [i % 2 for i in range(100)]
    train, test = folders.split_indices(keys, labels)
    assert sorted(train + test) == list(range(100))
    assert [sum(labels[i] == c for i in test) for c in (0, 1)] == [10, 10]
    _, more = folders.split_indices([*keys, "new.png"], [*labels, 0])
    assert len(set(more) ^ set(test)) <= 2


def test_synthetic_is_seeded_balanced_and_separable():
    name = "synthetic:classes=5,size=6,channels=2,samples=100"
    a = load(name)
    assert (
        a.sha256
        == load("synthetic:samples=100,channels=2,size=6,classes=5").sha256
        != load(name + ",seed=1").sha256
    )
    assert a.input_shape == (2, 6, 6) and a.name == name
    assert (
        a.train.labels.bincount().tolist() == [20] * 5
        and a.test.labels.bincount().tolist() == [5] * 5
    )
    means = torch.stack([a.train.images[a.train.labels == k].mean(0) for k in range(5)])
    nearest = torch.cdist(a.test.images.flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == a.test.labels).float().mean() > 0.9


# Orders


def test_an_order_is_decided_by_its_seed_and_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    some = numbered(10)
    first = indices(some.train_loader(4, seed=1, augment=True))
    torch.manual_seed(99)
    assert indices(some.train_loader(4, seed=1)) == first != indices(some.train_loader(4, seed=2))
    assert indices(some.train_loader(3, seed=1)) == first
    torch.manual_seed(0)
    (
        indices(some.train_loader(4, augment=True)),
        indices(some.test_loader()),
        indices(some.calibration(5)),
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(first) == list(range(10)) == indices(some.test_loader(3))
    assert [len(y) for _, y in some.train_loader(4)] == [4, 4, 2]
    assert isinstance(some.train_loader(4), DataLoader) and len(some.train_loader(4)) == 3


@pytest.mark.parametrize(
    ("count", "batch", "world"), [(12, 3, 3), (10, 4, 3), (13, 4, 2), (5, 2, 4)]
)
def test_ranks_part_each_batch_of_one_order(count, batch, world):
    some = numbered(count)
    whole = indices(some.train_loader(batch, seed=7)).__iter__()
    loaders = [some.train_loader(batch, seed=7, rank=r, world=world) for r in range(world)]
    assert {len(loader) for loader in loaders} == {-(-count // batch)}
    for parts in zip(*([indices([pair]) for pair in loader] for loader in loaders), strict=True):
        size = min(batch, count)
        count -= size
        together = [next(whole) for _ in range(size)]
        for rank, part in enumerate(parts):
            # a rank without an image of its own sees the first one, which weighs nothing there
            assert part == (together[rank::world] or together[:1])


def test_calibration_is_unique_unaugmented_repeatable_and_nested():
    part = ramp(count=20, crop=2, flip=True)
    some = data.Data("ramp", 5, (1, 4, 4), part, part, "")
    loader = some.calibration(12, batch_size=5, seed=3)
    batches = list(loader)
    assert [len(y) for _, y in batches] == [5, 5, 2]
    assert all(
        torch.equal(a, c) and torch.equal(b, d)
        for (a, b), (c, d) in zip(batches, loader, strict=True)
    )
    assert all(torch.equal(x, part[0][0].expand_as(x)) for x, _ in batches)
    chosen = indices(numbered(20).calibration(12, seed=3))
    assert len(set(chosen)) == 12
    assert (
        indices(numbered(20).calibration(20, seed=3))[:12]
        == chosen
        != indices(numbered(20).calibration(12, seed=4))
    )


@pytest.mark.parametrize("size", [1, 3, 4, 7, 100])
def test_rebatch_keeps_examples_and_order(size):
    loader = numbered(10).test_loader(4)
    batches = list(rebatch(loader, size))
    assert [int(v) for x, _ in batches for v in x.flatten()] == list(range(10))
    assert [len(y) for _, y in batches] == [size] * (10 // size) + (
        [10 % size] if 10 % size else []
    )
    assert all(len(x) == len(y) for x, y in batches)
    assert not list(rebatch([], size))


# Augmentation and normalisation


def test_augmentation_cuts_each_image_out_of_its_zero_padded_self():
    part = ramp(count=200, side=4, crop=2, flip=True)
    original = (part[0][0] * 255).round()[0]
    padded = torch.zeros(8, 8)
    padded[2:6, 2:6] = original
    possible = {}
    for dy in range(5):
        for dx in range(5):
            cut = padded[dy : dy + 4, dx : dx + 4]
            possible[tuple(cut.flatten().tolist())] = (dy, dx, 0)
            possible[tuple(cut.flip(1).flatten().tolist())] = (dy, dx, 1)
    x, y = part.augmented(0).__getitems__(range(200))
    found = [possible[tuple(image.flatten().tolist())] for image in (x * 255).round()]
    # every shift occurs, image by image
    assert {f[0] for f in found} == {f[1] for f in found} == set(range(5))
    assert 60 < sum(f[2] for f in found) < 140
    assert torch.equal(y, part.labels)
    assert torch.equal(part[3][0], (original / 255)[None])  # the set itself stays plain


def test_augmentation_of_an_image_depends_on_seed_and_index_only():
    part = ramp(count=50, crop=2, flip=True)
    whole, _ = part.augmented(1).__getitems__(list(range(50)))
    some, _ = part.augmented(1).__getitems__([7, 3])
    assert torch.equal(some, whole[[7, 3]])
    other, _ = part.augmented(2).__getitems__(list(range(50)))
    assert not torch.equal(other, whole)
    assert torch.equal(ramp(crop=0).augmented(5).__getitems__([0])[0], ramp().__getitems__([0])[0])
    no_mirror, _ = ramp(count=50, crop=1).augmented(0).__getitems__(list(range(50)))
    assert all(not torch.equal(image, part[0][0].flip(2)) for image in no_mirror)


def test_uint8_is_scaled_then_normalised_by_channel():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    part = Images(pixels, torch.tensor([1]), 2, norm=((0.5, 0.2, 0.0), (0.5, 0.1, 2.0)))
    assert torch.allclose(part[0][0].flatten(), torch.tensor([-1.0, 0.0, 0.5]))
    assert part[0][1] == 1


@pytest.mark.parametrize("labels", [[0, 2], [-1, 1]])
def test_labels_out_of_range_are_refused(labels):
    with pytest.raises(UserError, match=r"outside 0\.\.1"):
        Images(torch.zeros(2, 1, 1, 1), torch.tensor(labels), 2)
    with pytest.raises(UserError, match="one label an image"):
        Images(torch.zeros(3, 1, 1, 1), torch.tensor([0, 1]), 2)


# Folders


@pytest.fixture
def colours(tmp_path):
    """train: red, green; test: red, green. Different sizes, a hidden file and a hidden folder
    beside.
    """
    for split, count in (("train", 4), ("test", 2)):
        for name, colour in (("red", RED), ("green", GREEN)):
            for i in range(count):
                picture(tmp_path / split / name / f"{i}.png", colour, size=(8 + i, 12))
    (tmp_path / "train" / ".thumbnails").mkdir()
    (tmp_path / "train" / "red" / "._0.png").write_bytes(b"not an image")
    (tmp_path / "train" / "red" / "notes.txt").write_text("not an image either")
    return tmp_path


def test_image_folder_values(colours):
    found = load("imagefolder:size=8,norm=unit", str(colours))
    assert (found.classes, found.input_shape, len(found.train), len(found.test)) == (
        2,
        (3, 8, 8),
        8,
        4,
    )
    x, y = next(iter(found.test_loader()))
    assert y.tolist() == [0, 0, 1, 1]  # green, red: sorted names
    expected = (
        torch.tensor([GREEN, GREEN, RED, RED]).float().div(255)[:, :, None, None].expand(4, 3, 8, 8)
    )
    assert torch.equal(x, expected)
    assert load("imagefolder", str(colours)).input_shape == (3, 32, 32)
    picture(colours / "test" / "red" / "9.png", RED)
    assert load("imagefolder:size=8,norm=unit", str(colours)).sha256 != found.sha256


def test_image_folder_takes_val_for_test_and_data_dir_from_the_environment(colours, monkeypatch):
    (colours / "test").rename(colours / "val")
    monkeypatch.setenv("DATA_DIR", str(colours))
    assert len(load("imagefolder:size=8").test) == 4


@pytest.mark.parametrize("nested", [True, False])
def test_image_folder_without_a_test_part_is_split_by_class(tmp_path, nested):
    for name, colour in (("a", RED), ("b", GREEN), ("c", BLUE)):
        for i in range(10):
            picture((tmp_path / "train" if nested else tmp_path) / name / f"{i}.png", colour)
    found = load("imagefolder:size=8", str(tmp_path))
    assert found.train.labels.bincount().tolist() == [8, 8, 8]
    assert found.test.labels.bincount().tolist() == [2, 2, 2]


def test_folders_too_large_for_memory_are_read_from_disk_alike(colours, monkeypatch):
    held = load("imagefolder:size=8", str(colours))
    monkeypatch.setattr(data, "IN_MEMORY_BYTES", 0)
    read = load("imagefolder:size=8", str(colours))
    assert isinstance(read.train, Files) and isinstance(held.train, Images)
    for (a, b), (c, d) in zip(
        held.train_loader(3, seed=1), read.train_loader(3, seed=1), strict=True
    ):
        assert torch.equal(a, c) and torch.equal(b, d)
    assert (
        torch.equal(read.train[0][0], held.train[0][0])
        and read.train[7][1] == held.train[7][1] == 1
    )
    state = torch.get_rng_state()
    first = torch.cat([x for x, _ in read.train_loader(3, seed=1, augment=True)])
    again = torch.cat([x for x, _ in read.train_loader(5, seed=1, augment=True)])
    assert torch.equal(first, again)  # whatever the batches and worker processes
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no processor affinity here")
def test_images_are_read_by_no_more_processes_than_the_cores_this_one_may_use(colours, monkeypatch):
    monkeypatch.setattr(data, "IN_MEMORY_BYTES", 0)
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert load("imagefolder:size=8", str(colours)).train_loader(3, seed=1).num_workers == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_imagenet_layout(tmp_path, caplog):
    for synset, colour in (("n01", RED), ("n02", BLUE)):
        picture(
            tmp_path / "imagenet" / "train" / synset / "images" / "1.JPEG", colour, size=(300, 260)
        )
    with caplog.at_level(logging.WARNING):
        found = load("imagenet", str(tmp_path))
    assert "TRAINING" in caplog.text
    assert (found.classes, found.input_shape) == (2, (3, 224, 224))
    x, y = next(iter(found.test_loader()))
    assert y.tolist() == [0, 1]
    expected = (
        torch.tensor([254, 0, 0]) / 255 - torch.tensor([0.485, 0.456, 0.406])
    ) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(x[0, :, 100, 100], expected, atol=0.02)
    assert next(iter(found.train_loader(2, augment=True)))[0].shape == (2, 3, 224, 224)
    caplog.clear()
    picture(tmp_path / "imagenet" / "val" / "n01" / "1.JPEG", RED)
    picture(tmp_path / "imagenet" / "val" / "n02" / "1.JPEG", RED)
    assert len(load("imagenet", str(tmp_path / "imagenet")).test) == 2
    assert not caplog.text


@pytest.fixture
def tiny(tmp_path):
    """Tiny-ImageNet's published layout with two classes; in val the file order is not the class
    order.
    """
    root = tmp_path / "tiny-imagenet-200"
    for synset, colour in (("n01", RED), ("n02", BLUE)):
        for i in range(2):
            picture(
                root / "train" / synset / "images" / f"{synset}_{i}.JPEG", colour, size=(64, 64)
            )
        (root / "train" / synset / f"{synset}_boxes.txt").write_text("boxes\n")
    lines = []
    for i, (synset, colour) in enumerate([("n02", BLUE), ("n01", RED), ("n02", BLUE)]):
        picture(root / "val" / "images" / f"val_{i}.JPEG", colour, size=(64, 64))
        lines.append(f"val_{i}.JPEG\t{synset}\t0\t0\t9\t9")
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_tiny_imagenet_val_is_labelled_by_its_annotations(tiny):
    found = load("tiny-imagenet:norm=unit", str(tiny))
    assert (found.classes, found.input_shape, len(found.train)) == (2, (3, 64, 64), 4)
    x, y = next(iter(found.test_loader()))
    assert y.tolist() == [1, 0, 1]
    assert [int(image.mean(dim=(1, 2)).argmax()) for image in x] == [2, 0, 2]  # blue, red, blue


def test_tiny_imagenet_errors(tiny):
    val = tiny / "tiny-imagenet-200" / "val"
    table = (val / "val_annotations.txt").read_text()
    for text, words in (
        (table.replace("n01", "n09"), "'n09' is not among the training classes"),
        (table.replace("val_1", "val_9"), "'val_9.JPEG', which is not in images/"),
        (table.splitlines()[0] + "\n", "class 'n01' has no images"),
    ):
        (val / "val_annotations.txt").write_text(text)
        with pytest.raises(UserError, match=words):
            load("tiny-imagenet", str(tiny))
    (val / "val_annotations.txt").unlink()
    with pytest.raises(UserError, match="has 1 class folders"):  # never one class called "images"
        load("tiny-imagenet", str(tiny))


@pytest.fixture
def jpegs(colours):
    target = colours / "cifar10-jpeg"
    target.mkdir()
    (colours / "train").rename(target / "train")
    (colours / "test").rename(target / "test")
    folders.decoded.cache_clear()
    return colours


def test_folders_are_decoded_once_and_kept_on_disk(jpegs, monkeypatch):
    first = load("cifar10-jpeg", str(jpegs))
    monkeypatch.setattr(folders, "decode", lambda *_: pytest.fail("decoded again"))
    assert load("cifar10-jpeg:norm=imagenet", str(jpegs)).train.images is first.train.images
    folders.decoded.cache_clear()
    assert torch.equal(load("cifar10-jpeg", str(jpegs)).train.images, first.train.images)
    monkeypatch.undo()
    # the kept file no longer fits
    picture(jpegs / "cifar10-jpeg" / "train" / "red" / "9.png", BLUE)
    again = load("cifar10-jpeg", str(jpegs))
    assert len(again.train.images) == 9 and again.train.images[-1, :, 0, 0].tolist() == list(BLUE)


def test_a_damaged_or_unwritable_cache_is_done_without(jpegs, monkeypatch):
    first = load("cifar10-jpeg", str(jpegs))
    for kept in (jpegs / ".cache").iterdir():
        kept.write_bytes(kept.read_bytes()[:100])
    folders.decoded.cache_clear()
    assert torch.equal(load("cifar10-jpeg", str(jpegs)).train.images, first.train.images)
    folders.decoded.cache_clear()

    def full(*_, **__):
        raise OSError("no space")

    monkeypatch.setattr(np, "savez", full)
    for kept in (jpegs / ".cache").iterdir():
        kept.unlink()
    assert torch.equal(load("cifar10-jpeg", str(jpegs)).train.images, first.train.images)
    assert not list((jpegs / ".cache").iterdir())


# What goes wrong


def refusal(name: str, folder="") -> UserError:
    with pytest.raises(UserError) as caught:
        load(name, str(folder))
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar", "choose one of: digits"),
        ("digits:norm=unit", "options here: none"),
        ("mnist:norm=zca", "norm=unit, norm=standard"),
        ("mnist:norm", "cannot read 'norm'"),
        ("synthetic:classes=two", "give classes as int"),
        ("synthetic:classes=1", "at least 2"),
        ("synthetic:samples=5", "samples must be at least 16"),
        ("synthetic:noise=nan", "finite"),
        ("synthetic:size=0", "at least 1"),
    ],
)
def test_wrong_names_and_options(name, words):
    error = refusal(name)
    assert error.field == "dataset" and words in str(error)


def test_wrong_sizes_of_loaders():
    some = numbered(4)
    for call, field in (
        (lambda: some.calibration(5), "num_samples"),
        (lambda: some.calibration(0), "num_samples"),
        (lambda: some.train_loader(0), "batch_size"),
        (lambda: some.test_loader(-1), "batch_size"),
        (lambda: some.calibration(2, batch_size=0), "batch_size"),
        (lambda: rebatch([], 0), "batch_size"),
        (lambda: some.train_loader(1, rank=2, world=2), "rank"),
        (lambda: some.train_loader(1, rank=-1), "rank"),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert caught.value.field == field


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_missing_files_without_a_network_end_in_one_line(tmp_path, monkeypatch, name, capsys):
    timeouts = []

    def unreachable(*_, **__):
        timeouts.append(socket.getdefaulttimeout())
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    before = socket.getdefaulttimeout()
    error = refusal(name, tmp_path)
    assert (
        error.field == "data_dir"
        and "--dataset digits" in str(error)
        and str(tmp_path) in str(error)
    )
    assert (
        timeouts
        and set(timeouts) == {data.DOWNLOAD_TIMEOUT}
        and socket.getdefaulttimeout() == before
    )
    assert not capsys.readouterr().out


def test_folder_errors(colours, tmp_path_factory, monkeypatch):
    monkeypatch.delenv("DATA_DIR", raising=False)
    error = refusal("imagefolder")
    assert error.field == "data_dir" and "--data-dir" in str(error)
    assert "no such folder" in str(refusal("imagefolder", colours / "nowhere"))
    assert "size must be" in str(refusal("imagefolder:size=1", colours))
    assert "has 0 class folders" in str(refusal("imagefolder", tmp_path_factory.mktemp("empty")))
    assert "no cifar10-jpeg/train" in str(refusal("cifar10-jpeg", tmp_path_factory.mktemp("none")))
    assert "no imagenet/train" in str(refusal("imagenet", tmp_path_factory.mktemp("none")))
    (colours / "test" / "blue").mkdir()
    assert "class 'blue' has no images" in str(refusal("imagefolder", colours))
    picture(colours / "test" / "blue" / "1.png", BLUE)
    error = refusal("imagefolder", colours)
    assert "3 classes where" in str(error) and "'blue' is only in one" in str(error)
    lonely = tmp_path_factory.mktemp("lonely")
    picture(lonely / "a" / "1.png", RED)
    picture(lonely / "b" / "1.png", RED)
    assert "class 'a' has one image" in str(refusal("imagefolder", lonely))
    (lonely / "a").rename(lonely / "test")
    assert "has test but no train" in str(refusal("imagefolder", lonely))
    picture(lonely / "train" / "a" / "1.png", RED)
    picture(lonely / "train" / "b" / "1.png", RED)
    (lonely / "test" / "1.png").unlink()
    (lonely / "test").rmdir()
    assert "no test folder" in str(refusal("cifar10-jpeg", lonely))


def test_a_damaged_image_is_named(colours, monkeypatch):
    bad = colours / "train" / "red" / "2.png"
    bad.write_bytes(bad.read_bytes()[:40])
    assert refusal("imagefolder", colours).value == str(bad)
    monkeypatch.setattr(data, "IN_MEMORY_BYTES", 0)
    found = load("imagefolder", str(colours))
    with pytest.raises(UserError) as caught:  # out of a worker process
        list(found.train_loader(4))
    assert caught.value.value == str(bad) and "\n" not in str(caught.value)


def test_data_root_prefers_what_is_given(monkeypatch, tmp_path):
    monkeypatch.delenv("DATA_DIR", raising=False)
    monkeypatch.setattr(data, "REPOSITORY", tmp_path / "repository")
    assert data.data_root() == tmp_path / "repository" / "data"
    (tmp_path / "data").mkdir()
    assert data.data_root() == tmp_path / "data"
    (tmp_path / "repository" / "data").mkdir(parents=True)
    assert data.data_root() == tmp_path / "repository" / "data"
    monkeypatch.setenv("DATA_DIR", "/elsewhere")
    assert str(data.data_root()) == "/elsewhere"
    assert str(data.data_root("here")) == "here"


# Real data


def checkpoint(name: str) -> dict:
    from safetensors.torch import load_file

    path = data.data_root() / "checkpoints" / f"{name}.safetensors"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return load_file(path)


@torch.no_grad()
def accuracy(model, found) -> float:
    model.eval()
    return sum(int((model(x).argmax(1) == y).sum()) for x, y in found.test_loader()) / len(
        found.test
    )


@pytest.mark.data
def test_lenet300_checkpoint_on_mnist():
    tensors = checkpoint("lenet300_mnist")
    if not (data.data_root() / "MNIST" / "raw").is_dir():
        pytest.skip("MNIST is not there")
    found = load("mnist")
    model = build("lenet300", found.classes, found.input_shape)
    model.load_state_dict(tensors)
    assert 1 - accuracy(model, found) == pytest.approx(0.0161, abs=1e-4)


@pytest.mark.data
def test_resnet20_checkpoint_on_cifar10_jpeg():
    tensors = checkpoint("resnet20_cifar10")
    if not (data.data_root() / "cifar10-jpeg" / "test").is_dir():
        pytest.skip("cifar10-jpeg is not there")
    found = load("cifar10-jpeg:norm=imagenet")
    model = build("resnet20", found.classes, found.input_shape)
    model.load_state_dict(tensors)
    assert accuracy(model, found) == pytest.approx(0.8103, abs=1e-3)


@pytest.mark.data
@pytest.mark.parametrize("depth", [32, 56])
def test_the_other_checkpoints_fit_strictly(depth):
    build(f"resnet{depth}", 10, (3, 32, 32)).load_state_dict(checkpoint(f"resnet{depth}_cifar10"))


@pytest.mark.data
def test_the_imagenet_sample_loads():
    folder = data.data_root() / "imagenet-sample"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    found = load("imagenet", str(folder))
    assert (found.classes, len(found.train)) == (1000, 1000)
    x, y = next(iter(found.calibration(4)))
    assert torch.isfinite(x).all() and len(set(y.tolist())) == 4


# mean and standard deviation by channel, as the sets' users print them; typed here by themselves
CONSTANTS = {
    ("mnist", "standard"): ([0.1307], [0.3081]),
    ("cifar10", "standard"): ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
    ("cifar100", "standard"): ([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]),
    ("tiny-imagenet", "standard"): ([0.48025, 0.44807, 0.39755], [0.27699, 0.26906, 0.28208]),
    ("cifar10", "imagenet"): ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ("imagenet-sample", "imagenet"): ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ("imagenet-sample", "lite"): ([0.498] * 3, [0.502] * 3),
    ("imagenet-sample", "unit"): ([0.0], [1.0]),
    ("imagefolder", "imagenet"): ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    **{
        (name, "unit"): ([0.0], [1.0])
        for name in ("mnist", "cifar10", "cifar100", "tiny-imagenet", "imagefolder")
    },
}


def test_the_constants_of_every_data_set_are_the_published_ones():
    known = {(name, norm) for name, norms in data.NORMS.items() for norm in norms}
    assert known == CONSTANTS.keys()
    for (name, norm), (mean, std) in CONSTANTS.items():
        assert [list(part) for part in data.NORMS[name][norm]] == [mean, std], (name, norm)


def test_digits_are_scaled_by_their_sixteen_shades():
    images = load("digits").train.images
    assert float(images.min()) == 0 and float(images.max()) == 1
    assert torch.equal(images * 16, (images * 16).round())
