"""python -m figures.claims: the evidence in docs/claims.md, written from the committed records between its markers.

A block starts with `<!-- claim: NAME VERDICT -->` and ends with `<!-- end -->`. The verdict is computed by the rule of that claim; where
the records say another than the essay's marker does, writing stops, so that the prose is read again by a person.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

from scipy import stats

from common.errors import Parser, UserError
from figures import paired
from figures.compare import write_file
from figures.evidence import FAILS, HOLDS, OPEN, PART, Missing, cell, field, job, percent, printed, stat, table, verdict
from figures.records import Comparison
from figures.style import look
from figures.values import ROOT

ESSAY = ROOT / "docs" / "claims.md"
BLOCK = re.compile(r"(<!-- claim: (\S+) (\S+) -->\n).*?(<!-- end -->)", re.S)
WORDS = {HOLDS: "Holds.", PART: "Holds in part.", FAILS: "Does not hold here.", OPEN: "Open: too few records."}


Evidence = tuple[str, list[str]]
CLAIMS: dict[str, Callable[[], Evidence]] = {}


def claim(function: Callable[[], Evidence]) -> Callable[[], Evidence]:
    """Register under the function's name with dashes."""
    CLAIMS[function.__name__.replace("_", "-")] = function
    return function


# -- L-OBS ------------------------------------------------------------------------------------------------------------------


@claim
def lobs_little_is_lost() -> Evidence:
    """Right after pruning L-OBS loses little where magnitude and OBD collapse; holds if it is within 2 points of dense and both others
    are at least 5 points worse."""
    dense, walk = (cell("lobs", "Table 1", "lenet300-8.4-l-obs", q) for q in ("orig_err_top1_pct", "err_after_pruning_top1_pct"))
    others = {name: cell("lobs", "Table 1", f"lenet300-8.4-{name}", "err_after_pruning_top1_pct") for name in ("lwc", "obd")}
    said = {"lwc": printed("lobs", "Table 1", "LWC", "err_after_pruning_top1_pct", model="LeNet-300-100"),
            "obd": printed("lobs", "Table 1", "OBD", "err_after_pruning_top1_pct", model="LeNet-300-100")}
    lines = [f"LeNet-300-100 with the stated fractions a layer (8.4% kept), test error in percent right after pruning: L-OBS {walk} "
             f"(paper {printed('lobs', 'Table 1', 'L-OBS', 'err_after_pruning_top1_pct', model='LeNet-300-100'):.2f}), dense {dense}; "
             f"{walk.source}."]
    lines += [f"{name}: {number} (paper {said[key]:.2f}); {number.source}." for (key, number), name in
              zip(others.items(), ("Magnitude per layer", "OBD with the diagonal Fisher"), strict=True)]
    return verdict(walk.mean - dense.mean < 2, all(n.mean - walk.mean > 5 for n in others.values())), lines


@claim
def lobs_light_retraining() -> Evidence:
    """Light retraining brings the dense error back; holds if the walk ends within 0.2 points of dense after the stated iterations."""
    names = {"lenet300-8.4-l-obs": "the paper's walk", "lenet300-8.4-l-obs-joint": "the joint optimum",
             "lenet300-7.15-l-obs-ours": "joint, re-scored, pruned inputs", "lenet300-8.4-lwc": "magnitude per layer"}
    found = {name: cell("lobs", "Table 1", name, "retrained_err_top1_pct") for name in names}
    dense = cell("lobs", "Table 1", "lenet300-8.4-l-obs", "orig_err_top1_pct")
    lines = [f"LeNet-300-100, test error in percent after 510 iterations (dense {dense}; paper: L-OBS 1.82, dense 1.76):"]
    lines += [f"{words}: {found[name]}; {found[name].source}." for name, words in names.items()]
    return verdict(found["lenet300-8.4-l-obs"].mean - dense.mean < 0.2, found["lenet300-8.4-l-obs-joint"].mean - dense.mean < 0.2,
                   found["lenet300-7.15-l-obs-ours"].mean - dense.mean < 0.2), lines


