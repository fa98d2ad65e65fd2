"""Speed, measured side by side in one process and printed as ratios.

    python -m tests.bench [--only kernel,scaling,structured,unstructured,lobs] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys

import torch

from common import machine
from common.cli import guarded
from common.errors import Parser, choose
from common.record import write_json
from tests.bench import kernel, networks, scaling
from tests.lobs import bench as lobs

SECTIONS = {"ratios": kernel.ratios, "scaling": scaling.curves, "structured": networks.structured, "unstructured": networks.unstructured,
            "lobs": lambda: lobs.measure(500, 60_000)}


def main(argv: list[str] | None = None) -> int:
    """Print the sections and the machine; with --json also write them."""
    p = Parser(description=__doc__)
    p.add_argument("--only", help=f"comma-separated sections (default: all of {', '.join(SECTIONS)}; lobs needs MNIST)")
    p.add_argument("--json", help="also write the numbers here")
    return guarded(lambda: _main(p.parse_args(argv)))


def _main(arguments: argparse.Namespace) -> None:
    chosen = [choose("only", word, SECTIONS) for word in arguments.only.split(",")] if arguments.only else list(SECTIONS)
    where = machine.provenance(torch.device("cpu"), 0)
    print(f"{where['device']}, {where['threads']} threads, torch {where['versions']['torch']}")
    result: dict = {"provenance": where}
    for name in chosen:
        result[name] = SECTIONS[name]()
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    sys.exit(main())
