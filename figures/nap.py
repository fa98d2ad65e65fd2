"""NAP's figures and tables, from its committed records and its printed values."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from common.cells.errors import UserError
from figures import frame
from figures.frame import markdown, spread
from figures.kinds import (
    DOTTED,
    Bars,
    Histogram,
    Image,
    Level,
    Panel,
    Rows,
    Scatter,
    Sheet,
    Trajectory,
    plain,
)
from figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, SKY, VERMILION, Look, look

# cells whose statistics move at every step, as in Algorithm 1, beside others that say how often
EVERY_STEP = "-every-step"
HOLLOW = {"markerfacecolor": "none"}


def records(stage: str, *tables: str) -> pd.DataFrame:
    """The records of some tables; UserError says how to make them."""
    found = frame.records("nap")
    found = found[(found.stage == stage) & found.table.isin(tables)]
    return frame.some(found, tables[0], f"python -m nap.finetune --{tables[0].replace('-', ' ')}")


def study(name: str) -> pd.DataFrame:
    """The entries of a study."""
    remedy = f"python -m nap.studies {name.rpartition('-')[2]}"
    return pd.DataFrame(frame.study("nap", name, remedy).trajectory)


# cell -> the dense network given as much training on the same images (nap/experiments.py:
# dense_tuned)
CONTROLS = {
    "lenet300-77x-nap": "lenet300-dense-tuned",
    "lenet300-77x-magnitude": "lenet300-dense-tuned",
    "lenet300-77x-nap-sgd-shift": "lenet300-dense-tuned-sgd-shift",
    "lenet300-77x-magnitude-sgd-shift": "lenet300-dense-tuned-sgd-shift",
    "lenet300-90x-nap-sgd-shift": "lenet300-dense-tuned-sgd-shift",
    "lenet300-100x-nap-sgd-shift": "lenet300-dense-tuned-sgd-shift",
    "lenet300-77x-nap-shift": "lenet300-dense-tuned-shift",
    "lenet300-77x-magnitude-shift": "lenet300-dense-tuned-shift",
    "lenet5-200x-nap": "lenet5-dense-tuned",
    "lenet5-200x-magnitude": "lenet5-dense-tuned",
    "lenet5-200x-nap-slow": "lenet5-dense-tuned-slow",
    "cifarnet-15.6x-nap": "cifarnet-dense-tuned",
    "cifarnet-15.6x-magnitude": "cifarnet-dense-tuned",
    "vgg16-5.4x-nap": "vgg16-dense-tuned",
    "vgg16-4x-nap": "vgg16-dense-tuned",
    "vgg16-2x-nap": "vgg16-dense-tuned",
    "vgg16-5.4x-nap-long": "vgg16-dense-tuned-long",
    "resnet20-2x-nap-long": "resnet20-dense-tuned-long",
    **{
        f"vgg16-p{p}-T{t}": "vgg16-dense-tuned"
        for p, t in (("0.5", "0.1"), ("1", "0.2"), ("2", "0.4"), ("5", "1"), ("10", "2"))
    },
}
CONTROLLED = ["dense, tuned alike: error %", "error more than that, points", "seeds"]


def errors(seeds: pd.DataFrame, found: pd.DataFrame) -> list:
    """A cell's dense error and its own, points more, the same against the dense network that got as
    much extra training (`CONTROLLED`), and how many seeds; "not run" where that network is missing,
    nothing where there is none to hold it against.
    """
    own = [f"{100 - seeds.dense.iloc[0]:.2f}", spread(100 - seeds["last"]), spread(seeds.added)]
    control = CONTROLS.get(seeds.name.iloc[0])
    dense = 100 - found[found.name == control]["last"]
    beside = ["", ""] if control is None else ["not run", ""]
    if len(dense):
        beside = [spread(dense), spread(100 - seeds["last"] - dense.mean())]
    return [*own, *beside, len(seeds)]


def by_cell(found: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(cell without its seed, its records), in the order of their names."""
    return list(found.sort_values("cell").groupby("name", sort=False))


# -- Tables 3 and 6: single weights ----------------------------------------------------------------

