"""The essay says what the records say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from common.cells.errors import UserError
from common.cells.library import of_cell, read_all
from figures import claims, evidence, lobs_claims
from figures.evidence import (
    FAILS,
    HOLDS,
    OPEN,
    PART,
    Missing,
    Number,
    cell,
    named,
    printed,
    verdict,
)

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "claims.md").read_text()
MARKS = re.findall(r"<!-- claim: (\S+) (\S+) -->", TEXT)


def test_the_essay_is_current():
    """`python -m figures.claims` writes it."""
    assert claims.render(TEXT) == TEXT


def test_every_claim_with_a_rule_is_in_the_essay_once():
    assert sorted(name for name, _ in MARKS) == sorted(claims.CLAIMS)
    assert {mark for _, mark in MARKS} <= set(claims.WORDS)


def test_records_that_are_named_exist():
    ids = {
        record.id
        for paper in ("eigendamage", "lobs", "nap", "woodfisher")
        for record in read_all(ROOT / paper / "results")
    }
    named_in_text = re.findall(r"`(\S+)` \(seeds? ([\d, ]+)\)", TEXT)
    assert len(named_in_text) > 10
    for name, seeds in named_in_text:
        for seed in seeds.split(", "):
            assert any(f"{name}-seed{seed}-{stage}" in ids for stage in ("prune", "finetune")), (
                name,
                seed,
            )
    for name in re.findall(r"`(\S+\.json)`", TEXT):
        assert any(
            (ROOT / paper / "results" / name).exists()
            or of_cell(ROOT / paper / "results", name.removesuffix(".json"))
            for paper in ("eigendamage", "lobs", "nap", "woodfisher")
        ), name
    for folder in re.findall(r"figures/results/[\w-]+", TEXT):
        assert (ROOT / folder).is_dir()


def test_a_verdict_that_the_records_do_not_bear_out_stops_the_writing(monkeypatch):
    name, mark = MARKS[0]
    other = FAILS if mark != FAILS else HOLDS
    with pytest.raises(UserError, match="read the prose again"):
        claims.render(TEXT.replace(f"{name} {mark} -->", f"{name} {other} -->"))
    with pytest.raises(UserError, match="unknown"):
        claims.render("<!-- claim: nonsense holds -->\n<!-- end -->")
    monkeypatch.setitem(claims.CLAIMS, "gone", lambda: (_ for _ in ()).throw(Missing("x")))
    assert claims.evidence("gone") == (OPEN, ["Not committed: x."])


def test_verdict():
    assert (verdict(True, True), verdict(True, False), verdict(False, False)) == (
        HOLDS,
        PART,
        FAILS,
    )


def test_numbers_come_from_the_records_and_the_papers():
    records = [
        r
        for r in read_all(ROOT / "lobs" / "results")
        if r.cell.startswith("lenet300-8.4-random-seed") and r.stage == "prune"
    ]
    number = cell("lobs", "Table 1", "lenet300-8.4-random-seed*", "err_after_pruning_top1_pct")
    assert (
        sorted(number.values)
        == pytest.approx(sorted(100 * (1 - r.accuracy["pruned"]) for r in records))
        and len(records) == 3
    )
    assert (
        str(number).endswith("(3 seeds)")
        and str(Number([1.0], "")) == str(Number([1.0, 1.0], "")) == "1.00"
    )
    assert (
        printed("lobs", "Table 1", "L-OBS", "err_after_pruning_top1_pct", model="LeNet-300-100")
        == 3.1
    )
    with pytest.raises(Missing):
        printed("lobs", "Table 1", "L-OBS", "err_after_pruning_top1_pct", model="LeNet-6")
    with pytest.raises(Missing):
        evidence.field("lobs", "nothing.json#x")
    with pytest.raises(Missing):
        evidence.stat("digits_cnn-digits", "obd-global", 0.123)


def test_record_ids_are_told_without_stage_and_with_their_seeds():
    assert (
        named(["a-s0.7-1b-seed0-prune", "a-s0.7-1b-seed2-finetune", "b.json"])
        == "`a-s0.7-1b` (seeds 0, 2), `b.json`"
    )


def lobs_cell(network_errors: dict[str, float]):
    """Stands for evidence.cell: dense error 1, and right after pruning what the method's part of
    the pattern says.
    """

    def of(paper: str, label: str, pattern: str, quantity: str) -> Number:
        if quantity == "orig_err_top1_pct":
            return Number([1.0], "x")
        return Number(
            [
                network_errors.get(
                    pattern.replace("-seed*", "")
                    .rpartition("-8.4-")[2]
                    .rpartition("cifarnet-9-")[2],
                    0.0,
                )
            ],
            "x",
        )

    return of


@pytest.mark.parametrize(
    ("errors", "word"),
    [
        # little is lost, and the others collapse
        ({"l-obs": 2.0, "lwc": 20.0, "obd": 20.0}, HOLDS),
        ({"l-obs": 2.0, "lwc": 2.5, "obd": 20.0}, PART),  # so it is by magnitude
        ({"l-obs": 72.0, "lwc": 72.1, "obd": 72.0}, FAILS),
    ],
)
def test_little_is_lost_is_judged_on_every_network_beside_its_rivals(errors, word, monkeypatch):
    monkeypatch.setattr(lobs_claims, "cell", lobs_cell(errors))
    found, lines = lobs_claims.lobs_little_is_lost()
    assert found == word and {"LeNet-300-100", "LeNet-5", "CIFAR-Net"} <= {
        line.partition(",")[0] for line in lines
    }


def test_every_module_of_rules_is_read():
    """A rule in a module that nobody imports would leave its entries untested."""
    modules = {path.stem for path in (ROOT / "figures").glob("*_claims.py")}
    read = {
        rule.__module__.rpartition(".")[2] for rules in evidence.ENTRIES.values() for rule in rules
    }
    assert modules - read <= {rule.__module__.rpartition(".")[2] for rule in claims.CLAIMS.values()}
    assert "eigendamage_figure_claims" in read


def test_a_rule_without_its_records_is_not_tested():
    for (paper, label), rules in evidence.ENTRIES.items():
        for rule in rules:
            assert evidence.judged(rule)[0] in (HOLDS, PART, FAILS, OPEN) and rule.__doc__, (
                paper,
                label,
            )
    assert evidence.judged(lambda: (HOLDS, [evidence.field("lobs", "nothing.json#x")])) == (
        OPEN,
        ["Not committed: nothing.json#x."],
    )
