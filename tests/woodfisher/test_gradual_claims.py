"""The rules of gradual pruning say what their records say: numbers that turn a claim turn its
verdict.
"""

import pytest

from common.cells.record import Record
from figures import claims, woodfisher_gradual_claims, woodfisher_profile_claims  # noqa: F401  claims registers all rules
from figures.evidence import FAILS, HOLDS, OPEN, PART, Missing, seen


def tuned(last: float, best: float | None = None, seed: int = 0) -> Record:
    return Record(
        f"x-seed{seed}-finetune",
        "woodfisher",
        "",
        "",
        "",
        "finetune",
        "cpu",
        {"seed": seed},
        accuracy={"last": last, "best": best or last},
    )


def pruned(accuracies: list[float], **more) -> Record:
    course = [{"amount": 0.1 * i, "pruned": accuracy} for i, accuracy in enumerate(accuracies)]
    return Record(
        "x-seed0-prune", "woodfisher", "", "", "", "prune", "cpu", {}, trajectory=course, **more
    )


def committed(monkeypatch, found: dict):
    """Only these records: (cell without seed, stage) -> records."""

    def records(label, name, stage):
        if (name, stage) not in found:
            raise Missing(name)
        return found[name, stage]

    for module in (woodfisher_gradual_claims, woodfisher_profile_claims):
        monkeypatch.setattr(module, "records", records)


def one_epoch(woodfisher: float, magnitude: float, seeds: int = 3, **more: float) -> dict:
    ends = {"woodfisher": woodfisher, "magnitude-global": magnitude} | {
        name.replace("_", "-"): value for name, value in more.items()
    }
    return {
        (f"resnet20-one-epoch-{method}-{amount}", "finetune"): [
            tuned(last, seed=seed) for seed in range(seeds)
        ]
        for method, last in ends.items()
        for amount in (0.8, 0.9, 0.95, 0.98)
    }


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (one_epoch(0.8, 0.79, magnitude_layer=0.7), HOLDS),
        (one_epoch(0.8, 0.79), HOLDS),
        (one_epoch(0.78, 0.79), FAILS),
        (one_epoch(0.78, 0.79, magnitude_layer=0.7), PART),
        (one_epoch(0.8, 0.79, seeds=1), OPEN),
        ({k: v for k, v in one_epoch(0.8, 0.79).items() if not k[0].endswith("0.98")}, OPEN),
    ],
)
def test_the_lead_is_of_the_last_accuracies(monkeypatch, found, verdict):
    committed(monkeypatch, found)
    assert woodfisher_gradual_claims.woodfisher_gradual_lead()[0] == verdict


def test_without_records_nothing_is_said(monkeypatch):
    committed(monkeypatch, {})
    for label in (
        "Table 1",
        "Table 2",
        "Table 3",
        "Table 4",
        "Table 5",
        "Table S4",
        "Table S5",
        "Table S6",
        "Table S7",
        "Figure 6",
        "Figure S9",
        "Figure S10",
        "Figure S11",
        "Beyond: feedback",
    ):
        assert seen("woodfisher", label)[0] == "not tested", label


def test_significance_needs_seeds_that_agree(monkeypatch):
    def seeds(values):
        return [tuned(value, seed=i) for i, value in enumerate(values)]

    names = [(f"lenet5-{method}-0.98", "finetune") for method in ("woodfisher", "magnitude-global")]
    for ours, verdict in (
        ([0.985, 0.986, 0.9855], HOLDS),
        ([0.985, 0.97, 0.99], PART),
        ([0.975, 0.976, 0.974], FAILS),
    ):
        committed(
            monkeypatch, dict(zip(names, (seeds(ours), seeds([0.980, 0.981, 0.980])), strict=True))
        )
        assert woodfisher_gradual_claims.woodfisher_gradual_significance()[0] == (
            verdict if verdict != FAILS else PART
        ), ours
    committed(monkeypatch, dict(zip(names, (seeds([0.9]), seeds([0.91])), strict=True)))
    assert woodfisher_gradual_claims.woodfisher_gradual_significance()[0] == FAILS


def test_almost_every_step_is_all_but_one(monkeypatch):
    ends = one_epoch(0.8, 0.79)
    for wins, verdict in ((4, HOLDS), (3, HOLDS), (2, PART)):
        ours = [0.6] * wins + [0.4] * (4 - wins)
        committed(
            monkeypatch,
            ends
            | {
                ("resnet20-one-epoch-woodfisher-0.9", "prune"): [pruned(ours)],
                ("resnet20-one-epoch-magnitude-global-0.9", "prune"): [pruned([0.5] * 4)],
            },
        )
        assert woodfisher_gradual_claims.woodfisher_better_steps()[0] == verdict, wins


def test_dpfs_failure_is_its_norms_only_where_the_intervention_saves_it(monkeypatch):
    def run(grown: float, accuracy: float) -> list[Record]:
        record = pruned(
            [0.8, 0.5, 0.2, 0.1],
            layers=[{"name": "a", "kept": 5, "total": 9}, {"name": "b", "kept": 1, "total": 9}],
        )
        for i, entry in enumerate(record.trajectory):
            entry |= {
                "latent_norms": {"a.weight": 1 + (grown - 1) * i / 3, "linear.weight": 1.0},
                "tuned": accuracy,
            }
        return [record]

    for equal, verdict in ((run(2, 0.38), HOLDS), (run(2, 0.2), PART), (run(40, 0.1), PART)):
        committed(
            monkeypatch,
            {
                ("resnet20-as-it-is-0.98", "prune"): run(50, 0.1),
                ("resnet20-equal-norms-0.98", "prune"): equal,
                ("resnet20-tenth-of-the-rate-0.98", "prune"): run(3, 0.4),
                ("resnet20-magnitude-global-0.98", "prune"): run(1, 0.4),
            },
        )
        found, lines = woodfisher_gradual_claims.dpf_fails_by_its_norms()
        assert (
            found == verdict
            and "a grow most, 50.0 times" in lines[0]
            and "a has most of the weights that are left, 5 of 6" in lines[0]
        )