NETWORKS = {"lenet300": "LeNet-300-100", "lenet5": "LeNet-5", "cifarnet": "CIFAR-Net"}
# how the cells begin whose layers stand beside Table 6
PROFILED = ("lenet300-77x-nap", "lenet5-200x-nap", "cifarnet-15.6x-nap")
RUNS = {"curve": ", short run", "nap-time": ", stopped by error"}


def table3() -> str:
    """Ours, then the paper's lines, and the kept fraction of every layer."""
    found = records("finetune", "table-3", "curve", "nap-time")
    places, lines = list(NETWORKS), []
    cells = by_cell(found)
    cells.sort(key=lambda one: (places.index(one[1].network.iloc[0]), one[1].compression.iloc[0]))
    for name, seeds in cells:
        first = seeds.iloc[0]
        what = f"ours: {name.split('-', 1)[1]}{RUNS.get(first.table, '')}"
        ours = [NETWORKS[first.network], what, f"{first.compression:.1f}"]
        lines.append([*ours, *errors(seeds, found)])
    for row in printed3().to_dict("records"):
        theirs = (row["compression_ratio_x"], "", "", row["delta_err_pct"])
        lines.append([row["model"], f"paper: {row['method']}", *theirs, "", "", ""])
    heads = ["network", "method", "compression", "dense error %", "error %", "error more, points"]
    return markdown([*heads, *CONTROLLED], lines) + "\n" + layers(found)


def printed3() -> pd.DataFrame:
    """Table 3's lines that say how much error a compression costs."""
    return frame.wide(frame.printed("nap", "Table 3"), "model", "method").dropna(
        subset=["delta_err_pct"]
    )


def layers(found: pd.DataFrame) -> str:
    """Table 6: percent kept of every layer."""
    printed, lines = frame.printed("nap", "Table 6"), []
    for network, words in NETWORKS.items():
        ours = found[(found.table == "table-3") & (found.network == network)]
        ours = ours[ours.cell.str.startswith(PROFILED)]
        kept = pd.DataFrame(
            [{e["name"]: 100 * e["kept"] / e["total"] for e in r.layers} for r in ours.record]
        )
        for layer in kept:
            said = printed[(printed.model == words) & (printed.layer == layer)]
            said = said.drop_duplicates("method").set_index("method").value
            theirs = (said.get(method, "-") for method in ("LWC", "DNS", "NAP"))
            lines.append([words, layer, *theirs, spread(kept[layer]), len(ours)])
    heads = ["network", "layer", "paper LWC %", "paper DNS %", "paper NAP %", "ours %", "seeds"]
    return markdown(heads, lines)


def siblings(paper: str, network: str) -> pd.DataFrame:
    """Another paper's committed runs on the same network and data."""
    found = frame.records(paper).assign(network=network)
    mine = (found.model == network) & found.dataset.str.startswith("mnist")
    return found[
        mine & (found.stage == "finetune") & found.method.str.match("l-obs|woodfisher")
    ].dropna(subset="compression")


HOW = {  # the end of a cell's name -> how its run differs
    "": "",
    "every-step": ", statistics at every step",
    "light": ", a tenth of the weight decay",
    "sgd-shift": ", shifted images",
    "shift": ", shifted images",
    "slow": ", shifted images, slower",
}
WHO = {
    "nap": ("NAP", VERMILION),
    "magnitude": ("Magnitude, same schedule", BLACK),
    "dense-tuned": ("Dense, trained as long", GREY),
}


def compressed() -> pd.DataFrame:
    """What is drawn of Table 3 beside the curve: network, compression, x (points of error added),
    series ("ours" or "paper"), name and colour; ours, the siblings' records at their best, and the
    paper's lines.
    """
    found = records("finetune", "table-3", "nap-time")
    parts = found.series.str.extract(r"(?P<who>nap|magnitude|dense-tuned)-?(?P<how>.*)")
    parts = parts.where(found.table == "table-3").fillna({"who": "nap", "how": ""})
    stopped = np.where(found.table == "nap-time", ", stopped at 0.1 points", "")
    name = parts.who.map(lambda who: WHO[who][0])
    name += parts.how.map(lambda how: HOW.get(how, f", {how}")) + stopped
    colour = parts.who.map(lambda who: WHO[who][1])
    ours = found.assign(x=found.added, name=name, colour=colour)
    sides = []
    for paper, title, tint in (("lobs", "L-OBS", GREEN), ("woodfisher", "WoodFisher", BLUE)):
        for network in NETWORKS:
            others = siblings(paper, network)
            for _, cells in others.groupby(others.compression.round()):
                least = cells.loc[cells.name == cells.groupby("name").added.mean().idxmin()]
                sides.append(least.assign(x=least.added, name=f"{title} at its best", colour=tint))
    printed = printed3()
    theirs = pd.DataFrame(
        {
            "network": printed.model.map({words: name for name, words in NETWORKS.items()}),
            "compression": printed.compression_ratio_x.astype(float),
            "x": printed.delta_err_pct.astype(float),
            "name": "Paper: " + printed.method,
            "colour": "#777777",
        }
    )
    columns = list(theirs.columns)
    drawn = pd.concat([ours[columns], *(one[columns] for one in sides)]).assign(series="ours")
    return pd.concat([drawn, theirs.assign(series="paper")])


