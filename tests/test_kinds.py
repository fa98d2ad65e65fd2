"""The table in docs/trust.md of what the suite tries at the edge, held to the tests by count."""

import re
from pathlib import Path

import pytest

from tests.common import test_assumptions as assumptions
from tests.common import test_edge as edge
from tests.common import test_folders as folders
from tests.common import test_foreign as foreign
from tests.common import test_half as half
from tests.common import test_surgery as surgery
from tests.trust import test_shell as shell

TRUST = Path(__file__).resolve().parent.parent / "docs" / "trust.md"
# row of the table: (kinds that work, kinds that are refused)
TRIED = {
    "networks, by what curvature takes for granted": (assumptions.HEALTHY, assumptions.BROKEN),
    "networks without a layer to prune": ((), assumptions.NOTHING),
    "layers that costs count": (assumptions.COUNTED, ()),
    "couplings of channels": (surgery.COUPLED, surgery.HOPELESS),
    "precisions of 16 bits": (half.HALVES, ()),
    "outputs": (edge.FIELDS, edge.OUTPUTS),
    "loaders": (edge.WELCOME, edge.REFUSED),
    "labels": ((), {**edge.LABELS, **assumptions.LABELS}),
    "ways to call a layer": (edge.CALLS, edge.HIDDEN),
    "checkpoints of other programs": (foreign.LOADS, {**foreign.REFUSED, **foreign.OTHER_FILES}),
    "what lies beside a folder's images": (folders.BESIDE, ()),
    "images": (
        (*folders.MODES, *folders.SIXTEEN_BITS),
        (*folders.WITHOUT_RANGE, *folders.NO_IMAGES),
    ),
    "MNIST's files": ((), shell.MNIST),
    "flags out of bounds": ((), [value for values in shell.FLAGS.values() for value in values]),
    "fields of a record or Spec": ((), shell.WRONG_FIELDS),
    "environments": ((), shell.ENVIRONMENTS),
}


@pytest.mark.parametrize("row", TRIED)
def test_the_table_counts_what_is_tried(row):
    works, refused = TRIED[row]
    line = rf"^\| {re.escape(row)} \| {len(works)} \| {len(refused)} \| "
    assert re.search(line, TRUST.read_text(), re.M), f"{row}: {len(works)}, {len(refused)}"


def test_the_table_has_no_other_row():
    table = TRUST.read_text().split("| what comes in |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| ([^|]+) \| \d+ \| \d+ \|", table, re.M)
    assert sorted(rows) == sorted(TRIED)
