"""Every table and figure of WoodFisher as cells, by label. The cells and the arithmetic behind them
are in woodfisher/cells.

`python -m woodfisher.prune --list` shows them. Sparsities are fractions removed.
"""

from __future__ import annotations

from woodfisher.cells import gradual, imagenet, oneshot
from woodfisher.cells.networks import R20
from woodfisher.cells.sweeps import Group

GRADUAL = {
    "1": gradual.table1(R20),
    "2": gradual.table2(R20),
    "3": gradual.table3(R20),
    "5": gradual.table5(),
    "S5": gradual.table_s5(R20),
    "feedback": gradual.feedback(R20),
}
TABLES: dict[str, Group] = {
    label: imagenet.TABLES.get(label, {}) | group
    for label, group in (
        imagenet.TABLES
        | GRADUAL
        | {
            "6": oneshot.table6(),
            "8": oneshot.table8(),
            "S2": oneshot.table_s2(),
            "damping": oneshot.damping(),
        }
    ).items()
}
FIGURES: dict[str, Group] = {
    "3a": oneshot.fig3a(),
    "3b": oneshot.fig3b("woodfisher", "3b"),
    "4": oneshot.fig4(),
    "5a": oneshot.fig5a(),
    "5b": oneshot.fig5b(),
    "6": gradual.fig6(R20),
    "7": oneshot.fig7(),
    "S8": oneshot.fig3b("woodfisher-layer", "S8"),
    "S12": oneshot.fig_s12(),
    "S14": oneshot.fig_s14(),
    **imagenet.FIGURES,
    "S11": imagenet.FIGURES["S11"] | gradual.fig_s11(R20),
}
