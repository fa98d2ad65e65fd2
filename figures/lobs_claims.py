"""The rules of L-OBS's claims in docs/claims.md."""

from __future__ import annotations

from figures.evidence import Evidence, cell, claim, field, printed, shows, verdict


@shows("Table 1")
@claim
def lobs_little_is_lost() -> Evidence:
    """Right after pruning L-OBS loses little where magnitude and OBD collapse; holds if it is within 2 points of dense and both others
    are at least 5 points worse."""
    dense, walk = (cell("lobs", "Table 1", "lenet300-8.4-l-obs", q) for q in ("orig_err_top1_pct", "err_after_pruning_top1_pct"))
    others = {name: cell("lobs", "Table 1", f"lenet300-8.4-{name}", "err_after_pruning_top1_pct") for name in ("lwc", "obd")}
    said = {"lwc": printed("lobs", "Table 1", "LWC", "err_after_pruning_top1_pct", model="LeNet-300-100"),
            "obd": printed("lobs", "Table 1", "OBD", "err_after_pruning_top1_pct", model="LeNet-300-100")}
    lines = [f"LeNet-300-100 with the stated fractions a layer (8.4% kept), test error in percent right after pruning: L-OBS {walk} "
             f"(paper {printed('lobs', 'Table 1', 'L-OBS', 'err_after_pruning_top1_pct', model='LeNet-300-100'):.2f}), dense {dense}; "
             f"{walk.source}."]
    lines += [f"{name}: {number} (paper {said[key]:.2f}); {number.source}." for (key, number), name in
              zip(others.items(), ("Magnitude per layer", "OBD with the diagonal Fisher"), strict=True)]
    return verdict(walk.mean - dense.mean < 2, all(n.mean - walk.mean > 5 for n in others.values())), lines


@shows("Table 1")
@claim
def lobs_light_retraining() -> Evidence:
    """Light retraining brings the dense error back; holds if the walk ends within 0.2 points of dense after the stated iterations."""
    names = {"lenet300-8.4-l-obs": "the paper's walk", "lenet300-8.4-l-obs-joint": "the joint optimum",
             "lenet300-7.15-l-obs-ours": "joint, re-scored, pruned inputs", "lenet300-8.4-lwc": "magnitude per layer"}
    found = {name: cell("lobs", "Table 1", name, "retrained_err_top1_pct") for name in names}
    dense = cell("lobs", "Table 1", "lenet300-8.4-l-obs", "orig_err_top1_pct")
    lines = [f"LeNet-300-100, test error in percent after 510 iterations (dense {dense}; paper: L-OBS 1.82, dense 1.76):"]
    lines += [f"{words}: {found[name]}; {found[name].source}." for name, words in names.items()]
    return verdict(found["lenet300-8.4-l-obs"].mean - dense.mean < 0.2, found["lenet300-8.4-l-obs-joint"].mean - dense.mean < 0.2,
                   found["lenet300-7.15-l-obs-ours"].mean - dense.mean < 0.2), lines


@shows("Table 1")
@claim
def lobs_one_and_a_half_percent() -> Evidence:
    """1.5% of LeNet-300-100 is enough: for the printed error, for the dense error within 0.2 points, and ahead of magnitude."""
    error, magnitude = (cell("lobs", "Table 1", f"lenet300-1.5-{m}-iterative-seed*", "retrained_err_top1_pct") for m in ("l-obs", "lwc"))
    dense = cell("lobs", "Table 1", "lenet300-1.5-l-obs-iterative-seed*", "orig_err_top1_pct")
    said = printed("lobs", "Table 1", "L-OBS (iterative)", "retrained_err_top1_pct", model="LeNet-300-100")
    return (verdict(error.mean <= said, error.mean - dense.mean < 0.2, error.mean < magnitude.mean),
            [f"1.5% kept, 643 iterations: {error} (paper {said:.2f}, dense here {dense}); {error.source}.",
             f"Magnitude on the same schedule and images: {magnitude}; {magnitude.source}."])


@shows("Theorem 3.2")
@claim
def lobs_error_bound() -> Evidence:
    """Theorem 3.2's bound is above the measured error in every layer, and says how large it is; in part if it is over ten times above."""
    rows = {m: [field("lobs", f"lenet300-theorem.json?method={m}&name=fc3#{key}") for key in ("accumulated", "bound", "spectral_bound")]
            for m in ("l-obs", "l-obs-joint")}
    lines = [f"RMS distance of LeNet-300-100's outputs at the paper's fractions, {words}: measured {one[0]:.1f}, bound {one[1]:,.0f} "
             f"(with spectral norms {one[2]:,.0f}); `lenet300-theorem.json`." for words, one in
             zip(("the walk", "the joint optimum"), rows.values(), strict=True)]
    return verdict(all(b >= a for a, b, _ in rows.values()), all(b <= 10 * a for a, b, _ in rows.values())), lines


@shows("Table 2")
@claim
def lobs_beats_net_trim() -> Evidence:
    """At a like fraction of the middle layer L-OBS errs less than Net-Trim; in part where the lead is less than half the paper's."""
    trim = [field("lobs", f"lenet300-net-trim.json?method=net-trim&asked=0.6#{k}") for k in ("kept*100", "error*100")]
    walk = [field("lobs", f"lenet300-net-trim.json?method=l-obs&kept=0.074&samples=1000#{k}") for k in ("kept*100", "error*100")]
    said = [printed("lobs", "Table 2", m, "pruned_err_pct", kept_pct="7.4") for m in ("Net-Trim", "L-OBS")]
    return (verdict(walk[1] < trim[1], trim[1] - walk[1] > (said[0] - said[1]) / 2),
            [f"Middle layer of LeNet-300-100, 1,000 samples: Net-Trim solved to convergence {trim[1]:.2f}% error at {trim[0]:.1f}% kept "
             f"(paper {said[0]:.2f}% at 7.4%), L-OBS's walk {walk[1]:.2f}% at {walk[0]:.1f}% (paper {said[1]:.2f}%); "
             "`lenet300-net-trim.json`."])
