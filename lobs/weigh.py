"""Output units weighed by what their errors cost the loss (ours, beyond L-OBS, whose layer error
counts all units alike).

Let g be the gradient of one example's loss in a layer's output. An output error δz raises the loss
by ½ E (gᵀδz)² to second order (Gauss-Newton; labels are drawn from the network's predictions). If
units and positions are independent of each other and of the layer's input, this is Σ_j s_j · ½ mean
δz_j² with s_j = Σ_positions E g_j²: L-OBS's layer error with weight s_j for unit j. It is K-FAC's
curvature (Grosse & Martens 2016) with G reduced to its diagonal. Within a unit s_j changes neither
the order of the weights nor their update; it makes sensitivities of different units and layers
comparable.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from common.cells.errors import NumericalError
from common.curvature.labels import losses
from common.data.sources import rebatch
from common.data.task import task_of
from common.nets import layers as L
from common.nets.capture import capture


def output_weights(
    model: nn.Module,
    calibration: Iterable[tuple[Tensor, Tensor]],
    layers: dict[str, nn.Module],
    batch_size: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """s of every unit by layer name, float64 [groups, out]. Raises NumericalError naming a layer
    whose gradients are not finite.
    """
    device, examples = next(model.parameters()).device, 0
    total = {
        name: torch.zeros(L.to_matrix(m, m.weight).shape[:2], dtype=torch.float64, device=device)
        for name, m in layers.items()
    }
    for x, y in rebatch(calibration, batch_size):
        examples += len(x)
        with capture(model, layers) as tape:
            for loss in losses(
                tape.forward(x.to(device)), y.to(device), "sampled", task_of(x), generator
            ):
                tape.backward(loss)
                for name, module in layers.items():
                    total[name] += (
                        L.gradients(module, tape.gradient(name)).double().square().sum((0, 2))
                    )
    for name, value in total.items():
        if not torch.isfinite(value).all():
            raise NumericalError(
                name, "its gradients are not finite", "check the data and the checkpoint"
            )
    return {name: value / examples for name, value in total.items()}
