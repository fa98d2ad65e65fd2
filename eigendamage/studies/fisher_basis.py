"""Fig. 2: how diagonal the exact Fisher of a small network is, in the parameters' basis and in the
Kronecker-factored eigenbasis.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.cells.spec import Recipe, Spec
from common.curvature.kron import kron_factors
from common.curvature.labels import losses
from common.nets import layers as L
from common.nets.capture import capture
from common.running import study
from common.running.timing import Timer
from eigendamage.cells.networks import MNIST

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
    model, data = study.dense(spec)
    rows, pictures = [], {}
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
