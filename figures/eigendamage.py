"""EigenDamage's figures and tables, from its committed records and its printed values."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from figures import frame, style
from figures.frame import markdown
from figures.kinds import (
    BELOW,
    BESIDE,
    Curve,
    Diagonal,
    Image,
    Level,
    Looks,
    Note,
    Panel,
    Scatter,
    Sheet,
    Trajectory,
    colour_bar,
    plain,
)
from figures.style import BLUE, GREEN, GREY, ORANGE, PINK, SKY, VERMILION, Look, look
from figures.values import spread

ALONE = {  # residual branches pruned one by one, as in the paper; the others' channels are coupled
    f"{prefix}-{network}": f"{words}, convolutions alone, {budget}"
    for network, words in (("resnet32", "ResNet-32"), ("preresnet29-L1", "PreResNet-29 + L1"))
    for prefix, budget in (("cpu150", "150 steps"), ("cpu782", "782 steps"), ("cpu10", "10 epochs"))
}
NETWORKS = {
    "cpu-resnet32": "ResNet-32",
    "cpu-preresnet29-L1": "PreResNet-29 + L1",
    "cpu-vgg19": "VGG19, quarter width",
    "cpu-vgg19-L1": "VGG19 + L1, quarter width",
    "cpu10-vgg19": "VGG19, quarter width, 10 epochs",
    "lenet300": "LeNet-300-100",
    "lenet5": "LeNet-5",
    "lenet300-bn-L1": "LeNet-300-100, BatchNorm + L1",
    "lenet5-bn-L1": "LeNet-5, BatchNorm + L1",
    **ALONE,
}
VGG, VGG_L1 = "cpu-vgg19", "cpu-vgg19-L1"
JPEG = "CIFAR-10 (JPEG)"
STUDIES = "python -m eigendamage.studies"


def records(stage: str, tables: tuple[str, ...], *networks: str) -> pd.DataFrame:
    """The records of a stage in these tables, of these networks; UserError where there is none."""
    found = frame.records("eigendamage")
    mine = (found.stage == stage) & found.table.isin(tables) & found.network.isin(networks)
    return frame.some(found[mine], ", ".join(tables), "python -m eigendamage.finetune")


def curve(found: pd.DataFrame, x: str, y: str, looks: Looks | None = None) -> Curve:
    """A line a series through the means of each ratio, bars over its seeds."""
    return Curve(found.assign(x=found[x], y=found[y], at=found.unit_ratio), looks, "bars")


def dense(found: pd.DataFrame, column: str = "dense", label: str = "Dense network") -> Level:
    """The dense network's level."""
    return Level(found[column].iloc[0], label)


# -- Table 1 ---------------------------------------------------------------------------------------

TABLE1 = {  # and what the paper calls it
    "cpu-resnet32": "ResNet32",
    "cpu-preresnet29-L1": "PreResNet29+L1",
    "cpu-vgg19-L1": "VGG19+L1",
    "cpu10-vgg19": "VGG19",
    **{name: "ResNet32" if "resnet32" in name else "PreResNet29+L1" for name in ALONE},
}
OF_TABLE1 = {  # beside the methods of the registry
    "kron-obd-coupled": Look(SKY, "s", "Kron-OBD, coupled channels"),
    "kron-obs-coupled": Look(BLUE, "s", "Kron-OBS, coupled channels"),
    "kron-obd-released": Look(SKY, "D", "Kron-OBD, as in the released code"),
    "kron-obs-released": Look(BLUE, "D", "Kron-OBS, as in the released code"),
    "dense-tuned": Look(GREY, "o", "Dense, tuned alike"),
}


def look1(name: str) -> Look:
    """The look of a series of Table 1."""
    return OF_TABLE1.get(name) or look(name)


def printed1(network: str) -> pd.DataFrame:
    """Table 1's numbers as text, (method, ratio in percent) down, quantities across."""
    found = frame.printed("eigendamage", "Table 1")
    found = found[(found.model == TABLE1[network]) & (found.dataset == "CIFAR-10")]
    found = found.assign(prune_ratio_pct=found.prune_ratio_pct.fillna(""))
    index = ["method", "prune_ratio_pct"]
    return found.assign(value=found.value.replace("", "N/A")).pivot_table(
        "value", index, "quantity", aggfunc="first"
    )