def curve_panel() -> Panel:
    """The short runs of LeNet-300-100."""
    found = records("finetune", "curve").sort_values("compression", kind="stable")
    own = look("nap")
    looks = {
        "magnitude": Look(BLACK, "o", WHO["magnitude"][0]),
        "nap": own,
        "nap-every-step": Look(own.colour, "d", "NAP, statistics at every step", ":"),
    }
    return Panel(
        "LeNet-300-100, short runs",
        "Compression [dense weights / kept weights]",
        "Test error above dense [points]",
        Trajectory(found.assign(x=found.compression, y=found.added), looks),
        Level(0),
        log="x",
        round="x",
        tall=17,
        legend={"loc": "upper left"},
    )


def table3_panels() -> list[Panel]:
    """Added error: the curve of the short runs, then a line a run with its compression; means and
    ranges over the seeds.
    """
    found = compressed()
    names, notes, shown = [], [], []
    for network, words in NETWORKS.items():
        names.append(words)
        notes.append("" if len(names) > 1 else "compression")
        mine = found[found.network == network].sort_values("compression", kind="stable")
        for (times, name), line in mine.groupby([mine.compression.round(1), "name"], sort=False):
            shown.append(line.assign(row=len(names)))
            names.append(name)
            notes.append("" if times == 1 else f"{times:g} times")
    looks = {
        "ours": Look("#444444", "o", "our records"),
        "paper": Look("#777777", "o", "the paper's Table 3", more=HOLLOW),
    }
    lines = Panel(
        "Long runs and the paper's lines",
        "Test error above the dense network [points]",
        "",
        Rows(names, pd.concat(shown), looks, notes),
        finish=_around_zero,
        tall=len(names) + 4,
        legend={"loc": "upper right", "frameon": True},
    )
    return [curve_panel(), lines]


def _around_zero(ax: Axes) -> None:
    ax.axvline(0, color="#444444", linewidth=1, linestyle=DOTTED)
    ax.set_xscale("symlog", linthresh=1)
    ax.margins(x=0.05)  # in the new scale
    ax.xaxis.set_major_locator(FixedLocator([-0.5, 0, 0.5, 1, 2, 5, 10]))
    plain(ax.xaxis, None)


# -- Tables 1 and 5: channels ----------------------------------------------------------------------

WIDTHS = {"vgg16": "VGG-16, a quarter of its width", "resnet20": "ResNet-20"}
COLOURS, MARKERS = (VERMILION, BLUE, GREEN, ORANGE, PINK, SKY), "*oDs^v"


def channels() -> str:
    """Cells, then latency."""
    found = records("finetune", "table-1", "table-5")
    lines = [
        [name, f"{one.speedup.iloc[0]:.2f}", f"{one.kept.iloc[0]:.1f}", *errors(one, found)]
        for name, one in by_cell(found)
    ]
    heads = ["cell", "fewer MACs", "weights left %", "dense error %", "error %"]
    text = markdown([*heads, "error more, points", *CONTROLLED], lines)
    try:
        measured = frame.study("nap", "latency", "python -m nap.studies latency")
    except UserError:
        return text
    threads = measured.provenance.get("threads")
    text += f"\nLatency, {threads} thread(s), median of side-by-side rounds:\n\n"
    lines = [
        [r["name"], r["batch"], f"{1e3 * r['dense_s']:.1f}", f"{1e3 * r['pruned_s']:.1f}"]
        + [f"{r['speedup_latency']:.2f}", f"{r['speedup_macs']:.2f}"]
        for r in measured.trajectory
    ]
    return text + markdown(
        ["cell", "batch", "dense ms", "pruned ms", "faster", "fewer MACs"], lines
    )


