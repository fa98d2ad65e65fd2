"""python -m figures.book [--output runs/book]: one static page of every table and figure of the
four papers, the paper's beside ours.

Each entry of gallery.toml has its status, the commands that make it again, what they cost, the
deviations that explain a gap, its table and its pictures, and the records behind them; the
comparison's figures follow. One file, offline, nothing is fetched. `--index docs/gallery.md` writes
the list of entries alone, as Markdown.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from common.cells.errors import Parser, UserError
from figures import (
    claims,  # noqa: F401  the rules register themselves
    draw,
    tables,
)
from figures.draw import stem, write_file
from figures.evidence import HOLDS, SEEN, seen
from figures.gallery import DRAWING, UNBUILT, WAITING, Item, State, items, state
from figures.page import page
from figures.values import NAMES, PAPERS, ROOT

OUTPUT, INDEX = ROOT / "runs" / "book", ROOT / "docs" / "gallery.md"
FOLDED = 24  # rows; longer tables are folded
TITLE = "Four papers on second-order pruning: every table and figure"


def duration(seconds: float) -> str:
    """In words: "45 s", "12 min", "3.4 h"."""
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


def cost(item: Item, now: State) -> str:
    """Processor time of the committed records that were timed on an idle machine, memory of all,
    and the estimate for the rest.
    """
    parts = []
    if now.seconds:
        parts.append(
            f"{duration(now.seconds)} of processor time in the {now.timed} of {len(now.records)} "
            "records that were timed on an idle machine"
        )
    if now.memory:
        parts.append(f"at most {now.memory / 1000:.1f} GB of memory")
    if item.cost:
        parts.append(item.cost)
    return "; ".join(parts)


def values(lines: Sequence[tables.Line]) -> dict[str, object]:
    """For the page: the printed rows, a column of the paper's and one of ours for each quantity."""
    shares, quantities = tables.kept_of(lines), tables.quantities_of(lines)
    settings, fixed = tables.settings_of(lines)
    rows = []
    for line, share in zip(lines, shares, strict=True):
        numbers = []
        for quantity in quantities:
            printed, ours = line.printed(quantity), line.ours.get(quantity)
            told = tables.spread(ours, quantity) if ours else "–"
            numbers += [printed, told if printed else ""]
        beside = [line.what, ", ".join(filter(None, line.network))]
        rows.append(
            {
                "method": line.value.method,
                "settings": [*beside, *(line.setting.get(name, "") for name in settings)],
                "numbers": numbers,
                "kept": share,
            }
        )
    named = [NAMES.get(name, name.replace("_", " ")) for name in (*settings, *quantities)]
    return {
        "heads": ["method", "ours is", "network, data set", *named[: len(settings)]],
        "quantities": named[len(settings) :],
        "kept": tables.KEPT if any(shares) else "",
        "rows": rows,
        "fixed": "; ".join(fixed),
    }


def entry(
    item: Item, lines: Sequence[tables.Line], outcomes: dict[str, draw.Outcome]
) -> dict[str, object]:
    """One table or figure of the page."""
    now, (word, found) = state(item), seen(item.paper, item.label)
    drawn = [(key, outcomes.get(f"{item.paper}_{stem(key)}")) for key in item.pictures]
    return {
        "item": item,
        "state": now,
        "ran": now.words(item),
        "seen": verdict_of(item, word),
        "networks": now.networks(item),
        "evidence": [(said, SEEN[verdict], shown) for said, (verdict, shown) in found],
        "commands": [
            *item.commands,
            *(f"python -m figures {item.paper} {key}" for key in item.pictures),
        ],
        "cost": cost(item, now),
        "pictures": [(key, one, png(one)) for key, one in drawn if one is not None],
        "table": values(lines) if lines else None,
        "ids": sorted({record.id for record in now.records}),
    }


