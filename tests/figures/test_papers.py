"""Every sheet of every paper draws from the committed records what they say."""

from __future__ import annotations

import pytest

from common.cells.record import Record
from common.cells.spec import Recipe, Spec
from figures import draw, eigendamage, frame, lobs, nap, woodfisher
from figures.values import PAPERS, read

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


# -- where points stand ----------------------------------------------------------------------------


def made(stage, trajectory, accuracy=None, **spec):
    """A record of a gradual run on MNIST."""
    cell = Spec(model="lenet300", dataset="mnist", sparsity=0.9, **spec)
    return Record(
        "id",
        "p",
        "",
        "",
        "m",
        stage,
        "cpu",
        cell.to_dict(),
        accuracy=accuracy or {},
        trajectory=trajectory,
    )


def test_the_course_to_one_and_a_half_percent_counts_every_iteration():
    """Three prunings, 32 iterations (of 30 an epoch) after each but the last, and 10 at the end."""
    spec = {
        "steps": 3,
        "step_epochs": 32 / 30,
        "finetune": Recipe(epochs=1, max_steps=10, batch_size=2048),
    }
    steps = [
        {"step": 0, "pruned": 0.5, "tuned": 0.75},
        {"step": 1, "pruned": 0.4, "tuned": 0.7},
        {"step": 2, "pruned": 0.3},
    ]
    tuning = [{"steps": n, "accuracy": a} for n, a in ((0, 0.3), (5, 0.6), (10, 0.8))]
    points = lobs.course(made("prune", steps, **spec), made("finetune", tuning, **spec))
    assert [x for x, _ in points] == [0, 32, 32, 64, 64, 69, 74]
    assert [y for _, y in points] == pytest.approx([50, 25, 60, 30, 70, 40, 20])


def test_a_walk_has_two_points_a_pruning_and_ends_with_its_run():
    """Prunings at epochs 1, 3 and 5 of ten: each point after a training stands where the next
    pruning is."""
    spec = {
        "levels": (0.5, 0.8, 0.9),
        "clock": "course",
        "first_epoch": 1.0,
        "step_epochs": 2.0,
        "finetune": Recipe(epochs=10, batch_size=128),
    }
    steps = [
        {"step": 0, "pruned": 0.5, "tuned": 0.75},
        {"step": 1, "pruned": 0.4, "tuned": 0.7},
        {"step": 2, "pruned": 0.3},
    ]
    ends = {"dense": 0.9, "last": 0.8}
    epochs, accuracy = woodfisher.walk(
        made("prune", steps, ends, **spec), made("finetune", [], ends, **spec)
    )
    assert epochs == pytest.approx([0, 1, 3, 3, 5, 5, 10])
    assert accuracy == pytest.approx([90, 50, 75, 40, 70, 30, 80])
    interval = spec | {"clock": "interval", "first_epoch": 0.0, "levels": (), "steps": 3}
    epochs, _ = woodfisher.walk(
        made("prune", steps, ends, **interval), made("finetune", [], ends, **interval)
    )
    assert epochs == pytest.approx([0, 2, 2, 4, 4, 14], rel=1e-3)


def printed_points(paper, table, model, x, y, **setting):
    """(number of x, number of y) of each printed row of a network, by what it is called."""
    rows: dict[tuple, dict[str, float]] = {}
    for value in read(paper):
        if (value.table, value.model, value.dataset) == (table, model, "CIFAR-10"):
            key = value.method, dict(value.setting).get("prune_ratio_pct", "")
            rows.setdefault(key, {})[value.quantity] = value.number
    return {key: (row.get(x), row.get(y)) for key, row in rows.items()}


def test_hollow_points_of_eigendamages_table_1_are_the_printed_ones():
    """What is left of the FLOPs, in percent, and the accuracy; ours have the same axis."""
    figure = eigendamage.FIGURES["table1"].draw()
    hollow = 0
    for ax in figure.axes:
        title, ratio = ax.get_title().split("\n")
        (network,) = [n for n, words in eigendamage.NETWORKS.items() if words == title]
        said = printed_points(
            "eigendamage",
            "Table 1",
            eigendamage.TABLE1[network],
            "flops_reduction_pct",
            "test_acc_pct",
        )
        wanted = {
            (round(100 - x, 6), y)
            for (_, percent), (x, y) in said.items()
            if percent == ratio.partition("%")[0] and x is not None and y
        }
        drawn = {
            (round(float(x), 6), float(y))
            for line in ax.lines
            if line.get_markerfacecolor() == "none" and line.get_gid()
            for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
        }
        assert drawn <= wanted and drawn
        hollow += len(drawn)
    assert hollow >= 20


def printed_pairs(paper, table, x, y):
    """{network: {(x, y)}} of the printed rows that have both; x and y are quantities, or columns of
    the row's setting."""
    rows: dict[tuple, dict[str, float | None]] = {}
    for value in read(paper):
        if value.table == table:
            setting = {k: float(v) for k, v in value.setting if k in (x, y)}
            rows.setdefault(value.row, {}).update(setting | {value.quantity: value.number})
    found: dict[str, set] = {}
    for (model, *_), row in rows.items():
        if row.get(x) is not None and row.get(y) is not None:
            found.setdefault(model, set()).add((row[x], row[y]))
    return found


@pytest.mark.parametrize(
    ("paper", "key", "table", "x", "y"),
    [
        ("lobs", "2a", "Figure 2a", "kept_pct", "top5_pct"),
        ("woodfisher", "5a", "Figure 5a", "sparsity_pct", "top5_pct"),
    ],
)
def test_what_a_sheet_draws_of_the_paper_is_printed_there(paper, key, table, x, y):
    """Each point of the first panel, the paper's; there are several."""
    said = printed_pairs(paper, table, x, y)
    figure = draw.sheets(paper)[key].draw()
    drawn = {
        (float(a), float(b))
        for line in figure.axes[0].lines
        if line.get_gid()
        for a, b in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }
    assert len(drawn) >= 6 and drawn <= set().union(*said.values())
