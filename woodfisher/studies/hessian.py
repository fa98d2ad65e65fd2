"""Figs. 1, S2-S4: blocks of the exact Hessian and of the empirical Fisher, by torch.func.

python -m woodfisher.hessian S4     MLPNet's last layer at 0.5, 5 and 50 epochs; writes
                                    results/hessian_s4.npz and .json
python -m woodfisher.hessian S2     blocks of CIFARNet, on and off the diagonal (Figs. 1, S2, S3):
                                    results/hessian_s2.npz and .json
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacfwd, vmap

from common.cells.errors import Parser, choose
from common.cells.record import write_json
from common.cells.spec import Recipe
from common.curvature.labels import mean_loss
from common.curvature.rows import gradient_rows
from common.data import sources as D
from common.nets import models
from common.nets.layers import prunable
from common.running import train as T
from common.running.cli import guarded

FOLDER = Path(__file__).resolve().parents[1]
# Sec. S3.2; its text says 16 examples, its caption 64
EPOCHS, IMAGES, EXAMPLES = (0.5, 5.0, 50.0), 5000, 64
# Sec. S3.1: 300 epochs of 0.05, halved every 30, to 41.8%; here 10, halved after each. A square
# picture has as many pixels a side.
CIFARNET = Recipe(
    epochs=10, lr=0.05, momentum=0.9, batch_size=64, schedule="exponential", gamma=0.5
)
PIXELS = 256
log = logging.getLogger(__name__)


def hessian_block(
    model: nn.Module, x: Tensor, y: Tensor, rows: str, columns: str | None = None
) -> Tensor:
    """∂²L / ∂w_rows ∂w_columns of the mean loss, [weights of `rows`, weights of `columns`]; both
    are layer names.
    """
    left, right = (
        model.get_parameter(f"{name}.weight").detach() for name in (rows, columns or rows)
    )

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return mean_loss(
            functional_call(model, {f"{columns or rows}.weight": b, f"{rows}.weight": a}, (x,)), y
        )

    block = (
        hessian(lambda a: loss(a, a))(left)
        if columns in (None, rows)
        else jacfwd(lambda b: grad(loss)(left, b))(right)
    )
    return block.detach().reshape(left.numel(), -1)  # the other parameters ask for gradients


def first_layer_blocks(
    model: nn.Module, x: Tensor, y: Tensor, layer: str, units: int
) -> Iterator[Tensor]:
    """The diagonal blocks of the Hessian of a first linear layer, each over `units` of its outputs,
    [units·in, units·in].

    With z = Wx the layer's Hessian is (1/B) Σ ∂²L/∂z∂z ⊗ xxᵀ exactly, so no other block of it is
    formed. x: [B, ...], flattened it is the layer's input. layer: its name.
    """
    module, seen = model.get_submodule(layer), x.flatten(1)

    def loss(shift: Tensor, one: Tensor, label: Tensor) -> Tensor:
        handle = module.register_forward_hook(lambda *args: args[-1] + shift)
        try:
            return F.cross_entropy(model(one[None]), label[None])  # labels are not looked at
        finally:
            handle.remove()

    curvature = vmap(hessian(loss), in_dims=(None, 0, 0))(
        x.new_zeros(len(module.weight)), x, y
    ).detach() / len(x)
    for start in range(0, len(module.weight), units):
        part = curvature[:, start : start + units, start : start + units]
        rows = [
            torch.cat([seen.T @ (part[:, i, j, None] * seen) for j in range(units)], 1)
            for i in range(units)
        ]
        yield torch.cat(rows)


def fisher_block(
    model: nn.Module, x: Tensor, y: Tensor, rows: str, columns: str | None = None
) -> Tensor:
    """The same block of the empirical Fisher (1/B) Σ ∇∇ᵀ, undamped."""
    layers = {name: prunable(model)[name] for name in dict.fromkeys((rows, columns or rows))}
    G = gradient_rows(model, [(x, y)], len(x), layers=layers)
    return G[rows].mT @ G[columns or rows] / len(x)


def smoothed(block: Tensor, sigma: float = 1.0) -> Tensor:
    """Gaussian-smoothed absolute values, [rows, columns]: "smoothened slightly for better
    visibility" (Fig. 1).
    """
    reach = max(1, round(3 * sigma))
    kernel = torch.exp(
        -torch.arange(-reach, reach + 1, dtype=block.dtype).square() / (2 * sigma**2)
    )
    kernel = kernel / kernel.sum()
    image = block.abs()[None, None]
    image = nn.functional.conv2d(
        nn.functional.pad(image, (reach, reach, 0, 0), "replicate"), kernel[None, None, None, :]
    )
    return nn.functional.conv2d(
        nn.functional.pad(image, (0, 0, reach, reach), "replicate"), kernel[None, None, :, None]
    )[0, 0]


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two blocks as vectors: 1 is the same structure, whatever the
    scale.
    """
    return float((a * b).sum() / (a.norm() * b.norm()))


