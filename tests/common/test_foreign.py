"""Checkpoints of other programs: each kind that could load loads to the same bits, each other kind
is one line that says why, and neither the network nor anything else is touched.
"""

import argparse
import os
import pathlib
import re
import types
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from common.cells.errors import UserError
from common.nets import checkpoint, foreign, models
from tests import toy

pytestmark = pytest.mark.usefixtures("one_thread")


def build(seed=0):
    return models.build("digits_cnn:width=0.125", 10, (1, 8, 8), seed)


def pruned(state):
    """As torch.nn.utils.prune keeps a weight."""
    rest = {key: value for key, value in state.items() if key != "fc1.weight"}
    weight = state["fc1.weight"]
    return {**rest, "fc1.weight_orig": weight, "fc1.weight_mask": torch.ones_like(weight)}


def named(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


class Lit(nn.Module):
    """What a training framework puts around a network: a loss and a metric with tensors."""

    def __init__(self, state):
        super().__init__()
        self.model = build()
        self.model.load_state_dict(state)
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(10))
        self.register_buffer("confusion", torch.zeros(10, 10))


def averaged(state):
    model = build()
    model.load_state_dict(state)
    return AveragedModel(model).state_dict()


ARGS = argparse.Namespace(lr=0.1, data=pathlib.PosixPath("/data"), more=types.SimpleNamespace(a=1))
NUMPY = {
    "acc": np.float32(0.9),
    "epoch": np.int64(3),
    "best": np.bool_(True),
    "loss": np.float64(1),
}
# kind of file -> what it holds, of a network's state dict
LOADS = {
    "the state dict": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 7, "optimizer": {"state": {0: {}}}},
    "model_state_dict": lambda s: {"model_state_dict": s, "epoch": 7},
    "model, parallel": lambda s: {"model": named("module.", s), "args": ARGS},
    "net": lambda s: {"net": s, "acc": 0.9},
    "any other key": lambda s: {"my_weights": s, "lr": 0.1},
    "several keys deep": lambda s: {"run": {"last": {"network": s}}},
    "torch.compile": lambda s: named("_orig_mod.", s),
    "torch.compile over parallel": lambda s: named("_orig_mod.module.", s),
    "torch.compile of parts": lambda s: {
        k.replace("fc1.", "fc1._orig_mod."): v for k, v in s.items()
    },
    "an attribute of a wrapper": lambda s: named("net.", s),
    "parallel parts of a wrapper": lambda s: named("encoder.module.", s),
    "AveragedModel": averaged,
    "Lightning, with a loss and a metric": lambda s: {
        "state_dict": Lit(s).state_dict(),
        "hyper_parameters": ARGS,
        "pytorch-lightning_version": "2.4.0",
    },
    "thop": lambda s: s | {"total_ops": torch.zeros(1), "conv1.total_params": torch.zeros(1)},
    "with a moving average": lambda s: {"state_dict": s, "state_dict_ema": build(5).state_dict()},
    "numpy scalars": lambda s: {"state_dict": s} | NUMPY,
    "argparse.Namespace": lambda s: {"state_dict": s, "args": ARGS},
    "double precision": lambda s: {
        k: v.double() if v.is_floating_point() else v for k, v in s.items()
    },
    "torch.nn.utils.prune": pruned,
    "torch.nn.utils.prune, parallel": lambda s: {"state_dict": named("module.", pruned(s))},
    "Parameters": lambda s: {k: nn.Parameter(v, requires_grad=False) for k, v in s.items()},
    "before BatchNorm counted": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("kind", LOADS)
def test_what_could_load_loads(kind, legacy, tmp_path):
    model, other = build(seed=1), build()
    path = tmp_path / "a.pth"
    torch.save(LOADS[kind](model.state_dict()), path, _use_new_zipfile_serialization=not legacy)
    checkpoint.load_weights(path, other)
    assert checkpoint.state_hash(other) == checkpoint.state_hash(model)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".pth", ""])
@pytest.mark.parametrize("write", [save_file, torch.save], ids=["safetensors", "torch"])
def test_a_file_is_known_by_its_contents_and_not_by_its_suffix(write, suffix, tmp_path):
    model, other = build(seed=1), build()
    write(model.state_dict(), tmp_path / f"a{suffix}")
    checkpoint.load_weights(tmp_path / f"a{suffix}", other)
    assert checkpoint.state_hash(other) == checkpoint.state_hash(model)


def test_what_was_taken_and_what_was_left_out_is_said(tmp_path, caplog):
    torch.save({"state_dict": Lit(build(1).state_dict()).state_dict()}, tmp_path / "a.ckpt")
    with caplog.at_level("INFO"):
        checkpoint.load_weights(tmp_path / "a.ckpt", build())
    assert "below 'state_dict/model.', left out 2 beside them" in caplog.text


# -- refused ---------------------------------------------------------------------------------------


def holding_itself(state):
    contents = {"epoch": 1}
    contents["state_dict"] = contents["model"] = contents
    return contents


def nested(state):
    for _ in range(150):
        state = {"model": state}
    return state


def with_weight(state, weight, mask=None):
    rest = {key: value for key, value in state.items() if key != "fc1.weight"}
    if mask is None:
        return {**rest, "fc1.weight": weight}
    return {**rest, "fc1.weight_orig": weight, "fc1.weight_mask": mask}


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


