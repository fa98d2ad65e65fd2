"""What EigenDamage shows that is not a cell: the Fisher in two bases (Fig. 2), Example 1, the
promised wall-clock speed-ups, and where prediction and measurement part.

    python -m eigendamage.studies fisher-basis | example1 | prediction | latency [--table 1
      --network cpu-resnet32] [--output-dir ...]

Each writes one record; the numbers are in its trajectory, the matrices of Fig. 2 in an .npz beside
it. latency reads the networks that `eigendamage.prune` left below runs/.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.cells.errors import Parser, UserError, choose
from common.cells.library import read_all
from common.cells.record import Record
from common.cells.spec import Recipe, Spec
from common.curvature.kron import kron_factors
from common.curvature.labels import losses
from common.data import sources as D
from common.nets import checkpoint, latency
from common.nets import layers as L
from common.nets.capture import capture
from common.running import pipeline
from common.running.cli import guarded
from common.running.timing import Timer
from common.system import machine
from eigendamage import example1, prediction
from eigendamage.experiments import MNIST, TABLES, VGG

log = logging.getLogger(__name__)
# Fig. 2: "the block for the second layer" of "a small 3-layer ReLU MLP"
MIDDLE = "fc2"
MLP = MNIST.but(
    model="mlpnet",
    table="figure 2",
    cell="fisher-basis",
    method="eigendamage",
    fisher="exact",
    num_samples=2_000,
    train=Recipe(epochs=2, lr=0.05, batch_size=64, schedule="cosine"),
)
POOL = 4  # the picture's pixels are the largest of 4 x 4 entries
BATCHES, ROUNDS = (1, 64), 15


def fisher_bases(model: torch.nn.Module, name: str, loader) -> tuple[Tensor, Tensor]:
    """The exact Fisher block of a fully connected layer, not its Kronecker approximation, [out·in,
    out·in]: in the parameters' basis, and in the Kronecker-factored eigenbasis, (Q_S ⊗ Q_A)ᵀ F (Q_S
    ⊗ Q_A)."""
    module, total, examples = model.get_submodule(name), 0.0, 0
    for x, y in loader:
        with capture(model, {name: module}) as tape:
            output = tape.forward(x)
            a = L.inputs(module, tape.input(name))[:, 0, 0].double()
            for loss in losses(output, y, "exact", "cross_entropy", None):
                tape.backward(loss, retain=True)
                g = L.gradients(module, tape.gradient(name))[:, 0, 0].double()
                rows = torch.einsum("bo,bi->boi", g, a).flatten(1)
                total = total + rows.mT @ rows
        examples += len(x)
    fisher = total / examples
    factors = kron_factors(model, loader, {name: module}, fisher="exact")[name]
    (_, QA), (_, QS) = torch.linalg.eigh(factors.A[0]), torch.linalg.eigh(factors.G[0])
    Q = torch.kron(QS.contiguous(), QA.contiguous())
    return fisher, Q.mT @ fisher @ Q


def correlation(fisher: Tensor) -> Tensor:
    """|F_ij| / √(F_ii F_jj), with zeros where a diagonal entry is (numerically) zero."""
    size = fisher.diagonal().clamp(min=0).sqrt()
    scale = torch.where(size > 1e-9 * size.max(), 1 / size, 0.0)
    return (fisher * scale[:, None] * scale[None]).abs()


def off_diagonal(matrix: Tensor) -> float:
    """The share of the squared Frobenius norm that is not on the diagonal."""
    return 1 - float(matrix.diagonal().square().sum() / matrix.square().sum())


def fisher_basis(spec: Spec, timer: Timer, output: Path) -> list[dict]:
    """Fig. 2: how diagonal the Fisher is in either basis; the diagonal-normalised matrices go into
    the .npz.
    """
    pipeline.train(spec)
    model = checkpoint.load(pipeline.dense_folder(spec) / "model.safetensors").model
    data, rows, pictures = D.load(spec.dataset, spec.data_dir), [], {}
    with timer.phase("fisher"):
        bases = fisher_bases(model, MIDDLE, data.calibration(spec.num_samples, 500))
    for name, fisher in zip(("parameters", "kfe"), bases, strict=True):
        normal = correlation(fisher)
        alive = int((normal.diagonal() > 0).sum())
        rows.append(
            {
                "basis": name,
                "size": len(fisher),
                "alive": alive,
                "off_diagonal_energy": round(off_diagonal(fisher), 6),
                "mean_correlation": round((float(normal.sum()) - alive) / (alive * (alive - 1)), 6),
            }
        )
        pictures[name] = (
            (255 * F.max_pool2d(normal[None], POOL)[0].clamp(max=1)).round().to(torch.uint8).numpy()
        )
    output.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(output / f"{spec.cell}.npz", **pictures)
    return rows


def example(spec: Spec, timer: Timer, output: Path) -> list[dict]:
    """Example 1: what OBD and OBS remove, the true increase with the paper's update, and what each
    criterion predicts.
    """
    scores = {"obd": example1.obd_scores(), "obs": example1.obs_scores()}
    rows = []
    for criterion, which, kind in (
        ("obd", (2,), "zero"),
        ("obs", (0,), "diagonal"),
        ("obd", (1, 2), "zero"),
        ("obs", (0, 1), "zero"),
    ):
        change, increase = example1.removal(which, kind)
        rows.append(
            {
                "case": f"{criterion}-{len(which)}",
                "removed": [q + 1 for q in which],
                "change": [round(v, 5) for v in change.tolist()],
                "increase": round(increase, 5),
                "predicted": round(float(scores[criterion][list(which)].sum()), 5),
            }
        )
    return rows


def predictions(spec: Spec, timer: Timer, output: Path) -> list[dict]:
    """Each layer of the dense network by itself, a fifth and a half of its directions removed:
    score, exact expansion, measurement.
    """
    pipeline.train(spec)
    model = checkpoint.load(pipeline.dense_folder(spec) / "model.safetensors").model
    data = D.load(spec.dataset, spec.data_dir)
    with timer.phase("expansion"):
        found = prediction.rows(model, data.calibration(spec.num_samples, 100), (0.2, 0.5))
        return [
            {
                key: value if isinstance(value, str) else float(f"{value:.4g}")
                for key, value in row.items()
            }
            for row in found
        ]


def wall_clock(spec: Spec, timer: Timer, output: Path, table: str, network: str) -> list[dict]:
    """Latency of every pruned network of `table` whose cell begins with `network`, first seeds,
    beside their dense parent's: one thread, one call of each in turn."""
    found = [
        r
        for r in read_all(Path(spec.output_dir) / spec.paper / table)
        if r.stage == "prune" and r.cell.startswith(network) and r.spec["seed"] == 0
    ]
    if not found:
        raise UserError(
            "network",
            network,
            f"no pruned network of table {table} is there",
            f"run python -m eigendamage.prune --table {table}",
        )
    specs = {r.cell: Spec.from_dict(r.spec).but(output_dir=spec.output_dir) for r in found}
    parents = {pipeline.dense_folder(s) for s in specs.values()}
    if len(parents) > 1:
        raise UserError(
            "network",
            network,
            f"names networks of {len(parents)} dense parents",
            "give a longer beginning of the cells' names",
        )
    nets = {"dense": checkpoint.load(parents.pop() / "model.safetensors").model.eval()}
    nets |= {
        cell: checkpoint.load(pipeline.cell_folder(s) / "pruned.safetensors").model.eval()
        for cell, s in specs.items()
    }
    shape, rows = D.load(next(iter(specs.values())).dataset, spec.data_dir).input_shape, []
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        for batch in BATCHES:
            with timer.phase(f"batch_{batch}"):
                times = latency.medians(
                    nets,
                    torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0)),
                    ROUNDS,
                )
            for r in found:
                rows.append(
                    {
                        "cell": r.cell,
                        "method": r.method,
                        "unit_ratio": r.requested["unit_ratio"],
                        "batch": batch,
                        "ms": round(1e3 * times[r.cell], 3),
                        "dense_ms": round(1e3 * times["dense"], 3),
                        "speedup": round(times["dense"] / times[r.cell], 3),
                        "macs_ratio": round(r.achieved["dense_macs"] / r.achieved["kept_macs"], 3),
                    }
                )
    finally:
        torch.set_num_threads(threads)
    return rows


