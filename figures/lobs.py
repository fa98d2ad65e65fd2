"""L-OBS's figures and tables, from its committed records and its printed values."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from common.cells.record import Record
from figures import frame
from figures.cells import iterations
from figures.frame import markdown, spread
from figures.kinds import Curve, Level, Panel, Rows, Scatter, Sheet, Trajectory
from figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, SKY, VERMILION, WINE, Look

NETWORKS = {"lenet300": "LeNet-300-100", "lenet5": "LeNet-5", "cifarnet": "CIFAR-Net"}
SERIES = {  # in the order of Table 1's lines
    "l-obs-iterative": Look(VERMILION, "*", "L-OBS, ours, iterative, shifted images"),
    "l-obs-iterative-plain": Look(PINK, "*", "L-OBS, ours, iterative"),
    "lwc-iterative": Look(GREY, "s", "LWC, iterative, shifted images"),
    "lwc-iterative-plain": Look(GREY, "D", "LWC, iterative"),
    "l-obs-ours": Look(BLUE, "o", "L-OBS, ours"),
    "l-obs-joint": Look(GREEN, "D", "L-OBS, joint optimum"),
    "l-obs": Look(GREEN, "^", "L-OBS, the paper's walk"),
    "lwc": Look(BLACK, "s", "LWC (magnitude)"),
    "obd": Look(ORANGE, "v", "OBD (diagonal Fisher)"),
    "l-obs-two-protocol": Look(VERMILION, "^", "L-OBS, two prunings, the paper's protocol"),
    "lwc-two-protocol": Look(BLACK, "D", "LWC, two prunings, the same protocol"),
    "l-obs-protocol": Look(GREEN, "v", "L-OBS, the paper's protocol"),
    "lwc-protocol": Look(GREY, "o", "LWC, the same protocol"),
    "obd-protocol": Look(ORANGE, "o", "OBD, the same protocol"),
    "l-obs-all-images": Look(GREEN, "o", "L-OBS, all images"),
    "dense-protocol": Look(WINE, "s", "Dense, 510 or 740 iterations more"),
    "dense-two-protocol": Look(WINE, "D", "Dense, the two prunings' iterations more"),
    "dense-iterative": Look(WINE, "*", "Dense, ten prunings' iterations more, shifted images"),
    "dense-iterative-plain": Look(WINE, "o", "Dense, ten prunings' iterations more"),
    "dense-510": Look(WINE, "^", "Dense, 510 iterations more"),
    "dense-740": Look(WINE, "^", "Dense, 740 iterations more"),
    "dense-841": Look(WINE, "v", "Dense, 841 iterations more"),
    "dense": Look(WINE, "^", "Dense, retrained"),
    "dns": Look(SKY, ">", "DNS"),
    "random": Look(GREY, "x", "Random"),
}
STUDIES = "python -m lobs.studies"
HOLLOW = {"markerfacecolor": "none"}


def printed_ends() -> pd.DataFrame:
    """Table 1's lines of the networks that we have, as text."""
    lines = frame.wide(frame.printed("lobs", "Table 1"), "model", "method", "kept_pct")
    return lines[lines.model.isin(NETWORKS.values())]


# -- Table 1: error after pruning and after light retraining --------------------------------------


def table1_runs() -> pd.DataFrame:
    """Table 1's records, with the percent kept as achieved, in the order of its lines."""
    found = frame.records("lobs")
    found = found[(found.table == "table-1") & found.network.isin(NETWORKS)]
    found = frame.some(found, "table 1", "python -m lobs.finetune --table 1")
    found = found.assign(
        percent=[round(100 * (1 - r.achieved["sparsity"]), 2) for r in found.record]
    )
    order = {"network": list(NETWORKS), "series": list(SERIES)}
    ranks = found.assign(**{name: found[name].map(known.index) for name, known in order.items()})
    return found.loc[ranks.sort_values(["network", "series", "percent"], kind="stable").index]


