"""The rules of NAP's claims in docs/claims.md, and of what was seen of its tables and figures."""

from __future__ import annotations

import contextlib
import math
from itertools import pairwise
from statistics import fmean, median

from scipy import stats

from common.cells.library import table_name
from common.cells.record import Record
from figures import frame
from figures.evidence import (
    Evidence,
    Missing,
    Number,
    cell,
    claim,
    kept_by_layer,
    printed,
    shows,
    verdict,
)
from figures.values import Value, read

# points that two networks of a few thousand weights may differ by for no reason of the method's
NEAR = 0.2
LENET300, LENET5, CIFARNET = "LeNet-300-100", "LeNet-5", "CIFAR-Net"


def error(table: str, pattern: str) -> Number:
    """Test error of cells after their last epoch, in percent."""
    return cell("nap", table, pattern, "retrained_err_top1_pct")


def beyond_control(table: str, pattern: str, control: str) -> tuple[float | None, str]:
    """Points of error above the dense network that was given the same further training, and a
    sentence that says so; None where that network is not committed."""
    ours = error(table, pattern)
    try:
        trained = error(table, control)
    except Missing:
        return None, "the dense network with as much further training is not committed"
    gap = ours.mean - trained.mean
    return (
        gap,
        f"{gap:+.2f} against the dense network with as much further training ({trained}; "
        f"{trained.source})",
    )


@shows("Table 3")
@claim
def nap_seventy_seven_times() -> Evidence:
    """LeNet-300-100 compresses 77 times for 0.08 points and LeNet-5 200 times for 0.04 (Table 3);
    holds within 0.2 points of that, on the plain images and on shifted ones, and against a dense
    network with the same further training (not shown where it has not run)."""
    near, lines = [], []
    for network, short, ours, controls in (
        (
            LENET300,
            "lenet300-77x",
            "sgd-shift",
            ("lenet300-dense-tuned", "lenet300-dense-tuned-sgd-shift*"),
        ),
        (LENET5, "lenet5-200x", "slow", ("lenet5-dense-tuned", "lenet5-dense-tuned-slow")),
    ):
        said = printed("nap", "Table 3", "NAP", "delta_err_pct", model=network)
        times = cell("nap", "Table 3", f"{short}-nap-seed*", "compression_ratio_x")
        for how, control, images in (
            ("", controls[0], "plain images"),
            (f"-{ours}", controls[1], "images shifted by a pixel, ours"),
        ):
            more = cell("nap", "Table 3", f"{short}-nap{how}-seed*", "delta_top1_err_pct")
            gap, words = beyond_control("Table 3", f"{short}-nap{how}-seed*", control)
            near += [more.mean < said + NEAR, gap is not None and gap < said + NEAR]
            lines.append(
                f"{network}, {times.mean:.1f} times fewer weights, {images}: {more} points more "
                f"error than the dense network it came from (paper {said:.2f}); {words}; "
                f"{more.source}."
            )
    return verdict(*near), lines


@shows("Table 3")
@claim
def nap_cifarnet() -> Evidence:
    """CIFAR-Net compresses 15.6 times "with negligible accuracy drop", 0.17 points (Table 3, Sec.
    4.2); holds within half a point.
    """
    said = printed("nap", "Table 3", "NAP", "delta_err_pct", model=CIFARNET)
    more, dense = (
        cell("nap", "Table 3", "cifarnet-15.6x-nap-seed*", q)
        for q in ("delta_top1_err_pct", "orig_err_top1_pct")
    )
    gap, words = beyond_control("Table 3", "cifarnet-15.6x-nap-seed*", "cifarnet-dense-tuned")
    return (
        verdict(more.mean < said + 0.5, gap is not None and gap < said + 0.5),
        [
            f"CIFAR-Net, 15.6 times fewer weights: {more} points more error (paper {said:.2f}; "
            f"dense {dense} here, 18.43 there); {words}; {more.source}."
        ],
    )


