"""Structured WoodFisher on coupled channels: scores and directions from explicit matrices, the cut
by slicing weights.
"""

import copy

import pytest
import torch
from torch import nn

from common.cells.errors import UserError
from tests import reference, toy
from tests.woodfisher import twin
from woodfisher import channels, structured


class Branch(nn.Module):
    """a(x) + b(a(x)): channel i of both convolutions is one unit, read by b and by the head."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = (
            nn.Conv2d(2, 5, 3, padding=1, bias=False),
            nn.Conv2d(5, 5, 1),
            nn.Linear(5 * 16, 3),
        )

    def forward(self, x):
        first = torch.tanh(self.a(x))
        return self.head((first + self.b(first)).flatten(1))


@pytest.fixture
def model():
    return toy.seeded(Branch())


def by_hand(model, statistic, chunk, damping, gone_units):
    """(scores of the five units, weights of a and b after the direction that removes `gone_units`,
    ½ δᵀFδ).
    """
    names = ["a", "b"]
    rows = twin.rows(model, 1, names)
    blocks = (
        [torch.cat([rows[n] for n in names], 1)] if chunk == "network" else [rows[n] for n in names]
    )
    F = torch.block_diag(*(reference.damped_fisher(block, damping) for block in blocks))
    inverse, w = torch.linalg.inv(F), twin.weights(model, names)
    filters = {
        "a": torch.arange(5 * 18).reshape(5, -1),
        "b": 5 * 18 + torch.arange(25).reshape(5, -1),
    }
    scores, delta = torch.zeros(5, dtype=torch.float64), torch.zeros_like(w)
    gone = torch.zeros(len(w), dtype=torch.bool)
    for name, unit in ((name, unit) for name in names for unit in range(5)):
        q = filters[name][unit]
        e = torch.zeros_like(w)
        e[q] = 1
        gone[q] |= unit in gone_units
        if statistic == "correlated":
            scores[unit] += (w @ e) ** 2 / (2 * e @ inverse @ e)
            delta -= (unit in gone_units) * (w @ e) / (e @ inverse @ e) * (inverse @ e)
        elif statistic == "sum":
            scores[unit] += sum(w[i] ** 2 / (2 * inverse[i, i]) for i in q.tolist())
        else:
            scores[unit] += reference.constrained_minimum(F, w, e.bool())[1]
    if statistic == "sum":
        delta = reference.summed_single(inverse, w, gone)
    elif statistic == "exact":
        delta = torch.zeros_like(w)
        edges = [0, len(w)] if chunk == "network" else [0, 5 * 18, len(w)]
        for start, stop in zip(edges, edges[1:]):
            part = slice(start, stop)
            delta[part] = reference.constrained_minimum(F[part, part], w[part], gone[part])[0]
    delta = torch.where(gone, -w, delta)
    new = w + delta
    return (
        scores,
        new[:90].reshape(5, 2, 3, 3),
        new[90:].reshape(5, 5, 1, 1),
        0.5 * float(delta @ F @ delta),
    )


@pytest.mark.parametrize("statistic", structured.STATISTICS)
@pytest.mark.parametrize("chunk", [None, "network"])
def test_coupled_filters_go_together(model, statistic, chunk):
    before, data = copy.deepcopy(model.state_dict()), twin.data()
    options = channels.Options(statistic=statistic, chunk=chunk, damping=1e-2, fisher_batch_size=1)
    scores = by_hand(model, statistic, chunk, 1e-2, ())[0]
    lowest = set(scores.argsort()[:2].tolist())
    _, a, b, predicted = by_hand(model, statistic, chunk, 1e-2, lowest)
    result = channels.prune(model, data, 0.4, options, toy.generator())
    kept = [unit for unit in range(5) if unit not in lowest]
    torch.testing.assert_close(result.model.a.weight, a[kept], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(result.model.b.weight, b[kept][:, kept], rtol=1e-8, atol=1e-10)
    assert torch.equal(
        result.model.head.weight, model.head.weight.reshape(3, 5, 16)[:, kept].reshape(3, -1)
    )
    assert torch.equal(result.model.b.bias, model.b.bias[kept]) and result.model(
        data[0][0]
    ).shape == (5, 3)
    assert result.predicted_increase == pytest.approx(predicted, rel=1e-8)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_every_group_keeps_a_unit_and_bad_input_is_refused(model):
    x, y = toy.batch(6, (2, 4, 4))
    assert (
        channels.prune(
            model, [(x, y)], 0.8, channels.Options(scope="layer"), toy.generator()
        ).model.a.out_channels
        == 1
    )
    with pytest.raises(UserError, match="fewer than 1"):
        channels.prune(model, [(x, y)], 0.95, channels.Options(), toy.generator())
    with pytest.raises(UserError, match="masked before"):
        channels.prune(
            model,
            [(x, y)],
            0.5,
            channels.Options(),
            toy.generator(),
            {"a.weight": torch.ones(5, 2, 3, 3, dtype=torch.bool)},
        )
    with pytest.raises(UserError, match="no batch was seen"):
        channels.prune(model, [], 0.5, channels.Options(), toy.generator())
    with pytest.raises(UserError, match="no channels that can go"):
        channels.prune(model, [(x, y)], 0.5, channels.Options(skip=("a", "b")), toy.generator())
