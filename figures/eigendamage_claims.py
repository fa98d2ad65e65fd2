"""The rules of EigenDamage's claims in docs/claims.md."""

from __future__ import annotations

from figures import paired
from figures.evidence import Evidence, cell, claim, job, shows, table, verdict
from figures.records import Comparison
from figures.style import look


def _unit_comparisons() -> list[tuple[str, str, Comparison]]:
    """(network, where its records lie, comparison) of the criteria."""
    own = (
        ("LeNet-300-100 on MNIST", "mnist", "lenet300"),
        ("LeNet-5 on MNIST", "mnist", "lenet5"),
        ("ResNet-32", "1", "resnet32"),
        ("PreResNet-29", "1", "preresnet29"),
        ("VGG19 at a quarter width", "1", "vgg19:width=0.25"),
    )
    return [
        ("digits", "figures/results/digits_cnn-digits", job("digits_cnn-digits")),
        *(
            (
                network,
                "eigendamage/results",
                table("eigendamage", name, model, "cpu-*-0.*" if name == "1" else "*-0.*"),
            )
            for network, name, model in own
        ),
    ]


@shows("Table 1", "Appendix F")
@claim
def eigendamage_equal_ratio() -> Evidence:
    """At the same fraction of units removed EigenDamage is the most accurate of the five
    criteria.
    """
    lines, each = [], []
    for words, where, comparison in _unit_comparisons():
        (ranking,) = (r for r in paired.rankings(comparison) if r.group == "units")
        each.append(ranking.ranks[0][0] == "eigendamage")
        told = ", ".join(f"{look(m).label} {rank:.1f}" for m, rank in ranking.ranks)
        lines.append(
            f"{words}, mean rank over {len(ranking.amounts)} ratios after fine-tuning: {told}; "
            f"{where}."
        )
    return verdict(*each), lines


@shows("Table 1")
@claim
def eigendamage_equal_cost() -> Evidence:
    """At equal kept weights and at equal kept MACs EigenDamage is the most accurate."""
    lines, each = [], []
    for network, where, comparison in _unit_comparisons():
        for cost, words in paired.COSTS.items():
            curves = paired.at_equal_cost(comparison, "units", cost)
            for level in (
                level for level in (0.6, 0.4, 0.2) if level in curves.get("eigendamage", {})
            ):
                found = {m: at[level].mean for m, at in curves.items() if level in at}
                each.append(max(found, key=found.get) == "eigendamage")
                told = ", ".join(
                    f"{look(m).label} {100 * a:.1f}"
                    for m, a in sorted(found.items(), key=lambda i: -i[1])
                )
                lines.append(
                    f"{network}, {100 * level:g}% of {words}, percent, read off each seed's curve: "
                    f"{told}; {where}."
                )
    name = "cpu-resnet32-0.9-{}-seed*"
    rows = {
        m: [
            cell("eigendamage", "Table 1", name.format(m), q)
            for q in ("test_acc_pct", "weights_reduction_pct", "flops_reduction_pct")
        ]
        for m in ("eigendamage", "kron-obd", "kron-obs", "c-obs")
    }
    mine = rows.pop("eigendamage")
    best = max(rows, key=lambda m: rows[m][0].mean)
    for method, row in (("eigendamage", mine), (best, rows[best])):
        lines.append(
            f"ResNet-32, JPEG CIFAR-10, ratio 90%, 150 steps of tuning, {look(method).label}: "
            f"{row[0]}% with {100 - row[1].mean:.1f}% of the parameters and "
            f"{100 - row[2].mean:.1f}% of the MACs; {row[0].source}."
        )
    each += [mine[0].mean > rows[best][0].mean, mine[2].mean >= rows[best][2].mean]
    return verdict(*each), lines
