"""Print committed records whole, one JSON object a line. Standard library only.

python -m common.records                          every committed record
python -m common.records nap/results runs/nap     those below these folders
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from common.cells import library
from common.cells.errors import Parser, UserError


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    p = Parser(prog="python -m common.records", description=__doc__)
    p.add_argument(
        "folder", type=Path, nargs="*", help="folders searched (default: all committed results)"
    )
    folders = p.parse_args(argv).folder or [library.results(paper) for paper in library.PAPERS]
    try:
        for folder in folders:
            if not folder.is_dir():
                raise UserError("folder", str(folder), "no such folder", "name one with records")
        for record in library.whole(*folders):
            print(json.dumps(record))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head`: what is left in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
