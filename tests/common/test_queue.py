"""A list of cells worked down: in order, none twice, none lost, what fails named, whoever is
killed.
"""

import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from common.cells import committed, library
from common.cells.errors import UserError
from common.cells.record import Record
from common.cells.spec import Recipe, Spec
from common.commands import campaign, queue
from common.commands.campaign import Entry, Job
from common.running import pipeline
from common.system import machine

ROOT = Path(__file__).resolve().parents[2]
ENTRY = Entry(
    "first", "because", "a claim", 2.0, paper="demo", verb="prune", table="1", cells=("*",)
)
GOOD = {
    "name": "a",
    "why": "b",
    "decides": "c",
    "minutes": 3,
    "paper": "lobs",
    "verb": "finetune",
    "table": "1",
    "cells": ["lenet5-*"],
}
WRITE = """
import json, sys, time
from pathlib import Path
log, seconds, *paths = sys.argv[1:sys.argv.index("--shard")]
open(log, "a").write(f"{paths[0]} {time.time()}\\n")
time.sleep(float(seconds))
for path in paths:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("{}")
open(log, "a").write(f"{paths[0]} {time.time()}\\n")
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of runs, nothing committed, no waiting, and the costs read off nothing."""
    monkeypatch.setattr(committed, "stages", lambda spec: {})
    monkeypatch.setattr(campaign.Job, "seconds", lambda job: None)
    monkeypatch.setattr(queue, "POLL", 0.05)
    return tmp_path


def job(place, name, seconds=0.0, code=WRITE, training=None, entry=ENTRY, **changes):
    """A job whose process notes when it runs, and leaves the record of its cell."""
    spec = Spec(
        paper="demo",
        cell=name,
        method="random",
        sparsity=0.5,
        output_dir=str(place / "runs"),
        num_samples=ord(name[0]),
        **{"seed": 0} | changes,
    )
    log, record = str(place / "log"), str(pipeline.cell_folder(spec) / "prune.json")
    train = (
        ("-c", code, log, str(seconds), str(pipeline.dense_folder(spec) / "train.json"))
        if training
        else ()
    )
    return Job(entry, name, ("-c", code, log, str(seconds), record), (spec,), train)


def lane(place, i=1, n=1, **more):
    return queue.Lane(i, n, place / "runs", "c0ffee", **more)


def ran(place):
    """path -> the times of begin and end of each run of its process, in the order of the log."""
    found = {}
    for line in (place / "log").read_text().splitlines():
        path, moment = line.rsplit(" ", 1)
        found.setdefault(path, []).append(float(moment))
    return found


# -- the list --------------------------------------------------------------------------------------


def written(tmp_path, *entries):
    lines = []
    for entry in entries:
        lines += ["[[entry]]", *(f"{key} = {value!r}" for key, value in entry.items())]
    path = tmp_path / "list.toml"
    path.write_text("\n".join(lines))
    return path


def test_a_list_names_cells_in_its_order_each_once(tmp_path):
    dense = GOOD | {"name": "b", "verb": "train", "cells": ["lenet5-8.4-obd"]}
    path = written(tmp_path, GOOD | {"cells": ["lenet5-*-lwc*", "lenet5-*"]}, dense)
    jobs = campaign.jobs(campaign.read(path), "elsewhere", "")
    names = [one.name for one in jobs if one.entry.name == "a"]
    assert len(names) == len(set(names)) > 3 and all(
        "lwc" in name for name in names[: sum("lwc" in n for n in names)]
    )
    assert jobs[0].command == (
        "-m",
        "lobs.finetune",
        "--table",
        "1",
        "--cell",
        names[0],
        "--output-dir",
        "elsewhere",
    )
    assert (
        jobs[0].training == ("-m", "lobs.train", *jobs[0].command[2:]) and jobs[-1].training == ()
    )
    assert (
        jobs[-1].records == [jobs[-1].dense / "train.json"]
        and jobs[0].records[0].name == "finetune.json"
    )


