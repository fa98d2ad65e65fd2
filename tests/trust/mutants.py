"""Planted faults: each is one small, plausible mistake, and the tests named beside it must fail on
it.

    python -m tests.trust.mutants [part of a file's name ...] [--part 2/6] [--kept outcomes.jsonl]

The code is copied to a temporary folder; one fault at a time is written into the copy, its tests
run, and the file is put back. A fault that no test notices is a missing test. The suite itself
checks only that every fault still fits the code. With --kept, a run that was stopped goes on: a
fault that was noticed is not planted again while its file and its tests are as they were.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from common.cells.errors import Parser, UserError
from common.running.cli import guarded
from common.system import shard
from tests.trust.faults import FAULTS

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("common", "eigendamage", "lobs", "nap", "woodfisher", "figures", "tests")
SECONDS = 120  # a fault that makes its tests hang is noticed too


@dataclass(frozen=True)
class Mutant:
    """`old` occurs exactly once in `file` as `normal` prints it; with `new` in its place one of
    `tests` (pytest arguments) fails.
    """

    file: str
    old: str
    new: str
    tests: str


MUTANTS = [Mutant(file, *fault) for file, faults in FAULTS.items() for fault in faults]


def normal(text: str) -> str:
    """The code as ast.unparse prints it: faults hang on what it says, not on how it is laid out."""
    return ast.unparse(ast.parse(text))


def copied(target: Path) -> None:
    """The program without its records."""
    for room in ROOMS:
        shutil.copytree(
            ROOT / room,
            target / room,
            ignore=shutil.ignore_patterns("results", "__pycache__", "*.npz"),
        )
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, target / name)


def run(folder: Path, tests: str, seconds: float = SECONDS) -> int:
    """pytest's exit status in a child of this process, which has torch loaded already; -9 where it
    was stopped.
    """
    child = os.fork()
    if not child:
        os.chdir(folder)
        sys.path[:] = [str(folder), *(p for p in sys.path if p not in ("", str(ROOT)))]
        for name in [name for name in sys.modules if name.partition(".")[0] in ROOMS]:
            del sys.modules[name]
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        import pytest

        os._exit(
            pytest.main(
                [
                    *tests.replace(" -k ", " -k").split(" ", 1),
                    "-x",
                    "-q",
                    "-p",
                    "no:cacheprovider",
                    "-o",
                    "addopts=",
                ]
            )
        )
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -9


def plant(folder: Path, mutant: Mutant) -> int:
    """The tests' exit status with the fault in the code, which is put back."""
    path = folder / mutant.file
    text = path.read_text()
    path.write_text(normal(text).replace(mutant.old, mutant.new))
    try:
        return run(folder, mutant.tests)
    finally:
        path.write_text(text)


def key(mutant: Mutant) -> str:
    """What the outcome hangs on, as far as one can tell: the fault, the file it is in, and the file
    of its tests.
    """
    files = ((ROOT / name).read_text() for name in (mutant.file, mutant.tests.split()[0]))
    return hashlib.sha256(
        "\0".join((mutant.old, mutant.new, mutant.tests, *files)).encode()
    ).hexdigest()


def chosen(words: list[str], part: str) -> list[Mutant]:
    """The faults of the files whose names hold one of the words (all, without words); of them the
    i-th part of n.
    """
    i, n = shard.parse(part)
    named = [m for m in MUTANTS if not words or any(word in m.file for word in words)]
    if not named:
        raise UserError(
            "file",
            " ".join(words),
            "no fault is planted in such a file",
            f"known: {', '.join(FAULTS)}",
        )
    return named[(i - 1) * len(named) // n : i * len(named) // n]


def without_faults(mutants: list[Mutant]) -> list[str]:
    """Arguments of one pytest run a file that has all the tests that are to notice these faults."""
    words: dict[str, list[str]] = {}
    for file, _, expression in (m.tests.partition(" -k ") for m in mutants):
        words.setdefault(file, []).append(expression)
    return [
        file
        if "" in some
        else f"{file} -k {' or '.join(f'({one})' for one in dict.fromkeys(some))}"
        for file, some in words.items()
    ]


def hunt(mutants: list[Mutant], kept: Path | None) -> list[str]:
    """Plant every fault that was not noticed before; a line for each that goes unnoticed, or whose
    tests fail without it.
    """
    known = (
        {json.loads(line)["key"] for line in kept.read_text().splitlines()}
        if kept and kept.exists()
        else set()
    )
    todo = [m for m in mutants if key(m) not in known]
    sys.stdout.write(
        f"{len(mutants) - len(todo)} of {len(mutants)} faults were noticed before\n"
        if known
        else ""
    )
    survived = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "copy"
        copied(folder)
        for tests in without_faults(todo):
            if status := run(folder, tests, len(todo) * SECONDS):
                survived.append(f"{tests}: fails without any fault (status {status})")
        for number, mutant in enumerate(todo, 1):
            start = time.monotonic()
            status = plant(folder, mutant)
            noticed = status in (1, 2, -9)  # failed, or could not even be imported
            old, new = (" ".join(text.split()) or "(nothing)" for text in (mutant.old, mutant.new))
            sys.stdout.write(
                f"{number:3}/{len(todo)} {'noticed' if noticed else 'SURVIVED'} "
                f"{time.monotonic() - start:5.1f} s  "
                f"{mutant.file}: {old} -> {new}\n"
            )
            sys.stdout.flush()
            if not noticed:
                survived.append(f"{mutant.file}: {mutant.old!r} -> {mutant.new!r}")
            elif kept:
                with kept.open("a") as file:
                    file.write(
                        json.dumps({"key": key(mutant), "file": mutant.file, "status": status})
                        + "\n"
                    )
    return survived


def main(argv: list[str] | None = None) -> int:
    """Plant every fault; 1 if one goes unnoticed or its tests fail without it."""
    p = Parser(description=__doc__)
    p.add_argument(
        "words", nargs="*", metavar="file", help="part of the names of files (default: all files)"
    )
    p.add_argument(
        "--part",
        default="1/1",
        metavar="I/N",
        help="only the I-th of N parts of the list (default: 1/1)",
    )
    p.add_argument(
        "--kept",
        type=Path,
        help="file of outcomes, to go on where a run was stopped (default: plant every fault)",
    )
    a = p.parse_args(argv)
    survived = []

    def work() -> None:
        mutants = chosen(a.words, a.part)
        import hypothesis  # noqa: F401  loaded once, for all children
        import torch
        import torch_pruning  # noqa: F401
        import torchvision  # noqa: F401

        torch.set_num_threads(1)
        # a fault of the same length in the same second must not meet a cached file
        sys.dont_write_bytecode = True
        survived.extend(hunt(mutants, a.kept))
        sys.stdout.write(
            f"{len(mutants)} faults planted, {len(survived)} not noticed\n"
            + "".join(f"  {line}\n" for line in survived)
        )

    return guarded(work) or int(bool(survived))


if __name__ == "__main__":
    sys.exit(main())
