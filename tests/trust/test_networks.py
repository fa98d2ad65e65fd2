"""The table of networks and methods says what happens, and the page holds all of it."""

from pathlib import Path

import pytest
import torch

from common.cells.errors import UserError
from common.cells.registry import METHODS
from tests.trust import networks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "networks.md"
# a method of each kind on networks of few seconds
CELLS = [
    ("own CNN", "woodfisher"),
    ("U-Net", "obd-global"),
    ("U-Net", "c-obd"),
    ("Conv1d audio", "eigendamage"),
    ("torch encoder", "l-obs"),
    ("torch encoder", "kron-obs"),
    ("LSTM", "nap"),
    ("two inputs", "kfac-prune"),
]


@pytest.mark.parametrize(("name", "method"), CELLS)
def test_a_cell_works(name, method):
    row = networks.run(name, method)
    assert row["outcome"] == "works", row
    assert 0 < row["removed"] < 1


def test_a_refusal_is_told_in_its_own_words():
    row = networks.run("MLP regression", "cp")
    assert row["outcome"] == "refused" and "no convolution to decompose" in row["words"]


def _broken(monkeypatch, change):
    prune = networks.prune

    def wrong(*args, **options):
        pruned = prune(*args, **options)
        change(pruned, args[0])
        return pruned

    monkeypatch.setattr(networks, "prune", wrong)
    return networks.run("MLP regression", "magnitude-global")


def _revive(pruned, model):
    with torch.no_grad():
        next(pruned.model.parameters()).fill_(1)


def _touch(pruned, model):
    with torch.no_grad():
        next(model.parameters()).add_(1)


def _blow_up(pruned, model):
    pruned.predicted_increase = float("nan")


def _fail(pruned, model):
    raise RuntimeError("shapes")


@pytest.mark.parametrize(
    ("change", "words"),
    [(_revive, "not zero"), (_touch, "has changed"), (_blow_up, "predicted"), (_fail, "shapes")],
)
def test_what_is_not_as_it_says_is_a_fault(monkeypatch, change, words):
    row = _broken(monkeypatch, change)
    assert row["outcome"] == "fault" and words in row["words"]


def test_a_run_goes_on_and_a_fault_is_run_again(tmp_path):
    file = tmp_path / "kept.jsonl"
    networks.fill(["MLP regression"], ["random"], file)
    (row,) = networks.kept(file).values()
    networks.fill(["MLP regression"], ["random"], file)
    assert len(file.read_text().splitlines()) == 1
    file.write_text(file.read_text().replace('"works"', '"fault"'))
    networks.fill(["MLP regression"], ["random"], file)
    assert networks.kept(file)["MLP regression", "random"]["removed"] == row["removed"]
    with pytest.raises(UserError, match="cells are missing, first own CNN x random"):
        networks.write(tmp_path / "page.md", networks.kept(file))


def test_the_page_has_every_network_and_every_method():
    lines = PAGE.read_text().splitlines()
    (head,) = [line for line in lines if line.startswith("| method |")]
    assert head == "| method | " + " | ".join(networks.NETWORKS) + " |"
    rows = [
        line.split(" | ") for line in lines if line.startswith(tuple(f"| {m} |" for m in METHODS))
    ]
    assert [row[0].removeprefix("| ") for row in rows] == list(METHODS)
    cells = [cell.rstrip(" |") for row in rows for cell in row[1:]]
    assert len(cells) == len(METHODS) * len(networks.NETWORKS)
    quoted = {f"[{line.partition('.')[0]}]" for line in lines if line[:1].isdigit()}
    assert {cell for cell in cells if not cell.endswith("%")} == quoted