def png(outcome: draw.Outcome) -> bytes:
    """The picture; empty where there is none."""
    files = [file for file in outcome.files if file.suffix == ".png"]
    return files[0].read_bytes() if files else b""


def verdict_of(item: Item, word: str) -> str:
    """What was seen of an entry; nothing of a drawing."""
    return "" if item.kind == "drawing" else word


def summary(ran: Sequence[str], verdicts: Sequence[str]) -> str:
    """How many entries ran at which scale, and what was seen of how many, in words."""
    told = []
    for words, order in ((ran, (DRAWING, UNBUILT, WAITING)), (list(filter(None, verdicts)), ())):
        counts = Counter(words)
        told.append(
            ", ".join(f"{counts[w]} {w}" for w in sorted(counts, key=lambda w: (w in order, w)))
        )
    return f"{len(ran)} entries. Ran: {told[0]}. Seen of the papers' claims: {told[1]}."


def build(folder: Path) -> str:
    """The page. folder: where the pictures are drawn first."""
    outcomes = draw.redraw(folder)
    by_name = {outcome.name: outcome for outcome in outcomes}
    lines = {(paper, label): own for paper in PAPERS for label, own in tables.sections_of(paper)}
    entries = [entry(item, lines.get((item.paper, item.label), ()), by_name) for item in items()]
    return page(
        "book",
        TITLE,
        summary=summary([one["ran"] for one in entries], [one["seen"] for one in entries]),
        papers=PAPERS,
        entries=entries,
        holds=SEEN[HOLDS],
        folded=FOLDED,
        comparisons=[
            (one.name.removeprefix("compare_").replace("_", " "), one, png(one))
            for one in outcomes
            if one.name.startswith("compare_")
        ],
    )


def index() -> str:
    """docs/gallery.md: every entry with what ran, what was seen, its command and cost, and the
    evidence.
    """
    rows, words, verdicts, evidence = [], [], [], []
    for item in items():
        now, (word, found) = state(item), seen(item.paper, item.label)
        words.append(now.words(item))
        verdicts.append(verdict_of(item, word))
        command = f"`{item.commands[0]}`" if item.commands else ""
        told = "; ".join(filter(None, (now.detail(), cost(item, now))))
        rows.append(
            f"| {PAPERS[item.paper]} | {item.label} | {item.title} | {words[-1]} | "
            f"{now.networks(item)} | {verdicts[-1]} | "
            f"{command} | {told} |"
        )
        if found:
            evidence += ["", f"### {PAPERS[item.paper]}, {item.label}: {word}"]
        for statement, (verdict, lines) in found:
            evidence += [
                "",
                f"{statement} **{SEEN[verdict].capitalize()}.**",
                "",
                *(f"- {line}" for line in lines),
            ]
    return "\n".join(
        [
            "# Every table and figure of the four papers",
            "",
            "Written by `python -m figures.book --index` from figures/gallery.toml and the "
            "committed records; `make book` builds the page with the tables and pictures.",
            "",
            "*Ran* says which of an entry's cells have records, at the paper's scale or at one "
            "that two cores finish (cpu), and on what. "
            "*Seen* says what those records show of the paper's claim, by a rule with the paper's "
            "number in it; the claims, verdicts and "
            "numbers follow the table. An entry that ran without a rule is *not tested*.",
            "",
            summary(words, verdicts),
            "",
            "| paper | entry | what it shows | ran | on | seen | command | what ran, and cost |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            "## What was seen",
            *evidence,
            "",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = Parser(prog="python -m figures.book", description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder (default: runs/book)")
    parser.add_argument(
        "--index",
        type=Path,
        nargs="?",
        const=INDEX,
        help="write the list of entries there instead (docs/gallery.md)",
    )
    options = parser.parse_args(argv)
    target = options.index or options.output / "book.html"
    try:
        text = index() if options.index else build(options.output / "figures")
        target.parent.mkdir(parents=True, exist_ok=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_file(target, text.encode())
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
