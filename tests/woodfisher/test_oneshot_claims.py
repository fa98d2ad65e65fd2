"""Rules of one-shot sweeps are data: what they say follows from the means of their series."""

import pytest

from common.cells.library import read_all
from figures import evidence
from figures import woodfisher_oneshot_claims as rules
from figures.evidence import FAILS, HOLDS, PART, Missing, Number, judged
from figures.values import ROOT


def means(**values: float) -> dict[str, Number]:
    return {name: Number([value], name) for name, value in values.items()}


def test_above_is_above_every_other():
    above = rules.Above("a", ("b", "c"))
    assert above(means(a=3, b=1, c=2))
    assert not above(means(a=3, b=1, c=4)) and not above(means(a=3, b=1, c=3))


def test_rises_in_its_order():
    assert rules.Rises(("a", "b", "c"))(means(a=1, b=2, c=3))
    assert not rules.Rises(("a", "b", "c"))(means(a=1, b=3, c=2))
    assert not rules.Rises(("a", "b"))(means(a=1, b=1))
    assert rules.Rises(("a", "b"), strictly=False)(means(a=1, b=1))
    assert not rules.Rises(("a", "b"), strictly=False)(means(a=2, b=1))


@pytest.mark.parametrize(
    ("ours", "word"), [((5, 5), HOLDS), ((5, 1), PART), ((1, 1), FAILS), ((5, None), "open")]
)
def test_a_sweep_holds_where_all_its_parts_hold_at_every_amount(ours, word, monkeypatch):
    """The rival has 3 at both amounts; a record that is missing leaves the rule open."""

    def top1(label: str, series: str, amount: float) -> Number:
        value = ours[amount == 0.8] if series == "ours" else 3
        if value is None:
            raise Missing(series)
        return Number([float(value)], "`cell`")

    monkeypatch.setattr(rules, "top1", top1)
    sweep = rules.Sweep(
        "Ours is ahead (Fig. 0).",
        "Figure 0",
        {"ours": "ours", "other": "the other"},
        (0.7, 0.8),
        (rules.Above("ours", ("other",)),),
        "A network.",
    )
    verdict, lines = judged(sweep)
    assert verdict == word and sweep.__doc__ == "Ours is ahead (Fig. 0)."
    if word == HOLDS:
        assert lines == [
            "A network.",
            "70% removed: ours 5.00, the other 3.00; `cell`.",
            "80% removed: ours 5.00, the other 3.00; `cell`.",
        ]


@pytest.mark.parametrize("label", ["Figure 3b", "Figure S7", "Figure S8", "Figure 4", "Figure 5b"])
def test_sweeps_decide_their_entries_of_the_gallery(label):
    found = evidence.ENTRIES["woodfisher", label]
    assert any(isinstance(rule, rules.Sweep) for rule in found)


def test_committed_records_are_those_of_the_cell_and_their_layers_are_averaged():
    name = "resnet20-one-epoch-woodfisher-0.9"
    found = evidence.committed("woodfisher", "Table 1", name, "prune")
    assert {record.cell.rpartition("-seed")[0] for record in found} == {name}
    assert {record.stage for record in found} == {"prune"}
    known = {record.id for record in read_all(ROOT / "woodfisher" / "results")}
    assert {record.id for record in found} <= known
    kept = evidence.kept_by_layer(found)
    first = found[0].layers[0]
    shares = [100 * record.layers[0]["kept"] / record.layers[0]["total"] for record in found]
    assert list(kept) == [layer["name"] for layer in found[0].layers]
    assert kept[first["name"]] == pytest.approx(sum(shares) / len(shares))
    with pytest.raises(Missing):
        evidence.committed("woodfisher", "Table 1", "nobody", "prune")