def test_a_comparison_is_a_job_for_each_method_and_amount_with_all_its_seeds(tmp_path):
    values = {k: GOOD[k] for k in ("name", "why", "decides", "minutes")}
    values["compare"] = "--dataset digits --methods random,nap-channel --seeds 2"
    jobs = campaign.jobs(campaign.read(written(tmp_path, values)), "runs", "")
    assert len(jobs) == 6 + 5 and all([s.seed for s in one.specs] == [0, 1] for one in jobs)
    first = jobs[0]
    assert first.command == (
        "-m",
        "common.commands.compare",
        "--dataset",
        "digits",
        "--methods",
        "random,nap-channel",
        "--seeds",
        "2",
        "--methods",
        "random",
        "--sparsities",
        "0.5",
    )
    again = campaign.compare.grid(campaign.compare.parser().parse_args(list(first.command[2:])))
    assert tuple(again) == first.specs  # the words make just these cells


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"why": None}, "lacks why"),
        ({"decides": ""}, "lacks decides"),
        ({"minutes": None}, "lacks minutes"),
        ({"minutes": -1}, "positive"),
        ({"minutes": "3"}, "wrong type"),
        ({"cells": "lenet5"}, "wrong type"),
        ({"cells": [1]}, "wrong type"),
        ({"verb": "tune"}, "choose one of"),
        ({"verb": None}, "lacks verb"),
        ({"cells": []}, "lacks cells"),
        ({"table": None}, "lacks figure"),
        ({"figure": "2a"}, "in its place"),
        ({"scale": "big"}, "choose one of"),
        ({"seeds": "3"}, "no field 'seeds'"),
        ({"compare": "--seeds 1"}, "in its place"),
    ],
)
def test_an_entry_that_is_wrong_is_named_with_its_field(tmp_path, change, said):
    values = {k: v for k, v in (GOOD | change).items() if v is not None}
    with pytest.raises(UserError, match=said):
        campaign.read(written(tmp_path, values))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cells": ["zz*"]}, "no such cell"),
        ({"table": "99"}, "choose one of"),
        ({"paper": "lobz"}, "no experiments"),
        ({"scale": "quick"}, "no such cell"),
    ],
)
def test_an_entry_that_names_nothing_is_refused(tmp_path, change, said):
    with pytest.raises(UserError, match=said):
        campaign.jobs(campaign.read(written(tmp_path, GOOD | change)), "runs", "")


@pytest.mark.parametrize("text", ["", "a = 1", "[[entry]\n", "entry = 3"])
def test_a_file_that_is_no_list_is_refused(tmp_path, text):
    (tmp_path / "list.toml").write_text(text)
    with pytest.raises(UserError, match="file="):
        campaign.read(tmp_path / "list.toml")
    with pytest.raises(UserError, match="twice"):
        campaign.read(written(tmp_path, GOOD, GOOD))


def test_the_committed_list_holds():
    jobs = campaign.jobs(campaign.read(ROOT / "campaign.toml"), "runs", "")
    papers = [one for one in jobs if one.entry.paper]
    assert len(papers) > 20 and all(spec.scale != "quick" for one in papers for spec in one.specs)


# -- what is left ----------------------------------------------------------------------------------


def made(spec, stage, timing, **provenance):
    return Record(
        "id",
        "demo",
        "",
        spec.cell,
        "random",
        stage,
        "cpu",
        spec.to_dict(),
        timing=timing,
        provenance={"dirty": False, "threads": 1} | provenance,
    )


def test_a_committed_record_of_a_clean_tree_finishes_a_cell_and_one_of_a_dirty_tree_tells_its_cost(
    tmp_path, monkeypatch
):
    one, kept = job(tmp_path, "a"), {}
    monkeypatch.setattr(committed, "stages", lambda spec: dict(kept))
    for stage, provenance, finished in (
        ("train", {}, False),
        ("prune", {"dirty": True}, False),
        ("prune", {}, True),
    ):
        kept[stage] = made(one.specs[0], stage, {"prune_s": 50.0, "core_s": 40.0}, **provenance)
        fresh = dataclasses.replace(one)
        assert fresh.finished() == finished
        assert fresh.seconds() == (40.0 if stage == "prune" else None)


def test_costs_are_a_cells_own_or_its_siblings_mean_or_the_lists(tmp_path, monkeypatch):
    monkeypatch.setattr(committed, "stages", lambda spec: {})
    other = dataclasses.replace(ENTRY, name="second", minutes=7.0)
    jobs = [
        job(tmp_path, name, entry=entry)
        for name, entry in (("a", ENTRY), ("b", ENTRY), ("c", ENTRY), ("d", other))
    ]
    for one, seconds in zip(jobs[:2], (10.0, 30.0)):
        made(one.specs[0], "prune", {"prune_s": 99.0, "core_s": seconds}).write(one.records[0])
    assert [(one.name, seconds) for one, seconds in campaign.left(jobs)] == [
        ("c", 20.0),
        ("d", 420.0),
    ]
    first, second, total = campaign.overview(jobs, 2)
    assert (
        "2 of 3" in first
        and "0.3 core-minutes left" in first
        and "0 of 1" in second
        and "7.0 core-minutes" in second
    )
    assert total.startswith("2 to do, 7.3 core-minutes: until about ") and total.endswith("2 lanes")


