"""Every table and figure of NAP as cells, by label. The cells and the arithmetic behind them are in
nap/cells.

`--table 3 --list` shows them. p is Spec.step_ratio (weights) or Spec.unit_ratio (channels), T is
Spec.step_epochs: fine-tuning and statistics between two prunings. Kept fractions are of all
weights, sparsities are fractions removed. Names ending in -paper are the paper's own settings,
which need ImageNet and a GPU: they are there to run, and have no records.
"""

from __future__ import annotations

from common.cells.spec import Recipe, Spec, named
from nap.cells import channels, imagenet, weights

PAPER = imagenet.tables()
TABLES = {
    "1": named("1", channels.table1() | PAPER["1"]),
    "3": named("3", weights.table3()),
    "4": named("4", PAPER["4"]),
    "5": named("5", channels.table5() | PAPER["5"]),
    "nap-time": named("nap-time", weights.nap_time()),
    "curve": named("curve", weights.curve()),
    "options": named("options", weights.options_left_open()),
}
FIG5, FIG6 = weights.figures_5_and_6()
FIGURES = {"5": named("figure-5", FIG5), "6": named("figure-6", FIG6)}
# what `python -m nap.finetune --model ... --dataset ... --max-error-increase 0.1` runs: 25% of what
# is left, two epochs, again, until four prunings in a row end beyond the bound
BARE = Spec(
    paper="nap",
    scale="cpu",
    method="nap",
    sparsity=0.999,
    step_ratio=0.25,
    step_epochs=2,
    patience=3,
    train=Recipe(epochs=10, lr=0.05, batch_size=128, weight_decay=5e-4, schedule="cosine"),
    finetune=Recipe(epochs=20, lr=0.05, batch_size=128, weight_decay=5e-4, schedule="cosine"),
)