def said(printed: pd.DataFrame, method: str, ratio: str, quantity: str) -> str:
    """One of those numbers, "N/A" where the paper prints none, empty where it has no such line."""
    known = (method, ratio) in printed.index and quantity in printed
    text = printed.at[(method, ratio), quantity] if known else ""
    return "" if pd.isna(text) else text


def table1() -> str:
    """The paper's columns are of its own networks, four times as wide and tuned for 150 epochs."""
    found = records("finetune", ("table-1",), *TABLE1)
    latency = frame.records("eigendamage")
    latency = frame.trajectory(latency[latency.table == "latency"].drop(columns="cell"))
    faster = {(r.cell, r.batch): f"{r.speedup:.2f}" for r in latency.itertuples()}
    lines = []
    for network in (n for n in TABLE1 if (found.network == n).any()):
        mine, printed = found[found.network == network], printed1(network)
        top = [NETWORKS[network], 0, "dense", "", f"{mine.dense.iloc[0]:.2f}", "", "", ""]
        lines.append([*top, said(printed, "baseline", "", "top1_dense_pct"), "", ""])
        keyed = mine.fillna({"unit_ratio": 0}).groupby(["unit_ratio", "series"])
        cells = [(-c["last"].mean(), n, c) for n, c in keyed]
        cells.sort(key=lambda one: (one[1][0], one[0], style.rank(one[1][1])))
        for _, (ratio, name), seeds in cells:
            label, at = look1(name).label, f"{100 * ratio:g}"
            first = seeds.cell.iloc[0]
            lines.append(
                [NETWORKS[network], at, label]
                + [spread(list(seeds[column])) for column in ("pruned", "last")]
                + [spread(list(100 - seeds[column])) for column in ("params", "macs")]
                + [", ".join(faster[first, b] for b in (1, 64) if (first, b) in faster)]
                + [
                    said(printed, label, at, quantity)
                    for quantity in ("test_acc_pct", "weights_reduction_pct", "flops_reduction_pct")
                ]
            )
    heads = ["network", "units removed %", "method", "before tuning %", "accuracy %"]
    heads += ["parameters removed %", "MACs removed %", "faster, batch 1, 64"]
    return markdown([*heads, "paper: accuracy %", "weights removed %", "FLOPs removed %"], lines)


def table1_panels() -> list[Panel | None]:
    """A row a network, a column a ratio: accuracy after fine-tuning against the MACs that are left;
    filled: ours, hollow: the paper's.
    """
    found = records("finetune", ("table-1",), *TABLE1)
    ratios = sorted(set(found.unit_ratio.dropna()))
    panels: list[Panel | None] = []
    for network in (n for n in TABLE1 if (found.network == n).any()):
        printed = printed1(network)
        for ratio in ratios:
            mine = found[(found.network == network) & (found.unit_ratio == ratio)]
            if mine.empty:
                panels.append(None)
                continue
            names = sorted(set(mine.series), key=style.rank)
            big = {"markersize": 7}
            looks = {name: replace(look1(name), line="none", more=big) for name in names}
            empty = big | {"markerfacecolor": "none"}
            hollow = {name: replace(own, label="", more=empty) for name, own in looks.items()}
            quantities = ("flops_reduction_pct", "test_acc_pct")
            theirs = pd.DataFrame(
                [
                    [said(printed, looks[name].label, f"{100 * ratio:g}", q) for q in quantities]
                    for name in names
                ],
                columns=["x", "y"],
            ).apply(pd.to_numeric, errors="coerce")
            theirs = theirs.assign(x=100 - theirs.x, series=names).dropna()
            panels.append(
                Panel(
                    f"{NETWORKS[network]}\n{100 * ratio:g}% of the units removed",
                    "MACs left [%, log scale]",
                    "Test accuracy [%]",
                    curve(mine, "macs", "last", looks),
                    Scatter(theirs, hollow),
                    dense(mine),
                    log="x",
                    round="x",
                    falls=True,
                    ylim=(0, 100),
                )
            )
    return panels


# -- Figures 2 to 8 --------------------------------------------------------------------------------


