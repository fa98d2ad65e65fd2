"""WoodFisher's figures and tables, from its committed records and its printed values.

A cell is called <series>-<amount>-seed<k>. Lines join means over seeds, bands span the seeds.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from common.cells.errors import UserError
from common.cells.record import Record
from common.cells.spec import Spec
from common.cells.trace import Prune, Train, course
from figures import frame
from figures.frame import markdown
from figures.kinds import (
    BELOW,
    BESIDE,
    COLOURS,
    Bars,
    Curve,
    Errors,
    Image,
    Level,
    Panel,
    Scatter,
    Sheet,
    Trajectory,
    colour_bar,
)
from figures.stats import p_value, paired_p, spearman
from figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, VERMILION, WINE, Look, look, rank
from figures.values import spread

NAMES = {
    "digits_cnn": "Small CNN, digits",
    "lenet300": "LeNet-300-100, MNIST",
    "lenet5": "LeNet-5, MNIST",
    "resnet20": "ResNet-20, CIFAR-10 as JPEG",
    "resnet50": "ResNet-50",
    "mobilenet_v1": "MobileNetV1",
}
ACCURACY, REMOVED = "Test accuracy [%]", "Weights removed [% of the prunable]"
LEGEND = {"handlelength": 2.6, **BESIDE}
Looks = Mapping[str, Look]


def cells(table: str, found: pd.DataFrame | None = None) -> pd.DataFrame:
    """The prune records of one table or figure; one dense network or UserError."""
    found = frame.records("woodfisher") if found is None else found
    found = found[(found.table == table) & (found.stage == "prune")]
    remedy = f"python -m woodfisher.prune --{table.replace('-', ' ')}"
    found = frame.some(found, f"{table} holds no prune record", remedy)
    if len({record.dense_hash for record in found.record}) > 1:
        raise UserError(
            "results",
            table,
            "its records start from different dense networks",
            "run the cells again from one",
        )
    return found.assign(x=100 * found.sparsity, y=found.pruned)


def study(name: str) -> list[Record]:
    """The committed records of a study, one a network and seed; UserError says how to make them."""
    found = frame.records("woodfisher")
    found = found[(found.stage == "study") & (found.table == name)]
    return list(frame.some(found, name, f"python -m woodfisher.studies {name}").record)


def dense(found: pd.DataFrame) -> Level:
    """The dense network's level, with its accuracy."""
    return Level(found.dense.iloc[0], f"Dense network, {found.dense.iloc[0]:.2f}%")


# -- accuracy against sparsity ---------------------------------------------------------------------


def one_shot(table: str, title: str, looks: Looks, **panel: object) -> Panel:
    """Test accuracy right after pruning against what is removed."""
    found = cells(table)
    return Panel(title, REMOVED, ACCURACY, Curve(found, looks), dense(found), **panel)


def one_shot_table(table: str, looks: Looks) -> str:
    """What `one_shot` draws; the number of seeds is the deviation's."""
    found = cells(table)
    amounts = sorted(set(found.sparsity))
    told = found.groupby(["series", "sparsity"]).pruned.agg(lambda seeds: spread(list(seeds)))
    lines = [
        [style.label, *(told.get((name, amount), "") for amount in amounts)]
        for name, style in looks.items()
        if name in set(found.series)
    ]
    return markdown(["removed", *(f"{100 * amount:g}%" for amount in amounts)], lines)


def one_shot_sheet(shows: str, table: str, title: str, looks: Looks, **panel: object) -> Sheet:
    """A sheet of that one panel, the legend beside it."""
    return Sheet(
        shows,
        lambda: [one_shot(table, title, looks, legend=LEGEND, **panel)],
        (8.2, 4.2),
        table=functools.partial(one_shot_table, table, looks),
    )


FIG3A = {
    "woodfisher": Look(BLUE, "o", "WoodFisher, joint"),
    "woodfisher-joint-update": Look(BLUE, "D", "WoodFisher, joint update (ours)", "-."),
    "woodfisher-no-update": Look(BLUE, "x", "WoodFisher's choice, no update (ours)", ":"),
    "woodfisher-layer": Look(BLUE, "s", "WoodFisher, independent", "--"),
    "magnitude-global": Look(BLACK, "o", "Global magnitude"),
    "magnitude-layer": Look(BLACK, "s", "Magnitude", "--"),
    "diagonal-fisher-16000": Look(ORANGE, "s", "Diagonal Fisher, 16,000 images", "--"),
    "diagonal-fisher": Look(ORANGE, "x", "Diagonal Fisher, 2,000 images", ":"),
}
FIG5A = {
    "woodfisher-layer": FIG3A["woodfisher-layer"],
    "woodfisher": FIG3A["woodfisher"],
    "l-obs": Look(GREEN, "^", "L-OBS"),
    "l-obs-joint": Look(GREEN, "D", "L-OBS, joint optimum (ours)", "-."),
    "magnitude-layer": FIG3A["magnitude-layer"],
    "magnitude-global": FIG3A["magnitude-global"],
}
FIG5B = {
    "woodfisher": Look(BLUE, "o", "WoodFisher"),
    "woodfisher-joint-update": FIG3A["woodfisher-joint-update"],
    "kfac-pi": Look(PINK, "P", "K-FAC, with π"),
    "kfac": Look(PINK, "v", "K-FAC, without π", "--"),
    "magnitude-global": FIG3A["magnitude-global"],
}
FIG7 = {
    "woodtaylor-single": Look(GREEN, "^", "WoodTaylor, 2,000 rows of 1"),
    "woodtaylor": Look(GREEN, "v", "WoodTaylor, 1,000 rows of 8", "--"),
    "woodtaylor-network": Look(GREEN, "D", "WoodTaylor, 1,000 rows of 8, one block", ":"),
    "woodfisher": Look(BLUE, "o", "WoodFisher, 1,000 rows of 8"),
    "magnitude-global": FIG3A["magnitude-global"],
    "magnitude-layer": FIG3A["magnitude-layer"],
    "diagonal-fisher-global": Look(ORANGE, "o", "Diagonal Fisher, global"),
    "diagonal-fisher-layer": Look(ORANGE, "s", "Diagonal Fisher, per layer", "--"),
}