def channel_panels() -> list[Panel]:
    """A panel a network of Table 1, and one for Table 5's settings."""
    found = frame.records("nap")
    first, fifth = (
        found[found.table == "table-1"],
        found[(found.table == "table-5") & (found.stage == "finetune")],
    )
    shown = [network for network in WIDTHS if (first.network == network).any()]
    frame.some(first, "table 1", "python -m nap.finetune --table 1 --scale cpu")
    panels = [along(first[first.network == n].sort_values("cell", kind="stable")) for n in shown]
    return [*panels, settings(fifth)] if len(fifth) else panels


def along(found: pd.DataFrame) -> Panel:
    """Table 1: the run (lines, judged on a draw of test images) and the end of the final
    fine-tuning (markers).
    """
    names = dict.fromkeys(found.name)
    styles = [(COLOURS[i % 6], MARKERS[i % 6]) for i in range(len(names))]
    thin = {"linewidth": 0.8, "alpha": 0.6}
    lines = {n: Look(c, "", "", more=thin) for n, (c, _) in zip(names, styles, strict=True)}
    ends = {
        name: Look(colour, marker, name.partition("-")[2], more={"markersize": 10})
        for name, (colour, marker) in zip(names, styles, strict=True)
    }
    runs = found[found.stage == "prune"]
    path = frame.trajectory(runs).reindex(columns=["cell", "speedup", "tuned"]).dropna()
    path = path.assign(run=path.cell, series=path.cell.replace(frame.SEED, "", regex=True))
    path = path.assign(x=path.speedup, y=100 * path.tuned)
    tuned = found[found.stage == "finetune"]
    tuned = tuned.assign(x=tuned.speedup, y=tuned["last"], series=tuned.name)
    return Panel(
        WIDTHS[found.network.iloc[0]],
        "Times fewer MACs",
        "Test accuracy [%]",
        Trajectory(path, lines),
        Scatter(tuned, ends),
        Level(found.dense.iloc[0]),
        legend={
            "fontsize": 7.5,
            "loc": "lower left",
            "title": "lines: a draw of test images\nmarkers: tuned, all images",
            "title_fontsize": 7.5,
        },
    )


def settings(found: pd.DataFrame) -> Panel:
    """Table 5: error more than dense at each (p, T), and the speed-up reached, beside the paper's
    on ImageNet.
    """
    found = found.sort_values("cell", kind="stable")
    pair = found.cell.map(lambda cell: tuple(map(float, re.findall(r"[pT]([\d.]+)", cell))))
    stepwise = found.cell.str.endswith(EVERY_STEP).map({True: "every", False: "tenth"})
    found = found.assign(pair=pair, series=stepwise).sort_values(["pair", "series"], kind="stable")
    pairs = sorted(set(pair))
    printed = frame.printed("nap", "Table 5")
    printed = printed[printed.quantity == "delta_top1_err_pct"]
    said = {
        tuple(map(float, re.findall(r"[pT]=([\d.]+)", one.setting))): one.number
        for one in printed.itertuples()
    }
    big = {"markersize": 10}
    looks = {
        "every": Look(VERMILION, "*", "ours, JPEG CIFAR-10, statistics at every step", more=big),
        "tenth": Look(VERMILION, "*", "ours, statistics every tenth step", ":", big),
    }
    theirs = {"paper": Look(BLACK, "o", "paper, ImageNet, top-1", more=HOLLOW)}
    points = pd.DataFrame(
        {"x": range(len(pairs)), "y": [said[p] for p in pairs], "series": "paper"}
    )
    reached = found.drop_duplicates("pair").set_index("pair").speedup
    ours = (
        found.assign(x=found.pair.map(pairs.index), y=found.added).groupby(["series", "x"]).y.mean()
    )
    return Panel(
        "Table 5: five settings, VGG-16",
        "T in the paper's epochs; ours are an eighth of it",
        "Error more than dense [points]",
        Trajectory(ours.reset_index(), looks),
        Scatter(points, theirs),
        xticks=range(len(pairs)),
        xticklabels=[f"p {p:g}%\nT {t:g}\n{reached[p, t]:.1f}x" for p, t in pairs],
        ylim=(0, None),
        legend={"fontsize": 8},
    )