def tile_mean(block: Tensor, size: int) -> Tensor:
    """Mean over size × size tiles, what the paper shows of blocks too large to draw (Figs. S2, S3);
    the rest is cut off.
    """
    rows, columns = (n // size * size for n in block.shape)
    tiles = block[:rows, :columns].unflatten(0, (-1, size)).unflatten(2, (-1, size))
    return vmap(lambda row: row.mean((0, 2)))(tiles)


def course(
    epochs: Sequence[float], layer: str = "fc3", images: int = IMAGES, examples: int = EXAMPLES
) -> list[dict]:
    """MLPNet trained on the first `images` of MNIST: at each of `epochs`, its test accuracy and
    both blocks of `layer`.
    """
    data = D.load("mnist:norm=standard")
    data = dataclasses.replace(data, train=torch.utils.data.Subset(data.train, range(images)))
    x, y = next(iter(D.load("mnist:norm=standard").calibration(examples, batch_size=examples)))
    result = []
    for many in epochs:
        model = models.build("mlpnet", data.classes, data.input_shape, 0)
        fit = T.fit(model, data, Recipe(epochs=many, lr=1e-3, momentum=0.5, batch_size=64))
        result.append(
            {
                "epochs": many,
                "accuracy": fit.last,
                "hessian": hessian_block(model, x, y, layer),
                "fisher": fisher_block(model, x, y, layer),
            }
        )
    return result


def figure_s4() -> tuple[list[dict], dict[str, Tensor]]:
    """(numbers, pictures) of MLPNet in the course of training."""
    numbers, pictures = [], {}
    for point in course(EPOCHS):
        numbers.append(
            {"epochs": point["epochs"], "accuracy": point["accuracy"]}
            | agreement(point["hessian"], point["fisher"])
        )
        pictures |= {
            f"{name}_{point['epochs']:g}": smoothed(point[name]) for name in ("hessian", "fisher")
        }
    return numbers, pictures


def figure_s2(
    train: Recipe = CIFARNET, dataset: str = "cifar10-jpeg", examples: int = 100
) -> tuple[list[dict], dict[str, Tensor]]:
    """(numbers, pictures) of CIFARNet's blocks over `examples` images, the wide ones as means over
    the first layer's units: pairs of them on the diagonal (the paper's 6,144), and over tiles, to
    be drawn."""
    data = D.load(dataset)
    model = models.build("cifarnet_fc", data.classes, data.input_shape, 0)
    accuracy = T.fit(model, data, train, desc="train cifarnet_fc").last
    model.eval()
    one, two, three = prunable(model)
    x, y = next(iter(data.calibration(examples, batch_size=examples)))
    width = 2 * model.get_submodule(one).in_features
    G = gradient_rows(model, [(x, y)], examples)
    pairs = len(G[one][0]) // width
    blocks = {
        "1-1": (
            _mean(first_layer_blocks(model, x, y, one, 2)),
            _mean(g.mT @ g / examples for g in G[one].split(width, 1)),
        ),
        "2-2": (hessian_block(model, x, y, two), G[two].mT @ G[two] / examples),
        "3-3": (hessian_block(model, x, y, three), G[three].mT @ G[three] / examples),
        "1-3": (
            hessian_block(model, x, y, one, three).unflatten(0, (pairs, width)).mean(0),
            (G[one].mT @ G[three] / examples).unflatten(0, (pairs, width)).mean(0),
        ),
        "2-3": (hessian_block(model, x, y, two, three), G[two].mT @ G[three] / examples),
    }
    numbers, pictures = [], {}
    for name, (exact, empirical) in blocks.items():
        numbers.append({"block": name, "accuracy": accuracy} | agreement(exact, empirical))
        for kind, block in (("hessian", exact), ("fisher", empirical)):
            pictures[f"{kind}_{name}"] = smoothed(
                tile_mean(
                    block.abs(), max(1, round((block.shape[0] * block.shape[1]) ** 0.5 / PIXELS))
                )
            )
    return numbers, pictures


def agreement(exact: Tensor, empirical: Tensor) -> dict[str, float]:
    """How like the empirical Fisher is to the Hessian: cosine, and the ratio of their norms."""
    return {"cosine": cosine(exact, empirical), "scale": float(empirical.norm() / exact.norm())}


def _mean(blocks: Iterable[Tensor]) -> Tensor:
    """The mean of equal blocks, one at a time in memory."""
    total, count = 0.0, 0
    for block in blocks:
        total, count = total + block, count + 1
    return total / count


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    p = Parser(description=__doc__)
    p.add_argument("figure", nargs="?", default="S4", help="S2 or S4 (default: S4)")
    arguments = p.parse_args(argv)
    return guarded(lambda: write(arguments.figure))


def write(figure: str) -> None:
    """Pictures as .npz, each on its own scale; numbers as .json."""
    numbers, pictures = {"S4": figure_s4, "S2": figure_s2}[choose("figure", figure, ("S2", "S4"))]()
    for line in numbers:
        log.info(
            ", ".join(
                f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}"
                for key, value in line.items()
            )
        )
    write_json(FOLDER / "results" / f"hessian_{figure.lower()}.json", numbers)
    np.savez_compressed(
        FOLDER / "results" / f"hessian_{figure.lower()}.npz",
        **{
            name: (255 * image / image.max()).round().to(torch.uint8).numpy()
            for name, image in pictures.items()
        },
    )
