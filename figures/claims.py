"""python -m figures.claims: the evidence in docs/claims.md, written from the committed records
between its markers.

A block starts with `<!-- claim: NAME VERDICT -->` and ends with `<!-- end -->`. The verdict is
computed by the rule of that claim; where the records say another than the essay's marker does,
writing stops, so that the prose is read again by a person.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

from common.cells.errors import Parser, UserError
from figures import paired, side_panels
from figures.draw import write_file
from figures.evidence import (
    CLAIMS,
    FAILS,
    HOLDS,
    JOBS,
    OPEN,
    PART,
    Evidence,
    claim,
    job,
    judged,
    setting,
    verdict,
)
from figures.records import ALONE
from figures.style import look
from figures.values import ROOT

ESSAY = ROOT / "docs" / "claims.md"
BLOCK = re.compile(r"(<!-- claim: (\S+) (\S+) -->\n).*?(<!-- end -->)", re.S)
WORDS = {
    HOLDS: "Holds.",
    PART: "Holds in part.",
    FAILS: "Does not hold here.",
    OPEN: "Open: too few records.",
}
# imported, each has put its rules into CLAIMS and ENTRIES
for _module in sorted(Path(__file__).parent.glob("*_claims.py")):
    importlib.import_module(f"figures.{_module.stem}")


# L-OBS's joint objective with one budget, weights scored once or again after each removal
ONE_BUDGET = ("l-obs-ours", "l-obs-greedy")


@claim
def one_method_leads() -> Evidence:
    """Among methods that remove single weights one has the best mean rank in every comparison,
    right after pruning and after tuning.
    """
    lines, each = [], []
    for quantity, words in (
        ("accuracy_pruned", "right after pruning"),
        ("accuracy_finetuned", "after fine-tuning"),
    ):
        first = set()
        for name in JOBS:
            (ranking,) = (r for r in paired.rankings(job(name), quantity) if r.group == "weights")
            leader = ranking.ranks[0][0]
            first.add(ONE_BUDGET[0] if leader in ONE_BUDGET else leader)
            told = ", ".join(f"{look(m).label} {rank:.1f}" for m, rank in ranking.ranks[:4])
            lines.append(
                f"{name}, mean rank of {len(ranking.ranks)} methods over {len(ranking.amounts)} "
                f"amounts {words}: {told}; figures/results/{name}."
            )
        each.append(len(first) == 1)
    for name in JOBS:
        spent = side_panels.costs(job(name))
        shown = [
            setting(name, m)
            for m in ("l-obs-ours", "l-obs-joint", "woodfisher", "kfac-prune", "nap")
        ]
        if told := ", ".join(f"{look(m).label} {spent[m][0]:.3g}" for m in shown if spent[m][0]):
            lines.append(
                f"{name}, core-seconds of pruning to all amounts {ALONE}, median over seeds: "
                f"{told}; figures/results/{name}."
            )
    return verdict(*each), lines


@claim
def losses_are_predicted() -> Evidence:
    """A score is a predicted loss increase: it orders amounts as the measured one does (Spearman
    above 0.9) and is within a factor of two of it for most methods."""
    lines, orders, sizes = [], [], []
    for name in JOBS:
        found = paired.predictions(job(name))
        orders += [(p.spearman or 0) > 0.9 for p in found]
        sizes += [0.5 < p.ratio < 2 for p in found]
        told = ", ".join(f"{look(p.method).label} {p.ratio:.2g}" for p in found)
        lines.append(
            f"{name}, predicted over measured increase, median: {told}; figures/results/{name}."
        )
    lines.append(
        f"The order of the amounts is right (above 0.9) for {sum(orders)} of {len(orders)}, the "
        f"size within two for {sum(sizes)}."
    )
    return verdict(sum(orders) > len(orders) / 2, sum(sizes) > len(sizes) / 2), lines


def evidence(name: str) -> Evidence:
    """The verdict and its lines; open where a record is missing."""
    if name not in CLAIMS:
        raise UserError("claim", name, "unknown", f"known: {', '.join(CLAIMS)}")
    return judged(CLAIMS[name])


def render(text: str) -> str:
    """`text` with every block written anew; UserError where the records say another than the
    marker.
    """

    def block(match: re.Match) -> str:
        start, name, expected, end = match.groups()
        found, lines = evidence(name)
        if found != expected:
            raise UserError(
                "claim",
                name,
                f"the records say {found!r}, docs/claims.md {expected!r}",
                "read the prose again, then change its marker",
            )
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
