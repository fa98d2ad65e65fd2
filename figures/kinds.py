"""The kinds of picture, as data: a sheet has panels, a panel has layers, a layer draws a frame.

    Sheet("What it shows", lambda: [Panel("title", "x", "y", Curve(frame, LOOKS), Level(93.2))])

The frames of Curve, Trajectory and Scatter have columns x, y and series; a series is drawn with its
look, in the order of the looks, and is passed over where the frame has none of it. Each artist has
its series as gid. No figure is pyplot's, so nothing is global and no display is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from figures.style import BLUE, GREEN, ORANGE, RC, VERMILION, Look, look, rank

Looks = Mapping[str, Look]
DOTTED = (0, (1, 2))
DARK = "#444444"
BESIDE = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)}
BELOW = {"loc": "outside lower center", "ncols": 3}
COLOURS = (BLUE, VERMILION, GREEN, ORANGE)
LEAST_ERROR = 0.05  # percent; errors below it are drawn there
ACCURACY_TICKS = np.fromstring(  # the rounder the earlier
    "90 50 99 80 95 98 0 97 70 60 96 99.5 99.9 92 85 94 30 98.5 97.5 20 93 88 75 65 10 40 96.5 "
    "95.5 91 86 98.2 97.2 98.8 97.8 99.2 99.8",
    sep=" ",
)


class Layer(Protocol):
    """What can be drawn on a panel."""

    def draw(self, ax: Axes) -> None: ...


def _series(data: pd.DataFrame, looks: Looks | None) -> Iterator[tuple[str, Look, pd.DataFrame]]:
    """(series, its look, its lines); without looks those of the methods, in their order."""
    there = dict(iter(data.groupby("series", sort=False)))
    if looks is None:
        looks = {name: look(name) for name in sorted(there, key=rank)}
    return ((name, looks[name], there[name]) for name in looks if name in there)


@dataclass(frozen=True)
class Curve:
    """A line a series through the means at each x, and how far the seeds spread: a band, or bars,
    from the lowest to the highest. With a column `at` seeds are grouped by it and x is their mean.
    """

    data: pd.DataFrame
    looks: Looks | None = None
    spread: str = "band"

    def draw(self, ax: Axes) -> None:
        data = self.data
        if "at" in data:
            data = data.assign(x=data.groupby(["series", "at"]).x.transform("mean"))
        bars, band = {"elinewidth": 1, "marker": ""}, {"alpha": 0.13, "linewidth": 0}
        for name, style, lines in _series(data, self.looks):
            seaborn.lineplot(
                lines,
                x="x",
                y="y",
                ax=ax,
                errorbar=("pi", 100) if lines.x.duplicated().any() else None,
                err_style=self.spread,
                err_kws=bars if self.spread == "bars" else band,
                label=style.label,
                legend=False,
                gid=name,
                markeredgecolor=style.colour,
                markeredgewidth=1,
                **style.artist(),
            )


@dataclass(frozen=True)
class Trajectory:
    """A path a series, in the order of its lines, or one for each `run` of it; `end`: the marker of
    its last point alone.
    """

    data: pd.DataFrame
    looks: Looks | None = None
    end: bool = False

    def draw(self, ax: Axes) -> None:
        for name, style, lines in _series(self.data, self.looks):
            label = style.label
            runs = lines.groupby("run", sort=False) if "run" in lines else [("", lines)]
            for _, run in runs:
                artist = style.artist()
                if self.end:
                    ends = {"markersize": 6} | {k: artist[k] for k in ("marker", "color")}
                    ax.plot(run.x.iloc[-1], run.y.iloc[-1], linestyle="none", **ends)
                    artist["marker"] = ""
                ax.plot(run.x, run.y, label=label, gid=name, **artist)
                label = None


@dataclass(frozen=True)
class Scatter:
    """Points of a series, without a line; where the frame has a column `text`, it stands beside
    each.
    """

    data: pd.DataFrame
    looks: Looks | None = None
    text: Mapping = field(default_factory=dict)  # keywords of Axes.annotate

    def draw(self, ax: Axes) -> None:
        for name, style, lines in _series(self.data, self.looks):
            artist = style.artist() | {"linestyle": "none"}
            ax.plot(lines.x, lines.y, label=style.label or None, gid=name, **artist)
            if "text" in lines:
                for x, y, text in zip(lines.x, lines.y, lines.text, strict=True):
                    ax.annotate(text, (x, y), textcoords="offset points", **self.text)


@dataclass(frozen=True)
class Bars:
    """A group of bars a line of the table, a bar a column; `names`: what the lines are called.

    across: the bars lie, and the first line is on top.
    """

    table: pd.DataFrame
    names: Sequence[str]
    colours: Sequence[str] = COLOURS
    across: bool = False
    label: Mapping = field(default_factory=dict)  # keywords of Axes.bar_label; none without

    def draw(self, ax: Axes) -> None:
        groups, many = len(self.table), len(self.table.columns)
        width = 0.8 / many
        for i, (column, colour) in enumerate(zip(self.table, self.colours, strict=False)):
            places = np.arange(groups) + (i - (many - 1) / 2) * width
            bar = ax.barh if self.across else ax.bar
            values = self.table[column].fillna(0)
            drawn = bar(places, values, 0.95 * width, color=colour, label=column)
            if self.label:
                ax.bar_label(drawn, **self.label)
        if self.across:
            ax.set_yticks(range(groups), self.names)
            ax.set_ylim(groups - 0.4, -0.6)
        else:
            ax.set_xticks(range(groups), self.names)
            ax.set_xlim(-0.6, max(groups, 3) - 0.4)


@dataclass(frozen=True)
class Rows:
    """A line a name, the first on top, with the means of its numbers and a bar from the lowest to
    the highest; one without numbers is a heading. notes: text to the right of each line.
    """

    names: Sequence[str]
    data: pd.DataFrame  # row (a place in names), x, series; colour: of the row
    looks: Looks  # of the series; their colours are the legend's
    notes: Sequence[str] = ()

    def draw(self, ax: Axes) -> None:
        data = self.data.dropna(subset="x")
        for (row, colour), line in data.groupby(["row", "colour"]):
            means = line.groupby("series").x.mean()
            ax.hlines(row, means.min(), means.max(), color=colour, linewidth=0.8, alpha=0.5)
        for name, style, points in _series(data, self.looks):
            for (row, colour), line in points.groupby(["row", "colour"]):
                mean, ends = line.x.mean(), [line.x.min(), line.x.max()]
                shown = {**style.artist(), "color": colour, "linestyle": "none"}
                ax.plot(mean, row, gid=name, **shown)
                if ends[0] < ends[1]:
                    ax.plot(ends, [row, row], color=colour, linewidth=2.4, alpha=0.45)
            ax.plot([], [], label=style.label, **style.artist() | {"linestyle": "none"})
        ax.set_yticks(range(len(self.names)), self.names)
        ax.set_ylim(len(self.names) - 0.4, -0.6)
        for row in set(range(len(self.names))) - set(data.row):
            ax.get_yticklabels()[row].set_fontweight("bold")
        for row, note in enumerate(self.notes):
            place = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 8}
            ax.text(1.01, row, note, **place)
        ax.grid(False, axis="y")
        ax.tick_params(axis="y", length=0)


@dataclass(frozen=True)
class Image:
    """A matrix as a picture. bar: the label of a colour bar; keywords go to Axes.imshow."""

    pixels: np.ndarray
    bar: str = ""
    more: Mapping = field(default_factory=dict)

    def draw(self, ax: Axes) -> None:
        drawn = ax.imshow(self.pixels, **self.more)
        ax.grid(False)
        if self.bar:
            ax.figure.colorbar(drawn, ax=ax, label=self.bar)


@dataclass(frozen=True)
class HeatMap:
    """A table of numbers as coloured fields, each with its number as `told` writes it; hatched
    where there is none.
    """

    table: pd.DataFrame  # its index and columns are the labels
    told: Callable[[float], str]
    dark: float  # at most it numbers are white
    more: Mapping = field(default_factory=dict)  # keywords of Axes.pcolormesh

    def draw(self, ax: Axes) -> matplotlib.collections.QuadMesh:
        values = self.table.to_numpy(float)
        ax.set_facecolor("white")
        ax.patch.set(hatch="////", edgecolor="#BBBBBB")
        masked = np.ma.masked_invalid(values)
        mesh = ax.pcolormesh(masked, edgecolor="white", linewidth=0.8, **self.more)
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                at = {"ha": "center", "va": "center", "fontsize": 7.5}
                colour = "black" if value > self.dark else "white"
                ax.text(column + 0.5, row + 0.5, self.told(value), color=colour, **at)
        turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        ax.set_xticks(np.arange(values.shape[1]) + 0.5, list(self.table.columns), **turned)
        ax.set_yticks(np.arange(values.shape[0]) + 0.5, list(self.table.index))
        ax.invert_yaxis()
        ax.grid(False)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        return mesh


@dataclass(frozen=True)
class Histogram:
    """Counts in equal steps from -reach to reach."""

    counts: Sequence[float]
    reach: float

    def draw(self, ax: Axes) -> None:
        edges = np.linspace(-self.reach, self.reach, len(self.counts) + 1)
        ax.stairs(self.counts, edges, fill=True, color=BLUE)


@dataclass(frozen=True)
class Level:
    """A horizontal line, the dense network's unless it says otherwise."""

    y: float
    label: str = ""
    colour: str = DARK
    line: object = DOTTED

    def draw(self, ax: Axes) -> None:
        shown = {"color": self.colour, "linewidth": 1, "linestyle": self.line}
        ax.axhline(self.y, label=self.label or None, **shown)


