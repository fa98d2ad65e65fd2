"""Drawing: functions that fill one matplotlib Axes from rows, and the comparison's figures composed
of them.

Rows are `figures.records.Row`. Nothing here uses pyplot, so nothing is global and no display is
needed. Each drawn artist has its method as gid. Cells that a panel cannot show are counted and
returned, never dropped in silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from itertools import groupby

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from figures.kinds import accuracy_axis
from figures.records import GROUPS, UNITS, Comparison, Row
from figures.style import RC, family, look, plain, rank

NAMES = {
    "kept_weights": "Kept weights",
    "kept_macs": "Kept MACs",
    "accuracy_pruned": "after pruning, no fine-tuning",
    "accuracy_finetuned": "after fine-tuning, last epoch",
}
LEAST_KEPT = 0.1  # percent; the low end of the heat map's logarithmic colours
SHORT = "#C4C4C4"  # of rows that removed less than half of what was asked
BAND = "Lines join means over seeds, bands span the lowest to the highest seed."


@dataclass(frozen=True)
class Drawing:
    """A finished figure: file name without suffix, heading, caption, and alternative text that says
    what it shows.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure


def by_method(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """The rows of each method by rising amount, methods in the order of `style.LOOKS`."""
    rows = sorted(rows, key=lambda row: (rank(row.method), row.unit, row.amount))
    return [(method, list(mine)) for method, mine in groupby(rows, key=lambda row: row.method)]


def percent_axis(ax: Axes, label: str, least: float, most: float) -> None:
    """A logarithmic x axis of kept percent that falls to the right: further right is pruned
    harder.
    """
    ax.set_xscale("log")
    ax.set_xlim(most * 1.06, least / 1.06)
    subs = (
        (1, 2, 5)
        if most / least > 8
        else (1, 1.5, *range(2, 10))
        if most / least > 1.5
        else np.arange(1, 10, 0.5)
    )
    ax.xaxis.set_major_locator(LogLocator(subs=subs, numticks=30))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(f"{label} [% of dense, log scale]")


def accuracy_against(
    ax: Axes,
    rows: list[Row],
    x: str = "kept_weights",
    y: str = "accuracy_finetuned",
    dense: float | None = None,
    named: Collection[str] | None = None,
) -> int:
    """Mean accuracy in percent against a kept percent, one line a method, min-max bands where a row
    has two seeds or more.

    x, y: keys of `records.QUANTITIES`. dense: the dense accuracy (fraction), a dotted line. named:
    the methods to tell apart, all without; the others are thin grey lines. Rows that came short of
    what was asked are grey, and in no line. Returns how many rows lack x or y.
    """
    missing, reach = 0, []
    for method, mine in by_method(rows):
        known = [
            (row.short, row.stat(x), row.stat(y)) for row in mine if row.stat(x).n and row.stat(y).n
        ]
        known = sorted((p for p in known if p[1].mean > 0), key=lambda point: -point[1].mean)
        missing += len(mine) - len(known)
        style, faint = look(method), named is not None and method not in named
        short = [(100 * across.mean, 100 * up.mean) for grey, across, up in known if grey]
        if short and not faint:
            ax.plot(*zip(*short, strict=True), style.marker, color=SHORT, zorder=1, gid="short")
            reach += [across for across, _ in short]
        points = [(across, up) for grey, across, up in known if not grey]
        if not points:
            continue
        kept = 100 * np.array([across.mean for across, _ in points])
        reach += kept.tolist()
        if faint:
            means = [100 * up.mean for _, up in points]
            ax.plot(kept, means, color="#CCCCCC", linewidth=0.8, zorder=1, gid=method)
            continue
        ax.plot(
            kept,
            [100 * up.mean for _, up in points],
            style.line,
            color=style.colour,
            marker=style.marker,
            label=plain(style.label),
            gid=method,
        )
        several = np.array([up.n > 1 for _, up in points])
        if several.any():
            ax.fill_between(
                kept,
                [100 * min(up.values) for _, up in points],
                [100 * max(up.values) for _, up in points],
                where=several,
                color=style.colour,
                alpha=0.13,
                linewidth=0,
                gid=method,
            )
    if reach:
        percent_axis(ax, NAMES[x], min(reach), max(reach))
    if any(line.get_gid() == "short" for line in ax.lines):
        ax.plot([], [], "o", color=SHORT, label="Removed less than half of what was asked")
    if dense is not None:
        ax.axhline(
            100 * dense,
            color="#444444",
            linewidth=1,
            linestyle=(0, (1, 2)),
            gid="dense",
            label="Dense network",
        )
    accuracy_axis(ax)
    return missing


def predicted_against_measured(ax: Axes, rows: list[Row]) -> Counter:
    """Predicted against measured loss increase, log-log with the diagonal; one point a row (mean
    over its seeds).

    Returns how many rows are not drawn, by why: they came short of what was asked, there is no
    prediction or no measurement, or one is not positive, which a logarithm cannot show.
    """
    left_out: Counter = Counter()
    reach: list[float] = []
    for method, mine in by_method(rows):
        points = []
        for row in mine:
            predicted, measured = (
                row.stat("predicted_increase").mean,
                row.stat("measured_increase").mean,
            )
            if row.short:
                left_out["removed less than half of what was asked"] += 1
            elif predicted is None or measured is None:
                left_out["no prediction" if predicted is None else "not measured"] += 1
            elif predicted <= 0 or measured <= 0:
                left_out["not positive"] += 1
            else:
                points.append((predicted, measured))
        if points:
            style = look(method)
            ax.plot(
                *zip(*points, strict=True),
                style.line,
                color=style.colour,
                marker=style.marker,
                linewidth=0.7,
                label=plain(style.label),
                gid=method,
            )
            reach += [value for point in points for value in point]
    if reach:
        ends = (min(reach) / 1.6, max(reach) * 1.6)
        ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
        ax.plot(
            ends,
            ends,
            color="#444444",
            linewidth=1,
            linestyle=(0, (1, 2)),
            gid="diagonal",
            label="Predicted = measured",
        )
    ax.set(
        xlabel="Predicted loss increase [nats, log scale]",
        ylabel="Measured loss increase [nats, log scale]",
    )
    return left_out


def kept_per_layer(ax: Axes, rows: list[Row]) -> QuadMesh:
    """Heat map of the kept percent, one row a method and one column a layer, logarithmic colours;
    hatched where unknown.

    rows: at most one a method (one amount). With up to 12 layers the percent stands in each field.
    """
    rows = sorted(rows, key=lambda row: rank(row.method))
    kept = [row.kept_by_layer() for row in rows]
    layers = list(dict.fromkeys(name for one in kept for name in one)) or ["no layer recorded"]
    values = np.array([[100 * one.get(name, np.nan) for name in layers] for one in kept])
    ax.set_facecolor("white")
    ax.patch.set(hatch="////", edgecolor="#BBBBBB")
    mesh = ax.pcolormesh(
        np.ma.masked_invalid(np.maximum(values, LEAST_KEPT)),
        cmap="viridis",
        norm=LogNorm(LEAST_KEPT, 100),
        edgecolor="white",
        linewidth=0.8,
    )
    if len(layers) <= 12:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                text = (
                    f"{value:.0f}"
                    if value >= 9.95
                    else f"{value:.1f}"
                    if value >= 0.05
                    else f"{value:.1g}"
                )
                ax.text(
                    column + 0.5,
                    row + 0.5,
                    text,
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color="black" if value > 4 else "white",
                )
    step = max(1, -(-len(layers) // 24))
    ax.set_xticks(
        np.arange(0, len(layers), step) + 0.5,
        [plain(name, 18) for name in layers[::step]],
        rotation=40,
        ha="right",
        rotation_mode="anchor",
    )
    ax.set_yticks(
        np.arange(len(rows)) + 0.5,
        [plain(row.label, 34) + (f" ({row.mark})" if row.short else "") for row in rows],
    )
    for row, text in zip(rows, ax.get_yticklabels(), strict=True):
        text.set_color("#999999" if row.short else "black")
    ax.invert_yaxis()
    ax.grid(False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return mesh


def legend(ax: Axes) -> None:
    """The legend to the right of the axes, where it covers nothing."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(
            loc="center left", bbox_to_anchor=(1.02, 0.5), handlelength=2.6, labelspacing=0.35
        )


def pick(amounts: list[float]) -> list[float]:
    """The middle amount and the highest; one where they coincide."""
    amounts = sorted(set(amounts))
    return list(dict.fromkeys((amounts[(len(amounts) - 1) // 2], amounts[-1]))) if amounts else []


def draw(comparison: Comparison) -> list[Drawing]:
    """The comparison's figures: accuracy against kept weights and MACs, predicted against measured,
    kept per layer.
    """
    with matplotlib.rc_context(RC):
        return [
            _accuracy(comparison, "kept_weights"),
            _accuracy(comparison, "kept_macs"),
            _prediction(comparison),
            *(_layers(comparison, group) for group in comparison.groups()),
        ]


MOMENTS = ("accuracy_pruned", "accuracy_finetuned")
BASELINES = ("magnitude-global", "c-obd")  # the simplest of single weights and of channels


def best(rows: list[Row], y: str) -> str:
    """The method whose accuracy is the highest on average over its amounts, among those with the
    most amounts; empty where no row removed what was asked.
    """
    means = {
        method: [row.stat(y).mean for row in mine if row.stat(y).n and not row.short]
        for method, mine in by_method(rows)
    }
    most = max(map(len, means.values()))
    full = {m: np.mean(values) for m, values in means.items() if values and len(values) == most}
    return max(full, key=full.get, default="")


def _accuracy(comparison: Comparison, x: str) -> Drawing:
    """A row of small panels for each group and moment, a panel a family over all others in grey."""
    groups = {name: comparison.group(name) for name in comparison.groups()}
    families = {
        name: list(dict.fromkeys(family(method) for method, _ in by_method(rows)))
        for name, rows in groups.items()
    }
    columns = max(map(len, families.values()))
    size = (2.9 * columns + 0.6, 6.8 * len(groups))
    figure = Figure(figsize=size, layout="constrained")
    parts = np.atleast_1d(figure.subfigures(len(groups), 1))
    missing, told = 0, []
    for (group, rows), part in zip(groups.items(), parts, strict=True):
        moments = [y for y in MOMENTS if any(row.stat(y).n for row in rows)] or MOMENTS[:1]
        axes = part.subplots(len(moments), columns, squeeze=False, sharex=True, sharey="row")
        part.suptitle(GROUPS[group], fontsize=11)
        for line, y in zip(axes, moments, strict=True):
            everywhere = {best(rows, y), *(set(BASELINES) & {row.method for row in rows})}
            lacking = [
                accuracy_against(
                    ax,
                    rows,
                    x,
                    y,
                    comparison.dense["accuracy"],
                    {method for method, _ in by_method(rows) if family(method) == name}
                    | everywhere,
                )
                for ax, name in zip(line, families[group], strict=False)
            ]
            missing += lacking[0]
            told.append(_extremes(rows, x, y))
            for ax, name in zip(line, families[group], strict=False):
                ax.set(title=name, ylabel="")
                if y != moments[-1]:
                    ax.set_xlabel("")
            line[0].set_ylabel(f"Test accuracy [%]\n{NAMES[y]}")
        for column in axes.T[: len(families[group])]:
            each = [ax.get_legend_handles_labels() for ax in column]
            artists = {label: one for pair in each for one, label in zip(*pair, strict=True)}
            below = {"loc": "upper left", "bbox_to_anchor": (-0.05, -0.22), "fontsize": 8}
            column[-1].legend(artists.values(), artists.keys(), labelspacing=0.25, **below)
        for ax in axes[:, len(families[group]) :].flat:
            ax.remove()
    caption = "Each panel shows one family, and in all panels the best on average and the simplest "
    caption += "baseline; grey: all others. The accuracy axes are logarithmic in the error. "
    caption += BAND if len(comparison.seeds) > 1 else "One seed, so no bands."
    caption += f" {missing} points have no value and are not drawn." if missing else ""
    count = len({row.method for row in comparison.rows})
    return Drawing(
        f"accuracy_{x}",
        f"Accuracy against {NAMES[x].lower().replace('macs', 'MACs')}",
        caption,
        f"Line charts of test accuracy for {count} methods. " + " ".join(filter(None, told)),
        figure,
    )


def _extremes(rows: list[Row], x: str, y: str) -> str:
    rows = [row for row in rows if row.stat(y).n and row.stat(x).n and not row.short]
    if not rows:
        return ""
    best, worst = (end(rows, key=lambda row: row.stat(y).mean) for end in (max, min))
    ends = (
        f"{100 * row.stat(y).mean:.1f}% ({row.label}, {NAMES[x].lower().replace('macs', 'MACs')} "
        f"{100 * row.stat(x).mean:.3g}%)"
        for row in (worst, best)
    )
    return f"{GROUPS[rows[0].group]}, {NAMES[y]}: from " + " to ".join(ends) + "."


def _prediction(comparison: Comparison) -> Drawing:
    groups = comparison.groups()
    figure = Figure(figsize=(8.6, 4.6 * len(groups)), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.1)
    left_out, told = Counter(), []
    for group, ax in zip(groups, figure.subplots(len(groups), 1, squeeze=False)[:, 0], strict=True):
        here = predicted_against_measured(ax, comparison.group(group))
        ax.set_title(f"{GROUPS[group]}: loss increase by pruning alone")
        legend(ax)
        left_out += here
        pairs = [
            (row.stat("predicted_increase").mean, row.stat("measured_increase").mean)
            for row in comparison.group(group)
        ]
        logs = [abs(np.log10(m / p)) for p, m in pairs if p and m and p > 0 and m > 0]
        apart = (
            f", in the median a factor of {10 ** np.median(logs):.2g} off the diagonal"
            if logs
            else ""
        )
        told.append(f"{GROUPS[group]}: {len(logs)} points{apart}.")
    caption = (
        "One point a method and amount, mean over seeds; on the dotted diagonal the "
        "prediction is exact."
    )
    caption += "".join(f" {n} cells not drawn: {why}." for why, n in sorted(left_out.items()))
    return Drawing(
        "predicted_measured",
        "Predicted against measured loss increase",
        caption,
        "Scatter charts, both axes logarithmic. " + " ".join(told),
        figure,
    )


def _layers(comparison: Comparison, group: str) -> Drawing:
    rows = comparison.group(group)
    shown = [
        (unit, amount)
        for unit in UNITS
        for amount in pick([row.amount for row in rows if row.unit == unit])
    ]
    tallest = max(sum((row.unit, row.amount) == one for row in rows) for one in shown)
    figure = Figure(figsize=(1.8 + 4.9 * len(shown), 1.7 + 0.3 * tallest), layout="constrained")
    axes, told = figure.subplots(1, len(shown), squeeze=False)[0], []
    for ax, (unit, amount) in zip(axes, shown, strict=True):
        mine = [row for row in rows if (row.unit, row.amount) == (unit, amount)]
        mesh = kept_per_layer(ax, mine)
        ax.set_title(f"{UNITS[unit]} {amount:g}")
        every = [
            (kept, name, row.label) for row in mine for name, kept in row.kept_by_layer().items()
        ]
        if every:
            ends = (
                f"{100 * kept:.3g}% ({label}, layer {name})"
                for kept, name, label in (min(every), max(every))
            )
            told.append(f"At {UNITS[unit]} {amount:g} a layer keeps from {' to '.join(ends)}.")
    for ax in axes[1:]:
        if [t.get_text() for t in ax.get_yticklabels()] == [
            t.get_text() for t in axes[0].get_yticklabels()
        ]:
            ax.set_yticklabels([])
    bar = figure.colorbar(mesh, ax=list(axes), label="Kept [%, log scale]", pad=0.015)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    figure.suptitle(f"{GROUPS[group]}: kept weights per layer", fontsize=11)
    return Drawing(
        f"layers_{group}",
        f"Kept weights per layer: {GROUPS[group].lower()}",
        "Percent of each layer's weights that is kept, mean over seeds; colours from "
        f"{LEAST_KEPT:g}% up, hatched "
        "where no record exists.",
        f"Heat map of methods by layers. {' '.join(told)}",
        figure,
    )
