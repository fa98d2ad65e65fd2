"""Files from strangers: hundreds of damaged or hostile ones, each refused in one line or read as
what was written.
"""

import functools
import io
import json
import random
import resource
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from common.cells.errors import UserError
from common.cells.library import read_all
from common.cells.record import Record
from common.cells.spec import Recipe, Spec
from common.data import sources as data
from common.nets import checkpoint, models, tensorfile
from common.running import pipeline, reuse, stages
from common.running.cli import run
from tests import toy

DIGITS = {"model": "digits_cnn:width=0.125", "classes": 10, "input_shape": [1, 8, 8]}
pytestmark = pytest.mark.usefixtures("one_thread")


def build(seed=0):
    return models.build(DIGITS["model"], 10, (1, 8, 8), seed)


def refused_or(read, same):
    """ "refused" for a UserError of one line, "read" where what came out is what was written;
    anything else is a failure.
    """
    try:
        found = read()
    except UserError as error:
        assert "\n" not in str(error) and error.field and len(str(error)) < 2_000
        return "refused"
    assert same(found)
    return "read"


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """One to three things wrong with a file; headers and places far in are hit alike."""
    for _ in range(rng.randint(1, 3)):
        at = (
            rng.randrange(len(whole)) if rng.random() < 0.5 else rng.randrange(min(len(whole), 256))
        )
        kind = rng.choice(
            ("cut", "flip", "byte", "insert", "remove", "repeat", "zeros", "number", "swap")
        )
        if kind == "cut":
            whole = whole[:at]
        elif kind == "flip":
            whole = whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :]
        elif kind == "byte":
            whole = whole[:at] + bytes([rng.randrange(256)]) + whole[at + 1 :]
        elif kind == "insert":
            whole = whole[:at] + rng.randbytes(rng.randint(1, 40)) + whole[at:]
        elif kind == "remove":
            whole = whole[:at] + whole[at + rng.randint(1, 40) :]
        elif kind == "repeat":
            whole = whole[:at] + whole[max(0, at - 50) :]
        elif kind == "zeros":
            whole = whole[:at] + bytes(min(64, len(whole) - at)) + whole[at + 64 :]
        elif kind == "number":  # a length or an offset that is off, by digits
            digits = [i for i, byte in enumerate(whole[:4096]) if 48 <= byte <= 57]
            if digits:
                i = rng.choice(digits)
                whole = (
                    whole[:i]
                    + rng.choice((b"9", b"99999999999", b"-1", b"1e9", b""))
                    + whole[i + 1 :]
                )
        else:
            whole = whole[at:] + whole[:at]
        if not whole:
            break
    return whole


def test_three_hundred_damaged_checkpoints(tmp_path):
    model, path, rng = build(), tmp_path / "a.safetensors", random.Random(0)
    checkpoint.save(
        path, model, DIGITS, masks={"fc1.weight": model.fc1.weight > 0}, extra={"epoch": 3}
    )
    whole, truth = path.read_bytes(), checkpoint.state_hash(model)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen = []
    for _ in range(300):
        path.write_bytes(damaged(whole, rng))
        seen.append(
            refused_or(
                lambda: checkpoint.load(path),
                lambda found: checkpoint.state_hash(found.model) == truth,
            )
        )
    assert seen.count("refused") > 280
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200 * 1024  # kilobytes


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".old.pth"])
def test_eighty_damaged_files_of_other_programs(tmp_path, suffix):
    """Without a digest a changed number cannot be seen: it loads, finite, or is refused; the
    network is whole either way.
    """
    path, rng, model = tmp_path / f"a{suffix}", random.Random(1), build(1)
    state = build().state_dict()
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=suffix == ".pth")
    whole, before = path.read_bytes(), checkpoint.state_hash(model)
    for _ in range(80):
        path.write_bytes(damaged(whole, rng))
        outcome = refused_or(lambda: checkpoint.load_weights(path, model), lambda _: True)
        if outcome == "refused":
            assert checkpoint.state_hash(model) == before
        else:
            assert all(torch.isfinite(v).all() for v in model.state_dict().values())
            before = checkpoint.state_hash(model)


HOSTILE_NAMES = (
    "../../../etc/passwd",
    "/etc/passwd",
    "model.../../x",
    "model.",
    "",
    ".",
    "..",
    "model.conv1.weight\0",
    "mask.../x",
    "optimizer...",
    "extra./../../x",
    "a" * 5_000,
    "model.conv1.weight ",
    "model.__class__",
    "mask.conv1.__class__",
)


def test_names_that_would_escape_or_break_out(tmp_path):
    path, model = tmp_path / "sub" / "a.safetensors", build()
    truth = checkpoint.state_hash(model)
    for name in HOSTILE_NAMES:
        checkpoint.save(path, model, DIGITS)
        tensors, text = tensorfile.read(path)
        tensorfile.write(path, tensors | {name: torch.ones(2)}, text)
        outcome = refused_or(
            lambda: checkpoint.load(path), lambda found: checkpoint.state_hash(found.model) == truth
        )
        # those two are read by their names alone
        assert outcome == "refused" or name.startswith(("extra.", "optimizer.")), name
        assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path], name


