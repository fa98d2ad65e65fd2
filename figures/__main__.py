"""python -m figures: pictures, tables and pages from the committed records, without torch.

python -m figures woodfisher 3a       one picture, and its table where it has one, into
                                      woodfisher/results
python -m figures woodfisher          all of the paper's
python -m figures --all               every picture, PNG and PDF, into runs/figures
python -m figures tables              docs/tables, docs/gallery.md, docs/claims.md, READMEs' tables
python -m figures book                one page of everything: runs/book/book.html
python -m figures compare             a comparison again from its records; also protocols, scaling
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from common.cells.errors import Parser, UserError, choose
from figures import draw
from figures.values import PAPERS

PAGES = ("book", "compare", "protocols", "scaling")
TABLES = {"tables": [], "book": ["--index"], "readme": [], "claims": []}


def paper(name: str, keys: list[str], output: Path | None, formats: list[str]) -> int:
    """Pictures of one paper; a missing record is an error where a picture was asked for by name."""
    known, folder = draw.sheets(name), output or draw.ROOT / name / "results"
    for key in keys:
        choose("figure", key, known)
    for key in keys or known:
        try:
            print(*draw.save(name, key, folder, formats), sep="\n")
        except UserError as error:
            if keys:
                raise
            print(f"skipped {key}: {error}")
    return 0


def everything(output: Path) -> int:
    """Every picture; 1 where one broke."""
    start = time.monotonic()
    outcomes = draw.redraw(output)
    for one in outcomes:
        word = "failed " if one.broken else "skipped" if one.why else "drawn  "
        print(f"{word} {one.name}" + (f": {one.why}" if one.why else ""))
    drawn, spent = sum(not one.why for one in outcomes), time.monotonic() - start
    print(f"{drawn} of {len(outcomes)} figures in {output}, {spent:.0f} s")
    return int(any(one.broken for one in outcomes))


def main(argv: list[str] | None = None) -> int:
    """The command line; the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in PAGES:
        return importlib.import_module(f"figures.{argv[0]}").main(argv[1:])
    parser = Parser(
        prog="python -m figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what", nargs="?", choices=(*PAPERS, "tables", *PAGES), help="a paper, or what to write"
    )
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help="3a, S12, table1, choice, ...")
    parser.add_argument("--all", action="store_true", help="every picture")
    parser.add_argument(
        "--output", type=Path, help="folder (of a paper: its results; of --all: runs/figures)"
    )
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=tuple(draw.METADATA),
        default=["png"],
        help="of a paper's pictures (default: png)",
    )
    options = parser.parse_args(argv)
    try:
        if options.what == "tables":
            pages = [importlib.import_module(f"figures.{name}") for name in TABLES]
            return max(page.main(TABLES[page.__name__.partition(".")[2]]) for page in pages)
        if options.what:
            return paper(options.what, options.figures, options.output, options.formats)
        if options.all:
            return everything(options.output or draw.OUTPUT)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    parser.error("say what to draw: a paper and a figure of it, or --all")
    return 2


if __name__ == "__main__":
    sys.exit(main())
