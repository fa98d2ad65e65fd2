"""Folders of images as people have them: what other programs leave in them, the names of their
parts, the kinds of files, and links. What is taken is exact, and what is left out is said.
"""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from common.cells.errors import UserError
from common.commands import compare
from common.data import folders, sources
from common.data.sources import load

RED, GREEN = (255, 0, 0), (0, 255, 0)
CLASSES = {"green": GREEN, "red": RED}


def picture(path, colour=RED):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path, "PNG")


@pytest.fixture
def root(tmp_path):
    """train and test, two classes each, of three and two images."""
    for part, count in (("train", 3), ("test", 2)):
        for name, colour in CLASSES.items():
            for i in range(count):
                picture(tmp_path / part / name / f"{i}.png", colour)
    return tmp_path


def loaded(root):
    found = load("imagefolder:size=8,norm=unit", str(root))
    return found, found.train.labels.bincount().tolist(), found.test.labels.bincount().tolist()


def refusal(root):
    with pytest.raises(UserError) as caught:
        load("imagefolder:size=8", str(root))
    assert caught.value.field == "data_dir" and str(caught.value).isprintable()
    return str(caught.value)


# what lies in train/red beside its images -> what the log calls it
BESIDE = {
    ".ipynb_checkpoints/0-checkpoint.png": "1 named .ipynb_checkpoints",
    "@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg": "1 named @eaDir",
    "__MACOSX/._0.png": "1 named __MACOSX",
    "deep/er/.thumbnails/0.png": "1 named .thumbnails",
    "._0.png": "1 named like a hidden file",
    ".DS_Store": "1 named like a hidden file",
    "notes.txt": r"1 named \*.txt",
    "0.heic": r"1 named \*.heic",
    "0": r"1 named \*",
}


@pytest.mark.parametrize("name", BESIDE)
def test_what_other_programs_leave_in_a_class_is_passed_over_and_counted(name, root, caplog):
    truth = loaded(root)[0].content
    path = root / "train" / "red" / name
    picture(path, GREEN)
    with caplog.at_level("INFO"):
        found, train, _ = loaded(root)
    assert found.content == truth and train == [3, 3]
    assert BESIDE[name].replace("\\", "") in caplog.text and str(root / "train") in caplog.text


@pytest.mark.parametrize("name", ["@eaDir", ".ipynb_checkpoints", "__MACOSX", "lost+found"])
def test_what_other_programs_leave_beside_the_classes_is_no_class(name, root):
    for part in ("train", "test"):
        picture(root / part / name / "0.png")
    assert loaded(root)[0].classes == 2


@pytest.mark.parametrize("suffix", [*folders.EXTENSIONS, ".JPG", ".Png"])
def test_every_suffix_of_an_image_counts(suffix, root):
    picture(root / "train" / "red" / f"more{suffix}")
    assert loaded(root)[1] == [3, 4]


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING", "training"])
@pytest.mark.parametrize("test", ["test", "Testing", "val", "Valid", "validation", "VALIDATION"])
def test_the_parts_of_a_set_go_by_any_of_their_usual_names(train, test, root):
    truth = loaded(root)[0].content
    (root / "train").rename(root / "one")
    (root / "test").rename(root / "two")
    (root / "one").rename(root / train)
    (root / "two").rename(root / test)
    assert loaded(root)[0].content == truth


def test_parts_that_are_not_used_or_not_clear_are_named(root, caplog):
    shutil.copytree(root / "test", root / "valid")
    shutil.copytree(root / "test", root / "unlabelled")
    with caplog.at_level("INFO"):
        assert loaded(root)[2] == [2, 2]
    assert "left out unlabelled, valid, beside train/test" in caplog.text
    shutil.copytree(root / "train", root / "Training")
    assert "has both Training and train; keep one" in refusal(root)
    shutil.rmtree(root / "Training")
    shutil.copytree(root / "test", root / "TEST")
    assert "has both TEST and test; keep one" in refusal(root)
    for name in ("train", "unlabelled", "TEST", "valid"):
        shutil.rmtree(root / name)
    assert "has test but no train" in refusal(root)


