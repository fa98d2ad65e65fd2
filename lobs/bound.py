"""Theorem 3.2: the distance between the outputs of a layer-wise pruned network and the dense one,
beside its bound.

For fully connected layers with ReLU (or nothing) between, and the errors E^k = (1/n)‖Ẑ^k − Z^k‖²_F
on the dense network's inputs,
    ε̃^L = (1/√n) ‖Ỹ^L − Y^L‖_F  ≤  Σ_k (Π_{l>k} ‖Ŵ_l‖_F) √E^k
                                 (Eq. 8)
which is the recursion bound_l = ‖Ŵ_l‖ bound_{l−1} + √E^l, so it stands at every layer. With
spectral norms it is tighter, and ours.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from common.cells.errors import LayerError, UserError
from common.data.batches import batches
from common.nets import layers as L
from common.nets.capture import capture


@torch.no_grad()
def propagation(
    dense: nn.Module, pruned: nn.Module, loader: Iterable[tuple[Tensor, Tensor]]
) -> list[dict]:
    """One entry a layer: {name, layer_error √E^l, accumulated ε̃^l, bound (Frobenius),
    spectral_bound}, in output units.

    ε̃^l is taken after the activation, at the next layer's input; for the last layer at the
    network's output. Raises LayerError for a layer that is not fully connected.
    """
    originals, changed = L.prunable(dense), L.prunable(pruned)
    for name, module in originals.items():
        if not isinstance(module, nn.Linear):
            raise LayerError(name, "is not fully connected, as the theorem asks")
    names, count = list(originals), 0
    errors, apart = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    device = next(dense.parameters()).device
    for x, _ in batches(loader):
        with (
            capture(dense, originals, gradients=False) as one,
            capture(pruned, changed, gradients=False) as other,
        ):
            outputs = one.forward(x.to(device)), other.forward(x.to(device))
        for i, name in enumerate(names):
            given = one.input(name)
            errors[name] += float(
                (changed[name](given) - originals[name](given)).double().square().sum()
            )
            after = (
                (one.input(names[i + 1]), other.input(names[i + 1]))
                if i + 1 < len(names)
                else outputs
            )
            apart[name] += float((after[1] - after[0]).double().square().sum())
        count += len(x)
    if not count:
        raise UserError("loader", 0, "no batch was seen", "give at least one example")
    result, bound, spectral = [], 0.0, 0.0
    for name in names:
        weight, error = changed[name].weight.double(), (errors[name] / count) ** 0.5
        bound = bound * float(weight.norm()) + error
        spectral = spectral * float(torch.linalg.matrix_norm(weight, 2)) + error
        result.append(
            {
                "name": name,
                "layer_error": error,
                "accumulated": (apart[name] / count) ** 0.5,
                "bound": bound,
                "spectral_bound": spectral,
            }
        )
    return result
