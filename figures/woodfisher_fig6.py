"""WoodFisher Fig. 6: the course of gradual pruning, accuracy right after each pruning and after the
training that follows it, and what the whole of it ends at; the paper's course first, then this
repository's shorter schedule."""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.cells.errors import UserError
from common.cells.library import records
from common.cells.record import Record
from common.cells.spec import Spec
from common.cells.trace import Prune, Train, course
from figures.panels import accuracy_axis
from figures.style import RC, look, rank
from figures.values import spread
from figures.woodfisher_cells import NAMES, save

FOLDERS = ("table-1", "table-2", "table-5", "figure-6")
Key = tuple[str, str, float, float]  # folder, model, epochs of training in all, sparsity
Pair = tuple[Record, Record]  # of the prune and the finetune stage


def runs() -> dict[Key, dict[str, list[Pair]]]:
    """The gradual runs -> method -> its seeds' records, methods in the order of legends."""
    halves: dict[tuple, dict[str, Record]] = defaultdict(dict)
    for folder in FOLDERS:
        for record in records("woodfisher", folder):
            if record.scale == "cpu":
                key = (
                    folder,
                    record.spec["model"],
                    whole(record),
                    float(record.requested["sparsity"]),
                )
                halves[key, record.method, record.spec["seed"]][record.stage] = record
    found: dict = defaultdict(lambda: defaultdict(list))
    order = sorted(
        halves.items(),
        key=lambda item: (
            FOLDERS.index(item[0][0][0]),
            *item[0][0][1:],
            rank(item[0][1]),
            item[0][2],
        ),
    )
    for (key, method, _), stages in order:
        if {"prune", "finetune"} <= set(stages):
            found[key][method].append((stages["prune"], stages["finetune"]))
    return found


def whole(record: Record) -> float:
    """Epochs of training after the dense network, in all."""
    return sum(
        event.epochs for event in course(Spec.from_dict(record.spec)) if isinstance(event, Train)
    )


def walk(prune: Record, tuned: Record) -> tuple[list[float], list[float]]:
    """(epochs, accuracy in percent): two points a step, before and after its training, and the end.
    On the paper's course the dense network's accuracy comes first."""
    spec = Spec.from_dict(prune.spec)
    at = [event.epoch for event in course(spec) if isinstance(event, Prune)]
    epochs, accuracy = ([0.0], [100 * prune.accuracy["dense"]]) if at[0] else ([], [])
    for step, entry in enumerate(prune.trajectory):
        epochs.append(at[step])
        accuracy.append(100 * entry["pruned"])
        if "tuned" in entry:
            epochs.append(at[step + 1])
            accuracy.append(100 * entry["tuned"])
    return [*epochs, whole(prune)], [*accuracy, 100 * tuned.accuracy["last"]]


def schedule(key: Key) -> str:
    """Whose schedule a run is on, how long, and what it leaves dense."""
    folder, _, epochs, _ = key
    words = f"{epochs:.2g} epoch{'' if epochs == 1 else 's'}"
    return (
        f"shorter, {words}"
        if folder == "figure-6"
        else f"the paper's in {words}{', classifier dense' * (folder == 'table-2')}"
    )


def table() -> str:
    """Markdown: accuracy right after the last pruning → at the end."""
    text = [
        "| network | schedule | removed | method | after the last pruning → at the end, % "
        "| seeds |",
        "|---" * 6 + "|",
    ]
    for key, methods in runs().items():
        _, model, _, sparsity = key
        for method, pairs in methods.items():
            pruned, ends = (
                [100 * pair[place].accuracy[name] for pair in pairs]
                for place, name in ((0, "pruned"), (1, "last"))
            )
            text.append(
                f"| {NAMES.get(model, model)} | {schedule(key)} | {100 * sparsity:g}% | "
                f"{called(method)} | {spread(pruned)} → "
                f"{spread(ends)} | {len(pairs)} |"
            )
    return "\n".join(text) + "\n"


def called(method: str) -> str:
    """A method on a gradual schedule."""
    return "Magnitude, per layer (GMP)" if method == "magnitude-layer" else look(method).label


def draw(ax: Axes, methods: dict[str, list[Pair]]) -> None:
    """One line a method, its first seed's course; the legend has the mean of where its seeds
    end.
    """
    for method, pairs in methods.items():
        style, ends = look(method), [100 * tuned.accuracy["last"] for _, tuned in pairs]
        over = f" ± {statistics.stdev(ends):.2f} ({len(ends)} seeds)" if len(ends) > 1 else ""
        ax.plot(
            *walk(*pairs[0]),
            style.line,
            color=style.colour,
            marker=style.marker,
            label=f"{called(method)}: {statistics.fmean(ends):.2f}%{over}",
            gid=method,
        )
    dense = next(iter(methods.values()))[0][0].accuracy["dense"]
    ax.axhline(
        100 * dense,
        color="#444444",
        linewidth=1,
        linestyle=(0, (1, 2)),
        label=f"Dense network, {100 * dense:.2f}%",
    )
    ax.set_xlabel("Epochs of training; verticals are prunings")
    accuracy_axis(ax)


def figure() -> Figure:
    """One panel a network, schedule and sparsity."""
    with matplotlib.rc_context(RC):
        found = runs()
        if not found:
            raise UserError(
                "results",
                "table-1",
                "no such record",
                "run python -m woodfisher.finetune --table 1 --scale cpu",
            )
        columns = min(2, len(found))
        rows = -(-len(found) // columns)
        result = Figure(figsize=(6.2 * columns, 5.1 * rows), layout="constrained")
        axes = list(result.subplots(rows, columns, squeeze=False).flat)
        for ax, (key, methods) in zip(axes, found.items(), strict=False):
            draw(ax, methods)
            levels = ", ".join(
                f"{100 * entry['amount']:.3g}"
                for entry in next(iter(methods.values()))[0][0].trajectory
            )
            ax.set_title(
                f"{NAMES.get(key[1], key[1])}; schedule: {schedule(key)}\nremoved: {levels}%"
            )
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, fontsize=8)
        for ax in axes[len(found) :]:
            ax.remove()
        return result


if __name__ == "__main__":
    sys.exit(save("fig6", figure, __doc__, table=table))
