"""python -m figures.readme: write the tables of README.md, of the papers' READMEs and of pages of
docs/ from the committed records, between their markers.

A block starts with `<!-- compare: NAME -->`, where figures/results/NAME holds the records, or with
`<!-- bench: NAME -->`, where figures/results/NAME.json is what `make bench` wrote, and ends with
`<!-- end -->`. `<!-- papers: headline -->` holds the rows that gallery.toml calls headlines, `<!--
papers: front -->` those with words for the first page, `<!-- papers: finding -->` what the picture
there shows, `<!-- papers: status -->` how many tables and figures of each paper ran, and what was
seen, and `<!-- table: eigendamage/table1 -->` the table of that sheet in figures/eigendamage.py.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pandas as pd

from common.cells.errors import Parser, UserError, choose
from common.cells.library import read_all
from figures import claims, gallery, headlines  # noqa: F401  the rules of the claims register themselves
from figures.draw import sheets, write_file
from figures.evidence import SEEN, seen
from figures.records import Comparison, Row, gather
from figures.style import base, look
from figures.values import PAPERS

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- (compare|bench|papers|table): (\S+) -->\n).*?(<!-- end -->)", re.S)
RESULTS = ROOT / "figures" / "results"
# the comparison that the first page shows, and what stands beside its best method
PICTURE, FRONT = "digits_cnn-digits", ("woodfisher", "nap", "l-obs", "magnitude-global")
UNITS = {"sparsity": "weights removed", "unit_ratio": "units removed"}


def cell(row: Row | None) -> str:
    """ "38.2 → 95.5 ± 0.3 (3)": test accuracy in percent after pruning and after fine-tuning, mean
    and spread over the seeds, and their number. Where units go, what is left of the weights:
    "; 57% kept", and a word where that is more than was asked."""
    if row is None or not row.runs:
        return "not run"
    pruned, tuned = row.stat("accuracy_pruned"), row.stat("accuracy_finetuned")
    text = "?" if pruned.mean is None else f"{100 * pruned.mean:.1f}"
    if tuned.mean is not None:
        text += f" → {100 * tuned.mean:.1f}" + (
            "" if tuned.std is None else f" ± {100 * tuned.std:.1f} ({tuned.n})"
        )
    kept = row.stat("kept_weights").mean
    if row.untouched:
        return f"{text}; {row.mark}"
    if kept is None or row.group == "weights" and not row.short:
        return text
    return f"{text}; {100 * kept:.2g}% kept" + f" ({row.mark})" * row.short


def table(comparison: Comparison) -> str:
    """Methods down, amounts across, one Markdown table a unit of removal."""
    dense = comparison.dense
    accuracy = "?" if dense["accuracy"] is None else f"{100 * dense['accuracy']:.2f}%"
    seeds = f"{len(comparison.seeds)} seed{'s' if len(comparison.seeds) > 1 else ''}"
    if len(comparison.seeds) > 1 and any(
        row.stat(comparison.final()).n == 1 for row in comparison.rows
    ):
        seeds = f"up to {seeds} (their number behind it; a number without ± is one seed's)"
    lines = [
        f"{dense['model']} on {dense['dataset']}, dense accuracy {accuracy}; test accuracy in "
        "percent after pruning → after "
        f"fine-tuning ({dense['finetune']}), mean ± sample standard deviation over {seeds} of "
        "this one network; "
        f"scale {dense['scale']}.",
        "",
    ]
    for unit, words in UNITS.items():
        rows = {(row.method, row.amount): row for row in comparison.rows if row.unit == unit}
        amounts, methods = sorted({a for _, a in rows}), dict.fromkeys(m for m, _ in rows)
        if not rows:
            continue
        lines.append(f"| {words} | " + " | ".join(f"{100 * a:g}%" for a in amounts) + " |")
        lines.append("| --- |" + " ---: |" * len(amounts))
        for method in methods:
            label = next(row.label for (m, _), row in rows.items() if m == method)
            lines.append(
                f"| {label} | " + " | ".join(cell(rows.get((method, a))) for a in amounts) + " |"
            )
        lines.append("")
        if unit == "unit_ratio":
            lines += [
                "*kept*: of the weights, which at one ratio differ from method to method. Where "
                "nothing was removed, the dense network was tuned; *short* is less than half of "
                "what was asked. Ranks, tests and medians leave both out.",
                "",
            ]
    return "\n".join(lines)


def render(text: str, results: Path) -> str:
    """`text` with every block's content made anew. Raises UserError when a block names no
    records.
    """

    def block(match: re.Match) -> str:
        start, kind, name, end = match.groups()
        if kind == "papers":
            return start + PAPERS_BLOCKS[choose("papers", name, PAPERS_BLOCKS)]() + end
        if kind == "table":
            return start + drawn_table(name) + end
        source = results / (name if kind == "compare" else f"{name}.json")
        if not source.exists():
            raise UserError("README.md", name, f"there is no {source.name}", f"see {results.name}/")
        return (
            start
            + (
                table(gather(read_all(source)))
                if kind == "compare"
                else speeds(json.loads(source.read_text()))
            )
            + end
        )

    return BLOCK.sub(block, text)


def drawn_table(name: str) -> str:
    """The table of a sheet, by its paper and key: woodfisher/3a."""
    paper, _, key = name.partition("/")
    known = sheets(choose("table", paper, PAPERS))
    return known[choose("table", key, [key for key, sheet in known.items() if sheet.table])].table()


def speeds(bench: dict) -> str:
    """The ratios of one `make bench`."""
    where = bench["provenance"]
    lines = [
        f"{where['device']}, {where['threads']} threads, torch {where['versions']['torch']}.",
        "",
        "| | ratio | |",
        "| --- | ---: | --- |",
    ]
    lines += [
        f"| {name} | {entry['ratio']:.1f} | {entry['meaning']} |"
        for name, entry in bench["ratios"].items()
    ]
    return "\n".join(lines) + "\n"


def status() -> str:
    """Tables and figures of each paper: at which scale they ran, and what was seen of their
    claims.
    """
    shown = [item for item in gallery.items() if item.kind != "drawing"]
    ran = [f"ran: {gallery.state(item).words(item)}" for item in shown]
    found = [f"seen: {seen(item.paper, item.label)[0]}" for item in shown]
    papers = [item.paper for item in shown]
    counts = pd.crosstab(pd.Series(papers * 2), pd.Series(ran + found))
    words = [*sorted(set(ran)), *(f"seen: {word}" for word in SEEN.values())]
    counts = counts.reindex(index=PAPERS, columns=words, fill_value=0)
    lines = ["| | " + " | ".join(words) + " |", "| --- |" + " ---: |" * len(words)]
    lines += [
        f"| {PAPERS[paper]} | {' | '.join(str(n or '') for n in row)} |"
        for paper, row in zip(counts.index, counts.to_numpy(), strict=True)
    ]
    return "\n".join(lines) + "\n"


def finding() -> str:
    """What the picture on the first page shows, at its highest amount but one."""
    comparison = gather(read_all(RESULTS / PICTURE))
    dense, rows = comparison.dense, [row for row in comparison.rows if row.unit == "sparsity"]
    amount = sorted({row.amount for row in rows})[-2]
    found = {
        row.method: row.stat("accuracy_finetuned")
        for row in rows
        if row.amount == amount and row.stat("accuracy_finetuned").mean is not None
    }
    best = max(found, key=lambda method: found[method].mean)
    others = [m for word in FRONT for m in found if base(m) == word and m != best]

    def told(method: str) -> str:
        stat = found[method]
        spread = "" if stat.std is None else f" ± {100 * stat.std:.1f} ({stat.n})"
        return f"{look(method).label} {100 * stat.mean:.1f}{spread}"

    return (
        f"{dense['model']} on {dense['dataset']}, dense {100 * dense['accuracy']:.1f}% right, "
        f"{100 * amount:g}% of its weights removed at once, tuned for {dense['finetune']}. Of "
        f"{len(found)} methods the best has **{told(best)}**; {', '.join(map(told, others))} "
        "(percent right on test images; ± over seeds, their number in brackets).\n"
    )


def pages() -> list[Path]:
    """The pages with blocks: the first one, the papers', and those of docs/."""
    docs = (ROOT / "docs" / name for name in ("comparison.md", "headlines.md", "scaling.md"))
    return [ROOT / "README.md", *(ROOT / paper / "README.md" for paper in PAPERS), *docs]


PAPERS_BLOCKS = {
    "finding": finding,
    "front": headlines.front,
    "headline": headlines.rows,
    "status": status,
}


def main(argv: list[str] | None = None) -> int:
    """Rewrite the READMEs in place; returns the exit status."""
    Parser(description=__doc__).parse_args(argv)
    try:
        written = {path: render(path.read_text(encoding="utf-8"), RESULTS) for path in pages()}
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path, text in written.items():
        write_file(path, text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
