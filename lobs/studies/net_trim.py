"""Table 2: Net-Trim beside L-OBS."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.cells.spec import Spec
from common.nets import layers as L
from common.nets.capture import capture
from common.nets.clone import clone
from common.running import study
from common.running import train as T
from common.running.study import short
from common.running.timing import Timer
from lobs.hessian import Layer, layer_statistics
from lobs.net_trim import Options as TrimOptions
from lobs.net_trim import net_trim, net_trim_keeping
from lobs.ours import Fit, Options, prune_layer
from lobs.studies.peak import PeakBytes

MIDDLE = "fc2"  # the only layer of Table 2
TRIM_SAMPLES, TRIM_KEEPS = 1_000, (0.19, 0.074, 0.042, 0.038, 0.034)  # Table 2's CRs
PRINTED_KEEPS = (0.19, 0.074, 0.042)  # Net-Trim's of them
XIS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.7)


def net_trim_table(spec: Spec, timer: Timer) -> list[dict]:
    """The middle layer alone is pruned: by Net-Trim on 1,000 samples, over a range of ξ and at the
    kept fractions of the table; by L-OBS at those fractions, on the same samples and on all. xi is
    measured on the samples, error on the test set."""
    model, data = study.dense(spec)
    module, rows = model.get_submodule(MIDDLE), []
    loader = data.calibration(TRIM_SAMPLES, TRIM_SAMPLES)
    with capture(model, {MIDDLE: module}, gradients=False) as tape:
        tape.forward(next(iter(loader))[0])
    X = L.inputs(module, tape.input(MIDDLE), bias=True)[:, 0, 0].T
    dense = torch.cat([module.weight, module.bias[:, None]], 1).detach().double()
    Y = (dense @ X.double()).clamp_min(0)

    def entry(method: str, new: Tensor, **more: object) -> dict:
        other = with_layer(model, MIDDLE, new)
        xi = float(((new @ X.double()).clamp_min(0) - Y).norm() / Y.norm())
        return {
            "method": method,
            "kept": float((new[:, :-1] != 0).double().mean()),
            "xi": short(xi),
            "error": round(1 - T.evaluate(other, data.test_loader())[1], 5),
            **more,
        }

    for xi in XIS:
        with timer.phase("net_trim"):
            peak = PeakBytes()
            with peak:
                new, report = net_trim(dense, X, TrimOptions(xi=xi))
        rows.append(
            entry(
                "net-trim",
                new,
                asked=xi,
                violation=short(report["violation"]),
                samples=TRIM_SAMPLES,
                peak_bytes=peak.peak,
            )
        )
    for keep in PRINTED_KEEPS:
        with timer.phase("net_trim"):
            new, report = net_trim_keeping(dense, X, keep)
        rows.append(
            entry(
                "net-trim",
                new,
                target=keep,
                asked=short(report["asked"]),
                violation=short(report["violation"]),
                samples=TRIM_SAMPLES,
            )
        )
    for method, update, samples in (
        ("l-obs", "triangular", TRIM_SAMPLES),
        ("l-obs-joint", "joint", TRIM_SAMPLES),
        ("l-obs", "triangular", 60_000),
        ("l-obs-joint", "joint", 60_000),
    ):
        options = Options(update=update)
        with timer.phase("l_obs"):
            seen = layer_statistics(
                model, data.calibration(samples, 1000), {MIDDLE: module}, True, 1000
            )[MIDDLE]
            layer = Fit.start(Layer.of(MIDDLE, seen, 1e-3, relative=True))
            rows += [
                entry(method, prune_layer(layer, 1 - keep, options)[0][0], samples=samples)
                for keep in TRIM_KEEPS
            ]
    return rows


def with_layer(model: nn.Module, name: str, W: Tensor) -> nn.Module:
    """A copy of the model whose layer `name` has the weights and bias of W [out, in + 1]."""
    other = clone(model)
    with torch.no_grad():
        other.get_submodule(name).weight.copy_(W[:, :-1])
        other.get_submodule(name).bias.copy_(W[:, -1])
    return other
