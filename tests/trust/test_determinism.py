"""The same command twice, in two processes whose sets and dicts hash differently: the same masks, networks and records."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common import checkpoint
from common import masks as M
from common.registry import METHODS
from tests.trust.crash import fingerprint

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-W", "ignore", "-m", "common.compare", "--model", "digits_cnn:width=0.25", "--seeds", "1",
           "--train-epochs", "1", "--epochs", "0.1", "--num-samples", "64", "--sparsities", "0.6", "--threads", "1"]


@pytest.mark.slow
def test_every_method_gives_the_same_masks_and_record_twice(tmp_path):
    processes = [subprocess.Popen([*COMMAND, "--output-dir", str(tmp_path / str(i))], cwd=ROOT, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, env=os.environ | {"PYTHONHASHSEED": str(i), "OMP_NUM_THREADS": "1"})
                 for i in (1, 2)]
    for process in processes:
        _, told = process.communicate(timeout=240)
        assert process.returncode == 0, told.decode()[-2000:]
    one, two = (fingerprint(tmp_path / str(i)) for i in (1, 2))
    assert one.keys() == two.keys()
    for name in one:
        assert one[name] == two[name], name
    masks, methods = {}, {one[name]["method"] for name in one if name.endswith("finetune.json")}
    assert methods == set(METHODS)
    for path in sorted(tmp_path.rglob("finetuned.safetensors")):
        masks.setdefault(path.relative_to(tmp_path).parts[1:], []).append(M.digest(checkpoint.load(path).masks))
    assert all(len(pair) == 2 and pair[0] == pair[1] for pair in masks.values()) and len(masks) == len(METHODS)