def table1() -> str:
    """Ours, then the paper's lines; several seeds with their range."""
    lines = []
    keys = ["network", "series", "percent"]
    for (network, series, percent), cell in table1_runs().groupby(keys, sort=False):
        first, tuned = (cell[cell.stage == stage] for stage in ("prune", "finetune"))
        ours = [NETWORKS[network], SERIES[series].label, f"{percent:g}"]
        ours += [spread(100 - first.dense[:1]), spread(100 - first.pruned)]
        after = (
            [spread(100 - tuned["last"]), iterations(tuned.record.iloc[0])] if len(tuned) else []
        )
        lines.append([*ours, *(after or ["", ""])])
    shown = ["orig_err_top1_pct", "err_after_pruning_top1_pct", "retrained_err_top1_pct"]
    for row in printed_ends().fillna("-").to_dict("records"):
        theirs = (row[quantity] for quantity in (*shown, "retrain_iterations"))
        lines.append([row["model"], f"paper: {row['method']}", row["kept_pct"], *theirs])
    heads = ["network", "method", "kept %", "dense error %", "after pruning %", "retrained %"]
    return markdown([*heads, "iterations"], lines)


def table1_lines(network: str) -> pd.DataFrame:
    """What is drawn of a network: x (error in percent) of each series ("pruned" or "retrained"),
    with the line's name, colour, percent kept and iterations; ours, then the paper's lines.
    """
    found = table1_runs()
    found = found[found.network == network]
    styles = found.series.map(SERIES)
    ours = pd.DataFrame(
        {
            "name": styles.map(lambda style: style.label),
            "colour": styles.map(lambda style: style.colour),
            "kept": found.percent,
            "x": 100 - found.pruned.where(found.stage == "prune", found["last"]),
            "series": found.stage.map({"prune": "pruned", "finetune": "retrained"}),
            "iterations": [
                f"{iterations(one.record):,}" if one.stage == "finetune" else ""
                for one in found.itertuples()
            ],
        }
    )
    printed = printed_ends()
    printed = printed[printed.model == NETWORKS[network]]
    theirs = [
        pd.DataFrame(
            {
                "name": "Paper: " + printed.method,
                "colour": "#777777",
                "kept": printed.kept_pct.astype(float),
                "x": pd.to_numeric(printed[quantity], errors="coerce"),
                "series": series,
                "iterations": pd.to_numeric(printed.retrain_iterations).map("{:,.0f}".format),
            }
        )
        for quantity, series in (
            ("err_after_pruning_top1_pct", "pruned"),
            ("retrained_err_top1_pct", "retrained"),
        )
    ]
    return pd.concat([ours, *theirs])


def table1_panels() -> list[Panel]:
    """A panel a network; under a heading the lines that keep about as much (each within half again
    of the one below).
    """
    looks = {
        "pruned": Look("#444444", "o", "right after pruning", more=HOLLOW),
        "retrained": Look("#444444", "o", "after light retraining"),
    }
    panels = []
    for network in dict.fromkeys(table1_runs().network):
        found = table1_lines(network)
        kept = found.kept.sort_values().drop_duplicates()
        group = dict(zip(kept, (kept > 1.5 * kept.shift()).cumsum(), strict=True))
        names, notes, shown = [], [], []
        for _, alike in found.groupby(found.kept.map(group)):
            ends = dict.fromkeys(f"{percent:g}" for percent in (alike.kept.min(), alike.kept.max()))
            names.append(f"{' to '.join(ends)}% kept")
            notes.append("" if len(names) > 1 else "iterations")
            for (name, percent), line in alike.groupby(["name", "kept"], sort=False):
                shown.append(line.assign(row=len(names)))
                names.append(f"{name}, {percent:g}%" if len(ends) > 1 else name)
                notes.append(line.iterations.max())
        panels.append(
            Panel(
                NETWORKS[network],
                "Test error [%, log scale]",
                "",
                Rows(names, pd.concat(shown), looks, notes),
                log="x",
                round="x",
                tall=len(names) + 3.5,
                legend=None if panels else {"loc": "lower right", "frameon": True},
            )
        )
    return panels


# -- the whole way to 1.5% -------------------------------------------------------------------------