HUGE = torch.ones(1).expand(10**7, 10**7)  # one number on disk
# kind of file -> (what it holds, words of the error)
REFUSED = {
    "holds itself": (holding_itself, "lacks"),
    "nested too deep": (nested, "lacks"),
    "two networks": (
        lambda s: {"a": s, "b": build(5).state_dict()},
        "several networks that fit: 'a', 'b'",
    ),
    "teacher and student": (lambda s: named("t.", s) | named("s.", s), "'s.', 't.'"),
    "the whole model": (
        lambda s: build(),
        "holds an object of common.nets.models.digits.DigitsCNN",
    ),
    "code": (
        lambda s: {"state_dict": s, "x": Evil()},
        "holds an object of posix.mkdir|no file of torch",
    ),
    "another class": (lambda s: {"state_dict": s, "x": models.build}, "models.build, and no code"),
    "a tensor": (lambda s: torch.ones(3), "Tensor, not a state dict"),
    "names of another network": (lambda s: named("x", s), "lacks 24 tensors .*has also 28 tensors"),
    "a part": (
        lambda s: {k: v for k, v in s.items() if "fc2" not in k},
        "lacks 2 tensors .'fc2.weight'",
    ),
    "more than the network": (
        lambda s: s | {"aux.weight": torch.ones(1)},
        "has also 1 tensors .'aux.weight'",
    ),
    "overflows in float32": (
        lambda s: {k: v.double() * 1e300 if k == "fc1.weight" else v for k, v in s.items()},
        "'fc1.weight' has values that are not finite",
    ),
    "a mask that is not finite": (
        lambda s: with_weight(s, s["fc1.weight"], torch.full_like(s["fc1.weight"], float("nan"))),
        "'fc1.weight' has values that are not finite",
    ),
    "a huge weight": (lambda s: with_weight(s, HUGE), r"\[10000000, 10000000\]"),
    "a huge product": (lambda s: with_weight(s, HUGE[:, :1], HUGE[:1]), r"\[10000000, 1\]"),
    "a huge mask": (lambda s: with_weight(s, s["fc1.weight"], HUGE), "the mask of 'fc1.weight'"),
    "sparse": (lambda s: with_weight(s, s["fc1.weight"].to_sparse()), "sparse"),
    "without values": (lambda s: with_weight(s, s["fc1.weight"].to("meta")), "without values"),
    "complex": (lambda s: with_weight(s, s["fc1.weight"].to(torch.complex64)), "complex64"),
    "a name with escape codes": (lambda s: s | {"\x1b[31mred\x1b[0m": torch.ones(1)}, "has also"),
}


def refusal(path, model):
    before = checkpoint.state_hash(model)
    with pytest.raises(UserError) as caught:
        checkpoint.load_weights(path, model)
    assert caught.value.field == "checkpoint" and checkpoint.state_hash(model) == before
    told = str(caught.value)
    assert told.isprintable() and len(told) < 700
    # neither torch's advice nor a stranger's file to be deleted
    assert "weights_only" not in told and "add_safe_globals" not in told and "delete" not in told
    return told


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_load_is_one_line(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    contents, words = REFUSED[kind]
    torch.save(contents(build(1).state_dict()), tmp_path / "a.pth")
    told = refusal(tmp_path / "a.pth", build())
    assert re.search(words, told), told
    assert not pathlib.Path("evil").exists()


OTHER_FILES = {
    "pipe": "no regular file",
    "/dev/zero": "no regular file",
    ".": "no regular file",
    "script": "TorchScript",
    "packed": "compressed",
    "protocol": "no file of torch.save",
    "text": "no file of torch.save",
    "text.safetensors": "no safetensors header",
    "empty": "no file of torch.save",
    "nothing": "No such file",
}


def test_files_of_another_kind_are_one_line(tmp_path):
    """A pipe that nobody writes to, a device without an end, a folder, TorchScript, a compressed
    archive that would unpack to more than memory, the newest protocol."""
    state = build(1).state_dict()
    os.mkfifo(tmp_path / "pipe")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(build().eval(), torch.zeros(1, 1, 8, 8)).save(str(tmp_path / "script"))
    torch.save(state, tmp_path / "plain")
    with (
        zipfile.ZipFile(tmp_path / "plain") as plain,
        zipfile.ZipFile(tmp_path / "packed", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry.filename))
    torch.save(state, tmp_path / "protocol", pickle_protocol=4)
    (tmp_path / "text").write_text("\x1b[1ma text that is longer than eight bytes\x1b[0m")
    (tmp_path / "text.safetensors").write_text("a text that is longer than eight bytes")
    (tmp_path / "empty").touch()
    for name, words in OTHER_FILES.items():
        assert words in refusal(tmp_path / name, build()), name


def test_what_stands_for_a_strangers_object_keeps_nothing_of_it(tmp_path):
    torch.save({"args": ARGS} | NUMPY, tmp_path / "a.pth")
    found = foreign.read(tmp_path / "a.pth")
    assert {type(value) for value in found.values()} == {foreign.Inert}
    assert not any(vars(value) for value in found.values())
    # and only inside: torch's own list is as it was
    with pytest.raises(Exception, match="Namespace"):
        torch.load(tmp_path / "a.pth", weights_only=True)


def test_a_mask_is_multiplied_in(tmp_path):
    model, other = build(1), build()
    state = model.state_dict()
    mask = (torch.rand(state["fc1.weight"].shape, generator=toy.generator(2)) < 0.5).float()
    torch.save({"net": with_weight(state, state["fc1.weight"], mask)}, tmp_path / "a.pth")
    checkpoint.load_weights(tmp_path / "a.pth", other)
    assert torch.equal(other.fc1.weight, model.fc1.weight * mask)
