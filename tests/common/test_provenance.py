"""What a record says of the code, the machine and the load that made it, and that the tables'
seconds count each second once.
"""

import os
import subprocess
import sys
import time
import types

import pytest

from common.cells import committed
from common.cells.library import read_all
from common.cells.record import Record, core_seconds, wall_seconds
from common.cells.spec import Recipe, Spec
from common.running import pipeline, stages
from common.running.timing import Timer
from common.system import machine
from tests.trust import evidence


@pytest.fixture
def checkout(tmp_path):
    """A repository with a module, a record and an ignored folder, all committed."""

    def git(*words):
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words],
            check=True,
            capture_output=True,
        )

    for folder in ("paper/results", "docs/evidence"):
        (tmp_path / folder).mkdir(parents=True)
    for name, text in (
        (".gitignore", "runs/\n"),
        ("paper/method.py", "one = 1\n"),
        ("paper/results/a.json", "{}"),
        ("docs/evidence/verify.json", "{}"),
        ("notes.md", "a"),
    ):
        (tmp_path / name).write_text(text)
    git("init", "-q"), git("add", "-A"), git("commit", "-qm", "a")
    return tmp_path


def test_a_clean_tree_names_its_commit_and_what_is_no_code_leaves_it_clean(checkout):
    commit, dirty = machine.git_state(checkout)
    head = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    assert (commit, dirty) == (head, False)
    for name in (
        "runs/a/prune.json",
        "runs/late.py",
        "data/x.bin",
        "paper/results/b.json",
        "draft.md",
    ):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("new")
        assert machine.git_state(checkout) == (head, False), name
    for name in ("paper/results/a.json", "docs/evidence/verify.json"):  # published or found again
        (checkout / name).write_text('{"again": 1}')
        assert machine.git_state(checkout) == (head, False), name


@pytest.mark.parametrize("name", ["paper/method.py", "paper/added.py", "notes.md"])
def test_code_that_is_in_no_commit_makes_the_tree_dirty(checkout, name):
    (checkout / name).write_text("two = 2\n")
    assert machine.git_state(checkout)[1]


def test_outside_a_checkout_there_is_no_commit(tmp_path):
    assert machine.git_state(tmp_path / "nowhere") == ("", False)


def test_a_module_that_changes_under_a_running_process_is_noticed(tmp_path, monkeypatch):
    file, moment = tmp_path / "late.py", time.time() - 60
    file.write_text("")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "library.py").write_text("")
    for name, where in (
        ("late_module", file),
        ("library_module", tmp_path / ".venv" / "library.py"),
    ):
        module = types.ModuleType(name)
        module.__file__ = str(where)
        monkeypatch.setitem(sys.modules, name, module)
    os.utime(file, (moment - 5, moment - 5))
    assert not machine.edited_since(moment, tmp_path)  # what is installed beside it does not count
    os.utime(file, (moment + 5, moment + 5))
    assert machine.edited_since(moment, tmp_path) and not machine.edited_since(
        moment, tmp_path / "elsewhere"
    )


def test_the_commit_is_the_one_from_which_the_stage_began(monkeypatch):
    states = iter([("began", False), ("later", True)])
    monkeypatch.setattr(machine, "git_state", lambda root: next(states))
    machine.code.cache_clear()
    try:
        Timer()
        found = machine.provenance(machine.torch.device("cpu"), 0)
        assert (found["git"], found["dirty"]) == ("began", machine.edited_since(machine.STARTED))
    finally:
        machine.code.cache_clear()


def test_the_fingerprint_tells_machines_apart_and_names_none(monkeypatch):
    seen = set()
    for node, processor in (("host-a", "x"), ("host-b", "x"), ("host-a", "y")):
        monkeypatch.setattr(machine.platform, "node", lambda: node)  # noqa: B023  asked for at once
        monkeypatch.setattr(machine, "_processor", lambda: processor)  # noqa: B023
        machine.fingerprint.cache_clear()
        seen.add(machine.fingerprint())
        assert machine.fingerprint() == machine.fingerprint() and node not in machine.fingerprint()
    machine.fingerprint.cache_clear()
    assert len(seen) == 3