def fig5a_panels() -> list[Panel]:
    """The paper's panel, top-5 accuracy of ResNet-50 on ImageNet, and ours."""
    methods = {"WoodFisher independent": "woodfisher-layer", "WoodFisher joint": "woodfisher"}
    printed = frame.printed("woodfisher", "Figure 5a")
    printed = printed[(printed.quantity == "top5_pct") & printed.method.isin(methods)]
    points = pd.DataFrame(
        {
            "x": printed.sparsity_pct.astype(float),
            "y": printed.number,
            "series": printed.method.map(methods),
        }
    ).sort_values("x")
    title = "Paper: ResNet-50, ImageNet; m = b = 400, c = 2,000"
    ours = "Ours: ResNet-20, CIFAR-10 as JPEG; m = 1,000, b = 1"
    paper = Trajectory(points, FIG5A)
    return [
        Panel(title, "Weights removed [%]", "Top-5 test accuracy [%]", paper),
        one_shot("figure-5a", ours, FIG5A),
    ]


# -- one setting varied ----------------------------------------------------------------------------


def by_setting(table: str) -> pd.DataFrame:
    """Mean test accuracy right after pruning, amounts down, series across in the records' order."""
    found = cells(table)
    means = found.pivot_table("pruned", "sparsity", "series")
    return means[list(dict.fromkeys(found.series))]


SIZES = {"layer": "a block\na layer", "network": "one block\n(ours)"}
CHUNKS = {"figure-3b": "joint", "figure-S8": "independent"}
RIVALS = {
    "magnitude-global": ("global magnitude", "--"),
    "magnitude-layer": ("magnitude per layer", ":"),
}


def chunks() -> dict[str, pd.DataFrame]:
    """Table -> accuracy by chunk size, small to large, and of the rivals; those that have run."""
    found = {}
    for table in CHUNKS:
        try:
            means = by_setting(table)
        except UserError:
            continue
        sizes = [name for name in means if name.startswith("chunk-")]
        sizes.sort(key=lambda name: int(n) if (n := name[6:]).isdigit() else math.inf)
        found[table] = means[[*sizes, *(r for r in RIVALS if r in means)]]
    if not found:
        cells("figure-3b")  # says what is missing
    return found


def called(name: str) -> str:
    """A chunk size as a heading."""
    return SIZES.get(name.removeprefix("chunk-"), name.removeprefix("chunk-"))


def fig3b() -> str:
    """Both panels."""
    found = chunks()
    sizes = list(dict.fromkeys(n for m in found.values() for n in m if n not in RIVALS))
    lines = [
        [CHUNKS[table], f"{100 * amount:g}%"]
        + [f"{row[n]:.2f}" if pd.notna(row.get(n)) else "" for n in (*sizes, *RIVALS)]
        for table, means in found.items()
        for amount, row in means.iterrows()
    ]
    heads = [called(size).replace("\n", " ") for size in sizes]
    return markdown(["selection", "removed", *heads, *(name for name, _ in RIVALS.values())], lines)


def fig3b_panels() -> list[Panel]:
    """Joint and independent WoodFisher, accuracy against chunk size in equal steps, a line an
    amount.
    """
    panels = []
    for table, means in chunks().items():
        sizes = [name for name in means if name not in RIVALS]
        layers = []
        for (amount, row), colour, marker in zip(
            means.iterrows(), (BLUE, VERMILION, GREEN), "os^", strict=False
        ):
            name = f"{amount:g}"
            style = Look(colour, marker, f"{100 * amount:g}% removed")
            line = pd.DataFrame({"x": range(len(sizes)), "y": row[sizes].array, "series": name})
            layers.append(Trajectory(line, {name: style}))
            layers += [
                Level(row[rival], f"{words.capitalize()}, {style.label[:-8]}", colour, dashes)
                for rival, (words, dashes) in RIVALS.items()
                if pd.notna(row.get(rival))
            ]
        title = f"ResNet-20, one-shot: {CHUNKS[table]}; m = 1,000, b = 1"
        ticks = {"xticks": range(len(sizes)), "xticklabels": list(map(called, sizes))}
        panels.append(Panel(title, "Chunk size [weights]", ACCURACY, *layers, legend={}, **ticks))
    return panels


Line = tuple[Look, Mapping[float, float]]  # accuracy by dampening, and how it is drawn


def against_damping(
    table: str, title: str, lines: Callable[[Mapping[str, float]], Iterable[Line]]
) -> list[Panel]:
    """One panel an amount, accuracy against dampening; lines: from accuracies by setting."""
    found, means = cells(table), by_setting(table)
    panels = []
    for amount, row in means.iterrows():
        layers = []
        for style, points in lines(row.dropna()):
            line = pd.DataFrame({"x": points.keys(), "y": points.values(), "series": style.label})
            layers.append(Trajectory(line.sort_values("x"), {style.label: style}))
        framed = {"frameon": True, "framealpha": 0.85, "edgecolor": "none"}
        panels.append(
            Panel(
                f"{title}, {100 * amount:g}% removed",
                "Dampening λ",
                ACCURACY,
                *layers,
                dense(found),
                log="x",
                legend=framed if amount == means.index[-1] else None,
            )
        )
    return panels


