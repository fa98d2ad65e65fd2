"""What every run leans on: where it runs, how it tells its progress, what is published, and who
holds a folder.
"""

import json
import logging
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from common.cells.errors import UserError
from common.cells.library import read_all
from common.commands import publish
from common.system import machine, progress
from tests.figures.fixtures import record


def unreadable(monkeypatch):
    """A system without /proc."""

    def refuse(self, *arguments, **named):
        raise FileNotFoundError(2, "No such file", str(self))

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(Path, "write_text", refuse)


def test_memory_is_the_kernels_account_and_elsewhere_the_systems():
    held = torch.ones(1 << 24, dtype=torch.float64)  # 128 MB, touched
    free, peak = machine.free_memory_gb(), machine.peak_memory_mb()
    assert held.sum() == 1 << 24 and peak > 128
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    assert 0 < free <= total
    with pytest.MonkeyPatch.context() as patch:
        unreadable(patch)
        assert machine.free_memory_gb() == total and machine.peak_memory_mb() >= 0.9 * peak
        machine.reset_peak_memory()  # quietly nothing
        assert machine._processor()


def test_a_run_outside_a_checkout_or_with_a_package_less_still_says_where_it_ran(monkeypatch):
    def gone(*arguments, **named):
        raise FileNotFoundError(2, "git")

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(subprocess, "run", gone)
    monkeypatch.setattr(metadata, "version", missing)
    for cached in (machine.code, machine._versions):
        cached.cache_clear()
    try:
        told = machine.provenance(torch.device("cpu"), 3, "feed")
        assert (told["git"], told["dirty"], told["seed"], told["data_sha256"]) == (
            "",
            False,
            3,
            "feed",
        )
        assert set(told["versions"]) == {"python"}
    finally:
        for cached in (machine.code, machine._versions):
            cached.cache_clear()


def test_progress_in_a_log_is_a_line_now_and_then_with_what_is_left(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with caplog.at_level(logging.INFO), progress.progress(total=40, desc="train") as bar:
        bar.update(0)
        now[0] = 14.0
        bar.update(5)
        assert not caplog.messages
        bar.set_postfix_str("test 91%")
        now[0] = 20.0
        bar.update(5)  # 10 of 40 in 20 s: 60 s left
    assert caplog.messages == ["train: 10/40, about 01:00 left test 91%"]
    with progress.quiet(), progress.progress(total=2, desc="silent") as bar:
        now[0] = 99.0
        bar.update(1)
    assert len(caplog.messages) == 1


def test_published_records_join_their_table_and_are_small(tmp_path, capsys):
    runs, target = tmp_path / "runs", tmp_path / "results"
    stages = {stage: record(stage) for stage in ("prune", "finetune")}
    for stage, one in stages.items():
        one.write(runs / "cell" / "seed0" / f"{stage}.json")
        (runs / "cell" / "seed0" / f"{stage}d.safetensors").write_bytes(b"weights stay behind")
    assert publish.main([str(runs), str(target)]) == 0 and "2 records" in capsys.readouterr().out
    assert {path.name for path in target.iterdir()} == {"cells.csv", "cells.jsonl"}
    assert {one.id: one for one in read_all(target)} == {one.id: one for one in stages.values()}
    large = stages["prune"]
    large.layers = [{"name": str(i)} for i in range(publish.MAX_BYTES // 10)]
    large.write(runs / "cell" / "seed1" / "prune.json")
    with pytest.raises(UserError, match="larger than"):
        publish.publish([runs], target)


def test_a_long_trajectory_is_thinned_and_says_so(tmp_path):
    long = record("prune")
    long.trajectory = [{"step": i} for i in range(publish.MAX_BYTES // 8)]
    long.write(tmp_path / "runs" / "prune.json")
    assert publish.publish([tmp_path / "runs"], tmp_path / "results") == 1
    (small,) = read_all(tmp_path / "results")
    steps = len(long.trajectory)
    assert len(json.dumps(vars(small), indent=1)) <= publish.MAX_BYTES and small.id == long.id
    every = small.trajectory[1]["step"]
    assert [entry["step"] for entry in small.trajectory[:-1]] == list(
        range(0, steps - 1, every)
    ) and every > 1
    assert small.trajectory[-1] == {"step": steps - 1}
    assert (
        small.notes[-1]
        == f"published with one in {every} of the trajectory's {steps} steps, and the last"
    )