@dataclass(frozen=True)
class Diagonal:
    """The line on which both axes agree, between two ends, or without end."""

    ends: tuple[float, float] | None = None
    label: str = ""

    def draw(self, ax: Axes) -> None:
        shown = {"color": DARK, "linewidth": 1, "linestyle": DOTTED, "label": self.label or None}
        if self.ends:
            ax.plot(self.ends, self.ends, gid="diagonal", **shown)
        else:
            ax.axline((1e-6, 1e-6), (1, 1), **shown)


@dataclass(frozen=True)
class Errors:
    """Means with their deviations, a line a series, from the bottom up."""

    data: pd.DataFrame  # mean, std, series

    def draw(self, ax: Axes) -> None:
        for y, one in enumerate(self.data.itertuples()):
            artist = look(one.series).artist() | {"linestyle": "-"}
            ax.errorbar(one.mean, y, xerr=one.std, capsize=3, **artist)


@dataclass(frozen=True)
class Note:
    """A line of text at a place of the panel, both coordinates from 0 to 1."""

    text: str
    x: float = 0.98
    y: float = 0.03

    def draw(self, ax: Axes) -> None:
        place = {"xycoords": "axes fraction", "ha": "right", "fontsize": 8}
        ax.annotate(self.text, (self.x, self.y), **place)


