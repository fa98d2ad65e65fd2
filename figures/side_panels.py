"""The comparison's further figures: what the curvature costs, and how alike the methods choose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from figures import paired, panels
from figures.panels import Drawing
from figures.records import ALONE, GROUPS, Comparison
from figures.style import RC, look, plain, rank

AGREEMENT = "agreement.csv"


def draw(comparison: Comparison, folders: Sequence[Path]) -> list[Drawing]:
    """All figures of a comparison: those of `panels`, its costs, and agreement by layers and, where
    a folder has it, by weights.
    """
    measured = [
        paired.read_agreement(folder / AGREEMENT, comparison)
        for folder in folders
        if (folder / AGREEMENT).exists()
    ]
    matrices = [
        (f"agreement_layers_{group}", one)
        for group in comparison.groups()
        for one in [paired.profiles(comparison, group)]
    ]
    matrices += [("agreement_weights", one) for one in measured[:1]]
    with matplotlib.rc_context(RC):
        further = [_costs(comparison)]
        further += [
            _agreement(name, one)
            for name, one in matrices
            if np.isfinite(one.values[~np.eye(len(one.methods), dtype=bool)]).any()
        ]
    return panels.draw(comparison) + [drawing for drawing in further if drawing is not None]


def costs(comparison: Comparison) -> dict[str, tuple[float | None, float | None]]:
    """method -> (core-seconds of pruning to all of its amounts, median over the seeds whose every
    amount was timed on an idle machine; most MB). Amounts that share curvature have its seconds in
    one of them, so that only their sum is the same for all methods.
    """
    out: dict[str, tuple[float | None, float | None]] = {}
    for method in sorted(comparison.runs.method.unique(), key=rank):
        runs = comparison.runs[comparison.runs.method == method]
        amounts = sum(row.method == method for row in comparison.rows)
        spent = runs.groupby("seed").core_s.sum(min_count=amounts).median()
        most = runs.peak_rss_mb.max()
        out[method] = (None if pd.isna(spent) else spent, None if pd.isna(most) else most)
    return out


def _costs(comparison: Comparison) -> Drawing | None:
    known = {
        method: pair
        for method, pair in costs(comparison).items()
        if pair[0] is not None or pair[1] is not None
    }
    if not known:
        return None
    names = (
        "Curvature, scores, pruning to all amounts [core-seconds, log scale]",
        "Peak memory of the process [MB]",
    )
    shown = [place for place in (0, 1) if any(pair[place] for pair in known.values())]
    figure = Figure(figsize=(5.75 * len(shown), 1.3 + 0.27 * len(known)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1)
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for ax, place in zip(axes, shown, strict=True):
        for height, (method, pair) in enumerate(known.items()):
            if pair[place] is not None and pair[place] > 0:
                style = look(method)
                ax.plot(
                    [pair[place]],
                    [height],
                    style.marker,
                    color=style.colour,
                    markersize=7,
                    gid=method,
                )
        if place == 0:
            _log(ax)
        else:
            ax.set_xlim(0, 1.06 * max(pair[1] or 0 for pair in known.values()))
        ax.set(xlabel=names[place])
    ax.set_yticks(range(len(known)), [plain(look(method).label) for method in known])
    ax.invert_yaxis()
    timed = {method: pair[0] for method, pair in known.items() if pair[0] is not None}
    least, most = (f(timed, key=timed.get) for f in (min, max)) if timed else (None, None)
    told = (
        ""
        if not timed
        else (
            f" From {timed[least]:.3g} core-seconds ({look(least).label}) to {timed[most]:.3g} "
            f"({look(most).label})."
        )
    )
    seconds = (
        "Processor seconds to prune to all amounts, median over seeds, without fine-tuning, of "
        f"seeds that were timed {ALONE}."
        if timed
        else f"No method was timed at all amounts {ALONE}, so no seconds are shown."
    )
    return Drawing(
        "costs",
        "What pruning costs",
        f"{seconds} Memory is the largest over all runs, and the whole process's: a grid run in "
        "one process carries the peak of what ran before.",
        f"Dot plots of what pruning costs, for {len(known)} methods.{told}",
        figure,
    )


def _log(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _agreement(name: str, one: paired.Agreement) -> Drawing:
    shown = [i for i in range(len(one.methods)) if np.isfinite(np.delete(one.values[i], i)).any()]
    methods, values = [one.methods[i] for i in shown], one.values[np.ix_(shown, shown)].copy()
    np.fill_diagonal(values, 1)
    figure = Figure(
        figsize=(3.6 + 0.62 * len(methods), 1.9 + 0.45 * len(methods)), layout="constrained"
    )
    ax = figure.subplots()
    ax.patch.set(hatch="////", edgecolor="#BBBBBB")
    mesh = ax.pcolormesh(
        np.ma.masked_invalid(values),
        cmap="cividis",
        vmin=-1,
        vmax=1,
        edgecolor="white",
        linewidth=0.8,
    )
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            ax.text(
                column + 0.5,
                row + 0.5,
                f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=7.5,
                color="black" if value > 0.2 else "white",
            )
    labels = [plain(look(method).label, 34) for method in methods]
    ax.set_xticks(
        np.arange(len(methods)) + 0.5, labels, rotation=40, ha="right", rotation_mode="anchor"
    )
    ax.set_yticks(np.arange(len(methods)) + 0.5, labels)
    ax.invert_yaxis()
    ax.grid(False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    figure.colorbar(mesh, ax=ax, label="Spearman's rank correlation", pad=0.015)
    pairs = [
        (values[i, j], methods[i], methods[j])
        for i in range(len(methods))
        for j in range(i)
        if np.isfinite(values[i, j])
    ]
    told = [
        f"{word} {value:.2f} between {look(a).label} and {look(b).label}."
        for word, (value, a, b) in (("Most alike,", max(pairs)), ("least,", min(pairs)))
    ]
    group = name.rsplit("_", 1)[-1]
    title = (
        "When each weight goes"
        if name == "agreement_weights"
        else f"{GROUPS[group]}: which layers are cut"
    )
    return Drawing(
        name,
        f"Agreement. {title}",
        f"Spearman's rank correlation between methods of the {one.what}; hatched where two share "
        "nothing, and methods that cut every layer alike are left out.",
        f"Heat map of {len(methods)} methods. {' '.join(told)}",
        figure,
    )
