"""The command line that every one-figure script has."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from common.cells.errors import Parser, UserError

# the same bytes every time
METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


def stored(path: Path, command: str) -> Path:
    """The path of a committed result; UserError says which one is missing and what makes it."""
    if not path.exists():
        raise UserError("results", path.name, "no such record", f"run {command}")
    return path


def save(
    results: Path,
    name: str,
    figure: Callable[[], Figure],
    description: str,
    argv: list[str] | None = None,
    table: Callable[[], str] | None = None,
) -> int:
    """Write <output>/<name>.<format>, `results` and png by default, and say where; returns the exit
    status.

    figure, table: what draws the picture and writes the Markdown beside it (<name>.md); called
    after the flags are read, so that --help needs no records and a missing one is one line.
    """
    parser = Parser(description=description)
    parser.add_argument(
        "--output",
        type=Path,
        default=results,
        help=f"folder (default: {results.parent.name}/{results.name})",
    )
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=tuple(METADATA),
        default=["png"],
        help="of the picture (default: png)",
    )
    options = parser.parse_args(argv)
    try:
        drawn, text = figure(), table() if table else ""
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    for suffix in options.formats:
        path = options.output / f"{name}.{suffix}"
        drawn.savefig(path, dpi=120, metadata=METADATA[suffix])
        print(path)
    if text:
        (options.output / f"{name}.md").write_text(text, encoding="utf-8")
    return 0