def matching(pattern: str, values: Mapping[str, float]) -> dict[str, dict[float, float]]:
    """line -> dampening -> accuracy, of the settings that match a pattern with these two groups."""
    found: dict[str, dict[float, float]] = {}
    for name, accuracy in values.items():
        if match := re.fullmatch(pattern, name):
            found.setdefault(match["line"], {})[float(match["damping"])] = accuracy
    return found


def s12_lines(values: Mapping[str, float]) -> Iterator[Line]:
    """A line a method and number of rows."""
    looks = {
        "woodtaylor": Look(GREEN, "^", "WoodTaylor, m = 1,000"),
        "woodfisher": Look(BLUE, "o", "WoodFisher, m = 1,000"),
        "all-images-woodtaylor": Look(WINE, "D", "WoodTaylor, m = 50,000"),
        "all-images-woodfisher": Look(ORANGE, "s", "WoodFisher, m = 50,000"),
    }
    found = matching(f"(?P<line>{'|'.join(looks)})-(?P<damping>.+)", values)
    return ((looks[name], found[name]) for name in looks if name in found)


def s14_lines(values: Mapping[str, float]) -> Iterator[Line]:
    """A line a number of samples."""
    found = matching(r"damping-(?P<damping>.+)-samples-(?P<line>\d+)", values)
    styles = ((ORANGE, "^"), (GREEN, "s"), (BLUE, "o"))
    for samples, style in zip(sorted(found, key=int), styles, strict=False):
        yield Look(*style, f"{int(samples):,} gradients"), found[samples]


def damping_lines(values: Mapping[str, float]) -> Iterator[Line]:
    """A line a method, and global magnitude's level."""
    found = matching(r"(?P<line>.+)-damping-(?P<damping>.+)", values)
    for method in ("woodfisher", "kfac-prune"):
        yield Look(look(method).colour, look(method).marker, look(method).label), found[method]
    rival = look("magnitude-global")
    every = dict.fromkeys((d for at in found.values() for d in at), values["magnitude-global"])
    yield Look(rival.colour, "", rival.label), every


def damping() -> str:
    """Dampening across, methods down, for each amount; global magnitude knows none."""
    means = by_setting("table-damping")
    drawn = [
        (amount, style.label, points)
        for amount, row in means.iterrows()
        for style, points in damping_lines(row.dropna())
    ]
    every = sorted({d for _, _, points in drawn for d in points})
    lines = [
        [f"{100 * amount:g}%", label, *(f"{at[d]:.2f}" if d in at else "" for d in every)]
        for amount, label, at in drawn
    ]
    return markdown(["removed", "method", *(f"λ = {d:g}" for d in every)], lines)


# -- Fig. 4 and Tables 6, 8 and S2 -----------------------------------------------------------------


def bars(table: str, title: str, names: Mapping[str, str]) -> Panel:
    """Accuracy of each setting, a group of bars a setting, a bar an amount."""
    means = by_setting(table)
    shown = [name for name in names if name in means]
    values = means[shown].T.rename(columns=lambda amount: f"{100 * amount:g}% removed")
    layer = Bars(values, [names[n] for n in shown], label={"fmt": "%.1f", "fontsize": 7})
    above = {"ncols": 3, "loc": "upper center", "fontsize": 7.5}
    return Panel(title, "", ACCURACY, layer, ylim=(0, 100), legend=above)


def recomputation() -> Panel:
    """Fig. 4."""
    names = {f"recompute-{r}": f"{r} recom-\nputation{'s' * (r != 1)}" for r in (0, 1, 4)}
    rivals = {"magnitude-global": "global\nmagnitude", "magnitude-layer": "magnitude"}
    title = "Fig. 4: the Fisher estimated again on the way, m = 100, b = 10"
    return bars("figure-4", title, names | rivals)


def flops() -> Panel:
    """Table 6: accuracy against the multiply-accumulates that are left."""
    found = cells("table-6").drop_duplicates(["series", "sparsity"])
    found = found.assign(x=[r.achieved["kept_macs"] / 1e6 for r in found.record])
    betas = found[found.series.str.startswith("beta")]
    layers, looks = [], {}
    below, left = (-4, -13), (-34, 1)  # of the point, so that no label lies on another
    for (amount, line), colour, marker, place in zip(
        betas.groupby("sparsity"), COLOURS, "os^", (below, left, left), strict=False
    ):
        line = line.sort_values("x", ascending=False)
        line = line.assign(text="β " + line.series.str.removeprefix("beta-"), series=f"{amount:g}")
        looks[f"{amount:g}"] = Look(colour, marker, f"{100 * amount:g}% of the weights removed")
        layers.append(Trajectory(line, looks))
        for where, part in (((-4, 6), line[1::2]), (place, line[::2])):
            bare = {f"{amount:g}": Look(colour, "", "")}
            layers.append(Scatter(part, bare, {"xytext": where, "fontsize": 8}))
    for one in found[found.series == "target-macs"].itertuples():
        style = Look(GREEN, "D", f"β 0.3, {100 * one.sparsity:g}% of the MACs removed")
        point = pd.DataFrame({"x": [one.x], "y": [one.y], "series": ["target"]})
        layers.append(Scatter(point, {"target": style}))
    title = "Table 6: FLOPs-aware statistic, m = 1,000, b = 1"
    small = {"loc": "lower right", "fontsize": 7.5}
    return Panel(title, "MACs left [million]", ACCURACY, *layers, legend=small)