@claim
def lobs_one_and_a_half_percent() -> Evidence:
    """1.5% of LeNet-300-100 is enough: for the printed error, for the dense error within 0.2 points, and ahead of magnitude."""
    error, magnitude = (cell("lobs", "Table 1", f"lenet300-1.5-{m}-iterative-seed*", "retrained_err_top1_pct") for m in ("l-obs", "lwc"))
    dense = cell("lobs", "Table 1", "lenet300-1.5-l-obs-iterative-seed*", "orig_err_top1_pct")
    said = printed("lobs", "Table 1", "L-OBS (iterative)", "retrained_err_top1_pct", model="LeNet-300-100")
    return (verdict(error.mean <= said, error.mean - dense.mean < 0.2, error.mean < magnitude.mean),
            [f"1.5% kept, 643 iterations: {error} (paper {said:.2f}, dense here {dense}); {error.source}.",
             f"Magnitude on the same schedule and images: {magnitude}; {magnitude.source}."])


@claim
def lobs_error_bound() -> Evidence:
    """Theorem 3.2's bound is above the measured error in every layer, and says how large it is; in part if it is over ten times above."""
    rows = {m: [field("lobs", f"lenet300-theorem.json?method={m}&name=fc3#{key}") for key in ("accumulated", "bound", "spectral_bound")]
            for m in ("l-obs", "l-obs-joint")}
    lines = [f"RMS distance of LeNet-300-100's outputs at the paper's fractions, {words}: measured {one[0]:.1f}, bound {one[1]:,.0f} "
             f"(with spectral norms {one[2]:,.0f}); `lenet300-theorem.json`." for words, one in
             zip(("the walk", "the joint optimum"), rows.values(), strict=True)]
    return verdict(all(b >= a for a, b, _ in rows.values()), all(b <= 10 * a for a, b, _ in rows.values())), lines


@claim
def lobs_beats_net_trim() -> Evidence:
    """At a like fraction of the middle layer L-OBS errs less than Net-Trim; in part where the lead is less than half the paper's."""
    trim = [field("lobs", f"lenet300-net-trim.json?method=net-trim&asked=0.6#{k}") for k in ("kept*100", "error*100")]
    walk = [field("lobs", f"lenet300-net-trim.json?method=l-obs&kept=0.074&samples=1000#{k}") for k in ("kept*100", "error*100")]
    said = [printed("lobs", "Table 2", m, "pruned_err_pct", kept_pct="7.4") for m in ("Net-Trim", "L-OBS")]
    return (verdict(walk[1] < trim[1], trim[1] - walk[1] > (said[0] - said[1]) / 2),
            [f"Middle layer of LeNet-300-100, 1,000 samples: Net-Trim solved to convergence {trim[1]:.2f}% error at {trim[0]:.1f}% kept "
             f"(paper {said[0]:.2f}% at 7.4%), L-OBS's walk {walk[1]:.2f}% at {walk[0]:.1f}% (paper {said[1]:.2f}%); "
             "`lenet300-net-trim.json`."])


# -- WoodFisher -------------------------------------------------------------------------------------------------------------


@claim
def woodfisher_one_shot_lead() -> Evidence:
    """One-shot on ResNet-20 WoodFisher leads global magnitude by about 5 and 10 points at 70 and 80%."""
    lines, leads = [], []
    for amount, said in ((0.7, 5), (0.8, 10)):
        ours, other = (cell("woodfisher", "Figure 3a", f"{m}-{amount:g}-seed*", "top1_pruned_pct")
                       for m in ("woodfisher", "magnitude-global"))
        leads.append(ours.mean - other.mean > said / 2)
        lines.append(f"ResNet-20, CIFAR-10 as JPEG, {100 * amount:g}% removed, nothing trained after: WoodFisher {ours}, global magnitude "
                     f"{other}, a lead of {ours.mean - other.mean:.1f} points (paper: about {said}); {ours.source}, {other.source}.")
    return verdict(*leads), lines


