"""WoodFisher Fig. 4 and Tables 6, 8 and S2 on one-shot ResNet-20: recomputation, FLOPs, labels of
the Fisher, rows and batches.
"""

import re
import sys

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.cells.errors import UserError
from figures import style
from figures.woodfisher_cells import RESULTS, by_setting, save, series, there

COLOURS, MARKERS = (style.BLUE, style.VERMILION, style.GREEN), "os^"


def bars(ax: Axes, folder: str, names: dict[str, str]) -> None:
    """Accuracy of each setting, a group of bars an amount."""
    settings, lines = by_setting(folder, RESULTS)
    shown = [name for name in names if name in settings]
    width = 0.8 / len(lines)
    for i, ((amount, values), colour) in enumerate(zip(lines.items(), COLOURS, strict=False)):
        places = [j + (i - (len(lines) - 1) / 2) * width for j in range(len(shown))]
        drawn = ax.bar(
            places,
            [values.get(name, 0) for name in shown],
            width,
            color=colour,
            label=f"{100 * amount:g}% removed",
        )
        ax.bar_label(drawn, fmt="%.1f", fontsize=7)
    ax.set_xlim(-0.6, max(len(shown), 3) - 0.4)
    ax.set_xticks(range(len(shown)), [names[name] for name in shown])
    ax.set_ylabel("Test accuracy [%]")
    ax.legend(ncols=3, loc="lower left", fontsize=7.5, framealpha=0.8, frameon=True)


def labels(ax: Axes) -> None:
    """Table 8: sampled labels beside the true ones of Fig. 3a."""
    both = (
        ("figure-3a", "woodfisher", "True labels (empirical)"),
        ("table-8", "sampled", "Labels drawn from the model"),
    )
    for (folder, name, label), colour, marker in zip(both, COLOURS, MARKERS, strict=False):
        records = series(folder)[name]
        for i, amount in enumerate(
            sorted(amount for amount in records if amount in (0.5, 0.7, 0.8))
        ):
            values = [100 * record.accuracy["pruned"] for record in records[amount]]
            at = i + (0.12 if name == "sampled" else -0.12)
            ax.plot(
                [at] * len(values),
                values,
                marker,
                color=colour,
                label=label if not i else None,
                alpha=0.7,
            )
    ax.set_xticks(range(3), ["50%", "70%", "80%"])
    ax.set(xlabel="Weights removed; a point a seed", ylabel="Test accuracy [%]")
    ax.legend(loc="lower left")


def flops(ax: Axes) -> None:
    """Table 6: accuracy against the multiply-accumulates that are left."""
    found = series("table-6")
    for amount, colour, marker in zip(
        sorted(next(iter(found.values()))), COLOURS, MARKERS, strict=False
    ):
        points = [
            (
                records[amount][0].achieved["kept_macs"] / 1e6,
                100 * records[amount][0].accuracy["pruned"],
                name,
            )
            for name, records in found.items()
            if amount in records and name.startswith("beta")
        ]
        points.sort(reverse=True)
        ax.plot(
            [x for x, _, _ in points],
            [y for _, y, _ in points],
            color=colour,
            marker=marker,
            label=f"{100 * amount:g}% of the weights removed",
        )
        for i, (x, y, name) in enumerate(points):
            ax.annotate(
                "β " + name.removeprefix("beta-"),
                (x, y),
                textcoords="offset points",
                xytext=(-4, 6 if i % 2 else -13),
                fontsize=8,
            )
    for amount, records in found.get("target-macs", {}).items():
        ax.plot(
            records[0].achieved["kept_macs"] / 1e6,
            100 * records[0].accuracy["pruned"],
            "D",
            color=style.GREEN,
            label=f"β 0.3, {100 * amount:g}% of the MACs removed",
        )
    ax.set(xlabel="MACs left [million]", ylabel="Test accuracy [%]")
    ax.legend(loc="lower right", fontsize=7.5)


def recomputation(ax: Axes) -> None:
    """Fig. 4."""
    names = {f"recompute-{r}": f"{r} recom-\nputation{'s' * (r != 1)}" for r in (0, 1, 4)}
    bars(
        ax,
        "figure-4",
        names | {"magnitude-global": "global\nmagnitude", "magnitude-layer": "magnitude"},
    )


def rows(ax: Axes) -> None:
    """Table S2, by b and then m."""
    sizes = {
        name: tuple(map(int, re.fullmatch(r"m(\d+)-b(\d+)", name).groups()))
        for name in by_setting("table-S2", RESULTS)[0]
    }
    bars(
        ax,
        "table-S2",
        {
            name: f"m {m}\nb {b}"
            for name, (m, b) in sorted(sizes.items(), key=lambda item: item[1][::-1])
        },
    )


PANELS = {
    "figure-4": (recomputation, "Fig. 4: the Fisher estimated again on the way, m = 100, b = 10"),
    "table-6": (flops, "Table 6: FLOPs-aware statistic, m = 1,000, b = 1"),
    "table-8": (labels, "Table 8: labels of the Fisher, m = 1,000, b = 1"),
    "table-S2": (rows, "Table S2: rows m of b examples each"),
}


def figure() -> Figure:
    """One panel for each that has records."""
    with matplotlib.rc_context(style.RC):
        panels = [panel for folder, panel in PANELS.items() if there(folder)]
        if not panels:
            raise UserError(
                "results",
                ", ".join(PANELS),
                "no such record",
                "run python -m woodfisher.prune --table 6",
            )
        result = Figure(
            figsize=(5.6 * min(2, len(panels)), 3.8 * -(-len(panels) // 2)), layout="constrained"
        )
        axes = list(result.subplots(-(-len(panels) // 2), min(2, len(panels)), squeeze=False).flat)
        for ax, (draw, title) in zip(axes, panels, strict=False):
            draw(ax)
            ax.set_title(title)
        for ax in axes[len(panels) :]:
            ax.remove()
        return result


if __name__ == "__main__":
    sys.exit(save("ablations", figure, __doc__))