def labels() -> Panel:
    """Table 8: sampled labels beside the true ones of Fig. 3a."""
    true, drawn = cells("figure-3a"), cells("table-8")
    both = pd.concat([true[true.series == "woodfisher"], drawn[drawn.series == "sampled"]])
    both = both[both.sparsity.isin((0.5, 0.7, 0.8))]
    shift = np.where(both.series == "sampled", 0.12, -0.12)
    pale = {"alpha": 0.7}
    looks = {
        "woodfisher": Look(BLUE, "o", "True labels (empirical)", more=pale),
        "sampled": Look(VERMILION, "s", "Labels drawn from the model", more=pale),
    }
    points = both.assign(x=both.sparsity.map({0.5: 0, 0.7: 1, 0.8: 2}) + shift)
    title, x = "Table 8: labels of the Fisher, m = 1,000, b = 1", "Weights removed; a point a seed"
    ticks = {"xticks": range(3), "xticklabels": ["50%", "70%", "80%"]}
    return Panel(title, x, ACCURACY, Scatter(points, looks), legend={"loc": "lower left"}, **ticks)


def rows() -> Panel:
    """Table S2, by b and then m."""
    names = {n: re.fullmatch(r"m(\d+)-b(\d+)", n).groups() for n in by_setting("table-S2")}
    names = sorted(names.items(), key=lambda item: (int(item[1][1]), int(item[1][0])))
    title = "Table S2: rows m of b examples each"
    return bars("table-S2", title, {name: f"m {m}\nb {b}" for name, (m, b) in names})


# -- gradual pruning: Fig. 6 and Tables 1, 2, 5 and S6 ---------------------------------------------

GRADUAL = ("table-1", "table-2", "table-5", "figure-6")
KEY = ["table", "model", "epochs", "sparsity"]  # of a group of runs; epochs of training in all


@functools.cache
def gradual() -> pd.DataFrame:
    """The gradual runs that were finished, a line a seed: KEY, method, the prune and the finetune
    record, and the mean accuracies; methods in the order of legends.
    """
    found = frame.records("woodfisher")
    found = found[found.table.isin(GRADUAL) & (found.scale == "cpu")]
    remedy = "python -m woodfisher.finetune --table 1 --scale cpu"
    found = frame.some(found, "table-1", remedy).assign(epochs=lambda f: f.record.map(whole))
    halves = found.pivot_table(
        index=[*KEY, "method", "seed"], columns="stage", values="record", aggfunc="last"
    )
    runs = halves.dropna(subset=["prune", "finetune"]).reset_index()
    order = {"table": GRADUAL.index, "method": rank}
    runs = runs.sort_values(
        [*KEY, "method", "seed"], key=lambda c: c.map(order.get(c.name, lambda value: value))
    )
    return runs.assign(
        pruned=[100 * record.accuracy["pruned"] for record in runs.prune],
        last=[100 * record.accuracy["last"] for record in runs.finetune],
    )


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


def schedule(table: str, epochs: float) -> str:
    """Whose schedule a run is on, how long, and what it leaves dense."""
    words = f"{epochs:.2g} epoch{'' if epochs == 1 else 's'}"
    return (
        f"shorter, {words}"
        if table == "figure-6"
        else f"the paper's in {words}{', classifier dense' * (table == 'table-2')}"
    )


def method_name(method: str) -> str:
    """A method on a gradual schedule."""
    return "Magnitude, per layer (GMP)" if method == "magnitude-layer" else look(method).label


def fig6() -> str:
    """Accuracy right after the last pruning → at the end."""
    lines = []
    for (table, model, epochs, sparsity, method), seeds in gradual().groupby(
        [*KEY, "method"], sort=False
    ):
        ends = f"{spread(list(seeds.pruned))} → {spread(list(seeds['last']))}"
        asked = [NAMES.get(model, model), schedule(table, epochs), f"{100 * sparsity:g}%"]
        lines.append([*asked, method_name(method), ends, len(seeds)])
    heads = ["network", "schedule", "removed", "method", "after the last pruning → at the end, %"]
    return markdown([*heads, "seeds"], lines)


def fig6_panels() -> list[Panel]:
    """On the paper's schedule the course of each group of runs; on the shorter one where they end,
    a panel a network.
    """
    runs = gradual()
    short = runs.table == "figure-6"
    courses = [fig6_course(*key[:3], group) for key, group in runs[~short].groupby(KEY, sort=False)]
    ends = [fig6_ends(model, group) for model, group in runs[short].groupby("model", sort=False)]
    return courses + ends


def fig6_course(table: str, model: str, epochs: float, runs: pd.DataFrame) -> Panel:
    """A line a method, its first seed's course; the legend has the mean of where its seeds end."""
    paths, looks = [], {}
    for method, seeds in runs.groupby("method", sort=False):
        own, many = look(method), len(seeds)
        over = f" ± {seeds['last'].std():.2f} ({many} seeds)" if many > 1 else ""
        label = f"{method_name(method)}: {seeds['last'].mean():.2f}%{over}"
        looks[method] = Look(own.colour, own.marker, label, own.line, {"markersize": 4})
        x, y = walk(seeds.prune.iloc[0], seeds.finetune.iloc[0])
        paths.append(pd.DataFrame({"x": x, "y": y, "series": method}))
    first = runs.prune.iloc[0]
    levels = ", ".join(f"{100 * entry['amount']:.3g}" for entry in first.trajectory)
    level = 100 * first.accuracy["dense"]
    return Panel(
        f"{NAMES.get(model, model)}\nschedule: {schedule(table, epochs)}",
        f"Epochs of training; verticals are prunings\nto {levels}%",
        "",
        Trajectory(pd.concat(paths), looks),
        Level(level, f"Dense network, {level:.2f}%"),
        error_scale=True,
        legend={"loc": "upper right", "bbox_to_anchor": (1, 0.91), "fontsize": 8},
    )