def test_the_end_is_no_earlier_than_the_longest_cell(monkeypatch):
    class Clock(campaign.datetime):
        @classmethod
        def now(cls):
            return cls(2026, 1, 5, 12, 0)

    monkeypatch.setattr(campaign, "datetime", Clock)
    assert "Mon 13:00" in campaign.forecast(
        [(None, 3600.0), (None, 60.0)], 2
    ) and "Mon 12:30" in campaign.forecast([(None, 1800.0)] * 2, 2)
    assert campaign.forecast([], 2) == "nothing is left"


# -- a lane ----------------------------------------------------------------------------------------


def test_a_lane_goes_through_the_list_in_order_and_skips_what_is_finished(place, capsys):
    jobs = [job(place, name) for name in "abc"]
    jobs[1].records[0].parent.mkdir(parents=True)
    jobs[1].records[0].write_text("{}")
    assert lane(place).run(jobs) == 0
    assert list(ran(place)) == [str(jobs[0].records[0]), str(jobs[2].records[0])]
    assert "2 to do, 4.0 core-minutes" in capsys.readouterr().out
    assert lane(place).run(jobs) == 0 and len(ran(place)[str(jobs[0].records[0])]) == 2


def test_what_fails_is_named_and_not_tried_again_at_the_same_commit(place, capsys):
    code = (
        "import sys; open(sys.argv[1], 'a').write(f'{sys.argv[3]} 0\\n'); print('before'); "
        "print('error: bad luck'); sys.exit(2)"
    )
    jobs = [job(place, "a", code=code), job(place, "b")]
    assert lane(place).run(jobs) == 1 and jobs[1].finished() and not jobs[0].finished()
    assert (jobs[0].folders[0] / "failed.txt").read_text() == "c0ffee error: bad luck (status 2)\n"
    assert (
        "FAILED: error: bad luck" in capsys.readouterr().out
        and "before" in (place / "runs" / "queue" / "lane1.log").read_text()
    )
    assert lane(place).run(jobs) == 1 and len(ran(place)[str(jobs[0].records[0])]) == 1
    assert lane(place, again=True).run(jobs) == 1 and len(ran(place)[str(jobs[0].records[0])]) == 2
    mended = queue.Lane(1, 1, place / "runs", "beef")
    assert mended.run([job(place, "a")]) == 0 and not mended.failed(jobs[0])


def test_a_process_that_says_all_is_well_and_leaves_nothing_has_failed(place):
    assert lane(place).run([job(place, "a", code="pass")]) == 1


def test_a_cell_in_other_hands_is_passed_over_and_taken_when_it_is_free(place):
    jobs = [job(place, "a"), job(place, "b")]
    folder = jobs[0].folders[0]
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as claimed:
        fcntl.flock(claimed, fcntl.LOCK_EX)
        worker = threading.Thread(target=lane(place).run, args=(jobs,))
        worker.start()
        end = time.monotonic() + 20
        while not jobs[1].finished() and time.monotonic() < end:
            time.sleep(0.01)
        assert jobs[1].finished() and not jobs[0].finished() and worker.is_alive()
    worker.join(20)
    assert (
        not worker.is_alive()
        and jobs[0].finished()
        and list(ran(place)) == [str(j.records[0]) for j in reversed(jobs)]
    )


