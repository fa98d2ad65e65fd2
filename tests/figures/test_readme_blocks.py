"""README's blocks of the papers: what gallery.toml and the records say."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import pytest

from common.cells.errors import UserError
from common.cells.library import read_all
from figures import eigendamage, gallery, headlines, readme
from figures.records import gather
from figures.values import PAPERS
from tests.figures.fixtures import pair

ROOT = Path(__file__).resolve().parents[2]


def test_headlines_name_cells_and_show_both_numbers():
    text = headlines.rows()
    record = next(
        r
        for r in read_all(ROOT / "lobs" / "results")
        if r.cell == "lenet300-8.4-l-obs" and r.stage == "prune"
    )
    line = next(line for line in text.splitlines() if "8.4% kept: error after pruning" in line)
    ours = f"{100 * (1 - record.accuracy['pruned']):.2f}"
    assert f"| 3.1 | {ours} | one | 1.61 | Magnitude, per layer " in line
    assert (
        "| lenet300, MNIST | cpu | `python -m lobs.finetune --table 1 --cell lenet300-8.4-l-obs` |"
        in line
    )
    assert len([line for line in text.splitlines() if line[:1] == "|"]) == 2 + len(
        gallery.headlines()
    )


def test_a_headline_names_the_recipes_it_was_chosen_among_and_what_it_must_beat():
    """LeNet-300-100 at 1.5%: with and without shifted images; magnitude's own, from the records."""

    def error(cell: str) -> float:
        found = [
            100 - 100 * r.accuracy["last"]
            for r in read_all(ROOT / "lobs" / "results")
            if r.stage == "finetune" and re.fullmatch(rf"{cell}(-seed\d)?", r.cell)
        ]
        return statistics.fmean(found)

    (line,) = [one for one in headlines.rows().splitlines() if "... 1.5% kept, 643" in one]
    _, _, paper, ours, tried, dense, rival, *_ = (field.strip() for field in line.split("|"))
    assert tried.startswith("best of 2, chosen on test error; the other: ")
    for text, cell in (
        (ours, "lenet300-1.5-l-obs-iterative"),
        (tried.partition(": ")[2], "lenet300-1.5-l-obs-iterative-plain"),
        (rival.removeprefix("Magnitude, global "), "lenet300-1.5-lwc-iterative"),
        (dense, "lenet300-100-dense-iterative"),
    ):
        assert float(text.split()[0]) == pytest.approx(error(cell), abs=0.006), cell
    assert float(dense.split()[0]) < float(rival.split()[2]) < float(ours.split()[0])


def test_a_lead_has_no_further_rival_and_a_share_of_weights_no_recipe():
    rows = [line.split("|") for line in headlines.rows().splitlines() if line[:1] == "|"]
    for row in rows[2:]:
        if "lead over" in row[1] or "weights removed" in row[1]:
            assert [field.strip() for field in row[4:7]] == ["–"] * 3


def test_status_counts_every_entry_once():
    head, _, *rows = [line.split("|")[1:-1] for line in readme.status().splitlines()]
    assert [row[0].strip() for row in rows] == list(PAPERS.values())
    for word in ("ran:", "seen:"):  # a drawing has nothing to run
        counted = sum(
            int(n)
            for row in rows
            for name, n in zip(head, row, strict=True)
            if name.strip().startswith(word) and n.strip()
        )
        assert counted == sum(item.kind != "drawing" for item in gallery.items())


def test_blocks_are_filled_and_unknown_ones_refused(tmp_path):
    filled = readme.render("a\n<!-- papers: status -->\nold\n<!-- end -->\nb\n", tmp_path)
    assert filled == f"a\n<!-- papers: status -->\n{readme.status()}<!-- end -->\nb\n"
    with pytest.raises(UserError, match="finding, front, headline, status"):
        readme.render("<!-- papers: nonsense -->\n<!-- end -->", tmp_path)