@shows("Table 3", "Beyond: curves")
@claim
def nap_outperforms() -> Evidence:
    """NAP outperforms "previous pruning methods by large margins" (abstract; Table 3: ahead of
    magnitude, LWC, by 0.62 points on CIFAR-Net and of L-OBS by 0.12 on LeNet-300-100). Here: ahead
    of one global cut by magnitude on the same schedule, and by half of that."""
    lwc, other, nap = (
        printed("nap", "Table 3", m, "delta_err_pct", model=n)
        for m, n in (("LWC", CIFARNET), ("L-OBS", LENET300), ("NAP", LENET300))
    )
    margins = {
        LENET300: other - nap,
        CIFARNET: lwc - printed("nap", "Table 3", "NAP", "delta_err_pct", model=CIFARNET),
    }
    pairs = [
        (
            LENET300,
            f"{times:g} times",
            "curve",
            f"lenet300-{times:g}x-nap",
            f"lenet300-{times:g}x-magnitude",
        )
        for times in (10, 20, 40, 77.5, 120)
    ]
    pairs += [
        (
            LENET300,
            "77.5 times, shifted images and the long schedule",
            "3",
            "lenet300-77x-nap-sgd-shift-seed*",
            "lenet300-77x-magnitude-sgd-shift",
        ),
        (CIFARNET, "15.6 times", "3", "cifarnet-15.6x-nap-seed*", "cifarnet-15.6x-magnitude"),
    ]
    leads, lines = {LENET300: [], CIFARNET: []}, []
    for network, what, table, ours, rival in pairs:
        # Algorithm 1 to the letter, where it has run
        with contextlib.suppress(Missing):
            pruned(table, f"{ours}-every-step")
            ours, what = f"{ours}-every-step", f"{what}, statistics at every step,"
        try:
            one, two = (
                cell("nap", f"Table {table}", name, "delta_top1_err_pct") for name in (ours, rival)
            )
        except Missing as gap:
            lines.append(f"{network}, {what}: not committed, {gap}.")
            continue
        leads[network].append(two.mean - one.mean)
        lines.append(
            f"{network}, {what} fewer weights, points more error than dense: NAP {one}, global "
            f"magnitude {two}; {one.source}, {two.source}."
        )
    told = ", ".join(f"{margin:.2f} points on {network}" for network, margin in margins.items())
    lines.append(f"The paper's margins, at compressions that differ: {told}.")
    return verdict(
        *(min(found) > 0 for found in leads.values()),
        *(min(leads[network]) > margins[network] / 2 for network in leads),
    ), lines


def said_of(table: str, quantity: str, **where: str) -> list[Value]:
    """The paper's numbers of a quantity; where: model or method."""
    return [
        v
        for v in read("nap")
        if (v.table, v.quantity) == (table, quantity)
        and all(getattr(v, k) == w for k, w in where.items())
    ]


def pruned(table: str, name: str) -> list[Record]:
    """The prune records of a cell, all its seeds. Raises Missing."""
    found = frame.records("nap")
    mine = (found.table == table_name(table)) & (found.name == name) & (found.stage == "prune")
    if not mine.any():
        raise Missing(f"nap {table} {name}")
    return list(found[mine].record)


def _apart(one: dict[str, float], said: dict[str, float]) -> float:
    """Mean factor between two lists of kept fractions."""
    return math.exp(fmean(abs(math.log(one[name] / value)) for name, value in said.items()))


def _near(one: dict[str, float], said: dict[str, float]) -> bool:
    """Whether every layer is within a factor of 1.4 of the paper's."""
    return all(1 / 1.4 < one[name] / value < 1.4 for name, value in said.items())


def _told(kept: dict[str, float]) -> str:
    return " / ".join(f"{value:.3g}" for value in kept.values())


