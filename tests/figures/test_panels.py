"""What is drawn is what the rows say."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from common.cells.registry import METHODS
from figures import panels, style
from figures.records import gather
from tests.figures.fixtures import LAYERS, pair, small


@pytest.fixture
def ax():
    return Figure().subplots()


def drawn(ax, method):
    """x and y of the method's line."""
    (line,) = [line for line in ax.lines if line.get_gid() == method]
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float), line


@pytest.mark.parametrize("x", ["kept_weights", "kept_macs"])
@pytest.mark.parametrize("y", ["accuracy_pruned", "accuracy_finetuned"])
def test_accuracy_lines_are_the_means_and_bands_the_extremes(ax, x, y):
    rows = gather(small()).group("weights")
    assert panels.accuracy_against(ax, rows, x, y, dense=0.98) == 0
    for method in ("magnitude-global", "obd-global"):
        mine = [row for row in rows if row.method == method]
        xs, ys, line = drawn(ax, method)
        np.testing.assert_allclose(xs, [100 * row.stat(x).mean for row in mine])
        np.testing.assert_allclose(ys, [100 * row.stat(y).mean for row in mine])
        assert to_hex(line.get_color()).upper() == style.look(method).colour
        assert line.get_marker() == style.look(method).marker
        (band,) = [band for band in ax.collections if band.get_gid() == method]
        heights = band.get_paths()[0].vertices[:, 1]
        assert heights.min() == pytest.approx(
            100 * min(v for row in mine for v in row.stat(y).values)
        )
        assert heights.max() == pytest.approx(
            100 * max(v for row in mine for v in row.stat(y).values)
        )
    assert "%" in ax.get_xlabel() and "%" in ax.get_ylabel()
    low, high = ax.get_ylim()
    assert (
        low < min(line.get_ydata()[-1] for line in ax.lines)
        and high > 98
        and ax.get_xlim()[0] > ax.get_xlim()[1]
    )


def test_one_seed_has_no_band(ax):
    panels.accuracy_against(ax, gather(pair("random", 0.5) + pair("random", 0.9)).rows)
    assert not ax.collections


def test_rows_without_a_value_are_counted_not_drawn(ax):
    records = [
        r for r in small() if not (r.method == "obd-global" and r.requested == {"sparsity": 0.9})
    ]
    assert panels.accuracy_against(ax, gather(records).group("weights")) == 1
    assert len(drawn(ax, "obd-global")[0]) == 1


def test_rows_that_came_short_are_grey_and_in_no_line(ax):
    """EigenDamage at 50% keeps all, at 70% four fifths."""
    kept = {0.5: 1.0, 0.7: 0.8, 0.9: 0.2}
    records = [
        r
        for amount, left in kept.items()
        for r in pair(
            "eigendamage", amount, unit="unit_ratio", kept=left, predicted=0.1, measured=0.1
        )
    ]
    rows = gather(records).rows
    assert [row.mark for row in rows] == ["removed nothing", "short", ""]
    panels.accuracy_against(ax, rows)
    assert drawn(ax, "eigendamage")[0].tolist() == pytest.approx([20])
    xs, _, line = drawn(ax, "short")
    assert xs.tolist() == pytest.approx([100, 80]) and line.get_color() == panels.SHORT
    other = Figure().subplots()
    assert panels.predicted_against_measured(other, rows) == {
        "removed less than half of what was asked": 2
    }
    panels.kept_per_layer(other, rows)
    assert [t.get_text() for t in other.get_yticklabels()] == [
        "EigenDamage (removed nothing)",
        "EigenDamage (short)",
        "EigenDamage",
    ]


def test_perfect_and_absent_accuracies_can_be_drawn(ax):
    panels.accuracy_against(ax, gather(pair("random", last=1.0)).rows)
    ax.figure.canvas.draw()
    empty = Figure().subplots()
    assert panels.accuracy_against(empty, gather(pair("random")[:1]).rows) == 1
    empty.figure.canvas.draw()


def test_predicted_against_measured_has_one_point_a_row_and_counts_the_rest(ax):
    records = [
        *pair("obd-global", 0.5, predicted=0.2, measured=0.4),
        *pair("obd-global", 0.9, predicted=-0.1, measured=0.4),
        *pair("obd-layer", 0.5, predicted=0.3, measured=None),
        *pair("obd-layer", 0.9, predicted=0.3, measured=0.0),
        *pair("random", 0.5),
        *pair("random", 0.9),
    ]
    left_out = panels.predicted_against_measured(ax, gather(records).rows)
    assert left_out == {"not positive": 2, "not measured": 1, "no prediction": 2}
    xs, ys, _ = drawn(ax, "obd-global")
    assert (xs.tolist(), ys.tolist()) == ([0.2], [0.4])
    diagonal = drawn(ax, "diagonal")
    assert diagonal[0].tolist() == diagonal[1].tolist()
    assert ax.get_xscale() == ax.get_yscale() == "log" and ax.get_xlim() == ax.get_ylim()