# -- Figures 4, 5 and 7, and the choices that the paper leaves open --------------------------------


def fig4_panels() -> list[Panel]:
    """Top: a draw of the remaining weights; bottom: the histogram of the largest layer's."""
    rows = study("lenet5-importance")
    titles = {"early": "before pruning", "late": "after pruning and fine-tuning"}
    early = rows[rows.moment == "early"]
    largest = early.name.iloc[early.left.argmax()]
    above, below = [], []
    for moment, title in titles.items():
        mine = rows[rows.moment == moment]
        looks = {
            one.name: Look(
                colour,
                ".",
                f"{one.name}: {one.left:,}, {100 * one.below_median_importance:.0f}%, "
                f"{100 * one.below_median_magnitude:.0f}%",
                more={"markersize": 3},
            )
            for one, colour in zip(mine.itertuples(), (SKY, VERMILION, BLUE, ORANGE), strict=False)
        }
        drawn = mine.explode(["magnitude", "importance"])
        drawn = pd.DataFrame(
            {"x": drawn.magnitude, "y": drawn.importance, "series": drawn.name}
        ).query("x > 0 and y > 0")
        weights = "Layer: weights left, below the median\nof importance, of |w|"
        above.append(
            Panel(
                title,
                "Magnitude |w|",
                "" if above else "Importance, normalised in its layer",
                Scatter(drawn, looks),
                log="xy",
                legend={
                    "fontsize": 8,
                    "loc": "upper left",
                    "title": weights,
                    "title_fontsize": 8,
                    "markerscale": 3,
                    "alignment": "left",
                },
            )
        )
        layer = mine[mine.name == largest].iloc[0]
        title = f"{largest}, {layer.left:,} weights"
        counts = Histogram(layer.histogram, layer.reach)
        below.append(Panel(title, f"Weight of {largest}", "" if below else "Weights", counts))
    return above + below


def fig5_panels() -> list[Panel]:
    """One line a setting: the network after each step's fine-tuning."""
    colours = (BLUE, ORANGE, GREEN, VERMILION, PINK)
    panels = []
    for table, title in {
        "figure-5": "Pruning fraction p, T = 0.3 epochs",
        "figure-6": "Steps T between prunings, p = 50%",
    }.items():
        found = records("prune", table).sort_values("cell", kind="stable")
        setting = found.cell.str.removesuffix(EVERY_STEP).str.rpartition("-")[2]
        settings = sorted(set(setting), key=lambda one: float(one[1:]))
        looks = {}
        for place, one in enumerate(settings):
            words = f"p = {100 * float(one[1:]):g}%" if one[0] == "p" else f"T = {one[1:]} steps"
            for how, line, marker, more in (
                ("", "--", "s", ""),
                (EVERY_STEP, "-", "o", ", statistics at every step"),
            ):
                name, size = f"cifarnet-{one}{how}", {"markersize": 4}
                looks[name] = Look(colours[place], marker, words + more, line, size)
        path = frame.trajectory(found)[["cell", "amount", "tuned"]].dropna()
        path = pd.DataFrame({"x": 100 * path.amount, "y": 100 * path.tuned, "series": path.cell})
        small = {"fontsize": 7.5, "title_fontsize": 7.5}
        panels.append(
            Panel(
                title,
                "Sparsity [% of weights removed]",
                "" if panels else "Test accuracy [%]",
                Trajectory(path, looks),
                Level(found.dense.iloc[0]),
                legend={"title": "dotted: dense\ndashed: statistics every 16 steps", **small},
            )
        )
    return panels