def fig6_ends(model: str, runs: pd.DataFrame) -> Panel:
    """Accuracy at the end against what is removed."""
    looks = {
        method: replace(look(method), label=method_name(method))
        for method in dict.fromkeys(runs.method)
    }
    found = runs.assign(x=100 * runs.sparsity, y=runs["last"], series=runs.method)
    level = 100 * runs.prune.iloc[0].accuracy["dense"]
    words = schedule("figure-6", runs.epochs.iloc[0])
    return Panel(
        f"{NAMES.get(model, model)}\nschedule: {words}; where it ends",
        REMOVED,
        "",
        Curve(found, looks, "bars"),
        Level(level, f"Dense network, {level:.2f}%"),
        error_scale=True,
        legend={"fontsize": 8},
    )


PAIR = ["magnitude-global", "woodfisher"]
PAPER_RUNS = 5


def significance() -> pd.DataFrame:
    """Global magnitude against WoodFisher, the paper's and ours: what, (mean, deviation, runs) of
    both, the paper's p, and p of equal means: unpaired of the paper's means and deviations, paired
    over seeds of our runs.
    """
    printed = frame.printed("woodfisher", "Table 5")
    lines = []
    for sparsity, numbers in printed.groupby("sparsity_pct", sort=False):
        wide = numbers.pivot(index="method", columns="quantity", values="number")
        one, two = (
            (wide.top1_pruned_pct[m], wide.top1_pruned_std[m], PAPER_RUNS)
            for m in ("Global Magnitude", "WoodFisher")
        )
        what = f"paper, MobileNetV1 to {sparsity}%"
        lines.append((what, one, two, wide.p_value["Global Magnitude"], p_value(one, two)))
    for (table, model, epochs, sparsity), runs in gradual().groupby(KEY, sort=False):
        ends = runs.groupby("method")["last"].agg(["mean", "std", "count"])
        if set(PAIR) <= set(ends.index) and ends.loc[PAIR, "count"].min() > 1:
            what = f"ours, {NAMES.get(model, model)}, to {100 * sparsity:g}%"
            one, two = (tuple(ends.loc[method]) for method in PAIR)
            p = paired_p(*(runs[runs.method == m].set_index("seed")["last"] for m in PAIR))
            lines.append((f"{what}, schedule {schedule(table, epochs)}", one, two, np.nan, p))
    return pd.DataFrame(lines, columns=["what", *PAIR, "printed", "p"])


def table5() -> str:
    """The printed p beside ours where the paper has one."""
    lines = [
        [one.what, *(f"{mean:.2f} ± {std:.2f}" for mean, std, _ in one[PAIR])]
        + [" and ".join(f"{n:.0f}" for *_, n in one[PAIR]), f"{one.p:.5f}"]
        + ["" if pd.isna(one.printed) else f"{one.printed:.5f}"]
        for _, one in significance().iterrows()
    ]
    heads = [
        "regime",
        "global magnitude",
        "WoodFisher",
        "runs",
        "p (ours paired over seeds)",
        "p, printed",
    ]
    return markdown(heads, lines)


def table5_panels() -> list[Panel]:
    """Means and standard deviations over runs, and p above them; a row of axes a line."""
    found = significance()
    panels = []
    for place, one in found.iterrows():
        data = pd.DataFrame(
            [{"series": method, "mean": one[method][0], "std": one[method][1]} for method in PAIR]
        )
        last = place == len(found) - 1
        panels.append(
            Panel(
                "",
                "Test accuracy [%], mean ± standard deviation" if last else "",
                "",
                Errors(data),
                finish=lambda ax, title=f"{one.what}: p = {one.p:.2g}": ax.set_title(
                    title, fontsize=8, loc="left"
                ),
                yticks=(0, 1),
                yticklabels=("Global magnitude", "WoodFisher"),
                ylim=(-0.6, 1.6),
            )
        )
    return panels


METHODS = {"WoodFisher": "woodfisher", "Global Magnitude": "magnitude-global"}


def profiles() -> pd.DataFrame:
    """What is removed of each layer, in percent: network, amount (percent asked for), method, layer
    (in the network's order), gone. The paper's ResNet-50, then our ResNet-20, means over the seeds,
    where both methods have run.
    """
    printed = frame.printed("woodfisher", "Table S6")
    printed = printed[(printed.quantity == "sparsity_pct") & printed.number.notna()]
    printed = printed[~printed.layer.str.contains("Overall")]
    theirs = pd.DataFrame(
        {
            "network": "Paper: ResNet-50",
            "amount": printed.sparsity_pct.astype(float),
            "method": printed.method.map(METHODS),
            "layer": printed.layer,
            "gone": printed.number,
        }
    )
    runs = gradual()
    runs = runs[(runs.model == "resnet20") & (runs.table != "table-2")]
    runs = runs[runs.method.isin(METHODS.values())]
    runs = runs.groupby(KEY, sort=False).filter(lambda group: group.method.nunique() == 2)
    remedy = "python -m woodfisher.finetune --table 1 --scale cpu"
    layers = [
        {
            "network": f"Ours: ResNet-20, {schedule(run.table, run.epochs)}",
            "amount": 100 * run.sparsity,
            "method": run.method,
            "layer": layer["name"],
            "gone": 100 * (1 - layer["kept"] / layer["total"]),
        }
        for run in frame.some(runs, "table-1", remedy).itertuples()
        for layer in run.prune.layers
    ]
    keys = ["network", "amount", "method", "layer"]
    ours = pd.DataFrame(layers).groupby(keys, sort=False).gone.mean().reset_index()
    return pd.concat([theirs, ours.sort_values("amount", kind="stable")])


