"""A memory budget is kept: what a method takes in all is forecast, held against the resident memory
of a process of its own, and refused before anything is computed where the budget does not hold it.
"""

import json
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import torch

from common.cells import registry
from common.cells.errors import UserError
from common.curvature import memory
from common.curvature.kron import KronEstimator
from common.nets import checkpoint, models
from common.system import machine
from tests import toy

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("one_thread")


def loader():
    g = toy.generator(3)
    return [(torch.randn(16, 1, 8, 8, generator=g), torch.arange(16) % 10) for _ in range(3)]


@pytest.mark.parametrize("method", registry.METHODS)
def test_every_method_refuses_curvature_that_the_budget_does_not_hold(method):
    model = models.build("digits_cnn:width=0.25", 10, (1, 8, 8), 0)
    before = checkpoint.state_hash(model)
    prune = registry.load(method)
    options = typing.get_type_hints(prune)["options"](**registry.lookup(method).preset)
    with machine.memory_budget(1e-7), pytest.raises(UserError) as caught:
        prune(model, loader(), 0.5, options, toy.generator())
    assert caught.value.field == "memory_budget" and "would take about" in str(caught.value)
    assert "raise --memory-budget" in str(caught.value)
    assert checkpoint.state_hash(model) == before


# a method of each kind of curvature where a layer is wide, where there are several of a size, and
# all of them where kernels unfold
WIDE = (
    "magnitude-layer obd-layer l-obs woodfisher kfac-prune nap c-obs kron-obs kron-obd eigendamage"
)
DEEP = "magnitude-global obd-global l-obs woodfisher kfac-prune nap"
SLOW = ("l-obs-joint", "l-obs-ours", "l-obs-greedy", "woodfisher-structured")
METHODS = {
    "wide": WIDE.split(),
    "deep": DEEP.split(),
    "kernels": [name for name in registry.METHODS if name not in SLOW],
    "convolutions": SLOW,
}
FAST = ("magnitude-layer wide", "kfac-prune wide", "l-obs wide")


@pytest.mark.parametrize(
    ("method", "network"),
    [
        pytest.param(
            method, network, marks=() if f"{method} {network}" in FAST else pytest.mark.slow
        )
        for network, methods in METHODS.items()
        for method in methods
    ],
)
def test_the_peak_of_a_method_stays_within_a_fifth_of_its_budget(method, network):
    """In a process of its own: a budget that just holds the forecast, and one that just does not,
    which costs nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.trust.peak", method, network],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    refused, found = json.loads(done.stdout)
    assert not found["said"] and found["peak"] <= 1.2 * found["forecast"], found
    if registry.lookup(method).curvature == "rows":  # rows go to a file instead
        assert refused["peak"] <= 1.2 * found["forecast"], refused
    else:
        assert refused["said"].startswith("memory_budget="), refused
        # channels are followed, in copies of the network, before their curvature is counted
        assert refused["peak"] <= max(0.3 * found["forecast"], 32), refused


@pytest.mark.parametrize("options", [{}, {"bias": True}, {"channel_only": True}], ids=str)
def test_squares_are_those_of_the_factors(options):
    model = models.build("digits_cnn:width=0.25", 10, (1, 8, 8), 0)
    estimator = KronEstimator(model, fisher="empirical", **options)
    estimator.update(*loader()[0])
    factors = [t for kron in estimator.factors().values() for t in (kron.A, kron.G)]
    sizes = memory.Sizes.of(estimator.layers.values(), **options)
    each = [t.numel() * t.element_size() for t in factors]
    assert sizes.squares == sum(each) and sizes.square == max(each)
    assert sizes.outputs == sum(each[1::2])
    assert sizes.pair == max(map(sum, zip(each[::2], each[1::2], strict=True)))
