"""WoodFisher Table S6: what gradual pruning removes of each layer, WoodFisher beside global
magnitude; printed ResNet-50, our ResNet-20.
"""

import statistics
import sys
from collections import defaultdict

import matplotlib
from matplotlib.figure import Figure

from common.cells.errors import UserError
from figures import style
from figures.paired import spearman
from figures.style import look
from figures.values import read
from figures.woodfisher_cells import save
from figures.woodfisher_fig6 import Pair, runs, schedule

METHODS = {"WoodFisher": "woodfisher", "Global Magnitude": "magnitude-global"}
Profile = dict[str, float]  # layer -> percent removed, in the network's order
Profiles = dict[float, dict[str, Profile]]  # percent asked for -> method -> profile


def printed() -> Profiles:
    """The paper's, of ResNet-50."""
    found: Profiles = defaultdict(lambda: defaultdict(dict))
    for value in read("woodfisher"):
        where = dict(value.setting)
        if (
            (value.table, value.quantity) == ("Table S6", "sparsity_pct")
            and value.number is not None
            and "Overall" not in where["layer"]
        ):
            found[float(where["sparsity_pct"])][METHODS[value.method]][where["layer"]] = (
                value.number
            )
    return found


def ours() -> dict[str, Profiles]:
    """Of ResNet-20, means over the seeds, by schedule; where both methods have run."""
    found: dict[str, Profiles] = defaultdict(dict)
    for key, methods in runs().items():
        if key[1] == "resnet20" and key[0] != "table-2" and set(METHODS.values()) <= set(methods):
            found[f"Ours: ResNet-20, {schedule(key)}"][100 * key[3]] = {
                method: _profile(methods[method]) for method in METHODS.values()
            }
    if not found:
        raise UserError(
            "results",
            "table-1",
            "holds no gradual run of ResNet-20",
            "run python -m woodfisher.finetune --table 1 --scale cpu",
        )
    return {name: dict(sorted(profiles.items())) for name, profiles in found.items()}


def _profile(pairs: list[Pair]) -> Profile:
    """Layer -> percent removed, mean over seeds."""
    gone: dict[str, list[float]] = defaultdict(list)
    for prune, _ in pairs:
        for layer in prune.layers:
            gone[layer["name"]].append(100 * (1 - layer["kept"] / layer["total"]))
    return {name: statistics.fmean(values) for name, values in gone.items()}


def networks() -> dict[str, Profiles]:
    """The paper's network, then ours."""
    return {"Paper: ResNet-50": printed()} | ours()


def table() -> str:
    """Markdown: the ends of the network, the extremes, and how alike the two methods order the
    layers.
    """
    text = [
        "| network | removed | method | first layer, % | last layer, % | least, % | most, % | "
        "Spearman of the two |",
        "|---" * 8 + "|",
    ]
    for network, profiles in networks().items():
        for amount, methods in profiles.items():
            alike = spearman(*(list(methods[method].values()) for method in METHODS.values()))
            for method in METHODS.values():
                gone = list(methods[method].values())
                text.append(
                    f"| {network} | {amount:g}% | {look(method).label} | {gone[0]:.1f} | "
                    f"{gone[-1]:.1f} | {min(gone):.1f} | "
                    f"{max(gone):.1f} | {alike:.2f} |"
                )
    return "\n".join(text) + "\n"


def figure() -> Figure:
    """A row a network, a panel an amount."""
    with matplotlib.rc_context(style.RC):
        found = networks()
        columns = max(map(len, found.values()))
        result = Figure(figsize=(3.1 * columns, 0.4 + 2.7 * len(found)), layout="constrained")
        for row, (network, profiles) in zip(
            result.subplots(len(found), columns, sharey="row", squeeze=False),
            found.items(),
            strict=True,
        ):
            for ax in row[len(profiles) :]:
                ax.remove()
            for ax, (amount, methods) in zip(row, profiles.items(), strict=False):
                # nearly alike
                for method, marker, line, size in (
                    ("magnitude-global", "s", "-", 5),
                    ("woodfisher", "o", ":", 2.5),
                ):
                    drawn, gone = look(method), list(methods[method].values())
                    ax.plot(
                        range(1, len(gone) + 1),
                        gone,
                        line,
                        color=drawn.colour,
                        marker=marker,
                        markersize=size,
                        label=drawn.label,
                        markerfacecolor="none" if marker == "s" else drawn.colour,
                        gid=method,
                    )
                ax.axhline(
                    amount,
                    color="#444444",
                    linewidth=1,
                    linestyle=(0, (1, 2)),
                    label="Of all weights",
                )
                title = network.replace(", ", ",\n", 1)
                ax.set(title=f"{title}, {amount:g}%", xlabel="Layer, from the input")
            row[0].set_ylabel("Weights removed [%]")
        result.legend(
            *result.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3
        )
        return result


if __name__ == "__main__":
    sys.exit(save("tableS6", figure, __doc__, table=table))