@claim
def woodfisher_lead_after_fine_tuning() -> Evidence:
    """The lead over global magnitude survives fine-tuning on equal terms; holds where it exceeds the larger deviation (or, with one seed,
    half a point) at 90% in every comparison."""
    leads = {s: printed("woodfisher", "Table 1", "WoodFisher", "top1_pruned_pct", sparsity_pct=s)
             - printed("woodfisher", "Table 1", "Global Magnitude", "top1_pruned_pct", sparsity_pct=s)
             for s in ("80.00", "90.00", "95.00", "98.00")}
    lines, each = [], []
    for name in ("resnet20-cifar10-jpeg", "lenet300-mnist", "digits_cnn-digits"):
        ours, other = (stat(name, m, 0.9) for m in ("woodfisher", "magnitude-global"))
        gap, noise = ours.mean - other.mean, max(ours.std or 0.0, other.std or 0.0) or 0.005
        each.append(gap > noise)
        lines.append(f"{name}, 90% removed, fine-tuned alike: WoodFisher {percent(ours)}, global magnitude {percent(other)}; "
                     f"figures/results/{name}.")
    lines.append("The paper's leads on ResNet-50 and ImageNet after gradual pruning (Table 1), in points: "
                 + ", ".join(f"{lead:.2f} at {float(s):g}%" for s, lead in leads.items()) + ".")
    return verdict(*each), lines


@claim
def woodfisher_gradual_lead() -> Evidence:
    """Pruned gradually on one schedule WoodFisher leads global magnitude; holds where it does on both networks, and where a t-test
    over the seeds says so (5%) on the one that has them."""
    found = {m: cell("woodfisher", "Figure 6", f"lenet5-{m}-0.98-seed*", "top1_pruned_pct") for m in ("woodfisher", "magnitude-global")}
    ours, other = found.values()
    p = float(stats.ttest_ind(ours.values, other.values).pvalue) if min(len(n.values) for n in found.values()) > 1 else 1.0
    leads = [ours.mean > other.mean, p < 0.05]
    lines = [f"LeNet-5, MNIST, to 98% in five prunings: WoodFisher {ours}, global magnitude {other}; two-sided t-test p = {p:.2g}; "
             f"{ours.source}, {other.source}."]
    for amount in (0.8, 0.9, 0.95, 0.98):
        with contextlib.suppress(Missing):
            ours, other = (cell("woodfisher", "Figure 6", f"resnet20-{m}-{amount:g}-seed*", "top1_pruned_pct")
                           for m in ("woodfisher", "magnitude-global"))
            leads.append(ours.mean > other.mean)
            lines.append(f"ResNet-20, CIFAR-10 as JPEG, to {100 * amount:g}% in four prunings and half an epoch: WoodFisher {ours}, global "
                         f"magnitude {other}; {ours.source}, {other.source}.")
    return verdict(*leads), lines


@claim
def woodfisher_beats_dpf() -> Evidence:
    """From one dense network WoodFisher ends above DPF."""
    ours, other = (cell("woodfisher", "Figure 6", f"lenet5-{m}-0.98-seed*", "top1_pruned_pct") for m in ("woodfisher", "dpf"))
    said = [printed("woodfisher", "Table 2", m, "top1_pruned_pct") for m in ("WoodFisher", "DPF")]
    return (verdict(ours.mean > other.mean),
            [f"LeNet-5, MNIST, to 98%, as many epochs: WoodFisher {ours}, DPF {other} (paper, ResNet-50 at 82.7%: {said[0]:.2f} and "
             f"{said[1]:.2f}); {ours.source}, {other.source}."])


