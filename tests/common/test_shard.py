"""Cells shared out among processes: none lost, none computed twice."""

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.cells.errors import Busy, UserError
from common.running.cli import run
from common.system import shard
from common.system.claims import claim

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "a/b", "1/", "-1/2", "1/2/3"])
def test_a_shard_that_cannot_be_is_refused(text):
    with pytest.raises(UserError, match="shard="):
        shard.parse(text)


@pytest.mark.parametrize("count,n", [(10, 1), (10, 3), (2, 5), (0, 2)])
def test_every_shard_goes_through_every_cell_once_and_starts_elsewhere(count, n):
    orders = [shard.order(count, f"{i}/{n}") for i in range(1, n + 1)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    assert len({order[0] for order in orders if order}) == min(count, n)


def test_a_cell_in_other_hands_is_tried_again_and_then_left():
    calls = []

    def work(cell):
        calls.append(cell)
        if cell == "always" or (cell == "once" and calls.count("once") == 1):
            raise Busy("output_dir", cell, "busy")
        return cell.upper()

    assert dict(shard.work(["once", "free", "always"], work, "1/2")) == {1: "FREE", 0: "ONCE"}
    with pytest.raises(Busy):
        list(shard.work(["always"], work))


def _compute(folder: Path, shard_text: str) -> None:
    def one(cell: str) -> None:
        with claim(folder / cell):
            if not (folder / cell / "done").exists():
                with (folder / cell / "log").open("a") as log:
                    log.write("computed\n")
                time.sleep(0.01)
                (folder / cell / "done").touch()

    list(shard.work([f"cell{i}" for i in range(30)], one, shard_text))


def test_four_processes_on_one_folder_compute_each_cell_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_compute, args=(tmp_path, f"{i}/4")) for i in range(1, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert [(tmp_path / f"cell{i}" / "log").read_text() for i in range(30)] == ["computed\n"] * 30


@pytest.mark.slow
def test_two_shards_of_the_comparison_share_one_dense_network(tmp_path):
    """The second waits for the first's dense network instead of training it too; together they
    leave every record.
    """
    command = [
        sys.executable,
        "-m",
        "common.commands.compare",
        "--dataset",
        "synthetic",
        "--methods",
        "random,magnitude-global",
        "--sparsities",
        "0.5,0.8",
        "--seeds",
        "2",
        "--train-epochs",
        "1",
        "--epochs",
        "0.5",
        "--num-samples",
        "100",
        "--output-dir",
        str(tmp_path),
    ]
    running = [
        subprocess.Popen(
            [*command, "--shard", f"{i}/2"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in (1, 2)
    ]
    output = [process.communicate(timeout=240) for process in running]
    assert [process.returncode for process in running] == [0, 0], output
    assert len(list(tmp_path.rglob("train.json"))) == 1
    assert len(list(tmp_path.rglob("finetune.json"))) == 8


def test_the_command_line_names_a_bad_shard(capsys, tmp_path):
    assert run("common", "train", argv=["--shard", "3/2", "--output-dir", str(tmp_path)]) == 2
    assert "shard='3/2'" in capsys.readouterr().err
