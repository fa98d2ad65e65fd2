"""The statistics over seeds and amounts, against values worked out by hand or by another route."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from common.cells.errors import UserError
from figures import compare, paired, report, side_panels
from figures.records import gather
from figures.stats import paired_p
from tests.figures.fixtures import pair, record, small, write

LASTS = {
    "random": (0.50, 0.52, 0.54),
    "magnitude-global": (0.80, 0.83, 0.83),
    "obd-global": (0.90, 0.91, 0.95),
}


def three(amounts=(0.5, 0.9), lasts=LASTS) -> list:
    """Three methods with three seeds each, the same at every amount."""
    return [
        r
        for amount in amounts
        for method, values in lasts.items()
        for seed, last in enumerate(values)
        for r in pair(method, amount, seed, last=last)
    ]


def test_ranks_and_friedman():
    (ranking,) = paired.rankings(gather(three((0.5, 0.7, 0.9))))
    assert ranking.ranks == (("obd-global", 1.0), ("magnitude-global", 2.0), ("random", 3.0))
    # three blocks that agree about three methods: chi² = 12/(n k (k+1)) Σ R² − 3 n (k+1) = 12/36 (9
    # + 36 + 81) − 36 = 6, 2 degrees
    assert ranking.p == pytest.approx(math.exp(-3))


def test_ties_share_a_rank_and_a_method_without_every_amount_is_left_out():
    records = three(
        (0.5, 0.9), {"random": (0.5,), "magnitude-global": (0.7,), "obd-global": (0.7,)}
    ) + pair("l-obs", 0.5, last=0.99)
    (ranking,) = paired.rankings(gather(records))
    assert dict(ranking.ranks) == {"magnitude-global": 1.5, "obd-global": 1.5, "random": 3.0}


def test_what_removed_nothing_has_no_rank():
    """The dense network under a method's name would win every amount at which the others lose
    weights.
    """
    lasts = {"c-obd": 0.9, "kron-obd": 0.8}
    records = [
        r
        for amount in (0.5, 0.9)
        for method, last in lasts.items()
        for r in pair(method, amount, unit="unit_ratio", last=last)
    ]
    idle = [
        r
        for amount in (0.5, 0.9)
        for r in pair("eigendamage", amount, unit="unit_ratio", last=0.98, kept=1.0)
    ]
    (ranking,) = paired.rankings(gather(records + idle))
    assert ranking.amounts == (0.5, 0.9) and dict(ranking.ranks) == {"c-obd": 1.0, "kron-obd": 2.0}
    works = [r for r in idle if r.requested["unit_ratio"] == 0.5] + pair(
        "eigendamage", 0.9, unit="unit_ratio", last=0.7
    )
    (ranking,) = paired.rankings(gather(records + works))
    assert ranking.amounts == (0.9,) and ranking.ranks[-1] == ("eigendamage", 3.0)
    nearly = [
        r
        for amount in (0.5, 0.9)
        for r in pair("eigendamage", amount, unit="unit_ratio", last=0.98, kept=1 - 0.49 * amount)
    ]
    for few in (idle, nearly):
        comparison = gather(records + few)
        assert [r.ranks for r in paired.rankings(comparison)] == [
            (("c-obd", 1.0), ("kron-obd", 2.0))
        ]
        best = report.rankings(comparison)
        assert all(row.method != "eigendamage" for rows in best for row in rows)
        assert all(d.method == "kron-obd" for d in paired.differences(comparison))
        (note,) = [n for n in comparison.notes if "no rank, test or median" in n]
        assert note.startswith("2 cells") and "EigenDamage at unit ratio 0.9 (" in note


def test_methods_are_ranked_over_the_seeds_that_all_have():
    """Seeds 1 and 2 would put magnitude first; OBD has seed 0 only, where it leads. At 0.9 they
    share no seed.
    """
    records = [
        r
        for amount in (0.5, 0.9)
        for seed, last in enumerate((0.6, 0.9, 0.9))
        if (amount, seed) != (0.9, 0)
        for r in pair("magnitude-global", amount, seed, last=last)
    ]
    records += [r for amount in (0.5, 0.9) for r in pair("obd-global", amount, 0, last=0.7)]
    (ranking,) = paired.rankings(gather(records))
    assert ranking.amounts == (0.5,) and ranking.ranks == (
        ("obd-global", 1.0),
        ("magnitude-global", 2.0),
    )
    assert not paired.rankings(gather([r for r in records if r.requested["sparsity"] == 0.9]))


def test_differences_are_paired_by_seed_and_corrected_by_holm():
    found = {(d.method, d.amount): d for d in paired.differences(gather(three()))}
    assert set(found) == {(m, a) for m in ("random", "magnitude-global") for a in (0.5, 0.9)}
    assert {d.reference for d in found.values()} == {"obd-global"}
    gaps = {
        m: [a - b for a, b in zip(LASTS[m], LASTS["obd-global"], strict=True)]
        for m in ("random", "magnitude-global")
    }
    raw = {m: stats.ttest_rel(LASTS[m], LASTS["obd-global"]).pvalue for m in gaps}
    assert raw["random"] < raw["magnitude-global"]
    holm = {
        "random": 2 * raw["random"],
        "magnitude-global": max(2 * raw["random"], raw["magnitude-global"]),
    }
    for method, mine in gaps.items():
        one = found[method, 0.9]
        assert (one.n, one.mean) == (3, pytest.approx(statistics.fmean(mine)))
        assert one.p == pytest.approx(holm[method])
        interval = stats.t.interval(0.95, 2, statistics.fmean(mine), stats.sem(mine))
        assert (one.low, one.high) == pytest.approx(interval)
    assert found["random", 0.9].clear


def test_only_seeds_that_both_have_are_paired():
    records = [r for r in three((0.9,)) if not (r.method == "random" and r.spec["seed"] == 2)]
    one = next(d for d in paired.differences(gather(records)) if d.method == "random")
    assert one.n == 2 and one.mean == pytest.approx((0.50 - 0.90 + 0.52 - 0.91) / 2)


def test_p_is_paired_where_seeds_pair():
    """WoodFisher's LeNet-5 at 98%: five seeds, unpaired p a tenth of the paired one. Here worked
    out for three pairs: t = mean / (s / √3) of the gaps 1, 2, 3 is 2 √3, two degrees of freedom.
    """
    p = paired_p({0: 1.0, 1: 5.0, 2: 9.0, 7: 0.0}, {2: 6.0, 1: 3.0, 0: 0.0, 8: 100.0})
    assert p == pytest.approx(2 * stats.t.sf(2 * math.sqrt(3), 2))
    assert paired_p({0: 1.0}, {0: 2.0}) is None
    assert paired_p({0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0}) is None


def test_differences_that_never_vary_are_not_tested():
    same = {"random": (0.5, 0.6, 0.7), "obd-global": (0.6, 0.7, 0.8)}
    (one,) = paired.differences(gather(three((0.9,), same)))
    assert one.mean == pytest.approx(-0.1) and one.p is None and one.low is None and not one.clear
    # nor is one seed
    assert "Paired over seeds" not in paired.markdown(gather(pair("random") + pair("obd-global")))


def test_reading_at_equal_cost_interpolates_in_the_logarithm():
    records = [
        r
        for seed in (0, 1)
        for kept, last in ((0.8, 0.9 + seed / 100), (0.2, 0.7))
        for r in pair("c-obd", 1 - kept, seed, "unit_ratio", kept=kept, last=last)
    ]
    records += pair("c-obs", 0.5, 0, "unit_ratio", kept=0.4, last=0.6) + pair(
        "c-obs", 0.6, 0, "unit_ratio", kept=0.1, last=0.2
    )
    table = paired.at_equal_cost(gather(records), "units", "kept_weights")
    assert set(table["c-obd"]) == set(table["c-obs"]) == {0.4, 0.3, 0.2}  # what both reach
    # 0.4 is half-way between 0.8 and 0.2 in the logarithm
    assert table["c-obd"][0.4].values == pytest.approx(((0.9 + 0.7) / 2, (0.91 + 0.7) / 2))
    assert table["c-obs"][0.4].values == pytest.approx((0.6,)) and table["c-obs"][
        0.2
    ].values == pytest.approx((0.4,))
    assert "at equal kept weights" in paired.markdown(gather(records))


def test_predictions_are_ratios_and_orders():
    records = [
        r
        for amount, predicted, measured in ((0.5, 0.1, 0.2), (0.7, 0.3, 0.4), (0.9, 0.2, 4.0))
        for r in pair("obd-global", amount, predicted=predicted, measured=measured)
    ]
    records += pair("random", 0.5, predicted=None) + pair("random", 0.9, predicted=-1.0)
    (one,) = paired.predictions(gather(records))
    assert (one.method, one.n, one.ratio, one.within) == (
        "obd-global",
        3,
        0.5,
        pytest.approx(2 / 3),
    )
    assert one.spearman == pytest.approx(0.5)  # ranks 1 3 2 against 1 2 3: 1 − 6·2/(3·8)
    assert paired.spearman([1, 2], [1, 2]) is None and paired.spearman([1, 1, 1], [1, 2, 3]) is None


def test_layer_profiles_agree_where_methods_cut_the_same_layers():
    def cut(method, kept):
        out = pair(method, 0.5)
        for one in out:
            one.layers = [{"name": f"l{i}", "kept": k, "total": 1000} for i, k in enumerate(kept)]
        return out

    records = (
        cut("obd-global", (900, 500, 100))
        + cut("magnitude-global", (800, 600, 100))
        + cut("kfac-prune", (100, 500, 900))
    )
    records += cut("magnitude-layer", (500, 500, 501))
    one = paired.profiles(gather(records), "weights")
    # the same in every layer has nothing to rank
    assert one.methods == ("magnitude-global", "obd-global", "kfac-prune")
    assert np.allclose(one.values, [[1, 1, -1], [1, 1, -1], [-1, -1, 1]])
    names = [drawing.name for drawing in side_panels.draw(gather(records), [])]
    assert "agreement_layers_weights" in names and "costs" in names


def test_agreement_is_read_drawn_and_refused_for_another_network(tmp_path):
    line = "{},random,obd-global,0.5 0.9,0.25,0.3 0.1\n"
    (tmp_path / "agreement.csv").write_text(
        "dense_hash,method,other,sparsities,spearman,overlap\n" + line.format("d0d0")
    )
    comparison = gather(pair("random") + pair("obd-global"))
    one = paired.read_agreement(tmp_path / "agreement.csv", comparison)
    assert one.methods == ("random", "obd-global") and one.values[0, 1] == one.values[1, 0] == 0.25
    drawing = next(
        d for d in side_panels.draw(comparison, [tmp_path]) if d.name == "agreement_weights"
    )
    assert "0.25 between" in drawing.alt
    (tmp_path / "agreement.csv").write_text(
        "dense_hash,method,other,sparsities,spearman,overlap\n" + line.format("beef")
    )
    with pytest.raises(UserError, match="dense_hash"):
        side_panels.draw(comparison, [tmp_path])


def test_costs_are_core_seconds_of_all_amounts_on_an_idle_machine():
    records = [
        record("prune", "obd-global", amount, seed, seconds=seconds)
        for seed, pair_of in enumerate(((1, 9), (2, 5), (7, 3)))
        for amount, seconds in zip((0.5, 0.9), pair_of, strict=True)
    ]
    # 10, 7 and 10 of the seeds
    assert side_panels.costs(gather(records)) == {"obd-global": (pytest.approx(10), 302)}
    records[0].provenance["load"] = {"mean": 1.2, "max": 1.9, "contended": True}
    records[-1].timing["resumed"] = True
    comparison = gather(records)
    assert side_panels.costs(comparison) == {"obd-global": (pytest.approx(7), 302)}
    assert "2 of 6 timings are not shown" in comparison.notes[-1]
    assert "the load of the others was at most 0.60" in comparison.notes[-1]
    for one in records:
        del one.provenance["load"]
    drawing = next(d for d in side_panels.draw(gather(records), []) if d.name == "costs")
    assert "No method was timed" in drawing.caption and len(drawing.figure.axes) == 1


def test_statistics_are_written_and_survive_hostile_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(side_panels, "draw", lambda comparison, folders: [])
    records = small() + pair("<b>|x", 0.5, last=0.2) + pair("<b>|x", 0.9, last=0.2)
    for i, one in enumerate(records):
        one.id = f"r{i}"
    compare.compare([write(records, tmp_path / "runs")], tmp_path / "out")
    text = (tmp_path / "out" / "statistics.md").read_text()
    assert (
        "Friedman's test of equal methods p =" in text
        and "&lt;b>\\|x" in text
        and "<b>" not in text.split("minus that of")[1]
    )
    assert "Over seeds and amounts" in (tmp_path / "out" / "report.html").read_text()
