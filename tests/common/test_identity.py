"""A finished stage is used again for what it was made of, not for what its files are called."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from common.cells import registry
from common.cells.errors import UserError
from common.cells.library import read_all
from common.cells.record import Record
from common.cells.spec import Recipe, Spec
from common.commands.publish import publish
from common.data import folders
from common.data import sources as D
from common.nets import checkpoint, models
from common.running import pipeline, reuse, stages
from common.running import train as T
from common.running.cli import run
from common.running.options import method_of
from common.system import machine
from figures.records import check_comparable

DIGITS = {
    "model": "digits_cnn:width=0.25",
    "dataset": "digits",
    "num_samples": 64,
    "method": "obd-global",
    "sparsity": 0.5,
    "train": Recipe(epochs=1, lr=0.05, batch_size=64),
    "finetune": Recipe(epochs=0.2, lr=0.01, batch_size=64),
}


def network(path, seed):
    """A dense network in a file of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    model = models.build("digits_cnn:width=0.25", 10, (1, 8, 8), seed)
    checkpoint.save(
        path, model, {"model": "digits_cnn:width=0.25", "classes": 10, "input_shape": [1, 8, 8]}
    )
    return str(path)


def pictures(root, bright, split=("train", "test")):
    """A folder of two classes; `bright` is the class of the light images."""
    rng = np.random.default_rng(0)
    for part in split:
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(12):
                pixels = rng.integers(0, 60, (8, 8, 3)) + (180 if name == bright else 0)
                Image.fromarray(pixels.astype(np.uint8)).save(root / part / name / f"{i}.bmp")
    return str(root)


def files(folder):
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@contextlib.contextmanager
def killed_at(monkeypatch, count):
    """What runs inside is interrupted as it begins its optimiser step number `count`, and must
    be.
    """
    real, steps = T._step, []

    def dies(*arguments):
        steps.append(1)
        if len(steps) == count:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(T, "_step", dies)
        yield


def refused(capsys, verb, argv):
    """The one line that the command line says, with status 2."""
    capsys.readouterr()
    assert run("common", verb, argv=argv) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1
    return lines[0]


def test_two_checkpoints_of_one_name_are_two_networks(tmp_path):
    spec = Spec(output_dir=str(tmp_path / "runs"), **DIGITS | {"train": Recipe()})
    one, other = (
        pipeline.finetune(spec.but(checkpoint=network(tmp_path / place / "net.safetensors", seed)))
        for place, seed in (("a", 1), ("b", 2))
    )
    assert (
        one.dense_hash != other.dense_hash and one.accuracy != other.accuracy and one.id != other.id
    )
    again = pipeline.finetune(spec.but(checkpoint=str(tmp_path / "a" / "net.safetensors")))
    assert again == one
    assert str(tmp_path) not in json.dumps(dataclasses.asdict(one))


