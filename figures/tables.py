"""python -m figures.tables [--output docs/tables]: every table of the papers as Markdown and CSV,
the paper's number beside ours.

Numbers come from <paper>/paper_values.csv and the records below <paper>/results; nothing is typed
here. Ours is the mean over seeds ± the sample standard deviation (seeds). A row that nobody has run
says so and names its command.
"""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from common.cells.errors import Parser, UserError
from figures.cells import DEVIATIONS, Ours, beside
from figures.draw import write_file
from figures.gallery import Item, items
from figures.values import MODELS, NAMES, PAPERS, ROOT, Value, read, tables

NOT_RUN, NO_CELL = "runnable, not run", "no cell"
# quantities of a network not pruned
OF_DENSE = ("top1_dense_pct", "orig_err_top1_pct", "orig_err_top5_pct", "dense_params")
SCALES = ("paper", "cpu", "quick", "")


@dataclass(frozen=True)
class Line:
    """One printed row beside one cell of ours with its seeds (None: nothing stands beside it)."""

    values: dict[str, Value]  # by quantity
    ours: dict[str, Ours]
    known: Ours | None  # any of `ours`, for scale, network, data set and command
    # ours is of another network or data set: a line of its own, below the printed one
    apart: bool = False

    @property
    def value(self) -> Value:
        """Any of the printed numbers, for what they share."""
        return next(iter(self.values.values()))

    @property
    def network(self) -> tuple[str, str]:
        """(network, data set) of the numbers in this line: the paper's, or ours where those are
        others.
        """
        return (
            (self.known.model, self.known.dataset)
            if self.apart
            else (self.value.model, self.value.dataset)
        )

    @property
    def setting(self) -> dict[str, str]:
        return dict(self.value.setting)

    @property
    def kept(self) -> str:
        """Percent of the weights that ours kept, mean over seeds, and what the row asks for where
        that is another; "" where unknown or where the line is of one layer."""
        shares = next(
            (one.kept for name, one in self.ours.items() if one.kept and name not in OF_DENSE), []
        )
        if not shares or self.setting.get("layer"):
            return ""
        share, asked = statistics.fmean(shares), self.asked
        if any(one.idle for one in self.ours.values()):
            return f"{share:.3g}: removed nothing"
        odd = asked is not None and abs(share - asked) > max(0.05 * asked, 0.05)
        return f"{share:.3g}" + (f" (not {asked:g})" if odd else "")

    @property
    def asked(self) -> float | None:
        """Percent of the weights that the printed row keeps; None where its setting does not
        say.
        """
        for name, share in (("kept_pct", lambda x: x), ("sparsity_pct", lambda x: 100 - x)):
            if name in self.setting and "unit" not in self.setting:
                return share(float(self.setting[name]))
        return None

    @property
    def status(self) -> str:
        """The scale that ours is at, or why there is none."""
        if self.known is None:
            return NO_CELL
        ran = max((len(one.values) for one in self.ours.values()), default=0)
        return (self.known.scale or "counted") if ran else NOT_RUN

    @property
    def what(self) -> str:
        """Which cell ours is, of which network and data set, and at which scale; or the status."""
        if self.known is None or self.status == NOT_RUN:
            return self.status
        variant = (
            self.known.model
            if self.known.model
            and not self.apart
            and self.known.model not in (self.value.model, MODELS.get(self.value.model, ("",))[0])
            else ""
        )
        options = self.known.dataset.partition(":")[2] and not self.apart and self.known.dataset
        return f"{self.known.name}: {', '.join(filter(None, (variant, options, self.status)))}"

    def printed(self, quantity: str) -> str:
        """The paper's number, with its deviation where it has one; empty where the paper prints
        none, "–" where it is of another network or data set than this line."""
        value = self.values.get(quantity)
        if self.apart:
            return "–" if quantity in self.ours and self.ours[quantity].values else ""
        spread = next(
            (
                v.value
                for name, v in self.values.items()
                if DEVIATIONS.get(name) == quantity and v.value
            ),
            "",
        )
        return "" if value is None else (value.value or "–") + (f" ± {spread}" if spread else "")


def quantities_of(lines: Sequence[Line]) -> list[str]:
    """Columns in the paper's order; a deviation goes with what it is the deviation of."""
    names = dict.fromkeys(quantity for line in lines for quantity in line.values)
    return [name for name in names if DEVIATIONS.get(name) not in names]


def settings_of(lines: Sequence[Line]) -> tuple[list[str], list[str]]:
    """(columns of the setting that vary, "name: value" of those that do not)."""
    first = [line.setting for line in lines]
    names = list(dict.fromkeys(name for one in first for name in one))
    varying = [name for name in names if len({one.get(name) for one in first}) > 1]
    return varying, [
        f"{name.replace('_', ' ')}: {first[0][name]}" for name in names if name not in varying
    ]


COUNTS = ("retrain_iterations", "total_retrain_iterations", "dense_params")


