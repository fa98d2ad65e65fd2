"""Two processes under torchrun train the network that one process trains."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common import checkpoint
from common.cli import run

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["--model", "mlpnet", "--dataset", "synthetic", "--epochs", "2", "--batch-size", "16", "--lr", "0.05"]


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    """Each takes every other example of the same batches, so the averaged gradients are the same; mlpnet has no BatchNorm."""
    assert run("common", "train", argv=[*FLAGS, "--output-dir", str(tmp_path / "one")]) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29517", "-m", "tests.common.train_job"]
    done = subprocess.run([*command, *FLAGS, "--output-dir", str(tmp_path / "two")], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("accuracy") == 1  # the first process alone reports
    one, two = (checkpoint.load(next((tmp_path / name).rglob("model.safetensors"))).model for name in ("one", "two"))
    for a, b in zip(one.parameters(), two.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_batch_that_does_not_divide_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("common.distributed.world", lambda: 3)
    assert run("common", "train", argv=[*FLAGS, "--output-dir", str(tmp_path)]) == 2
    assert "batch_size=16: does not divide among 3 processes" in capsys.readouterr().err
