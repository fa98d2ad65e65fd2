"""Mutation of lines: small changes of the syntax tree, drawn by a seed, that some test must notice.

    python -m tests.trust.mutate common/pruning common/curvature --count 40 --seed 1 [--list]

Every place of a file where an operator, a comparison, a constant, a keyword argument, a reduction,
an `and`, a `not` or a whole statement can be changed is a mutant. Each drawn one is planted in a
copy. First its file's own tests run, then the wider ones; what all of them pass survives. A
survivor is a missing test, or changes nothing: then tests/trust/survivors.toml says why.
"""

from __future__ import annotations

import ast
import copy
import random
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from common.cells.errors import Parser, UserError
from common.running.cli import guarded
from tests.trust.mutants import ROOT, copied, run

SURVIVORS = Path(__file__).with_name("survivors.toml")
NEAR = {  # a file's own tests, the likeliest first
    "common/curvature/blocks.py": "tests/common/test_inverse_and_obs.py",
    "common/curvature/diag.py": "tests/common/test_rows_and_diag.py",
    "common/curvature/fisher.py": "tests/woodfisher/test_method.py",
    "common/curvature/kron.py": "tests/common/test_kron.py",
    "common/curvature/labels.py": "tests/common/test_kron.py",
    "common/curvature/moving.py": "tests/nap/test_statistics.py",
    "common/curvature/patches.py": "tests/common/test_kron.py",
    "common/curvature/rows.py": "tests/common/test_rows_and_diag.py",
    "common/curvature/shared.py": "tests/common/test_inverse_and_obs.py",
    "common/curvature/sharing.py": "tests/woodfisher/test_method.py",
    "common/curvature/spool.py": "tests/common/test_spool.py",
    "common/pruning/baselines.py": "tests/common/test_select_and_masks.py",
    "common/pruning/channels.py": "tests/nap/test_channels.py",
    "common/pruning/obs.py": "tests/common/test_inverse_and_obs.py",
    "common/pruning/pruned.py": "tests/common/test_select_and_masks.py",
    "common/pruning/select.py": "tests/common/test_select_and_masks.py",
}
WIDER = (
    "tests/trust/test_oracles.py",
    "tests/trust/test_properties.py",
    "tests/trust/test_numerics.py",
    "tests/common/test_distributed.py",
    "tests/lobs/test_method.py",
    "tests/nap",
    "tests/eigendamage/test_criteria.py",
    "tests/eigendamage/test_method.py",
    "tests/woodfisher",
)
SECONDS = 900
# these change nothing on a CPU, or guard what other tests hold
IDLE_KEYWORDS = ("device", "strict", "non_blocking", "desc")
BINARY = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
}
COMPARED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
REDUCED = {
    "sum": "mean",
    "mean": "sum",
    "max": "min",
    "min": "max",
    "amax": "amin",
    "amin": "amax",
    "all": "any",
    "any": "all",
    "clamp_min": "clamp_max",
    "clamp_max": "clamp_min",
    "argmax": "argmin",
    "argsort": "argmin",
    "sqrt": "abs",
    "square": "abs",
}


@dataclass(frozen=True)
class Mutant:
    """One changed file. line: as it reads before; change: what became of it."""

    file: str
    number: int
    line: str
    change: str
    code: str

    def __str__(self) -> str:
        return f"{self.file}:{self.number}: {self.line}  [{self.change}]"


def mutants(file: str) -> Iterator[Mutant]:
    """Every mutant of a file, in the order of its lines."""
    text = (ROOT / file).read_text()
    lines, tree = text.splitlines(), ast.parse(text)
    for index, (node, change, edit) in enumerate(list(_edits(tree))):
        changed = copy.deepcopy(tree)
        # the same walk finds the same place in the copy
        twin, _, edit = list(_edits(changed))[index]
        edit()
        number = node.lineno
        yield Mutant(file, number, lines[number - 1].strip(), change, ast.unparse(changed))
        del twin


def _edits(tree: ast.AST) -> Iterator[tuple[ast.AST, str, Callable[[], None]]]:
    """(place, what is changed, how) for every node outside of messages, annotations and text."""
    for parent in _computing(tree):
        for name, value in ast.iter_fields(parent):
            for place, node in enumerate(value) if isinstance(value, list) else ((None, value),):
                if isinstance(node, ast.AST):
                    yield from _of(parent, name, place, node)


