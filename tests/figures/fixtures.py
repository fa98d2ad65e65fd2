"""Records as the pipeline writes them, with numbers a reader can check by hand."""

from __future__ import annotations

from pathlib import Path

from common.cells.record import Record, record_id
from common.cells.spec import Recipe, Spec

DENSE = 0.98
LAYERS = (("conv1", 72), ("conv2", 1152), ("fc", 640))
PARAMS, MACS = 1864, 100_000


def spec(method: str, amount: float, seed: int, unit: str = "sparsity", **changes) -> Spec:
    """The Spec of one cell of the fixture comparison."""
    return Spec(method=method, seed=seed, finetune=Recipe(epochs=5, lr=0.02), **{unit: amount}).but(
        **changes
    )


def record(
    stage: str,
    method: str = "magnitude-global",
    amount: float = 0.9,
    seed: int = 0,
    unit: str = "sparsity",
    *,
    pruned: float = 0.5,
    last: float = 0.9,
    predicted: float | None = None,
    measured: float | None = 0.5,
    kept: float | None = None,
    macs: float | None = None,
    seconds: float = 2.0,
    changes: dict | None = None,
) -> Record:
    """A prune or finetune record; kept and macs are fractions of the dense network's, 1 - amount
    where they are None.
    """
    cell = spec(method, amount, seed, unit, **(changes or {}))
    kept = 1 - amount if kept is None else kept
    macs = kept if macs is None else macs
    accuracy = {"dense": DENSE, "pruned": pruned}
    if stage == "finetune":
        accuracy |= {"last": last, "best": last + 0.01, "best_selected_on": "test"}
    return Record(
        id=record_id(cell.slug(), seed, stage),
        paper="common",
        table="",
        cell="",
        method=method,
        stage=stage,
        scale=cell.scale,
        spec=cell.to_dict(),
        dense_hash="d0d0",
        requested={unit: amount},
        accuracy=accuracy,
        achieved={
            "sparsity": 1 - kept,
            "kept_params": kept * PARAMS,
            "kept_macs": macs * MACS,
            "dense_params": PARAMS,
            "dense_macs": MACS,
            "model_params": kept * PARAMS + 50,
            "dense_model_params": PARAMS + 50,
        },
        loss={
            "dense": 0.1,
            "pruned": 0.6,
            "predicted_increase": predicted,
            "measured_increase": measured,
        },
        layers=[
            {"name": name, "kept": round(total * min(1, kept * (1 + i / 4))), "total": total}
            for i, (name, total) in enumerate(LAYERS)
        ],
        timing={
            "prune_s": seconds,
            "evaluate_s": 0.1,
            "core_s": seconds + 0.1,
            "peak_rss_mb": 300 + seed,
        },
        provenance={
            "git": "abc1234",
            "dirty": False,
            "versions": {"torch": "2.8.0", "numpy": "2.3.0"},
            "device": "cpu",
            "threads": 2,
            "load": {"mean": 0.6, "max": 0.9, "contended": False},
            "seed": seed,
            "command": "python -m common.compare",
            "data_sha256": "feed",
        },
    )


def train_record() -> Record:
    """The dense network's record."""
    dense = spec("magnitude-global", 0.9, 0).dense()
    return Record(
        id=record_id(dense.slug(), 0, "train"),
        paper="common",
        table="",
        cell="",
        method="",
        stage="train",
        scale=dense.scale,
        spec=dense.to_dict(),
        dense_hash="d0d0",
        accuracy={"dense": DENSE, "last": DENSE},
        provenance={
            "git": "abc1234",
            "versions": {"torch": "2.8.0", "numpy": "2.3.0"},
            "device": "cpu",
            "threads": 2,
            "seed": 0,
            "command": "python -m common.compare",
            "data_sha256": "feed",
        },
    )


def pair(*arguments, **named) -> list[Record]:
    """The prune and finetune records of one seed of one cell."""
    return [record(stage, *arguments, **named) for stage in ("prune", "finetune")]


def small() -> list[Record]:
    """Two weight methods and EigenDamage (still unregistered, asked for a unit ratio), two amounts,
    three seeds.
    """
    out = [train_record()]
    for seed, up in enumerate((-0.01, 0.0, 0.01)):
        for amount in (0.5, 0.9):
            out += pair(
                "magnitude-global",
                amount,
                seed,
                pruned=1 - amount + up,
                last=0.95 - amount / 10 + up,
            )
            out += pair(
                "obd-global",
                amount,
                seed,
                pruned=1.05 - amount + up,
                last=0.97 - amount / 10 + up,
                predicted=0.25 + up,
                macs=1 - amount / 2,
            )
            out += pair(
                "eigendamage",
                amount,
                seed,
                "unit_ratio",
                pruned=0.4 + up,
                last=0.9 + up,
                predicted=1e-3,
                kept=0.3,
                changes={"damping": 1e-3},
            )
    return out


def write(records: list[Record], folder: Path) -> Path:
    """Lay the records out as the pipeline does."""
    for one in records:
        name = one.id.rsplit("-seed", 1)[0]
        one.write(folder / name / f"seed{one.provenance['seed']}" / f"{one.stage}.json")
    return folder
