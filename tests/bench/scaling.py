"""How the low-rank inverse's time and memory grow with the number of rows m and of weights d:
slopes in log-log coordinates.

One block over everything (chunk=None), so that nothing but m and d matters: diagonal and one solve,
as a pruning step needs them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from common.curvature.blocks import BlockFisher
from tests.bench.kernel import seconds

ROWS = (64, 128, 256, 512)
WEIGHTS = (1 << 16, 1 << 17, 1 << 18, 1 << 19)
FIXED_ROWS, FIXED_WEIGHTS = 128, 1 << 17


def run(m: int, d: int) -> float:
    """Seconds of diagonal and solve from m rows of d weights."""
    generator = torch.Generator().manual_seed(0)
    rows, v = torch.randn(m, d, generator=generator), torch.randn(d, generator=generator)

    def once() -> tuple:
        fisher = BlockFisher(rows, 1e-5)
        return fisher.diagonal(), fisher.solve(v)

    return seconds(once, 0.5)


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Least-squares slope of log y against log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def curves() -> dict:
    """Seconds over m at fixed d and over d at fixed m, with their slopes, printed as they come."""
    over_rows = [run(m, FIXED_WEIGHTS) for m in ROWS]
    over_weights = [run(FIXED_ROWS, d) for d in WEIGHTS]
    found = {
        "rows": {
            "m": list(ROWS),
            "d": FIXED_WEIGHTS,
            "seconds": over_rows,
            "slope": slope(ROWS, over_rows),
        },
        "weights": {
            "m": FIXED_ROWS,
            "d": list(WEIGHTS),
            "seconds": over_weights,
            "slope": slope(WEIGHTS, over_weights),
        },
        "bytes_per_entry": 4,
    }
    print(
        f"one block, d = {FIXED_WEIGHTS:,}: time grows as m^{found['rows']['slope']:.2f} from m = "
        f"{ROWS[0]} to {ROWS[-1]} "
        f"({', '.join(f'{1e3 * s:.0f} ms' for s in over_rows)})"
    )
    print(
        f"one block, m = {FIXED_ROWS}: time grows as d^{found['weights']['slope']:.2f} from d = "
        f"{WEIGHTS[0]:,} to {WEIGHTS[-1]:,} "
        f"({', '.join(f'{1e3 * s:.0f} ms' for s in over_weights)})",
        flush=True,
    )
    return found
