"""What was seen of WoodFisher's one-shot tables and figures that have no paragraph of their own in
docs/claims.md.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from figures.evidence import Evidence, Missing, Number, field, shows, verdict
from figures.values import ROOT
from figures.woodfisher_claims import R20, top1

FEW = (0.5, 0.7, 0.8)
METHODS = {"woodtaylor": "WoodTaylor", "woodfisher": "WoodFisher"}


def row(label: str, names: Mapping[str, str], amount: float) -> tuple[dict[str, Number], str]:
    """(numbers by series, a line of them); names: series -> what it is called."""
    found = {series: top1(label, series, amount) for series in names}
    told = ", ".join(f"{names[series]} {number}" for series, number in found.items())
    return found, f"{100 * amount:g}% removed: {told}; {next(iter(found.values())).source}."


@dataclass(frozen=True)
class Above:
    """The first has a higher mean than each of the others."""

    one: str
    others: tuple[str, ...]

    def __call__(self, found: Mapping[str, Number]) -> bool:
        return found[self.one].mean > max(found[other].mean for other in self.others)


@dataclass(frozen=True)
class Rises:
    """The means rise in this order; as high as the one before is enough where not `strictly`."""

    names: tuple[str, ...]
    strictly: bool = True

    def __call__(self, found: Mapping[str, Number]) -> bool:
        means = [found[name].mean for name in self.names]
        grows = operator.lt if self.strictly else operator.le
        return all(grows(low, high) for low, high in pairwise(means))


@dataclass(frozen=True)
class Sweep:
    """A rule as data: at each amount removed every one of `each` holds. Its evidence is `setting`,
    and a line an amount of the series in `names`, as they are called.
    """

    says: str  # the paper's claim, as of every rule
    label: str
    names: Mapping[str, str]
    amounts: tuple[float, ...]
    each: tuple[Above | Rises, ...]
    setting: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.says)

    def __call__(self) -> Evidence:
        rows = [row(self.label, self.names, amount) for amount in self.amounts]
        truths = [holds(found) for found, _ in rows for holds in self.each]
        return verdict(*truths), [self.setting, *(line for _, line in rows)]


@shows("Figure 3a")
def beside_the_baselines() -> Evidence:
    """Both variants lead magnitude and diagonal-Fisher pruning, the latter (16,000 samples) is
    behind magnitude beyond 30%, and global magnitude is behind independent WoodFisher until about
    60% and ahead beyond (Sec. 5.1)."""
    names = {
        "woodfisher-layer": "independent",
        "woodfisher": "joint",
        "magnitude-layer": "magnitude",
        "diagonal-fisher-16000": "diagonal Fisher of 16,000 images",
        "magnitude-global": "global magnitude",
    }
    each, lines = [], [f"{R20}, m = 1,000, b = 1, a block a layer."]
    for amount in FEW:
        found, line = row("Figure 3a", names, amount)
        magnitude, other = found["magnitude-layer"].mean, found["magnitude-global"].mean
        each += [
            min(found["woodfisher"].mean, found["woodfisher-layer"].mean) > magnitude,
            found["diagonal-fisher-16000"].mean < magnitude,
            (found["woodfisher-layer"].mean > other) == (amount <= 0.6),
        ]
        lines.append(line)
    ahead = [
        f"{100 * a:g}%"
        for a in FEW
        if top1("Figure 3a", "woodfisher-layer", a).mean
        > top1("Figure 3a", "magnitude-global", a).mean
    ]
    return verdict(*each), [
        *lines,
        f"Independent WoodFisher is ahead of global magnitude at {', '.join(ahead) or 'none'}.",
    ]


CHUNKS = ("chunk-20", "chunk-100", "chunk-1000", "chunk-5000", "chunk-layer")
SIZES = dict(zip(CHUNKS, ("c = 20", "c = 100", "c = 1,000", "c = 5,000", "a layer"), strict=True))
INDEPENDENT = tuple(name for name in CHUNKS if name != "chunk-5000")

shows("Figure 3b", "Figure S7")(
    Sweep(
        "Joint WoodFisher's accuracy rises monotonically with the chunk, and chunks of 100 already "
        "gain on magnitude (Secs. 5.1, S4.1).",
        "Figure 3b",
        SIZES | {"magnitude-global": "global magnitude"},
        (0.6, 0.75),
        (Rises(CHUNKS, strictly=False), Above("chunk-100", ("magnitude-global",))),
        f"{R20}, m = 1,000, b = 1.",
    )
)
shows("Figure S8")(
    Sweep(
        "Independent WoodFisher's accuracy rises monotonically with the chunk, and chunks of 100 "
        "already gain on magnitude (Sec. S4.1).",
        "Figure S8",
        {name: SIZES[name] for name in INDEPENDENT} | {"magnitude-layer": "magnitude per layer"},
        (0.6, 0.75),
        (Rises(INDEPENDENT, strictly=False), Above("chunk-100", ("magnitude-layer",))),
        f"{R20}, m = 1,000, b = 1.",
    )
)
shows("Figure 4", "Figure S5")(
    Sweep(
        "One-shot WoodFisher gains on layer-wise and on global magnitude, and recomputing the "
        "Fisher on the way adds to it (Figs. 4, S5).",
        "Figure 4",
        {
            "recompute-0": "once",
            "recompute-1": "one recomputation",
            "recompute-4": "four",
            "magnitude-global": "global magnitude",
            "magnitude-layer": "magnitude",
        },
        (0.7, 0.8, 0.9),
        (
            Above("recompute-0", ("magnitude-global", "magnitude-layer")),
            Rises(("recompute-0", "recompute-1", "recompute-4")),
        ),
        f"{R20} for ResNet-50 and ImageNet, m = 100, b = 10, a block a layer.",
    )
)
shows("Figure 5a", "Figure S1")(
    Sweep(
        "Independent and joint WoodFisher are ahead of L-OBS at all sparsities, by up to 3.5 and "
        "20 points of top-5 at 65% (Sec. S2.2).",
        "Figure 5a",
        {"woodfisher-layer": "independent", "woodfisher": "joint", "l-obs": "L-OBS"},
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65),
        (Above("woodfisher-layer", ("l-obs",)), Above("woodfisher", ("l-obs",))),
        f"{R20} for ResNet-50 and ImageNet, top-1 for top-5, 1,000 rows of 1 and a block a layer "
        "for 400 rows of 400 and c = 2,000.",
    )
)
shows("Figure 5b")(
    Sweep(
        "On MLPNet joint WoodFisher is ahead of K-FAC pruning, with and without π, from as many "
        "samples (Sec. 5.1).",
        "Figure 5b",
        {"woodfisher": "WoodFisher", "kfac-pi": "K-FAC with π", "kfac": "without"},
        (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98),
        (Above("woodfisher", ("kfac-pi", "kfac")),),
        "MLPNet, MNIST: 1,000 rows of 50, a block a layer, as in the paper; K-FAC from 50,000 "
        "samples.",
    )
)


@shows("Table 8")
def labels_matter_little() -> Evidence:
    """Sampled labels end in the same ballpark as true ones (at most 0.39 points apart, Table 8),
    with a slightly higher variance.
    """
    near, spreads = [], []
    lines = [
        f"{R20} for ResNet-50 and ImageNet, m = 1,000, b = 1, a block a layer for 240 rows of 100, "
        "c = 1,000."
    ]
    for amount in FEW:
        true, drawn = top1("Figure 3a", "woodfisher", amount), top1("Table 8", "sampled", amount)
        near.append(abs(true.mean - drawn.mean) <= max(0.39, true.std, drawn.std))
        spreads.append(drawn.std - true.std)
        lines.append(
            f"{100 * amount:g}% removed: sampled {drawn}, true labels {true}; {drawn.source}."
        )
    return verdict(*near, sum(spreads) > 0), lines


@shows("Table S2")
def averaging_matters_more_than_rows() -> Evidence:
    """Rows of one image end 18 to 25 points below rows of 100 (55.81 and 75.73 at 30%, 48.76 and
    73.70 at 50%), while twice as many rows change little (Table S2)."""
    each, leads = [], []
    lines = [f"{R20} for ResNet-50 and ImageNet, a block a layer for c = 1,000, one seed."]
    names = {
        "m80-b1": "80 rows of 1",
        "m80-b10": "80 of 10",
        "m80-b100": "80 of 100",
        "m400-b1": "400 of 1",
        "m400-b10": "400 of 10",
    }
    for amount in (0.6, 0.75):
        found, line = row("Table S2", names, amount)
        leads.append(found["m80-b100"].mean - found["m80-b1"].mean)
        each += [leads[-1] > 10, abs(found["m400-b10"].mean - found["m80-b10"].mean) < 2]
        lines.append(line)
    told = " and ".join(f"{lead:.1f}" for lead in leads)
    return verdict(*each), [
        *lines,
        f"What 100 images a row add to one: {told} points (paper: 19.9 at 30%, 24.9 at 50%).",
    ]


@shows("Table S3", "Figure S6")
def averaging_on_mobilenet() -> Evidence:
    """On MobileNetV1 rows of one image end 28 points below rows of 100 at 10% (43.11 and 71.56),
    and rows of 400 gain little on those (71.75; Table S3)."""
    one, hundred, more = (top1("Table S3", f"paper-m160-b{b}", 0.1) for b in (1, 100, 400))
    return (
        verdict(hundred.mean - one.mean > 14, abs(more.mean - hundred.mean) < 1),
        [
            f"MobileNetV1, ImageNet, 10% removed, 160 rows of 1: {one}, of 100: {hundred}, of 400: "
            f"{more}; {one.source}."
        ],
    )


@shows("Figure S12", "Figure S13")
def woodtaylor_on_three_layers() -> Evidence:
    """WoodTaylor at λ = 1e-3 from 50,000 samples is ahead of WoodFisher at any λ for almost all
    sparsities, and more sensitive to λ (Sec. S8.1)."""
    each, lines = [], [f"{R20}: three layers, 9,216 weights in one block, single gradients."]
    for amount in (0.5, 0.9):
        few = {
            m: [top1("Figure S12", f"{m}-{d}", amount) for d in ("0.001", "0.0001", "1e-05")]
            for m in METHODS
        }
        ends = {m: [pick(n.mean for n in few[m]) for pick in (min, max)] for m in few}
        told = ", ".join(
            f"{words} {ends[m][0]:.2f} to {ends[m][1]:.2f}" for m, words in METHODS.items()
        )
        lines.append(
            f"{100 * amount:g}% removed, 1,000 samples, λ from 1e-3 to 1e-5: {told}; "
            f"{few['woodtaylor'][0].source}."
        )
        ours, other = (top1("Figure S12", f"all-images-{m}-0.001", amount) for m in METHODS)
        width = {m: high - low for m, (low, high) in ends.items()}
        each += [
            ours.mean > max(other.mean, ends["woodfisher"][1]),
            width["woodtaylor"] > width["woodfisher"],
        ]
        lines.append(
            f"{100 * amount:g}% removed, 50,000 samples, λ = 1e-3: WoodTaylor {ours}, WoodFisher "
            f"{other}; {ours.source}."
        )
    return verdict(*each), lines


@shows("Figure S14")
def dampening_and_samples_of_woodtaylor() -> Evidence:
    """WoodTaylor depends on the dampening, of which Fig. 7 takes 0.1, and gains from more samples
    (Sec. S8.2).
    """
    each, lines = [], ["MLPNet after two epochs, single gradients, a block a layer."]
    for amount in (0.5, 0.9):
        found, line = row(
            "Figure S14",
            {f"damping-{d}-samples-2000": f"λ = {d}" for d in ("0.001", "0.01", "0.1", "1")},
            amount,
        )
        values = {name: number.mean for name, number in found.items()}
        fewer = [top1("Figure S14", f"damping-0.1-samples-{n}", amount) for n in (250, 1000, 2000)]
        each += [
            max(values, key=values.get) == "damping-0.1-samples-2000",
            fewer[0].mean < fewer[1].mean < fewer[2].mean,
        ]
        lines += [
            line,
            f"{100 * amount:g}% removed, λ = 0.1: 250 samples {fewer[0]}, 1,000 {fewer[1]}, 2,000 "
            f"{fewer[2]}.",
        ]
    return verdict(*each), lines


@shows("Figure 1")
def later_layers_look_alike() -> Evidence:
    """Hessian and empirical Fisher of CIFARNet's second and third layer have a like structure (Sec.
    3.1); here a cosine above 0.5.
    """
    return _alike("2-2", "3-3")


@shows("Figure S2")
def diagonal_blocks_look_alike() -> Evidence:
    """The same on all diagonal blocks (Sec. S3.1); here a cosine above 0.5."""
    return _alike("1-1", "2-2", "3-3")


@shows("Figure S3")
def cross_blocks_look_alike() -> Evidence:
    """The same on the cross blocks of the first and third and of the second and third layer (Sec.
    S3.1); here a cosine above 0.5.
    """
    return _alike("1-3", "2-3")


def _alike(*blocks: str) -> Evidence:
    cosines = {
        block: field("woodfisher", f"hessian_s2.json?block={block}#cosine") for block in blocks
    }
    told = ", ".join(f"{block} {value:.3f}" for block, value in cosines.items())
    return verdict(*(value > 0.5 for value in cosines.values())), [
        "CIFARNet 3072-16-64-10, 10 epochs for 300, 100 examples: cosine of the two in the blocks "
        f"of layers {told}; `hessian_s2.json`."
    ]


@shows("Figure 2")
def the_local_quadratic_model_is_accurate() -> Evidence:
    """Along the pruning directions of three layers of ResNet-20 to 50% the quadratic model predicts
    the loss accurately (Sec. 3.2); here its increase at the pruned end within a factor of two."""
    path = ROOT / "woodfisher" / "results" / "local_quadratic.json"
    if not path.exists():
        raise Missing(path.name)
    lines = [
        f"{R20}, m = 1,000, b = 1, loss in nats at the pruned end above the dense network's; "
        f"`{path.name}`."
    ]
    each = []
    for layer, points in json.loads(path.read_text(encoding="utf-8"))["lines"].items():
        dense, end = (next(p for p in points if p["t"] == t) for t in (0.0, 1.0))
        measured, predicted = (end[key] - dense["measured"] for key in ("measured", "predicted"))
        each.append(0.5 < predicted / measured < 2)
        lines.append(f"{layer}: measured {measured:.5f}, predicted {predicted:.5f}.")
    return verdict(*each), lines