def test_a_checkpoint_that_changed_under_its_name_is_refused(tmp_path, capsys, monkeypatch):
    """Named in the data root's folder: the cell keeps its name, so the digest is compared."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    network(tmp_path / "data" / "checkpoints" / "net.safetensors", 1)
    argv = [
        "--model",
        DIGITS["model"],
        "--checkpoint",
        "net",
        "--sparsity",
        "0.5",
        "--output-dir",
        str(tmp_path / "runs"),
    ]
    for verb in ("train", "prune", "finetune"):
        flags = [word for word in argv if verb != "train" or word not in ("--sparsity", "0.5")]
        assert run("common", verb, argv=flags) == 0
    before = files(tmp_path / "runs")
    network(tmp_path / "data" / "checkpoints" / "net.safetensors", 2)
    for verb in ("train", "prune", "finetune"):
        flags = [word for word in argv if verb != "train" or word not in ("--sparsity", "0.5")]
        line = refused(capsys, verb, flags)
        assert "the checkpoint" in line and "--output-dir" in line and "asked for is" in line
    assert files(tmp_path / "runs") == before


@pytest.mark.parametrize(
    "change", ["classes swapped", "other pixels", "another folder", "fewer images"]
)
def test_other_data_are_refused_and_nothing_is_touched(change, tmp_path, capsys):
    root = pictures(tmp_path / "images", "cat")
    argv = [
        "--model",
        "resnet20:width=0.25",
        "--dataset",
        "imagefolder:size=8",
        "--allow-untrained",
        "--sparsity",
        "0.5",
        "--num-samples",
        "8",
        "--epochs",
        "0",
        "--output-dir",
        str(tmp_path / "runs"),
    ]
    assert run("common", "finetune", argv=[*argv, "--data-dir", root]) == 0
    before = files(tmp_path / "runs")
    if change == "another folder":
        root = pictures(tmp_path / "others", "dog")
    elif change == "other pixels":  # the same names and sizes
        pictures(tmp_path / "images", "dog")
    elif change == "fewer images":
        (tmp_path / "images" / "train" / "cat" / "0.bmp").unlink()
    else:
        for part in ("train", "test"):
            place = tmp_path / "images" / part
            (place / "cat").rename(place / "x")
            (place / "dog").rename(place / "cat")
            (place / "x").rename(place / "dog")
    stages._load.cache_clear()  # as another process would begin
    for verb, flags in (("finetune", []), ("prune", []), ("prune", ["--sparsity", "0.7"])):
        line = refused(capsys, verb, [*argv, *flags, "--data-dir", root])
        assert "another value of the data" in line and "--output-dir" in line
    assert files(tmp_path / "runs") == before


def test_a_default_that_changed_is_not_the_old_cell(tmp_path, monkeypatch):
    spec = Spec(output_dir=str(tmp_path), **DIGITS)
    pipeline.finetune(spec)
    real = pipeline.method_of

    def changed(spec):
        function, options = real(spec)
        return function, dataclasses.replace(options, damping=0.125)

    spec = spec.but(method="kron-obs", sparsity=None, unit_ratio=0.5)
    pipeline.finetune(spec)
    for module in (pipeline, stages):
        monkeypatch.setattr(module, "method_of", changed)
    for verb in (pipeline.prune, pipeline.finetune):
        with pytest.raises(
            UserError, match=r"the method's options: damping=.*asked for is damping=0.125"
        ):
            verb(spec)


@pytest.mark.parametrize("stage", ["train", "prune", "finetune"])
def test_a_network_file_that_was_exchanged_is_noticed(stage, tmp_path):
    spec = Spec(output_dir=str(tmp_path), **DIGITS)
    pipeline.finetune(spec)
    folder = pipeline.dense_folder(spec) if stage == "train" else pipeline.cell_folder(spec)
    file = folder / stages.FILES[stage]
    other = Spec(output_dir=str(tmp_path), **DIGITS | {"dense_seed": 1})
    pipeline.finetune(other)
    shutil.copy(
        (pipeline.dense_folder(other) if stage == "train" else pipeline.cell_folder(other))
        / file.name,
        file,
    )
    with pytest.raises(
        UserError, match=f"checkpoint=.*{file.name}.*is not the file that {stage}.json speaks of"
    ):
        pipeline.VERBS[stage](spec)


def test_a_dense_network_that_was_trained_again_does_not_keep_old_prunings(tmp_path):
    spec = Spec(output_dir=str(tmp_path), **DIGITS)
    pipeline.finetune(spec)
    other = spec.but(dense_seed=1)
    pipeline.train(other)
    for name in ("train.json", "model.safetensors"):
        shutil.copy(pipeline.dense_folder(other) / name, pipeline.dense_folder(spec) / name)
    record = json.loads((pipeline.dense_folder(spec) / "train.json").read_text())
    record["spec"]["dense_seed"] = 0
    (pipeline.dense_folder(spec) / "train.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="another value of the dense network"):
        pipeline.prune(spec)


def test_half_done_work_on_another_dense_network_is_not_taken_up(tmp_path, monkeypatch):
    """Killed in its second step; the dense network under it is exchanged, and the run begins anew:
    it ends as one on that network does."""
    spec = Spec(
        **DIGITS
        | {"method": "magnitude-global", "num_samples": None, "steps": 3, "step_epochs": 0.25}
    )

    def exchanged(folder):
        here, other = (
            spec.but(output_dir=str(tmp_path / folder), dense_seed=seed) for seed in (0, 1)
        )
        pipeline.train(here)
        pipeline.train(other)

        def exchange():
            for name in ("train.json", "model.safetensors"):
                shutil.copy(pipeline.dense_folder(other) / name, pipeline.dense_folder(here) / name)
            record = json.loads((pipeline.dense_folder(here) / "train.json").read_text())
            record["spec"]["dense_seed"] = 0
            (pipeline.dense_folder(here) / "train.json").write_text(json.dumps(record))

        return here, exchange

    killed, exchange = exchanged("killed")
    with killed_at(monkeypatch, 8):  # six steps are a quarter of an epoch
        pipeline.prune(killed)
    assert list(pipeline.cell_folder(killed).glob("prune-snapshot*"))
    exchange()
    found = pipeline.prune(killed)
    straight, exchange = exchanged("straight")
    exchange()
    wanted = pipeline.prune(straight)
    assert found.trajectory == wanted.trajectory and found.accuracy == wanted.accuracy
    assert found.identity["file_sha256"] == wanted.identity["file_sha256"]


def test_two_specs_that_share_a_short_name_do_not_share_a_folder(tmp_path):
    """Learning rates whose six digits are the same: a run of the first, under its old name, is not
    the second's.
    """
    one, other = (
        Spec(
            output_dir=str(tmp_path),
            **DIGITS
            | {
                "method": "magnitude-global",
                "num_samples": None,
                "finetune": Recipe(epochs=0.2, lr=lr, batch_size=64),
            },
        )
        for lr in collision()
    )
    assert one.slug(naming=1) == other.slug(naming=1)
    pipeline.finetune(one)
    new = pipeline.cell_folder(one)
    old = new.parent.with_name(one.slug(naming=1))
    new.parent.rename(old)
    assert (
        pipeline.cell_folder(one) == old / "seed0" and pipeline.cell_folder(other) != old / "seed0"
    )
    times = {path: path.stat().st_mtime_ns for path in old.rglob("*")}
    pipeline.finetune(one)  # an old name is still read
    assert {path: path.stat().st_mtime_ns for path in old.rglob("*")} == times
    assert pipeline.finetune(other).spec["finetune"]["lr"] == other.finetune.lr


def collision():
    seen = {}
    for step in range(1, 200_000):
        lr = step / 1_000_000
        spec = Spec(
            **DIGITS
            | {
                "method": "magnitude-global",
                "num_samples": None,
                "finetune": Recipe(epochs=0.2, lr=lr, batch_size=64),
            }
        )
        if (short := spec.digest(naming=1)) in seen:
            return seen[short], lr
        seen[short] = lr
    raise AssertionError("no two of 200,000 share six digits")


@pytest.mark.parametrize("verb", ["train", "prune", "finetune"])
def test_half_done_work_under_other_data_is_not_taken_up(verb, tmp_path, monkeypatch):
    """Killed under one data set, run again under another of the same name: the result is that of a
    run that was never killed.
    """
    spec = Spec(
        output_dir=str(tmp_path / "killed"),
        **DIGITS
        | {
            "model": "resnet20:width=0.25",
            "dataset": "imagefolder:size=8",
            "num_samples": 8,
            "method": "magnitude-global",
            "train": Recipe(epochs=2, batch_size=8),
            "steps": 2,
            "step_epochs": 1.0,
            "finetune": Recipe(epochs=2, batch_size=8),
        },
    )
    first, second = pictures(tmp_path / "a", "cat"), pictures(tmp_path / "b", "dog")
    monkeypatch.setattr(T, "SNAPSHOT_SECONDS", 0.0)
    before = {"train": None, "prune": "train", "finetune": "prune"}[verb]
    if before:
        pipeline.VERBS[before](spec.but(data_dir=first))
    with killed_at(monkeypatch, 3):
        pipeline.VERBS[verb](spec.but(data_dir=first))
    if before:
        with pytest.raises(UserError, match="another value of the data"):
            pipeline.VERBS[verb](spec.but(data_dir=second))
        return
    assert list(pipeline.dense_folder(spec).glob("train-snapshot*"))
    found = pipeline.VERBS[verb](spec.but(data_dir=second))
    straight = pipeline.VERBS[verb](
        spec.but(data_dir=second, output_dir=str(tmp_path / "straight"))
    )
    assert found.dense_hash == straight.dense_hash and found.accuracy == straight.accuracy


def test_a_record_from_before_identities_is_compared_in_what_it_has(tmp_path, caplog):
    spec = Spec(output_dir=str(tmp_path), **DIGITS)
    pipeline.finetune(spec)
    for path in tmp_path.rglob("*.json"):
        record = json.loads(path.read_text())
        record.pop("identity")
        path.write_text(json.dumps(record))
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    caplog.set_level("INFO")
    pipeline.finetune(spec)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")} == times
    assert "before records held an identity" in caplog.text
    path = pipeline.cell_folder(spec) / "finetune.json"
    record = json.loads(path.read_text())
    record["provenance"]["data_sha256"] = "0" * 64
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="another value of the data: 000000000000"):
        pipeline.finetune(spec)


def test_a_record_says_what_it_was_made_of_and_where(tmp_path):
    spec = Spec(output_dir=str(tmp_path), **DIGITS)
    pipeline.finetune(spec)
    records = {
        stage: Record.read(
            (pipeline.dense_folder(spec) if stage == "train" else pipeline.cell_folder(spec))
            / f"{stage}.json"
        )
        for stage in pipeline.VERBS
    }
    for stage, record in records.items():
        assert record.identity["data_sha256"] == record.provenance["data_sha256"] != ""
        assert (
            len(record.identity["file_sha256"]) == 64
            and record.provenance["machine"] == machine.fingerprint()
        )
        assert {"mean", "max", "contended"} == record.provenance["load"].keys() and record.timing[
            "core_s"
        ] > 0
        assert (record.identity["mask_sha256"] != "") == (stage != "train")
    assert records["prune"].identity["mask_sha256"] == records["finetune"].identity["mask_sha256"]
    assert records["prune"].identity["options"]["fisher"] == method_of(spec)[1].fisher
    assert machine.platform.node() not in json.dumps(
        [dataclasses.asdict(r) for r in records.values()]
    )
    other = pipeline.prune(spec.but(method="magnitude-global", num_samples=None))
    assert other.identity["mask_sha256"] != records["prune"].identity["mask_sha256"]


def test_only_code_that_is_in_a_commit_is_published(tmp_path):
    spec = Spec(output_dir=str(tmp_path / "runs"), **DIGITS)
    pipeline.prune(spec)
    path = pipeline.cell_folder(spec) / "prune.json"
    record = Record.read(path)
    clean = dataclasses.replace(
        record, provenance=record.provenance | {"git": "0" * 40, "dirty": False}
    )
    for bad, word in (({"dirty": True}, "dirty"), ({"git": ""}, "dirty")):
        dataclasses.replace(clean, provenance=clean.provenance | bad).write(path)
        with pytest.raises(UserError, match=f"{word}=.*in no commit.*--dirty"):
            publish([path.parent], tmp_path / "results")
    assert publish([path.parent], tmp_path / "results", dirty=True) == 1
    for name in ("../../outside", "/tmp/outside", "a/b", "..", ""):
        dataclasses.replace(clean, id=name).write(path)
        with pytest.raises(UserError, match="id=.*no file's name"):
            publish([path.parent], tmp_path / "results")
    clean.write(path)
    assert publish([path.parent], tmp_path / "results") == 1
    assert [one.id for one in read_all(tmp_path / "results")] == [record.id]
    dataclasses.replace(clean, table="../outside").write(path)
    with pytest.raises(UserError, match="table=.*no file's name"):
        publish([path.parent], tmp_path / "results")
    assert not list(tmp_path.glob("outside*"))


def test_registered_methods_have_options_that_a_record_can_hold():
    for name, entry in registry.METHODS.items():
        amount = {"sparsity": 0.5} if entry.kind == "weights" else {"unit_ratio": 0.5}
        options = method_of(Spec(method=name, **amount))[1]
        json.dumps(dataclasses.asdict(options), allow_nan=False)


def test_replaced_images_are_read_again_and_not_served_from_the_cache(tmp_path):
    """cifar10-jpeg keeps decoded images beside the data: one that is replaced by another of the
    same name and size must be seen.
    """
    root = tmp_path / "cifar10-jpeg"
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for i in range(3):
                Image.fromarray(rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)).save(
                    root / part / name / f"{i}.bmp"
                )
    first = D.load("cifar10-jpeg", str(tmp_path))
    assert (tmp_path / ".cache" / "cifar10-jpeg-train-32.npz").exists()
    folders.decoded.cache_clear()  # as another process would begin
    assert D.load("cifar10-jpeg", str(tmp_path)).content == first.content
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(root / "train" / "cat" / "0.bmp")
    folders.decoded.cache_clear()
    second = D.load("cifar10-jpeg", str(tmp_path))
    # names and sizes are the same
    assert second.sha256 == first.sha256 and second.content != first.content
    assert int((second.train.images.flatten(1).sum(1) == 0).sum()) == 1

    file, state = root / "train" / "dog" / "1.bmp", (root / "train" / "dog" / "1.bmp").stat()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(file)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))  # as `cp -p` and `rsync -t` do
    folders.decoded.cache_clear()
    third = D.load("cifar10-jpeg", str(tmp_path))
    assert (
        int((third.train.images.flatten(1).sum(1) == 0).sum()) == 2
        and third.content != second.content
    )


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("name", ["imagenet", "imagefolder:size=8"])
def test_images_that_memory_does_not_hold_are_compared_by_their_files_bytes(
    name, large, tmp_path, monkeypatch
):
    monkeypatch.setattr(D, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(folders, "HASHED_BYTES", 0 if large else 1 << 30)
    root, read, real = tmp_path / "images", [], folders._file_digest
    pictures(root, "cat", ("train", "val"))
    monkeypatch.setattr(folders, "_file_digest", lambda path: read.append(path) or real(path))

    def found(folder=root):
        folders.contents.cache_clear()  # as another process would begin
        read.clear()
        return D.load(name, str(folder)).content

    first = found()
    assert len(read) == 48
    # the data root has a cache, one's own folder has none
    assert found() == first and len(read) == (0 if name == "imagenet" else 48)
    for cache in (root / ".cache").glob("*.json"):
        cache.write_text("{}")  # damaged: hashed again
    assert found() == first and len(read) == 48
    shutil.copytree(
        root,
        tmp_path / "copy",
        copy_function=shutil.copyfile,
        ignore=shutil.ignore_patterns(".cache"),
    )
    assert found(tmp_path / "copy") == first
    # of the same size
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(root / "val" / "dog" / "3.bmp")
    assert found() != first
    for part in ("train", "val"):
        (root / part / "cat").rename(root / part / "emu")
    assert found() not in (first, "")


@pytest.mark.parametrize("memory", [0, 1 << 30])
@pytest.mark.parametrize("large", [False, True])
def test_the_same_files_under_other_labels_are_other_data(memory, large, tmp_path, monkeypatch):
    """The last cat becomes the first dog: the same bytes in the same order."""
    monkeypatch.setattr(D, "IN_MEMORY_BYTES", memory)
    monkeypatch.setattr(folders, "HASHED_BYTES", 0 if large else 1 << 30)
    root = tmp_path / "images"
    pictures(root, "cat")

    def found():
        folders.contents.cache_clear()
        folders.decoded.cache_clear()
        data = D.load("imagefolder:size=8", str(root))
        return data.content, data.sha256

    first = found()
    (root / "train" / "cat" / "9.bmp").rename(root / "train" / "dog" / "!.bmp")
    assert found()[0] != first[0] and found()[1] != first[1]
    (root / "train" / "dog" / "!.bmp").rename(root / "train" / "cat" / "9.bmp")
    assert found() == first


def test_a_large_folder_is_hashed_in_part_and_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(folders, "HASHED_BYTES", 0)
    monkeypatch.setattr(folders, "HASHED_FILES", 5)
    read = []
    real = folders._file_digest
    monkeypatch.setattr(folders, "_file_digest", lambda path: read.append(path) or real(path))
    caplog.set_level("INFO")
    folder = folders.scan(pathlib.Path(pictures(tmp_path, "cat")) / "train")
    folders.contents(folder, None)
    assert len(set(read)) == 5 and "5 of its 24 files are compared by content" in caplog.text


def test_tables_do_not_join_records_of_other_pixels():
    made = {
        "provenance": {"data_sha256": "a"},
        "spec": Spec(sparsity=0.5).to_dict(),
        "requested": {"sparsity": 0.5},
    }
    one, other, old = (
        Record(name, "p", "", "", "magnitude-global", "prune", "quick", identity=identity, **made)
        for name, identity in (
            ("x", {"data_content_sha256": "1"}),
            ("y", {"data_content_sha256": "2"}),
            ("z", {}),
        )
    )
    check_comparable([one, old])
    with pytest.raises(UserError, match="identity.data_content_sha256"):
        check_comparable([one, old, other])


def test_a_cell_whose_old_record_cannot_say_which_checkpoint_is_computed_anew(tmp_path):
    spec = Spec(
        output_dir=str(tmp_path / "runs"),
        **DIGITS | {"train": Recipe(), "checkpoint": network(tmp_path / "net.safetensors", 1)},
    )
    pipeline.train(spec)
    folder = pipeline.dense_folder(spec)
    old = folder.parent.with_name(spec.dense().slug(naming=1))
    folder.parent.rename(old)
    record = json.loads((old / "seed0" / "train.json").read_text())
    record["spec"].pop("checkpoint_sha256")
    record.pop("identity")
    (old / "seed0" / "train.json").write_text(json.dumps(record))
    before = files(old)
    assert (
        pipeline.train(spec).identity["checkpoint_sha256"] and pipeline.dense_folder(spec) == folder
    )
    assert files(old) == before


def test_a_spec_that_names_a_checkpoints_digest_takes_no_other_file(tmp_path, monkeypatch):
    """As `make verify` runs a record's Spec again where another file lies under the name."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    network(tmp_path / "data" / "checkpoints" / "net.safetensors", 1)
    spec = Spec(
        output_dir=str(tmp_path / "runs"), **DIGITS | {"train": Recipe(), "checkpoint": "net"}
    )
    with pytest.raises(
        UserError, match="checkpoint=.*another file than the cell's.*asked for is 000000000000"
    ):
        pipeline.train(spec.but(checkpoint_sha256="0" * 16))
    assert not (tmp_path / "runs").exists()


