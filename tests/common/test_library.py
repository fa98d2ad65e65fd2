"""The library of results: tables of two files, from which every record comes back whole."""

import csv
import json
import subprocess
import sys

import pytest

from common.cells import library, tablefile
from common.cells.errors import UserError
from common.cells.record import Record
from common.cells.spec import Spec, named, series_of
from common.commands import publish, records
from nap.experiments import TABLES
from tests.figures.fixtures import record

ODD = {  # an id is its own; fields in an order of their own, and values that only look alike
    "id": "odd-seed1-prune",
    "paper": "lobs",
    "table": "1",
    "cell": 'a "quoted", cell',
    "method": "l-obs",
    "stage": "prune",
    "scale": "cpu",
    "spec": {"seed": 1, "sparsity": 0.5, "options": {"b": [1, 1.0, True, None]}, "note": "λ\n"},
    "dense_hash": "",
    "requested": {"sparsity": 0.5},
    "achieved": {},
    "accuracy": {"pruned": 0.1, "dense": 1, "best": None, "last": "unknown"},
    "loss": {"examples": 3, "dense": 1e-300},
    "layers": [{"name": "fc", "kept": 1, "total": 2}],
    "timing": {"prune_s": 0.25},
    "provenance": {"git": "", "dirty": False, "command": "python -m lobs.prune", "seed": 1},
    "trajectory": [],
    "later": {"a field": "of a later version"},
}


def texts(stem):
    return [stem.with_name(stem.name + suffix).read_text() for suffix in (".csv", ".jsonl")]


def several():
    """Records of several shapes and stages, of which some share a machine."""
    made = [json.loads(json.dumps(vars(record("prune", seed=seed)))) for seed in range(12)]
    for one in made:
        one["provenance"] |= {"seed": 0}
    return [*made, ODD, ODD | {"id": "x-seed0-train", "stage": "train", "cell": "", "later": []}]


def test_every_record_comes_back_as_the_text_that_was_written(tmp_path):
    tablefile.merge(tmp_path / "table-1", several())
    back = {json.dumps(one) for one in tablefile.read(tmp_path / "table-1")}
    assert back == {json.dumps(one) for one in several()}
    assert back == {json.dumps(one) for one in library.whole(tmp_path)}


def test_a_new_record_adds_lines_and_one_of_the_same_id_takes_the_olds_place(tmp_path):
    stem, (first, *others) = tmp_path / "table-1", several()
    tablefile.merge(stem, others)
    before = [set(text.splitlines()) for text in texts(stem)]
    tablefile.merge(stem, [first])
    after = [set(text.splitlines()) for text in texts(stem)]
    assert [len(new - old) for old, new in zip(before, after, strict=True)] == [1, 1]
    assert all(old <= new for old, new in zip(before, after, strict=True))
    tablefile.merge(stem, [first | {"notes": ["again"]}])
    told = {one["id"]: one for one in tablefile.read(stem)}
    assert len(told) == len(others) + 1 and told[first["id"]]["notes"] == ["again"]


def test_the_numbers_stand_in_the_csv_alone_sorted_by_cell_seed_and_stage(tmp_path):
    tablefile.merge(tmp_path / "table-1", reversed(several()))
    shown, rest = texts(tmp_path / "table-1")
    rows = list(csv.DictReader(shown.splitlines()))
    keys = [(r["cell"], int(r["spec.seed"]), r["stage"]) for r in rows if r["stage"] != "train"]
    assert keys == sorted(keys) and len(keys) == 13
    assert {float(r["accuracy.pruned"]) for r in rows if r["id"] == ODD["id"]} == {0.1}
    assert "1e-300" in shown and "1e-300" not in rest
    assert rest.count("python -m lobs.prune") == 1


@pytest.mark.parametrize("edit", ["number", "line", "gone", "jsonl"])
def test_two_files_that_do_not_belong_together_are_refused(edit, tmp_path):
    stem = tmp_path / "table-1"
    tablefile.merge(stem, several())
    shown, rest = texts(stem)
    if edit == "gone":
        (tmp_path / "table-1.csv").unlink()
    elif edit == "jsonl":
        (tmp_path / "table-1.jsonl").write_text(rest.replace('"own":', '"own"', 1))
    else:
        text = (
            shown.replace("1e-300", "2e-300")
            if edit == "number"
            else shown[: shown.rindex("\n", 0, -1) + 1]
        )
        (tmp_path / "table-1.csv").write_text(text)
    with pytest.raises(UserError, match=r"table='.*table-1'.*take both from one commit"):
        list(library.read_all(tmp_path))


def test_a_table_reads_on_when_columns_come_or_go(tmp_path, monkeypatch):
    stem = tmp_path / "table-1"
    fewer = [name for name in tablefile.COLUMNS if name not in ("accuracy.dense", "loss.dense")]
    with monkeypatch.context() as before:
        before.setattr(tablefile, "COLUMNS", fewer)
        before.setattr(tablefile, "PLACES", [tuple(name.split(".")) for name in fewer])
        tablefile.merge(stem, several())
    assert {json.dumps(one) for one in tablefile.read(stem)} == {json.dumps(o) for o in several()}
    tablefile.merge(stem, [ODD])
    assert {json.dumps(one) for one in tablefile.read(stem)} == {json.dumps(o) for o in several()}


