"""Units of coupled channels: what they score, which filters go with them, the network without
them.
"""

import copy
import typing

import pytest
import torch
from torch import nn

from common.cells import registry
from common.cells.errors import UserError
from common.nets.surgery import zero_units
from common.pruning import channels
from tests import toy


class Residual(nn.Module):
    """Two convolutions whose outputs are added, one between them, and a head that reads the sum."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 3, 3, padding=1)
        self.outer = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return self.head((x + self.outer(torch.relu(self.inner(x)))).mean((2, 3)))


def found():
    model = toy.seeded(Residual())
    return model, channels.find(model, toy.batch()[0])


def test_a_unit_scores_the_sum_of_its_filters_and_of_its_columns_where_they_count():
    _, units = found()
    assert [(g.name, g.size) for g in units.groups] == [("stem", 4), ("inner", 3)]
    filters = {
        "stem": torch.tensor([1.0, 2, 3, 4]).double(),
        "outer": torch.tensor([10.0, 20, 30, 40]).double(),
        "inner": torch.tensor([5.0, 6, 7]).double(),
    }
    columns = {"head": torch.tensor([100.0, 200, 300, 400]).double()}
    alone = units.scores(filters)
    assert alone["stem"].tolist() == [11, 22, 33, 44] and alone["inner"].tolist() == [5, 6, 7]
    both = units.scores(filters, columns)
    assert both["stem"].tolist() == [111, 222, 333, 444] and both["inner"].tolist() == [5, 6, 7]
    nothing = units.scores({"inner": filters["inner"]})
    assert nothing["stem"].tolist() == [0] * 4 and nothing["stem"].dtype == torch.float64


def test_filters_of_all_producers_go_and_what_is_left_computes_what_zeros_do():
    model, units = found()
    kept = {
        "stem": torch.tensor([True, False, True, True]),
        "inner": torch.tensor([False, True, True]),
    }
    gone = {
        name: lost.nonzero().flatten().tolist() for name, lost in units.filters_gone(kept).items()
    }
    assert gone == {"stem": [1], "outer": [1], "inner": [0]}
    smaller, zeroed, x = copy.deepcopy(model), copy.deepcopy(model), toy.batch()[0]
    edits = units.cut(smaller, kept)
    zero_units(
        zeroed, units.groups, {name: k.nonzero().flatten().tolist() for name, k in kept.items()}
    )
    assert smaller.outer.weight.shape == (3, 2, 3, 3) and smaller.head.in_features == 3
    assert {(e["module"], e["axis"]) for e in edits} >= {("outer", "out"), ("head", "in")}
    torch.testing.assert_close(smaller(x), zeroed(x))


class Added(nn.Module):
    """A branch whose output is added to the network's input."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        return self.head((x + self.outer(torch.relu(self.inner(x)))).mean((2, 3)))


@pytest.mark.parametrize("method", ["c-obd", "kron-obs", "nap-channel", "woodfisher-structured"])
def test_a_layer_whose_channels_meet_the_input_is_named_in_the_notes(method):
    prune = registry.load(method)
    options = typing.get_type_hints(prune)["options"]()
    pruned = prune(toy.seeded(Added()), [toy.batch()], 0.5, options, toy.generator())
    assert "outer: kept whole, its channels meet the network's input" in pruned.notes
    assert pruned.model.outer.out_channels == 2 and pruned.model.inner.out_channels < 4


def test_a_network_without_channels_and_data_without_a_batch_are_refused():
    with pytest.raises(UserError, match="model='Sequential': has no channels that can go"):
        channels.find(nn.Sequential(nn.Flatten(), nn.Linear(50, 3)), torch.zeros(1, 2, 5, 5))
    with pytest.raises(UserError, match="calibration=0: no batch was seen"):
        channels.with_example([])


def test_calibration_that_is_an_iterator_can_be_gone_through_again():
    batches, example = channels.with_example(iter([toy.batch(seed=1), toy.batch(seed=2)]))
    assert torch.equal(example, toy.batch(seed=1)[0]) and len(list(batches)) == 2 == len(
        list(batches)
    )
