"""Gradual runs: a fixed fraction of what is left, and the stops that a Spec names."""

import dataclasses
import json

import pytest

from common.cells import schedule
from common.cells.errors import UserError
from common.cells.spec import Recipe, Spec
from common.nets import checkpoint
from common.nets import masks as M
from common.running import gradual, pipeline, stages
from common.running import train as T
from common.running.cli import run

TINY = {
    "model": "digits_cnn:width=0.25",
    "train": Recipe(epochs=3, lr=0.05, batch_size=64, schedule="cosine"),
    "finetune": Recipe(epochs=0.5, lr=0.02, batch_size=64),
}


def test_each_pruning_removes_its_ratio_of_what_is_left():
    levels = schedule.shrinking(0.5, 0.9)
    assert levels == [0.5, 0.75, 0.875, 0.9]
    assert schedule.shrinking(0.5, 0.875) == [0.5, 0.75, 0.875]  # no step of nothing at the end
    assert schedule.shrinking(0.9, 0.3) == [0.3]


@pytest.mark.parametrize(
    ("ratio", "final", "word"),
    [(0.0, 0.9, "step_ratio"), (1.0, 0.9, "step_ratio"), (0.1, 0.0, "met already")],
)
def test_a_ratio_outside_and_a_target_that_is_met_are_refused(ratio, final, word):
    with pytest.raises(UserError, match=word):
        schedule.shrinking(ratio, final)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"step_ratio": 1.5}, "step_ratio"),
        ({"speedup": 1.0}, "speedup"),
        ({"max_error_increase": float("nan")}, "max_error_increase"),
    ],
)
def test_a_spec_refuses_what_cannot_be(change, word):
    with pytest.raises(UserError, match=word):
        Spec(sparsity=0.5, **change)


def test_the_run_stops_at_the_step_that_is_fast_enough(tmp_path):
    settings = {
        "method": "kron-obs",
        "unit_ratio": 0.2,
        "steps": 9,
        "step_schedule": "constant",
        "speedup": 2.0,
        "num_samples": 64,
        "step_epochs": 0.3,
        "step_test_samples": 50,
        **TINY,
    }
    spec = Spec(output_dir=str(tmp_path), **settings)
    record = pipeline.prune(spec)
    reached = [entry["speedup"] for entry in record.trajectory]
    assert reached[-2] < 2 <= reached[-1] and len(reached) < 9
    assert record.achieved["dense_macs"] / record.achieved["kept_macs"] == pytest.approx(
        reached[-1], abs=1e-4
    )
    # 50 images judged
    assert all(
        round(entry["pruned"] * 50) == pytest.approx(entry["pruned"] * 50)
        for entry in record.trajectory
    )


def test_a_run_that_cannot_get_so_fast_says_so(tmp_path):
    record = pipeline.prune(
        Spec(
            output_dir=str(tmp_path),
            method="kron-obs",
            unit_ratio=0.1,
            steps=2,
            step_schedule="constant",
            speedup=50.0,
            num_samples=64,
            **TINY,
        )
    )
    assert any("not 50" in note for note in record.notes)


def test_the_run_stops_before_the_step_whose_error_is_too_high(tmp_path):
    record = pipeline.prune(
        Spec(
            output_dir=str(tmp_path),
            method="magnitude-global",
            sparsity=0.999,
            step_ratio=0.25,
            step_epochs=0.5,
            max_error_increase=5.0,
            **TINY,
        )
    )
    spec = Spec.from_dict(record.spec).but(output_dir=str(tmp_path))
    assert 0 < len(record.trajectory) < len(schedule.shrinking(0.25, 0.999))
    assert all(
        100 * (record.accuracy["dense"] - entry["tuned"]) <= 5.0 for entry in record.trajectory
    )
    assert any("points above" in note for note in record.notes)
    kept = checkpoint.load(pipeline.cell_folder(spec) / "pruned.safetensors")
    assert M.sparsity(kept.masks) == pytest.approx(record.trajectory[-1]["amount"], abs=1e-3)
    # the network of that step, fine-tuned
    assert record.accuracy["pruned"] == record.trajectory[-1]["tuned"]


class Told:
    """Stands for fine-tuning: the accuracies below the dense network's that the test wants, or a
    kill (None).
    """

    def __init__(self, *points_below):
        self.left, self.real = list(points_below), gradual.tune

    def __call__(self, spec, result, *arguments, between=False, **how):
        fit = self.real(spec, result, *arguments, between=between, **how)
        if not between:
            return fit
        below = self.left.pop(0)
        if below is None:
            raise KeyboardInterrupt
        fit.history[-1]["accuracy"] = self.dense - below / 100
        return fit


BOUNDED = {
    "method": "magnitude-global",
    "sparsity": 0.999,
    "step_ratio": 0.5,
    "step_epochs": 0.1,
    "max_error_increase": 1.0,
    **TINY,
}


