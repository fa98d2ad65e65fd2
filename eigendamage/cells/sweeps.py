"""What a table of cells is made of: a cell <network>-<ratio>-<method>-seed<k>, and sweeps of them.

Unit ratios are fractions removed, of channels or of eigenvectors.
"""

from __future__ import annotations

from common.cells.spec import Spec

CRITERIA = ("eigendamage", "kron-obs", "kron-obd", "c-obs", "c-obd")
BASES = CRITERIA[1:]  # that prune in the parameters' own basis
METHODS = (*CRITERIA, "nn-slimming")
COUPLED = "groups"  # Options.coupling: the channels that an addition joins go together
RATIOS = (0.5, 0.6, 0.7, 0.8, 0.9)
Cells = dict[str, Spec]


def cell(
    base: Spec,
    table: str,
    name: str,
    ratio: float,
    method: str,
    seed: int = 0,
    label: str = "",
    **changes,
) -> Cells:
    """The one cell `<name>-<ratio>-<label or method>-seed<k>`. At cpu scale a criterion's labels
    are exact. Residual branches lose channels one by one, as in the paper, unless the cell names
    another coupling."""
    called = f"{name}-{ratio:g}-{label or method}-seed{seed}"
    if base.scale == "cpu" and method in CRITERIA:
        changes["fisher"] = "exact"
    options = changes.get("options", {})
    if "resnet" in base.model and method in BASES and "coupling" not in options:
        changes["options"] = {"coupling": "union"} | options
    if options.get("coupling") == COUPLED:  # the option's default
        changes["options"] = {key: value for key, value in options.items() if key != "coupling"}
    return {
        called: base.but(
            table=table,
            cell=called,
            series=f"{name}/{label or method}",
            method=method,
            unit_ratio=ratio,
            seed=seed,
            **changes,
        )
    }


def sweep(
    base: Spec,
    table: str,
    name: str,
    ratios: tuple[float, ...],
    seeds: int,
    methods: tuple[str, ...] = METHODS,
    **changes,
) -> Cells:
    """Every method at every ratio."""
    return {
        key: spec
        for seed in range(seeds)
        for ratio in ratios
        for method in methods
        for key, spec in cell(base, table, name, ratio, method, seed, **changes).items()
    }


def released(base: Spec, table: str, name: str, ratios: tuple[float, ...], seeds: int) -> Cells:
    """Kron-OBD and Kron-OBS with the quadratic form of the released code, which probably made the
    paper's rows.
    """
    return {
        key: spec
        for seed in range(seeds)
        for ratio in ratios
        for method in ("kron-obd", "kron-obs")
        for key, spec in cell(
            base,
            table,
            name,
            ratio,
            method,
            seed,
            f"{method}-released",
            options={"form": "released"},
        ).items()
    }


def dense_tuned(base: Spec, table: str, name: str) -> Cells:
    """The dense network with the tuning that the pruned ones get: what of their accuracy is the
    pruning's.
    """
    called = f"{name}-dense-tuned-seed0"
    return {
        called: base.but(
            table=table,
            cell=called,
            series=f"{name}/dense-tuned",
            method="magnitude-global",
            sparsity=0.0,
            num_samples=None,
        )
    }