def fig2_panels() -> list[Panel]:
    """|F_ij| / √(F_ii F_jj), the largest of each 4 x 4 entries; above, how much of F is off the
    diagonal.
    """
    bases = {
        "parameters": ("Parameters' basis", "Weight"),
        "kfe": ("Kronecker-factored eigenbasis", "Direction"),
    }
    remedy = f"{STUDIES} fisher-basis"
    rows = frame.study("eigendamage", "fisher-basis", remedy).trajectory
    with np.load(frame.stored("eigendamage", "fisher-basis.npz", remedy)) as stored:
        pictures = {row["basis"]: stored[row["basis"]] / 255 for row in rows}
    panels = []
    for row in rows:
        (title, x), size = bases[row["basis"]], row["size"]
        title += f"\n{100 * row['off_diagonal_energy']:.0f}% of ‖F‖² off the diagonal, "
        title += f"mean correlation {row['mean_correlation']:.3f}"
        more = {"cmap": "magma", "vmin": 0, "vmax": 1, "extent": (0, size, size, 0)}
        panels.append(Panel(title, x, "", Image(pictures[row["basis"]], more=more)))
    return panels


def fig4_panels() -> list[Panel]:
    """One line a method, the legend in the order of accuracy right after pruning."""
    found = records("prune", ("figure-6",), VGG)
    found = found[found.unit_ratio == 0.5].drop_duplicates("series")
    found = found.sort_values("series", key=lambda names: names.map(style.rank), kind="stable")
    found = found.sort_values("pruned", ascending=False, kind="stable")
    layers = pd.DataFrame(
        [
            {
                "series": one.series,
                "x": layer["name"].removeprefix("features.conv"),
                "y": 100 * layer["kept"] / layer["total"],
            }
            for one in found.itertuples()
            for layer in one.record.layers
            if "conv" in layer["name"]
        ]
    )
    looks = {}
    for one in found.itertuples():
        own = look(one.series)
        looks[one.series] = Look(
            own.colour, own.marker, f"{own.label}, {one.pruned:.1f}%", own.line
        )
    return [
        Panel(
            f"{NETWORKS[VGG]}, {JPEG}, 50% of the units removed",
            "Convolution, stage_number",
            "Weights left, bases included [%]",
            Trajectory(layers, looks),
            legend={"title": "Method, test accuracy before tuning", **BESIDE},
        )
    ]


FIG5 = {
    "eigendamage": Look(GREEN, "*", "EigenDamage"),
    "depthwise": Look(SKY, "o", "EigenDamage, depthwise (Frobenius)"),
    "times": Look(ORANGE, "s", "CP, ranks 0.25 to 2 times the original", "--"),
    "ranks": Look(VERMILION, "v", "CP, ranks 4 to 32", ":"),
}


def beside_cp(stage: str) -> pd.DataFrame:
    """EigenDamage by ratio and CP by its rank, with what each is drawn as."""
    found = records(stage, ("figure-5",), VGG)
    found = found[found.method.isin(["cp", "eigendamage"])]
    options = found.record.map(lambda record: record.spec["options"])
    cp = found.method == "cp"
    kind = options.map(lambda o: "ranks" if o.get("absolute") else "times").where(
        cp, options.map(lambda o: "depthwise" if o.get("depthwise") else "eigendamage")
    )
    rank = options.map(lambda o: o.get("rank"))
    return found.assign(series=kind, unit_ratio=rank.where(cp, found.unit_ratio).astype(float))


def fig5_panels() -> list[Panel]:
    """Speed-up in multiply-accumulates, bases included."""
    tuned, pruned = beside_cp("finetune"), beside_cp("prune")
    times = {"xticks": [1, 2, 3, 5, 10, 20], "xticklabels": ["1", "2", "3", "5", "10", "20"]}
    x = "Speed-up [dense MACs / MACs]"
    return [
        Panel(
            "",
            x,
            "Test accuracy after fine-tuning [%]",
            curve(tuned, "speedup", "last", FIG5),
            dense(tuned),
            log="x",
            legend={"loc": "lower left", "fontsize": 8},
            **times,
        ),
        Panel(
            "",
            x,
            "Training loss before fine-tuning [nats, log scale]",
            curve(pruned, "speedup", "loss_pruned", FIG5),
            dense(pruned, "loss_dense", ""),
            log="xy",
            yticks=[0.5, 1, 2, 5],
            yticklabels=["0.5", "1", "2", "5"],
            **times,
        ),
    ]