@pytest.mark.parametrize(
    ("patience", "below", "entries", "within"),
    [
        (0, (0.0, 2.0), 1, 0.5),
        (2, (0.0, 2.0, 0.5, 3.0, 3.0, 3.0), 3, 0.875),
        (1, (2.0, 2.5), 0, 0.0),
        (2, (0.5, 2.0, 2.0, 1.0, 4.0, 5.0, 6.0), 4, 0.9375),
    ],
)
def test_a_patient_run_gives_back_the_last_network_within_the_bound(
    tmp_path, monkeypatch, patience, below, entries, within
):
    told = Told(*below)
    monkeypatch.setattr(gradual, "tune", told)
    spec = Spec(output_dir=str(tmp_path), patience=patience, **BOUNDED)
    told.dense = pipeline.train(spec).accuracy["last"]
    record = pipeline.prune(spec)
    kept = checkpoint.load(pipeline.cell_folder(spec) / "pruned.safetensors")
    assert (
        not told.left
        and len(record.trajectory) == entries
        and M.sparsity(kept.masks) == pytest.approx(within, abs=1e-3)
    )
    assert [entry.get("beyond", 0) for entry in record.trajectory] == [
        value if value > 1 else 0 for value in below[:entries]
    ]
    tail = ", ".join(f"{value:.2f}" for value in below[entries:])
    assert record.notes[-1].endswith(
        f"from there on the test error is {tail} points above the dense network's"
    )


@pytest.mark.parametrize("kill", [1, 2, 3, 4, 5])
def test_a_patient_run_that_is_killed_ends_the_same(tmp_path, monkeypatch, kill):
    below = [0.0, 2.0, 0.5, 3.0, 4.0, 5.0]
    ends = []
    for name, told in (
        ("straight", Told(*below)),
        ("killed", Told(*below[:kill], None, *below[kill:])),
    ):
        spec = Spec(output_dir=str(tmp_path / name), patience=2, **BOUNDED)
        told.dense = pipeline.train(spec).accuracy["last"]
        with monkeypatch.context() as patch:
            patch.setattr(gradual, "tune", told)
            if name == "killed":
                with pytest.raises(KeyboardInterrupt):
                    pipeline.prune(spec)
            record = pipeline.prune(spec)
        weights = checkpoint.load(
            pipeline.cell_folder(spec) / "pruned.safetensors"
        ).model.state_dict()
        ends.append(
            (
                record.trajectory,
                record.notes,
                {name: value.tolist() for name, value in weights.items()},
            )
        )
        assert not list(pipeline.cell_folder(spec).glob("*snapshot*"))
    assert ends[0] == ends[1]


def test_a_ratio_of_channels_is_their_unit_ratio(tmp_path):
    with pytest.raises(UserError, match="step_ratio"):
        pipeline.prune(
            Spec(
                output_dir=str(tmp_path), method="kron-obs", unit_ratio=0.2, step_ratio=0.1, **TINY
            )
        )


def test_a_paper_may_say_what_a_bare_command_runs(tmp_path, capsys):
    base = Spec(paper="demo", sparsity=0.7, step_ratio=0.2, **TINY)
    assert (
        run(
            "demo",
            "prune",
            argv=["--dry-run", "--max-error-increase", "0.1", "--output-dir", str(tmp_path)],
            base=base,
        )
        == 0
    )
    told = json.loads(capsys.readouterr().out)["spec"]
    assert (
        told["sparsity"] == 0.7 and told["max_error_increase"] == 0.1 and told["step_ratio"] == 0.2
    )


CLOCKS = {
    "interval": {"steps": 3, "step_epochs": 0.25},
    # training before the first pruning too
    "course": {
        "levels": (0.5, 0.7, 0.8),
        "clock": "course",
        "first_epoch": 0.25,
        "step_epochs": 0.25,
        "finetune": Recipe(epochs=1, lr=0.02, batch_size=64),
    },
}


@pytest.mark.parametrize("kill", ["step 2 of 3", "writing"])
@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("method", ["woodfisher", "nap"])
def test_the_record_of_a_run_that_was_killed_is_that_of_one_that_was_not(
    tmp_path, monkeypatch, method, clock, kill
):
    """Notes, layers, predictions and the digests of network and masks, wherever it was killed: in
    the training after a pruning, or when all was done but the record. No stretch of training that
    was finished is begun again."""
    spec = Spec(method=method, sparsity=0.8, num_samples=40, **TINY | CLOCKS[clock])
    fit, save, begun = T.fit, stages.Stage.publish, []

    def stopped(*arguments, **how):
        begun.append(how["desc"])
        if how["desc"] == kill and begun.count(kill) == 1:
            raise KeyboardInterrupt
        return fit(*arguments, **how)

    def unwritten(work, *arguments):
        if kill == "writing" and work.name == "prune" and not tried:
            tried.append(work)
            raise KeyboardInterrupt
        return save(work, *arguments)

    tried, records = [], []
    for name in ("straight", "killed"):
        here = spec.but(output_dir=str(tmp_path / name))
        pipeline.train(here)
        begun.clear()
        with monkeypatch.context() as patch:
            if name == "killed":
                patch.setattr(T, "fit", stopped)
                patch.setattr(stages.Stage, "publish", unwritten)
                with pytest.raises(KeyboardInterrupt):
                    pipeline.prune(here)
            record = dataclasses.asdict(pipeline.prune(here))
        assert record["notes"] or method == "nap"
        assert record.pop("timing").get("resumed", False) == (name == "killed")
        del record["provenance"]
        records.append(record)
    assert records[0] == records[1]
    again = 1 if kill == "writing" else 2
    assert all(begun.count(what) == (again if what == kill else 1) for what in set(begun))
