"""A memory budget that does not hold a method's curvature: refused before it is computed, with the
network as it was. What a method takes for the work on its curvature is not counted."""

import typing

import pytest
import torch

from common.cells import registry
from common.cells.errors import UserError
from common.curvature.kron import KronEstimator
from common.nets import checkpoint, models
from common.system import machine
from tests import toy

pytestmark = pytest.mark.usefixtures("one_thread")


def loader():
    g = toy.generator(3)
    return [(torch.randn(16, 1, 8, 8, generator=g), torch.arange(16) % 10) for _ in range(3)]


@pytest.mark.parametrize("method", [n for n, entry in registry.METHODS.items() if entry.curvature])
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


@pytest.mark.parametrize("options", [{}, {"bias": True}, {"channel_only": True}], ids=str)
def test_what_factors_are_said_to_take_is_what_they_take_twice(options):
    model = models.build("digits_cnn:width=0.25", 10, (1, 8, 8), 0)
    estimator = KronEstimator(model, fisher="empirical", **options)
    estimator.update(*loader()[0])
    factors = [t for kron in estimator.factors().values() for t in (kron.A, kron.G)]
    assert estimator._bytes() == 2 * sum(t.numel() * t.element_size() for t in factors)
