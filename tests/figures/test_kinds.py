"""A figure drawn from a frame has these lines, these labels, these axes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from figures import frame, style
from figures.kinds import (
    Bars,
    Curve,
    HeatMap,
    Level,
    Panel,
    Rows,
    Scatter,
    Sheet,
    Trajectory,
    accuracy_axis,
)
from figures.style import Look
from tests.figures.fixtures import pair

LOOKS = {
    "b": Look("#112233", "s", "Second", "--"),
    "a": Look("#445566", "o", "First"),
    "none": Look("#000000", "x", "Not there"),
}


def drawn(*layers, **panel):
    """The axes of one panel."""
    return Sheet("", lambda: [Panel("t", "x", "y", *layers, **panel)]).draw().axes[0]


def points(*rows, columns=("series", "x", "y")):
    return pd.DataFrame(rows, columns=list(columns))


def lines_of(ax, name):
    return [line for line in ax.lines if line.get_gid() == name]


def test_a_curve_joins_the_means_of_its_seeds_in_the_order_of_x():
    data = points(("a", 2, 5.0), ("a", 1, 1.0), ("a", 1, 4.0), ("b", 1, 7.0))
    ax = drawn(Curve(data, LOOKS), legend={})
    (line,) = lines_of(ax, "a")
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 2], [2.5, 5])
    assert (to_hex(line.get_color()), line.get_marker()) == ("#445566", "o")
    (band,) = ax.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (1, 4)
    # the looks' order, and nothing of what is not there
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Second", "First"]


def test_a_curve_of_seeds_that_reach_different_x_has_their_mean():
    columns = ("series", "at", "x", "y")
    data = points(("a", 0.5, 10, 1.0), ("a", 0.5, 20, 3.0), ("a", 0.9, 5, 0.0), columns=columns)
    (line,) = lines_of(drawn(Curve(data, LOOKS, "bars")), "a")
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([5, 15], [0, 2])


def test_a_trajectory_keeps_its_order_and_is_named_once():
    columns = ("series", "run", "x", "y")
    data = points(("a", 1, 3, 0), ("a", 1, 1, 1), ("a", 2, 2, 2), columns=columns)
    ax = drawn(Trajectory(data, LOOKS, end=True), legend={})
    first, second = lines_of(ax, "a")
    assert list(first.get_xdata()) == [3, 1] and list(second.get_xdata()) == [2]
    ends = [line for line in ax.lines if line.get_marker() == "o"]
    assert [(list(e.get_xdata()), list(e.get_ydata())) for e in ends] == [([1], [1]), ([2], [2])]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["First"]


def test_points_have_their_texts_and_no_line():
    data = points(("b", 1, 2, "one"), columns=("series", "x", "y", "text"))
    ax = drawn(Scatter(data, LOOKS, {"xytext": (1, 1)}))
    (line,) = lines_of(ax, "b")
    assert line.get_linestyle() == "None" and [text.get_text() for text in ax.texts] == ["one"]


def test_without_looks_methods_have_their_own_in_their_order():
    data = points(("l-obs", 1, 1), ("random", 1, 2))
    ax = drawn(Curve(data), legend={})
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [style.look("random").label, style.look("l-obs").label]


def test_rows_have_their_means_their_spread_and_their_headings():
    data = pd.DataFrame(
        [(1, 4.0, "a"), (1, 6.0, "a"), (1, 9.0, "b"), (2, 1.0, "a")], columns=["row", "x", "series"]
    ).assign(colour="#445566")
    ax = drawn(Rows(["Group", "first", "second"], data, LOOKS, ["", "n 2", "n 1"]), legend={})
    assert [line.get_xdata()[0] for line in lines_of(ax, "a")] == [5, 1]
    assert [list(line.get_xdata()) for line in lines_of(ax, "b")] == [[9]]
    spans = [list(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) == 2]
    assert spans == [[4, 6]]
    bold = [tick.get_text() for tick in ax.get_yticklabels() if tick.get_fontweight() == "bold"]
    assert bold == ["Group"] and ax.get_ylim()[0] > ax.get_ylim()[1]
    assert [text.get_text() for text in ax.texts] == ["", "n 2", "n 1"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Second", "First"]


@pytest.mark.parametrize("across", [False, True])
def test_bars_are_the_tables_numbers(across):
    table = pd.DataFrame({"before": [1.0, np.nan], "after": [3.0, 4.0]})
    ax = drawn(Bars(table, ["first", "second"], across=across), legend={})
    sizes = [p.get_width() if across else p.get_height() for p in ax.patches]
    assert sizes == [1, 0, 3, 4]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["before", "after"]
    ticks = ax.get_yticklabels() if across else ax.get_xticklabels()
    assert [tick.get_text() for tick in ticks] == ["first", "second"]


def test_a_heat_map_tells_its_numbers_and_leaves_the_unknown_out():
    table = pd.DataFrame({"p": [0.5, np.nan], "q": [1.0, 0.25]}, index=["u", "v"])
    ax = drawn(HeatMap(table, "{:.2f}".format, 0.3))
    assert [text.get_text() for text in ax.texts] == ["0.50", "1.00", "0.25"]
    assert [text.get_color() for text in ax.texts] == ["black", "black", "white"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["u", "v"]


def test_a_panel_says_what_its_axes_are():
    layers = (Trajectory(points(("a", 1, 10), ("a", 100, 90)), LOOKS), Level(50, "half"))
    ax = drawn(*layers, log="x", round="x", falls=True, ylim=(0, 100))
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("t", "x", "y")
    assert ax.get_xscale() == "log" and ax.get_xlim()[0] > ax.get_xlim()[1]
    assert ax.get_ylim() == (0, 100) and ax.xaxis.get_major_formatter()(20, 0) == "20"
    assert [line.get_label() for line in ax.lines if set(line.get_ydata()) == {50}] == ["half"]


def test_accuracy_is_drawn_by_its_error():
    ax = drawn(Trajectory(points(("a", 1, 90.0), ("a", 2, 99.0)), LOOKS), error_scale=True)
    middle = ax.transData.transform((1, 100 - 10**0.5))[1]
    ends = ax.transData.transform([(1, 90), (1, 99)])[:, 1]
    assert middle == pytest.approx(ends.mean()) and 99 in ax.get_yticks()
    empty = drawn()
    accuracy_axis(empty)
    empty.figure.canvas.draw()


def test_a_sheet_lays_its_panels_out_and_takes_empty_places_away():
    panels = [Panel(str(i), "", "", Level(1, "one")) for i in range(3)]
    sheet = Sheet("", lambda: [*panels, None], (2, 1), (1, 0), columns=2, title=lambda: "all")
    figure = sheet.draw()
    assert [ax.get_title() for ax in figure.axes] == ["0", "1", "2"]
    assert tuple(figure.get_size_inches()) == (5, 2) and figure.get_suptitle() == "all"
    other = [*panels, Panel("", "", "", Level(1, "two"), tall=3)]
    beside = Sheet("", lambda: other, (2, 1), columns=1, legend={"loc": "outside lower center"})
    figure = beside.draw()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two"]
    assert tuple(figure.get_size_inches()) == (2, 6)


def test_a_frame_has_the_records_numbers():
    found = pair("obd-global", 0.5, 2, pruned=0.4, last=0.9, kept=0.25, macs=0.5)
    for record, name in zip(found, ("resnet20-50-obd-seed2",) * 2):
        record.cell, record.series = name, "resnet20/obd"
    first, second = frame.frame(found).itertuples()
    assert (first.stage, second.stage) == ("prune", "finetune")
    assert (first.name, first.network, first.series) == ("resnet20-50-obd", "resnet20", "obd")
    assert (first.seed, first.sparsity, first.pruned, first.kept) == (2, 0.5, 40, 25)
    assert second.last == 90 and second.added == pytest.approx(8) and np.isnan(first.last)
    assert second.compression == 4 and second.speedup == 2
    assert frame.frame([]).empty and "series" in frame.frame([])


def test_a_table_is_a_line_a_row():
    assert frame.markdown(["a", "b"], [[1, ""], ["x", "y"]]) == (
        "| a | b |\n|---|---|\n| 1 |  |\n| x | y |\n"
    )
    assert frame.spread([1.0]) == "1.00" and frame.spread([1.0, 2.0]) == "1.50 (1.00 to 2.00)"
