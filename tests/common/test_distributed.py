"""Processes under torchrun train the network and find the masks that one process does."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common import checkpoint
from common.cli import run
from common.masks import digest
from tests.common.verb_job import CELLS

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["--model", "mlpnet", "--dataset", "synthetic", "--epochs", "2", "--batch-size", "16", "--lr", "0.05"]


def torchrun(processes: int, *flags: str) -> subprocess.CompletedProcess:
    """The verb job of `flags` in so many processes on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
               "-m", "tests.common.verb_job"]
    return subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path):
    """Each takes every other example of the same batches, so the averaged gradients are the same; mlpnet has no BatchNorm."""
    assert run("common", "train", argv=[*FLAGS, "--output-dir", str(tmp_path / "one")]) == 0
    done = torchrun(2, "train", *FLAGS, "--output-dir", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("accuracy") == 1  # the first process alone reports
    one, two = (checkpoint.load(next((tmp_path / name).rglob("model.safetensors"))).model for name in ("one", "two"))
    for a, b in zip(one.parameters(), two.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """The cells pruned by one process; its dense network is the others' too."""
    folder = tmp_path_factory.mktemp("one")
    assert run("common", "prune", {"all": CELLS}, argv=["--table", "all", "--output-dir", str(folder)]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_find_the_masks_of_one(one_process, tmp_path, processes):
    """Batches are dealt out and their curvature added up; every kind of it ends in the same masks and weights."""
    dense = next(one_process.rglob("model.safetensors")).parent
    copy = tmp_path / dense.relative_to(one_process)
    copy.mkdir(parents=True)
    for file in dense.glob("[!.]*"):
        (copy / file.name).write_bytes(file.read_bytes())
    done = torchrun(processes, "prune", "--table", "all", "--output-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("accuracy") == len(CELLS)
    for path in sorted(one_process.rglob("pruned.safetensors")):
        one, many = checkpoint.load(path), checkpoint.load(tmp_path / path.relative_to(one_process))
        assert digest(one.masks) == digest(many.masks), path
        for (name, a), b in zip(one.model.state_dict().items(), many.model.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=f"{path.parent.parent.name} {name}")


@pytest.mark.slow
def test_one_process_that_fails_ends_the_job(tmp_path):
    """A batch that is left for no process is refused by name, and torchrun ends the others."""
    done = torchrun(2, "prune", "--table", "all", "--cell", "kron", "--num-samples", "100", "--output-dir", str(tmp_path))
    assert done.returncode != 0
    assert "calibration=0: no batch was seen" in done.stderr


def test_a_batch_that_does_not_divide_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("common.distributed.world", lambda: 3)
    assert run("common", "train", argv=[*FLAGS, "--output-dir", str(tmp_path)]) == 2
    assert "batch_size=16: does not divide among 3 processes" in capsys.readouterr().err
