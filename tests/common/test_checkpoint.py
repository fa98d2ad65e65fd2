"""Checkpoints: exact round trips (in another process too), exact resumption, atomic writes, and
every damage a UserError.
"""

import copy
import json
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from common.cells.errors import UserError
from common.nets import checkpoint, models, tensorfile
from common.nets.surgery import channel_groups, factorize, narrow
from tests import toy

ROOT = Path(__file__).resolve().parents[2]
RESNET = {"model": "resnet20:shortcut=A", "classes": 5, "input_shape": [3, 16, 16]}
DIGITS = {"model": "digits_cnn:width=0.25", "classes": 10, "input_shape": [1, 8, 8]}
pytestmark = pytest.mark.usefixtures("one_thread")


def build(architecture=DIGITS, seed=0):
    return models.build(
        architecture["model"], architecture["classes"], tuple(architecture["input_shape"]), seed
    )


def equal_states(a, b):
    return list(a) == list(b) and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a
    )


def pruned(architecture=RESNET):
    """(model, edits): every group halved, then one of the remaining convolutions as a low-rank
    product.
    """
    model = build(architecture)
    groups = channel_groups(model, torch.zeros(1, *architecture["input_shape"]))
    edits = narrow(model, groups, {group.name: list(range(0, group.size, 2)) for group in groups})
    g = toy.generator(1)
    out, cin, *_ = model.layer2[1].conv2.weight.shape
    return model, [
        *edits,
        factorize(
            model,
            "layer2.1.conv2",
            torch.randn(3, cin, 1, 1, generator=g),
            torch.randn(4, 3, 3, 3, generator=g),
            torch.randn(out, 4, 1, 1, generator=g),
        ),
    ]


# -- round trips -----------------------------------------------------------------------------------


