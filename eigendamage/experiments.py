"""Every table and figure of EigenDamage as cells, by label. The cells and the arithmetic behind
them are in eigendamage/cells.

`python -m eigendamage.prune --list` shows them.
"""

from __future__ import annotations

from eigendamage.cells import tables
from eigendamage.cells.sweeps import Cells

TABLES: dict[str, Cells] = {
    "1": tables.table1(),
    "2": tables.table2(),
    "F": tables.appendix(),
    "mnist": tables.mnist(),
    "fold": tables.fold(),
}
FIGURES: dict[str, Cells] = {"5": tables.figure5(), "6": tables.figure6(), "8": tables.figure8()}
