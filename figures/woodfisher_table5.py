"""WoodFisher Table 5: is WoodFisher's lead over global magnitude significant? Two-sided Student's
t-test, from the paper's means and deviations of five runs, and from our gradual runs of several
seeds: on the paper's schedule, and on a shorter one."""

import csv
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator

import matplotlib
from matplotlib.figure import Figure
from scipy.stats import ttest_ind_from_stats

from figures import style
from figures.style import look
from figures.woodfisher_cells import NAMES, RESULTS, save
from figures.woodfisher_fig6 import runs, schedule

RUNS = 5  # of the paper
Sample = tuple[float, float, int]  # mean, standard deviation, runs


def p_value(one: Sample, two: Sample) -> float:
    """Of equal means, equal variances assumed."""
    return float(ttest_ind_from_stats(*one, *two).pvalue)


def published() -> Iterator[tuple[str, Sample, Sample, float]]:
    """(what, global magnitude, WoodFisher, the paper's p) for each sparsity."""
    cells: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    with (RESULTS.parent / "paper_values.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["table"] == "Table 5" and row["quantity"] != "significant_alpha_0p05":
                cells[row["sparsity_pct"]][row["method"]][row["quantity"]] = float(row["value"])
    for sparsity, methods in cells.items():
        one, two = (
            (m["top1_pruned_pct"], m["top1_pruned_std"], RUNS)
            for m in (methods["Global Magnitude"], methods["WoodFisher"])
        )
        yield f"paper, MobileNetV1 to {sparsity}%", one, two, methods["Global Magnitude"]["p_value"]


def ours() -> Iterator[tuple[str, Sample, Sample]]:
    """The same from the last accuracies of our gradual runs with two seeds or more of both
    methods.
    """
    found: dict[tuple, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for key, methods in runs().items():
        for method, pairs in methods.items():
            found[key][method] = [100 * tuned.accuracy["last"] for _, tuned in pairs]
    for key, methods in found.items():
        pair = [methods["magnitude-global"], methods["woodfisher"]]
        if min(map(len, pair)) > 1:
            one, two = ((statistics.fmean(v), statistics.stdev(v), len(v)) for v in pair)
            yield (
                f"ours, {NAMES.get(key[1], key[1])}, to {100 * key[3]:g}%, "
                f"schedule {schedule(key)}",
                one,
                two,
            )


def rows() -> list[tuple[str, Sample, Sample, float | None]]:
    """The paper's, then ours."""
    return [*published(), *((*row, None) for row in ours())]


def figure() -> Figure:
    """Means and standard deviations over runs, and p beside them; one row of axes a line of the
    table.
    """
    found = rows()
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(7.2, 1 + 0.75 * len(found)), layout="constrained")
        for ax, (what, one, two, _) in zip(
            result.subplots(len(found), 1, squeeze=False)[:, 0], found, strict=True
        ):
            for y, (mean, deviation, _), method in (
                (0, one, "magnitude-global"),
                (1, two, "woodfisher"),
            ):
                ax.errorbar(
                    mean,
                    y,
                    xerr=deviation,
                    color=look(method).colour,
                    marker=look(method).marker,
                    capsize=3,
                )
            ax.set(yticks=(0, 1), yticklabels=("Global magnitude", "WoodFisher"), ylim=(-0.6, 1.6))
            ax.set_title(f"{what}: p = {p_value(one, two):.2g}", fontsize=8, loc="left")
        ax.set_xlabel("Test accuracy [%], mean ± standard deviation")
        return result


def table() -> str:
    """Markdown; the printed p beside ours where the paper has one."""
    lines = [
        "| regime | global magnitude | WoodFisher | runs | p | p, printed |",
        "|---|---|---|---|---|---|",
    ]
    for what, one, two, printed in rows():
        means = (f"{mean:.2f} ± {deviation:.2f}" for mean, deviation, _ in (one, two))
        told = "" if printed is None else f"{printed:.5f}"
        lines.append(
            f"| {what} | {' | '.join(means)} | {one[2]} and {two[2]} | {p_value(one, two):.5f} | "
            f"{told} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(save("table5", figure, __doc__, table=table))