def test_a_header_that_names_more_than_there_is(tmp_path):
    """Offsets, shapes and lengths that lie: refused before any memory is taken."""
    path = tmp_path / "a.safetensors"
    for shape, offsets in (
        ([1 << 40], [0, 4]),
        ([1], [0, 1 << 50]),
        ([-1], [0, 4]),
        ([1 << 62, 1 << 62], [0, 4]),
        ([1], [4, 0]),
        ([1], [2, 6]),
    ):
        header = json.dumps(
            {
                "__metadata__": {"checkpoint": "{}", "sha256": ""},
                "x": {"dtype": "F32", "shape": shape, "data_offsets": offsets},
            }
        )
        path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(4))
        assert refused_or(lambda: checkpoint.load(path), lambda _: False) == "refused"
        assert (
            refused_or(lambda: checkpoint.load_weights(path, build()), lambda _: False) == "refused"
        )


FOREIGN = {
    "parallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "state_dict": lambda s: {"state_dict": s, "optimizer": {"lr": 0.1}, "epoch": 3},
    "model": lambda s: {"model": {f"module.{k}": v for k, v in s.items()}, "args": {"a": 1}},
    "torch.nn.utils.prune": lambda s: (
        {(f"{k}_orig" if k == "fc1.weight" else k): v for k, v in s.items()}
        | {"fc1.weight_mask": torch.ones_like(s["fc1.weight"])}
    ),
    "all of it": lambda s: {
        "state_dict": {
            f"module.{k}_orig" if k == "fc1.weight" else f"module.{k}": v for k, v in s.items()
        }
        | {"module.fc1.weight_mask": torch.ones_like(s["fc1.weight"])}
    },
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_checkpoints_of_other_programs_load(kind, tmp_path):
    model, other = build(), build(1)
    torch.save(FOREIGN[kind](model.state_dict()), tmp_path / "a.pth")
    checkpoint.load_weights(tmp_path / "a.pth", other)
    assert checkpoint.state_hash(other) == checkpoint.state_hash(model)


def test_zeros_and_masks_of_a_pruned_checkpoint_arrive_as_zeros(tmp_path):
    model, other, g = build(), build(1), toy.generator(2)
    mask = (torch.rand(model.fc1.weight.shape, generator=g) < 0.5).float()
    state = model.state_dict()
    state["fc1.weight_orig"], state["fc1.weight_mask"] = state.pop("fc1.weight"), mask
    state["fc2.weight"] = torch.zeros_like(state["fc2.weight"])
    torch.save(state, tmp_path / "a.pth")
    checkpoint.load_weights(tmp_path / "a.pth", other)
    assert torch.equal(other.fc1.weight, model.fc1.weight * mask) and not other.fc2.weight.any()
    state["fc1.weight_mask"] = torch.ones(3)
    torch.save(state, tmp_path / "a.pth")
    before = checkpoint.state_hash(other)
    assert (
        refused_or(lambda: checkpoint.load_weights(tmp_path / "a.pth", other), lambda _: False)
        == "refused"
    )
    assert checkpoint.state_hash(other) == before


# -- images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "PPM", "WEBP", "TIFF"])
def test_forty_damaged_images_of_every_kind(kind, tmp_path):
    rng = random.Random(kind)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "test" / name).mkdir(parents=True)
        for part in ("train", "test"):
            Image.fromarray(pixels).save(tmp_path / part / name / "good.png")
    path, whole = tmp_path / "train" / "a" / f"bad.{kind.lower()}", buffer.getvalue()
    for _ in range(40):
        path.write_bytes(damaged(whole, rng))
        outcome = refused_or(
            lambda: data.load("imagefolder:size=8", str(tmp_path)),
            lambda found: found.input_shape == (3, 8, 8),
        )
        if outcome == "refused":
            with pytest.raises(UserError, match="data_dir=.*bad"):
                data.load("imagefolder:size=8", str(tmp_path))


def test_images_that_unpack_to_more_than_memory(tmp_path):
    """A PNG header that claims 60,000 x 60,000 pixels."""
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "train" / name / "1.png")
        Image.new("RGB", (4, 4)).save(tmp_path / "train" / name / "2.png")
    path = tmp_path / "train" / "a" / "1.png"
    whole = bytearray(path.read_bytes())
    whole[16:24] = struct.pack(">II", 60_000, 60_000)
    import zlib

    whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
    path.write_bytes(whole)
    assert (
        refused_or(lambda: data.load("imagefolder:size=8", str(tmp_path)), lambda _: False)
        == "refused"
    )


# -- records ---------------------------------------------------------------------------------------