@claim
def woodfisher_beats_kfac() -> Evidence:
    """WoodFisher prunes better than K-FAC: on the paper's MLPNet, and on equal terms elsewhere."""
    lines, each = [], []
    for amount in (0.8, 0.9, 0.95, 0.98):
        ours, other = (cell("woodfisher", "Figure 5b", f"{m}-{amount:g}-seed*", "top1_pruned_pct") for m in ("woodfisher", "kfac-pi"))
        each.append(ours.mean > other.mean)
        lines.append(f"MLPNet, {100 * amount:g}% removed, nothing trained after: WoodFisher {ours}, K-FAC with π {other}; {ours.source}.")
    for name in ("lenet300-mnist", "digits_cnn-digits"):
        ours, other = (stat(name, m, 0.9, "accuracy_pruned") for m in ("woodfisher", "kfac-prune"))
        each.append(ours.mean > other.mean)
        lines.append(f"{name}, 90% removed, nothing trained after: WoodFisher {percent(ours)}, K-FAC {percent(other)}; "
                     f"figures/results/{name}.")
    return verdict(*each), lines


@claim
def woodtaylor_above_dense() -> Evidence:
    """On a network of two epochs WoodTaylor ends about 5 points above the dense network; in part where it does so by less."""
    one = cell("woodfisher", "Figure 7", "woodtaylor-network-0.5-seed*", "top1_pruned_pct")
    dense = cell("woodfisher", "Figure 7", "woodtaylor-network-0.5-seed*", "top1_dense_pct")
    layer = cell("woodfisher", "Figure 7", "woodtaylor-0.5-seed*", "top1_pruned_pct")
    return (verdict(one.mean > dense.mean, one.mean - dense.mean > 4, layer.mean > dense.mean),
            [f"MLPNet after two epochs, 50% removed, dense {dense.mean:.2f}: one block over the network {one}, a block a layer {layer}; "
             f"{one.source}."])


# -- EigenDamage ------------------------------------------------------------------------------------------------------------


def _unit_comparisons() -> list[tuple[str, str, Comparison]]:
    """(network, where its records lie, comparison) of the criteria."""
    own = (("LeNet-300-100 on MNIST", "mnist", "lenet300"), ("LeNet-5 on MNIST", "mnist", "lenet5"), ("ResNet-32", "1", "resnet32"),
           ("PreResNet-29", "1", "preresnet29"), ("VGG19 at a quarter width", "1", "vgg19:width=0.25"))
    return [("digits", "figures/results/digits_cnn-digits", job("digits_cnn-digits")),
            *((network, "eigendamage/results", table("eigendamage", name, model)) for network, name, model in own)]


@claim
def eigendamage_equal_ratio() -> Evidence:
    """At the same fraction of units removed EigenDamage is the most accurate of the five criteria."""
    lines, each = [], []
    for words, where, comparison in _unit_comparisons():
        (ranking,) = (r for r in paired.rankings(comparison) if r.group == "units")
        each.append(ranking.ranks[0][0] == "eigendamage")
        told = ", ".join(f"{look(m).label} {rank:.1f}" for m, rank in ranking.ranks)
        lines.append(f"{words}, mean rank over {len(ranking.amounts)} ratios after fine-tuning: {told}; {where}.")
    return verdict(*each), lines


@claim
def eigendamage_equal_cost() -> Evidence:
    """At equal kept weights and at equal kept MACs EigenDamage is the most accurate."""
    lines, each = [], []
    for network, where, comparison in _unit_comparisons():
        for cost, words in paired.COSTS.items():
            curves = paired.at_equal_cost(comparison, "units", cost)
            for level in (level for level in (0.6, 0.4, 0.2) if level in curves.get("eigendamage", {})):
                found = {m: at[level].mean for m, at in curves.items() if level in at}
                each.append(max(found, key=found.get) == "eigendamage")
                told = ", ".join(f"{look(m).label} {100 * a:.1f}" for m, a in sorted(found.items(), key=lambda i: -i[1]))
                lines.append(f"{network}, {100 * level:g}% of {words}, percent, read off each seed's curve: {told}; {where}.")
    name = "cpu-resnet32-0.9-{}-seed*"
    rows = {m: [cell("eigendamage", "Table 1", name.format(m), q) for q in ("test_acc_pct", "weights_reduction_pct", "flops_reduction_pct")]
            for m in ("eigendamage", "kron-obd", "kron-obs", "c-obs")}
    mine = rows.pop("eigendamage")
    best = max(rows, key=lambda m: rows[m][0].mean)
    for method, row in (("eigendamage", mine), (best, rows[best])):
        lines.append(f"ResNet-32, JPEG CIFAR-10, ratio 90%, 150 steps of tuning, {look(method).label}: {row[0]}% with "
                     f"{100 - row[1].mean:.1f}% of the parameters and {100 - row[2].mean:.1f}% of the MACs; {row[0].source}.")
    each += [mine[0].mean > rows[best][0].mean, mine[2].mean >= rows[best][2].mean]
    return verdict(*each), lines