def fig6_panels() -> list[Panel]:
    """Against the ratio that was asked for, and against the multiply-accumulates that are left."""
    found = records("prune", ("figure-6",), VGG)
    found = found.assign(units=100 * found.unit_ratio, gone=100 - found.macs)
    losses = {
        "yticks": [0.25, 0.5, 1, 2, 3, 4, 5],
        "yticklabels": ["0.25", "0.5", "1", "2", "3", "4", "5"],
    }
    uniform = Level(math.log(10), "Uniform prediction, ln 10", "#999999", "--")
    return [
        Panel(
            "",
            label,
            y,
            curve(found, x, "loss_pruned"),
            dense(found, "loss_dense"),
            uniform,
            log="y",
            legend=None if y else BESIDE,
            **losses,
        )
        for x, label, y in (
            ("units", "Units removed [%]", "Training loss [nats, log scale]"),
            ("gone", "Multiply-accumulates removed [%]", ""),
        )
    ]


def fig8_panels() -> list[Panel]:
    """One marker a step, after its fine-tuning; weights left and multiply-accumulates left, both
    logarithmic.
    """
    ends = records("finetune", ("figure-8",), VGG_L1)
    steps = records("prune", ("figure-8",), VGG_L1).set_index("cell").record
    panels = []
    for kept, whole, label in (
        ("kept_params", "dense_params", "Weights left [%]"),
        ("kept_macs", "dense_macs", "Multiply-accumulates left [%]"),
    ):
        paths = []
        for one in ends.itertuples():
            between = pd.DataFrame(steps[one.cell].trajectory)
            left = 100 * between[kept] / one.record.achieved[whole]
            tuned = [one.dense, *100 * between.tuned[:-1], one.last]
            paths.append(pd.DataFrame({"x": [100, *left], "y": tuned, "series": one.method}))
        panels.append(
            Panel(
                "",
                label,
                "" if panels else "Test accuracy after the step's fine-tuning [%]",
                Trajectory(pd.concat(paths)),
                log="x",
                falls=True,
                finish=_plain_x,
                legend=None if panels else {"loc": "lower left"},
            )
        )
    return panels


def _plain_x(ax: Axes) -> None:
    """Numbers at the powers of ten and, in small, between them as matplotlib sees fit."""
    minor = ax.xaxis.get_minor_formatter()
    plain(ax.xaxis, None)
    ax.xaxis.set_minor_formatter(minor)


# -- latency, prediction, MNIST --------------------------------------------------------------------


def latency_panels() -> list[Panel]:
    """One panel a batch size; on the dotted diagonal a network is as much faster as it has fewer
    multiply-accumulates.
    """
    found = frame.records("eigendamage")
    found = frame.some(found[found.table == "latency"], "latency", f"{STUDIES} latency")
    fills = dict(zip(found.cell, ("full", "none", "left", "right"), strict=False))
    panels = []
    for batch in (1, 64):
        points, reach = [], [1.0]
        named: set[str] = set()
        for one in found.itertuples():
            rows = pd.DataFrame(one.record.trajectory)
            rows = rows[rows.batch == batch]
            looks = {}
            for method in dict.fromkeys(rows.method):
                own = look(method)
                label = "" if own.label in named else own.label
                looks[method] = Look(
                    own.colour, own.marker, label, more={"fillstyle": fills[one.cell]}
                )
                named.add(own.label)
            shown = pd.DataFrame({"x": rows.macs_ratio, "y": rows.speedup, "series": rows.method})
            points.append(Scatter(shown, looks))
            reach.append(rows.macs_ratio.max())
        names = [cell.removeprefix("latency-") for cell in fills]
        keys = {
            name: Look("#444444", "o", NETWORKS.get(name, name), more={"fillstyle": fill})
            for name, fill in zip(names, fills.values(), strict=True)
        }
        empty = pd.DataFrame({"x": np.nan, "y": np.nan, "series": names})
        panels.append(
            Panel(
                f"Batch of {batch}, one thread",
                "Dense MACs / MACs",
                "" if panels else "Dense latency / latency",
                *points,
                Scatter(empty, keys),
                Diagonal((1, max(reach)), "As many times faster"),
                Level(1, "", "#BBBBBB", "-"),
                log="xy",
                round="xy",
                legend=BESIDE if panels else None,
            )
        )
    return panels