def fig7_panels() -> list[Panel]:
    """One row a layer, channels by how often they survive; white where a layer has no more."""
    rows = study("survivors")
    rows = rows[rows.name.str.startswith("features")]
    shares = pd.DataFrame([pd.Series(one.survives) / one.runs for one in rows.itertuples()])
    runs = rows.runs.iloc[0]
    shown = {"aspect": "auto", "cmap": "Blues", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    return [
        Panel(
            f"VGG-16 at a quarter width: share of {runs} runs in which a channel survives",
            "Channel",
            "",
            Image(shares.to_numpy(float), "Share of runs", shown),
            yticks=range(len(rows)),
            yticklabels=rows.name.str.rpartition(".")[2],
            facecolor="#eeeeee",
        )
    ]


def choices() -> pd.DataFrame:
    """choice -> test error in percent, columns (amount, stage); the default first."""
    found = frame.records("nap")
    remedy = "python -m nap.finetune --table options"
    found = frame.some(found[found.table == "options"], "options", remedy)
    parts = found.cell.str.extract(r"[^-]+-(?P<amount>[^-]+)-(?P<choice>.*)")
    error = 100 - found.pruned.where(found.stage == "prune", found["last"])
    columns = [parts.amount, found.stage]
    wide = pd.crosstab(parts.choice, columns, values=error, aggfunc="last")
    return wide.loc[sorted(wide.index, key=lambda choice: (choice != "default", choice))]


STAGES = {"prune": "after pruning", "finetune": "after one epoch"}
CHOICES = {  # a cell's choice in words
    "default": "as by default",
    "empirical": "the images' own labels",
    "exact": "all labels, weighed",
    "no-normalise": "importance not normalised",
    "no-pi": "damping not split by π",
    "no-update": "weights left not updated",
}


def options() -> str:
    """Choices down, amounts across."""
    found = choices()
    amounts = dict.fromkeys(found.columns.get_level_values(0))
    found = found.reindex(columns=pd.MultiIndex.from_product([amounts, STAGES]))
    lines = [
        [choice, *("-" if pd.isna(value) else f"{value:.2f}" for value in row)]
        for choice, row in zip(found.index, found.to_numpy(), strict=True)
    ]
    heads = [head for amount in amounts for head in (f"{amount}% removed: pruned %", "tuned %")]
    return markdown(["choice", *heads], lines)


def option_panels() -> list[Panel]:
    """Two bars a choice; a panel an amount."""
    found = choices()
    amounts = list(dict.fromkeys(found.columns.get_level_values(0)))
    return [
        Panel(
            f"{amount}% removed at once",
            "Test error [%]",
            "",
            Bars(
                found[amount].reindex(columns=STAGES).rename(columns=STAGES),
                [CHOICES.get(name, name.replace("-", " ", 1)) for name in found.index],
                (VERMILION, BLUE),
                across=True,
            ),
            legend={"fontsize": 8} if amount == amounts[-1] else None,
        )
        for amount in amounts
    ]


FIGURES = {
    "channels": Sheet(
        "NAP Tables 1 and 5 at cpu scale: accuracy against MACs of VGG-16 and ResNet-20 with "
        "channels pruned; latency beside MACs.",
        channel_panels,
        (4.6, 4.2),
        table=channels,
    ),
    "4": Sheet(
        "NAP Figs. 2 to 4: magnitude against importance, before pruning and after, and the "
        "weights' distribution.",
        fig4_panels,
        (4.5, 3.5),
        columns=2,
        title="LeNet-5: what NAP calls important (the paper shows AlexNet)",
        title_size=9,
    ),
    "5": Sheet(
        "NAP Figs. 5 and 6: accuracy of CIFAR-Net against sparsity, for several pruning fractions "
        "p and several fine-tuning steps T.",
        fig5_panels,
        (5, 4),
        share={"sharey": True},
    ),
    "7": Sheet(
        "NAP Fig. 7: in how many of the runs of Table 5, at five settings of (p, T), each channel "
        "of VGG-16 survives.",
        fig7_panels,
        (9, 4),
    ),
    "options": Sheet(
        "NAP: how much each choice that the paper leaves open matters, one cut of LeNet-300-100 "
        "and then one epoch.",
        option_panels,
        (5, 4),
        share={"sharey": True},
        title="LeNet-300-100, NAP: choices that the paper leaves open (default: sampled labels, "
        "damping 1e-3, π, normalised, updated)",
        title_size=9,
        table=options,
    ),
    "table3": Sheet(
        "NAP Table 3 and its picture: error against compression on MNIST and CIFAR, ours beside "
        "the paper's rows; and Table 6's layers.",
        table3_panels,
        (8.2, 0.2),
        columns=1,
        table=table3,
    ),
}
