"""Processes under torchrun train the network and find the masks that one process does."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from common.cells.spec import Recipe
from common.data import sources as data
from common.nets import checkpoint, models
from common.nets.masks import digest
from common.running import pipeline
from common.running.cli import run
from common.running.train import fit
from common.system import distributed
from tests.common.verb_job import CELLS

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "--model",
    "mlpnet",
    "--dataset",
    "synthetic",
    "--epochs",
    "2",
    "--batch-size",
    "16",
    "--lr",
    "0.05",
]


def command(processes: int, *flags: str) -> list[str]:
    """The verb job of `flags` in so many processes on this machine."""
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
        "-m",
        "tests.common.verb_job",
        *flags,
    ]


def torchrun(processes: int, *flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(processes, *flags), cwd=ROOT, capture_output=True, text=True, timeout=240
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "samples"),
    [(2, 256), (3, 209)],  # 209 = 13 · 16 + 1: shares of 6, 5 and 5, and of 1, 0 and 0
)
def test_several_processes_train_what_one_trains(tmp_path, processes, samples):
    """Each takes its share of the same batches, so the averaged gradients are the same; mlpnet has
    no BatchNorm.
    """
    flags = [*FLAGS, "--dataset", f"synthetic:samples={samples}"]
    assert run("common", "train", argv=[*flags, "--output-dir", str(tmp_path / "one")]) == 0
    done = torchrun(processes, "train", *flags, "--output-dir", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("accuracy") == 1  # the first process alone reports
    one, two = (
        checkpoint.load(next((tmp_path / name).rglob("model.safetensors"))).model
        for name in ("one", "two")
    )
    for a, b in zip(one.parameters(), two.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    seen = [
        [
            e["train_loss"]
            for e in json.loads(next((tmp_path / name).rglob("train.json")).read_text())[
                "trajectory"
            ][1:]
        ]
        for name in ("one", "two")
    ]
    # of the whole batch, and not of the first process's share
    assert seen[0] == pytest.approx(seen[1], rel=1e-4)


@pytest.mark.parametrize("examples", [1, 2, 16, 17])
def test_shares_of_a_batch_are_what_each_process_has_of_it(examples, monkeypatch):
    found = data.load("synthetic:samples=64,channels=1,size=8,classes=4")
    monkeypatch.setattr(distributed, "world", lambda: 3)
    for rank, share in enumerate([-(-(examples - rank) // 3) / examples for rank in range(3)]):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        assert distributed.share(examples) == share
        _, y = next(iter(found.train_loader(examples, rank=rank, world=3)))
        assert len(y) == max(1, round(share * examples))


def test_a_loss_that_is_not_finite_elsewhere_stops_this_process_too(monkeypatch):
    """As all would wait for the one that stopped."""
    monkeypatch.setattr(
        distributed, "add_up", lambda tensors: [tensor.fill_(float("nan")) for tensor in tensors]
    )
    found = data.load("synthetic:samples=64,channels=1,size=8,classes=4")
    model = models.build("mlpnet", 4, (1, 8, 8), 0)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    assert fit(model, found, Recipe(epochs=1, lr=0.05, batch_size=16)).diverged == 0
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """The cells pruned by one process; its dense network is the others' too."""
    folder = tmp_path_factory.mktemp("one")
    assert (
        run("common", "prune", {"all": CELLS}, argv=["--table", "all", "--output-dir", str(folder)])
        == 0
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_find_the_masks_of_one(one_process, tmp_path, processes):
    """Batches are dealt out and their curvature added up; every kind of it ends in the same masks
    and weights.
    """
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
        for (name, a), b in zip(
            one.model.state_dict().items(), many.model.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(
                a, b, rtol=1e-5, atol=1e-6, msg=f"{path.parent.parent.name} {name}"
            )


@pytest.mark.slow
def test_one_process_that_fails_ends_the_job(tmp_path):
    """A batch that is left for no process is refused by name, and torchrun ends the others."""
    done = torchrun(
        2,
        "prune",
        "--table",
        "all",
        "--cell",
        "kron",
        "--num-samples",
        "100",
        "--output-dir",
        str(tmp_path),
    )
    assert done.returncode != 0
    assert "calibration=0: no batch was seen" in done.stderr


def worker(job: subprocess.Popen, rank: int) -> int:
    """Process id of a rank of a running job."""
    for pid in Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return int(pid)
    raise AssertionError("no such rank")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes by /proc")
def test_a_killed_process_ends_the_job_and_running_it_again_goes_on(tmp_path):
    """Rank 0, which writes the files and holds the lock, is killed after its first snapshot; the
    network that the second run ends with is the uninterrupted job's, bit by bit."""
    flags = ["train", *FLAGS, "--epochs", "60"]
    whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
    assert torchrun(2, *flags, "--output-dir", whole).returncode == 0
    job = subprocess.Popen(
        command(2, *flags, "--output-dir", broken), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list(Path(broken).rglob("train-snapshot*")):
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(worker(job, 0), signal.SIGKILL)
    complaint = job.communicate(timeout=30)[1]
    assert job.returncode != 0 and "SIGKILL" in complaint, complaint[-3000:]
    assert "[rank1]" not in complaint  # the one that is left prints no traceback
    assert not list(Path(broken).rglob("train.json"))
    done = torchrun(2, *flags, "--output-dir", broken)
    assert done.returncode == 0 and int(re.search(r"resuming at step (\d+)", done.stderr)[1]) > 0
    one, two = (
        json.loads(next((tmp_path / name).rglob("train.json")).read_text())
        for name in ("whole", "broken")
    )
    assert one["dense_hash"] == two["dense_hash"] and one["accuracy"] == two["accuracy"]


def test_a_process_that_is_left_alone_says_what_to_do(monkeypatch, capsys, tmp_path):
    """The loss of another process, which gloo and NCCL report as a RuntimeError, is one line; any
    other error is not hidden.
    """

    def lose(
        spec,
        error="[/gloo/transport/tcp/pair.cc:545] Read error [::1]:26339: Connection reset by peer",
    ):
        raise RuntimeError(error)

    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
    monkeypatch.setitem(pipeline.VERBS, "train", lose)
    assert run("common", "train", argv=[*FLAGS, "--output-dir", str(tmp_path)]) == 2
    assert (
        "process=1: another process of this job has ended or cannot be reached; run the same"
        in capsys.readouterr().err
    )
    monkeypatch.setitem(
        pipeline.VERBS,
        "train",
        lambda spec: lose(spec, "mat1 and mat2 shapes cannot be multiplied"),
    )
    with pytest.raises(RuntimeError, match="shapes"):
        run("common", "train", argv=[*FLAGS, "--output-dir", str(tmp_path)])


def processes_as_threads(monkeypatch, world: int, work) -> dict[int, object]:
    """work(rank) of every rank, run as threads that meet where the code gathers what they know."""
    here, meet, parts, results = threading.local(), threading.Barrier(world, timeout=30), {}, {}

    def gathered(known, names):
        parts[here.rank] = known
        meet.wait()
        merged = {name: value for part in parts.values() for name, value in part.items()}
        meet.wait()
        return {name: merged[name] for name in names}

    def process(rank):
        here.rank = rank
        results[rank] = work(rank)

    monkeypatch.setattr(distributed, "rank", lambda: here.rank)
    monkeypatch.setattr(distributed, "world", lambda: world)
    monkeypatch.setattr(distributed, "gathered", gathered)
    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("world", [1, 2, 5])  # fewer processes than names, and more
def test_each_name_is_worked_on_by_one_process_and_all_receive_its_result(
    monkeypatch, world, in_turn
):
    done = {rank: [] for rank in range(world)}

    def process(rank):
        results = []
        for name, result in distributed.each(
            "abc", lambda name: done[rank].append(name) or (name.upper(), len(results)), in_turn
        ):
            results.append((name, result[0]))
            if in_turn:  # the results before it were there when it was worked on
                assert result[1] == "abc".index(name)
        return results

    results = processes_as_threads(monkeypatch, world, process)
    assert list(results.values()) == [[("a", "A"), ("b", "B"), ("c", "C")]] * world
    assert sorted(sum(done.values(), [])) == ["a", "b", "c"]
    assert all(done[i % world].count(name) == 1 for i, name in enumerate("abc"))


def test_one_process_works_as_it_is_asked():
    """A result reaches the caller before the next name is begun, so that it may build on it."""
    order = []
    for name, result in distributed.each(["a", "b"], lambda name: order.append(name) or len(order)):
        order.append((name, result))
    assert order == ["a", ("a", 1), "b", ("b", 3)]
