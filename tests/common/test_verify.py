"""Cells run again beside their committed records: what is picked, what counts as the same, what is
written, and that it goes on.
"""

import dataclasses
import json

import pytest
import torch

from common.cells import committed
from common.cells.record import Record
from common.cells.spec import Recipe, Spec
from common.commands import verify
from common.running import pipeline
from common.system import machine

CELL = Spec(
    paper="lobs",
    table="9",
    model="digits_cnn:width=0.25",
    train=Recipe(epochs=1, lr=0.05),
    method="magnitude-global",
    finetune=Recipe(epochs=1, lr=0.02),
)
SHARES = (0.5, 0.7, 0.9)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Records of three cells and their dense network, as published."""
    runs, records, threads = tmp_path_factory.mktemp("runs"), [], torch.get_num_threads()
    torch.set_num_threads(1)
    for share in SHARES:
        spec = CELL.but(cell=f"s{share}", sparsity=share, output_dir=str(runs))
        pipeline.finetune(spec)
        records += [
            Record.read(pipeline.cell_folder(spec) / f"{stage}.json")
            for stage in ("prune", "finetune")
        ]
    torch.set_num_threads(threads)
    return [*records, Record.read(pipeline.dense_folder(spec) / "train.json")]


@pytest.fixture
def results(made, tmp_path, monkeypatch):
    """A folder with those records alone, in the place of every paper's."""
    folder = tmp_path / "results"
    for record in made:
        record.write(folder / f"{record.id}.json")
    monkeypatch.setattr(committed, "results", lambda paper, root=None: folder)
    monkeypatch.setattr(machine, "code", lambda: ("c0ffee" * 6, False))
    monkeypatch.setattr(machine, "edited_since", lambda moment: False)
    caches = (committed._records, committed.by_cell, committed.dense)
    for cached in caches:
        cached.cache_clear()
    yield folder
    for cached in caches:
        cached.cache_clear()


def change(folder, cell, stage="finetune", **parts):
    """Change numbers of a published record: part -> {key: value}."""
    (path,) = (p for p in folder.glob(f"*-{stage}.json") if Record.read(p).cell == cell)
    record = Record.read(path)
    dataclasses.replace(
        record, **{part: getattr(record, part) | values for part, values in parts.items()}
    ).write(path)


def test_the_same_code_gives_the_same_cells_and_one_that_was_changed_is_off(
    results, tmp_path, capsys
):
    """Accuracy changed: off; a loss changed in its last digit: equal; untouched: bitwise, digests
    of masks and weights included.
    """
    change(results, "s0.7", accuracy={"last": 0.5})
    change(results, "s0.9", loss={"pruned": 1.25})
    output = tmp_path / "verify.json"
    words = [
        "--cells",
        "9",
        "--paper",
        "lobs",
        "--folder",
        str(tmp_path / "again"),
        "--output",
        str(output),
    ]
    assert verify.main(words) == 1
    report = json.loads(output.read_text())
    rows = {row["cell"]: row for row in report["rows"]}
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "lobs 9 s0.5 seed 0": "bitwise",
        "lobs 9 s0.7 seed 0": "off",
        "lobs 9 s0.9 seed 0": "equal",
    }
    assert rows["lobs 9 s0.7 seed 0"]["differs"][0].startswith("accuracy.last: 0.5 -> ")
    assert rows["lobs 9 s0.9 seed 0"]["differs"][0].startswith("loss.pruned: 1.25 -> ")
    assert (
        report["outcomes"] == {"bitwise": 1, "equal": 1, "off": 1, "not run": 0}
        and report["committed_cells"] == 3
    )
    assert (report["commit"], report["dirty"], report["machine"]) == (
        "c0ffee" * 6,
        False,
        machine.fingerprint(),
    )
    assert all(
        row["threads"] and row["same"] == {"machine": True, "device": True, "versions": True}
        for row in rows.values()
    )
    assert "off" in capsys.readouterr().out and not list(
        (tmp_path / "again").rglob("*.safetensors")
    )
    assert str(tmp_path) not in json.dumps(report)


def test_a_run_that_was_stopped_goes_on_and_another_commit_begins_anew(
    results, tmp_path, monkeypatch, capsys
):
    output, ran = tmp_path / "verify.json", []
    monkeypatch.setattr(verify, "again", lambda cell, *rest: ran.append(cell.name) or cell.record)
    words = [
        "--cells",
        "3",
        "--paper",
        "lobs",
        "--folder",
        str(tmp_path / "again"),
        "--output",
        str(output),
    ]
    assert verify.main(words) == 0 and len(ran) == 3
    report = json.loads(output.read_text())
    output.write_text(json.dumps(report | {"rows": report["rows"][:2]}))
    assert (
        verify.main(words) == 0
        and ran[3:] == ran[2:3]
        and "2 done before" in capsys.readouterr().out
    )
    assert [row["cell"] for row in json.loads(output.read_text())["rows"]] == ran[:3]
    assert verify.main([*words, "--seed", "2"]) == 0 and len(ran) == 7
    # what a dirty tree did is never taken up
    for state in (("beef" * 10, False), ("beef" * 10, True), ("beef" * 10, True)):
        monkeypatch.setattr(machine, "code", lambda: state)  # noqa: B023
        before = len(ran)
        assert verify.main(words) == 0 and len(ran) == before + 3


