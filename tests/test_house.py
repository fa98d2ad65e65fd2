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

ROOT = Path(__file__).resolve().parent.parent
PAPERS = ("eigendamage", "lobs", "nap", "woodfisher")
OURS = ("common", *PAPERS, "figures", "tests")
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
        allowed = (
            "common.record",
            "common.registry",
            "common.errors",
            "common.spec",
            "common.schedule",
            "common.trace",
            "common.committed",
            "figures",
        )
        assert all(name == "common" or name.startswith(allowed) for name in ours)
        assert not any(name.split(".")[0] in ("torch", "torchvision") for name in imports(path))


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
    if room(path) == "common" and path.name not in (
        "cli.py",
        "compare.py",
        "publish.py",
        "export.py",
        "queue.py",
        "verify.py",
    ):
        assert not any(
            isinstance(n, ast.Call) and getattr(n.func, "id", "") == "print"
            for n in ast.walk(ast.parse(text))
        )


def test_records_and_registry_need_no_torch():
    code = (
        "import sys; import common.committed, common.registry, common.trace; sys.exit('torch' "
        "in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_committed_records_are_small_and_name_no_path_of_a_machine():
    for path in (
        p for folder in (*PAPERS, "figures") for p in (ROOT / folder / "results").rglob("*.json")
    ):
        text = path.read_text()
        assert len(text) <= 20_480, path
        assert not re.search(r'"/(home|root|work|tmp|Users)/', text), path
        json.loads(text)
