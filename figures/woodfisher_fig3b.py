"""WoodFisher Figs. 3b (= S7) and S8: one-shot ResNet-20 by chunk size, up to a block a layer and
(ours) one over the network.
"""

import sys

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.cells.errors import UserError
from figures import style
from figures.woodfisher_cells import RESULTS, by_setting, save, there

NAMES = {"layer": "a block\na layer", "network": "one block\n(ours)"}
PANELS = {"figure-3b": "joint", "figure-S8": "independent"}
RIVALS = {
    "magnitude-global": ("global magnitude", "--"),
    "magnitude-layer": ("magnitude per layer", ":"),
}


def sizes_of(settings: list[str]) -> list[str]:
    """The chunk sizes among the settings, small to large."""
    sizes = (name.removeprefix("chunk-") for name in settings if name.startswith("chunk-"))
    return sorted(
        sizes,
        key=lambda size: (size == "network", size == "layer", int(size) if size.isdigit() else 0),
    )


def table() -> str:
    """Markdown of both panels."""
    folders = [folder for folder in PANELS if there(folder)]
    sizes = sizes_of(
        sorted({name for folder in folders for name in by_setting(folder, RESULTS)[0]})
    )
    text = [
        "| selection | removed | "
        + " | ".join(NAMES.get(size, size).replace("\n", " ") for size in sizes)
        + " | "
        + " | ".join(name for name, _ in RIVALS.values())
        + " |",
        "|---" * (2 + len(sizes) + len(RIVALS)) + "|",
    ]
    for folder in folders:
        for amount, values in by_setting(folder, RESULTS)[1].items():
            cells = [
                f"{values[name]:.2f}" if name in values else ""
                for name in (*(f"chunk-{size}" for size in sizes), *RIVALS)
            ]
            text.append(f"| {PANELS[folder]} | {100 * amount:g}% | " + " | ".join(cells) + " |")
    return "\n".join(text) + "\n"


def draw(ax: Axes, folder: str, title: str) -> None:
    """Accuracy against chunk size in equal steps, a line an amount."""
    settings, lines = by_setting(folder, RESULTS)
    sizes = sizes_of(settings)
    for (amount, values), colour, marker in zip(
        lines.items(), (style.BLUE, style.VERMILION, style.GREEN), "os^", strict=False
    ):
        ax.plot(
            range(len(sizes)),
            [values[f"chunk-{size}"] for size in sizes],
            color=colour,
            marker=marker,
            label=f"{100 * amount:g}% removed",
            gid=f"{amount:g}",
        )
        for rival, (name, dashes) in RIVALS.items():
            if rival in values:
                ax.axhline(
                    values[rival],
                    color=colour,
                    linewidth=1,
                    linestyle=dashes,
                    label=f"{name.capitalize()}, {100 * amount:g}%",
                )
    ax.set_xticks(range(len(sizes)), [NAMES.get(size, size) for size in sizes])
    ax.set(title=title, xlabel="Chunk size [weights]", ylabel="Test accuracy [%]")


def figure() -> Figure:
    """Joint and independent WoodFisher side by side."""
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(9.4, 3.8), layout="constrained")
        panels = [(folder, title) for folder, title in PANELS.items() if there(folder)]
        if not panels:
            raise UserError(
                "results",
                "figure-3b",
                "no such record",
                "run python -m woodfisher.prune --figure 3b",
            )
        for ax, (folder, title) in zip(
            result.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            draw(ax, folder, f"ResNet-20, one-shot: {title}; m = 1,000, b = 1")
            ax.legend()
        return result


if __name__ == "__main__":
    sys.exit(save("fig3b", figure, __doc__, table=table))