def number(value: float, quantity: str = "") -> str:
    """Two decimals for percents, none for counts and thousands, three significant digits for other
    numbers below 1.
    """
    if quantity in COUNTS or abs(value) >= 1000:
        return f"{value:,.0f}"
    return (
        f"{value:.3g}"
        if abs(value) < 1 and value and not quantity.endswith("_pct")
        else f"{value:.2f}"
    )


def spread(ours: Ours, quantity: str) -> str:
    """ "93.80 ± 0.10 (3)"; a printed deviation's own is the deviation alone; "–" where nothing
    ran.
    """
    if not ours.values:
        return "–"
    if quantity in DEVIATIONS:
        return number(statistics.stdev(ours.values), "_pct") if len(ours.values) > 1 else "–"
    text = number(statistics.fmean(ours.values), quantity)
    many = f"{len(ours.values)}" + f" of {ours.asked}" * (len(ours.values) != ours.asked)
    if len(ours.networks) > 1:
        many += f", of {len(ours.networks)} dense networks"
    many = "" if many == "1" else f" ({many})"
    varied = len(ours.values) > 1 and max(ours.values) > min(ours.values)
    return text + (f" ± {number(statistics.stdev(ours.values), quantity)}" if varied else "") + many


def lines_of(values: Iterable[Value], commands: dict[tuple[str, str], str]) -> list[Line]:
    """The printed rows in order, each once for every cell of ours that ran on its network and data
    set; once where none did. What ran on others follows in lines of its own: the two are never one
    field."""
    rows: dict[tuple, dict[str, Value]] = {}
    for value in values:
        row, twin = (*value.row,), 0
        while value.quantity in rows.get((*row, twin), {}):
            twin += 1  # the text says two things of one row
        rows.setdefault((*row, twin), {})[value.quantity] = value
    out = []
    for row in rows.values():
        ours = {
            quantity: {(o.scale, o.model, o.dataset, o.name): o for o in beside(value, commands)}
            for quantity, value in row.items()
        }
        variants = sorted(
            dict.fromkeys(key for one in ours.values() for key in one),
            key=lambda key: SCALES.index(key[0]),
        )
        ran = [
            key for key in variants if any(one[key].values for one in ours.values() if key in one)
        ]
        alike = {key for key in variants if next(iter(row.values())).like(*key[1:3])}
        waiting = [key for key in variants if key not in ran]
        own = (
            [key for key in ran if key in alike]
            or [key for key in waiting if key in alike][-1:]
            or ([] if ran else waiting[-1:])
            or [None]
        )
        for key in [*own, *(key for key in ran if key not in alike)]:
            mine = {quantity: one[key] for quantity, one in ours.items() if key in one}
            out.append(
                Line(
                    row,
                    mine,
                    next((o for o in mine.values() if o.values), next(iter(mine.values()), None)),
                    key in ran and key not in alike,
                )
            )
    return out


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


KEPT = "ours kept, %"
_OF_KEPT = {
    "remaining_pct",
    "sparsity_pct",
    "weights_reduction_pct",
    "compression_ratio_x",
    "remaining_params_m",
}


def kept_of(lines: Sequence[Line]) -> list[str]:
    """What ours kept, line by line; empty where a quantity of the table says it already."""
    if _OF_KEPT & set(quantities_of(lines)):
        return [one.kept if one.kept.endswith("nothing") else "" for one in lines]
    return [line.kept for line in lines]


def markdown(paper: str, label: str, lines: Sequence[Line], item: Item | None) -> str:
    """One table: setting columns, then each quantity as "paper / ours", what ours kept, and the
    number of its command.
    """
    varying, fixed = settings_of(lines)
    quantities = quantities_of(lines)
    commands = list(
        dict.fromkeys(line.known.command for line in lines if line.known and line.known.command)
    )
    body, shares = [], kept_of(lines)
    for line, share in zip(lines, shares, strict=True):
        cells = [
            line.value.method,
            line.what,
            *line.network,
            *(line.setting.get(name, "") for name in varying),
        ]
        for quantity in quantities:
            printed, ours = line.printed(quantity), line.ours.get(quantity)
            cells.append(
                f"{printed} / {spread(ours, quantity) if ours else '–'}" if printed else ""
            )
        cells += [share] if any(shares) else []
        cells.append(
            f"[{commands.index(line.known.command) + 1}]"
            if line.known and line.known.command
            else ""
        )
        body.append(_row(cells))
    heads = [
        "method",
        "ours is",
        "network",
        "data set",
        *(NAMES.get(name, name.replace("_", " ")) for name in varying),
        *(
            NAMES.get(quantity, quantity.replace("_", " ").replace(":", " "))
            for quantity in quantities
        ),
        *([KEPT] if any(shares) else []),
        "command",
    ]
    title = f"## {label}" + (f": {item.title}" if item and item.title else "")
    text = [
        title,
        "",
        *([f"Everywhere {'; '.join(fixed)}.", ""] if fixed else []),
        _row(heads),
        "|" + "---|" * len(heads),
        *body,
        "",
    ]
    text += [f"{i}. `{one}`" for i, one in enumerate(commands, 1)] + ([""] if commands else [])
    text += [f"- {_cell(why)}" for why in (item.deviations if item else ())] + (
        [""] if item and item.deviations else []
    )
    return "\n".join(text)