def test_a_papers_table_is_its_sheets(tmp_path):
    filled = readme.render("<!-- table: eigendamage/table1 -->\nold\n<!-- end -->\n", tmp_path)
    text = eigendamage.table1()
    assert filled == f"<!-- table: eigendamage/table1 -->\n{text}<!-- end -->\n"
    with pytest.raises(UserError, match="choose one of: eigendamage"):
        readme.render("<!-- table: os/table1 -->\n<!-- end -->", tmp_path)
    with pytest.raises(UserError, match="choose one of: channels, options, table3"):
        readme.render("<!-- table: nap/4 -->\n<!-- end -->", tmp_path)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"cell": "nonsense"}, "no cell of"),
        ({"over": "nonsense"}, "no cell of"),
        ({"table": "Table 2", "cell": "x"}, "no cell of"),
        ({"quantity": "xi_r"}, "names it"),
    ],
)
def test_a_headline_without_a_cell_or_a_printed_number_is_refused(monkeypatch, change, word):
    entry = dict(gallery.headlines()[0], **change)
    monkeypatch.setattr(gallery, "headlines", lambda: [entry])
    with pytest.raises(UserError, match=word):
        headlines.rows()


def test_a_lead_is_the_difference_of_two_cells_and_of_two_printed_numbers():
    line = next(line for line in headlines.rows().splitlines() if "its lead over Kron-OBD" in line)
    found = {
        r.method: r.accuracy["last"]
        for r in read_all(ROOT / "eigendamage" / "results")
        if r.cell.startswith("cpu-resnet32-0.9-") and r.stage == "finetune" and r.spec["seed"] == 0
    }
    printed, ours = (float(word) for word in line.split("|")[2:4])
    assert printed == pytest.approx(93.05 - 92.57, abs=0.05)
    assert ours == pytest.approx(100 * (found["eigendamage"] - found["kron-obd"]), abs=0.05)


def test_a_table_says_when_some_of_its_cells_have_one_seed():
    records = [
        r for seed in (0, 1) for r in pair("magnitude-global", 0.5, seed, last=0.8 + seed / 100)
    ]
    one = readme.table(gather(records + pair("obd-global", 0.5, 0, last=0.9)))
    assert (
        "over up to 2 seeds (their number behind it; a number without ± is one seed's) of this one "
        "network; "
        in one
        and "→ 90.0 |" in one
        and "→ 80.5 ± 0.7 (2) |" in one
    )
    assert "without ±" not in readme.table(gather(records))


def test_a_cell_says_what_is_left_where_units_go_and_that_nothing_went():
    def shown(**changes) -> str:
        (row,) = gather(
            pair("eigendamage", 0.5, unit="unit_ratio", pruned=0.4, last=0.9, **changes)
        ).rows
        return readme.cell(row)

    assert (
        shown(kept=0.574) == "40.0 → 90.0; 57% kept"
        and shown(kept=1.0) == "40.0 → 90.0; removed nothing"
        and shown(kept=0.8) == "40.0 → 90.0; 80% kept (short)"
    )
    rows = {
        row.amount: row
        for row in gather(
            [r for seed in (0, 1, 2) for r in pair("obd-global", 0.5, seed, last=0.9 + seed / 100)]
            + [r for seed in (0, 1) for r in pair("obd-global", 0.9, seed, last=0.8)]
        ).rows
    }
    assert (
        readme.cell(rows[0.5]) == "50.0 → 91.0 ± 1.0 (3)"
        and readme.cell(rows[0.9]) == "50.0 → 80.0 ± 0.0 (2)"
    )


def test_a_headline_says_what_ours_is_of_and_stands_beside_its_control():
    lines = headlines.rows().splitlines()
    (line,) = [one for one in lines if "EigenDamage, ResNet-32, 90% of the units" in one]
    assert "| resnet32, CIFAR-10 (JPEG) | cpu |" in line
    (control,) = [one for one in lines if "beyond the dense network trained as long" in one]
    at = {
        cell: [
            r.accuracy["dense"] - r.accuracy["last"]
            for r in read_all(ROOT / "nap" / "results")
            if r.stage == "finetune" and r.cell.startswith(cell)
        ]
        for cell in ("lenet300-77x-nap-sgd-shift", "lenet300-dense-tuned-sgd-shift")
    }
    nap, dense = (100 * sum(found) / len(found) for found in at.values())
    assert (
        float(control.split("|")[3]) == pytest.approx(nap - dense, abs=0.006)
        and nap < 0 < nap - dense
    )