@shows("Table 6")
@claim
def nap_finds_the_ratios() -> Evidence:
    """NAP "automatically determines the compression ratio for each layer" (App. C, Table 6), which
    one cut by magnitude over all layers would not (App. A). Holds if NAP's layers come in the
    paper's order, each within a factor of 1.4 of its kept fraction, and if global magnitude on the
    same schedule leaves one that is not."""
    each, lines = [], []
    for network, found in (
        (
            LENET300,
            {
                "NAP": ("lenet300-77x-nap", "3"),
                "NAP, shifted images": ("lenet300-77x-nap-sgd-shift", "3"),
                "NAP, short run": ("lenet300-77.5x-nap", "curve"),
                "global magnitude, short run": ("lenet300-77.5x-magnitude", "curve"),
            },
        ),
        (LENET5, {"NAP": ("lenet5-200x-nap", "3"), "NAP, slow": ("lenet5-200x-nap-slow", "3")}),
    ):
        said = {
            dict(v.setting)["layer"]: v.number
            for v in said_of("Table 6", "remaining_pct", model=network, method="NAP")
        }
        del said["total"]
        kept = {words: kept_by_layer(pruned(table, name)) for words, (name, table) in found.items()}
        for words, one in kept.items():
            if words.startswith("NAP"):
                order = sorted(one, key=one.get) == sorted(said, key=said.get)
                each += [order, _near(one, said)]
        lines.append(
            f"{network}, percent kept in {', '.join(said)}: paper {_told(said)}; "
            + "; ".join(
                f"{words} {_told(one)} (a factor of {_apart(one, said):.2f} from the paper's)"
                for words, one in kept.items()
            )
            + "."
        )
        if "global magnitude, short run" in kept:
            each.append(not _near(kept["global magnitude, short run"], said))
    return verdict(*each), lines


@shows("Table 1")
@claim
def nap_channels() -> Evidence:
    """Channels: VGG-16 runs on 5.4 times fewer FLOPs for 2.3 points of top-1 error, ResNet-50 on
    2.3 times fewer for 2.0 (Table 1). Holds if the small networks lose no more, against the dense
    network they came from and against one with as much further training (not shown where that has
    not run)."""
    each, lines = [], []
    for network, ours, pattern, control in (
        ("VGG-16", "VGG-16 at a quarter width", "vgg16-5.4x-nap-long", "vgg16-dense-tuned-long"),
        ("ResNet-50", "ResNet-20", "resnet20-2x-nap-long", "resnet20-dense-tuned-long"),
    ):
        said, times = (
            printed("nap", "Table 1", "NAP", q, model=network)
            for q in ("delta_top1_err_pct", "speedup_x")
        )
        more, faster = (
            cell("nap", "Table 1", pattern, q) for q in ("delta_top1_err_pct", "speedup_x")
        )
        gap, words = beyond_control("Table 1", pattern, control)
        each += [more.mean <= said, gap is not None and gap <= said]
        lines.append(
            f"{ours}, JPEG CIFAR-10, {faster} times fewer MACs: {more} points more error than the "
            f"dense network it came from, which was trained for less (paper, {network} on "
            f"ImageNet: {said:.1f} at {times:.1f} times); {words}; {more.source}."
        )
    return verdict(*each), lines


@shows("Table 5")
@claim
def nap_settings() -> Evidence:
    """ "NAP is robust to the values of p and T" (Sec. 4.3): over twenty-fold ranges the error stays
    within 0.3 points (Table 5). Holds if the range is as small, in points and as a share of the
    error added."""
    said = [v.number for v in said_of("Table 5", "delta_top1_err_pct")]
    pairs = [v.cells.rpartition("|")[2] for v in said_of("Table 5", "delta_top1_err_pct")]
    each, lines = [], []
    for how, words in (
        ("", "statistics every tenth step"),
        ("-every-step", "statistics at every step"),
    ):
        try:
            ours = [
                cell("nap", "Table 5", pair.removesuffix("-every-step") + how, "delta_top1_err_pct")
                for pair in pairs
            ]
        except Missing as gap:
            lines.append(f"With {words}: not committed, {gap}.")
            continue
        more, theirs = [number.mean for number in ours], max(said) - min(said)
        spread = max(more) - min(more)
        each += [spread <= theirs, spread / fmean(more) <= 1.25 * theirs / fmean(said)]
        lines.append(
            f"VGG-16 at a quarter width, 5.4 times fewer MACs, {words}, points more error than "
            f"dense at the five (p, T): {', '.join(f'{value:.2f}' for value in more)}, a range of "
            f"{spread:.2f}, {100 * spread / fmean(more):.0f}% of their mean (paper {min(said)} to "
            f"{max(said)}, {100 * theirs / fmean(said):.0f}%); one seed each."
        )
    return verdict(*each), lines