def test_two_lanes_compute_all_once_and_none_waits_for_a_dense_network_while_there_is_work(place):
    shared = {"training": True, "seconds": 0.5, "train": Recipe(epochs=1)}
    jobs = [
        job(place, "a", **shared),
        job(place, "b", **shared),
        job(place, "c", seconds=0.2),
        job(place, "d", seconds=0.2),
    ]
    workers = [threading.Thread(target=lane(place, i, 2).run, args=(jobs,)) for i in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    times = ran(place)
    dense = str(jobs[0].dense / "train.json")
    assert set(times) == {dense, *(str(one.records[0]) for one in jobs)} and all(
        len(t) == 2 for t in times.values()
    )
    trained = times[dense][1]
    assert all(times[str(one.records[0])][0] >= trained for one in jobs[:2])
    assert times[str(jobs[2].records[0])][0] < trained  # the second lane did not wait


def test_a_dense_network_that_fails_fails_its_cell(place):
    one = job(place, "a", training=True, train=Recipe(epochs=1))
    broken = dataclasses.replace(one, training=("-c", "raise SystemExit('no data')"))
    assert (
        lane(place).run([broken]) == 1
        and "no data (status 1)" in (one.folders[0] / "failed.txt").read_text()
    )


# -- whole seeds -----------------------------------------------------------------------------------


def test_whole_seeds_are_published_and_halves_are_not(place, monkeypatch):
    monkeypatch.setattr(committed, "results", lambda paper, root=None: place / paper / "results")
    jobs = [job(place, f"{name}-seed{seed}", seed=seed) for seed in (0, 1) for name in "ab"]
    for one in jobs[:3]:
        dataclasses.replace(made(one.specs[0], "prune", {}, git="1" * 40), id=one.name).write(
            one.records[0]
        )
    dataclasses.replace(made(jobs[0].specs[0], "train", {}, git="1" * 40), id="dense").write(
        jobs[0].dense / "train.json"
    )
    assert list(queue.publish(jobs)) == [
        "first, seed 0: 3 records",
        "first, seed 1: 1 of 2 cells are not there yet",
    ]
    published = {record.id for record in library.read_all(place / "demo" / "results")}
    assert published == {"a-seed0", "b-seed0", "dense"}
    made(jobs[0].specs[0], "prune", {}, git="1" * 40, dirty=True).write(jobs[0].records[0])
    with pytest.raises(UserError, match="dirty"):
        list(queue.publish(jobs))


# -- the command line ------------------------------------------------------------------------------


def test_a_tree_that_differs_from_its_commit_is_refused(tmp_path, monkeypatch, capsys):
    path = str(written(tmp_path, GOOD))
    for state in (("c0ffee", True), ("", False)):
        monkeypatch.setattr(machine, "code", lambda: state)  # noqa: B023
        assert queue.main([path, "--output-dir", str(tmp_path / "runs")]) == 2
        assert (
            "differs from its commit" in capsys.readouterr().err
            and not (tmp_path / "runs" / "queue").exists()
        )
    # looking is free
    assert queue.main([path, "--list", "--output-dir", str(tmp_path / "runs")]) == 0
    assert "core-minutes" in capsys.readouterr().out
    monkeypatch.setattr(machine, "code", lambda: ("c0ffee", False))
    assert queue.main([path, "--lanes", "999"]) == 2 and "fewer" in capsys.readouterr().err
    assert queue.main([path, "--only", "zz"]) == 2 and "no entry" in capsys.readouterr().err


EXPERIMENTS = """
from common.cells.spec import Recipe, Spec
_BASE = Spec(paper="demo", table="1", model="digits_cnn:width=0.25",
             train=Recipe(epochs=6, lr=0.05), method="magnitude-global",
             finetune=Recipe(epochs=3, lr=0.02))
TABLES = {"1": {f"s{s}": _BASE.but(cell=f"s{s}", sparsity=s) for s in (0.3, 0.5, 0.7)}}
FIGURES = {}
"""
VERB = (
    "import sys\nfrom common.running.cli import run\nfrom demo.experiments import "
    "TABLES\nsys.exit(run('demo', {verb!r}, TABLES))\n"
)


@pytest.mark.slow
def test_a_queue_that_is_killed_again_and_again_ends_with_every_cell_once(tmp_path):
    """kill -9 of the whole group, then of the lane alone, then Ctrl-C, at moments of real training;
    then one run to the end.
    """
    package = tmp_path / "demo"
    package.mkdir()
    (package / "experiments.py").write_text(EXPERIMENTS)
    for verb in ("train", "prune", "finetune"):
        (package / f"{verb}.py").write_text(VERB.format(verb=verb))
    values = GOOD | {"paper": "demo", "cells": ["*"], "minutes": 0.1}
    command = [
        sys.executable,
        "-m",
        "common.commands.queue",
        str(written(tmp_path, values)),
        "--dirty",
        "--output-dir",
        str(tmp_path / "runs"),
    ]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    def start():
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def kill(process, how, after):
        assert b"demo" in process.stdout.readline()  # the first cell has begun
        time.sleep(after)
        how(process)
        process.wait(30)
        process.stdout.close()

    kill(start(), lambda p: os.killpg(p.pid, signal.SIGKILL), 6)
    kill(start(), lambda p: p.kill(), 1)  # its child goes on alone, and holds its cell
    kill(start(), lambda p: os.killpg(p.pid, signal.SIGINT), 3)
    last = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200
    )
    assert last.returncode == 0, last.stdout + last.stderr
    records = [Record.read(path) for path in sorted((tmp_path / "runs").rglob("finetune.json"))]
    assert (
        sorted(record.cell for record in records) == ["s0.3", "s0.5", "s0.7"]
        and len({r.dense_hash for r in records}) == 1
    )
    assert all(r.provenance["threads"] == 1 for r in records) and not list(
        (tmp_path / "runs").rglob("*snapshot*")
    )
    again = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert again.returncode == 0 and "demo" not in again.stdout
