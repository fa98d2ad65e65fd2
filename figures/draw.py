"""Pictures as files: one sheet of a paper, or every picture there is, without torch.

A picture whose records are missing is named in one line and passed over; one that breaks is named
too. The files are called <paper>_<figure> or compare_<job>_<figure>.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from common.cells.errors import UserError
from common.cells.library import read_all
from figures import side_panels
from figures.kinds import Sheet
from figures.records import gather
from figures.values import PAPERS, ROOT

# the same bytes every time
METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
FORMATS = ("png", "pdf")
OUTPUT = ROOT / "runs" / "figures"


@dataclass(frozen=True)
class Outcome:
    """What came of one picture: the files it left, or why there are none."""

    name: str
    files: tuple[Path, ...] = ()
    why: str = ""
    alt: str = ""  # what the picture shows
    # something else was raised than that records are missing
    broken: bool = False


def sheets(paper: str) -> Mapping[str, Sheet]:
    """A paper's pictures by their keys: 3a, S12, table1, choice."""
    return importlib.import_module(f"figures.{paper}").FIGURES


def stem(key: str) -> str:
    """The file's name: fig3a, table1."""
    return f"fig{key}" if re.match(r"S?\d", key) else key


def rendered(figure: Figure, suffix: str, dpi: int = 120) -> bytes:
    """A figure as a file of this format."""
    out = io.BytesIO()
    figure.savefig(out, format=suffix, metadata=METADATA[suffix], dpi=dpi)
    return out.getvalue()


def write_file(path: Path, content: bytes) -> Path:
    """Atomic: a reader sees the old file or the whole new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def save(paper: str, key: str, folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """One sheet into a folder, its table beside it: the files. UserError for a missing record."""
    sheet = sheets(paper)[key]
    figure, text = sheet.draw(), sheet.table() if sheet.table else ""
    contents = {suffix: rendered(figure, suffix) for suffix in formats}
    contents |= {"md": text.encode()} if text else {}
    folder.mkdir(parents=True, exist_ok=True)
    return [write_file(folder / f"{stem(key)}.{end}", content) for end, content in contents.items()]


def draw(paper: str, key: str, output: Path) -> Outcome:
    """One sheet, PNG and PDF, whatever happens."""
    name = f"{paper}_{stem(key)}"
    try:
        figure = sheets(paper)[key].draw()
    except (UserError, FileNotFoundError) as error:
        return Outcome(name, why=" ".join(str(error).split()))
    except Exception as error:
        # a picture that breaks must not cost the others theirs; the command says so and fails
        return Outcome(name, why=f"{type(error).__name__}: {error}", broken=True)
    return Outcome(name, _files(output / name, figure), alt=sheets(paper)[key].shows)


def _files(path: Path, figure: Figure) -> tuple[Path, ...]:
    return tuple(
        write_file(path.with_name(f"{path.name}.{suffix}"), rendered(figure, suffix))
        for suffix in FORMATS
    )


def comparisons(output: Path, results: Path = ROOT / "figures" / "results") -> Iterator[Outcome]:
    """The comparison's figures, one outcome each, for every folder of records."""
    for folder in sorted(path for path in results.iterdir() if path.is_dir()):
        name = f"compare_{folder.name}"
        try:
            drawings = side_panels.draw(gather(read_all(folder)), [folder])
        except UserError as error:
            yield Outcome(name, why=str(error))
            continue
        for drawing in drawings:
            files = _files(output / f"{name}_{drawing.name}", drawing.figure)
            yield Outcome(f"{name}_{drawing.name}", files, alt=drawing.alt)


def redraw(output: Path = OUTPUT) -> list[Outcome]:
    """Everything into `output`."""
    output.mkdir(parents=True, exist_ok=True)
    keys = [(paper, key) for paper in PAPERS for key in sheets(paper)]
    return [*(draw(paper, key, output) for paper, key in keys), *comparisons(output)]