def test_a_changed_file_is_read_anew_and_an_unchanged_one_once(tmp_path):
    tablefile.merge(tmp_path / "table-1", [ODD])
    (one,) = library.read_all(tmp_path)
    assert next(iter(library.read_all(tmp_path))) is one
    tablefile.merge(tmp_path / "table-1", [ODD | {"accuracy": {"pruned": 0.25, "dense": 1}}])
    assert next(iter(library.read_all(tmp_path))).accuracy["pruned"] == 0.25


def test_a_papers_records_by_table_old_spellings_and_single_files_included(tmp_path):
    folder = library.results("lobs", tmp_path)
    tablefile.merge(folder / "table-1", [ODD])
    for number, (table, stage) in enumerate((("figure 5", "prune"), ("", "train"))):
        data = ODD | {"id": f"other-{number}", "table": table, "stage": stage}
        Record.from_dict(data).write(folder / "single" / f"{number}.json")
    (folder / "bench.json").write_text('{"ratios": []}')

    def ids(table=None):
        return [one.id for one in library.records("lobs", table, tmp_path)]

    assert ids() == ["other-1", "other-0", ODD["id"]]
    assert ids("1") == ids("Table 1") == ids("table-1") == [ODD["id"]]
    assert ids("figure-5") == ["other-0"] and ids("dense") == ["other-1"] and not ids("table-2")
    assert {one.table for one in library.records("lobs", "1", tmp_path)} == {"table-1"}


@pytest.mark.parametrize(
    "old, name",
    [
        ("1", "table-1"),
        ("1-dns", "table-1-dns"),
        ("Figure S12", "figure-S12"),
        ("Example 1", "example-1"),
        ("theorem-3.2", "theorem-3.2"),
        ("options", "options"),
        ("", ""),
    ],
)
def test_a_table_has_one_name(old, name):
    assert library.table_name(old) == name == library.table_name(name)


# -- the curve that a record is a point of ---------------------------------------------------------


@pytest.mark.parametrize(
    "cell, series",
    [
        ("lenet300-8.4-l-obs", "lenet300/l-obs"),
        ("lenet300-1.5-l-obs-iterative-plain-seed2", "lenet300/l-obs-iterative-plain"),
        ("lenet5-200x-nap-seed0", "lenet5/nap"),
        ("vgg16-p0.5-T0.1-every-step", "vgg16/p0.5-T0.1-every-step"),
        ("lenet300-dense-tuned", "lenet300/dense-tuned"),
        ("lenet5-0.1", "lenet5"),
    ],
)
def test_a_cells_name_says_its_series_without_amount_and_seed(cell, series):
    assert series_of(cell) == series
    assert named("table-1", {cell: Spec()})[cell].series == series
    assert named("table-1", {cell: Spec(series="own")})[cell].series == "own"


def test_a_series_renames_no_run():
    one = Spec(sparsity=0.5, series="a curve")
    assert one.digest() == Spec(sparsity=0.5).digest() and one.slug() == Spec(sparsity=0.5).slug()


def test_every_committed_record_of_a_cell_has_the_series_that_its_paper_says():
    for paper in library.PAPERS:
        cells = [one for one in library.records(paper) if one.stage in ("prune", "finetune")]
        said = [one for one in cells if publish.series(one)]
        assert len(said) > 50
        for one in said:
            assert one.series == publish.series(one), one.id


def test_a_record_that_does_not_say_its_series_is_told_it_when_it_is_published(tmp_path):
    name, spec = next(iter(TABLES["3"].items()))
    clean = {"git": "1" * 40, "dirty": False}
    told = ODD | {"paper": "nap", "table": "3", "spec": spec.to_dict(), "provenance": clean}
    for number, cell in enumerate((name, "of-another-time")):
        folder = tmp_path / "runs" / str(number)
        folder.mkdir(parents=True)
        (folder / "prune.json").write_text(json.dumps(told | {"id": cell, "cell": cell}))
    assert publish.publish([tmp_path / "runs"], tmp_path / "results") == 2
    found = {one.id: one for one in library.read_all(tmp_path / "results")}
    assert found[name].series == spec.series == "lenet300/nap"
    assert found["of-another-time"].series == ""
    assert {one["table"] for one in library.whole(tmp_path / "results")} == {"table-3"}
    assert {path.name for path in (tmp_path / "results").iterdir()} == {
        "table-3.csv",
        "table-3.jsonl",
    }


