"""python -m figures.compare --records <folder>... --output <folder>: one table, figures and a
report from records alone.

Everything is drawn in memory first and then written file by file, each atomically; when the records
may not be compared nothing is written and the exit status is 2.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from common.cells.errors import Parser, UserError
from common.cells.library import read_all
from figures import paired, report, side_panels
from figures.columns import COLUMNS
from figures.draw import FORMATS, rendered, write_file
from figures.records import QUANTITIES, Comparison, gather


def headline(comparison: Comparison) -> str:
    """What the table compares, in one line."""
    dense = comparison.dense
    percent = dense["quality"].endswith("accuracy")
    accuracy = "unknown" if dense["accuracy"] is None else f"{dense['accuracy']:.4g}"
    if percent and dense["accuracy"] is not None:
        accuracy = f"{100 * dense['accuracy']:.2f}%"
    batch_norm = f"{dense['recalibrate_bn']} batches" if dense["recalibrate_bn"] else "none"
    return (
        f"Dense {dense['quality']} {accuracy}; model {dense['model']}; data set "
        f"{dense['dataset']}; "
        "dense hash "
        f"{dense['dense_hash'] or 'unknown'}; fine-tuning {dense['finetune']}; BatchNorm "
        f"recalibration {batch_norm}; scale "
        f"{dense['scale']}; fine-tuned accuracy is that of the last epoch; mean ± sample standard "
        "deviation (seeds of this one dense network)."
    )


def markdown(comparison: Comparison) -> str:
    """table.md."""

    def line(cells: Sequence[str]) -> str:
        return (
            "| "
            + " | ".join(_one_line(c).replace("<", "&lt;").replace("|", "\\|") for c in cells)
            + " |"
        )

    lines = [
        _one_line(headline(comparison)).replace("<", "&lt;"),
        "",
        line([c.heading for c in COLUMNS]),
        "|" + "---|" * 3 + "---:|" * (len(COLUMNS) - 3),
    ]
    lines += [line([column.text(row) for column in COLUMNS]) for row in comparison.rows]
    notes = [f"- {_one_line(note)}".replace("<", "&lt;") for note in comparison.notes]
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


def comma_separated(comparison: Comparison) -> str:
    """table.csv: raw numbers (fractions, loss units, seconds, MB); an empty field is a missing
    one.
    """
    lines = []
    for row in comparison.rows:
        line = {
            "method": row.method,
            "label": row.label,
            "kind": row.kind,
            "amount_unit": row.unit,
            "amount": row.amount,
            "seeds_expected": row.expected,
            "accuracy_dense": comparison.dense["accuracy"],
        }
        for quantity in QUANTITIES:
            stat = row.stat(quantity)
            line[f"{quantity}_mean"] = stat.mean
            if quantity.startswith("accuracy"):
                line[f"{quantity}_std"] = stat.std
                line[f"{quantity}_min"] = min(stat.values, default=None)
                line[f"{quantity}_max"] = max(stat.values, default=None)
                line[f"{quantity}_n"] = stat.n
        line["peak_rss_mb_max"] = max(row.stat("peak_rss_mb").values, default=None)
        lines.append(line | {"mark": row.mark})
    return pd.DataFrame(lines, dtype=object).to_csv(index=False, lineterminator="\n")


def plain_text(comparison: Comparison) -> str:
    """The table for a terminal, a blank line between amounts."""
    shown = [column for column in COLUMNS if column.heading not in ("Kind", "Sparsity")]
    cells = [[column.heading for column in shown]] + [
        [_one_line(c.text(row)) for c in shown] for row in comparison.rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines, before = [], None
    for line, row in zip(cells, [None, *comparison.rows], strict=True):
        now = row and (row.group, row.unit, row.amount)
        lines += [""] if now != before else []
        aligned = (
            c.ljust(w) if i < 2 else c.rjust(w)
            for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        lines.append("  ".join(aligned).rstrip())
        before = now
    return "\n".join(lines)


def _one_line(text: str) -> str:
    """No line breaks, no terminal control sequences."""
    return "".join(c if c.isprintable() else " " for c in text)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")  # JSON can carry halves of characters that UTF-8 cannot


def render(comparison: Comparison, folders: Sequence[Path] = ()) -> dict[str, bytes]:
    """File name -> content of everything that the command writes. folders: searched for
    agreement.csv.
    """
    drawings = side_panels.draw(comparison, folders)
    files = {
        "table.md": _encoded(markdown(comparison)),
        "table.csv": _encoded(comma_separated(comparison)),
        "statistics.md": _encoded(paired.markdown(comparison)),
    }
    for drawing in drawings:
        for suffix in FORMATS:
            files[f"{drawing.name}.{suffix}"] = rendered(drawing.figure, suffix, dpi=140)
    images = [(drawing, files[f"{drawing.name}.png"]) for drawing in drawings]
    files["report.html"] = _encoded(report.render(comparison, COLUMNS, images))
    return files


def compare(folders: Sequence[str | Path], output: str | Path) -> Comparison:
    """Read, check, draw, write. Raises UserError when the folders or the output cannot be used or
    must not be compared.
    """
    for folder in folders:
        if not Path(folder).is_dir():
            raise UserError("records", str(folder), "no such folder", "run the comparison first")
    places = list(dict.fromkeys(Path(folder).resolve() for folder in folders))
    comparison = gather(read_all(*places))
    files = render(comparison, places)
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_file(Path(output) / name, content)
    except OSError as error:
        raise UserError(
            "output", str(output), f"cannot be written ({error.strerror})", "name another folder"
        ) from None
    return comparison


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = Parser(
        prog="python -m figures.compare", description="Table, figures and report from records."
    )
    parser.add_argument(
        "--records",
        nargs="+",
        required=True,
        metavar="FOLDER",
        help="folders searched for record files",
    )
    parser.add_argument(
        "--output", required=True, metavar="FOLDER", help="where the table, figures and report go"
    )
    options = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal without ± must not cost the run
    logging.basicConfig(level=logging.WARNING, format="warning: %(message)s")
    try:
        comparison = compare(options.records, options.output)
    except UserError as error:
        print(f"error: {_one_line(str(error))}", file=sys.stderr)
        return 2
    print(
        _one_line(headline(comparison)),
        plain_text(comparison),
        "",
        *map(
            _one_line,
            [
                *report.overview(comparison),
                *report.summary(comparison),
                *paired.sentences(comparison),
            ],
        ),
        sep="\n",
    )
    for note in comparison.notes:
        print(f"note: {_one_line(note)}")
    output = Path(options.output)
    print(
        f"\nreport   {output / 'report.html'}",
        f"table    {output / 'table.md'}, {output / 'table.csv'}, {output / 'statistics.md'}",
        f"figures  {output / '*.png'}, {output / '*.pdf'}",
        sep="\n",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
