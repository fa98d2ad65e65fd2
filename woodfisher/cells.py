"""What a table of cells is made of: sweeps over amounts and seeds, named and put into their table's
folder.
"""

from __future__ import annotations

from common.cells.spec import Spec

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
            method=method, sparsity=amount, seed=seed, **changes
        )
        for seed in range(seeds)
        for amount in amounts
    }


def labelled(kind: str, label: str, *groups: Group) -> Group:
    """The cells under their own names, in the folder of their table or figure."""
    return {
        name: spec.but(table=f"{kind}-{label}", cell=name)
        for group in groups
        for name, spec in group.items()
    }