def table_s6() -> str:
    """The ends of the network, the extremes, and how alike the two methods order the layers."""
    lines = []
    found = profiles()
    for network in dict.fromkeys(found.network):
        for amount, pair in found[found.network == network].groupby("amount", sort=False):
            each = {m: list(pair[pair.method == m].gone) for m in METHODS.values()}
            alike = f"{spearman(*each.values()):.2f}"
            for method, gone in each.items():
                told = (f"{value:.1f}" for value in (gone[0], gone[-1], min(gone), max(gone)))
                lines.append([network, f"{amount:g}%", look(method).label, *told, alike])
    heads = [
        "network",
        "removed",
        "method",
        "first layer, %",
        "last layer, %",
        "least, %",
        "most, %",
    ]
    return markdown([*heads, "Spearman of the two"], lines)


def table_s6_panels() -> list[Panel | None]:
    """A row a network, a panel an amount; nothing where a network has fewer amounts."""
    found, looks = profiles(), {}
    for method, marker, line, size in (  # nearly alike
        ("magnitude-global", "s", "-", 5),
        ("woodfisher", "o", ":", 2.5),
    ):
        own = look(method)
        hollow = "none" if marker == "s" else own.colour
        more = {"markersize": size, "markerfacecolor": hollow}
        looks[method] = Look(own.colour, marker, own.label, line, more)
    many = found.groupby("network").amount.nunique().max()
    panels = []
    for network in dict.fromkeys(found.network):
        row = []
        for amount, pair in found[found.network == network].groupby("amount", sort=False):
            place = pair.groupby("method").cumcount() + 1
            points = pd.DataFrame({"x": place, "y": pair.gone, "series": pair.method})
            title = network.replace(", ", ",\n", 1)
            row.append(
                Panel(
                    f"{title}, {amount:g}%",
                    "Layer, from the input",
                    "" if row else "Weights removed [%]",
                    Trajectory(points, looks),
                    Level(amount, "Of all weights"),
                )
            )
        panels += [*row, *[None] * (many - len(row))]
    return panels


# -- studies ---------------------------------------------------------------------------------------


def quadratic_panels() -> list[Panel]:
    """One panel a layer."""
    looks = {
        "measured": Look(BLUE, "o", "Training loss"),
        "predicted": Look(ORANGE, "s", "Local quadratic model"),
    }
    remedy = "python -m woodfisher.local_quadratic"
    lines = frame.measured("woodfisher", "local_quadratic.json", remedy)["lines"]
    panels = []
    for layer, points in lines.items():
        shown = (
            pd.DataFrame(points).melt("t", list(looks), "series", "y").rename(columns={"t": "x"})
        )
        x, y = "t along the pruning direction (1 is pruned)", "Training loss [nats]"
        legend = {} if layer == list(lines)[-1] else None
        panels.append(Panel(f"{layer} to 50%", x, y, Trajectory(shown, looks), legend=legend))
    return panels


def matrices(
    study: str, columns: Mapping[str, tuple[str, str]], weight: str, more: Mapping, **axes: object
) -> list[Panel]:
    """Hessian above Fisher, a column a title of each; every picture as a share of its largest."""
    remedy = f"python -m woodfisher.hessian {study}"
    path = frame.stored("woodfisher", f"hessian_{study.lower()}.npz", remedy)
    shown = {"cmap": "magma", "vmin": 0, "vmax": 1, **more}
    with np.load(path) as pictures:
        return [
            Panel(
                titles[row],
                weight if row else "",
                weight if name == next(iter(columns)) else "",
                Image(pictures[f"{kind}_{name}"] / 255, more=shown),
                **axes,
            )
            for row, kind in enumerate(("hessian", "fisher"))
            for name, titles in columns.items()
        ]


SHARE = colour_bar("Absolute value, share of the picture's largest")


def hessians(study: str) -> list[dict]:
    """The numbers beside the pictures."""
    remedy = f"python -m woodfisher.hessian {study}"
    return frame.measured("woodfisher", f"hessian_{study.lower()}.json", remedy)


def s2_panels() -> list[Panel]:
    """One column a block."""
    titles = {
        "1-1": "First layer",
        "2-2": "Second layer (Fig. 1)",
        "3-3": "Third layer (Fig. 1)",
        "1-3": "First and third (S3)",
        "2-3": "Second and third (S3)",
    }
    cosine = {point["block"]: point["cosine"] for point in hessians("S2")}
    below = "Empirical Fisher\ncosine to the Hessian"
    columns = {b: (f"{t}\nHessian", f"{below} {cosine[b]:.3f}") for b, t in titles.items()}
    blank = {"xticks": [], "yticks": []}
    return matrices("S2", columns, "Weight", {"aspect": "auto"}, **blank)


def s2_title() -> str:
    """The network, and what the pictures are."""
    return (
        f"CIFARNet 3072-16-64-10, {100 * hessians('S2')[0]['accuracy']:.1f}% test accuracy, 100 "
        "examples; absolute values, smoothed; the first layer's blocks are means over pairs of its "
        "units"
    )


