"""The essay says what the records say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from common.errors import UserError
from common.record import read_all
from figures import claims, evidence
from figures.evidence import FAILS, HOLDS, OPEN, PART, Missing, Number, cell, named, printed, verdict

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
    ids = {record.id for paper in ("eigendamage", "lobs", "nap", "woodfisher") for record in read_all(ROOT / paper / "results")}
    named_in_text = re.findall(r"`(\S+)` \(seeds? ([\d, ]+)\)", TEXT)
    assert len(named_in_text) > 10
    for name, seeds in named_in_text:
        for seed in seeds.split(", "):
            assert any(f"{name}-seed{seed}-{stage}" in ids for stage in ("prune", "finetune")), (name, seed)
    for name in re.findall(r"`(\S+\.json)`", TEXT):
        assert any((ROOT / paper / "results" / name).exists() for paper in ("eigendamage", "lobs", "nap", "woodfisher")), name
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
    assert (verdict(True, True), verdict(True, False), verdict(False, False)) == (HOLDS, PART, FAILS)


def test_numbers_come_from_the_records_and_the_papers():
    records = [r for r in read_all(ROOT / "lobs" / "results") if r.cell.startswith("lenet300-8.4-random-seed") and r.stage == "prune"]
    number = cell("lobs", "Table 1", "lenet300-8.4-random-seed*", "err_after_pruning_top1_pct")
    assert sorted(number.values) == pytest.approx(sorted(100 * (1 - r.accuracy["pruned"]) for r in records)) and len(records) == 3
    assert str(number).endswith("(3 seeds)") and str(Number([1.0], "")) == "1.00"
    assert printed("lobs", "Table 1", "L-OBS", "err_after_pruning_top1_pct", model="LeNet-300-100") == 3.1
    with pytest.raises(Missing):
        printed("lobs", "Table 1", "L-OBS", "err_after_pruning_top1_pct", model="LeNet-6")
    with pytest.raises(Missing):
        evidence.field("lobs", "nothing.json#x")
    with pytest.raises(Missing):
        evidence.stat("digits_cnn-digits", "obd-global", 0.123)


def test_record_ids_are_told_without_stage_and_with_their_seeds():
    assert named(["a-s0.7-1b-seed0-prune", "a-s0.7-1b-seed2-finetune", "b.json"]) == "`a-s0.7-1b` (seeds 0, 2), `b.json`"