TINY = {
    "model": DIGITS["model"],
    "dataset": "synthetic:classes=3,samples=48",
    "num_samples": 16,
    "train": Recipe(epochs=1, batch_size=16),
    "finetune": Recipe(epochs=0.5, batch_size=16),
}
VALUES = (None, "", "x", -1, 1e308, True, [], [[]], {}, {"a": None}, "\ud800", 10**30)


def altered(record: dict, rng: random.Random) -> dict:
    """Fields or their parts lost, of another type, or absurd."""
    record = json.loads(json.dumps(record))
    for _ in range(rng.randint(1, 3)):
        place, key = record, rng.choice(list(record))
        while isinstance(place.get(key), dict) and place[key] and rng.random() < 0.8:
            place, key = place[key], rng.choice(list(place[key]))
        if rng.random() < 0.4:
            place.pop(key)
        else:
            place[key] = rng.choice(VALUES)
        if not record:
            break
    return record


def test_two_hundred_malformed_records(tmp_path):
    """Of each stage, through the next verb and the reader of all: refused in one line, or as good
    as the true one.
    """
    spec, rng = Spec(output_dir=str(tmp_path), sparsity=0.5, **TINY), random.Random(3)
    pipeline.finetune(spec)
    folder, dense = pipeline.cell_folder(spec), pipeline.dense_folder(spec)
    again = {
        "train": dense / "train.json",
        "prune": folder / "prune.json",
        "finetune": folder / "finetune.json",
    }
    verbs = {"train": pipeline.prune, "prune": pipeline.finetune, "finetune": pipeline.finetune}
    after = {"train": ("prune", "finetune"), "prune": ("finetune",), "finetune": ()}
    seen = []
    for round in range(200):
        stage = ("train", "prune", "finetune")[round % 3]
        texts = {name: path.read_bytes() for name, path in again.items()}
        true = json.loads(texts[stage])
        text = json.dumps(altered(true, rng)).encode() if round % 2 else damaged(texts[stage], rng)
        again[stage].write_bytes(text)
        for later in after[stage]:
            again[later].unlink()
        seen.append(
            refused_or(
                functools.partial(verbs[stage], spec), lambda found: isinstance(found, Record)
            )
        )
        list(read_all(tmp_path))
        for name, path in again.items():
            path.write_bytes(texts[name])
    assert seen.count("refused") > 100


def test_a_malformed_record_is_one_line_and_status_two(tmp_path, capsys):
    argv = [
        "--model",
        DIGITS["model"],
        "--dataset",
        TINY["dataset"],
        "--sparsity",
        "0.5",
        "--allow-untrained",
        "--output-dir",
        str(tmp_path),
    ]
    assert run("common", "prune", argv=argv) == 0
    record = next(tmp_path.rglob("prune.json"))
    for text in (b"{", b"\xff\xfe", b"[1]", record.read_bytes().replace(b'"pruned"', b'"prnued"')):
        record.write_bytes(text)
        capsys.readouterr()
        assert run("common", "finetune", argv=argv) == 2
        told = capsys.readouterr()
        assert (
            told.err.strip().splitlines()[-1].startswith("error: record=")
            and "Traceback" not in told.err
        )


def test_what_lies_where_a_snapshot_should_is_named(tmp_path):
    """A network of another kind, weights without a run, a damaged file: one line, and the file
    stays for its owner.
    """
    spec = Spec(output_dir=str(tmp_path), sparsity=0.5, steps=2, **TINY)
    pipeline.train(spec)
    folder, dense = pipeline.cell_folder(spec), pipeline.dense_folder(spec)
    folder.mkdir(parents=True)
    wanted = stages.identity_of(spec, "prune") | {
        "dense_hash": Record.read(dense / "train.json").dense_hash
    }
    for name, content in (
        ("prune", (dense / "model.safetensors").read_bytes()),
        ("prune", b"x" * 100),
    ):
        path = folder / f"{name}-snapshot-{reuse.mark(wanted)}.safetensors"
        path.write_bytes(content)
        with pytest.raises(UserError, match="checkpoint=.*snapshot"):
            pipeline.prune(spec)
        assert path.read_bytes() == content
        path.unlink()
    record = pipeline.prune(spec)
    path = folder / f"finetune-snapshot-{reuse.mark(wanted)}.safetensors"
    path.write_bytes((folder / "pruned.safetensors").read_bytes())
    with pytest.raises(UserError):
        pipeline.finetune(spec)
    path.unlink()
    assert pipeline.finetune(spec).accuracy["pruned"] == record.accuracy["pruned"]
    broken = json.loads((folder / "prune.json").read_text())
    broken["layers"][0].pop("name")
    (folder / "prune.json").write_text(json.dumps(broken))
    (folder / "finetune.json").unlink()
    with pytest.raises(UserError, match="record=.*lacks layers.name"):
        pipeline.finetune(spec)
