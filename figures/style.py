"""One look per method, the same in every figure: colour by family, marker and line by variant.

The colours are Okabe and Ito's (their yellow left out, too pale on white) and three of Paul Tol's
muted set; no two methods share both colour and marker, so that a figure can also be read in grey.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

from common.cells.registry import METHODS

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PINK, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8A8A8A"
WINE, OLIVE, INDIGO = "#882255", "#8F8F2E", "#332288"

RC = {
    "figure.dpi": 100,
    "savefig.facecolor": "white",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "legend.frameon": False,
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class Look:
    """How a method or a series is drawn and called; `more` goes to matplotlib's Line2D as it is."""

    colour: str
    marker: str
    label: str
    line: str = "-"
    more: dict = field(default_factory=dict, hash=False)

    def artist(self) -> dict:
        """As keywords of Axes.plot, without the label."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.line, **self.more}


LOOKS: dict[str, Look] = {  # the order is the order of legends and tables
    "random": Look(GREY, "x", "Random", ":"),
    "magnitude-layer": Look(BLACK, "s", "Magnitude, per layer", "--"),
    "magnitude-global": Look(BLACK, "o", "Magnitude, global"),
    "obd-layer": Look(ORANGE, "s", "Diagonal-Fisher OBD, per layer", "--"),
    "obd-global": Look(ORANGE, "o", "Diagonal-Fisher OBD, global"),
    "l-obs": Look(GREEN, "^", "L-OBS"),
    "l-obs-joint": Look(GREEN, "D", "L-OBS, joint optimum", "-."),
    "l-obs-ours": Look(WINE, "P", "L-OBS, ours"),
    "l-obs-greedy": Look(WINE, "X", "L-OBS, ours, greedy"),
    "woodfisher": Look(BLUE, "o", "WoodFisher, global"),
    "woodfisher-layer": Look(BLUE, "s", "WoodFisher, per layer", "--"),
    "woodfisher-flops": Look(SKY, "s", "WoodFisher, FLOPs-aware", ":"),
    "dpf": Look(ORANGE, "D", "DPF", "-."),
    "woodtaylor": Look(BLUE, "v", "WoodTaylor", "-."),
    "kfac-prune": Look(PINK, "P", "K-FAC pruning", "--"),
    "nap": Look(VERMILION, "*", "NAP"),
    "net-trim": Look(WINE, "<", "Net-Trim"),
    "dns": Look(SKY, ">", "Dynamic network surgery"),
    "gmp": Look(INDIGO, "h", "Gradual magnitude"),
    "nn-slimming": Look(GREY, "d", "Network slimming", "--"),
    "woodfisher-structured": Look(INDIGO, "D", "WoodFisher, structured", "-."),
    "c-obd": Look(ORANGE, "v", "C-OBD", "--"),
    "c-obs": Look(VERMILION, "^", "C-OBS"),
    "kron-obd": Look(SKY, "v", "Kron-OBD", "--"),
    "kron-obs": Look(BLUE, "^", "Kron-OBS"),
    "eigendamage": Look(GREEN, "*", "EigenDamage"),
    "cp": Look(WINE, "h", "CP-decomposition", ":"),
    "nap-channel": Look(VERMILION, "p", "NAP, channels", "-."),
}
# methods that differ in one choice, for pictures with too many lines for one pair of axes
FAMILIES: dict[str, tuple[str, ...]] = {
    "Baselines": ("random", "magnitude-layer", "magnitude-global", "obd-layer", "obd-global"),
    "L-OBS": ("l-obs", "l-obs-joint", "l-obs-ours", "l-obs-greedy", "net-trim"),
    "WoodFisher": ("woodfisher", "woodfisher-layer", "woodfisher-flops", "woodtaylor", "dpf"),
    "Kronecker factors": ("kfac-prune", "nap"),
    "Whole filters": ("nn-slimming", "c-obd", "c-obs", "woodfisher-structured", "nap-channel"),
    "Kronecker, whole filters": ("kron-obd", "kron-obs"),
    "Eigenbasis and low rank": ("eigendamage", "cp"),
}
# of a method's rows with a setting of their own
PALE = {BLUE: "#8FBFE0", SKY: "#BFE0F5", INDIGO: "#A9A3D6"}
_FALLBACK = [
    (colour, marker)
    for marker in "phH8"
    for colour in (WINE, OLIVE, PINK, SKY, GREY, ORANGE, GREEN, BLUE)
    if (colour, marker) not in {(look.colour, look.marker) for look in LOOKS.values()}
]


def look(method: str) -> Look:
    """The look of a method. The registry's label wins; an unknown method gets the same dotted look
    on every machine.
    """
    known = LOOKS.get(method)
    if method != base(method):
        other = look(base(method))
        return replace(
            other,
            colour=PALE.get(other.colour, GREY),
            label=other.label + method.removeprefix(base(method)),
        )
    if known is None:
        digest = int.from_bytes(
            hashlib.sha256(method.encode("utf-8", "replace")).digest()[:4], "big"
        )
        colour, marker = _FALLBACK[digest % len(_FALLBACK)]
        known = Look(colour, marker, method, ":")
    return replace(known, label=METHODS[method].label) if method in METHODS else known


def rank(method: str) -> tuple[int, str]:
    """Sort key: methods of `LOOKS` in its order, then the others by name."""
    order = list(LOOKS)
    return (order.index(base(method)) if base(method) in LOOKS else len(order), method)


def family(method: str) -> str:
    """The family of a method, "Others" where it has none."""
    return next((name for name, mine in FAMILIES.items() if base(method) in mine), "Others")


def base(method: str) -> str:
    """The registered name of "woodfisher (m 100, b 10)", a method with a setting of its own."""
    return method.partition(" (")[0]


def plain(label: str, longest: int = 42) -> str:
    """A label as matplotlib text: no mathematics, no control characters, no hidden leading
    underscore, not too long.
    """
    label = "".join(c if c.isprintable() else " " for c in label).strip().lstrip("_") or "unnamed"
    label = label if len(label) <= longest else label[: longest - 1] + "…"
    return label.replace("$", r"\$")
