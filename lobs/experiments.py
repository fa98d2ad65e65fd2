"""Every table and figure of L-OBS as cells, by label. The cells and the arithmetic behind them are
in lobs/cells.

`--table 1 --list` shows them. Sparsities are fractions removed; names quote what is kept, as the
paper does. The names of methods: l-obs is the paper's, l-obs-joint and l-obs-ours go beyond it
(README), lwc is magnitude, per layer, dense is a control: the dense network, nothing removed, with
the retraining of the cells it is named after. Names that end in `protocol` retrain as the paper
says (PROTOCOL), all others by recipes of ours.
"""

from __future__ import annotations

from common.cells.spec import named
from lobs.cells import cifar, imagenet, lenets

TABLES = {
    "1": named("1", lenets.lenet300() | lenets.lenet5() | cifar.cifarnet() | imagenet.table1()),
    "stops": named("stops", lenets.stops()),
}
FIGURES = {"2a": named("figure-2a", cifar.figure2a() | imagenet.figure2a())}