def test_a_class_may_be_called_valid(root):
    for name, colour in (("valid", GREEN), ("void", RED)):
        for i in range(5):
            picture(root / "inspection" / name / f"{i}.png", colour)
    assert loaded(root / "inspection")[1:] == ([4, 4], [1, 1])


def test_links_that_lead_back_are_followed_no_further(root, caplog):
    """Three loops: to the class, to the whole set, to the folder itself."""
    truth = loaded(root)[0].content
    (root / "train" / "red" / "again").symlink_to(root / "train" / "red")
    (root / "train" / "red" / "deep").mkdir()
    (root / "train" / "red" / "deep" / "up").symlink_to("..")
    (root / "train" / "red" / "deep" / "self").symlink_to(".")
    with caplog.at_level("INFO"):
        found, train, _ = loaded(root)
    assert found.content == truth and train == [3, 3]
    assert "3 link to a folder above it" in caplog.text


def test_links_to_images_elsewhere_are_followed(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    picture(elsewhere / "more" / "9.png")
    (root / "train" / "red" / "more").symlink_to(elsewhere / "more")
    (root / "train" / "red" / "8.png").symlink_to(elsewhere / "more" / "9.png")
    (root / "train" / "red" / "7.png").symlink_to(elsewhere / "nothing.png")
    assert loaded(root)[1] == [3, 5]


def test_a_pipe_is_not_waited_for(root, caplog):
    os.mkfifo(root / "train" / "red" / "pipe.png")
    with caplog.at_level("INFO"):
        assert loaded(root)[1] == [3, 3]
    assert "1 neither file nor folder" in caplog.text


def test_names_that_are_not_text_are_names(root):
    for part in ("train", "test"):
        os.rename(root / part / "red", os.fsencode(root / part) + b"/r\xe9d")
    picture(root / "train" / "green" / os.fsdecode(b"\xff\xfe.png"), GREEN)
    assert loaded(root)[1:] == ([4, 3], [2, 2])
    shutil.rmtree(root / "test")
    assert sum(loaded(root / "train")[1]) == 5
    bad = root / "train" / "green" / os.fsdecode(b"\xff.png")
    bad.write_bytes(b"no image")
    assert "damaged image" in refusal(root)


# -- pixels ----------------------------------------------------------------------------------------


def one_image(root, image, name="0.png", **options):
    """The pixels of an image as the data set has them, first channel, first row."""
    path = root / "train" / "green" / name
    (root / "train" / "green" / "0.png").unlink(missing_ok=True)
    image.save(path, **options)
    x = loaded(root)[0].train[0][0]
    assert torch.equal(x[0], x[1]) and torch.equal(x[0], x[2])
    return (x[0, 0] * 255).round().to(torch.int64).tolist()


GREY = np.tile(np.array([0, 1, 51, 100, 128, 200, 254, 255]), (8, 1))


SIXTEEN_BITS = ("0.png", "0.pgm", "0.tif")


@pytest.mark.parametrize("name", SIXTEEN_BITS)
def test_sixteen_bits_are_rescaled(name, root):
    image = Image.fromarray((GREY * 257).astype(np.uint16))
    assert one_image(root, image, name) == GREY[0].tolist()
    if name == "0.tif":
        image = Image.fromarray((GREY * 257).astype(">u2"))
        assert image.mode == "I;16B" and one_image(root, image, name) == GREY[0].tolist()


MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")


@pytest.mark.parametrize("mode", MODES)
def test_eight_bits_of_every_mode_are_what_they_are(mode, root):
    grey = np.where(GREY > 127, 255, 0) if mode == "1" else GREY
    image = Image.fromarray(grey.astype(np.uint8)).convert(mode)
    name = "0.tif" if mode in ("CMYK", "YCbCr") else "0.png"
    assert np.abs(np.array(one_image(root, image, name)) - grey[0]).max() <= (mode == "YCbCr")


WITHOUT_RANGE = (np.int32, np.float32)


@pytest.mark.parametrize("kind", WITHOUT_RANGE)
def test_pixels_without_a_known_range_are_refused(kind, root):
    path = root / "train" / "red" / "1.tif"
    Image.fromarray(GREY.astype(kind)).save(path)
    told = refusal(root)
    assert str(path) in told and "32 bits" in told and "save it with 8 or 16 bits" in told


def test_the_first_picture_of_an_animation_is_taken(root):
    frames = [Image.fromarray((GREY * share).astype(np.uint8)) for share in (1, 0)]
    told = one_image(root, frames[0], "0.gif", save_all=True, append_images=frames[1:])
    assert told == GREY[0].tolist()


NO_IMAGES = {
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) run\n",
    "FITS": b"SIMPLE  =                    T" + b" " * 2_850,
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", NO_IMAGES)
def test_formats_whose_readers_start_programs_are_not_tried(kind, root, monkeypatch):
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program ran"))
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program ran"))
    (root / "train" / "red" / "1.jpg").write_bytes(NO_IMAGES[kind])
    assert "damaged image" in refusal(root)


# -- compare ---------------------------------------------------------------------------------------


def test_compare_takes_what_there_is_of_a_small_folder(root, tmp_path, capsys, monkeypatch):
    """Six images, where the job would calibrate on a thousand; a number that is asked for is not
    made smaller."""
    words = ["--dataset", "imagefolder:size=8,norm=unit", "--data-dir", str(root), "--seeds", "1"]
    words += ["--model", "resnet20:width=0.25", "--methods", "obd-global,woodfisher"]
    words += ["--sparsities", "0.5", "--epochs", "1", "--train-epochs", "1"]
    words += ["--output-dir", str(tmp_path / "runs"), "--device", "cpu"]
    assert compare.main(words) == 0
    assert "2 cells in" in capsys.readouterr().out
    for path in (tmp_path / "runs").rglob("prune.json"):
        assert json.loads(path.read_text())["spec"]["num_samples"] == 6
    assert compare.main([*words, "--dry-run"]) == 0
    told = capsys.readouterr().out.split()
    assert sorted(told) == sorted(str(p.parent) for p in (tmp_path / "runs").rglob("prune.json"))
    assert compare.main([*words, "--num-samples", "7"]) == 2
    assert "num_samples=7: outside 1..6" in capsys.readouterr().err


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """An ImageNet of six classes and a sample with one image of each, in shades of grey."""
    monkeypatch.setattr(sources, "IMAGENET_CLASSES", 6)
    for label in range(6):
        picture(tmp_path / "imagenet-sample" / "train" / f"n{label}" / "0.png", (40 * label,) * 3)
    return tmp_path


def test_a_sample_is_halved_by_its_files_names_and_keeps_all_classes(sample):
    """Which file falls into which half is known from the hashes of the names alone."""
    names = [f"n{label}/0.png" for label in range(6)]
    by_hash = sorted(range(6), key=lambda i: hashlib.sha256(names[i].encode()).hexdigest())
    data = load("imagenet-sample:norm=unit", str(sample))
    assert data.classes == 6 and data.input_shape == (3, 224, 224)
    assert data.test.labels.tolist() == sorted(by_hash[:3])
    assert data.train.labels.tolist() == sorted(by_hash[3:])
    for part in (data.train, data.test):  # each image is its label's grey, so still beside it
        assert [int(image[0, 112, 112]) for image in part.images] == (40 * part.labels).tolist()


def test_a_sample_is_read_as_its_network_was_trained(sample):
    """EfficientNet-Lite: (x - 0.498) / 0.502."""
    data = load("imagenet-sample", str(sample))
    x, y = data.test[0]
    grey = 40 * y / 255
    torch.testing.assert_close(x, torch.full_like(x, (grey - 0.498) / 0.502))


def test_a_sample_without_some_classes_is_refused(sample):
    shutil.rmtree(sample / "imagenet-sample" / "train" / "n3")
    with pytest.raises(UserError, match="has 5 class folders, ImageNet has 6"):
        load("imagenet-sample", str(sample))
    (sample / "imagenet-sample" / "train" / "n3").mkdir()
    with pytest.raises(UserError, match="'n3' has no images"):
        load("imagenet-sample", str(sample))
