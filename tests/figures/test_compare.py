"""The comparison's table says exactly what the records say, and says nothing when they may not be
compared.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.cells.errors import UserError
from common.cells.record import Record
from figures import columns, compare, panels, side_panels, style
from figures.records import Stat, gather
from tests.figures.fixtures import pair, record, small, train_record, write

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def no_pictures(monkeypatch):
    """For what is said of the tables alone."""
    monkeypatch.setattr(side_panels, "draw", lambda comparison, folders: [])


def table(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """table.csv by (method, amount)."""
    with (folder / "table.csv").open(newline="") as file:
        return {(line["method"], line["amount"]): line for line in csv.DictReader(file)}


def test_table_has_the_records_numbers(tmp_path, no_pictures):
    compare.compare([write(small(), tmp_path / "runs")], tmp_path / "out")
    lines = table(tmp_path / "out")
    assert len(lines) == 6
    obd = lines["obd-global", "0.9"]
    expected = {
        "accuracy_dense": 0.98,
        "accuracy_pruned_mean": 0.15,
        "accuracy_pruned_std": 0.01,
        "accuracy_pruned_min": 0.14,
        "accuracy_finetuned_mean": 0.88,
        "accuracy_finetuned_std": 0.01,
        "accuracy_finetuned_max": 0.89,
        "accuracy_finetuned_n": 3,
        "predicted_increase_mean": 0.25,
        "measured_increase_mean": 0.5,
        "kept_weights_mean": 0.1,
        "kept_macs_mean": 0.55,
        "achieved_sparsity_mean": 0.9,
        "core_s_mean": 2,
        "peak_rss_mb_max": 302,
    }
    assert {name: float(obd[name]) for name in expected} == pytest.approx(expected)
    assert lines["magnitude-global", "0.5"]["predicted_increase_mean"] == ""
    assert lines["eigendamage", "0.5"]["amount_unit"] == "unit_ratio"
    markdown = (tmp_path / "out" / "table.md").read_text()
    assert (
        "| Diagonal-Fisher OBD, global | weights | sparsity 0.9 | 0.9000 | 10.00 | 55.00 | 15.00 "
        "± 1.00 (3) | "
        "88.00 ± 1.00 (3) | 0.25 | 0.5 | 2.00 | 302 |"
    ) in markdown
    first = markdown.splitlines()[0]
    for said in (
        "98.00%",
        "digits_cnn",
        "data set digits",
        "d0d0",
        "5 epochs of sgd",
        "scale quick",
        "last epoch",
    ):
        assert said in first


def test_missing_cells_are_shown(tmp_path, no_pictures):
    records = [
        r for r in small() if not (r.method == "obd-global" and r.requested == {"sparsity": 0.5})
    ]
    records = [
        r
        for r in records
        if not (r.method == "magnitude-global" and r.spec["seed"] == 2 and r.stage == "finetune")
    ]
    comparison = compare.compare([write(records, tmp_path / "runs")], tmp_path / "out")
    markdown = (tmp_path / "out" / "table.md").read_text()
    assert "sparsity 0.5 | – | – | – | missing (0 of 3) | missing (0 of 3) |" in markdown
    assert "(2 of 3)" in markdown
    assert "Magnitude, global at sparsity 0.5 (2 of 3)" in comparison.notes[0]
    assert "Diagonal-Fisher OBD, global at sparsity 0.5 (0 of 3)" in comparison.notes[0]
    assert table(tmp_path / "out")["obd-global", "0.5"]["accuracy_finetuned_n"] == "0"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((), "missing (0 of 3)"),
        ((0.5,), "50.00 ± – (1 of 3)"),
        ((0.5, 0.52, 0.54), "52.00 ± 2.00 (3)"),
    ],
)
def test_spread(values, text):
    assert columns.spread(Stat(values), 3) == text


def other(where: str, value: object, **spec_changes) -> Record:
    """A record that differs from the fixtures' in one field."""
    changed = record("prune", "random", changes=spec_changes)
    if where == "dense_hash":
        changed.dense_hash = value
    elif where != "spec":
        getattr(changed, where)[value] = 1
    return changed


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        (other("dense_hash", "beef"), "dense_hash"),
        (other("provenance", "data_sha256"), "provenance.data_sha256"),
        (other("achieved", "dense_macs"), "achieved.dense_macs"),
        (other("achieved", "dense_params"), "achieved.dense_params"),
        (other("spec", 0, dataset="synthetic"), "dataset"),
        (other("spec", 0, model="lenet5"), "model"),
        (other("spec", 0, scale="cpu"), "scale"),
        (other("spec", 0, recalibrate_bn=4), "recalibrate_bn"),
        (other("spec", 0, finetune={"epochs": 6, "lr": 0.02}), "finetune.epochs"),
        (other("spec", 0, finetune={"epochs": 5, "lr": 0.2}), "finetune.lr"),
        (other("spec", 0, steps=3), "steps"),
        (other("spec", 0, dense_seed=1), "dense_seed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_records_that_differ_are_refused(changed, field, tmp_path, capsys):
    runs = write([*small(), changed], tmp_path / "runs")
    with pytest.raises(UserError) as error:
        gather([*small(), changed])
    assert error.value.field == field and len(error.value.value) == 2
    assert compare.main(["--records", str(runs), "--output", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and f"error: {field}=" in message
    assert not (tmp_path / "out").exists()


def test_a_method_may_not_change_its_options_between_records():
    with pytest.raises(UserError, match="obd-global: damping"):
        gather([*pair("obd-global", 0.5), *pair("obd-global", 0.9, changes={"damping": 0.1})])
    gather([*pair("obd-layer", 0.5), *pair("obd-global", 0.5, changes={"damping": 0.1})])


def test_device_and_paths_may_differ_and_are_noted(tmp_path):
    elsewhere = record(
        "prune",
        "random",
        changes={"device": "cuda", "data_dir": "elsewhere", "checkpoint": "dense.pt"},
    )
    elsewhere.provenance |= {"device": "cuda:0", "git": "fffffff", "dirty": True}
    notes = " ".join(gather([*small(), elsewhere]).notes)
    assert (
        "several devices" in notes
        and "2 commits" in notes
        and "1 of 38 records were made with uncommitted" in notes
    )


def test_the_same_record_twice_counts_once_and_a_contradiction_is_refused():
    twice = gather([*pair("random"), *pair("random")])
    assert twice.rows[0].stat("accuracy_finetuned").n == 1
    with pytest.raises(UserError, match="different outcomes"):
        gather([*pair("random"), *pair("random", last=0.1)])


def test_corrupt_records_are_passed_over_with_a_warning(tmp_path, caplog, no_pictures):
    runs = write(small(), tmp_path / "runs")
    (runs / "torn.json").write_text('{"stage": "prune", "id"')
    for unreadable in (record("prune", "random"), train_record()):
        unreadable.spec = {"nonsense": 1}
        unreadable.write(runs / "odd" / f"{unreadable.stage}.json")
    comparison = compare.compare([runs], tmp_path / "out")
    assert "torn.json" in caplog.text and "no readable spec" in caplog.text
    assert "random" not in {row.method for row in comparison.rows}


def test_values_that_are_not_numbers_count_as_missing():
    odd = pair("random", 0.9, 0)
    odd[1].accuracy["last"] = float("nan")
    odd[0].accuracy["pruned"] = "high"
    odd[0].achieved["kept_params"] = None
    row = gather([*odd, *pair("magnitude-global", 0.9, 0)]).rows[0]
    assert (
        row.method,
        row.stat("accuracy_finetuned").n,
        row.stat("accuracy_pruned").n,
        row.stat("kept_weights").n,
    ) == ("random", 0, 0, 0)


@pytest.mark.parametrize(
    "records", [[], [train_record()]], ids=["nothing", "only the dense network"]
)
def test_no_records_is_one_line_and_status_2(records, tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    write(records, tmp_path / "runs")
    assert (
        compare.main(["--records", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]) == 2
    )
    assert (
        compare.main(["--records", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")])
        == 2
    )
    message = capsys.readouterr().err
    assert message.count("\n") == 2 and "no such folder" in message
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_one_line(tmp_path, capsys, no_pictures):
    (tmp_path / "out").write_text("a file")
    runs = write(pair("random"), tmp_path / "runs")
    assert compare.main(["--records", str(runs), "--output", str(tmp_path / "out")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_command_line_without_torch(tmp_path):
    runs = write(small(), tmp_path / "runs")
    code = (
        "import sys, figures.compare as c; status = c.main(sys.argv[1:]); assert 'torch' not in "
        "sys.modules; "
        "import matplotlib.pyplot as p; assert not p.get_fignums(); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--records", str(runs), "--output", str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "DISPLAY": ""},
    )
    assert done.returncode == 0, done.stderr
    assert (
        "Diagonal-Fisher OBD, global" in done.stdout
        and "report.html" in done.stdout
        and "15.00 ± 1.00 (3)" in done.stdout
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {
        "table.md",
        "table.csv",
        "report.html",
        "accuracy_kept_weights.png",
        "accuracy_kept_macs.pdf",
        "predicted_measured.png",
        "layers_weights.png",
        "layers_units.pdf",
    } <= names
    assert not any(name.startswith(".") for name in names)


def test_output_is_reproducible(tmp_path, monkeypatch):
    monkeypatch.setattr(
        side_panels, "draw", lambda comparison, folders: panels.draw(comparison)[1:3]
    )
    runs = write(pair("obd-global", predicted=0.4), tmp_path / "runs")
    compare.compare([runs], tmp_path / "a")
    compare.compare([runs], tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_every_look_is_its_own_and_a_fallback_is_stable():
    looks = [(look.colour, look.marker) for look in style.LOOKS.values()]
    assert len(set(looks)) == len(looks)
    assert style.look("never heard of") == style.look("never heard of")
    assert (style.look("never heard of").colour, style.look("never heard of").marker) not in looks
    code = "from figures.style import look; print(look('never heard of'))"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    ).stdout
    assert shown.strip() == str(style.look("never heard of"))


def test_a_hostile_label_stays_text_everywhere(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(compare, "FORMATS", {"png": {}})
    name = "<script>alert(1)</script>|$x$\x1b[2J\ud800_"
    runs = write([*pair("random", 0.5)], tmp_path / "runs")
    for one in pair("random", 0.5):
        one.method, one.id = name, f"hostile-{one.stage}"
        one.write(runs / f"{one.stage}.json")
    assert compare.main(["--records", str(runs), "--output", str(tmp_path / "out")]) == 0
    assert "\x1b" not in capsys.readouterr().out
    for file in ("table.md", "report.html"):
        assert "<script>alert" not in (tmp_path / "out" / file).read_text()
    assert "&lt;script>alert(1)&lt;/script>\\|$x$" in (tmp_path / "out" / "table.md").read_text()


def test_a_fisher_whose_rows_are_open_is_called_by_what_they_are():
    """Old records of one method under two numbers of rows stand side by side; of other methods no
    setting is in the name.
    """
    stated = pair("woodfisher", changes={"num_samples": 1000, "fisher_batch_size": 1})
    left_open, few = (
        pair("woodfisher", changes={"num_samples": 1000}),
        pair("woodtaylor", changes={"num_samples": 60}),
    )
    given = pair("woodfisher-layer", changes={"num_samples": 1000, "options": {"num_rows": 50}})
    comparison = gather(
        [*stated, *left_open, *few, *given, *pair("obd-global", changes={"num_samples": 1000})]
    )
    names = [row.method for row in comparison.rows]
    assert names == [
        "obd-global",
        "woodfisher",
        "woodfisher (m 100, b 10)",
        "woodfisher-layer",
        "woodtaylor (m 60, b 1)",
    ]
    row = comparison.rows[2]
    assert (row.label, row.kind, len(row.runs)) == (
        "WoodFisher, global (m 100, b 10)",
        "weights",
        1,
    )
    looks = {(style.look(name).colour, style.look(name).marker) for name in names}
    assert len(looks) == len(names)
    assert "WoodFisher, global;" not in comparison.notes[-1]
