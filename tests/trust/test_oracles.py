"""The table of `make oracles`, asserted: float64 and float32, and that it covers what it says."""

import pytest
import torch

from common.curvature.labels import FISHERS, LOSSES
from common.pruning import obs
from tests import toy
from tests.trust.oracles import Oracle, every, floats

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("one", every(), ids=lambda one: one.name)
def test_formula_equals_its_twin(one, dtype):
    error, where, _ = one.measure(dtype)
    assert error <= one.tolerance(dtype), where


def test_the_table_allows_no_more_than_it_promises():
    assert all(one.double <= 1e-8 and one.single <= 1e-4 for one in every())
    assert len({one.name for one in every()}) == len(every()) >= 40


def test_every_kind_is_among_the_cases():
    """A new Fisher, loss, update or convolution must not slip past the table."""
    parts = [one for one in every() if one.cases.__module__.endswith(("curvature", "updates"))]
    names = " ".join(
        f"{one.name} {case}" for one in parts for case, _, _ in one.cases(torch.float64)
    )
    for word in (
        *FISHERS,
        *LOSSES,
        *obs.UPDATES,
        *toy.CONVOLUTIONS,
        "depthwise",
        "low rank",
        "chunk 4",
    ):
        assert word in names, word


def test_a_wrong_formula_is_seen():
    def off(dtype):
        yield "a", floats(1.0, 2.0, 3.1), floats(1.0, 2.0, 3.0)

    def shape(dtype):
        yield "a", floats(1.0), floats(1.0, 1.0)

    assert Oracle("off", "", off, 1e-8, 1e-4).measure(torch.float64)[0] == pytest.approx(0.1 / 3)
    for bad in (
        shape,
        lambda dtype: iter(()),
        lambda dtype: iter([("zero", floats(0.0), floats(0.0))]),
    ):
        with pytest.raises(AssertionError):
            Oracle("bad", "", bad, 1e-8, 1e-4).measure(torch.float64)
    assert (
        Oracle(
            "nan", "", lambda dtype: iter([("a", floats(float("nan")), floats(1.0))]), 1e-8, 1e-4
        ).measure(torch.float64)[0]
        > 1
    )
