"""What is committed of a cell: found by what the cell says, whatever its record is called."""

import importlib
import json

import pytest

from common.cells import committed
from common.cells.record import Record, record_id
from common.cells.spec import Recipe, Spec
from common.running.cli import run

CELL = Spec(
    paper="demo",
    table="table-S2",
    cell="one",
    method="magnitude-global",
    sparsity=0.5,
    seed=3,
    dense_seed=1,
    train=Recipe(epochs=1),
    finetune=Recipe(epochs=2),
)


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(committed, "results", lambda paper, root=None: tmp_path)
    for cached in (committed._records, committed.by_cell, committed.dense):
        cached.cache_clear()
    yield tmp_path
    for cached in (committed._records, committed.by_cell, committed.dense):
        cached.cache_clear()


def put(folder, spec, stage, slug="cell-0a1b2c", **spec_changes):
    told = spec.to_dict() | spec_changes
    name = record_id(slug, spec.seed, stage)
    Record(name, spec.paper, spec.table, spec.cell, spec.method, stage, spec.scale, told).write(
        folder / f"{name}.json"
    )


@pytest.mark.parametrize("slug", ["cell-0a1b2c", "cell-0a1b2c3d4e5f6071", "renamed"])
def test_a_record_is_its_cells_whatever_its_name(results, slug):
    put(results / "deep", CELL, "prune", slug)
    put(results, CELL, "finetune", slug, output_dir="elsewhere", checkpoint="")
    put(results, CELL.dense().but(seed=1), "train", "dense-" + slug, dense_seed=1)
    found = committed.stages(CELL)
    assert list(found) == ["train", "prune", "finetune"] and all(
        r.stage == stage for stage, r in found.items()
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"sparsity": 0.6},
        {"cell": "two"},
        {"table": "3"},
        {"seed": 4},
        {"finetune": Recipe(epochs=3)},
        {"options": {"scope": "layer"}},
        {"amp": True},
    ],
)
def test_a_record_of_another_cell_does_not_count(results, changes):
    put(results, CELL, "prune")
    assert committed.stages(CELL) and not committed.stages(CELL.but(**changes))


@pytest.mark.parametrize("old", ["a-0a1b2c", "z-0a1b2c"])
def test_records_of_the_settings_that_a_cell_had_before_hide_none_of_its_own(results, old):
    put(results, CELL, "prune", "m-0a1b2c")
    put(results, CELL, "prune", old, damping=0.5)
    put(results, CELL, "finetune", old, damping=0.5)
    assert [r.id for r in committed.stages(CELL).values()] == ["m-0a1b2c-seed3-prune"]
    assert list(committed.stages(CELL.but(damping=0.5))) == ["prune", "finetune"]


def test_a_dense_network_counts_by_its_training_and_its_seed(results):
    put(results, CELL.dense(), "train")
    assert list(committed.stages(CELL)) == ["train"] and list(
        committed.stages(CELL.but(sparsity=0.9))
    ) == ["train"]
    assert not committed.stages(CELL.but(dense_seed=2)) and not committed.stages(
        CELL.but(train=Recipe(epochs=2))
    )


def test_fields_that_came_later_stand_at_their_default_and_unknown_ones_match_nothing(results):
    put(results, CELL, "prune")
    path = next(results.glob("*.json"))
    data = json.loads(path.read_text())
    del data["spec"]["levels"], data["spec"]["clock"]
    path.write_text(json.dumps(data))
    assert list(committed.stages(CELL)) == ["prune"]
    committed._records.cache_clear(), committed.by_cell.cache_clear()
    data["spec"]["of_the_future"] = 1
    path.write_text(json.dumps(data))
    assert not committed.stages(CELL)


def test_the_list_tells_what_is_committed_beside_what_is_in_runs(results, tmp_path, capsys):
    put(results, CELL, "prune")
    (results / "other.json").write_text('{"no": "record"}')
    cells = {"S2": {"one": CELL, "two": CELL.but(cell="two")}}
    argv = ["--list", "--output-dir", str(tmp_path / "runs")]
    assert run("demo", "prune", cells, argv=argv) == 0
    told = capsys.readouterr()
    one, two = told.out.splitlines()
    assert one.split() == ["table", "S2", "one", "quick", "committed:", "prune"] and two.split()[
        -2:
    ] == ["not", "run"]
    assert "passed over" not in told.err


@pytest.mark.parametrize("paper", ["lobs", "nap", "woodfisher", "eigendamage"])
def test_every_paper_has_committed_cells_that_are_still_its_own(paper):
    module = importlib.import_module(f"{paper}.experiments")
    cells = [
        spec
        for group in (*module.TABLES.values(), *module.FIGURES.values())
        for spec in group.values()
    ]
    known = {(s.table, s.cell) for s in cells if "prune" in committed.stages(s)}
    assert known