class Panel:
    """One pair of axes: title, labels, what is drawn on them, and how they count.

    log: which axes are logarithmic, "x", "y" or "xy". round: which have ticks at 1, 2 and 5 times
    powers of ten, written plainly. falls: x decreases to the right. error_scale: accuracy,
    logarithmic in the error. legend: keywords of Axes.legend. tall: how many times the height that
    the sheet gives a panel. Further keywords go to Axes.set.
    """

    def __init__(
        self,
        title: str,
        x: str,
        y: str,
        *layers: Layer,
        log: str = "",
        round: str = "",
        falls: bool = False,
        error_scale: bool = False,
        legend: Mapping | None = None,
        finish: Callable[[Axes], None] | None = None,
        tall: float = 1.0,
        **axes: object,
    ):
        self.title, self.x, self.y, self.layers = title, x, y, layers
        self.log, self.round, self.falls, self.error_scale = log, round, falls, error_scale
        self.legend, self.finish, self.tall, self.axes = legend, finish, tall, axes

    def draw(self, ax: Axes) -> None:
        """Everything on `ax`."""
        for layer in self.layers:
            layer.draw(ax)
        ax.set(**{f"{axis}scale": "log" for axis in self.log})
        ax.set(title=self.title, xlabel=self.x, ylabel=self.y)
        ax.set(**self.axes)
        if self.log and {"xticks", "yticks"} & self.axes.keys():
            ax.minorticks_off()
        for axis in self.round:
            plain(getattr(ax, f"{axis}axis"))
        if self.falls:
            ax.invert_xaxis()
        if self.error_scale:
            accuracy_axis(ax)
        if self.finish:
            self.finish(ax)
        if self.legend is not None and ax.get_legend_handles_labels()[0]:
            ax.legend(**self.legend)


