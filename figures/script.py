"""The command line that every one-figure script has."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from common.errors import Parser, UserError

METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}  # the same bytes every time


def save(results: Path, name: str, figure: Figure | Callable[[], Figure], description: str, argv: list[str] | None = None) -> int:
    """Write <output>/<name>.<format>, `results` and png by default, and say where; returns the exit status.

    figure: drawn already, or the function that draws it, so that --help needs no records and a missing one is one line.
    """
    parser = Parser(description=description)
    parser.add_argument("--output", type=Path, default=results, help=f"folder (default: {results.parent.name}/{results.name})")
    parser.add_argument("--formats", nargs="+", choices=tuple(METADATA), default=["png"], help="of the picture (default: png)")
    options = parser.parse_args(argv)
    try:
        drawn = figure() if callable(figure) else figure
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    for suffix in options.formats:
        path = options.output / f"{name}.{suffix}"
        drawn.savefig(path, dpi=120, metadata=METADATA[suffix])
        print(path)
    return 0
