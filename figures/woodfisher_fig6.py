"""WoodFisher Fig. 6: the course of gradual pruning, accuracy right after each pruning and after the training that follows it,
and what the whole of it ends at."""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.errors import UserError
from common.record import Record, read_all
from figures.panels import accuracy_axis
from figures.style import RC, look, rank
from figures.values import spread
from figures.woodfisher_cells import NAMES, RESULTS, save


def runs() -> dict[tuple[str, float], dict[str, list[tuple[Record, Record]]]]:
    """(model, sparsity) -> method -> its seeds' (prune, finetune) records, methods in the order of legends."""
    halves: dict[tuple, dict[str, Record]] = defaultdict(dict)
    for record in read_all(RESULTS / "figure-6"):
        halves[record.spec["model"], float(record.requested["sparsity"]), record.method, record.spec["seed"]][record.stage] = record
    found: dict = defaultdict(lambda: defaultdict(list))
    for (model, sparsity, method, _), stages in sorted(halves.items(), key=lambda item: (*item[0][:2], rank(item[0][2]), item[0][3])):
        if {"prune", "finetune"} <= set(stages):
            found[model, sparsity][method].append((stages["prune"], stages["finetune"]))
    return found


def course(prune: Record, tuned: Record) -> tuple[list[float], list[float]]:
    """(epochs, accuracy in percent): two points a step, before and after its training, and the end."""
    epochs, accuracy, now = [], [], 0.0
    for entry in prune.trajectory:
        epochs.append(now)
        accuracy.append(100 * entry["pruned"])
        if "tuned" in entry:
            now += prune.spec["step_epochs"]
            epochs.append(now)
            accuracy.append(100 * entry["tuned"])
    return [*epochs, now + tuned.spec["finetune"]["epochs"]], [*accuracy, 100 * tuned.accuracy["last"]]


def table() -> str:
    """Markdown: accuracy right after the last pruning → at the end."""
    text = ["| network | removed | method | after the last pruning → at the end, % | seeds |", "|---|---|---|---|---|"]
    for (model, sparsity), methods in runs().items():
        for method, pairs in methods.items():
            pruned, ends = ([100 * pair[place].accuracy[key] for pair in pairs] for place, key in ((0, "pruned"), (1, "last")))
            text.append(f"| {NAMES.get(model, model)} | {100 * sparsity:g}% | {called(method)} | {spread(pruned)} → {spread(ends)} | "
                        f"{len(pairs)} |")
    return "\n".join(text) + "\n"


def called(method: str) -> str:
    """A method on a gradual schedule."""
    return "Magnitude, per layer (GMP)" if method == "magnitude-layer" else look(method).label


def draw(ax: Axes, methods: dict[str, list[tuple[Record, Record]]]) -> None:
    """One line a method, its first seed's course; the legend has the mean of where its seeds end."""
    for method, pairs in methods.items():
        style, ends = look(method), [100 * tuned.accuracy["last"] for _, tuned in pairs]
        over = f" ± {statistics.stdev(ends):.2f} ({len(ends)} seeds)" if len(ends) > 1 else ""
        ax.plot(*course(*pairs[0]), style.line, color=style.colour, marker=style.marker,
                label=f"{called(method)}: {statistics.fmean(ends):.2f}%{over}", gid=method)
    dense = next(iter(methods.values()))[0][0].accuracy["dense"]
    ax.axhline(100 * dense, color="#444444", linewidth=1, linestyle=(0, (1, 2)), label=f"Dense network, {100 * dense:.2f}%")
    ax.set_xlabel("Epochs of training; verticals are prunings")
    accuracy_axis(ax)


def figure() -> Figure:
    """One panel a network and sparsity."""
    with matplotlib.rc_context(RC):
        found = runs()
        if not found:
            raise UserError("results", "figure-6", "no such record", "run python -m woodfisher.finetune --figure 6")
        columns = min(2, len(found))
        rows = -(-len(found) // columns)
        result = Figure(figsize=(6.2 * columns, 5.1 * rows), layout="constrained")
        axes = list(result.subplots(rows, columns, squeeze=False).flat)
        for ax, ((model, _), methods) in zip(axes, found.items(), strict=False):
            draw(ax, methods)
            levels = ", ".join(f"{100 * entry['amount']:.3g}" for entry in next(iter(methods.values()))[0][0].trajectory)
            ax.set_title(f"{NAMES.get(model, model)}, removed: {levels}%")
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, fontsize=8)
        for ax in axes[len(found):]:
            ax.remove()
        return result


if __name__ == "__main__":
    sys.exit(save("fig6", figure, __doc__, table=table))
