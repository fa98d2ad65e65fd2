"""The protocol of a cell can be read before it runs, and what runs is what was read."""

import json
import math

import pytest

from common.cells import schedule, trace
from common.cells.errors import UserError
from common.cells.spec import Recipe, Spec
from common.cells.trace import Prune, Train
from common.data import sources as D
from common.running import gradual, pipeline
from common.running import train as T
from common.running.cli import run

DENSE = Recipe(epochs=1, lr=0.05, batch_size=64)
COURSE = Spec(
    model="digits_cnn:width=0.25",
    train=DENSE,
    method="magnitude-global",
    sparsity=0.9,
    levels=(0.05, 0.6, 0.9),
    clock="course",
    first_epoch=1,
    step_epochs=2,
    finetune=Recipe(
        epochs=8, lr=0.02, batch_size=128, schedule="multistep", milestones=(2, 6, 7), gamma=0.5
    ),
)


def test_zhu_and_gupta_is_their_equation_at_the_papers_epochs():
    """WoodFisher Sec. S1.1: ResNet-50 from epoch 1 every 5 until 40, MobileNetV1 from 4 every 4
    until 24, both from 5%.
    """
    resnet = schedule.zhu_gupta(0.9, 1, 5, 40)
    assert [round(level, 3) for level in resnet] == [
        0.05,
        0.337,
        0.551,
        0.702,
        0.802,
        0.861,
        0.89,
        0.899,
    ]
    for i, level in enumerate(resnet):
        assert level == pytest.approx(0.9 + (0.05 - 0.9) * (1 - (1 + 5 * i - 1) / (40 - 1)) ** 3)
    mobile = schedule.zhu_gupta(0.7528, 4, 4, 24)
    assert [round(level, 4) for level in mobile] == [0.05, 0.393, 0.601, 0.7078, 0.7472, 0.7528]
    with pytest.raises(UserError, match="step_epochs=0"):
        schedule.zhu_gupta(0.9, 1, 0, 40)
    with pytest.raises(UserError, match="from epoch 5 to 5"):
        schedule.zhu_gupta(0.9, 5, 1, 5)


def test_a_course_is_one_clock():
    events = trace.course(COURSE)
    assert [(type(e).__name__, e.epoch) for e in events] == [
        ("Train", 0.0),
        ("Prune", 1.0),
        ("Train", 1.0),
        ("Prune", 3.0),
        ("Train", 3.0),
        ("Prune", 5.0),
        ("Train", 5.0),
    ]
    assert [e.amount for e in events if isinstance(e, Prune)] == [0.05, 0.6, 0.9]
    stretches = [e for e in events if isinstance(e, Train)]
    assert [s.stage for s in stretches] == ["before", "between", "between", "final"]
    assert sum(s.epochs for s in stretches) == 8
    # milestone 2 lies one epoch into the second stretch
    assert stretches[1].rates() == [(0.0, 0.02), (1.0, 0.01)]
    assert stretches[3].rates() == [(0.0, 0.01), (1.0, 0.005), (2.0, 0.0025)]


def test_an_interval_starts_its_rates_anew():
    spec = COURSE.but(
        clock="interval",
        first_epoch=0.0,
        step_epochs=0.0,
        between=Recipe(epochs=3, lr=0.1, schedule="cosine"),
        finetune=Recipe(epochs=4, lr=0.3, schedule="exponential", gamma=0.5),
    )
    prune, first, _, second, _, last = trace.course(spec)
    assert prune.epoch == 0 and first.epoch == 0 and second.epoch == 3 and last.epoch == 6
    for stretch in (first, second):
        assert (
            stretch.rate(0) == 0.1
            and stretch.rate(1.5) == pytest.approx(0.05)
            and stretch.rate(3) == pytest.approx(0, abs=1e-9)
        )
    assert last.rates() == [(0.0, 0.3), (1.0, 0.15), (2.0, 0.075), (3.0, 0.0375)]
    plain = spec.but(between=None, step_epochs=1.5)  # without a recipe of its own
    assert trace.course(plain)[1].recipe == Recipe(
        epochs=1.5, lr=0.3, schedule="exponential", gamma=0.5
    )