def test_processor_time_counts_this_stage_alone_and_idle_time_not():
    Timer()
    sum(i * i for i in range(3_000_000))  # before the stage
    timer = Timer()
    with timer.phase("wait"):
        time.sleep(0.3)
    with timer.phase("work"):
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
    report = timer.report()
    assert 0.3 <= report["core_s"] < 0.55 and report["wait_s"] >= 0.3


def test_a_phase_that_comes_again_adds_its_seconds():
    timer = Timer()
    for _ in range(3):
        with timer.phase("prune"):
            time.sleep(0.05)
        with timer.phase("finetune"):
            pass
    report = timer.report()
    assert 0.15 <= report["prune_s"] < 1 and report["finetune_s"] < 0.05


def test_contention_is_said_of_a_machine_on_which_more_runs_than_it_has_cores_for(monkeypatch):
    for loads, contended in (((0.2, 0.9, 1.0), False), ((0.2, 2.5, 1.0), True)):
        told = iter(loads)
        monkeypatch.setattr(machine, "load", lambda: next(told))  # noqa: B023
        timer = Timer()
        for _ in loads[1:]:
            with timer.phase("work"):
                pass
        assert timer.load() == {
            "mean": round(sum(loads) / 3, 2),
            "max": max(loads),
            "contended": contended,
        }
    monkeypatch.setattr(machine, "load", lambda: None)
    assert Timer().load() == {}


def test_seconds_count_each_second_once():
    timing = {"prune_s": 2.0, "evaluate_s": 1.0, "core_s": 5.5, "peak_rss_mb": 9.0}
    record = Record(
        "a", "p", "", "", "m", "prune", "cpu", {}, timing=timing, provenance={"threads": 2}
    )
    assert wall_seconds(record) == 3.0 and core_seconds(record) == 5.5
    del record.timing["core_s"]
    assert core_seconds(record) == 6.0  # an older record: by the clock, for each thread


def test_the_seconds_of_a_stage_that_was_taken_up_again_say_so(tmp_path, monkeypatch, one_thread):
    """Killed within fine-tuning, as by a machine that goes down: the record that follows does not
    pass its half for the whole.
    """
    spec = Spec(
        model="digits_cnn:width=0.25",
        train=Recipe(epochs=1, lr=0.05),
        method="magnitude-global",
        sparsity=0.5,
        finetune=Recipe(epochs=3, lr=0.02),
        output_dir=str(tmp_path),
    )
    whole = pipeline.prune(spec)
    monkeypatch.setattr(pipeline.T, "SNAPSHOT_SECONDS", -1.0)
    with monkeypatch.context() as context:
        context.setattr(stages.Stage, "publish", lambda *parts: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            pipeline.finetune(spec)
    assert list(pipeline.cell_folder(spec).glob("finetune-snapshot*"))
    tuned = pipeline.finetune(spec)
    assert tuned.timing["resumed"] is True and "resumed" not in whole.timing
    assert not list(pipeline.cell_folder(spec).glob("*snapshot*"))


def test_new_records_were_made_by_the_code_that_their_commit_holds():
    """Records from before there was a machine's fingerprint may be of a dirty tree (the README says
    how many); none since.
    """
    known = subprocess.run(
        ["git", "-C", str(machine.ROOT), "rev-list", "HEAD"], capture_output=True, text=True
    ).stdout.split()
    shallow = subprocess.run(
        ["git", "-C", str(machine.ROOT), "rev-parse", "--is-shallow-repository"],
        capture_output=True,
        text=True,
    )
    whole = set(known) if shallow.stdout.strip() == "false" else None
    seen = 0
    for paper in (*evidence.PAPERS, "compare"):
        for record in read_all(committed.results(paper)):
            made = record.provenance
            if "machine" not in made:
                continue
            seen += 1
            assert (
                made["dirty"] is False and made["git"] and (whole is None or made["git"] in whole)
            ), record.id
            if record.identity:  # a stage of a cell, and no study
                assert made["load"] and made["data_sha256"] == record.identity["data_sha256"], (
                    record.id
                )
                assert record.identity["file_sha256"] and (
                    record.stage == "train" or record.identity["mask_sha256"]
                ), record.id
                assert record.dense_hash and record.timing["core_s"] > 0, record.id
    assert seen