def test_equal_contents_are_equal_bytes(tmp_path):
    """The library orders a header's metadata at random, in every file anew."""
    texts = []
    for i in range(12):
        network(tmp_path / f"{i}.safetensors", 1)
        texts.append((tmp_path / f"{i}.safetensors").read_bytes())
    assert len(set(texts)) == 1
    header = json.loads(texts[0][8 : 8 + int.from_bytes(texts[0][:8], "little")])
    assert list(header) == sorted(header) and list(header["__metadata__"]) == [
        "checkpoint",
        "sha256",
    ]
    assert checkpoint.state_hash(
        checkpoint.load(tmp_path / "0.safetensors").model
    ) == checkpoint.state_hash(models.build("digits_cnn:width=0.25", 10, (1, 8, 8), 1))


def test_other_threads_use_a_stage_again_and_say_so(tmp_path, caplog):
    spec = Spec(output_dir=str(tmp_path), **DIGITS)
    made = pipeline.train(spec)
    path = pipeline.dense_folder(spec) / "train.json"
    record = json.loads(path.read_text())
    record["provenance"]["threads"] = torch.get_num_threads() + 1
    path.write_text(json.dumps(record))
    caplog.set_level("INFO")
    assert pipeline.train(spec).accuracy == pipeline.train(spec).accuracy == made.accuracy
    assert caplog.text.count(f"has records of {torch.get_num_threads() + 1} threads") == 1


