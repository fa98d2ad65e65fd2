"""The command line that every one-figure script has."""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure


def save(results: Path, name: str, figure: Figure, description: str, argv: list[str] | None = None) -> int:
    """Write <output>/<name>.png, `results` by default, and say where; returns the exit status."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output", type=Path, default=results, help=f"folder (default: {results.parent.name}/{results.name})")
    folder = parser.parse_args(argv).output
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", dpi=120)
    print(folder / f"{name}.png")
    return 0
