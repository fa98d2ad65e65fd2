"""Every sheet of every paper draws from the committed records what they say."""

from __future__ import annotations

import pytest

from figures import draw, eigendamage, frame, lobs, nap
from figures.values import PAPERS

SHEETS = [(paper, key) for paper in PAPERS for key in draw.sheets(paper)]


@pytest.mark.parametrize(("paper", "key"), SHEETS, ids=str)
def test_a_sheet_draws_and_its_committed_table_is_current(paper, key):
    sheet = draw.sheets(paper)[key]
    figure = sheet.draw()
    assert figure.axes and all(ax.has_data() for ax in figure.axes)
    assert sheet.shows.endswith(".") and "\n" not in sheet.shows
    if sheet.table:
        path = frame.results(paper) / f"{draw.stem(key)}.md"
        assert path.read_text(encoding="utf-8") == sheet.table()


def test_the_course_to_one_and_a_half_percent_ends_where_its_record_says():
    figure = lobs.FIGURES["iterations"].draw()
    found = frame.records("lobs")
    found = found[(found.stage == "finetune") & (found.table == "table-1")]
    ours = found[(found.network == "lenet300") & (found.series == "l-obs-iterative")]
    ours = ours[ours.cell.str.startswith("lenet300-1.5-")]
    lines = [line for line in figure.axes[0].lines if line.get_gid() == "l-obs-iterative"]
    assert sorted(line.get_ydata()[-1] for line in lines) == pytest.approx(
        sorted(100 - ours["last"])
    )


def test_layers_of_figure_four_are_one_records():
    (ax,) = eigendamage.FIGURES["4"].draw().axes
    (line,) = [line for line in ax.lines if line.get_gid() == "eigendamage"]
    found = frame.records("eigendamage")
    (record,) = (
        found[found.cell == "cpu-vgg19-0.5-eigendamage-seed0"]
        .query("stage == 'prune' and table == 'figure-6'")
        .record
    )
    layers = [100 * e["kept"] / e["total"] for e in record.layers if "conv" in e["name"]]
    assert list(line.get_ydata()) == layers


def test_bars_of_the_choices_are_their_errors():
    ax = nap.FIGURES["options"].draw().axes[0]
    found = frame.records("nap")
    found = found[(found.table == "options") & found.cell.str.contains("-90-")]
    expected = 100 - found.pruned[found.stage == "prune"], 100 - found["last"].dropna()
    widths = [bar.get_width() for bar in ax.patches]
    assert sorted(widths) == pytest.approx(sorted([*expected[0], *expected[1]]))
