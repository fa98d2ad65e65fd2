"""WoodFisher Table 5: is WoodFisher's lead over global magnitude significant? Two-sided Student's t-test, from the paper's means
and deviations of five runs, and from our gradual runs (results/figure-6) where they exist."""

import csv
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator

from scipy.stats import ttest_ind_from_stats

from common.errors import Parser
from common.record import read_all
from figures.woodfisher_cells import RESULTS

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
        one, two = ((m["top1_pruned_pct"], m["top1_pruned_std"], RUNS) for m in (methods["Global Magnitude"], methods["WoodFisher"]))
        yield f"paper, MobileNetV1 to {sparsity}%", one, two, methods["Global Magnitude"]["p_value"]


def ours() -> Iterator[tuple[str, Sample, Sample]]:
    """The same from the last accuracies of our gradual runs with two seeds or more of both methods."""
    found: dict[tuple, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in read_all(RESULTS / "figure-6"):
        if record.stage == "finetune":
            found[record.spec["model"], record.requested["sparsity"]][record.method].append(100 * record.accuracy["last"])
    for (model, sparsity), methods in sorted(found.items()):
        pair = [methods["magnitude-global"], methods["woodfisher"]]
        if min(map(len, pair)) > 1:
            one, two = ((statistics.fmean(v), statistics.stdev(v), len(v)) for v in pair)
            yield f"ours, {model} to {100 * sparsity:g}%", one, two


def main(argv: list[str] | None = None) -> int:
    """Print them; returns the exit status."""
    Parser(description=__doc__).parse_args(argv)
    for what, one, two, printed in published():
        print(f"{what}: {one[0]:.2f} ± {one[1]:.2f} and {two[0]:.2f} ± {two[1]:.2f}, p = {p_value(one, two):.5f} (printed {printed:.5f})")
    for what, one, two in ours():
        print(f"{what}: {one[0]:.2f} ± {one[1]:.2f} and {two[0]:.2f} ± {two[1]:.2f}, p = {p_value(one, two):.5f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
