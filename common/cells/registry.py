"""Which methods exist. Strings only: looking a method up imports its package, listing them imports
nothing.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from common.cells.errors import choose


@dataclass(frozen=True)
class Method:
    """`function` is "module:name" of a prune(model, calibration, amount, options, generator) ->
    Pruned; `preset` holds the options that make the entry what its label says. `training`,
    "module:name" too, is for a method that goes on while the network is fine-tuned: (Pruned,
    options) -> callback of common.running.train.fit with `masks` and `latent`. `statistics`, also
    "module:name", is for one that watches the fine-tuning between two of its prunings: (Pruned,
    options, seed) -> callback with `latent`, which the next pruning is given. `curvature` says what
    it keeps of the layers, for forecasts of memory (common.curvature.memory): rows (gradients),
    kron (two factors a layer and their inverses; kron-kept, the factors afterwards too; kron-bare,
    no inverses), channel (two factors, their eigenbases), moment (of the inputs), diagonal, or
    nothing. `session`,
    "module:name" of a context manager, lets cells inside it that differ in the amount alone share
    their curvature. `own` holds options for networks of one's own, on which the paper's values are
    not known to be safe; they give way to what a person says."""

    function: str
    label: str
    kind: str  # weights | channels | low-rank
    paper: str = "baseline"
    preset: dict = field(default_factory=dict)
    training: str = ""
    statistics: str = ""
    curvature: str = ""
    session: str = ""
    own: dict = field(default_factory=dict)


# gradient rows of a Fisher where a Spec says neither how many nor of how many examples each
OPEN_ROWS = 100
_ROWS = {"curvature": "rows", "session": "common.curvature.sharing:sharing"}
_LOBS_OURS = {
    "update": "joint",
    "scope": "global",
    "inputs": "pruned",
    "damping": 1e-3,
    "relative": True,
}
METHODS: dict[str, Method] = {
    "random": Method("common.pruning.baselines:random", "Random", "weights"),
    "magnitude-layer": Method(
        "common.pruning.baselines:magnitude",
        "Magnitude, per layer",
        "weights",
        preset={"scope": "layer"},
    ),
    "magnitude-global": Method(
        "common.pruning.baselines:magnitude",
        "Magnitude, global",
        "weights",
        preset={"scope": "global"},
    ),
    "obd-layer": Method(
        "common.pruning.baselines:obd",
        "Diagonal-Fisher OBD, per layer",
        "weights",
        preset={"scope": "layer"},
        curvature="diagonal",
    ),
    "obd-global": Method(
        "common.pruning.baselines:obd",
        "Diagonal-Fisher OBD, global",
        "weights",
        preset={"scope": "global"},
        curvature="diagonal",
    ),
    # lobs.ours with its options left alone is the paper's lobs.method
    "l-obs": Method(
        "lobs.ours:prune",
        "L-OBS",
        "weights",
        "lobs",
        {"update": "triangular", "scope": "layer"},
        curvature="moment",
    ),
    "l-obs-joint": Method(
        "lobs.ours:prune",
        "L-OBS, joint optimum",
        "weights",
        "lobs",
        {"update": "joint", "scope": "layer"},
        curvature="moment",
    ),
    "l-obs-ours": Method(
        "lobs.ours:prune",
        "L-OBS, ours (joint, one budget)",
        "weights",
        "lobs",
        _LOBS_OURS,
        curvature="moment",
    ),
    "l-obs-greedy": Method(
        "lobs.ours:prune",
        "L-OBS, ours (one budget, greedy)",
        "weights",
        "lobs",
        _LOBS_OURS | {"greedy": True},
        curvature="moment",
    ),
    "woodfisher": Method(
        "woodfisher.ours:prune",
        "WoodFisher, global",
        "weights",
        "woodfisher",
        {"scope": "global"},
        **_ROWS,
    ),
    "woodfisher-layer": Method(
        "woodfisher.ours:prune",
        "WoodFisher, per layer",
        "weights",
        "woodfisher",
        {"scope": "layer"},
        **_ROWS,
    ),
    "woodfisher-flops": Method(
        "woodfisher.flops_aware:prune", "WoodFisher, FLOPs-aware", "weights", "woodfisher", **_ROWS
    ),
    "woodtaylor": Method(
        "woodfisher.woodtaylor:prune",
        "WoodTaylor",
        "weights",
        "woodfisher",
        {"scope": "global"},
        own={"trust": 0.5},
        **_ROWS,
    ),
    "kfac-prune": Method(
        "woodfisher.kfac:prune",
        "K-FAC pruning",
        "weights",
        "woodfisher",
        {"scope": "global"},
        curvature="kron",
    ),
    "woodfisher-structured": Method(
        "woodfisher.channels:prune", "WoodFisher, structured", "channels", "woodfisher", **_ROWS
    ),
    "dpf": Method(
        "woodfisher.dpf:prune",
        "DPF",
        "weights",
        preset={"scope": "global"},
        training="woodfisher.dpf:training",
    ),
    "cp": Method("eigendamage.cp:prune", "CP-decomposition", "low-rank", "eigendamage"),
    "nn-slimming": Method(
        "eigendamage.nn_slimming:prune", "NN Slimming", "channels", "eigendamage"
    ),
    "nap": Method(
        "nap.method:prune",
        "NAP",
        "weights",
        "nap",
        statistics="nap.statistics:Statistics",
        curvature="kron-kept",
    ),
    "nap-channel": Method(
        "nap.channels:prune",
        "NAP, channels",
        "channels",
        "nap",
        statistics="nap.statistics:Statistics",
        curvature="kron-kept",
    ),
    "c-obd": Method(
        "eigendamage.c_obd:prune", "C-OBD", "channels", "eigendamage", curvature="diagonal"
    ),
    "c-obs": Method(
        "eigendamage.c_obs:prune", "C-OBS", "channels", "eigendamage", curvature="kron"
    ),
    "kron-obd": Method(
        "eigendamage.kron_obd:prune", "Kron-OBD", "channels", "eigendamage", curvature="kron-bare"
    ),
    "kron-obs": Method(
        "eigendamage.kron_obs:prune", "Kron-OBS", "channels", "eigendamage", curvature="kron"
    ),
    "eigendamage": Method(
        "eigendamage.ours:prune", "EigenDamage", "low-rank", "eigendamage", curvature="channel"
    ),
}


def lookup(name: str) -> Method:
    """The entry called `name`; unknown names raise UserError with the list."""
    return METHODS[choose("method", name, METHODS)]


def load(name: str) -> Callable:
    """Import a method's prune function; its `options` parameter is annotated with the method's
    frozen Options dataclass.
    """
    return imported(lookup(name).function)


def load_training(name: str) -> Callable | None:
    """Import what a method does while the network is fine-tuned; None for the usual, its masks
    held.
    """
    return imported(lookup(name).training) if lookup(name).training else None


def load_statistics(name: str) -> Callable | None:
    """Import what a method watches the network with between its prunings; None for one that does
    not.
    """
    return imported(lookup(name).statistics) if lookup(name).statistics else None


@contextlib.contextmanager
def sessions(names: Iterable[str]) -> Iterator[None]:
    """Inside, cells of these methods share their curvature where a method can."""
    with contextlib.ExitStack() as stack:
        for place in dict.fromkeys(lookup(name).session for name in names):
            if place:
                stack.enter_context(imported(place)())
        yield


def imported(place: str) -> Callable:
    """What "module:name" names."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)