COURSES = {
    "l-obs-iterative": Look(VERMILION, "*", "L-OBS, ours: 10 prunings, shifted images"),
    "l-obs-iterative-plain": Look(BLUE, "o", "L-OBS, ours: 10 prunings, images as they are"),
    "lwc-iterative": Look(BLACK, "s", "LWC (magnitude): 10 prunings, shifted images"),
    "lwc-iterative-plain": Look(GREY, "s", "LWC (magnitude): 10 prunings, images as they are"),
}
PRINTED_ENDS = {"L-OBS (iterative)": COURSES["l-obs-iterative"], "DNS": SERIES["dns"]}
PRINTED_ENDS["LWC"] = COURSES["lwc-iterative"]
THIN = {"linewidth": 0.9, "alpha": 0.8}


def course(pruning: Record, tuning: Record) -> list[tuple[float, float]]:
    """(iterations, error in percent): before and after the retraining that follows each pruning."""
    between = (iterations(tuning) - tuning.trajectory[-1]["steps"]) // (pruning.spec["steps"] - 1)
    points = []
    for entry in pruning.trajectory:
        points.append((entry["step"] * between, 100 * (1 - entry["pruned"])))
        if "tuned" in entry:
            points.append(((entry["step"] + 1) * between, 100 * (1 - entry["tuned"])))
    start = points[-1][0]
    return points + [
        (start + point["steps"], 100 * (1 - point["accuracy"])) for point in tuning.trajectory[1:]
    ]


def iterations_panel() -> list[Panel]:
    """One panel; the first 64 iterations are linear, the rest logarithmic."""
    found = frame.records("lobs")
    found = found[found.cell.str.contains("lenet300-1.5-") & found.series.isin(COURSES)]
    by_cell = found[found.table == "table-1"].pivot(
        index=["series", "cell"], columns="stage", values="record"
    )
    by_cell = frame.some(by_cell.dropna(), "lenet300-1.5", "python -m lobs.finetune --table 1")
    points = [
        {"series": series, "run": cell, "x": x, "y": y}
        for (series, cell), stages in by_cell.iterrows()
        if stages.prune.spec["steps"] > 1
        for x, y in course(stages.prune, stages.finetune)
    ]
    dns = pd.DataFrame(frame.study("lobs", "lenet300-dns", f"{STUDIES} dns").trajectory)
    dns = dns[dns.kept == 0.015].sort_values("steps", kind="stable")
    dns = pd.DataFrame({"x": dns.step, "y": 100 * dns.error, "run": dns.steps, "series": "dns"})
    theirs = printed_ends()
    theirs = theirs[theirs.model == "LeNet-300-100"].drop_duplicates("method", keep="last")
    theirs = pd.DataFrame(
        {
            "x": theirs.retrain_iterations.astype(float),
            "y": theirs.retrained_err_top1_pct.astype(float),
            "series": theirs.method,
            "kept": theirs.kept_pct,
        }
    )
    kept = dict(zip(theirs.series, theirs.kept, strict=True))
    hollow = {
        name: Look(
            s.colour,
            s.marker,
            f"paper: {name}, {kept[name]}% kept",
            more=HOLLOW | {"markersize": 8},
        )
        for name, s in PRINTED_ENDS.items()
    }
    thin = {n: Look(s.colour, s.marker, s.label, more=THIN) for n, s in COURSES.items()}
    masked = {"dns": Look(SKY, ">", "DNS, as masked then", more={"linewidth": 0.9})}
    return [
        Panel(
            "LeNet-300-100 on its way to 1.5% of its weights",
            "Retraining iterations so far (linear up to 64)",
            "Test error [%]",
            Trajectory(pd.DataFrame(points), thin, end=True),
            Trajectory(dns, masked, end=True),
            Scatter(theirs, hollow),
            log="y",
            round="y",
            finish=_symlog,
            legend={"fontsize": 7.5, "loc": "upper right"},
        )
    ]


