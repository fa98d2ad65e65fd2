"""Figs. 1, S2-S4: blocks of the exact Hessian and of the empirical Fisher, by torch.func.

    python -m woodfisher.hessian     MLPNet's last layer at 0.5, 5 and 50 epochs (Fig. S4); writes results/hessian_s4.npz and .json
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian, vmap

from common import data as D
from common import models
from common import train as T
from common.fisher import mean_loss
from common.fisher.rows import gradient_rows
from common.layers import prunable
from common.record import write_json
from common.spec import Recipe

FOLDER = Path(__file__).resolve().parent
EPOCHS, IMAGES, EXAMPLES = (0.5, 5.0, 50.0), 5000, 64  # Sec. S3.2; its text says 16 examples, its caption 64
log = logging.getLogger(__name__)


def hessian_block(model: nn.Module, x: Tensor, y: Tensor, rows: str, columns: str | None = None) -> Tensor:
    """∂²L / ∂w_rows ∂w_columns of the mean loss, [weights of `rows`, weights of `columns`]; both are layer names."""
    names = list(dict.fromkeys((f"{rows}.weight", f"{columns or rows}.weight")))
    chosen = {name: model.get_parameter(name).detach() for name in names}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return mean_loss(functional_call(model, parameters, (x,)), y)

    block = hessian(loss)(chosen)[names[0]][names[-1]]
    return block.detach().reshape(chosen[names[0]].numel(), -1)  # the other parameters ask for gradients


def fisher_block(model: nn.Module, x: Tensor, y: Tensor, rows: str, columns: str | None = None) -> Tensor:
    """The same block of the empirical Fisher (1/B) Σ ∇∇ᵀ, undamped."""
    layers = {name: prunable(model)[name] for name in dict.fromkeys((rows, columns or rows))}
    G = gradient_rows(model, [(x, y)], len(x), layers=layers)
    return G[rows].mT @ G[columns or rows] / len(x)


def smoothed(block: Tensor, sigma: float = 1.0) -> Tensor:
    """Gaussian-smoothed absolute values, [rows, columns]: "smoothened slightly for better visibility" (Fig. 1)."""
    reach = max(1, round(3 * sigma))
    kernel = torch.exp(-torch.arange(-reach, reach + 1, dtype=block.dtype).square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    image = block.abs()[None, None]
    image = nn.functional.conv2d(nn.functional.pad(image, (reach, reach, 0, 0), "replicate"), kernel[None, None, None, :])
    return nn.functional.conv2d(nn.functional.pad(image, (0, 0, reach, reach), "replicate"), kernel[None, None, :, None])[0, 0]


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two blocks as vectors: 1 is the same structure, whatever the scale."""
    return float((a * b).sum() / (a.norm() * b.norm()))


def tile_mean(block: Tensor, size: int) -> Tensor:
    """Mean over size × size tiles, what the paper shows of blocks too large to draw (Figs. S2, S3); the rest is cut off."""
    rows, columns = (n // size * size for n in block.shape)
    tiles = block[:rows, :columns].unflatten(0, (-1, size)).unflatten(2, (-1, size))
    return vmap(lambda row: row.mean((0, 2)))(tiles)


def course(epochs: Sequence[float], layer: str = "fc3", images: int = IMAGES, examples: int = EXAMPLES) -> list[dict]:
    """MLPNet trained on the first `images` of MNIST: at each of `epochs`, its test accuracy and both blocks of `layer`."""
    data = D.load("mnist:norm=standard")
    data = dataclasses.replace(data, train=torch.utils.data.Subset(data.train, range(images)))
    x, y = next(iter(D.load("mnist:norm=standard").calibration(examples, batch_size=examples)))
    result = []
    for many in epochs:
        model = models.build("mlpnet", data.classes, data.input_shape, 0)
        fit = T.fit(model, data, Recipe(epochs=many, lr=1e-3, momentum=0.5, batch_size=64))
        result.append({"epochs": many, "accuracy": fit.last, "hessian": hessian_block(model, x, y, layer),
                       "fisher": fisher_block(model, x, y, layer)})
    return result


def main() -> int:
    """Fig. S4: pictures as .npz, numbers as .json."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    numbers, pictures = [], {}
    for point in course(EPOCHS):
        numbers.append({"epochs": point["epochs"], "accuracy": point["accuracy"],
                        "cosine": cosine(point["hessian"], point["fisher"]),
                        "scale": float(point["fisher"].norm() / point["hessian"].norm())})
        for name in ("hessian", "fisher"):
            image = smoothed(point[name])
            pictures[f"{name}_{point['epochs']:g}"] = (255 * image / image.max()).round().to(torch.uint8).numpy()  # on its own scale
        log.info("%(epochs)g epochs: accuracy %(accuracy).4f, cosine %(cosine).3f, Fisher/Hessian norm %(scale).3f", numbers[-1])
    write_json(FOLDER / "results" / "hessian_s4.json", numbers)
    np.savez_compressed(FOLDER / "results" / "hessian_s4.npz", **pictures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