FACTORS = {"channel": "A over channels (the paper's)", "patch": "A over whole patches"}


def predictions() -> pd.DataFrame:
    """A line a layer, ratio and kind of factor."""
    found = pd.DataFrame(
        frame.study("eigendamage", "prediction", f"{STUDIES} prediction").trajectory
    )
    return found.assign(expansion=found.gradient + found.fisher)


def prediction() -> str:
    """Medians over the layers, and quartiles, of what stands between score and measurement."""
    found = predictions()
    lines = []
    for factor in FACTORS:
        for ratio, rows in found[found.factor == factor].groupby("ratio"):
            ratios = (
                rows.fisher / rows.score,
                rows.measured / rows.score,
                rows.expansion / rows.measured,
            )
            told = []
            for one in ratios:
                low, middle, high = np.quantile(one, [0.25, 0.5, 0.75], method="weibull")
                told.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
            lines.append([factor, f"{100 * ratio:g}%", *told, len(rows)])
    heads = ["A", "directions removed", "exact Fisher / score", "measured / score"]
    return markdown([*heads, "(gradient + Fisher) / measured", "layers"], lines)


def prediction_panels() -> list[Panel]:
    """A panel a factor; a point a layer and ratio. On the line prediction and measurement agree."""
    pale = {"alpha": 0.75}
    looks = {
        "score": Look(VERMILION, "v", "Score, ½ δᵀ(S⊗A)δ", more=pale),
        "fisher": Look(SKY, "s", "Exact Fisher, ½ δᵀFδ", more=pale),
        "expansion": Look(BLUE, "o", "Exact Fisher and gradient, gᵀδ + ½ δᵀFδ", more=pale),
    }
    panels = []
    for factor, title in FACTORS.items():
        rows = predictions()
        rows = rows[rows.factor == factor]
        shown = rows[rows.measured > 0].melt(["measured"], list(looks), "series", "y")
        shown = shown[shown.y > 0].rename(columns={"measured": "x"})
        lost = (rows.measured <= 0).sum()
        panels.append(
            Panel(
                title,
                "Measured increase of the loss [nats]",
                "" if panels else "Predicted increase [nats]",
                Scatter(shown, looks),
                Diagonal(),
                Note(f"not shown: {lost} removals that lower the loss"),
                log="xy",
                legend=None if panels else {"loc": "upper left"},
            )
        )
    return panels


LENETS = ("lenet300", "lenet5", "lenet300-bn-L1", "lenet5-bn-L1")
FOLDED = Look(PINK, "P", "EigenDamage, bases folded (ours)", "-.")


def mnist_runs(stage: str) -> tuple[pd.DataFrame, Looks]:
    """Table mnist's records of a stage and the folded ones, and their looks in order."""
    found = records(stage, ("mnist",), *LENETS)
    folds = frame.records("eigendamage")
    folds = folds[(folds.stage == stage) & (folds.table == "fold") & folds.network.isin(LENETS)]
    folds = folds[folds.series == "eigendamage"].assign(series="folded")
    looks = {name: look(name) for name in sorted(set(found.series), key=style.rank)}
    return pd.concat([found, folds]), {**looks, "folded": FOLDED}


def mnist() -> str:
    """Accuracy right after pruning → after fine-tuning, means over the seeds, and the parameters
    left, by the ratio.
    """
    found, looks = mnist_runs("finetune")
    ratios = sorted(set(found.unit_ratio))
    lines = []
    for network in (n for n in LENETS if (found.network == n).any()):
        for name in looks:
            ran = found[(found.network == network) & (found.series == name)].groupby("unit_ratio")
            if not len(ran):
                continue
            mean, seeds = ran[["pruned", "last", "params"]].mean(), sorted(set(ran.size()))
            told = {
                ratio: f"{one.pruned:.1f} → {one['last']:.1f} ({one.params:.0f}%)"
                for ratio, one in mean.iterrows()
            }
            first = [NETWORKS[network], looks[name].label, " to ".join(map(str, seeds))]
            lines.append([*first, *(told.get(ratio, "") for ratio in ratios)])
    heads = ["network", "method", "seeds", *(f"{100 * ratio:g}%" for ratio in ratios)]
    return markdown(heads, lines)