def test_a_cell_that_cannot_run_is_said_and_fails_the_whole(results, tmp_path, monkeypatch):
    again = verify.again
    for stage in ("prune", "finetune"):
        change(results, "s0.5", stage, spec={"checkpoint": "lost.safetensors"})
    # no record tells what training it would cost
    assert [cell.dense for cell in verify.pool(("lobs",))][0] == verify.UNKNOWN
    for path in results.glob("*train.json"):
        record = Record.read(path)
        dataclasses.replace(
            record, spec=record.spec | {"checkpoint": "lost.safetensors"}, id="lost"
        ).write(results / "lost.json")
    for cached in (committed._records, committed.dense):
        cached.cache_clear()
    output = tmp_path / "verify.json"
    monkeypatch.setattr(
        verify,
        "again",
        lambda cell, *rest: again(cell, *rest) if cell.spec.checkpoint else cell.record,
    )
    assert (
        verify.main(
            ["--paper", "lobs", "--folder", str(tmp_path / "again"), "--output", str(output)]
        )
        == 1
    )
    rows = {row["cell"]: row for row in json.loads(output.read_text())["rows"]}
    assert (
        rows["lobs 9 s0.5 seed 0"]["outcome"] == "not run"
        and "lost.safetensors" in rows["lobs 9 s0.5 seed 0"]["differs"][0]
    )


def test_cells_run_with_the_threads_of_their_records(results, tmp_path, monkeypatch):
    seen = {}
    for name, count in (("s0.5", 1), ("s0.7", 3)):
        change(results, name, provenance={"threads": count})
    monkeypatch.setitem(
        pipeline.VERBS, "finetune", lambda spec: seen.update({spec.cell: torch.get_num_threads()})
    )
    monkeypatch.setattr(verify, "differences", lambda old, new: ("equal", []))
    before = torch.get_num_threads()
    assert (
        verify.main(
            [
                "--paper",
                "lobs",
                "--folder",
                str(tmp_path / "again"),
                "--output",
                str(tmp_path / "verify.json"),
            ]
        )
        == 0
    )
    assert (seen["s0.5"], seen["s0.7"]) == (1, 3) and torch.get_num_threads() == before


def test_cells_are_picked_by_the_seed_within_the_seconds_and_dense_networks_count(results):
    cells = verify.pool(("lobs",))
    assert [cell.spec.cell for cell in cells] == ["s0.5", "s0.7", "s0.9"] and all(
        c.record.stage == "finetune" for c in cells
    )
    assert all(cell.seconds > 0 and cell.dense > 0 for cell in cells)
    picks = {tuple(c.spec.cell for c in verify.chosen(cells, 2, seed, 1e9)) for seed in range(20)}
    assert len(picks) > 3 and all(len(set(pick)) == 2 for pick in picks)
    assert verify.chosen(cells, 2, 5, 1e9) == verify.chosen(cells, 2, 5, 1e9)
    cells[0] = dataclasses.replace(cells[0], dense=50.0, seconds=10.0)
    assert cells[0] in verify.chosen(cells, 9, 0, 60.0) and cells[0] not in verify.chosen(
        cells, 9, 0, 59.0
    )
    assert (
        not verify.pool(("lobs",), table="8")
        and verify.main(["--paper", "lobs", "--table", "8"]) == 2
    )


def test_a_dense_network_is_taken_from_other_runs_only_by_its_digest(
    results, tmp_path, monkeypatch, one_thread
):
    cell = verify.pool(("lobs",))[0]
    runs = tmp_path / "runs"
    pipeline.train(cell.spec.but(output_dir=str(runs)))
    fits = []
    monkeypatch.setattr(
        pipeline.T,
        "fit",
        lambda *a, **k: (
            fits.append(1) or (_ for _ in ()).throw(verify.UserError("fit", 0, "called"))
        ),
    )
    for hash_, trains in ((cell.record.dense_hash, False), ("0" * 16, True)):
        record = dataclasses.replace(cell.record, dense_hash=hash_, stage="prune")
        folder = tmp_path / hash_
        try:
            verify.again(dataclasses.replace(cell, record=record), folder, "", runs)
        except verify.UserError:
            assert trains
        assert bool(fits) == trains


def test_differences_look_at_what_both_records_have():
    old = Record(
        "a",
        "p",
        "",
        "",
        "m",
        "prune",
        "cpu",
        {},
        dense_hash="1",
        accuracy={"pruned": 0.5},
        loss={"pruned": 1.0},
        layers=[{"name": "fc", "kept": 3, "total": 9}],
    )
    new = dataclasses.replace(
        old, identity={"mask_sha256": "f" * 64}, accuracy={"pruned": 0.5, "last": 0.6}
    )
    assert verify.differences(old, new) == ("bitwise", [])
    for part, value, outcome in (
        ("dense_hash", "2", "equal"),
        ("loss", {"pruned": 1.0 + 1e-12}, "equal"),
        ("layers", [{"name": "fc", "kept": 4, "total": 9}], "off"),
        ("accuracy", {"pruned": 0.5001}, "off"),
    ):
        assert verify.differences(old, dataclasses.replace(new, **{part: value}))[0] == outcome, (
            part
        )


def test_the_page_of_trust_says_what_came_of_it_last_time():
    report = json.loads(verify.OUTPUT.read_text())
    found, rows = report["outcomes"], report["rows"]
    text = " ".join((committed.ROOT / "docs" / "trust.md").read_text().split())
    assert (
        f"of {len(rows)} cells: {found['bitwise']} bitwise, {found['equal']} equal in accuracies "
        "and kept counts"
        in text
        and f"of torch), {found['off']} off" in text
        and not found["not run"]
    )
    assert (
        report["dirty"] is False
        and len(report["commit"]) == 40
        and sum(found.values()) == len(rows) == report["asked"]["cells"]
    )
    for row in rows:
        for line in row["differs"]:
            old, new = (float(value) for value in line.split(": ")[1].split(" -> "))
            assert abs(old - new) < 2e-7 * abs(old), line
