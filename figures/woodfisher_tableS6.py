"""WoodFisher Table S6: what gradual pruning removes of each layer, WoodFisher beside global magnitude; printed ResNet-50, our ResNet-20."""

import statistics
import sys
from collections import defaultdict

import matplotlib
from matplotlib.figure import Figure

from common.errors import UserError
from common.record import read_all
from figures import style
from figures.paired import spearman
from figures.style import look
from figures.values import read
from figures.woodfisher_cells import RESULTS, save

METHODS = {"WoodFisher": "woodfisher", "Global Magnitude": "magnitude-global"}
Profile = dict[str, float]  # layer -> percent removed, in the network's order
Profiles = dict[float, dict[str, Profile]]  # percent asked for -> method -> profile


def printed() -> Profiles:
    """The paper's, of ResNet-50."""
    found: Profiles = defaultdict(lambda: defaultdict(dict))
    for value in read("woodfisher"):
        where = dict(value.setting)
        if (value.table, value.quantity) == ("Table S6", "sparsity_pct") and value.number is not None and "Overall" not in where["layer"]:
            found[float(where["sparsity_pct"])][METHODS[value.method]][where["layer"]] = value.number
    return found


def ours() -> Profiles:
    """Of ResNet-20, means over the seeds of Fig. 6's runs."""
    values: dict = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for record in read_all(RESULTS / "figure-6"):
        if record.stage == "prune" and record.spec["model"] == "resnet20" and record.method in METHODS.values():
            for layer in record.layers:
                gone = 100 * (1 - layer["kept"] / layer["total"])
                values[100 * record.requested["sparsity"]][record.method][layer["name"]].append(gone)
    if not values:
        raise UserError("results", "figure-6", "holds no gradual run of ResNet-20",
                        "run python -m woodfisher.finetune --figure 6 --scale cpu")
    return {amount: {method: {name: statistics.fmean(gone) for name, gone in layers.items()} for method, layers in methods.items()}
            for amount, methods in sorted(values.items())}


NETWORKS = {"Paper: ResNet-50": printed, "Ours: ResNet-20": ours}


def table() -> str:
    """Markdown: the ends of the network, the extremes, and how alike the two methods order the layers."""
    text = ["| network | removed | method | first layer, % | last layer, % | least, % | most, % | Spearman of the two |", "|---" * 8 + "|"]
    for network, profiles in NETWORKS.items():
        for amount, methods in profiles().items():
            alike = spearman(*(list(methods[method].values()) for method in METHODS.values()))
            for method in METHODS.values():
                gone = list(methods[method].values())
                text.append(f"| {network} | {amount:g}% | {look(method).label} | {gone[0]:.1f} | {gone[-1]:.1f} | {min(gone):.1f} | "
                            f"{max(gone):.1f} | {alike:.2f} |")
    return "\n".join(text) + "\n"


def figure() -> Figure:
    """A row a network, a panel an amount."""
    with matplotlib.rc_context(style.RC):
        found = {network: profiles() for network, profiles in NETWORKS.items()}
        columns = max(map(len, found.values()))
        result = Figure(figsize=(3.1 * columns, 5.8), layout="constrained")
        for row, (network, profiles) in zip(result.subplots(len(found), columns, sharey="row"), found.items(), strict=True):
            for ax, (amount, methods) in zip(row, profiles.items(), strict=True):
                for method, marker, line, size in (("magnitude-global", "s", "-", 5), ("woodfisher", "o", ":", 2.5)):  # nearly alike
                    drawn, gone = look(method), list(methods[method].values())
                    ax.plot(range(1, len(gone) + 1), gone, line, color=drawn.colour, marker=marker, markersize=size, label=drawn.label,
                            markerfacecolor="none" if marker == "s" else drawn.colour, gid=method)
                ax.axhline(amount, color="#444444", linewidth=1, linestyle=(0, (1, 2)), label="Of all weights")
                ax.set(title=f"{network}, {amount:g}%", xlabel="Layer, from the input")
            row[0].set_ylabel("Weights removed [%]")
        result.legend(*result.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return result


if __name__ == "__main__":
    sys.exit(save("tableS6", figure, __doc__, table=table))
