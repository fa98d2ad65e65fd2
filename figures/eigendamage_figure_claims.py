"""What was seen of EigenDamage's figures and its example, which have no paragraph of their own in
docs/claims.md.
"""

from __future__ import annotations

import contextlib

from common.cells.record import Record
from figures.evidence import (
    Evidence,
    Missing,
    cell,
    committed,
    field,
    named,
    printed,
    shows,
    verdict,
)
from figures.frame import left as kept
from figures.style import look

RIVALS = ("kron-obd", "kron-obs", "c-obd", "c-obs")
# the paper's first, then what stood in for it
NETWORKS = {"cpu-vgg19": "VGG19", "cpu-vgg19-L1": "VGG19 with L1 on BatchNorm"}
ELSE = "at a quarter of the width on CIFAR-10 as JPEG, one seed"


def record(labels: str, name: str, stage: str) -> Record:
    """The committed record of a cell's first seed; labels apart by a comma are tried in turn."""
    for label in labels.split(", "):
        with contextlib.suppress(Missing):
            return committed("eigendamage", label, name, stage)[0]
    raise Missing(f"eigendamage {labels} {name}")


def network(label: str, name: str, stage: str) -> str:
    """The first of NETWORKS on which this cell ran."""
    for prefix in NETWORKS:
        with contextlib.suppress(Missing):
            record(label, f"{prefix}-{name}", stage)
            return prefix
    raise Missing(f"eigendamage {label} {next(iter(NETWORKS))}-{name}")


@shows("Example 1")
def obs_can_be_worse() -> Evidence:
    """OBS is better than OBD where one of three weights goes (.01 for .25 more loss) and worse
    where two go (1.99 for .76; Sec. 2).
    """
    each, lines = [], []
    for many, words in ((1, "one weight"), (2, "two weights")):
        ours = {
            m: field("eigendamage", f"example1.json?case={m}-{many}#increase")
            for m in ("obd", "obs")
        }
        said = {
            m: printed("eigendamage", "Example 1", f"{m.upper()} removes {words}", "loss_increase")
            for m in ours
        }
        each += [abs(ours[m] - said[m]) < 0.005 for m in ours]
        lines.append(
            f"The loss increases by {ours['obd']:.2f} (OBD) and {ours['obs']:.2f} (OBS) without "
            f"{words} (paper {said['obd']:.2f} and {said['obs']:.2f}); example1.json."
        )
    return verdict(*each), lines


@shows("Figure 2")
def more_diagonal_in_its_eigenbasis() -> Evidence:
    """In the Kronecker-factored eigenbasis the Fisher is closer to diagonal than among the weights
    (Fig. 2, Sec. 4).
    """
    found = {
        basis: [
            field("eigendamage", f"fisher-basis.json?basis={basis}#{k}")
            for k in ("off_diagonal_energy", "mean_correlation")
        ]
        for basis in ("parameters", "kfe")
    }
    return (
        verdict(*(new < old for new, old in zip(found["kfe"], found["parameters"], strict=True))),
        [
            f"Share of the Fisher's squares off its diagonal: {found['parameters'][0]:.2f} among "
            f"the weights, {found['kfe'][0]:.2f} in the eigenbasis; mean absolute correlation "
            f"{found['parameters'][1]:.3f} and {found['kfe'][1]:.3f}; fisher-basis.json."
        ],
    )


@shows("Table 1")
def leads_where_branches_are_pruned_alone() -> Evidence:
    """EigenDamage is ahead of Kron-OBD on ResNet-32 with 90% of the units removed, by .48 points
    (Table 1), where each convolution loses its own filters. Here: the mean over the seeds, at the
    same budget from one dense network."""
    mine, other = (
        cell("eigendamage", "Table 1", f"cpu150-resnet32-0.9-{m}-seed*", "test_acc_pct")
        for m in ("eigendamage", "kron-obd")
    )
    said = [
        printed(
            "eigendamage",
            "Table 1",
            m,
            "test_acc_pct",
            model="ResNet32",
            dataset="CIFAR-10",
            prune_ratio_pct="90",
        )
        for m in ("EigenDamage", "Kron-OBD")
    ]
    return (
        verdict(mine.mean > other.mean),
        [
            f"ResNet-32 on CIFAR-10 as JPEG, a quarter as wide as the paper's, 150 steps: {mine} "
            f"against {other} (paper {said[0]} and {said[1]}); {mine.source}, {other.source}."
        ],
    )


@shows("Figure 5")
def ahead_of_cp() -> Evidence:
    """EigenDamage outperforms CP-decomposition in speed-up and accuracy, and has a lower training
    loss before fine-tuning (Sec. 5.4). Here: for every rank there is a ratio that is no slower and
    better."""
    groups, prefix = "Figure 5, Table 1", network("Figure 5", "0-cp-0.5x", "finetune")
    mine = []
    for ratio in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        with contextlib.suppress(Missing):
            name = f"{prefix}-{ratio:g}-eigendamage"
            mine.append(tuple(record(groups, name, stage) for stage in ("prune", "finetune")))
    if len(mine) < 3:
        raise Missing(f"eigendamage Figure 5 {prefix}-*-eigendamage")
    lines, each = [f"{NETWORKS[prefix]} {ELSE}, for VGG19 on CIFAR-100 and Tiny-ImageNet."], []
    for rank in ("0.25x", "0.5x", "1x", "2x"):
        pruned, tuned = (
            record("Figure 5", f"{prefix}-0-cp-{rank}", stage) for stage in ("prune", "finetune")
        )
        fast = [(p, t) for p, t in mine if speed(p) >= speed(pruned)]
        if not fast:
            lines.append(
                f"CP with {rank} of the ranks is {speed(pruned):.1f} times faster than dense, more "
                "than any ratio of EigenDamage that ran: not compared."
            )
            continue
        accuracy, loss = (
            max(t.accuracy["last"] for _, t in fast),
            min(p.loss["pruned"] for p, _ in fast),
        )
        each += [accuracy > tuned.accuracy["last"], loss < pruned.loss["pruned"]]
        lines.append(
            f"CP with {rank} of the ranks, {speed(pruned):.1f} times faster: "
            f"{100 * tuned.accuracy['last']:.1f}% after tuning, loss before it "
            f"{pruned.loss['pruned']:.2f}; EigenDamage as fast or faster: {100 * accuracy:.1f}%, "
            f"{loss:.2f}; {named([pruned.id])}."
        )
    if not each:
        raise Missing(f"eigendamage Figure 5 {prefix}: a ratio as fast as CP")
    return verdict(*each), lines