def test_a_study_done_anew_takes_the_place_of_the_one_before_and_a_cell_of_other_settings_does_not(
    tmp_path,
):
    study = ODD | {"cell": "a-study", "requested": {}, "provenance": {"git": "1", "dirty": False}}
    cell = ODD | {"provenance": {"git": "1", "dirty": False}}
    for name in ("old", "new"):
        for one in (study | {"id": f"study-{name}"}, cell | {"id": f"cell-{name}"}):
            Record.from_dict(one).write(tmp_path / name / f"{one['id']}.json")
        (tmp_path / name / "other.json").write_text("[]")
        assert publish.publish([tmp_path / name], tmp_path / "results") == 2
    ids = {one.id for one in library.read_all(tmp_path / "results")}
    assert ids == {"study-new", "cell-old", "cell-new"}


def test_a_cell_done_anew_under_a_longer_name_takes_the_place_of_the_one_before(tmp_path):
    """Names had six digits once; a record of the same Spec, stage and seed is the same cell."""
    spec = Spec(sparsity=0.5, method="magnitude-global")
    clean = {"provenance": {"git": "1", "dirty": False}, "spec": spec.to_dict()}
    other = clean | {"spec": spec.but(sparsity=0.6).to_dict()}
    second = clean | {"spec": spec.but(seed=1).to_dict()}
    for name, made in (
        ("old", {"short": clean, "else": other, "seed1": second}),
        ("new", {"long": clean}),
    ):
        for key, parts in made.items():
            one = ODD | parts | {"id": key, "requested": {"sparsity": parts["spec"]["sparsity"]}}
            Record.from_dict(one).write(tmp_path / name / f"{key}.json")
        publish.publish([tmp_path / name], tmp_path / "results")
    assert {one.id for one in library.read_all(tmp_path / "results")} == {"long", "else", "seed1"}


def test_dense_networks_of_one_seed_are_all_kept(tmp_path):
    clean = {"git": "1", "dirty": False}
    dense = ODD | {"stage": "train", "cell": "", "requested": {}, "provenance": clean}
    for name in ("one", "another"):
        Record.from_dict(dense | {"id": name}).write(tmp_path / name / "train.json")
        publish.publish([tmp_path / name], tmp_path / "results")
    assert {one.id for one in library.read_all(tmp_path / "results")} == {"one", "another"}


def test_a_damaged_record_or_a_folder_below_a_papers_results_stops_publishing(tmp_path):
    runs = tmp_path / "runs"
    Record.from_dict(ODD | {"provenance": {"git": "1", "dirty": False}}).write(runs / "a.json")
    with pytest.raises(UserError, match="target=.*below lobs's results; leave the target out"):
        publish.publish([runs], library.results("lobs") / "table-1")
    (runs / "b.json").write_text('{"stage": "prune", "id"')
    with pytest.raises(UserError, match="record=.*b.json"):
        publish.publish([runs], tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_without_a_target_records_go_where_their_paper_keeps_them(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "ROOT", tmp_path)
    monkeypatch.setattr(library, "results", lambda paper: tmp_path / paper / "results")
    for number, (paper, table) in enumerate((("lobs", "1"), ("compare", "lenet5-mnist"))):
        made = {"id": f"{number}-prune", "paper": paper, "table": table, "layers": []}
        Record.from_dict(ODD | made | {"provenance": {"git": "1", "dirty": False}}).write(
            tmp_path / "runs" / str(number) / "prune.json"
        )
    assert publish.publish([tmp_path / "runs"]) == 2
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.csv")} == {
        "lobs/results/table-1.csv",
        "compare/results/lenet5-mnist/lenet5-mnist.csv",
    }


# -- the command -----------------------------------------------------------------------------------


def test_records_are_printed_whole_one_a_line(tmp_path, capsys):
    tablefile.merge(tmp_path / "table-1", several())
    assert records.main([str(tmp_path)]) == 0
    assert set(capsys.readouterr().out.splitlines()) == {json.dumps(one) for one in several()}
    assert records.main([str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_the_command_needs_the_standard_library_alone():
    """-S leaves out site-packages."""
    run = subprocess.run(
        [sys.executable, "-S", "-m", "common.records", "lobs/results"],
        cwd=library.ROOT,
        capture_output=True,
        text=True,
    )
    told = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0 and len(told) > 100, run.stderr
    assert {one["paper"] for one in told} == {"lobs"}


@pytest.mark.parametrize("steps", [1_000, 1_001, 1_002, 1_003])
def test_a_trajectory_that_is_shortened_keeps_its_first_and_its_last_step(steps, tmp_path):
    """Iterations are counted from the last step, so it must be there whatever the stride is."""
    long = [{"epoch": i, "steps": 10 * i, "accuracy": 0.5} for i in range(steps)]
    made = Record.from_dict(ODD | {"trajectory": long})
    short = publish.fitting(made, tmp_path / "a.json")
    strides = {b["epoch"] - a["epoch"] for a, b in zip(short.trajectory[:-2], short.trajectory[1:])}
    assert len(short.trajectory) < steps and len(strides) == 1
    assert short.trajectory[0] == long[0] and short.trajectory[-1] == long[-1]
    assert f"of the trajectory's {steps} steps" in short.notes[-1]
    assert publish.fitting(Record.from_dict(ODD), tmp_path / "a.json") == Record.from_dict(ODD)
