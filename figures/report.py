"""The report: one HTML file that opens offline, with the table, the figures and each run's
provenance.

Every text that comes from a record is escaped, and the page's content policy lets only the page's
own script run and nothing be fetched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from itertools import groupby
from string import Template

from figures import paired
from figures.columns import Column
from figures.page import page, picture
from figures.panels import Drawing
from figures.records import GROUPS, UNITS, Comparison, Row, Run

WHEN = {"accuracy_finetuned": "after fine-tuning", "accuracy_pruned": "after pruning"}

SCRIPT = """
const table = document.querySelector('table'), body = table.tBodies[0], rows = [...body.rows];
const heads = [...table.querySelectorAll('th button')].map(button => button.parentElement);
const [text, kind, amount, count] = ['text', 'kind', 'amount', 'count'].map(id => document.getElementById(id));
const key = (row, i) => row.cells[i].dataset.value;
heads.forEach((head, i) => head.firstElementChild.addEventListener('click', () => {
  const down = head.getAttribute('aria-sort') === 'ascending', sign = down ? -1 : 1;
  heads.forEach(other => other.setAttribute('aria-sort', 'none'));
  head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
  const numeric = head.dataset.type === 'number';
  body.append(...rows.slice().sort((a, b) => {
    const x = key(a, i), y = key(b, i);
    if (x === '' || y === '') return (x === '') - (y === '');
    return sign * (numeric ? x - y : x.localeCompare(y));
  }));
}));
function filter() {
  const wanted = text.value.trim().toLowerCase();
  rows.forEach(row => { row.hidden = !(row.cells[0].textContent.toLowerCase().includes(wanted)
    && (!kind.value || row.dataset.kind === kind.value) && (!amount.value || row.dataset.amount === amount.value)); });
  count.textContent = rows.filter(row => !row.hidden).length + ' of ' + rows.length + ' rows';
}
[text, kind, amount].forEach(control => control.addEventListener('input', filter));
filter();
"""

MAIN = Template("""<dl>$facts</dl>
<h2>What the numbers say</h2>
$summary
$notes
<h2 id="rows">Every method at every amount</h2>
<p class="soft">A heading sorts, a star marks the best mean at that amount among its group; grey rows removed less than half of
what was asked, and are in no rank. Accuracies are percent: mean ±
sample standard deviation (seeds of one dense network). Δloss is by pruning alone, in nats, mean over seeds; peak memory is the largest over
seeds.</p>
<div class="filters">
<label>Method contains<input id="text" type="search" autocomplete="off"></label>
<label>Kind<select id="kind"><option value="">all</option>$kinds</select></label>
<label>Requested<select id="amount"><option value="">all</option>$amounts</select></label>
<output id="count" class="soft" aria-live="polite"></output>
</div>
<div class="wide" tabindex="0" role="region" aria-labelledby="rows">
<table>
<thead><tr>$heads<th scope="col">Runs</th></tr></thead>
<tbody>
$body
</tbody>
</table>
</div>
<h2>Figures</h2>
$figures""")


def rankings(comparison: Comparison) -> list[list[Row]]:
    """For each group, unit and amount with a result: the rows that have a final accuracy and did
    not come short, best first.
    """
    final = comparison.final()
    there = (row for row in comparison.rows if row.stat(final).n and not row.short)
    return [
        sorted(rows, key=lambda row: -row.stat(final).mean)
        for _, rows in groupby(there, key=lambda row: (row.group, row.unit, row.amount))
    ]


def margin(ranked: list[Row], final: str) -> tuple[float, float | None]:
    """The best mean minus the second, and the larger of the two seed standard deviations; None
    where neither has one.
    """
    best, second = (row.stat(final) for row in ranked[:2])
    return best.mean - second.mean, max(
        (s for s in (best.std, second.std) if s is not None), default=None
    )


def overview(comparison: Comparison) -> list[str]:
    """A sentence for each group: which methods come first how often, and how often by more than the
    seeds scatter.
    """
    final, sentences = comparison.final(), []
    for group, lists in groupby(rankings(comparison), key=lambda ranked: ranked[0].group):
        lists = list(lists)
        firsts = Counter(ranked[0].label for ranked in lists).most_common()
        known = [
            (gap, scatter)
            for ranked in lists
            if len(ranked) > 1
            for gap, scatter in [margin(ranked, final)]
            if scatter is not None
        ]
        wins = ", ".join(f"{label} at {n} of {len(lists)}" for label, n in firsts)
        verdict = (
            "The margin over the next method exceeds the seed standard deviation at "
            f"{sum(g > s for g, s in known)} of the "
            f"{len(known)} amounts that have one"
            if known
            else "No seed standard deviation is known to hold the margins against"
        )
        sentences.append(
            f"{GROUPS[group]}, best accuracy {WHEN[final]}: {wins} amounts. {verdict}."
        )
    return sentences or ["No accuracy is recorded."]


def summary(comparison: Comparison) -> list[str]:
    """A sentence for each amount: the best method, its margin over the next, and whether that
    exceeds the seeds' scatter.
    """
    final, sentences = comparison.final(), []
    for ranked in rankings(comparison):
        best, stat = ranked[0], ranked[0].stat(final)
        seeds = (
            f"{stat.n} of {best.expected} seeds"
            if stat.n < best.expected
            else f"{stat.n} seed{'s' * (stat.n > 1)}"
        )
        text = (
            f"{GROUPS[best.group]}, {UNITS[best.unit]} {best.amount:g}: {best.label}, "
            f"{100 * stat.mean:.2f}% ({seeds})"
        )
        if len(ranked) == 1:
            sentences.append(text + "; no other method has a result.")
            continue
        gap, scatter = margin(ranked, final)
        text += f", {100 * gap:.2f} points above {ranked[1].label}"
        if scatter is None:
            text += "; too few seeds for a standard deviation"
        else:
            text += (
                f"; {'more' if gap > scatter else 'not more'} than the seed standard "
                f"deviation, {100 * scatter:.2f}"
            )
        kept = [row.stat("kept_weights").mean for row in ranked if row.stat("kept_weights").n]
        if kept and max(kept) - min(kept) > 0.01:
            text += (
                f". Kept weights differ, {100 * min(kept):.1f}% to {100 * max(kept):.1f}%: "
                "compare the curves"
            )
        sentences.append(text + ".")
    return sentences


def _provenance(run: Run) -> str:
    parts = []
    for stage, record in run.stages.items():
        known = record.provenance
        versions = known.get("versions") if isinstance(known.get("versions"), dict) else {}
        dirty = " with uncommitted changes" if known.get("dirty") else ""
        fields = {
            "record": record.id,
            "git": f"{known.get('git', 'unknown')}{dirty}",
            "versions": ", ".join(f"{name} {version}" for name, version in versions.items())
            or "unknown",
            "device": known.get("device", "unknown"),
            "threads": known.get("threads", "unknown"),
            "seed": run.seed,
            "data sha256": known.get("data_sha256", "unknown"),
            "command": known.get("command", "unknown"),
        }
        fields |= {"notes": "; ".join(map(str, record.notes))} if record.notes else {}
        lines = "<br>".join(
            f"{escape(name)}: {escape(str(value))}" for name, value in fields.items()
        )
        parts.append(f"<div><strong>seed {run.seed}, {escape(stage)}</strong><br>{lines}</div>")
    return "".join(parts)


def _row(row: Row, columns: Sequence[Column], best: bool, final: str) -> str:
    cells = []
    for i, column in enumerate(columns):
        value = column.value(row)
        key = escape("" if value is None else str(value))
        tag, extra = (
            ("th", ' scope="row"')
            if i == 0
            else ("td", ' class="best"' if best and column.heading == final else "")
        )
        cells.append(f'<{tag}{extra} data-value="{key}">{escape(column.text(row))}</{tag}>')
    count = f"{len(row.runs)} run{'s' * (len(row.runs) != 1)}"
    runs = (
        f"<details><summary>{count}</summary>{''.join(map(_provenance, row.runs))}</details>"
        if row.runs
        else "no record"
    )
    amount = escape(f"{UNITS[row.unit]} {row.amount:g}")
    return (
        f'<tr{" class=short" if row.short else ""} data-kind="{escape(row.kind)}" '
        f'data-amount="{amount}">{"".join(cells)}<td>{runs}</td></tr>'
    )


def _options(values: Sequence[str]) -> str:
    return "".join(
        f'<option value="{escape(v)}">{escape(v)}</option>' for v in dict.fromkeys(values)
    )


def render(
    comparison: Comparison, columns: Sequence[Column], images: Sequence[tuple[Drawing, bytes]]
) -> str:
    """The page. images: each drawing with its PNG."""
    dense, rows = comparison.dense, comparison.rows
    accuracy = "unknown" if dense["accuracy"] is None else f"{100 * dense['accuracy']:.2f}%"
    facts = {
        "Dense accuracy": accuracy,
        "Model": dense["model"],
        "Data set": dense["dataset"],
        "Scale": dense["scale"],
        "Methods": len({r.method for r in rows}),
        "Seeds": ", ".join(map(str, comparison.seeds)),
        "Fine-tuning": dense["finetune"],
        "Fine-tuned accuracy": "of the last epoch",
        "BatchNorm recalibration": f"{dense['recalibrate_bn']} batches"
        if dense["recalibrate_bn"]
        else "none",
        "Dense hash": dense["dense_hash"] or "unknown",
    }
    best = {id(ranked[0]) for ranked in rankings(comparison)}
    final = (
        "Accuracy fine-tuned %"
        if comparison.final() == "accuracy_finetuned"
        else "Accuracy pruned %"
    )
    heads = "".join(
        f'<th scope="col" aria-sort="none" data-type="{"text" if i < 2 else "number"}">'
        f'<button type="button">{escape(c.heading)}</button></th>'
        for i, c in enumerate(columns)
    )
    figures = "".join(
        picture(
            d.title,
            d.alt,
            png,
            f"<h3>{escape(d.title)}</h3>",
            f"<figcaption>{escape(d.caption)}</figcaption>",
        )
        for d, png in images
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in comparison.notes)
    tested = "".join(f"<li>{escape(text)}</li>" for text in paired.sentences(comparison))
    main = MAIN.substitute(
        figures=figures,
        heads=heads,
        facts="".join(
            f"<div><dt>{escape(k)}</dt><dd>{escape(str(v))}</dd></div>" for k, v in facts.items()
        ),
        summary="".join(f"<p>{escape(text)}</p>" for text in overview(comparison))
        + f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in summary(comparison))}</ul>"
        + (f"<h2>Over seeds and amounts</h2><ul>{tested}</ul>" if tested else ""),
        notes=f"<h2>Before you trust them</h2><ul>{notes}</ul>" if notes else "",
        kinds=_options([r.kind for r in rows]),
        amounts=_options([f"{UNITS[r.unit]} {r.amount:g}" for r in rows]),
        body="\n".join(_row(r, columns, id(r) in best, final) for r in rows),
    )
    return page(f"Pruning methods compared: {dense['model']} on {dense['dataset']}", main, SCRIPT)
