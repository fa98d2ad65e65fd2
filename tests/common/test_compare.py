"""The main job's grid: small, killed, extended, on a folder of images, and with bad input."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.cells import registry
from common.cells.library import read_all
from common.cells.record import Record
from common.commands import compare
from common.commands.compare import main

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "--model",
    "digits_cnn:width=0.25",
    "--methods",
    "magnitude-global,obd-global",
    "--sparsities",
    "0.5,0.9",
    "--seeds",
    "2",
    "--train-epochs",
    "2",
    "--epochs",
    "1",
    "--num-samples",
    "64",
    "--threads",
    "1",
]


def results(folder):
    """What a run found, without its times."""
    return {r.id: (r.accuracy, r.loss, r.achieved, r.layers) for r in read_all(folder)}


def test_grid_writes_every_cell_and_then_nothing(tmp_path, capsys):
    argv = [*SMALL, "--output-dir", str(tmp_path)]
    assert main([*argv, "--print-folder"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert main(argv) == 0
    assert len(list(folder.rglob("finetune.json"))) == len(list(folder.rglob("prune.json"))) == 8
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    assert main(argv) == 0
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")} == times
    dense = {r.dense_hash for r in read_all(tmp_path)}
    assert len(dense) == 1  # one dense network under all


def test_a_method_that_does_not_fit_the_network_is_left_out_unless_it_was_asked_for(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(
        registry,
        "METHODS",
        {name: registry.METHODS[name] for name in ("cp", "magnitude-global", "nn-slimming")},
    )
    argv = [
        "--model",
        "mlpnet",
        "--seeds",
        "2",
        "--train-epochs",
        "0",
        "--allow-untrained",
        "--epochs",
        "0",
        "--num-samples",
        "64",
        "--threads",
        "1",
        "--output-dir",
        str(tmp_path),
    ]
    assert main(argv) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said[-3:-1]] == [
        "left out cp",
        "left out nn-slimming",
    ] and said[-1].startswith("12 cells in ")
    assert {r.method for r in read_all(tmp_path) if r.stage == "finetune"} == {"magnitude-global"}
    assert main([*argv, "--methods", "magnitude-global,cp"]) == 2
    assert "has no convolution" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_it_ends_the_same(tmp_path):
    assert main([*SMALL, "--output-dir", str(tmp_path / "straight")]) == 0
    command = [
        sys.executable,
        "-m",
        "common.commands.compare",
        *SMALL,
        "--output-dir",
        str(tmp_path / "killed"),
    ]
    for moment in ("train-snapshot|model", "prune.json", "finetune.json"):
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        deadline = time.monotonic() + 120
        before = sum(1 for _ in tmp_path.glob("killed/**/*.json"))
        while process.poll() is None and time.monotonic() < deadline:
            found = [p.name for p in tmp_path.glob("killed/**/*") if p.is_file()]
            if (
                any(part in name for part in moment.split("|") for name in found)
                and sum(n.endswith(".json") for n in found) > before
            ):
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=240).returncode == 0
    assert results(tmp_path / "killed") == results(tmp_path / "straight")
    left = [p.name for p in (tmp_path / "killed").rglob("*") if p.is_file() and p.name != ".lock"]
    assert not [n for n in left if n.startswith(".") or "snapshot" in n]


def test_a_folder_of_images_by_changing_one_word(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 8)):
        for c, name in enumerate(("dark", "light")):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 100, (16, 16, 3)) + 120 * c
                Image.fromarray(pixels.astype(np.uint8)).save(
                    tmp_path / "images" / split / name / f"{i}.png"
                )
    argv = [
        "--dataset",
        "imagefolder",
        "--data-dir",
        str(tmp_path / "images"),
        *SMALL[:-4],
        "--num-samples",
        "16",
        "--threads",
        "1",
        "--output-dir",
        str(tmp_path / "runs"),
    ]
    assert main(argv) == 0
    records = [Record.read(p) for p in (tmp_path / "runs").rglob("finetune.json")]
    assert len(records) == 8 and all(
        r.spec["dataset"] == "imagefolder" and r.spec["data_dir"] == "" for r in records
    )
    assert str(tmp_path) not in json.dumps([vars(r) for r in records])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "mnits"], "dataset='mnits'"),
        (["--methods", "obs"], "method='obs'"),
        (["--sparsities", "0.5,1.5"], "sparsity=1.5"),
        (["--sparsities", "half"], "sparsities='half'"),
        (["--seeds", "0"], "seeds=0"),
        (["--model", "lenet"], "model='lenet'"),
        (["--threads", "0"], "threads=0"),
        (["--dataset", "imagefolder", "--data-dir", "/nonexistent"], "data_dir"),
        (["--checkpoint", "nothing"], "checkpoint='nothing'"),
        (["--num-samples", "99999"], "num_samples=99999"),
    ],
)
def test_bad_input_is_one_line_and_writes_no_record(flags, message, tmp_path, capsys):
    quick = ["--train-epochs", "0", "--allow-untrained"] if "--num-samples" in flags else []
    assert main([*flags, "--output-dir", str(tmp_path / "runs"), *quick]) == 2
    captured = capsys.readouterr()
    assert message in captured.err.strip().splitlines()[-1] and "Traceback" not in captured.err
    assert not list((tmp_path / "runs").rglob("prune.json"))


def test_the_fishers_rows_are_in_the_spec_of_a_cell():
    """A thousand rows of one example on the prepared networks, at most a hundred on any other;
    other methods have no rows.
    """

    def cells(*changes):
        flags = compare.parser().parse_args(["--seeds", "1"])
        return compare.grid(argparse.Namespace(**vars(flags) | dict(changes)))

    for spec in cells():
        expected = 1 if registry.lookup(spec.method).curvature == "rows" else None
        assert (spec.num_samples, spec.fisher_batch_size) == (1000, expected), spec.method
    (other,) = cells(("dataset", "cifar100"), ("methods", "woodfisher"), ("sparsities", "0.5"))
    assert (other.num_samples, other.fisher_batch_size) == (1000, 10)
    (few,) = cells(("methods", "woodfisher"), ("sparsities", "0.5"), ("num_samples", 30))
    assert few.fisher_batch_size == 1


def test_shared_curvature_changes_no_result_and_says_so(tmp_path):
    argv = [
        "--model",
        "digits_cnn:width=0.25",
        "--methods",
        "woodfisher,woodfisher-layer",
        "--sparsities",
        "0.5,0.9",
        "--seeds",
        "1",
        "--train-epochs",
        "1",
        "--epochs",
        "0",
        "--num-samples",
        "64",
        "--threads",
        "1",
    ]
    assert main([*argv, "--output-dir", str(tmp_path / "each")]) == 0
    assert main([*argv, "--output-dir", str(tmp_path / "shared"), "--share-curvature"]) == 0
    assert results(tmp_path / "each") == results(tmp_path / "shared")

    def noted(name):
        return sum(
            any("was ready" in note for note in r.notes)
            for r in read_all(tmp_path / name)
            if r.stage == "prune"
        )

    assert (noted("each"), noted("shared")) == (0, 3)


def test_each_other_budget_and_dense_network_is_a_comparison_of_its_own():
    """What its records must share to stand in one table is in the folder's name; methods, amounts
    and seeds are not."""

    def folder(*flags):
        return compare.grid(compare.parser().parse_args(list(flags)))[0].table

    plain = folder()
    budgets = [
        ("--epochs", "3"),
        ("--train-epochs", "3"),
        ("--num-samples", "77"),
        ("--checkpoint", "other"),
        ("--loss", "mse"),
        ("--metric", "own.py:metric"),
        ("--model", "mlpnet"),
    ]
    named = [folder(*flags) for flags in budgets]
    assert len({plain, *named}) == 1 + len(budgets)
    assert {
        folder(*flags)
        for flags in (("--seeds", "9"), ("--sparsities", "0.3"), ("--methods", "nap"))
    } == {plain}
