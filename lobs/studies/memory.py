"""Fig. 2b: memory against the number of samples."""

from __future__ import annotations

import torch

from common.cells.spec import Spec
from common.nets import layers as L
from common.nets.capture import capture
from common.running import study
from common.running.timing import Timer
from lobs.hessian import Layer, layer_statistics
from lobs.net_trim import Options as TrimOptions
from lobs.net_trim import constraint_entries, net_trim
from lobs.ours import Fit, Options, prune_layer
from lobs.studies.peak import PeakBytes

MIDDLE = "fc2"  # the only layer of Fig. 2b
SAMPLES = (1, 2, 5, 10, 20, 50, 100, 1_000, 10_000, 60_000)


def memory(spec: Spec, timer: Timer) -> list[dict]:
    """Bytes that pruning the middle layer takes, by number of samples: measured for L-OBS and for
    Net-Trim by ADMM. q_bytes: the matrix Q of Net-Trim's quadratic constraints in float64, which is
    counted and not formed."""
    model, data = study.dense(spec)
    module = model.get_submodule(MIDDLE)
    W, rows = torch.cat([module.weight, module.bias[:, None]], 1).detach().double(), []
    for samples in SAMPLES:
        loader = data.calibration(samples, 100)
        batches = list(loader)
        with timer.phase("l_obs"), PeakBytes() as ours:
            seen = layer_statistics(model, batches, {MIDDLE: module}, True, 100)[MIDDLE]
            layer = Layer.of(MIDDLE, seen, 1e-3, relative=True)
            prune_layer(Fit.start(layer), 0.9, Options())
        row = {
            "samples": samples,
            "l_obs_bytes": ours.peak,
            "q_bytes": 8 * constraint_entries(samples, module.out_features, module.in_features),
        }
        if samples <= 1_000:
            with capture(model, {MIDDLE: module}, gradients=False) as tape:
                tape.forward(torch.cat([x for x, _ in batches]))
            with timer.phase("net_trim"), PeakBytes() as theirs:
                net_trim(
                    W,
                    L.inputs(module, tape.input(MIDDLE), True)[:, 0, 0].T,
                    TrimOptions(xi=0.3, iterations=20),
                )
            row["net_trim_bytes"] = theirs.peak
        rows.append(row)
    return rows