def s4_panels() -> list[Panel]:
    """One column a number of epochs; 20 weights to each of the ten classes."""
    columns = {
        f"{p['epochs']:g}": (
            f"Hessian, {p['epochs']:g} epochs\n{100 * p['accuracy']:.1f}% test accuracy",
            f"Empirical Fisher\ncosine to the Hessian {p['cosine']:.3f}",
        )
        for p in hessians("S4")
    }
    middles = {f"{axis}ticks": np.arange(10, 200, 20) for axis in "xy"}
    classes = {f"{axis}ticklabels": range(10) for axis in "xy"}
    return matrices("S4", columns, "Weights to class", {}, **middles, **classes)


AMOUNTS = (0.9, 0.95)  # of the study of gradients


def gradient_rows() -> pd.DataFrame:
    """The entries of the study at full rank, in percent."""
    found = pd.DataFrame([e for record in study("gradients") for e in record.trajectory])
    found = found[found.chunk == 500]
    percent = ["overlap", "accuracy", "choice", "magnitude"]
    return found.assign(**{name: 100 * found[name] for name in percent})


def gradients() -> str:
    """A line for each kind of rows, mean and deviation over the seeds."""
    lines = []
    for what, entries in gradient_rows().groupby("rows", sort=False):
        many = np.exp(np.log(entries[entries.amount == AMOUNTS[0]].effective_rows).mean())
        line = [what, f"{many:,.1f}" if many < 100 else f"{many:,.0f}"]
        for amount in AMOUNTS:
            at = entries[entries.amount == amount]
            line += [spread(list(at[n])) for n in ("overlap", "accuracy", "choice", "magnitude")]
        lines.append(line)
    heads = ["rows", "effective rows of 1,000"]
    for amount in AMOUNTS:
        heads += [f"{100 * amount:g}%: kept by both, %", "WoodFisher, %"]
        heads += ["its choice alone, %", "global magnitude, %"]
    return markdown(heads, lines)


def gradient_panels() -> list[Panel]:
    """Weights shared with magnitude, and accuracy above magnitude's, against how many rows carry
    the Fisher; a point a setting.
    """
    found = gradient_rows()
    found = found[found.amount == AMOUNTS[-1]]
    found = found.assign(lead=found.accuracy - found.magnitude, series=found.rows)
    x = np.exp(found.assign(log=np.log(found.effective_rows)).groupby("rows").log.transform("mean"))
    looks = {
        what: Look(
            ORANGE if what.startswith("after") else BLUE, marker, what, "none", {"markersize": 7}
        )
        for what, marker in zip(dict.fromkeys(found.rows), "o*^vsDPX<>h", strict=False)
    }
    across = "Effective rows of 1,000, (Σ|g|²)² / Σ|g|⁴"
    shared, lead = (found.assign(x=x, y=found[column]) for column in ("overlap", "lead"))
    left, right = "Kept by both [% of kept by either]", "Accuracy above global magnitude's [points]"
    level, beside = Level(0), {"log": "x", "legend": BESIDE}
    return [
        Panel("", across, left, Curve(shared, looks, "bars"), log="x", ylim=(0, 105)),
        Panel("", across, right, Curve(lead, looks, "bars"), level, **beside),
    ]


NETWORKS = ("digits_cnn", "lenet300", "lenet5", "resnet20")  # of the study of choices


def choice_rows() -> pd.DataFrame:
    """The entries of the study's first seeds by network, setting (m, b, chunk) and amount."""
    found = pd.DataFrame(
        [
            {"network": record.spec["model"], **entry}
            for record in sorted(study("choice"), key=lambda r: NETWORKS.index(r.spec["model"]))
            if record.spec["seed"] == 0
            for entry in record.trajectory
        ]
    )
    setting = found.m.astype(str) + "-" + found.b.astype(str) + "-" + found.chunk.astype(str)
    return found.assign(series=setting, x=100 * found.amount, y=100 * found.overlap)


def choice() -> str:
    """Settings down; the overlap's range over the amounts, then accuracies at the amounts that have
    them.
    """
    lines = []
    for (network, _), points in choice_rows().groupby(["network", "series"], sort=False):
        first, points = points.iloc[0], points.sort_values("amount")
        told = "; ".join(
            f"{e.x:g}%: {100 * e.accuracy:.1f} / {100 * e.magnitude:.1f}"
            for e in points.dropna(subset="accuracy").itertuples()
        )
        blocks = "a layer" if first.chunk == "layer" else f"{first.chunk:,}"
        shared = f"{points.y.max():.1f} to {points.y.min():.1f}"
        lines.append([NAMES.get(network, network), f"{first.m:,}", first.b, blocks, shared, told])
    heads = ["network", "m", "b", "blocks", "kept by both, % of kept by either"]
    return markdown([*heads, "removed: WoodFisher / global magnitude, %"], lines)


def choice_panels() -> list[Panel]:
    """One panel a network: colour by rows, marker and dashes by chunk."""
    found = choice_rows()
    colours = {(100, 10): GREY, (400, 3): ORANGE, (400, 10): GREEN, (1000, 1): BLUE}
    marks = {"layer": ("o", "-"), 2000: ("s", "--"), 100: ("^", ":")}
    looks = {}
    for one in found.drop_duplicates("series").itertuples():
        marker, line = marks[one.chunk]
        blocks = "a block a layer" if one.chunk == "layer" else f"blocks of {one.chunk:,}"
        label = f"m {one.m:,}, b {one.b}, {blocks}"
        looks[one.series] = Look(colours[one.m, one.b], marker, label, line)
    panels = []
    for network, points in found.groupby("network", sort=False):
        y = "" if panels else "Kept by both [% of kept by either]"
        order = points.drop_duplicates("series").series
        curve = Curve(points, {name: looks[name] for name in order})
        title = NAMES.get(network, network)
        panels.append(Panel(title, "Weights removed [%]", y, curve, ylim=(0, 103)))
    return panels


