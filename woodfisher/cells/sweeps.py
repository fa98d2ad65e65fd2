"""What a table of cells is made of: sweeps over amounts and seeds, named and put into their table's
folder.
"""

from __future__ import annotations

from common.cells.spec import Spec, named

Group = dict[str, Spec]


def sweep(
    base: Spec,
    name: str,
    method: str,
    amounts: tuple[float, ...],
    seeds: int = 1,
    **changes: object,
) -> Group:
    """Cells `<name>-<amount>-seed<k>`, amounts within seeds, so that neighbours share their
    Fisher.
    """
    return {
        f"{name}-{amount:g}-seed{seed}": base.but(
            method=method, sparsity=amount, seed=seed, series=name, **changes
        )
        for seed in range(seeds)
        for amount in amounts
    }


def labelled(kind: str, label: str, *groups: Group) -> Group:
    """The cells under their own names, in the folder of their table or figure."""
    return named(f"{kind}-{label}", {name: s for group in groups for name, s in group.items()})
