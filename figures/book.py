"""python -m figures.book [--output runs/book]: one static page of every table and figure of the
four papers, the paper's beside ours.

Each entry of gallery.toml has its status, the commands that make it again, what they cost, the
deviations that explain a gap, its table and its pictures, and the records behind them; the
comparison's figures follow. One file, offline, nothing is fetched. `--index docs/gallery.md` writes
the list of entries alone, as Markdown.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from common.cells.errors import Parser, UserError
from figures import (
    claims,  # noqa: F401  the rules register themselves
    draw,
    tables,
)
from figures.draw import stem, write_file
from figures.evidence import HOLDS, SEEN, seen
from figures.gallery import DRAWING, UNBUILT, WAITING, Item, State, items, state
from figures.page import page, picture
from figures.values import NAMES, PAPERS, ROOT

OUTPUT, INDEX = ROOT / "runs" / "book", ROOT / "docs" / "gallery.md"
FOLDED = 24  # rows; longer tables are folded
MORE = """
.status { border: 1px solid var(--line); border-radius: 1rem; padding: .1rem .6rem; font-size: .85rem; white-space: nowrap }
.done { border-color: var(--mark); color: var(--mark); font-weight: 600 }
article { border-top: 1px solid var(--line); margin-top: 1.5rem; padding-top: .25rem }
article h3 { font-size: 1.05rem; margin: .75rem 0 .25rem } code { font-size: .85rem; overflow-wrap: anywhere }
pre { background: var(--raised); padding: .5rem .75rem; overflow-x: auto; border-radius: .4rem; margin: .4rem 0 }
td:nth-child(2) { white-space: normal; min-width: 10rem } article th, article td { text-align: left } td.n { text-align: right }
ul.plain { padding-left: 1.2rem; margin: .3rem 0 }
thead th { padding: .4rem .6rem } tbody th { min-width: 9rem } figure img { width: auto; min-width: 0; max-width: 60rem }
nav a { margin-right: 1rem }
"""
SCRIPT = """
const rows = [...document.querySelectorAll('#contents tbody tr')], text = document.getElementById('text');
const only = document.getElementById('only'), saw = document.getElementById('saw'), count = document.getElementById('count');
function filter() {
  const wanted = text.value.trim().toLowerCase();
  rows.forEach(row => { row.hidden = !(row.textContent.toLowerCase().includes(wanted)
    && (!only.value || row.dataset.ran === only.value) && (!saw.value || row.dataset.seen === saw.value)); });
  count.textContent = rows.filter(row => !row.hidden).length + ' of ' + rows.length + ' entries';
}
[text, only, saw].forEach(control => control.addEventListener('input', filter));
filter();
"""
TITLE = "Four papers on second-order pruning: every table and figure"
MAIN = Template("""<p>The papers' numbers beside ours, from the committed records. $summary</p>
<p class="soft">Scale <em>paper</em> is the paper's own setting, <em>cpu</em> real data and networks that two cores finish in hours,
<em>quick</em> seconds, offline. Only equal scales, networks and data sets compare with each other.</p>
<nav aria-label="papers">$papers<a href="#comparisons">Side by side</a></nav>
<h2 id="list">Contents</h2>
<div class="filters">
<label>Contains<input id="text" type="search" autocomplete="off"></label>
<label>Ran<select id="only"><option value="">all</option>$options</select></label>
<label>Seen<select id="saw"><option value="">all</option>$verdicts</select></label>
<output id="count" class="soft" aria-live="polite"></output>
</div>
<div class="wide" tabindex="0" role="region" aria-labelledby="list"><table id="contents">
<thead><tr><th scope="col">Entry</th><th scope="col">What it shows</th><th scope="col">Ran</th><th scope="col">Seen</th></tr></thead>
<tbody>$contents</tbody></table></div>
$body
<h2 id="comparisons">Side by side</h2>
<p>All methods from one dense network, with the same calibration images, seeds and fine-tuning: <code>make compare</code>.</p>
$comparisons""")


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


def _fields(line: tables.Line, quantities: Sequence[str]) -> Iterable[str]:
    for quantity in quantities:
        printed, ours = line.printed(quantity), line.ours.get(quantity)
        yield escape(printed)
        yield escape(tables.spread(ours, quantity) if ours else "–") if printed else ""


def html_table(lines: Sequence[tables.Line]) -> str:
    """The printed rows, a column of the paper's and one of ours for each quantity."""
    shares = tables.kept_of(lines)
    quantities = tables.quantities_of(lines)
    settings, fixed = tables.settings_of(lines)
    top = "".join(
        f'<th scope="col" rowspan="2">{escape(h)}</th>'
        for h in (
            "method",
            "ours is",
            "network, data set",
            *(NAMES.get(name, name.replace("_", " ")) for name in settings),
        )
    )
    top += "".join(
        f'<th scope="colgroup" colspan="2">{escape(NAMES.get(q, q.replace("_", " ")))}</th>'
        for q in quantities
    )
    top += f'<th scope="col" rowspan="2">{tables.KEPT}</th>' if any(shares) else ""
    under = '<th scope="col">paper</th><th scope="col">ours</th>' * len(quantities)
    body = []
    for line, share in zip(lines, shares, strict=True):
        cells = [
            line.what,
            ", ".join(filter(None, line.network)),
            *(line.setting.get(name, "") for name in settings),
        ]
        body.append(
            f'<tr><th scope="row">{escape(line.value.method)}</th>'
            + "".join(f"<td>{escape(c)}</td>" for c in cells)
            + "".join(f'<td class="n">{field}</td>' for field in _fields(line, quantities))
            + (f"<td>{escape(share)}</td>" if any(shares) else "")
            + "</tr>"
        )
    table = (
        '<div class="wide" tabindex="0" role="region" '
        f'aria-label="table"><table><thead><tr>{top}</tr><tr>{under}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )
    table = (f'<p class="soft">Everywhere {escape("; ".join(fixed))}.</p>' if fixed else "") + table
    return (
        table
        if len(lines) <= FOLDED
        else f"<details><summary>{len(lines)} rows</summary>{table}</details>"
    )


def article(
    item: Item, now: State, lines: Sequence[tables.Line], outcomes: dict[str, draw.Outcome]
) -> str:
    """One entry."""
    word, found = seen(item.paper, item.label)
    on = now.networks(item)
    parts = [
        f'<article id="{item.key}"><h3>{PAPERS[item.paper]}, {escape(item.label)}: '
        f"{escape(item.title)}"
        f"{escape(f' ({on})') if on else ''}</h3><p>Ran: {badge(now.words(item))} Seen: "
        f"{badge(verdict_of(item, word))} "
        f'<span class="soft">{escape(now.detail())}</span></p>'
    ]
    for statement, (verdict, evidence) in found:
        shown = "".join(f"<li>{prose(line)}</li>" for line in evidence)
        parts.append(
            f"<p>{prose(statement)} <strong>{escape(SEEN[verdict].capitalize())}.</strong></p><ul "
            f'class="plain">{shown}</ul>'
        )
    commands = [*item.commands, *(f"python -m figures {item.paper} {key}" for key in item.pictures)]
    if commands:
        parts.append(f"<pre>{escape(chr(10).join(commands))}</pre>")
    if spent := cost(item, now):
        parts.append(f'<p class="soft">Cost: {escape(spent)}.</p>')
    if item.deviations:
        parts.append(
            f'<ul class="plain">{"".join(f"<li>{escape(why)}</li>" for why in item.deviations)}</ul>'
        )
    for key in item.pictures:
        outcome = outcomes.get(f"{item.paper}_{stem(key)}")
        if outcome is not None and outcome.files:
            parts += [
                picture(item.title, outcome.alt, file.read_bytes())
                for file in outcome.files
                if file.suffix == ".png"
            ]
        elif outcome is not None:
            parts.append(f'<p class="soft">{escape(key)}: {escape(outcome.why)}.</p>')
    if lines:
        parts.append(html_table(lines))
    ids = sorted({record.id for record in now.records})
    if ids:
        listed = "".join(f"<li><code>{escape(one)}</code></li>" for one in ids)
        parts.append(
            f"<details><summary>{len(ids)} records in {item.paper}/results</summary><ul "
            f'class="plain">{listed}</ul></details>'
        )
    elif now.outputs:
        named = ", ".join(
            f"<code>{escape(f'{item.paper}/results/{name}')}</code>" for name in now.outputs
        )
        parts.append(f'<p class="soft">From {named}.</p>')
    return "".join(parts) + "</article>"


def prose(text: str) -> str:
    """A line of Markdown as HTML: what stands in backticks is code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text, quote=False))


def badge(words: str) -> str:
    """A word in a frame, marked where a claim holds."""
    return f'<span class="status{" done" if words == SEEN[HOLDS] else ""}">{escape(words)}</span>'


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
    states = {item.key: state(item) for item in items()}
    words = {item.key: states[item.key].words(item) for item in items()}
    verdicts = {item.key: verdict_of(item, seen(item.paper, item.label)[0]) for item in items()}
    body, contents = [], []
    for paper, name in PAPERS.items():
        lines = dict(tables.sections_of(paper))
        body.append(f'<h2 id="{paper}">{name}</h2>')
        for item in (item for item in items() if item.paper == paper):
            body.append(article(item, states[item.key], lines.get(item.label, ()), by_name))
            ran, word = words[item.key], verdicts[item.key]
            contents.append(
                f'<tr data-ran="{escape(ran)}" data-seen="{escape(word)}"><th scope="row"><a '
                f'href="#{item.key}">{name}, '
                f"{escape(item.label)}</a></th><td>{escape(item.title)}</td><td>{badge(ran)}</td>"
                f"<td>{badge(word) if word else ''}</td></tr>"
            )
    compared = [outcome for outcome in outcomes if outcome.name.startswith("compare_")]
    pictures = "".join(
        f"<h3>{escape(one.name.removeprefix('compare_').replace('_', ' '))}</h3>"
        + "".join(
            picture(one.name, one.alt, file.read_bytes())
            for file in one.files
            if file.suffix == ".png"
        )
        + (f'<p class="soft">{escape(one.why)}</p>' if one.why else "")
        for one in compared
    )
    options, chosen = (
        "".join(
            f'<option value="{escape(w)}">{escape(w)}</option>'
            for w in dict.fromkeys(filter(None, found.values()))
        )
        for found in (words, verdicts)
    )
    main = MAIN.substitute(
        summary=escape(summary(list(words.values()), list(verdicts.values()))),
        options=options,
        verdicts=chosen,
        contents="".join(contents),
        body="".join(body),
        comparisons=pictures,
        papers="".join(f'<a href="#{paper}">{name}</a>' for paper, name in PAPERS.items()),
    )
    return page(TITLE, main, SCRIPT, MORE)


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
