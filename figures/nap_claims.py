"""The rules of NAP's claims in docs/claims.md."""

from __future__ import annotations

from figures.evidence import Evidence, cell, claim, printed, shows, verdict


@shows("Table 3")
@claim
def nap_seventy_seven_times() -> Evidence:
    """LeNet-300-100 compresses 77 times and LeNet-5 200 times for under a tenth of a point; holds within 0.2 points of the paper's
    increase, on the plain images and on shifted ones."""
    near, lines = [], []
    for network, short, ours in (("LeNet-300-100", "lenet300-77x", "sgd-shift"), ("LeNet-5", "lenet5-200x", "slow")):
        said = printed("nap", "Table 3", "NAP", "delta_err_pct", model=network)
        plain, shifted = (cell("nap", "Table 3", f"{short}-nap{how}-seed*", "delta_top1_err_pct") for how in ("", f"-{ours}"))
        times = cell("nap", "Table 3", f"{short}-nap-seed*", "compression_ratio_x")
        near += [plain.mean < said + 0.2, shifted.mean < said + 0.2]
        lines += [f"{network}, {times.mean:.1f} times fewer weights: {plain} points more error (paper {said:.2f}); {plain.source}.",
                  f"The same with images shifted by a pixel, ours: {shifted} points; {shifted.source}."]
    return verdict(*near), lines
