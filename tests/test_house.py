"""The house rules, read off the sources: which room may import which, no figure imports torch,
nothing unsafe.
"""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.cells import library

ROOT = Path(__file__).resolve().parent.parent
PAPERS = ("eigendamage", "lobs", "nap", "woodfisher")
OURS = ("common", *PAPERS, "figures", "tests")
# a room of common imports those on lower floors alone
FLOORS = {
    "cells": 0,
    "system": 1,
    "nets": 2,
    "data": 2,
    "curvature": 3,
    "pruning": 4,
    "running": 5,
    "commands": 6,
}
SOURCES = sorted(path for room in OURS for path in (ROOT / room).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names of every module the file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    mine = room(path)
    ours = {name for name in imports(path) if name.split(".")[0] in OURS}
    rooms = {name.split(".")[0] for name in ours} - {mine}
    if mine == "common":
        assert not rooms
    elif mine in PAPERS:
        assert rooms <= {"common"}
    elif mine == "figures":
        assert all(
            name == "common" or name.startswith(("common.cells", "figures")) for name in ours
        )
        assert not any(name.split(".")[0] in ("torch", "torchvision") for name in imports(path))


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if room(p) == "common"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_the_rooms_of_common_stand_on_floors(path):
    parts = path.relative_to(ROOT / "common").parts
    if len(parts) == 1:  # the short names of the commands
        rooms = {name.split(".")[1] for name in imports(path) if name.startswith("common.")}
        assert rooms <= {"commands"}
        return
    mine = FLOORS[parts[0]]
    for name in (name for name in imports(path) if name.startswith("common.")):
        other = name.split(".")[1]
        assert other == parts[0] or FLOORS[other] < mine, f"{path} imports {name}"


def test_the_room_of_cells_needs_the_standard_library_alone():
    for path in (ROOT / "common/cells").glob("*.py"):
        outside = {name.split(".")[0] for name in imports(path)} - {"common"}
        assert outside <= sys.stdlib_module_names, path


def test_no_module_imports_itself_through_others():
    """No circle of imports, those inside functions included."""
    sources = [path for path in SOURCES if room(path) in ("common", *PAPERS, "figures")]
    names = {module(path).removesuffix(".__init__"): path for path in sources}
    graph = {name: imports(path) & names.keys() - {name} for name, path in names.items()}
    settled: set[str] = set()
    while ready := {n for n, needs in graph.items() if n not in settled and needs <= settled}:
        settled |= ready
    assert settled == names.keys(), sorted(names.keys() - settled)


def test_the_top_level_is_the_papers():
    assert all((ROOT / name).is_dir() for name in OURS) and (ROOT / "requirements.txt").is_file()
    for paper in PAPERS:
        assert (ROOT / paper / "README.md").read_text().strip()


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if room(p) != "tests"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_no_unsafe_or_unfinished_code(path):
    text = path.read_text()
    for pattern in (
        r"weights_only\s*=\s*False",
        r"\bpickle\b",
        r"\.cuda\(\)",
        r"import \*",
        r"except:\s*$",
        r"\bTODO\b|\bFIXME\b",
        r"NotImplementedError",
    ):
        assert not re.search(pattern, text, re.M), pattern
    printing = path.parent.name == "commands" or path.name == "cli.py"
    if room(path) == "common" and not printing:
        assert not any(
            isinstance(n, ast.Call) and getattr(n.func, "id", "") == "print"
            for n in ast.walk(ast.parse(text))
        )


def test_records_and_registry_need_no_torch():
    code = (
        "import sys; import common.cells.committed, common.cells.registry, common.cells.trace; "
        "sys.exit('torch' "
        "in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_committed_records_are_small_and_name_no_path_of_a_machine():
    folders = [ROOT / folder / "results" for folder in (*PAPERS, "figures")]
    texts = {
        str(path): path.read_text() for folder in folders for path in folder.rglob("*.json")
    } | {record["id"]: json.dumps(record, indent=1) for record in library.whole(*folders)}
    for name, text in texts.items():
        assert len(text) <= 20_480, name
        assert not re.search(r'"/(home|root|work|tmp|Users)/', text), name
        json.loads(text)