# -- NAP --------------------------------------------------------------------------------------------------------------------


@claim
def nap_seventy_seven_times() -> Evidence:
    """LeNet-300-100 compresses 77 times and LeNet-5 200 times for under a tenth of a point; holds within 0.2 points of the paper's
    increase, on the plain images and on shifted ones."""
    near, lines = [], []
    for network, short, ours in (("LeNet-300-100", "lenet300-77x", "sgd-shift"), ("LeNet-5", "lenet5-200x", "slow")):
        said = printed("nap", "Table 3", "NAP", "delta_err_pct", model=network)
        plain, shifted = (cell("nap", "Table 3", f"{short}-nap{how}-seed*", "delta_top1_err_pct") for how in ("", f"-{ours}"))
        times = cell("nap", "Table 3", f"{short}-nap-seed*", "compression_ratio_x")
        near += [plain.mean < said + 0.2, shifted.mean < said + 0.2]
        lines += [f"{network}, {times.mean:.1f} times fewer weights: {plain} points more error (paper {said:.2f}); {plain.source}.",
                  f"The same with images shifted by a pixel, ours: {shifted} points; {shifted.source}."]
    return verdict(*near), lines


# -- across -----------------------------------------------------------------------------------------------------------------


@claim
def losses_are_predicted() -> Evidence:
    """A score is a predicted loss increase: it orders amounts as the measured one does (Spearman above 0.9) and is within a factor of
    two of it for most methods."""
    lines, orders, sizes = [], [], []
    for name in ("lenet300-mnist", "digits_cnn-digits"):
        found = paired.predictions(job(name))
        orders += [(p.spearman or 0) > 0.9 for p in found]
        sizes += [0.5 < p.ratio < 2 for p in found]
        told = ", ".join(f"{look(p.method).label} {p.ratio:.2g}" for p in found)
        lines.append(f"{name}, predicted over measured increase, median: {told}; figures/results/{name}.")
    lines.append(f"The order of the amounts is right (above 0.9) for {sum(orders)} of {len(orders)}, the size within two for {sum(sizes)}.")
    return verdict(sum(orders) > len(orders) / 2, sum(sizes) > len(sizes) / 2), lines


def evidence(name: str) -> Evidence:
    """The verdict and its lines; open where a record is missing."""
    if name not in CLAIMS:
        raise UserError("claim", name, "unknown", f"known: {', '.join(CLAIMS)}")
    try:
        return CLAIMS[name]()
    except Missing as gap:
        return OPEN, [f"Not committed: {gap}."]


def render(text: str) -> str:
    """`text` with every block written anew; UserError where the records say another than the marker."""
    def block(match: re.Match) -> str:
        start, name, expected, end = match.groups()
        found, lines = evidence(name)
        if found != expected:
            raise UserError("claim", name, f"the records say {found!r}, docs/claims.md {expected!r}",
                            "read the prose again, then change its marker")
        return start + f"**{WORDS[found]}**\n\n" + "".join(f"- {line}\n" for line in lines) + end
    return BLOCK.sub(block, text)


def main(argv: list[str] | None = None) -> int:
    """Rewrite docs/claims.md; the exit status."""
    Parser(description=__doc__).parse_args(argv)
    try:
        text = render(ESSAY.read_text(encoding="utf-8"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_file(Path(ESSAY), text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