def _symlog(ax: Axes) -> None:
    ax.set_xscale("symlog", linthresh=64)
    ax.autoscale()  # in the new scale
    ax.set_xlim(0, None)
    ax.xaxis.set_major_locator(FixedLocator([0, 32, 64, 160, 320, 643, 4_000, 34_000, 140_000]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.xaxis.set_minor_locator(NullLocator())


# -- Figure 2 --------------------------------------------------------------------------------------

METHODS = {
    "l-obs": SERIES["l-obs"],
    "l-obs-joint": Look(BLUE, "D", "L-OBS, joint optimum"),
    "magnitude-layer": Look(BLACK, "s", "Magnitude, per layer"),
}


DENSE = "r20tuned-100-dense"  # nothing removed, its BatchNorm re-estimated like the others'


def resnet20(dense: bool = False) -> pd.DataFrame:
    """Accuracy right after pruning by the percent kept in every layer, or the dense network's."""
    found = frame.records("lobs")
    mine = (found.cell == DENSE) if dense else found.cell.str.startswith("r20tuned-")
    found = found[(found.stage == "prune") & mine & ((found.cell != DENSE) | dense)]
    found = frame.some(found, "r20tuned", "python -m lobs.prune --figure 2a")
    return found.assign(
        x=(100 * (1 - found.sparsity)).round(6), y=found.pruned, series=found.method
    )


def fig2a_table() -> str:
    """The right panel."""
    found = resnet20().pivot_table(index="series", columns="x", values="y", aggfunc="last")
    found = found.reindex([name for name in METHODS if name in found.index])
    kept = sorted(found.columns, reverse=True)
    lines = [
        [METHODS[name].label, *("" if pd.isna(row[k]) else f"{row[k]:.2f}" for k in kept)]
        for name, row in found.iterrows()
    ]
    return markdown(["kept", *(f"{percent:g}%" for percent in kept)], lines)


def fig2a_panels() -> list[Panel]:
    """Left the paper's curve; right ours, nothing retrained, BatchNorm re-estimated."""
    theirs = frame.printed("lobs", "Figure 2a")
    theirs = pd.DataFrame(
        {"x": theirs.kept_pct.astype(float), "y": theirs.number, "series": "paper"}
    )
    read_off = {"paper": Look(GREY, "o", "L-OBS, read off the paper's figure")}
    found, kept = resnet20(), "Weights kept in every layer [%]"
    shown = {"falls": True, "legend": {}}
    paper, ours = (
        "ResNet-50 on ImageNet, top-5 (paper)",
        "ResNet-20 on CIFAR-10 (JPEG), top-1 (ours)",
    )
    level = Level(resnet20(dense=True).pruned.iloc[0], "Dense network, BatchNorm re-estimated too")
    return [
        Panel(paper, kept, "Top-5 accuracy [%]", Trajectory(theirs, read_off), **shown),
        Panel(ours, kept, "Top-1 accuracy [%]", Curve(found, METHODS), level, **shown),
    ]


def long(rows: list[dict], x: str, looks: dict[str, Look]) -> pd.DataFrame:
    """A study's entries with one of the looks' columns a series."""
    found = pd.DataFrame(rows).melt([x], list(looks), "series", "y").dropna()
    return found.rename(columns={x: "x"})


def fig2b_panels() -> list[Panel]:
    """One panel, both axes logarithmic."""
    looks = {
        "q_bytes": Look(WINE, "<", "Net-Trim: its constraint matrix Q, counted", ":"),
        "net_trim_bytes": Look(WINE, "<", "Net-Trim by ADMM, measured"),
        "l_obs_bytes": Look(GREEN, "^", "L-OBS, measured"),
    }
    rows = frame.study("lobs", "lenet300-memory", f"{STUDIES} memory").trajectory
    title, layer = (
        "Memory to prune the 300 x 100 layer",
        Trajectory(long(rows, "samples", looks), looks),
    )
    return [Panel(title, "Samples", "Peak bytes of live tensors", layer, log="xy", legend={})]


# -- errors layer by layer -------------------------------------------------------------------------


def theorem_panels() -> list[Panel]:
    """One panel a way of pruning."""
    titles = {
        "l-obs": "The paper's walk",
        "l-obs-joint": "Joint optimum",
        "l-obs-ours": "Joint, re-scored, pruned inputs",
    }
    looks = {
        "bound": Look(VERMILION, "v", "Bound, Eq. 8"),
        "spectral_bound": Look(ORANGE, "D", "Bound with spectral norms, ours"),
        "accumulated": Look(BLUE, "o", "Accumulated error, measured"),
        "layer_error": Look(GREEN, "^", "Layer's own error"),
    }
    rows = frame.study("lobs", "lenet300-theorem", f"{STUDIES} theorem").trajectory
    methods = list(dict.fromkeys(row["method"] for row in rows))
    return [
        Panel(
            titles.get(method, method),
            "Layer",
            "" if method != methods[0] else "RMS distance of outputs",
            Trajectory(long([r for r in rows if r["method"] == method], "name", looks), looks),
            log="y",
            legend={"fontsize": 7.5} if method == methods[-1] else None,
        )
        for method in methods
    ]


def imagenet_panels() -> list[Panel]:
    """One panel a network: layer errors over the energy of the layer's output."""
    looks = {
        "predicted": Look(
            BLUE, "o", "Predicted, Eq. 3", more={"markersize": 8, "fillstyle": "none"}
        ),
        "measured": Look(VERMILION, ".", "Measured"),
    }
    panels = []
    for name, words in {"alexnet": "AlexNet", "vgg16": "VGG-16", "resnet50": "ResNet-50"}.items():
        record = frame.study("lobs", f"{name}-imagenet-path", f"{STUDIES} imagenet")
        rows = pd.DataFrame(record.trajectory)
        ratio = rows.measured / rows.predicted.where(rows.predicted != 0)
        shown = pd.DataFrame({"layer": rows.index + 1, "predicted": rows.relative})
        shown["measured"] = (rows.relative * ratio).fillna(0)
        worst = 100 * ((shown.measured / shown.predicted - 1)[shown.predicted > 0]).abs().max()
        seconds, memory = record.timing["prune_s"], record.timing["peak_rss_mb"] / 1000
        panels.append(
            Panel(
                f"{words}, {100 * (1 - record.spec['sparsity']):.3g}% kept\n"
                f"{seconds:.0f} s, {memory:.1f} GB at most, worst gap {worst:.2g}%",
                "Layer",
                "" if panels else "Layer error / output energy",
                Scatter(long(shown.to_dict("records"), "layer", looks), looks),
                log="y",
                finish=lambda ax: ax.xaxis.set_major_locator(MaxNLocator(integer=True)),
                legend={} if name == "resnet50" else None,
            )
        )
    return panels


FIGURES = {
    "2a": Sheet(
        "L-OBS Fig. 2a: accuracy against the fraction kept in every layer. The paper's ResNet-50, "
        "and ours where data allows: ResNet-20.",
        fig2a_panels,
        (4.8, 3.9),
        table=fig2a_table,
    ),
    "2b": Sheet(
        "L-OBS Fig. 2b: bytes that pruning the middle layer of LeNet-300-100 takes, against the "
        "number of samples.",
        fig2b_panels,
        (6.4, 4.2),
    ),
    "imagenet": Sheet(
        "L-OBS on AlexNet, VGG-16 and ResNet-50: every layer's error as Eq. 3 predicts it and as "
        "it was carried out. Random weights.",
        imagenet_panels,
        (13 / 3, 3.9),
        share={"sharey": True, "width_ratios": [8, 9, 13]},
    ),
    "iterations": Sheet(
        "L-OBS, LeNet-300-100 at 1.5% kept: error against the retraining iterations spent, for "
        "L-OBS, LWC and DNS, every pruning shown.",
        iterations_panel,
        (8.6, 4.6),
    ),
    "table1": Sheet(
        "L-OBS Table 1 and its picture: error after pruning and after light retraining, ours "
        "beside the paper's, by the fraction of weights kept.",
        table1_panels,
        (8.2, 0.2),
        columns=1,
        title="Error right after pruning and after light retraining; bars: lowest to highest seed",
        title_size=9,
        table=table1,
    ),
    "theorem32": Sheet(
        "L-OBS Theorem 3.2: the error that accumulates through LeNet-300-100, beside its bound, "
        "layer by layer.",
        theorem_panels,
        (3.6, 3.8),
        (0.6, 0),
        share={"sharey": True},
    ),
}
