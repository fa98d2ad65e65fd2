"""The papers' gradual and iterative protocols as this repository runs them: what is removed, and at
which rate, by epoch.

    python -m figures.protocols [--output FOLDER]      <paper>/results/protocols.png for every paper

Each panel is one cell of <paper>/experiments.py, resolved as `--dry-run` resolves it
(common/cells/trace.py); nothing is measured.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.cells.errors import Parser, UserError
from common.cells.spec import Spec
from common.cells.trace import points, stops
from figures import style
from figures.cells import groups
from figures.draw import rendered, write_file
from figures.values import ROOT


@dataclass(frozen=True)
class Panel:
    """One cell: its table or figure, its name, and what the panel is called."""

    group: str
    cell: str
    title: str


PANELS: dict[str, tuple[Panel, ...]] = {
    "woodfisher": (
        Panel("Table 1", "resnet50-woodfisher-0.9-seed0", "ResNet-50 to 90%, paper (S1.1)"),
        Panel("Table 4", "mobilenet-woodfisher-0.89-seed0", "MobileNetV1 to 89%, paper (S1.1)"),
    ),
    "lobs": (
        Panel("Table 1", "vgg16-7.5-l-obs-iterative-paper", "VGG-16 to 7.5% kept, paper (4.2)"),
    ),
    "nap": (
        Panel("Table 4", "alexnet-25x-paper", "AlexNet at 25x, paper (App. D)"),
        Panel("Table 1", "vgg16-5.4x-paper", "VGG-16 channels to 5.4x, paper (4.1)"),
    ),
    "eigendamage": (
        Panel("Table 1", "vgg19-cifar10-0.9-eigendamage-seed0", "VGG19 at 90%, paper (5.2)"),
        Panel(
            "Figure 8", "vgg19-cifar10-0.5-eigendamage-seed0", "VGG19, six times 50%, paper (5.3)"
        ),
    ),
}


def spec_of(paper: str, panel: Panel) -> Spec:
    """The panel's cell. Raises UserError for one that the experiments do not have."""
    found = groups(paper).get(panel.group, {}).get(panel.cell)
    if found is None:
        raise UserError(
            "cell",
            f"{paper} {panel.group} {panel.cell}",
            "no such cell",
            "mend PANELS in figures/protocols.py",
        )
    return found


def draw(ax: Axes, spec: Spec, title: str) -> None:
    """What is removed as steps, the learning rate on a second, logarithmic axis."""
    numbers = points(spec)
    end = max((epoch for epoch, _ in numbers["rate"]), default=0.0)
    epochs, removed = zip(*numbers["removed"], strict=True)
    ax.step(
        [0, *epochs, max(end, epochs[-1])],
        [0, *(100 * part for part in removed), 100 * removed[-1]],
        where="post",
        color=style.BLUE,
    )
    if len(epochs) <= 40:
        ax.plot(epochs, [100 * part for part in removed], "o", color=style.BLUE)
    ax.set(title=title, xlabel="Epochs after the dense network", ylim=(0, 100))
    ax.set_ylabel("Removed [%]", color=style.BLUE)
    rates = ax.twinx()
    rates.grid(visible=False)
    rates.spines["right"].set_visible(True)
    if numbers["rate"]:
        rates.plot(
            *zip(*[(epoch, rate) for epoch, rate in numbers["rate"] if rate > 0], strict=True),
            color=style.VERMILION,
            linestyle="--",
        )
    for line in stops(spec):
        ax.text(0.97, 0.06, line, transform=ax.transAxes, ha="right", fontsize=7.5, wrap=True)
    rates.set_yscale("log")
    rates.set_ylabel("Learning rate", color=style.VERMILION)


def figure(paper: str) -> Figure:
    """A row of panels, one a cell."""
    panels = PANELS[paper]
    with matplotlib.rc_context(style.RC):
        fig = Figure(figsize=(4.6 * len(panels), 3.1), layout="constrained")
        axes = fig.subplots(1, len(panels), squeeze=False)[0]
        for ax, panel in zip(axes, panels, strict=True):
            draw(ax, spec_of(paper, panel), panel.title)
    return fig


def main(argv: list[str] | None = None) -> int:
    """Draw every paper's picture; the exit status."""
    parser = Parser(prog="python -m figures.protocols", description=__doc__)
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for <paper>_protocols.png (default: each paper's results)",
    )
    options = parser.parse_args(argv)
    try:
        for paper in PANELS:
            path = (
                options.output / f"{paper}_protocols.png"
                if options.output
                else ROOT / paper / "results" / "protocols.png"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, rendered(figure(paper), "png"))
            print(path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