@shows("Figure 5")
def nap_pruning_fraction() -> Evidence:
    """ "Small p has better results, especially when the sparsity is larger than 90%"; below it
    "there are negligible differences" (Fig. 5). Holds if at 93% removed accuracy falls with every
    larger p, and lies within 2 points at 80%."""
    return _figure(
        "figure-5", {p: f"cifarnet-p{p:g}" for p in (0.2, 0.4, 0.6, 0.8)}, "p", falling=True
    )


@shows("Figure 6")
def nap_tuning_steps() -> Evidence:
    """ "Larger T yields better results", and T "has almost no effect when sparsity is small" (Fig.
    6). Holds if at 93% removed accuracy grows with every larger T, and lies within 2 points at
    80%."""
    return _figure(
        "figure-6", {t: f"cifarnet-T{t}" for t in (10, 40, 120, 300)}, "T", falling=False
    )


def _figure(table: str, cells: dict[float, str], letter: str, falling: bool) -> Evidence:
    each, lines = [], []
    for how, words in (
        ("", "statistics every sixteenth step"),
        ("-every-step", "statistics at every step"),
    ):
        try:
            found = [pruned(table, name + how)[0] for name in cells.values()]
        except Missing as gap:
            lines.append(f"With {words}: not committed, {gap}.")
            continue
        high, low = ([_at(record, place) for record in found] for place in (0.93, 0.8))
        each += [sorted(high, reverse=falling) == high, max(low) - min(low) < 0.02]
        settings = ", ".join(f"{value:g}" for value in cells)
        lines.append(
            f"CIFAR-Net, {words}, {letter} = {settings}: accuracy after each step's training, on "
            "2,000 test images, read off at 93% removed "
            f"{', '.join(f'{100 * v:.1f}' for v in high)}, at 80% "
            f"{', '.join(f'{100 * v:.1f}' for v in low)}; "
            f"{', '.join(f'`{record.id}`' for record in found)}."
        )
    return verdict(*each), lines


def _at(record: Record, sparsity: float) -> float:
    """Accuracy after the training that follows a pruning, at a sparsity between two of them."""
    path = [(entry["amount"], entry["tuned"]) for entry in record.trajectory if "tuned" in entry]
    for (low, before), (high, after) in pairwise(path):
        if low <= sparsity <= high:
            return before + (after - before) * (sparsity - low) / (high - low)
    raise Missing(f"{record.id} at {sparsity:g}")


@shows("Figure 7")
def nap_same_channels() -> Evidence:
    """ "Channels generally have dark blue or white color": five settings of (p, T) keep the same
    channels of one network (Fig. 7). Holds if most are kept by all or by none, and at least twice
    as many as if each layer's were drawn at random."""
    rows = [row for row in study("survivors") if row["name"].startswith("features")]
    agreed = expected = channels = 0.0
    for row in rows:
        share = fmean(row["survives"]) / row["runs"]
        channels += len(row["survives"])
        agreed += sum(count in (0, row["runs"]) for count in row["survives"])
        expected += len(row["survives"]) * (share ** row["runs"] + (1 - share) ** row["runs"])
    return (
        verdict(agreed > channels / 2, agreed > 2 * expected),
        [
            f"VGG-16 at a quarter width: {100 * agreed / channels:.0f}% of {channels:,.0f} "
            f"channels are kept by all {rows[0]['runs']} runs or by none; "
            f"{100 * expected / channels:.0f}% if each layer's had been drawn at random; "
            "`survivors.json`."
        ],
    )


def study(name: str) -> list[dict]:
    """The rows of a study. Raises Missing."""
    found = frame.records("nap")
    if not (found.cell == name).any():
        raise Missing(f"{name}.json")
    return found[found.cell == name].record.iloc[0].trajectory