@pytest.mark.parametrize(
    "spec",
    [
        COURSE,
        COURSE.but(finetune=Recipe(epochs=8, lr=0.02, batch_size=128, schedule="cosine")),
        COURSE.but(
            clock="interval",
            first_epoch=0.0,
            step_epochs=0.0,
            finetune=Recipe(epochs=2, lr=0.01),
            between=Recipe(epochs=9, max_steps=5, lr=0.03, batch_size=256, schedule="cosine"),
        ),
        COURSE.but(
            clock="interval",
            first_epoch=0.0,
            step_epochs=0.5,
            finetune=Recipe(epochs=1, lr=0.01, schedule="cosine"),
        ),
    ],
)
def test_what_runs_is_what_was_read(spec, tmp_path, monkeypatch):
    """Every rate of every optimiser step, and every pruning's epoch and amount, against the
    trace.
    """
    taken, real = [], T._step

    def step(network, state, *others):
        real(network, state, *others)
        taken.append(
            (state.steps_per_epoch, state.optimizer.param_groups[0]["lr"], state.recipe.batch_size)
        )

    spec = spec.but(output_dir=str(tmp_path))
    pipeline.train(spec)
    monkeypatch.setattr(T, "_step", step)
    pipeline.finetune(spec)
    examples = trace.EXAMPLES["digits"]
    assert examples == len(D.load("digits").train)
    expected = []
    for stretch in (e for e in trace.course(spec, examples) if isinstance(e, Train)):
        an_epoch = math.ceil(examples / stretch.recipe.batch_size)
        steps = round(stretch.epochs * an_epoch)
        expected += [
            (
                an_epoch,
                pytest.approx(stretch.rate(i / an_epoch), rel=1e-6, abs=1e-9),
                stretch.recipe.batch_size,
            )
            for i in range(steps)
        ]
    assert len(taken) == len(expected) and all(
        one == other for one, other in zip(taken, expected, strict=True)
    )
    record = pipeline.prune(spec)
    told = [(e.epoch, e.amount) for e in trace.course(spec, examples) if isinstance(e, Prune)]
    for entry, (epoch, amount) in zip(record.trajectory, told, strict=True):
        assert entry["epoch"] == pytest.approx(epoch, abs=1e-6) and entry["amount"] == amount
    for entry, (_, amount) in zip(record.trajectory, told, strict=True):
        assert entry["kept_params"] == pytest.approx(
            (1 - amount) * record.achieved["dense_params"], abs=1
        )


def test_a_course_that_is_killed_goes_on_where_it_was(tmp_path, monkeypatch):
    straight = pipeline.finetune(COURSE.but(output_dir=str(tmp_path / "straight")))
    spec, real, calls = COURSE.but(output_dir=str(tmp_path / "killed")), gradual.tune, []

    def killed(*arguments, **how):
        calls.append(how["desc"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **how)

    monkeypatch.setattr(gradual, "tune", killed)
    with pytest.raises(KeyboardInterrupt):
        pipeline.finetune(spec)
    again = pipeline.finetune(spec)
    assert again.accuracy == straight.accuracy and again.achieved == straight.achieved
    assert calls.count("before the first pruning") == 1


def test_layers_go_the_same_share_of_their_way():
    spec = COURSE.but(options={"layer_sparsity": {"conv1": 0.45, "*": 0.9}})
    prunings = [e for e in trace.course(spec) if isinstance(e, Prune)]
    assert [p.layers["*"] for p in prunings] == pytest.approx([0.05, 0.6, 0.9])
    share = (0.9 - 0.6) / (0.9 - 0.05)
    assert [p.layers["conv1"] for p in prunings] == pytest.approx(
        [0.05, 0.45 - (0.45 - 0.05) * share, 0.45]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": (0.5, 0.4)}, "levels=.*do not grow"),
        ({"levels": (0.5, 1.0)}, r"levels=.*outside \[0, 1\)"),
        ({"levels": (0.5, 0.95)}, "levels=.*end above sparsity=0.9"),
        ({"steps": 3}, "levels=.*given together"),
        ({"clock": "wall"}, "clock='wall'"),
        ({"between": Recipe()}, "step_epochs=2.0"),
        ({"clock": "interval"}, "first_epoch=1.0: is for clock='course'"),
        ({"speedup": 2.0}, "speedup=2.0: does not go with"),
        ({"max_error_increase": 1.0}, "max_error_increase=1.0: does not go with"),
        ({"first_epoch": -1}, "first_epoch=-1"),
    ],
)
def test_fields_that_contradict_each_other_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        COURSE.but(**changes)