def _of(parent: ast.AST, name: str, place: int | None, node: ast.AST) -> Iterator:
    def put(new: ast.AST | None) -> None:
        siblings = getattr(parent, name)
        if place is None:
            setattr(parent, name, new)
        elif new is None:
            del siblings[place]
        else:
            siblings[place] = new

    kind = type(getattr(node, "op", None))
    if isinstance(node, ast.BinOp | ast.AugAssign) and kind in BINARY:
        new = BINARY[kind]
        yield (node, f"{kind.__name__} -> {new.__name__}", lambda: setattr(node, "op", new()))
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARED:
        new = COMPARED[type(node.ops[0])]
        yield (
            node,
            f"{type(node.ops[0]).__name__} -> {new.__name__}",
            lambda: node.ops.__setitem__(0, new()),
        )
    if isinstance(node, ast.BoolOp):
        new = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield node, f"-> {new.__name__}", lambda: setattr(node, "op", new())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node, f"without {kind.__name__}", lambda: put(node.operand)
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        value = node.value
        new = not value if isinstance(value, bool) else value + 1 if value in (0, 1) else value * 2
        yield node, f"{value!r} -> {new!r}", lambda: setattr(node, "value", new)
    if isinstance(node, ast.IfExp):
        yield (
            node,
            "branches exchanged",
            lambda: put(ast.IfExp(node.test, node.orelse, node.body)),
        )
    named = isinstance(node, ast.keyword) and isinstance(parent, ast.Call) and node.arg
    if named and named not in IDLE_KEYWORDS:
        yield node, f"without {node.arg}=", lambda: put(None)
    if isinstance(node, ast.Attribute) and isinstance(parent, ast.Call) and node.attr in REDUCED:
        new = REDUCED[node.attr]
        yield node, f"{node.attr} -> {new}", lambda: setattr(node, "attr", new)
    if isinstance(node, ast.Expr | ast.AugAssign) and not _text(node):
        yield node, "left out", lambda: put(ast.Pass())


def _computing(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all below it that compute: no annotations, decorators, defaults of parameters,
    errors, log lines, imports."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "args") and not isinstance(
            node, ast.Call
        ):
            continue
        for child in value if isinstance(value, list) else (value,):
            if isinstance(child, ast.AST) and not (
                isinstance(child, ast.Raise | ast.Import | ast.ImportFrom | ast.Assert)
                or _text(child)
                or _said(child)
            ):
                yield from _computing(child)


def _text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _said(node: ast.AST) -> bool:
    """Whether the statement only says something to people."""
    call = node.value if isinstance(node, ast.Expr) else node
    return isinstance(call, ast.Call) and ast.unparse(call.func).startswith(
        ("log.", "machine.fits", "machine.require_memory", "UserError", "LayerError", "_refuse")
    )


def explained() -> dict[tuple[str, str, str], str]:
    """(file, line, change) -> why no test can notice it."""
    data = tomllib.loads(SURVIVORS.read_text())
    return {(e["file"], e["line"], e["change"]): e["why"] for e in data.get("survivor", ())}


def noticed(folder: Path, mutant: Mutant) -> bool:
    """Whether a test fails with the mutant in the copy; the file is put back."""
    path = folder / mutant.file
    text = path.read_text()
    path.write_text(mutant.code)
    try:
        near = NEAR.get(mutant.file, WIDER[0])
        # pytest's "-m not slow" as one argument; -9: the mutant does not end
        return any(
            run(folder, f"{tests} -mnot slow", SECONDS) in (1, 2, -9) for tests in (near, *WIDER)
        )
    finally:
        path.write_text(text)


def main(argv: list[str] | None = None) -> int:
    """Plant mutants; 1 where one survives without an explanation."""
    p = Parser(description=__doc__)
    p.add_argument("folders", nargs="+", help="files or folders, from the root of the repository")
    p.add_argument("--count", type=int, default=40, help="mutants to plant (default: 40)")
    p.add_argument("--seed", type=int, default=0, help="which ones are drawn (default: 0)")
    p.add_argument("--list", action="store_true", help="print the drawn ones, and stop")
    a = p.parse_args(argv)
    survived: list[Mutant] = []

    def work() -> None:
        files = sorted(
            str(path.relative_to(ROOT))
            for name in a.folders
            for path in ([ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py"))
            if path.is_file()
        )
        known = explained()
        every = [m for file in files for m in mutants(file)]
        every = [m for m in every if (m.file, m.line, m.change) not in known]
        if not every:
            raise UserError("folders", " ".join(a.folders), "hold no code to mutate")
        drawn = random.Random(a.seed).sample(every, min(a.count, len(every)))
        sys.stdout.write(f"{len(drawn)} of {len(every)} mutants of {len(files)} files\n")
        if a.list:
            sys.stdout.writelines(f"{mutant}\n" for mutant in drawn)
            return
        import hypothesis  # noqa: F401  loaded once, for all children
        import torch
        import torch_pruning  # noqa: F401
        import torchvision  # noqa: F401

        torch.set_num_threads(1)
        sys.dont_write_bytecode = True
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "copy"
            copied(folder)
            for number, mutant in enumerate(drawn, 1):
                start = time.monotonic()
                seen = noticed(folder, mutant)
                sys.stdout.write(
                    f"{number:3}/{len(drawn)} {'noticed' if seen else 'SURVIVED'} "
                    f"{time.monotonic() - start:5.1f} s  {mutant}\n"
                )
                sys.stdout.flush()
                if not seen:
                    survived.append(mutant)
        share = 100 * (len(drawn) - len(survived)) / len(drawn)
        sys.stdout.write(f"{len(drawn)} planted, {share:.1f}% noticed\n")
        sys.stdout.writelines(f"  {mutant}\n" for mutant in survived)

    return guarded(work) or int(bool(survived))


if __name__ == "__main__":
    sys.exit(main())
