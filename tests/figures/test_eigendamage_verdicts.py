"""What the rules of EigenDamage's figures say of records made up for the purpose."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from figures import eigendamage_figure_claims as rules
from figures.evidence import FAILS, HOLDS, OPEN, PART, Missing, judged


def stub(monkeypatch, known: dict) -> None:
    """`rules.record` finds these: (cell without its network, stage) -> record."""

    def record(label: str, name: str, stage: str):
        short = (
            name.removeprefix("cpu-vgg19-L1-")
            .removeprefix("cpu-vgg19-")
            .removeprefix("cpu-resnet32-")
        )
        if (short, stage) not in known:
            raise Missing(name)
        return known[short, stage]

    monkeypatch.setattr(rules, "record", record)


def one(
    ratio: float = 0.5,
    *,
    loss: float = 0.5,
    last: float = 0.9,
    kept: float = 0.2,
    macs: float = 0.5,
    layers=(),
    steps=(),
):
    return SimpleNamespace(
        id="x-seed0-prune",
        loss={"pruned": loss, "dense": 0.5},
        accuracy={"last": last},
        requested={"unit_ratio": ratio},
        layers=layers,
        trajectory=list(steps),
        achieved={
            "model_params": kept,
            "dense_model_params": 1,
            "kept_macs": macs,
            "dense_macs": 1,
            "dense_params": 100,
        },
    )


@pytest.mark.parametrize(
    ("mine", "rival", "word"),
    [(0.55, 2.3, HOLDS), (0.7, 2.3, PART), (0.7, 1.0, PART), (3.4, 1.9, FAILS)],
)
def test_loss_right_after_pruning(mine, rival, word, monkeypatch):
    known = {
        (f"{ratio}-eigendamage", "prune"): one(
            ratio, loss=mine if ratio == 0.8 else 9, kept=1 - ratio
        )
        for ratio in (0.5, 0.8, 0.9)
    }
    stub(monkeypatch, known | {(f"0.8-{m}", "prune"): one(0.8, loss=rival) for m in rules.RIVALS})
    found, lines = judged(rules.loss_right_after_pruning)
    assert found == word and "80.0% of the parameters removed (ratio 0.8)" in lines[0]


@pytest.mark.parametrize(
    ("accuracy", "loss", "word"), [(0.8, 0.9, HOLDS), (0.8, 3.0, PART), (0.6, 3.0, FAILS)]
)
def test_cp_is_beaten_at_its_own_speed(accuracy, loss, word, monkeypatch):
    """The ratio that is slower than CP does not count, however good."""
    known = {}
    for ratio, macs in ((0.4, 0.9), (0.6, 0.4), (0.8, 0.2)):
        slow = ratio == 0.4
        known |= {
            (f"{ratio}-eigendamage", stage): one(
                ratio, macs=macs, last=0.99 if slow else accuracy, loss=0.1 if slow else loss
            )
            for stage in ("prune", "finetune")
        }
    for rank, macs in (("0.25x", 0.05), ("0.5x", 0.1), ("1x", 0.3), ("2x", 0.5)):
        known |= {
            (f"0-cp-{rank}", stage): one(macs=macs, last=0.7, loss=1.0)
            for stage in ("prune", "finetune")
        }
    stub(monkeypatch, known)
    found, lines = judged(rules.ahead_of_cp)
    assert found == word and sum("not compared" in line for line in lines) == 2


def test_iterative_pruning_is_judged_at_every_step_and_open_without_records(monkeypatch):
    def course(*tuned: float):
        steps = [{"tuned": value, "kept_params": 50} for value in tuned[:-1]]
        return {"prune": one(steps=[*steps, {"kept_params": 10}]), "finetune": one(last=tuned[-1])}

    known = {
        (f"0.5-{m}", stage): record
        for m in rules.RIVALS
        for stage, record in course(*[0.8] * 6).items()
    }
    stub(monkeypatch, known)
    assert judged(rules.iterative_on_vgg)[0] == OPEN
    for values, word in (([0.9] * 6, HOLDS), ([0.9] * 5 + [0.7], PART), ([0.7] * 6, FAILS)):
        stub(
            monkeypatch,
            known
            | {("0.5-eigendamage", stage): record for stage, record in course(*values).items()},
        )
        assert judged(rules.iterative_on_vgg)[0] == judged(rules.iterative_on_resnet)[0] == word


@pytest.mark.parametrize(
    ("top", "slimmed", "word"),
    [(0.1, (0.7, 0.8), HOLDS), (0.1, (0.7, 0.1), PART), (0.6, (0.95, 0.1), FAILS)],
)
def test_balance_over_the_layers(top, slimmed, word, monkeypatch):
    def layers(low: float, high: float) -> list[dict]:
        return [
            {"name": f"conv{n}", "kept": 100 * (low if n < 4 else high), "total": 100}
            for n in range(8)
        ] + [{"name": "classifier", "kept": 0, "total": 100}]

    stub(
        monkeypatch,
        {
            ("0.5-eigendamage", "prune"): one(layers=layers(0.9, top)),
            ("0.5-nn-slimming", "prune"): one(layers=layers(*slimmed)),
        },
    )
    assert judged(rules.balanced_over_the_layers)[0] == word