def test_a_training_that_goes_on_under_other_threads_says_so(tmp_path, monkeypatch, caplog):
    spec = Spec(output_dir=str(tmp_path), **DIGITS)
    monkeypatch.setattr(T, "SNAPSHOT_SECONDS", 0.0)
    with killed_at(monkeypatch, 5):
        pipeline.train(spec)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        pipeline.train(spec)
    finally:
        torch.set_num_threads(threads)
    assert (
        f"the first steps were taken with {threads} threads, the rest are with {threads + 1}"
        in caplog.text
    )


def test_the_same_pixels_under_other_names_are_the_same_data(tmp_path):
    """Where both sides know the pixels they decide; names and sizes decide where one side is from
    before that.
    """
    spec = Spec(**DIGITS)
    made = reuse.identity(spec, {}, "names", "pixels", None)
    record = Record("x", "p", "", "", "dense", "train", "quick", spec.to_dict(), identity=made)
    path = tmp_path / "group" / "slug" / "seed0" / "train.json"
    reuse.require_same(record, path, made | {"data_sha256": "other names"})
    for wanted in (
        made | {"data_content_sha256": "other pixels"},
        made | {"data_sha256": "other names", "data_content_sha256": ""},
    ):
        with pytest.raises(
            UserError,
            match="the data: (names, asked for is other names|pixels, asked for is other pixel)",
        ):
            reuse.require_same(record, path, wanted)