def test_a_course_without_room_for_its_prunings_is_refused():
    with pytest.raises(
        UserError, match="finetune.epochs=4.0: ends before the last pruning, at epoch 5"
    ):
        trace.course(COURSE.but(finetune=Recipe(epochs=4)))
    with pytest.raises(UserError, match="step_epochs=0.0: leaves no training"):
        trace.course(COURSE.but(step_epochs=0.0))


def test_the_dry_run_prints_the_protocol(capsys):
    table = {"1": {"one": COURSE.but(table="1", cell="one")}}
    assert run("common", "finetune", table, argv=["--table", "1", "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["trace"] == [
        "dense: initialised by seed 0, trained for 1 epochs at 0.05; sgd, momentum 0.9, decay 0, "
        "batch 64, plain images",
        "epoch 0 to 1: train (before) at 0.02; sgd, momentum 0.9, decay 0, batch 128, plain images",
        "epoch 1: prune to 5% of the weights removed by magnitude-global",
        "epoch 1 to 3: train (between) at 0.02, 0.01 from 2; sgd, momentum 0.9, decay 0, batch "
        "128, plain images",
        "epoch 3: prune to 60% of the weights removed by magnitude-global",
        "epoch 3 to 5: train (between) at 0.01; sgd, momentum 0.9, decay 0, batch "
        "128, plain images",
        "epoch 5: prune to 90% of the weights removed by magnitude-global",
        "epoch 5 to 8: train (final) at 0.01, 0.005 from 6, 0.0025 from 7; sgd, momentum 0.9, "
        "decay 0, batch 128, plain images",
    ]


def test_another_amount_is_not_taken_where_the_cell_has_levels(capsys):
    """It would be recorded as asked for, and not be pruned to."""
    table = {"1": {"one": COURSE.but(table="1", cell="one")}}
    assert (
        run("common", "finetune", table, argv=["--table", "1", "--sparsity", "0.95", "--dry-run"])
        == 2
    )
    assert (
        "sparsity=0.95: cell one says itself how much each pruning removes"
        in capsys.readouterr().err
    )


def test_a_picture_gets_the_same_numbers():
    drawn = trace.points(COURSE)
    assert [epoch for epoch, _ in drawn["removed"]] == [1, 3, 5]
    assert [part for _, part in drawn["removed"]] == pytest.approx([0.05, 0.6, 0.9])
    assert drawn["rate"][0] == (0.0, 0.02) and drawn["rate"][-1] == (8.0, 0.0025)
    assert (2.0, 0.02) in drawn["rate"] and (2.0, 0.01) in drawn["rate"]
    units = Spec(
        method="kron-obs",
        unit_ratio=0.5,
        steps=3,
        step_schedule="constant",
        step_epochs=1,
        finetune=Recipe(epochs=2),
    )
    # half of what is left, three times
    assert [part for _, part in trace.points(units)["removed"]] == [0.5, 0.75, 0.875]


def test_a_network_that_nobody_trained_is_not_pruned_without_a_word(tmp_path, capsys):
    argv = [
        "--model",
        "digits_cnn:width=0.25",
        "--sparsity",
        "0.5",
        "--epochs",
        "0",
        "--output-dir",
        str(tmp_path),
    ]
    assert run("common", "finetune", argv=argv) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        line.startswith("error: checkpoint=''")
        and "--allow-untrained" in line
        and not list(tmp_path.iterdir())
    )
    assert run("common", "finetune", argv=[*argv, "--allow-untrained"]) == 0


def test_new_fields_do_not_rename_old_runs_but_decide_new_ones():
    old = Spec(sparsity=0.9)
    assert (
        old.but(
            levels=(), between=None, clock="interval", first_epoch=0.0, allow_untrained=True
        ).slug()
        == old.slug()
    )
    names = {
        spec.digest()
        for spec in (
            COURSE,
            COURSE.but(levels=(0.1, 0.9)),
            COURSE.but(first_epoch=2),
            COURSE.but(clock="interval", first_epoch=0.0),
            COURSE.but(
                clock="interval", first_epoch=0.0, step_epochs=0.0, between=Recipe(epochs=2)
            ),
        )
    }
    assert len(names) == 5
    assert Spec.from_dict(json.loads(json.dumps(COURSE.to_dict()))) == COURSE
