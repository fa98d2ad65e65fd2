"""python -m figures.redraw [--output runs/figures]: every figure again from the committed records,
without torch, into one folder.

Runs each figures/<paper>_*.py that draws, then the comparison's figures of every folder below
figures/results. A figure whose records are missing is named in one line and passed over; one that
breaks is named too, and the status is then 1. PNG and PDF, called <paper>_<figure> or
compare_<job>_<figure>.
"""

from __future__ import annotations

import ast
import contextlib
import io
import runpy
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from common.cells.errors import Parser, UserError
from common.cells.library import read_all
from figures import side_panels
from figures.compare import FORMATS, write_file
from figures.records import gather
from figures.values import PAPERS, ROOT

HERE = Path(__file__).resolve().parent
OUTPUT = ROOT / "runs" / "figures"


@dataclass(frozen=True)
class Outcome:
    """What came of one script: the files it left, or why there are none."""

    name: str
    files: tuple[Path, ...] = ()
    why: str = ""
    alt: str = ""  # the script's own first line: what the figure shows
    # the script raised something else than that records are missing
    broken: bool = False


def scripts(folder: Path = HERE) -> list[str]:
    """The modules that draw a figure of a paper: those with a command line."""
    return [
        path.stem
        for path in sorted(folder.glob("*.py"))
        if path.stem.split("_")[0] in PAPERS
        and 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
    ]


def describe(module: str) -> str:
    """The first line of a script's docstring."""
    text = (
        ast.get_docstring(ast.parse((HERE / f"{module}.py").read_text(encoding="utf-8"))) or module
    )
    return " ".join(text.split("\n\n")[0].split())


def draw(module: str, output: Path) -> Outcome:
    """Run one script as its command line would; files are renamed <paper>_<figure>."""
    paper, said = module.split("_")[0], io.StringIO()
    with tempfile.TemporaryDirectory(dir=output) as folder:
        arguments = [module, "--output", folder, "--formats", "png", "pdf"]
        try:
            with (
                mock.patch.object(sys, "argv", arguments),
                contextlib.redirect_stdout(said),
                contextlib.redirect_stderr(said),
            ):
                runpy.run_module(f"figures.{module}", run_name="__main__")
        except SystemExit as end:
            if end.code:
                return Outcome(module, why=_last(said.getvalue()) or f"status {end.code}")
        except (UserError, FileNotFoundError) as error:
            return Outcome(module, why=_last(str(error)))
        except Exception as error:
            # a script that breaks must not cost the others their figures; main says so and fails
            return Outcome(module, why=_last(f"{type(error).__name__}: {error}"), broken=True)
        made = sorted(path for path in Path(folder).iterdir() if path.suffix in (".png", ".pdf"))
        files = []
        for path in made:
            target = output / f"{paper}_{path.name.removeprefix(f'{paper}_')}"
            path.rename(target)
            files.append(target)
    return Outcome(module, tuple(files), "" if files else "draws nothing", describe(module))


def _last(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return " ".join(lines[-1].split()) if lines else ""


def comparisons(output: Path, results: Path = HERE / "results") -> Iterator[Outcome]:
    """The comparison's figures, one outcome each, for every folder of records."""
    for folder in sorted(path for path in results.iterdir() if path.is_dir()):
        try:
            drawings = side_panels.draw(gather(read_all(folder)), [folder])
        except UserError as error:
            yield Outcome(f"compare_{folder.name}", why=str(error))
            continue
        for drawing in drawings:
            name, files = f"compare_{folder.name}_{drawing.name}", []
            for suffix, metadata in FORMATS.items():
                picture = io.BytesIO()
                drawing.figure.savefig(picture, format=suffix, metadata=metadata, dpi=120)
                files.append(output / f"{name}.{suffix}")
                write_file(files[-1], picture.getvalue())
            yield Outcome(name, tuple(files), alt=drawing.alt)


def redraw(output: Path) -> list[Outcome]:
    """Everything into `output`."""
    output.mkdir(parents=True, exist_ok=True)
    return [*(draw(module, output) for module in scripts()), *comparisons(output)]


def main(argv: list[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = Parser(prog="python -m figures.redraw", description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help="folder (default: runs/figures)"
    )
    options = parser.parse_args(argv)
    start = time.monotonic()
    outcomes = redraw(options.output)
    for outcome in outcomes:
        word = "failed " if outcome.broken else "skipped" if outcome.why else "drawn  "
        print(f"{word} {outcome.name}" + (f": {outcome.why}" if outcome.why else ""))
    drawn = sum(not outcome.why for outcome in outcomes)
    print(
        f"{drawn} of {len(outcomes)} figures in {options.output}, {time.monotonic() - start:.0f} s"
    )
    return int(any(outcome.broken for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
