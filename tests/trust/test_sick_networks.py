"""Networks with values that are not finite: every registered method says which module, and none
prunes."""

import dataclasses
import typing

import pytest
import torch

from common.cells import registry
from common.cells.errors import NumericalError
from common.nets import checkpoint, models
from tests import toy

pytestmark = pytest.mark.usefixtures("one_thread")


def loader():
    g = toy.generator(3)
    return [(torch.randn(8, 1, 8, 8, generator=g), torch.arange(8) % 10) for _ in range(3)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["conv2.weight", "fc1.bias", "bn2.running_var", "bn1.weight"])
@pytest.mark.parametrize("method", registry.METHODS)
def test_values_that_are_not_finite_are_refused_by_every_method(method, place, value):
    model = models.build("digits_cnn:width=0.25", 10, (1, 8, 8), 0)
    model.state_dict()[place].view(-1)[1] = value
    before = checkpoint.state_hash(model)
    prune = registry.load(method)
    kind = typing.get_type_hints(prune)["options"]
    options = kind(**registry.lookup(method).preset)
    assert dataclasses.is_dataclass(options)
    with pytest.raises(NumericalError, match=f"'{place.partition('.')[0]}'.*not finite"):
        prune(model, loader(), 0.5, options, toy.generator())
    assert checkpoint.state_hash(model) == before