def comma_separated(paper: str, sections: Iterable[tuple[str, Sequence[Line]]]) -> str:
    """All tables of a paper, one number a line."""
    found = [
        _number_line(line, quantity, {"paper": paper, "table": label})
        for label, lines in sections
        for line in lines
        for quantity in line.values
    ]
    return pd.DataFrame(found, dtype=object).to_csv(index=False, lineterminator="\n")


def _number_line(line: Line, quantity: str, where: dict[str, str]) -> dict[str, object]:
    value, ours = line.values[quantity], line.ours.get(quantity)
    numbers = ours.values if ours else []
    told = ours is None or numbers or line.status in (NOT_RUN, NO_CELL)
    return where | {
        "model": value.model,
        "dataset": value.dataset,
        "method": value.method,
        "setting": "; ".join(f"{name}={text}" for name, text in value.setting),
        "quantity": quantity,
        "paper_value": value.value,
        "ours_mean": f"{statistics.fmean(numbers):.6g}" if numbers else "",
        "ours_std": f"{statistics.stdev(numbers):.3g}" if len(numbers) > 1 else "",
        "seeds": len(numbers),
        "asked": ours.asked if ours else 0,
        "status": line.status if told else "not recorded",
        "joined": "" if not numbers else "no" if line.apart else "yes",
        "kept_pct": f"{statistics.fmean(ours.kept):.6g}" if ours and ours.kept else "",
        "ours_cell": ours.name if ours else "",
        "ours_model": ours.model if ours else "",
        "ours_dataset": ours.dataset if ours else "",
        "command": ours.command if ours else "",
        "records": " ".join(dict.fromkeys(ours.ids)) if ours else "",
        "note": value.note,
    }


def sections_of(paper: str) -> list[tuple[str, list[Line]]]:
    """(label, lines) of every table in the paper's file, the text's numbers last."""
    known = {(item.paper, item.label): item for item in items()}
    commands = {key: item.commands[0] for key, item in known.items() if item.commands}
    labels = sorted(tables(paper), key=lambda label: label == "text")
    return [
        (label, lines_of((v for v in read(paper) if v.table == label), commands))
        for label in labels
    ]


def render() -> dict[str, str]:
    """File name -> content of docs/tables."""
    known = {(item.paper, item.label): item for item in items()}
    files, index = {}, []
    for paper, name in PAPERS.items():
        sections = sections_of(paper)
        if not sections:
            continue
        head = (
            f"# {name}: the paper's numbers beside ours\n\nWritten by `python -m figures.tables` "
            f"from `{paper}/paper_values.csv` and "
            f"`{paper}/results`. A field reads *paper / ours*; ours is the mean ± sample standard "
            "deviation (seeds) where there is "
            "more than one. Seeds are of pruning and tuning one dense network, unless the brackets "
            "say of how many. What ran on another network or data set than the paper's has a line "
            "of its own, with that network and "
            f'data set and *– / ours*; the column "ours is" names the cell and its scale. '
            f'"{NO_CELL}" is a number that the paper quotes, or that has no counterpart here on '
            "its own "
            "network and data set.\n"
        )
        parts = [
            markdown(paper, label, lines, known.get((paper, label))) for label, lines in sections
        ]
        files[f"{paper}.md"] = "\n".join([head, *parts]).rstrip() + "\n"
        files[f"{paper}.csv"] = comma_separated(paper, sections)
        rows = [line for _, lines in sections for line in lines]
        kinds = Counter(
            "apart"
            if line.apart
            else line.status
            if line.status in (NOT_RUN, NO_CELL)
            else "beside"
            for line in rows
        )
        counts = " | ".join(str(kinds[kind]) for kind in ("beside", "apart", NOT_RUN, NO_CELL))
        index.append(
            f"| [{name}]({paper}.md) | {len(sections)} | {len(rows)} | {counts} | "
            f"[{paper}.csv]({paper}.csv) |"
        )
    files["README.md"] = "\n".join(
        [
            "# Tables of the four papers",
            "",
            "Written by `python -m figures.tables`. Rows count each scale of ours once.",
            "",
            "| paper | tables | rows | ours beside the paper's | ours on another network or data "
            "set | runnable, not run | no cell | "
            "all numbers |",
            "|---|---|---|---|---|---|---|---|",
            *index,
            "",
        ]
    )
    return files


def main(argv: list[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = Parser(prog="python -m figures.tables", description=__doc__)
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "docs" / "tables",
        help="folder (default: docs/tables)",
    )
    folder = parser.parse_args(argv).output
    try:
        files = render()
        folder.mkdir(parents=True, exist_ok=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, text in files.items():
        write_file(folder / name, text.encode())
        print(folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
