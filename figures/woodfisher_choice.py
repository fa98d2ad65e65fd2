"""Does WoodFisher choose other weights than magnitude? Kept weights in common by rows and chunk,
four networks (not in the paper).
"""

import sys
from collections.abc import Iterator

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.woodfisher_cells import NAMES, Line, save, study

STUDY = "choice"
COLOURS = {100: style.GREY, 400: style.ORANGE, 1000: style.BLUE}
MARKS = {"layer": ("o", "-"), 2000: ("s", "--"), 100: ("^", ":")}
NETWORKS = ("digits_cnn", "lenet300", "lenet5", "resnet20")


def settings(entries: list[dict]) -> Iterator[tuple[tuple[int, int, object], list[dict]]]:
    """((m, b, c), the entries of it by amount), in the study's order."""
    for key in dict.fromkeys((e["m"], e["b"], e["chunk"]) for e in entries):
        yield (
            key,
            sorted(
                (e for e in entries if (e["m"], e["b"], e["chunk"]) == key),
                key=lambda e: e["amount"],
            ),
        )


def called(chunk: object) -> str:
    """A chunk in words."""
    return "a block a layer" if chunk == "layer" else f"blocks of {chunk:,}"


def line(m: int, b: int, chunk: object) -> Line:
    """Colour by rows, marker and dashes by chunk."""
    return Line(f"m {m:,}, b {b}, {called(chunk)}", COLOURS[m], *MARKS[chunk])


def draw(ax: Axes, entries: list[dict]) -> None:
    """Intersection over union with global magnitude's kept weights against the fraction removed."""
    for key, points in settings(entries):
        look = line(*key)
        ax.plot(
            [100 * e["amount"] for e in points],
            [100 * e["overlap"] for e in points],
            look.style,
            color=look.colour,
            marker=look.marker,
            label=look.label,
            gid="-".join(map(str, key)),
        )
    ax.set(xlabel="Weights removed [%]", ylim=(0, 103))


def figure() -> Figure:
    """One panel a network, one legend."""
    records = {record.spec["model"]: record for record in study(STUDY) if record.spec["seed"] == 0}
    shown = [network for network in NETWORKS if network in records]
    with matplotlib.rc_context(style.RC):
        result = Figure(figsize=(max(7.6, 3.0 * len(shown)), 4.1), layout="constrained")
        axes = result.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for ax, network in zip(axes, shown, strict=True):
            draw(ax, records[network].trajectory)
            ax.set_title(NAMES.get(network, network))
        axes[0].set_ylabel("Kept by both [% of kept by either]")
        result.legend(
            *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8
        )
        return result


def table() -> str:
    """Markdown: settings down; the overlap's range over the amounts, then accuracies at the amounts
    that have them.
    """
    text = [
        "| network | m | b | blocks | kept by both, % of kept by either | removed: WoodFisher / "
        "global magnitude, % |",
        "|---" * 6 + "|",
    ]
    for record in sorted(study(STUDY), key=lambda r: NETWORKS.index(r.spec["model"])):
        if record.spec["seed"]:
            continue
        for (m, b, chunk), points in settings(record.trajectory):
            shares = [100 * e["overlap"] for e in points]
            told = "; ".join(
                f"{100 * e['amount']:g}%: {100 * e['accuracy']:.1f} / {100 * e['magnitude']:.1f}"
                for e in points
                if "accuracy" in e
            )
            blocks = "a layer" if chunk == "layer" else f"{chunk:,}"
            text.append(
                f"| {NAMES.get(record.spec['model'], record.spec['model'])} | {m:,} | {b} | "
                f"{blocks} | "
                f"{max(shares):.1f} to {min(shares):.1f} | {told} |"
            )
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    sys.exit(save("choice", figure, __doc__, table=table))
