"""What one cell imports on its way through a verb: what it uses, and little else."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# runs `python -m <words>`; the last line it prints says which modules there are afterwards
RUN = """
import json, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted(sys.modules)))
"""
CELLS = {
    "eigendamage": ["--table", "1", "--cell", "vgg19-cifar10-0.6-eigendamage-seed0"],
    "lobs": ["--table", "1", "--cell", "lenet300-8.4-l-obs", "--option", "layer_sparsity={}"],
    "nap": ["--table", "3", "--cell", "lenet300-77x-nap-seed0"],
    "woodfisher": ["--figure", "3a", "--cell", "woodfisher-0.8-seed0", "--option", "skip=[]"],
}
SMALL = [
    *("--model", "digits_cnn:width=0.25", "--dataset", "synthetic:samples=64"),
    *("--checkpoint=", "--num-samples", "20", "--allow-untrained"),
]
MOST_COMMON, MOST_OWN = 60, 11


def modules(*words: str) -> set[str]:
    run = [sys.executable, "-c", RUN, *words]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def to_read(names: set[str], package: str) -> set[str]:
    """The package's modules that hold code: a file of a docstring alone says what a room is for."""
    found = set()
    for name in names:
        path = ROOT / name.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        ours = name.split(".")[0] == package and file.is_file()
        if ours and len(ast.parse(file.read_text()).body) > 1:
            found.add(name)
    return found


@pytest.mark.parametrize("paper", CELLS)
def test_a_cell_imports_what_it_uses(paper, tmp_path):
    words = [f"{paper}.prune", *CELLS[paper], *SMALL, "--output-dir", str(tmp_path)]
    found = modules(*words)
    assert list(tmp_path.rglob("prune.json"))
    common, own = to_read(found, "common"), to_read(found, paper)
    assert len(common) <= MOST_COMMON and len(own) <= MOST_OWN
    assert {name for name in common if name.startswith("common.nets.models.")} == {
        "common.nets.models.digits",
        "common.nets.models.parts",
    }


@pytest.mark.parametrize("word", ["--help", "--list"])
@pytest.mark.parametrize("paper", CELLS)
def test_what_computes_nothing_imports_no_torch(paper, word):
    assert not {"torch", "numpy"} & modules(f"{paper}.prune", word)
