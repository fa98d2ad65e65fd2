"""The papers' tables: what the files say, beside what the records say, and nothing else."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.cells.errors import UserError
from common.cells.library import read_all
from figures import cells, tables, values
from figures.cells import Ours
from figures.values import PAPERS, Value
from tests.figures.fixtures import record

ROOT = Path(__file__).resolve().parents[2]


def value(
    quantity: str,
    cells: str = "",
    text: str = "1.5",
    paper: str = "lobs",
    table: str = "Table 1",
    **setting: str,
) -> Value:
    return Value(
        paper,
        table,
        "LeNet-300-100",
        "MNIST",
        "L-OBS",
        quantity,
        text,
        cells,
        "",
        tuple(setting.items()),
    )


@pytest.mark.parametrize("paper", PAPERS)
def test_every_line_has_a_number_and_every_pattern_a_cell(paper):
    lines = values.read(paper)
    assert lines
    for one in lines:
        assert re.match(
            r"(Table S?\d+|Figure S?\d+[a-z]?|Example 1|Theorem 3\.2|Appendix F|text)$", one.table
        ), one
        assert one.number is not None or one.value in ("", "yes", "no") or one.table == "text", one
        assert one.method and one.model, one
        cells.beside(one)  # raises for a pattern that names no cell


def test_a_lobs_cell_is_what_its_records_say():
    records = {
        r.stage: r for r in read_all(ROOT / "lobs" / "results") if r.cell == "lenet300-8.4-l-obs"
    }
    expected = {
        "orig_err_top1_pct": 100 * (1 - records["prune"].accuracy["dense"]),
        "err_after_pruning_top1_pct": 100 * (1 - records["prune"].accuracy["pruned"]),
        "retrained_err_top1_pct": 100 * (1 - records["finetune"].accuracy["last"]),
        "retrain_iterations": 510,
        "compression_ratio_x": 266_200 / records["prune"].achieved["kept_params"],
    }
    for quantity, number in expected.items():
        (ours,) = cells.beside(value(quantity, "lenet300-8.4-l-obs"))
        assert ours.values == pytest.approx([number]), quantity
        assert (ours.scale, ours.model, ours.dataset, ours.asked) == ("cpu", "lenet300", "mnist", 1)
        assert ours.command == "python -m lobs.finetune --table 1 --cell lenet300-8.4-l-obs"
    (layer,) = cells.beside(value("remaining_pct", "lenet300-8.4-l-obs", layer="fc1"))
    assert layer.values == pytest.approx([6.7], abs=0.01)


def test_seeds_of_one_cell_are_one_entry_and_other_cells_are_not():
    found = cells.beside(
        value("err_after_pruning_top1_pct", "lenet300-8.4-random-seed*|lenet300-8.4-lwc")
    )
    assert [(one.name, len(one.values), one.asked) for one in found] == [
        ("lenet300-8.4-random", 3, 3),
        ("lenet300-8.4-lwc", 1, 1),
    ]


def test_a_number_can_come_from_a_file(tmp_path):
    (tmp_path / "lobs" / "results").mkdir(parents=True)
    entries = [
        {"method": "dns", "kept": 0.018, "error": 0.05},
        {"method": "dns", "kept": 0.015, "error": 0.07, "two": [1, 2]},
    ]
    (tmp_path / "lobs" / "results" / "x.json").write_text(json.dumps(entries))
    folder = tmp_path / "lobs" / "results"
    assert values.select(folder, "x.json?method=dns&kept=0.015#error*100").number == pytest.approx(
        7
    )
    assert values.select(folder, "x.json?kept=0.0150001#two.1").number == 2
    for nowhere in ("x.json?kept=0.5#error", "y.json#error"):
        assert values.select(folder, nowhere) == (None, {}, {})
    with pytest.raises(UserError, match=r"fits 2 entries of x\.json; say which, by kept or error"):
        values.select(folder, "x.json?method=dns#error")
    (ours,) = cells.beside(
        value("pruned_err_pct", "x.json?kept=0.018#error*100"),
        {("lobs", "Table 1"): "python -m it"},
        tmp_path,
    )
    assert ours.values == pytest.approx([5]) and ours.command == "python -m it"


def test_a_pattern_without_a_cell_is_refused():
    with pytest.raises(UserError, match="no such cell"):
        cells.beside(value("err_after_pruning_top1_pct", "lenet300-8.4-nonsense"))


def test_records_of_other_settings_do_not_count(monkeypatch):
    spec = cells.groups("lobs")["Table 1"]["lenet300-8.4-l-obs"]
    assert cells.runs(spec)
    assert not cells.runs(spec.but(damping=0.5)) and not cells.runs(spec.but(cell="another"))


def test_a_cell_that_was_changed_and_run_again_has_its_new_records_whatever_the_old_ones_are_called(
    monkeypatch,
):
    spec = cells.groups("lobs")["Table 1"]["lenet300-8.4-l-obs"]
    made = cells.runs(spec)[0]
    old = {
        stage: dataclasses.replace(one, id=f"z{one.id}", spec=one.spec | {"damping": 0.5})
        for stage, one in made.items()
    }
    for order in ([*made.values(), *old.values()], [*old.values(), *made.values()]):
        monkeypatch.setattr(
            cells, "by_cell", lambda paper, root, order=order: {("table-1", spec.cell): order}
        )
        assert cells.runs(spec) == {0: made}
    assert {one.id for one in cells.runs(spec.but(damping=0.5))[0].values()} == {
        one.id for one in old.values()
    }


@pytest.mark.parametrize(
    ("ours", "quantity", "text"),
    [
        (Ours("cpu", "m", "d", "n", "c", 3, [1.0, 2.0, 3.0]), "top1_pruned_pct", "2.00 ± 1.00 (3)"),
        (Ours("cpu", "m", "d", "n", "c", 3, [1.0, 3.0]), "top1_pruned_pct", "2.00 ± 1.41 (2 of 3)"),
        (Ours("cpu", "m", "d", "n", "c", 1, [93.5]), "top1_pruned_pct", "93.50"),
        (Ours("cpu", "m", "d", "n", "c", 3, [93.5]), "top1_pruned_pct", "93.50 (1 of 3)"),
        (Ours("cpu", "m", "d", "n", "c", 3, [1.0, 2.0, 3.0]), "top1_pruned_std", "1.00"),
        (Ours("cpu", "m", "d", "n", "c", 1, [1.0]), "top1_pruned_std", "–"),
        (Ours("cpu", "m", "d", "n", "c", 3), "top1_pruned_pct", "–"),
    ],
)
def test_spread(ours, quantity, text):
    assert tables.spread(ours, quantity) == text


def test_spread_says_when_seeds_start_from_several_dense_networks():
    ours = Ours("cpu", "lenet5", "mnist", "n", "c", 3, [1.0, 2.0], networks={"a", "b"})
    assert tables.spread(ours, "test_acc_pct") == "1.50 ± 0.71 (2 of 3, of 2 dense networks)"
    ours = Ours("cpu", "lenet5", "mnist", "n", "c", 2, [1.0, 2.0], networks={"a"})
    assert tables.spread(ours, "test_acc_pct") == "1.50 ± 0.71 (2)"


def test_rows_that_nobody_has_run_say_so_and_name_the_command():
    groups = cells.groups("lobs")["Table 1"]
    waiting = next(name for name, spec in groups.items() if not cells.runs(spec))
    (line,) = tables.lines_of([value("err_after_pruning_top1_pct", waiting)], {})
    assert line.status == tables.NOT_RUN
    text = tables.markdown("lobs", "Table 1", [line], None)
    assert (
        "| L-OBS | runnable, not run | LeNet-300-100 | MNIST | 1.5 / – | [1] |" in text
        and f"--table 1 --cell {waiting}`" in text
    )
    (line,) = tables.lines_of([value("err_after_pruning_top1_pct")], {})
    assert line.status == tables.NO_CELL


def test_what_ran_on_another_network_or_data_set_has_a_line_of_its_own():
    """LeNet-300-100 of ours beside the paper's is one field; beside another network, or beside
    other data, it never is.
    """
    own = value("err_after_pruning_top1_pct", "lenet300-8.4-l-obs")
    (line,) = tables.lines_of([own], {})
    assert not line.apart and line.network == ("LeNet-300-100", "MNIST")
    for model, dataset in (("ResNet-50", "MNIST"), ("LeNet-300-100", "CIFAR-10")):
        printed, mine = tables.lines_of(
            [dataclasses.replace(own, model=model, dataset=dataset)], {}
        )
        assert (printed.status, printed.network, printed.apart) == (
            tables.NO_CELL,
            (model, dataset),
            False,
        )
        assert mine.apart and mine.network == ("lenet300", "mnist")
        text = tables.markdown("lobs", "Table 1", [printed, mine], None)
        assert (
            f"| {model} | {dataset} | 1.5 / – |" in text
            and "| lenet300 | mnist | – / 3.20 |" in text
        )


@pytest.mark.parametrize(
    ("kept", "setting", "text"),
    [
        ([8.4233], {"kept_pct": "7"}, "8.42 (not 7)"),
        ([7.0, 7.02], {"kept_pct": "7"}, "7.01"),
        ([30.2], {"sparsity_pct": "70"}, "30.2"),
        ([20.0], {"sparsity_pct": "70"}, "20 (not 30)"),
        ([55.5], {}, "55.5"),
        ([100.0], {"kept_pct": "7"}, "100: removed nothing"),
        ([], {}, ""),
        ([7.0], {"kept_pct": "7", "layer": "fc1"}, ""),
    ],
)
def test_what_ours_kept_is_said_where_the_row_asks_for_another(kept, setting, text):
    row = {"err_after_pruning_top1_pct": value("err_after_pruning_top1_pct", **setting)}
    idle = int(kept == [100.0])
    ours = Ours("cpu", "lenet300", "mnist", "n", "c", 1, [1.0], kept=kept, idle=idle)
    assert tables.Line(row, {"err_after_pruning_top1_pct": ours}, ours).kept == text
    dense = {"orig_err_top1_pct": value("orig_err_top1_pct", **setting)}
    assert tables.Line(dense, {"orig_err_top1_pct": ours}, ours).kept == ""


def test_a_lead_is_taken_seed_by_seed():
    (ours,) = cells.beside(
        value(
            "lead_points",
            "woodfisher-0.7-seed*~magnitude-global-0.7-seed*",
            paper="woodfisher",
            table="Figure 3a",
        )
    )
    at = {
        (r.method, r.spec["seed"]): r.accuracy["pruned"]
        for r in read_all(ROOT / "woodfisher" / "results")
        if r.id in ours.ids and r.stage == "prune"
    }
    rival = {seed: a for (method, seed), a in at.items() if method == "magnitude-global"}
    leads = [
        100 * (a - rival.get(seed, next(iter(rival.values()))))
        for (method, seed), a in sorted(at.items())
        if method == "woodfisher"
    ]
    assert ours.values == pytest.approx(leads) and len(leads) == len(ours.values) > 0


def test_csv_holds_every_printed_number_once():
    for paper in PAPERS:
        found = list(
            csv.DictReader(io.StringIO(tables.comma_separated(paper, tables.sections_of(paper))))
        )
        assert {
            (r["table"], r["model"], r["method"], r["quantity"], r["paper_value"]) for r in found
        } == {(v.table, v.model, v.method, v.quantity, v.value) for v in values.read(paper)}
        for row in found:
            assert bool(row["ours_mean"]) == bool(int(row["seeds"])) and (
                not row["ours_mean"] or row["records"]
            )


def test_the_committed_tables_are_current():
    """`make tables` writes them."""
    for name, text in tables.render().items():
        assert (ROOT / "docs" / "tables" / name).read_text() == text, name


def test_cells_are_data_without_torch():
    code = (
        "import sys, figures.book, figures.cells as c; [c.groups(p) for p in ('eigendamage', "
        "'lobs', 'nap', 'woodfisher')]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_file_without_the_columns_is_refused(tmp_path):
    (tmp_path / "lobs").mkdir()
    (tmp_path / "lobs" / "paper_values.csv").write_text("table,model,value\nTable 1,a,2\n")
    with pytest.raises(UserError, match="has no column 'dataset'"):
        values.read("lobs", tmp_path)
    assert values.read("nap", tmp_path) == ()


LAYERED = record("prune", method="l-obs", amount=0.5)


@pytest.mark.parametrize(
    ("called", "kept"),
    [("conv1", 36), ("1 conv1", 36), ("3", 64), ("3 the paper's name", 64), ("2 block.conv", 1152)],
)
def test_a_layer_is_found_by_its_name_or_by_its_number_in_the_network(called, kept):
    """Numbers count from 1, and a layer's numbers are its own."""
    layers = [
        {"name": name, "kept": n, "total": total}
        for name, n, total in (("conv1", 36, 72), ("conv2", 1152, 1152), ("fc", 64, 640))
    ]
    stages = {"prune": dataclasses.replace(LAYERED, layers=layers)}
    (total,) = {entry["total"] for entry in layers if entry["kept"] == kept}
    share = 100 * kept / total
    assert cells.of_layer(stages, "remaining_pct", called) == pytest.approx(share)
    assert cells.of_layer(stages, "sparsity_pct", called) == pytest.approx(100 - share)
    assert cells.of_layer(stages, "dense_params", called) == total
    for nowhere in ("0 Overall", "4", "elsewhere"):
        assert cells.of_layer(stages, "remaining_pct", nowhere) is None


@pytest.mark.parametrize("model", cells.LAYERS)
def test_the_papers_names_of_layers_are_in_the_networks_order(model):
    layers = [
        {"name": f"ours{i}", "kept": i, "total": 100} for i in range(len(cells.LAYERS[model]))
    ]
    spec = LAYERED.spec | {"model": model}
    stages = {"prune": dataclasses.replace(LAYERED, layers=layers, spec=spec)}
    for place, name in enumerate(cells.LAYERS[model]):
        assert cells.of_layer(stages, "remaining_pct", name) == place
