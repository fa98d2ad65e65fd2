"""Run long checks and keep what they said: docs/evidence/<check>.txt, with date, commit, machine,
and how it ended.

python -m tests.trust.evidence crash mutants coverage
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from common.cells.errors import Parser, choose
from common.running.cli import guarded
from common.system import machine

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "evidence"
PAPERS = ("eigendamage", "lobs", "nap", "woodfisher")
CHECKS: dict[str, tuple[str, ...]] = {
    "oracles": ("-m", "tests.trust.oracles"),
    "crash": ("-m", "tests.trust.crash"),
    "mutants": ("-m", "tests.trust.mutants"),
    "coverage": (
        "-m",
        "pytest",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
        *(f"--cov={room}" for room in ("common", *PAPERS)),
        "--cov-report=term",
    ),
}
KEPT = 400  # lines at the end of what a check said
PACKAGES = re.compile(r"/\S*/site-packages/")  # where they lie is the machine's business


def keep(name: str, words: Sequence[str], folder: Path = FOLDER) -> int:
    """Run `python words`, its lines shown and the last of them written below a head of five;
    returns its exit status.
    """
    commit, dirty = machine.code()
    start, lines = time.monotonic(), []
    with subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as child:
        for line in child.stdout:
            sys.stdout.write(line)
            lines.append(PACKAGES.sub("site-packages/", line.rstrip().replace(str(ROOT), ".")))
    head = [
        f"check:   python {' '.join(words)}",
        f"date:    {datetime.now(UTC):%Y-%m-%d}",
        f"commit:  {commit}{' with changes' if dirty else ''}",
        f"machine: {machine.fingerprint()}, {machine.cores()} cores",
        f"ended:   with status {child.returncode} after {(time.monotonic() - start) / 60:.1f} "
        "minutes",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text(
        "\n".join([*head, "", *lines[-KEPT:]]) + "\n", encoding="utf-8"
    )
    return child.returncode


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status, 1 where a check failed."""
    p = Parser(description=__doc__)
    p.add_argument("checks", nargs="+", metavar="check", help=", ".join(CHECKS))
    arguments = p.parse_args(argv)
    ended: list[int] = []

    def work() -> None:
        for name in [choose("check", name, CHECKS) for name in arguments.checks]:
            ended.append(keep(name, CHECKS[name]))

    return guarded(work) or int(any(ended))


if __name__ == "__main__":
    sys.exit(main())
