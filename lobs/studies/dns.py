"""Table 1's DNS rows: the error of dynamic network surgery against its iterations."""

from __future__ import annotations

import torch

from common.cells.spec import Spec
from common.nets import layers as L
from common.running import study
from common.running import train as T
from common.running.study import short
from common.running.timing import Timer
from lobs import dns

KEEPS = (0.018, 0.015)  # Table 1's DNS row, and the iterative row of L-OBS
STEPS = (643, 4_000)  # the paper's DNS row takes 34,000


def surgery(spec: Spec, timer: Timer) -> list[dict]:
    """DNS at the kept fractions of Table 1's DNS and iterative rows, the same in every layer, for
    as many iterations as L-OBS and for more. Rows: the test error during the run, of the network as
    it is masked then, and at the end with exactly the wanted number of weights."""
    model, data = study.dense(spec)
    rows = []
    for keep in KEEPS:
        for steps in STEPS:

            def watch(state: T.State, keep: float = keep, steps: int = steps) -> None:
                if (
                    state.event == "step"
                    and state.step < steps
                    and state.step % max(1, steps // 8) == 0
                ):
                    used = float(
                        torch.cat(
                            [m.weight.flatten() != 0 for m in L.prunable(state.model).values()]
                        )
                        .double()
                        .mean()
                    )
                    rows.append(
                        {
                            "method": "dns",
                            "kept": keep,
                            "steps": steps,
                            "step": state.step,
                            "kept_then": short(used),
                            "error": round(1 - T.evaluate(state.model, data.test_loader())[1], 5),
                        }
                    )

            with timer.phase("dns"):
                result = dns.prune(
                    model,
                    data.calibration(60_000, 10_000),
                    1 - keep,
                    dns.Options(steps=steps),
                    torch.Generator().manual_seed(spec.seed),
                    watch=watch,
                )
            rows.append(
                {
                    "method": "dns",
                    "kept": keep,
                    "steps": steps,
                    "step": steps,
                    "kept_then": keep,
                    "error": round(1 - T.evaluate(result.model, data.test_loader())[1], 5),
                }
            )
    return rows
