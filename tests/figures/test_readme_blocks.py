"""README's blocks of the papers: what gallery.toml and the records say."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UserError
from common.record import read_all
from figures import eigendamage_table1, gallery, readme
from figures.values import PAPERS

ROOT = Path(__file__).resolve().parents[2]


def test_headlines_name_cells_and_show_both_numbers():
    text = readme.headline()
    record = next(r for r in read_all(ROOT / "lobs" / "results") if r.cell == "lenet300-8.4-l-obs" and r.stage == "prune")
    line = next(line for line in text.splitlines() if "8.4% kept: error after pruning" in line)
    ours = f"{100 * (1 - record.accuracy['pruned']):.2f}"
    assert f"| 3.1 | {ours} | cpu | `python -m lobs.finetune --table 1 --cell lenet300-8.4-l-obs` |" in line
    assert len(text.splitlines()) == 2 + len(gallery.headlines())


def test_status_counts_every_entry_once():
    rows = [line.split("|")[1:-1] for line in readme.status().splitlines()[2:]]
    assert [row[0].strip() for row in rows] == list(PAPERS.values())
    assert sum(int(n) for row in rows for n in row[1:] if n.strip()) == len(gallery.items())


def test_blocks_are_filled_and_unknown_ones_refused(tmp_path):
    filled = readme.render("a\n<!-- papers: status -->\nold\n<!-- end -->\nb\n", tmp_path)
    assert filled == f"a\n<!-- papers: status -->\n{readme.status()}<!-- end -->\nb\n"
    with pytest.raises(UserError, match="headline, status"):
        readme.render("<!-- papers: nonsense -->\n<!-- end -->", tmp_path)


def test_a_papers_table_is_its_figure_scripts(tmp_path):
    filled = readme.render("<!-- table: eigendamage_table1 -->\nold\n<!-- end -->\n", tmp_path)
    assert filled == f"<!-- table: eigendamage_table1 -->\n{eigendamage_table1.table()}<!-- end -->\n"
    with pytest.raises(UserError, match="nap_table3"):
        readme.render("<!-- table: os -->\n<!-- end -->", tmp_path)


def test_a_headline_without_a_cell_is_refused(monkeypatch):
    entry = dict(gallery.headlines()[0], cell="nonsense")
    monkeypatch.setattr(gallery, "headlines", lambda: [entry])
    with pytest.raises(UserError, match="names it"):
        readme.headline()