def speed(one: Record) -> float:
    """Dense multiply-accumulates over those that are left."""
    return one.achieved["dense_macs"] / one.achieved["kept_macs"]


@shows("Figure 6")
def loss_right_after_pruning() -> Evidence:
    """Pruning 80% of VGG19's weights costs EigenDamage a negligible increase of the training loss,
    while the rivals end near uniform predictions (App. D). Here: less than 0.1 nats at the ratio
    whose weights are nearest to that; the rivals above 2 of ln 10 = 2.30."""
    label, prefix = "Figure 6, Table 1", network("Figure 6", "0.8-eigendamage", "prune")
    every = []
    for ratio in (0.5, 0.6, 0.7, 0.8, 0.9):
        try:
            every.append(record(label, f"{prefix}-{ratio:g}-eigendamage", "prune"))
        except Missing:
            continue
    at = min(every, key=lambda one: abs(kept(one, "params") - 20))
    ratio, dense = at.requested["unit_ratio"], at.loss["dense"]
    rivals = {m: record(label, f"{prefix}-{ratio:g}-{m}", "prune") for m in RIVALS}
    told = ", ".join(
        f"{look(m).label} {one.loss['pruned']:.2f} at {100 - kept(one, 'params'):.1f}%"
        for m, one in rivals.items()
    )
    return (
        verdict(
            at.loss["pruned"] - dense < 0.1,
            all(at.loss["pruned"] < one.loss["pruned"] for one in rivals.values()),
            all(one.loss["pruned"] > 2 for one in rivals.values()),
        ),
        [
            f"{NETWORKS[prefix]} {ELSE}: training loss {at.loss['pruned']:.2f} with "
            f"{100 - kept(at, 'params'):.1f}% of the parameters removed (ratio {ratio:g}), dense "
            f"{dense:.2f}; {named([at.id])}.",
            f"At the same ratio: {told}.",
        ],
    )


@shows("Figure 8")
def iterative_on_vgg() -> Evidence:
    """Pruned half at a time EigenDamage performs slightly better than the others with VGG19 (Sec.
    5.3). Here: the most accurate after tuning at every one of the six prunings."""
    return _iterative(network("Figure 8", "0.5-eigendamage", "finetune"))


@shows("Figure 8")
def iterative_on_resnet() -> Evidence:
    """Pruned half at a time EigenDamage's performance is significantly higher with ResNet-32 (Sec.
    5.3), at a tenth of the weights and an eighth of the FLOPs with negligible loss (abstract)."""
    return _iterative("cpu-resnet32")


def _iterative(prefix: str) -> Evidence:
    methods = ("eigendamage", *RIVALS)
    tuned = {m: record("Figure 8", f"{prefix}-0.5-{m}", "finetune") for m in methods}
    course = {m: record("Figure 8", f"{prefix}-0.5-{m}", "prune").trajectory for m in methods}
    where = ELSE if prefix in NETWORKS else "on CIFAR-10 as JPEG, one seed"
    lines, each = [f"{NETWORKS.get(prefix, 'ResNet-32')} {where}."], []
    for step in range(6):
        found = {m: 100 * course[m][step].get("tuned", tuned[m].accuracy["last"]) for m in methods}
        each.append(max(found, key=found.get) == "eigendamage")
        left = {
            m: 100 * course[m][step]["kept_params"] / tuned[m].achieved["dense_params"]
            for m in methods
        }
        lines.append(
            f"After pruning {step + 1}: "
            + ", ".join(
                f"{look(m).label} {found[m]:.1f}% with {left[m]:.3g}% of the weights"
                for m in methods
            )
            + "."
        )
    lines.append(f"{named(one.id for one in tuned.values())}.")
    return verdict(*each), lines


@shows("Figure 4")
def balanced_over_the_layers() -> Evidence:
    """At a ratio of 50% NN Slimming prunes more in the bottom layers and retains most of the top's
    filters, while EigenDamage retains most of the bottom and prunes most of the top (Sec. 5.2, Fig.
    4). Here: weights left of the first and of the last four convolutions."""
    ends = {}
    for method in ("eigendamage", "nn-slimming"):
        one = record("Figure 6, Table 1", f"cpu-vgg19-L1-0.5-{method}", "prune")
        layers = [layer for layer in one.layers if "conv" in layer["name"]]
        ends[method] = [
            100 * sum(layer["kept"] / layer["total"] for layer in part) / len(part)
            for part in (layers[:4], layers[-4:])
        ]
    (bottom, top), (low, high) = ends["eigendamage"], ends["nn-slimming"]
    return (
        verdict(bottom > 50 > top, low < bottom, high > 50),
        [
            f"{NETWORKS['cpu-vgg19-L1']} {ELSE}, for VGG19 on Tiny-ImageNet: EigenDamage leaves "
            f"{bottom:.1f}% of the first and {top:.1f}% of the last four convolutions, NN Slimming "
            f"{low:.1f} and {high:.1f}%."
        ],
    )
