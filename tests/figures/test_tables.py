"""The papers' tables: what the files say, beside what the records say, and nothing else."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from common.record import read_all
from figures import cells, tables, values
from figures.cells import Ours
from figures.values import PAPERS, Value

ROOT = Path(__file__).resolve().parents[2]


def value(quantity: str, cells: str = "", text: str = "1.5", paper: str = "lobs", table: str = "Table 1", **setting: str) -> Value:
    return Value(paper, table, "LeNet-300-100", "MNIST", "L-OBS", quantity, text, cells, "", tuple(setting.items()))


@pytest.mark.parametrize("paper", PAPERS)
def test_every_line_has_a_number_and_every_pattern_a_cell(paper):
    lines = values.read(paper)
    assert lines
    for one in lines:
        assert re.match(r"(Table S?\d+|Figure S?\d+[a-z]?|Example 1|Theorem 3\.2|Appendix F|text)$", one.table), one
        assert one.number is not None or one.value in ("", "yes", "no") or one.table == "text", one
        assert one.method and one.model, one
        cells.beside(one)  # raises for a pattern that names no cell


def test_a_lobs_cell_is_what_its_records_say():
    records = {r.stage: r for r in read_all(ROOT / "lobs" / "results") if r.cell == "lenet300-8.4-l-obs"}
    expected = {"orig_err_top1_pct": 100 * (1 - records["prune"].accuracy["dense"]),
                "err_after_pruning_top1_pct": 100 * (1 - records["prune"].accuracy["pruned"]),
                "retrained_err_top1_pct": 100 * (1 - records["finetune"].accuracy["last"]), "retrain_iterations": 510,
                "compression_ratio_x": 266_200 / records["prune"].achieved["kept_params"]}
    for quantity, number in expected.items():
        (ours,) = cells.beside(value(quantity, "lenet300-8.4-l-obs"))
        assert ours.values == pytest.approx([number]), quantity
        assert (ours.scale, ours.model, ours.dataset, ours.asked) == ("cpu", "lenet300", "mnist", 1)
        assert ours.command == "python -m lobs.finetune --table 1 --cell lenet300-8.4-l-obs"
    (layer,) = cells.beside(value("remaining_pct", "lenet300-8.4-l-obs", layer="fc1"))
    assert layer.values == pytest.approx([6.7], abs=0.01)


def test_seeds_of_one_cell_are_one_entry_and_other_cells_are_not():
    found = cells.beside(value("err_after_pruning_top1_pct", "lenet300-8.4-random-seed*|lenet300-8.4-lwc"))
    assert [(one.name, len(one.values), one.asked) for one in found] == [("lenet300-8.4-random", 3, 3), ("lenet300-8.4-lwc", 1, 1)]


def test_a_number_can_come_from_a_file(tmp_path):
    (tmp_path / "lobs" / "results").mkdir(parents=True)
    entries = [{"method": "dns", "kept": 0.018, "error": 0.05}, {"method": "dns", "kept": 0.015, "error": 0.07, "two": [1, 2]}]
    (tmp_path / "lobs" / "results" / "x.json").write_text(json.dumps(entries))
    folder = tmp_path / "lobs" / "results"
    assert values.select(folder, "x.json?method=dns&kept=0.015#error*100")[0] == pytest.approx(7)
    assert values.select(folder, "x.json?kept=0.0150001#two.1")[0] == 2
    assert values.select(folder, "x.json?kept=0.5#error") == (None, {}) and values.select(folder, "y.json#error") == (None, {})
    (ours,) = cells.beside(value("pruned_err_pct", "x.json?kept=0.018#error*100"), {("lobs", "Table 1"): "python -m it"}, tmp_path)
    assert ours.values == pytest.approx([5]) and ours.command == "python -m it"


def test_a_pattern_without_a_cell_is_refused():
    with pytest.raises(UserError, match="no such cell"):
        cells.beside(value("err_after_pruning_top1_pct", "lenet300-8.4-nonsense"))


def test_records_of_other_settings_do_not_count(monkeypatch):
    spec = cells.groups("lobs")["Table 1"]["lenet300-8.4-l-obs"]
    assert cells.runs(spec)
    assert not cells.runs(spec.but(damping=0.5)) and not cells.runs(spec.but(cell="another"))


@pytest.mark.parametrize(("ours", "quantity", "text"), [
    (Ours("cpu", "m", "d", "n", "c", 3, [1.0, 2.0, 3.0]), "top1_pruned_pct", "2.00 ± 1.00 (3)"),
    (Ours("cpu", "m", "d", "n", "c", 3, [1.0, 3.0]), "top1_pruned_pct", "2.00 ± 1.41 (2 of 3)"),
    (Ours("cpu", "m", "d", "n", "c", 1, [93.5]), "top1_pruned_pct", "93.50"),
    (Ours("cpu", "m", "d", "n", "c", 3, [93.5]), "top1_pruned_pct", "93.50 (1 of 3)"),
    (Ours("cpu", "m", "d", "n", "c", 3, [1.0, 2.0, 3.0]), "top1_pruned_std", "1.00"),
    (Ours("cpu", "m", "d", "n", "c", 1, [1.0]), "top1_pruned_std", "–"),
    (Ours("cpu", "m", "d", "n", "c", 3), "top1_pruned_pct", "–")])
def test_spread(ours, quantity, text):
    assert tables.spread(ours, quantity) == text


def test_rows_that_nobody_has_run_say_so_and_name_the_command():
    groups = cells.groups("lobs")["Table 1"]
    waiting = next(name for name, spec in groups.items() if not cells.runs(spec))
    (line,) = tables.lines_of([value("err_after_pruning_top1_pct", waiting)], {})
    assert line.status == tables.NOT_RUN
    text = tables.markdown("lobs", "Table 1", [line], None)
    assert "| L-OBS | runnable, not run | LeNet-300-100 | MNIST | 1.5 / – | [1] |" in text and f"--table 1 --cell {waiting}`" in text
    (line,) = tables.lines_of([value("err_after_pruning_top1_pct")], {})
    assert line.status == tables.NO_CELL


def test_csv_holds_every_printed_number_once():
    for paper in PAPERS:
        found = list(csv.DictReader(io.StringIO(tables.comma_separated(paper, tables.sections_of(paper)))))
        assert {(r["table"], r["model"], r["method"], r["quantity"], r["paper_value"]) for r in found} == {
            (v.table, v.model, v.method, v.quantity, v.value) for v in values.read(paper)}
        for row in found:
            assert bool(row["ours_mean"]) == bool(int(row["seeds"])) and (not row["ours_mean"] or row["records"])


def test_the_committed_tables_are_current():
    """`make tables` writes them."""
    for name, text in tables.render().items():
        assert (ROOT / "docs" / "tables" / name).read_text() == text, name


def test_cells_are_data_without_torch():
    code = ("import sys, figures.book, figures.cells as c; [c.groups(p) for p in ('eigendamage', 'lobs', 'nap', 'woodfisher')]; "
            "sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_file_without_the_columns_is_refused(tmp_path):
    (tmp_path / "lobs").mkdir()
    (tmp_path / "lobs" / "paper_values.csv").write_text("table,model,value\nTable 1,a,2\n")
    with pytest.raises(UserError, match="has no column 'dataset'"):
        values.read("lobs", tmp_path)
    assert values.read("nap", tmp_path) == ()