def mnist_panels() -> list[Panel]:
    """One row a network; logarithmic in the error, so that small differences near the top can be
    seen.
    """
    stages = {stage: mnist_runs(stage) for stage in ("prune", "finetune")}
    level = stages["prune"][0]
    panels = []
    for network in (n for n in LENETS if (level.network == n).any()):
        for stage, value, what in (
            ("prune", "pruned", "right after pruning"),
            ("finetune", "last", "after fine-tuning, last epoch"),
        ):
            found, looks = stages[stage]
            mine = found[found.network == network]
            panels.append(
                Panel(
                    f"{NETWORKS[network]}\n{what}",
                    "Parameters left [%, log scale]",
                    "",
                    curve(mine, "params", value, looks),
                    dense(level[level.network == network]),
                    log="x",
                    falls=True,
                    error_scale=True,
                    finish=lambda ax: plain(ax.xaxis, None),
                    legend=BESIDE if stage == "finetune" else None,
                )
            )
    return panels


FIGURES = {
    "2": Sheet(
        "EigenDamage Fig. 2: the Fisher of an MLP's second layer on MNIST, in the parameters' "
        "basis and in the Kronecker-factored eigenbasis.",
        fig2_panels,
        (4.9, 5.4),
        title="Exact Fisher of MLPNet's second layer (40 → 20) on MNIST",
        finish=colour_bar("Normalised magnitude, largest of 4 × 4 entries"),
    ),
    "4": Sheet(
        "EigenDamage Fig. 4: how many weights each convolution of VGG19 keeps when half of all "
        "units go.",
        fig4_panels,
        (9.4, 4.2),
    ),
    "5": Sheet(
        "EigenDamage Fig. 5: accuracy after fine-tuning, and training loss before it, against "
        "speed-up, beside CP-decomposition.",
        fig5_panels,
        (5.3, 4.2),
        title=f"{NETWORKS[VGG]}, {JPEG}",
    ),
    "6": Sheet(
        "EigenDamage Fig. 6: training loss right after one-pass pruning, before any fine-tuning, "
        "beside the dense network's.",
        fig6_panels,
        (5.6, 4.2),
        share={"sharey": True},
        title=f"{NETWORKS[VGG]}, {JPEG}: loss after pruning, no fine-tuning",
    ),
    "8": Sheet(
        "EigenDamage Fig. 8: iterative pruning, half of what is left at a time with fine-tuning "
        "between: accuracy against what is removed.",
        fig8_panels,
        (5.4, 4.2),
        share={"sharey": True},
        title=f"{NETWORKS[VGG_L1]}, {JPEG}: six times half of the units, at most half of a layer",
    ),
    "latency": Sheet(
        "EigenDamage's wall-clock speed-up: every pruned network's latency against its dense "
        "parent's, beside the ratio of operations.",
        latency_panels,
        (5.6, 4.4),
        share={"sharey": True},
    ),
    "mnist": Sheet(
        "EigenDamage on MNIST: LeNets at five ratios, accuracy right after pruning and after "
        "fine-tuning, against the parameters left.",
        mnist_panels,
        (5.5, 3.9),
        columns=2,
        table=mnist,
    ),
    "prediction": Sheet(
        "EigenDamage's predicted increase of the loss beside the measured one, a layer of VGG19 at "
        "a time: the score, and the exact expansion.",
        prediction_panels,
        (5, 4.6),
        share={"sharex": True, "sharey": True},
        title=f"{NETWORKS[VGG_L1]}, {JPEG}: one layer at a time, 20% and 50% of its directions "
        "removed",
        table=prediction,
    ),
    "table1": Sheet(
        "EigenDamage Table 1 at cpu scale: accuracy, parameters and operations removed, and "
        "measured speed-up, ours beside the paper's.",
        table1_panels,
        (4.6, 3.0),
        (0, 1.2),
        columns=2,
        title="Filled: ours, JPEG copy of CIFAR-10, narrow networks, 150 steps of tuning, channels "
        "coupled across\nadditions where the title does not say otherwise. Hollow: the paper's, "
        "each convolution alone,\nfour times as wide, 150 epochs of tuning",
        title_size=9,
        legend=BELOW,
        table=table1,
    ),
}