@shows("Figure 4")
def nap_magnitude_and_importance() -> Evidence:
    """ "A parameter's absolute value indeed has a strong correlation with its importance", yet a
    cut at the median over all layers takes 14% of conv5 by magnitude and 7% by importance; later
    the fully connected layers' importance "becomes closer to that of convolutional layer" (App. A,
    Fig. 4). Holds if Spearman is above 0.8 in each layer, both cuts are ordered so in each
    convolution before pruning, and the share taken from conv2 and fc1 is nearer to equal after
    pruning than before."""
    rows = {(row["moment"], row["name"]): row for row in study("lenet5-importance")}
    order = {
        key: float(stats.spearmanr(row["magnitude"], row["importance"]).statistic)
        for key, row in rows.items()
    }
    gap = {
        moment: abs(
            rows[moment, "fc1"]["below_median_importance"]
            - rows[moment, "conv2"]["below_median_importance"]
        )
        for moment in ("early", "late")
    }
    lines = []
    for moment, words in (("early", "before pruning"), ("late", "after 201x")):
        told = "; ".join(
            f"{name} {order[moment, name]:.2f}, {100 * row['below_median_magnitude']:.1f} and "
            f"{100 * row['below_median_importance']:.1f}"
            for (when, name), row in rows.items()
            if when == moment
        )
        lines.append(
            f"LeNet-5 {words}, Spearman of |w| and importance over 60 weights a layer, and percent "
            f"below the median over all layers by |w| and by importance: {told}; "
            "`lenet5-importance.json`."
        )
    convolutions = [
        row for (moment, name), row in rows.items() if moment == "early" and name.startswith("conv")
    ]
    return verdict(
        all(value > 0.8 for value in order.values()),
        gap["late"] < gap["early"],
        all(row["below_median_importance"] < row["below_median_magnitude"] for row in convolutions),
    ), lines


@shows("Figure 2", "Figure 3")
def nap_small_weights_go() -> Evidence:
    """Before pruning the weights of the first fully connected layer peak at zero (Fig. 2); after it
    those near zero are gone and the rest are larger, "around 0.03 where they are typically smaller
    than 0.01 before" (Fig. 3): at least three times."""
    rows = {row["moment"]: row for row in study("lenet5-importance") if row["name"] == "fc1"}
    middle = {moment: len(row["histogram"]) // 2 for moment, row in rows.items()}
    near = {
        moment: sum(row["histogram"][middle[moment] - 2 : middle[moment] + 3])
        / sum(row["histogram"])
        for moment, row in rows.items()
    }
    size = {moment: median(row["magnitude"]) for moment, row in rows.items()}
    peak = rows["early"]["histogram"][middle["early"]] == max(rows["early"]["histogram"])
    return (
        verdict(peak, near["late"] < near["early"] / 3, size["late"] > 3 * size["early"]),
        [
            f"LeNet-5, fc1: median |w| {size['early']:.3f} before pruning and {size['late']:.3f} "
            f"after (60 weights drawn); {100 * near['early']:.0f} and {100 * near['late']:.0f}% of "
            "the weights lie in the middle eighth of their range; `lenet5-importance.json`."
        ],
    )


@shows("Table 4")
def nap_imagenet() -> Evidence:
    """AlexNet and VGG-16 compress 25 times and ResNet-50 6.7 times without loss in accuracy (Table
    4).
    """
    found = [
        cell("nap", "Table 4", name, "delta_top1_err_pct")
        for name in ("alexnet-25x-paper", "vgg16-25x-paper")
    ]
    return verdict(*(number.mean < NEAR for number in found)), [
        f"{number} points more; {number.source}." for number in found
    ]


@shows("Beyond: time")
def nap_takes_a_nap() -> Evidence:
    """ "You can start NAP and then take a nap" (abstract): with nothing given but a bound of 0.1
    points it reaches the sizes of Table 3.
    """
    each, lines = [], []
    for network, name in ((LENET300, "lenet300-0.1"), (LENET5, "lenet5-0.1")):
        said = printed("nap", "Table 3", "NAP", "compression_ratio_x", model=network)
        times, more = (
            cell("nap", "Table nap-time", name, q)
            for q in ("compression_ratio_x", "delta_top1_err_pct")
        )
        each += [more.mean <= 0.1, times.mean >= said]
        lines.append(
            f"{network}: {times} times fewer weights (paper {said:.0f}), {more} points more error; "
            f"{times.source}."
        )
    return verdict(*each), lines
