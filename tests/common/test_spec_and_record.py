"""Names and records that must not change under us: golden slugs, round trips, refusals."""

import json

import pytest

from common.cells.errors import UserError
from common.cells.library import read_all
from common.cells.record import Record, record_id
from common.cells.registry import METHODS, lookup
from common.cells.spec import Recipe, Spec, split_options

GOLDEN = [
    (Spec(sparsity=0.9), "digits_cnn-digits-magnitude-global-s0.9-eae7c5ba1dab"),
    (
        Spec(
            model="lenet300",
            dataset="mnist",
            checkpoint="some/where/lenet300_mnist.safetensors",
            method="obd-layer",
            sparsity=0.95,
            num_samples=1000,
            finetune=Recipe(epochs=1, lr=0.02),
        ),
        "lenet300-mnist-obd-layer-s0.95-bd795abf835c",
    ),
    (
        Spec(
            model="resnet32:width=4,shortcut=B",
            dataset="cifar10-jpeg",
            unit_ratio=0.6,
            options={"cap": 0.95},
            steps=6,
        ),
        "resnet32_width_4_shortcut_B-cifar10-jpeg-magnitude-global-u0.6-f6349cd8df95",
    ),
]


@pytest.mark.parametrize(("spec", "slug"), GOLDEN)
def test_golden_names(spec, slug):
    """If this fails, every run that anybody has on disk is lost to the new code: give new fields
    defaults instead.
    """
    assert spec.slug() == slug
    assert spec.slug(naming=1) == slug[:-6]  # what runs were called before twelve digits
    assert record_id(slug, 3, "prune") == f"{slug}-seed3-prune"


def test_names_are_long_enough_for_the_cells_there_are():
    """Six digits were not: these two learning rates shared one name."""
    one, other = (Spec(sparsity=0.5, finetune=Recipe(epochs=1, lr=lr)) for lr in (0.03389, 0.06676))
    assert one.slug(naming=1) == other.slug(naming=1) and one.slug() != other.slug()


def test_where_and_when_do_not_enter_the_name_but_every_result_deciding_field_does():
    spec = Spec(sparsity=0.5)
    same = spec.but(
        paper="lobs",
        table="1",
        cell="x",
        data_dir="/somewhere",
        device="cuda",
        output_dir="/else",
        seed=7,
        memory_budget=3,
    )
    assert same.slug() == spec.slug()
    for change in (
        {"sparsity": 0.6},
        {"train": Recipe(epochs=1)},
        {"finetune": Recipe(lr=1)},
        {"damping": 1e-4},
        {"options": {"a": 1}},
        {"dense_seed": 1},
        {"amp": True},
        {"checkpoint": "b"},
        {"recalibrate_bn": 5},
    ):
        assert spec.but(**change).digest() != spec.digest(), change


def test_whole_numbers_are_the_floats_they_stand_for():
    assert Spec(finetune=Recipe(epochs=1)).digest() == Spec(finetune=Recipe(epochs=1.0)).digest()


def test_cells_share_their_dense_network():
    a, b = (
        Spec(sparsity=0.5, method="random", seed=1),
        Spec(sparsity=0.9, finetune=Recipe(epochs=2)),
    )
    assert a.dense() == b.dense() and a.dense() != a.but(dense_seed=1).dense()


def test_round_trip_through_json():
    for spec, _ in GOLDEN:
        assert Spec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    with pytest.raises(UserError, match="sparcity=0.5: no such field"):
        Spec.from_dict({"sparcity": 0.5})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sparsity": 1.0}, r"sparsity=1.0: outside \[0, 1\); give the fraction REMOVED"),
        ({"sparsity": -0.1}, "sparsity=-0.1"),
        ({"sparsity": float("nan")}, "sparsity=nan"),
        ({"unit_ratio": 2}, "unit_ratio=2"),
        ({"sparsity": 0.5, "unit_ratio": 0.5}, "give one of the two"),
        ({"scope": "both"}, "scope='both'.*global, layer"),
        ({"fisher": "true"}, "fisher='true'.*sampled, empirical, exact"),
        ({"scale": "big"}, "scale='big'"),
        ({"update": "full"}, "update='full'"),
        ({"damping": -1.0}, "damping=-1.0"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"steps": 0}, "steps=0"),
        ({"step_schedule": "quintic"}, "step_schedule"),
    ],
)
def test_bad_fields_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        Spec(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": -1}, "lr=-1"),
        ({"epochs": float("inf")}, "epochs=inf"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"optimizer": "lion"}, "optimizer='lion'"),
        ({"schedule": "step"}, "schedule='step'"),
    ],
)
def test_bad_recipes_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        Recipe(**changes)


def test_missing_amount_says_which_flag():
    with pytest.raises(UserError, match="--sparsity"):
        _ = Spec().amount


def test_options_after_a_colon():
    assert split_options("resnet32:width=4,shortcut=B", "model") == (
        "resnet32",
        {"width": "4", "shortcut": "B"},
    )
    assert split_options("mnist", "dataset") == ("mnist", {})
    with pytest.raises(UserError, match="dataset='mnist:norm'"):
        split_options("mnist:norm", "dataset")


def test_unknown_method_lists_the_known():
    with pytest.raises(UserError, match="method='obs': unknown.*magnitude-global"):
        lookup("obs")
    assert all(entry.kind in ("weights", "channels", "low-rank") for entry in METHODS.values())


def record(**changes):
    basis = {
        "id": "a",
        "paper": "p",
        "table": "",
        "cell": "",
        "method": "m",
        "stage": "prune",
        "scale": "quick",
        "spec": {},
    }
    return Record(**basis | changes)


def test_records_round_trip_and_refuse_nan(tmp_path):
    path = record(accuracy={"last": 0.5}).write(tmp_path / "deep" / "prune.json")
    assert Record.read(path) == record(accuracy={"last": 0.5})
    with pytest.raises(ValueError):
        record(accuracy={"last": float("nan")}).write(path)
    assert Record.read(path).accuracy == {"last": 0.5}  # the old one is whole
    assert [p.name for p in path.parent.iterdir()] == ["prune.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"stage": "prune"}',
        '{"stage": "dance"}',
        "[" * 100_000,
        json.dumps(
            dict.fromkeys(("paper", "table", "cell", "method", "scale"), "")
            | {"id": 1, "stage": "prune", "spec": {}}
        ),
    ],
)
def test_what_is_no_record_is_refused_in_one_line_and_passed_over(tmp_path, text, caplog):
    (tmp_path / "a.json").write_text(text)
    record().write(tmp_path / "b.json")
    with pytest.raises(UserError, match="record=.*unreadable|wrong type"):
        Record.read(tmp_path / "a.json")
    assert [r.id for r in read_all(tmp_path)] == ["a"] and "passed over" in caplog.text


@pytest.mark.parametrize("text", ["[]", "null", '{"entries": [1]}'])
def test_another_kind_of_result_is_passed_over_without_a_warning(tmp_path, text, caplog):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match="not a record"):
        Record.read(tmp_path / "a.json")
    assert not list(read_all(tmp_path)) and not caplog.text


def test_unknown_fields_of_newer_records_are_ignored(tmp_path):
    path = record().write(tmp_path / "a.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"later": 1}))
    assert Record.read(path) == record()
