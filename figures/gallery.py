"""The gallery's entries: every table and figure of the four papers (gallery.toml), with what the
committed records say of each.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from common.cells.errors import UserError, choose
from common.cells.library import read_all
from common.cells.record import Record
from common.cells.spec import Spec
from figures.cells import groups, runs, verb
from figures.draw import sheets
from figures.records import core_seconds, number
from figures.values import PAPERS, ROOT

SOURCE = Path(__file__).with_name("gallery.toml")
KINDS = ("table", "figure", "example", "theorem", "drawing", "ours")
DRAWING, UNBUILT, WAITING = "a drawing, nothing to measure", "not built", "not run"
DATASETS = {
    "cifar10-jpeg": "CIFAR-10 (JPEG)",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "mnist": "MNIST",
    "imagenet": "ImageNet",
    "tiny-imagenet": "Tiny-ImageNet",
    "digits": "digits",
}


@dataclass(frozen=True)
class Item:
    """One table or figure. Empty `groups` means the cells of its own label; `results` are other
    committed outputs, at `scale`.
    """

    paper: str
    label: str
    kind: str
    title: str
    groups: tuple[str, ...] = ()
    cells: str = ""  # only the cells whose name has this
    results: tuple[str, ...] = ()
    scale: str = "cpu"
    run: tuple[str, ...] = ()  # commands besides those of the cells
    draw: tuple[str, ...] = ()  # keys of the paper's sheets, found by name where empty
    cost: str = ""  # of what nobody has run, an estimate
    deviations: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Unique, and fit for an address: lobs-table-1."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.paper}-{self.label}".lower())

    @property
    def labels(self) -> list[str]:
        """The groups of cells that it rests on."""
        return [label for label in self.groups or (self.label,) if label in groups(self.paper)]

    @property
    def specs(self) -> list[Spec]:
        return [
            spec
            for label in self.labels
            for name, spec in groups(self.paper)[label].items()
            if self.cells in name
        ]

    @property
    def commands(self) -> list[str]:
        """How to make it: cells at cpu scale first, then its other commands, then the paper's own
        scale.
        """
        out = {}
        for scale in ("cpu", "quick", "paper"):
            for label in self.labels:
                mine = [
                    s
                    for n, s in groups(self.paper)[label].items()
                    if self.cells in n and s.scale == scale
                ]
                if mine and not (scale == "quick" and any(s.scale == "cpu" for s in self.specs)):
                    kind, _, short = label.partition(" ")
                    what = f" --cell {self.cells}" if self.cells else ""
                    tuned = "finetune" if any(verb(s) == "finetune" for s in mine) else "prune"
                    out[
                        f"python -m {self.paper}.{tuned} --{kind.lower()} {short}{what} --scale "
                        f"{scale}"
                    ] = scale
            if scale == "cpu":
                out |= dict.fromkeys(self.run, "run")
        return list(out)

    @property
    def pictures(self) -> list[str]:
        """Keys of the sheets that draw it."""
        own = self.label.replace("Figure ", "").replace("Table ", "table")
        return [key for key in self.draw or (own,) if key in sheets(self.paper)]


@dataclass(frozen=True)
class State:
    """What is committed of an item: how many of its cells ran at each scale, which other outputs
    exist, and what that cost: processor seconds of the `timed` records whose machine was idle.
    """

    ran: Counter
    asked: Counter
    outputs: tuple[str, ...]
    timed: int
    seconds: float
    memory: float  # MB, the largest
    records: tuple[Record, ...]

    def words(self, item: Item) -> str:
        """What ran, and no more than that: at which scale, all of its cells or a part. What was
        seen is evidence.seen's.
        """
        if item.kind == "drawing":
            return DRAWING
        if (
            item.scale == "paper"
            and self.outputs
            or self.asked["paper"]
            and self.ran["paper"] == self.asked["paper"]
        ):
            return "paper scale"
        for scale in ("paper", "cpu", "quick"):
            if (
                self.ran[scale]
                and self.ran[scale] == self.asked[scale]
                and len(self.outputs) == len(item.results)
            ):
                return f"{scale} scale"
            if self.ran[scale]:
                return f"{scale} scale, in part"
        if self.outputs:
            return (
                f"{item.scale} scale"
                if len(self.outputs) == len(item.results)
                else f"{item.scale} scale, in part"
            )
        return WAITING if item.commands else UNBUILT

    def networks(self, item: Item) -> str:
        """On what it ran and, where the paper's own cells have others, for what that stands:
        "resnet20, CIFAR-10 (JPEG) for resnet50, ImageNet"; "" where nothing ran."""
        ours = _networks(record.spec for record in self.records if isinstance(record.spec, dict))
        theirs = _networks(
            {"model": s.model, "dataset": s.dataset} for s in item.specs if s.scale == "paper"
        )
        if not ours or not theirs or ours == theirs:
            return "; ".join(ours)
        return f"{'; '.join(ours)} for {'; '.join(theirs)}"

    def detail(self) -> str:
        """ "40 of 62 cells at cpu scale; 0 of 120 at paper scale"."""
        return "; ".join(
            f"{self.ran[scale]} of {self.asked[scale]} cells at {scale} scale"
            for scale in ("cpu", "quick", "paper")
            if self.asked[scale]
        )


def _networks(specs: Iterable[Mapping]) -> list[str]:
    """ "resnet20, CIFAR-10 (JPEG)" of each network and data set, once each, without their
    options.
    """
    found = []
    for spec in specs:
        model, dataset = (
            str(spec.get(name, "")).partition(":")[0] for name in ("model", "dataset")
        )
        words = f"{model}, {DATASETS.get(dataset, dataset)}"
        if model and words not in found:
            found.append(words)
    return sorted(found)


@functools.cache
def items(source: Path = SOURCE) -> tuple[Item, ...]:
    """The entries in the file's order; UserError names an entry that cannot be used."""
    out = []
    for entry in tomllib.loads(source.read_text(encoding="utf-8"))["item"]:
        what = f"{entry.get('paper')} {entry.get('label')}"
        choose("paper", entry.get("paper", ""), PAPERS)
        choose("kind", entry.get("kind", ""), KINDS)
        try:
            item = Item(
                **{
                    name: tuple(value) if isinstance(value, list) else value
                    for name, value in entry.items()
                }
            )
        except TypeError as error:
            raise UserError(
                "gallery.toml", what, str(error), "see figures/gallery.py: Item"
            ) from None
        if any(item.key == other.key for other in out):
            raise UserError("gallery.toml", what, "stands there twice")
        out.append(item)
    return tuple(out)


def headlines(source: Path = SOURCE) -> list[dict[str, str]]:
    """The rows that stand for each paper: what, paper, table, cell (as `figures.cells.Ours.name`),
    quantity.
    """
    return tomllib.loads(source.read_text(encoding="utf-8")).get("headline", [])


def state(item: Item, root: Path = ROOT) -> State:
    """Read off the committed records."""
    ran, asked, records = Counter(), Counter(), []
    for spec in item.specs:
        asked[spec.scale] += 1
        if found := runs(spec, root):
            needed = verb(spec)
            ran[spec.scale] += any(needed in stages for stages in found.values())
            records += [record for stages in found.values() for record in stages.values()]
    folder = root / item.paper / "results"
    committed = {f"{record.cell}.json" for record in read_all(folder)}
    committed |= {path.name for path in folder.glob("*.json")}
    outputs = tuple(
        name for name in item.results if any(fnmatchcase(known, name) for known in committed)
    )
    peak = max((number(record.timing.get("peak_rss_mb")) or 0 for record in records), default=0)
    spent = [one for one in map(core_seconds, records) if one is not None]
    return State(ran, asked, outputs, len(spent), sum(spent), peak, tuple(records))