def test_caption_says_what_is_left_out():
    drawing = next(d for d in panels.draw(gather(small())) if d.name == "predicted_measured")
    assert "2 cells not drawn: no prediction" in drawing.caption


def test_kept_per_layer_is_the_mean_over_seeds_and_masks_the_unknown(ax):
    rows = [
        row
        for row in gather([*small(), *pair("random", 0.5)]).group("weights")
        if row.amount == 0.9
    ]
    mesh = panels.kept_per_layer(ax, rows)
    values = np.ma.asarray(mesh.get_array()).reshape(len(rows), len(LAYERS))
    assert [t.get_text() for t in ax.get_yticklabels()][0] == "Random" and values.mask[0].all()
    np.testing.assert_allclose(values[1], [100 * kept for kept in rows[1].kept_by_layer().values()])
    assert [t.get_text() for t in ax.get_xticklabels()] == [name for name, _ in LAYERS]


def test_pick_takes_the_middle_and_the_highest():
    assert panels.pick([0.98, 0.5, 0.7, 0.8, 0.9, 0.95]) == [0.8, 0.98]
    assert panels.pick([0.5]) == [0.5] and panels.pick([]) == []


def test_every_figure_has_a_caption_and_an_alternative_text_with_numbers():
    drawings = panels.draw(gather(small()))
    assert [d.name for d in drawings] == [
        "accuracy_kept_weights",
        "accuracy_kept_macs",
        "predicted_measured",
        "layers_weights",
        "layers_units",
    ]
    for drawing in drawings:
        assert drawing.caption and any(c.isdigit() for c in drawing.alt)
    assert "92.0% (Diagonal-Fisher OBD, global, kept weights 50%)" in drawings[0].alt
    groups = [part.get_suptitle() for part in drawings[0].figure.subfigs]
    assert groups == ["Single weights", "Channels and low rank"]


def test_a_family_stands_out_before_all_others_with_the_best_and_the_baseline():
    records = [
        *small(),
        *pair("l-obs", 0.5, last=0.97),
        *pair("l-obs", 0.9, last=0.95),
        *pair("random", 0.5, pruned=0.1, last=0.3),
        *pair("random", 0.9, pruned=0.1, last=0.1),
    ]
    rows = gather(records).group("weights")
    assert panels.best(rows, "accuracy_finetuned") == "l-obs"
    figure = next(d.figure for d in panels.draw(gather(records)) if d.name.startswith("accuracy"))
    (ax,) = [
        ax
        for ax in figure.subfigs[0].axes
        if ax.get_title() == "L-OBS" and ax.get_legend() is not None
    ]
    looks = {line.get_gid(): to_hex(line.get_color()).upper() for line in ax.lines}
    assert looks["random"] == looks["obd-global"] == "#CCCCCC"
    assert looks["l-obs"] == style.look("l-obs").colour
    assert looks["magnitude-global"] == style.look("magnitude-global").colour
    told = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "L-OBS" in told and "Random" not in told


def test_without_fine_tuning_there_is_one_row_of_panels_and_a_best_only_of_what_was_removed():
    records = [record for record in small() if record.stage == "prune"]
    figure = next(d.figure for d in panels.draw(gather(records)) if d.name.startswith("accuracy"))
    (weights, _) = figure.subfigs
    assert {ax.get_subplotspec().get_gridspec().nrows for ax in weights.axes} == {1}
    idle = gather(pair("eigendamage", 0.5, unit="unit_ratio", kept=1.0)).rows
    assert panels.best(idle, "accuracy_finetuned") == ""


def test_every_method_of_the_registry_has_one_family():
    assert {style.family(method) for method in METHODS} <= set(style.FAMILIES)
    assert style.family("woodfisher (m 100, b 10)") == "WoodFisher"
    every = [method for mine in style.FAMILIES.values() for method in mine]
    assert len(every) == len(set(every)) and style.family("nobody's") == "Others"


def test_labels_are_plain_text():
    assert (
        style.plain("_a$b$\n") == r"a\$b\$"
        and style.plain("__") == "unnamed"
        and len(style.plain("x" * 99)) == 42
    )