STUDIES: dict[str, tuple[Callable, Spec]] = {
    "fisher-basis": (fisher_basis, MLP),
    "example1": (
        example,
        Spec(paper="eigendamage", table="Example 1", cell="example1", method="example1"),
    ),
    "prediction": (
        predictions,
        VGG.but(table="prediction", cell="prediction", method="eigendamage", fisher="exact"),
    ),
    "latency": (
        wall_clock,
        Spec(paper="eigendamage", table="latency", method="latency", scale="cpu"),
    ),
}


def study(name: str, spec: Spec, output: Path, **more: object) -> Record:
    """Run one study and write its record."""
    timer, where = Timer(), machine.device("cpu")
    rows = STUDIES[choose("study", name, STUDIES)][0](spec, timer, output, **more)
    told = spec.but(data_dir="", output_dir=Spec.output_dir).to_dict()
    record = Record(
        f"{spec.paper}-{spec.cell}",
        spec.paper,
        spec.table,
        spec.cell,
        spec.method,
        "prune",
        spec.scale,
        told,
        trajectory=rows,
        timing=timer.report(),
        provenance=machine.provenance(where, spec.seed),
    )
    if name == "latency":
        record.provenance["threads"] = 1
    record.write(output / f"{spec.cell}.json")
    return record


def main(argv: list[str] | None = None) -> int:
    """Run a study; returns the exit status."""
    p = Parser(description=__doc__)
    p.add_argument("study", help=", ".join(STUDIES))
    p.add_argument("--table", default="1", help=f"for latency: {', '.join(TABLES)} (default: 1)")
    p.add_argument(
        "--network",
        default="cpu-resnet32",
        help="for latency: how the names of its cells begin (default: cpu-resnet32)",
    )
    p.add_argument(
        "--data-dir", default="", help="data root (default: $DATA_DIR, ./data, or ../data)"
    )
    p.add_argument("--runs", default="runs", help="where networks are kept (default: runs)")
    p.add_argument(
        "--output-dir",
        default="runs/eigendamage/studies",
        help="where the record goes (default: runs/eigendamage/studies)",
    )
    arguments = p.parse_args(argv)

    def work() -> None:
        spec = STUDIES[choose("study", arguments.study, STUDIES)][1].but(
            data_dir=arguments.data_dir, output_dir=arguments.runs
        )
        more = {}
        if arguments.study == "latency":
            spec, more = (
                spec.but(cell=f"latency-{arguments.network}"),
                {"table": arguments.table, "network": arguments.network},
            )
        log.info("wrote %s", study(arguments.study, spec, Path(arguments.output_dir), **more).id)

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