def test_edits_masks_and_extras_come_back_in_another_process(tmp_path):
    model, edits = pruned()
    masks = {name: torch.rand(p.shape) < 0.5 for name, p in model.named_parameters() if p.ndim == 4}
    extra = {"epoch": 3, "rate": 0.1 + 0.2, "history": [{"loss": 1e-300}]}
    checkpoint.save(
        tmp_path / "a.safetensors",
        model,
        RESNET,
        edits,
        masks,
        extra=extra,
        extra_tensors={"rng": torch.get_rng_state()},
    )
    x = torch.randn(2, 3, 16, 16, generator=toy.generator(2))
    save_file({"x": x, "y": model.eval()(x).detach()}, tmp_path / "io.safetensors")
    code = """if True:
        import sys, torch
        from safetensors.torch import load_file
        from common.nets import checkpoint
        torch.set_num_threads(1)
        back = checkpoint.load(sys.argv[1] + "/a.safetensors")
        io = load_file(sys.argv[1] + "/io.safetensors")
        assert torch.equal(back.model.eval()(io["x"]), io["y"])"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True)
    back = checkpoint.load(tmp_path / "a.safetensors")
    assert (back.architecture, back.edits, back.extra) == (RESNET, edits, extra)
    assert equal_states(model.state_dict(), back.model.state_dict()) and back.model.training
    assert all(a.requires_grad for a in back.model.parameters())
    assert equal_states(masks, back.masks)
    assert torch.equal(back.extra_tensors["rng"], torch.get_rng_state())
    assert back.optimizer_state == {}


def test_double_precision_comes_back(tmp_path):
    model = build().double()
    checkpoint.save(tmp_path / "a", model, DIGITS)
    assert equal_states(model.state_dict(), checkpoint.load(tmp_path / "a").model.state_dict())


def test_loading_and_saving_draw_no_random_numbers(tmp_path):
    model, before = build(), torch.get_rng_state()
    checkpoint.save(tmp_path / "a", model, DIGITS)
    checkpoint.load(tmp_path / "a")
    assert torch.equal(before, torch.get_rng_state())


def test_what_was_loaded_does_not_hang_on_the_file(tmp_path):
    model = build()
    checkpoint.save(tmp_path / "a", model, DIGITS)
    back = checkpoint.load(tmp_path / "a").model
    with (tmp_path / "a").open("r+b") as file:
        file.truncate(10)
    assert equal_states(model.state_dict(), back.state_dict())


def test_state_hash_knows_names_types_shapes_and_bytes():
    model = build()
    first = checkpoint.state_hash(model)
    assert (
        first
        == checkpoint.state_hash(build())
        == checkpoint.state_hash(copy.deepcopy(model).eval())
        and len(first) == 16
    )
    assert first != checkpoint.state_hash(build(seed=1)) and first != checkpoint.state_hash(
        copy.deepcopy(model).double()
    )
    model.fc2.bias.data[0] += 1e-7
    assert first != checkpoint.state_hash(model)
    one, two = nn.Linear(2, 3), nn.Linear(3, 2)
    two.weight.data = one.weight.data.reshape(2, 3)
    one.bias = two.bias = None
    assert checkpoint.state_hash(one) != checkpoint.state_hash(two)


# -- resuming --------------------------------------------------------------------------------------

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "plain sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3, betas=(0.8, 0.99), amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1),
}


def train(model, optimizer, steps):
    for step in steps:
        g = toy.generator(step)
        x, y = torch.randn(8, 1, 8, 8, generator=g), torch.randint(10, (8,), generator=g)
        optimizer.param_groups[0]["lr"] = 0.05 / (1 + step)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("snapshot", [False, True])
def test_resumed_training_is_bit_for_bit_the_uninterrupted_one(kind, snapshot, tmp_path):
    make, path = OPTIMIZERS[kind], tmp_path / "a.safetensors"
    whole, half = build(), build()
    straight, first = make(whole.parameters()), make(half.parameters())
    train(whole, straight, range(10))
    train(half, first, range(5))
    if snapshot:
        checkpoint.save_state(path, half, first, {"step": 5})
        model = build(seed=7)
        optimizer = make(model.parameters())
        assert checkpoint.load_state(path, model, optimizer) == {"step": 5}
    else:
        checkpoint.save(path, half, DIGITS, optimizer=first)
        back = checkpoint.load(path)
        model, optimizer = back.model, make(back.model.parameters())
        checkpoint.restore_optimizer(optimizer, back.optimizer_state)
    assert optimizer.param_groups[0].keys() == first.param_groups[0].keys()
    assert all(
        optimizer.param_groups[0][k] == first.param_groups[0][k]
        for k in first.param_groups[0]
        if k != "params"
    )
    train(model, optimizer, range(5, 10))
    assert equal_states(whole.state_dict(), model.state_dict())
    for a, b in zip(straight.state.values(), optimizer.state.values(), strict=True):
        assert a.keys() == b.keys() and all(
            torch.equal(a[k], b[k]) if torch.is_tensor(a[k]) else a[k] == b[k] for k in a
        )


def test_an_optimizer_that_does_not_fit_is_refused(tmp_path):
    model = build()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    train(model, optimizer, range(1))
    checkpoint.save(tmp_path / "a", model, DIGITS, optimizer=optimizer)
    state = checkpoint.load(tmp_path / "a").optimizer_state
    wide = build({**DIGITS, "model": "digits_cnn"})
    for other in (
        OPTIMIZERS["adam"](model.parameters()),
        OPTIMIZERS["sgd"](wide.parameters()),
        OPTIMIZERS["sgd"](list(model.parameters())[:3]),
        OPTIMIZERS["sgd"]([{"params": model.fc1.parameters()}, {"params": model.fc2.parameters()}]),
    ):
        with pytest.raises(UserError, match="optimizer"):
            checkpoint.restore_optimizer(other, state)


# -- writing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["save_file", "_sync", "os.replace"])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch, step, failure
):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, build(), DIGITS)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(f"common.nets.tensorfile.{step}", fail)
        with pytest.raises(KeyboardInterrupt if failure is KeyboardInterrupt else UserError):
            checkpoint.save(path, build(seed=1), DIGITS)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line(tmp_path):
    code = """if True:
        import resource, signal, sys
        from common.nets import checkpoint, models
        from common.cells.errors import UserError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            checkpoint.save(sys.argv[1], models.build("digits_cnn", 10, (1, 8, 8)),
                            {"model": "digits_cnn", "classes": 10, "input_shape": [1, 8, 8]})
        except UserError as error:
            assert error.field == "output_dir" and "\\n" not in str(error), error
            sys.exit(7)"""
    assert (
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], cwd=ROOT).returncode == 7
    )
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", Path("/proc/nowhere")):
        with pytest.raises(UserError, match="output_dir"):
            checkpoint.save(folder / "a", build(), DIGITS)


def test_files_are_readable_by_others_and_folders_are_made(tmp_path):
    checkpoint.save(tmp_path / "new" / "folder" / "a", build(), DIGITS)
    assert stat.S_IMODE(os.stat(tmp_path / "new" / "folder" / "a").st_mode) == 0o644


def test_what_could_not_be_loaded_is_not_written(tmp_path):
    path = tmp_path / "a"
    model, edits = pruned()
    sick = build()
    sick.conv1.weight.data[0, 0, 0, 0] = float("inf")
    for arguments in (
        (model, RESNET),
        (model, RESNET, edits[:-1]),
        (build(), RESNET),
        (sick, DIGITS),
        (build(), {**DIGITS, "classes": "ten"}),
        (build(), {"model": "digits_cnn"}),
    ):
        with pytest.raises(UserError):
            checkpoint.save(path, *arguments)
    with pytest.raises(UserError, match="JSON"):
        checkpoint.save(path, build(), DIGITS, extra={"when": object()})
    assert not path.exists()


# -- damaged and hostile files ---------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    model = build()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    train(model, optimizer, range(1))
    checkpoint.save(
        tmp_path / "a.safetensors",
        model,
        DIGITS,
        masks={"fc1.weight": model.fc1.weight > 0},
        optimizer=optimizer,
    )
    return tmp_path / "a.safetensors"


def refused(path, *words):
    with pytest.raises(UserError) as caught:
        checkpoint.load(path)
    assert caught.value.field == "checkpoint" and "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


def test_truncated_anywhere(file):
    whole, g = file.read_bytes(), toy.generator(0)
    for length in [
        0,
        7,
        8,
        9,
        len(whole) - 1,
        *torch.randint(len(whole), (20,), generator=g).tolist(),
    ]:
        file.write_bytes(whole[:length])
        refused(file)
        with pytest.raises(UserError, match="checkpoint"):
            checkpoint.load_weights(file, build())
    file.write_bytes(whole + b"\0")
    refused(file)


def test_flipped_bits(file):
    whole, g = file.read_bytes(), toy.generator(1)
    header = struct.unpack("<Q", whole[:8])[0] + 8
    places = (
        torch.randint(header, (50,), generator=g).tolist()
        + torch.randint(header, len(whole), (50,), generator=g).tolist()
    )
    for place, bit in zip(places, torch.randint(8, (100,), generator=g).tolist(), strict=True):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        file.write_bytes(damaged)
        if place >= header:
            refused(file, "not what was written")
        # a flipped bit of white space, or of the digest's case, may still load; nothing else may
        # come out
        try:
            checkpoint.load(file)
        except UserError as error:
            assert error.field == "checkpoint"


def test_header_that_claims_too_much(file):
    whole = file.read_bytes()
    for length in (2**63, 2**40, tensorfile.MAX_HEADER + 1, len(whole)):
        file.write_bytes(struct.pack("<Q", length) + whole[8:])
        refused(file, "header")
    with file.open("wb") as sparse:  # a header that fits the file, which is huge
        sparse.write(struct.pack("<Q", 1 << 33))
        sparse.truncate(1 << 34)
    refused(file, "header")


def test_missing_empty_and_foreign_files(file, tmp_path):
    refused(tmp_path / "nothing", "No such file")
    refused(tmp_path)
    save_file({"a": torch.ones(1)}, file)
    refused(file, "none of our checkpoints")
    file.write_text("a text that is longer than eight bytes")
    refused(file)


def rewrite(path, change):
    """Write a file whose digest is right after `change(tensors, description)`: hostile, not
    damaged.
    """
    tensors, text = tensorfile.read(path)
    tensors, description = dict(tensors), json.loads(text)
    text = change(tensors, description)
    tensorfile.write(path, tensors, text if isinstance(text, str) else json.dumps(description))


CUT = {"op": "slice", "module": "conv1", "axis": "out", "keep": [0]}
HOSTILE = {
    "another net": lambda t, d: d["architecture"].update(model="lenet300"),
    "unknown net": lambda t, d: d["architecture"].update(model="../../etc/passwd"),
    "bad option": lambda t, d: d["architecture"].update(model="digits_cnn:width=1e9"),
    "code for a name": lambda t, d: d["architecture"].update(
        model="__import__('os').system('true')"
    ),
    "more classes": lambda t, d: d["architecture"].update(classes=100),
    "classes": lambda t, d: d["architecture"].update(classes=2**62),
    "boolean classes": lambda t, d: d["architecture"].update(classes=True),
    "shape": lambda t, d: d["architecture"].update(input_shape=[1, -8, 8]),
    "huge net": lambda t, d: d["architecture"].update(
        model="lenet300", input_shape=[3, 16_384, 16_384]
    ),
    "no architecture": lambda t, d: d.pop("architecture"),
    "list for architecture": lambda t, d: d.update(architecture=[1]),
    "edit too many": lambda t, d: d["edits"].append(CUT),
    "edits": lambda t, d: d.update(edits=7),
    "no edits": lambda t, d: d.update(edits=None),
    "edit of nothing": lambda t, d: d["edits"].append({**CUT, "module": "../x"}),
    "huge factor": lambda t, d: d["edits"].append(
        {"op": "factorize", "module": "fc1", "shapes": [[2**30, 32], [2**30, 2**30], [16, 2**30]]}
    ),
    "overflowing factor": lambda t, d: d["edits"].append(
        {"op": "factorize", "module": "fc1", "shapes": [[2**80, 32], [2**80, 2**80], [16, 2**80]]}
    ),
    "factor of BatchNorm": lambda t, d: d["edits"].append(
        {"op": "factorize", "module": "bn1", "shapes": []}
    ),
    "format": lambda t, d: d.update(format=99),
    "no extra": lambda t, d: d.pop("extra"),
    "not JSON": lambda t, d: "{",
    "not a dict": lambda t, d: "[]",
    "deep JSON": lambda t, d: "[" * 100_000,
    "long number": lambda t, d: "9" * 10_000,
    "lacks a tensor": lambda t, d: t.pop("model.fc1.bias") is None,
    "extra tensor": lambda t, d: t.update({"model.fc9.bias": torch.ones(1)}),
    "path for a name": lambda t, d: t.update({"../../model": torch.ones(1)}),
    "shape of a tensor": lambda t, d: t.update({"model.fc2.bias": torch.ones(11)}),
    "kind of a tensor": lambda t, d: t.update(
        {"model.fc2.bias": torch.ones(10, dtype=torch.int64)}
    ),
    "complex": lambda t, d: t.update({"model.fc2.bias": torch.ones(10, dtype=torch.complex64)}),
    "NaN": lambda t, d: t.update(
        {"model.fc1.weight": torch.full_like(t["model.fc1.weight"], float("nan"))}
    ),
    "mask of nothing": lambda t, d: t.update({"mask.fc9.weight": torch.ones(1, dtype=torch.bool)}),
    "mask shape": lambda t, d: t.update({"mask.fc2.weight": torch.ones(1, dtype=torch.bool)}),
    "mask type": lambda t, d: t.update({"mask.fc2.bias": torch.ones(10)}),
    "optimizer index": lambda t, d: t.update({"optimizer.x.step": torch.ones(1)}),
    "optimizer of nothing": lambda t, d: t.update({"optimizer.999.step": torch.ones(1)}),
    "optimizer": lambda t, d: d.update(optimizer=[]),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(file, case):
    rewrite(file, HOSTILE[case])
    refused(file)


# -- weights from elsewhere ------------------------------------------------------------------------

WRAPPED = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 7, "best": torch.tensor(0.9)},
    "net, parallel": lambda state: {
        "net": {f"module.{k}": v for k, v in state.items()},
        "acc": 0.9,
    },
    "twice": lambda state: {
        "model": {"state_dict": {f"module.module.{k}": v for k, v in state.items()}}
    },
    "before BatchNorm counted": lambda state: {
        k: v for k, v in state.items() if "num_batches" not in k
    },
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("case", WRAPPED)
def test_weights_of_torch_save(tmp_path, case, legacy):
    model, other = build(seed=1), build()
    torch.save(
        WRAPPED[case](model.state_dict()),
        tmp_path / "a.pth",
        _use_new_zipfile_serialization=not legacy,
    )
    checkpoint.load_weights(tmp_path / "a.pth", other)
    assert checkpoint.state_hash(other) == checkpoint.state_hash(model)


def test_weights_of_safetensors_and_of_our_own(tmp_path, file):
    model, other = build(seed=1), build()
    save_file(model.state_dict(), tmp_path / "b.safetensors")
    checkpoint.load_weights(tmp_path / "b.safetensors", other)
    assert equal_states(model.state_dict(), other.state_dict())
    checkpoint.load_weights(file, other)
    assert equal_states(checkpoint.load(file).model.state_dict(), other.state_dict())


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


def test_weights_are_read_without_running_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, "a.pth")
    with pytest.raises(UserError) as caught:
        checkpoint.load_weights("a.pth", build())
    assert "\n" not in str(caught.value) and not Path("evil").exists()


def test_weights_that_do_not_fit_change_nothing(tmp_path):
    model, g = build(), toy.generator(3)
    before = checkpoint.state_hash(model)
    state = build({**DIGITS, "classes": 100}).state_dict()
    lacking = {k: v for k, v in build().state_dict().items() if k != "fc2.bias"}
    nan = {**build().state_dict(), "fc1.bias": torch.full((16,), float("nan"))}
    for content, words in (
        (state, ("'fc2.weight'", "[100, 16]", "[10, 16]", "classes")),
        (lacking, ("lacks", "fc2.bias")),
        (nan, ("finite",)),
        ({}, ("lacks",)),
        ({"state_dict": 3}, ("lacks",)),
        ([1], ("state dict",)),
        ({1: torch.ones(1)}, ()),
    ):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(UserError) as caught:
            checkpoint.load_weights(tmp_path / "a.pt", model)
        assert all(word in str(caught.value) for word in words), caught.value
    torch.save(build().state_dict(), tmp_path / "a.pt")
    whole = (tmp_path / "a.pt").read_bytes()
    for length in torch.randint(len(whole), (20,), generator=g).tolist():
        (tmp_path / "a.pt").write_bytes(whole[:length])
        with pytest.raises(UserError, match="checkpoint"):
            checkpoint.load_weights(tmp_path / "a.pt", model)
    with pytest.raises(UserError, match="No such file"):
        checkpoint.load_weights(tmp_path / "b.pt", model)
    assert checkpoint.state_hash(model) == before


def test_layout_of_the_file(file):
    """What the module's first lines promise, for readers in other languages."""
    with safe_open(file, framework="pt") as opened:
        names, description = set(opened.keys()), json.loads(opened.metadata()["checkpoint"])
    assert {"model.conv1.weight", "mask.fc1.weight", "optimizer.0.momentum_buffer"} <= names
    assert (
        description["format"] == 1
        and description["architecture"] == DIGITS
        and description["optimizer"]["class"] == "SGD"
    )
