"""Speed, measured side by side in one process and printed as ratios.

python -m tests.bench [--only ratios,scaling,structured,unstructured,lobs] [--end-to-end] [--json
  FILE]
"""

from __future__ import annotations

import argparse
import sys

import torch

from common.cells.errors import Parser, choose
from common.cells.record import write_json
from common.running.cli import guarded
from common.system import machine
from tests.bench import kernel, networks, scaling, whole
from tests.lobs import bench as lobs

SECTIONS = {
    "ratios": kernel.ratios,
    "scaling": scaling.curves,
    "structured": networks.structured,
    "unstructured": networks.unstructured,
    "lobs": lambda: lobs.measure(500, 60_000),
    "resnet50": whole.resnet50,
}
LONG = ("resnet50",)


def main(argv: list[str] | None = None) -> int:
    """Print the sections and the machine; with --json also write them."""
    p = Parser(description=__doc__)
    p.add_argument(
        "--only",
        help=f"comma-separated sections of {', '.join(SECTIONS)} (default: all but resnet50; lobs "
        "needs MNIST)",
    )
    p.add_argument(
        "--end-to-end",
        action="store_true",
        help="also prune ResNet-50 within 8 GB (minutes; needs a sample of ImageNet)",
    )
    p.add_argument("--json", help="also write the numbers here")
    return guarded(lambda: _main(p.parse_args(argv)))


def _main(arguments: argparse.Namespace) -> None:
    chosen = (
        [choose("only", word, SECTIONS) for word in arguments.only.split(",")]
        if arguments.only
        else [name for name in SECTIONS if name not in LONG]
    )
    chosen += [name for name in LONG if arguments.end_to_end and name not in chosen]
    where = machine.provenance(torch.device("cpu"), 0)
    print(f"{where['device']}, {where['threads']} threads, torch {where['versions']['torch']}")
    result: dict = {"provenance": where}
    for name in chosen:
        result[name] = SECTIONS[name]()
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    sys.exit(main())