FIGURES = {
    "2": Sheet(
        "WoodFisher Fig. 2: training loss along three layers' pruning directions, measured and by "
        "the local quadratic model.",
        quadratic_panels,
        (11 / 3, 3.4),
    ),
    "3a": one_shot_sheet(
        "WoodFisher Fig. 3a: one-shot ResNet-20, WoodFisher against magnitude and the diagonal "
        "Fisher.",
        "figure-3a",
        "ResNet-20, CIFAR-10 as JPEG: one-shot, m = 1,000, b = 1",
        FIG3A,
    ),
    "3b": Sheet(
        "WoodFisher Figs. 3b (= S7) and S8: one-shot ResNet-20 by chunk size, up to a block a "
        "layer and (ours) one over the network.",
        fig3b_panels,
        (4.7, 3.8),
        table=fig3b,
    ),
    "5a": Sheet(
        "WoodFisher Fig. 5a (= S1): one-shot WoodFisher beside L-OBS, every layer pruned alike; "
        "the paper's points on ResNet-50 beside ours.",
        fig5a_panels,
        (4.9, 4.4),
        legend=BELOW,
        table=functools.partial(one_shot_table, "figure-5a", FIG5A),
    ),
    "5b": one_shot_sheet(
        "WoodFisher Fig. 5b: one-shot MLPNet, WoodFisher against K-FAC with and without the "
        "damping π.",
        "figure-5b",
        "MLPNet, MNIST: one-shot, m = 1,000, b = 50, K-FAC from 50,000 samples",
        FIG5B,
        error_scale=True,
    ),
    "6": Sheet(
        "WoodFisher Fig. 6: the course of gradual pruning on the paper's schedule, accuracy right "
        "after each pruning and after the training that follows it; and where this repository's "
        "shorter schedule ends.",
        fig6_panels,
        (4.8, 4.0),
        columns=2,
        table=fig6,
    ),
    "7": one_shot_sheet(
        "WoodFisher Fig. 7: one-shot MLPNet after two epochs of training, WoodTaylor against the "
        "rest.",
        "figure-7",
        "MLPNet, MNIST, after two epochs: one-shot",
        FIG7,
    ),
    "S2": Sheet(
        "WoodFisher Figs. 1, S2 and S3: blocks of CIFARNet's exact Hessian and empirical Fisher, "
        "on and off the diagonal.",
        s2_panels,
        (2.8, 3.1),
        rows=2,
        title=s2_title,
        finish=SHARE,
    ),
    "S4": Sheet(
        "WoodFisher Fig. S4: exact Hessian and empirical Fisher of MLPNet's last layer in the "
        "course of training.",
        s4_panels,
        (3.2, 3.3),
        (0.8, 0),
        rows=2,
        finish=SHARE,
    ),
    "S12": Sheet(
        "WoodFisher Figs. S12 and S13: WoodTaylor and WoodFisher on three layers of ResNet-20 as "
        "one block, by dampening.",
        lambda: against_damping("figure-S12", "Three layers (9,216 weights), b = 1", s12_lines),
        (5.2, 3.8),
    ),
    "S14": Sheet(
        "WoodFisher Fig. S14: WoodTaylor on MLPNet after two epochs, by dampening and number of "
        "single gradients.",
        lambda: against_damping("figure-S14", "WoodTaylor", s14_lines),
        (5.2, 3.8),
    ),
    "ablations": Sheet(
        "WoodFisher Fig. 4 and Tables 6, 8 and S2 on one-shot ResNet-20: recomputation, FLOPs, "
        "labels of the Fisher, rows and batches.",
        lambda: [recomputation(), flops(), labels(), rows()],
        (5.6, 3.8),
        columns=2,
    ),
    "choice": Sheet(
        "Does WoodFisher choose other weights than magnitude? Kept weights in common by rows and "
        "chunk, four networks (not in the paper).",
        choice_panels,
        (3.0, 4.1),
        least=7.6,
        share={"sharey": True},
        legend={**BELOW, "fontsize": 8},
        table=choice,
    ),
    "damping": Sheet(
        "WoodFisher and K-FAC by dampening (not in the paper): one-shot LeNet-300-100, test "
        "accuracy right after pruning.",
        lambda: against_damping("table-damping", "LeNet-300-100, m = 100, b = 10", damping_lines),
        (5.2, 3.8),
        table=damping,
    ),
    "gradients": Sheet(
        "Why WoodFisher stays at magnitude on LeNet-300-100 (not in the paper): what its 1,000 "
        "gradients are, and what it then chooses.",
        gradient_panels,
        (5.2, 4.0),
        title="LeNet-300-100 at 95% removed, blocks of 500 weights; orange: networks in the course "
        "of training",
        title_size=10.5,
        table=gradients,
    ),
    "table5": Sheet(
        "WoodFisher Table 5: is WoodFisher's lead over global magnitude significant? Two-sided "
        "Student's t-test, from the paper's means and deviations of five runs, and from our "
        "gradual runs of several seeds: on the paper's schedule, and on a shorter one.",
        table5_panels,
        (7.2, 0.75),
        (0, 1),
        columns=1,
        table=table5,
    ),
    "tableS6": Sheet(
        "WoodFisher Table S6: what gradual pruning removes of each layer, WoodFisher beside global "
        "magnitude; printed ResNet-50, our ResNet-20.",
        table_s6_panels,
        (3.1, 2.7),
        (0, 0.4),
        columns=4,
        share={"sharey": "row"},
        legend=BELOW,
        table=table_s6,
    ),
}
