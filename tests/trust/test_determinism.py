"""The same command twice, in two processes whose sets and dicts hash differently: the same masks,
networks and records.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.cells.registry import METHODS
from common.curvature.kron import kron_factors
from common.data import sources as data
from common.nets import checkpoint, models
from common.nets import masks as M
from tests import toy
from tests.trust.crash import fingerprint

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [
    sys.executable,
    "-W",
    "ignore",
    "-m",
    "common.commands.compare",
    "--model",
    "digits_cnn:width=0.25",
    "--seeds",
    "1",
    "--train-epochs",
    "1",
    "--epochs",
    "0.1",
    "--num-samples",
    "64",
    "--sparsities",
    "0.6",
    "--threads",
    "1",
]


@pytest.mark.slow
def test_every_method_gives_the_same_masks_and_record_twice(tmp_path):
    processes = [
        subprocess.Popen(
            [*COMMAND, "--output-dir", str(tmp_path / str(i))],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONHASHSEED": str(i), "OMP_NUM_THREADS": "1"},
        )
        for i in (1, 2)
    ]
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
        masks.setdefault(path.relative_to(tmp_path).parts[1:], []).append(
            M.digest(checkpoint.load(path).masks)
        )
    assert all(len(pair) == 2 and pair[0] == pair[1] for pair in masks.values()) and len(
        masks
    ) == len(METHODS)


def test_each_seed_decides_its_part_and_no_other():
    """Weights, the order of the images, the calibration draw, and the labels that a sampled Fisher
    draws.
    """
    digits = data.load("digits")
    first = lambda loader: next(iter(loader))[0]
    net = lambda seed: checkpoint.state_hash(
        models.build("digits_cnn:width=0.25", 10, (1, 8, 8), seed)
    )
    model, batch = (
        models.build("digits_cnn:width=0.25", 10, (1, 8, 8), 0),
        list(digits.calibration(64, seed=0)),
    )
    labels = lambda seed: kron_factors(model, batch, generator=toy.generator(seed))["fc2"].G
    draws = {
        "weights": net,
        "order": lambda seed: first(digits.train_loader(64, seed=seed)),
        "augmentation": lambda seed: first(digits.train_loader(64, seed=seed, augment=True)),
        "calibration": lambda seed: first(digits.calibration(64, seed=seed)),
        "labels": labels,
    }
    for name, draw in draws.items():
        torch.manual_seed(1)  # the global generator has no say
        one = draw(3)
        torch.manual_seed(2)
        same, other = draw(3), draw(4)
        equal = torch.equal if isinstance(one, torch.Tensor) else str.__eq__
        assert equal(one, same) and not equal(one, other), name