def colour_bar(label: str) -> Callable[[Figure, np.ndarray], None]:
    """A sheet's last touch: one bar for all its images, which have one scale."""

    def finish(figure: Figure, axes: np.ndarray) -> None:
        figure.colorbar(axes.flat[-1].images[0], ax=list(axes.flat), label=label, pad=0.015)

    return finish


def plain(axis: Axis, subs: Sequence[float] | None = (1, 2, 5)) -> None:
    """Ticks at these multiples of powers of ten, or where they are, written without exponent."""
    if subs:
        axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def accuracy_axis(ax: Axes) -> None:
    """An accuracy axis that is logarithmic in the error, so that 98% and 99% are as far apart as
    80% and 90%.

    Call it after everything is drawn: the ticks are chosen for the limits, round numbers first,
    none too close.
    """

    def forward(accuracy: np.ndarray) -> np.ndarray:
        return -np.log10(np.maximum(100 - np.asarray(accuracy, float), LEAST_ERROR))

    def inverse(position: np.ndarray) -> np.ndarray:
        return 100 - 10.0 ** -np.asarray(position, float)

    ax.set_ylabel("Test accuracy [%, log scale of the error]")
    if not np.isfinite(ax.dataLim.intervaly).all():  # nothing is drawn
        return
    ends = forward(ax.dataLim.intervaly)
    margin = 0.05 * (ends[1] - ends[0]) + 0.01
    low, high = inverse(ends + [-margin, margin])
    ax.set_yscale("function", functions=(forward, inverse))
    ax.set_ylim(low, high)
    chosen: list[float] = []
    for tick in ACCURACY_TICKS[(low <= ACCURACY_TICKS) & (high >= ACCURACY_TICKS)]:
        near = [abs(forward(tick) - forward(other)) for other in chosen]
        if min(near, default=np.inf) > 0.07 * (forward(high) - forward(low)):
            chosen.append(tick)
    ax.yaxis.set_major_locator(FixedLocator(sorted(chosen)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


@dataclass(frozen=True)
class Sheet:
    """One picture of a paper: panels in rows, and the Markdown table beside it where it has one.

    panels: called when it is drawn, so that a record that is missing costs this picture alone.
    panel: inches of one; margin: inches beyond the panels; least: inches of width. columns, rows:
    of panels, all in one row without. share: which axes all panels have in common. legend: of all
    panels, each label once. finish: last touches on all axes.
    """

    shows: str
    panels: Callable[[], Sequence[Panel]]
    panel: tuple[float, float] = (5.0, 4.0)
    margin: tuple[float, float] = (0.0, 0.0)
    least: float = 0.0
    columns: int = 0
    rows: int = 0
    share: Mapping = field(default_factory=dict)  # keywords of Figure.subplots
    title: str | Callable[[], str] = ""
    title_size: float = 10
    legend: Mapping | None = None
    finish: Callable[[Figure, np.ndarray], None] | None = None
    table: Callable[[], str] | None = None

    def draw(self) -> Figure:
        """The picture. Raises UserError where its records are missing."""
        with matplotlib.rc_context(RC):
            panels = list(self.panels())
            columns = self.columns or -(-len(panels) // (self.rows or 1))
            columns = min(columns, len(panels))
            lines = [panels[i : i + columns] for i in range(0, len(panels), columns)]
            heights = [max(panel.tall for panel in line if panel) for line in lines]
            width = max(columns * self.panel[0] + self.margin[0], self.least)
            height = sum(heights) * self.panel[1] + self.margin[1]
            figure = Figure(figsize=(width, height), layout="constrained")
            ratios = {"height_ratios": heights, **self.share}
            axes = figure.subplots(len(lines), columns, squeeze=False, **ratios)
            for ax, panel in zip(axes.flat, panels, strict=False):
                if panel is not None:
                    panel.draw(ax)
            for ax, panel in zip(axes.flat, [*panels, *[None] * axes.size], strict=False):
                if panel is None:
                    ax.remove()
            if self.finish:
                self.finish(figure, axes)
            if self.legend is not None:
                labelled = (ax.get_legend_handles_labels() for ax in figure.axes)
                artists = {
                    label: one for each in labelled for one, label in zip(*each, strict=True)
                }
                figure.legend(artists.values(), artists.keys(), **self.legend)
            if self.title:
                text = self.title() if callable(self.title) else self.title
                figure.suptitle(text, fontsize=self.title_size)
            return figure
