"""A shared Fisher is the one that would be computed, and nothing is shared unless asked for."""

import pytest
import torch

from common.curvature import fisher
from common.curvature.sharing import NOTE, sharing
from common.data.images import Loader
from common.nets import masks as M
from tests import toy
from tests.woodfisher import twin
from woodfisher.ours import Options, prune


@pytest.fixture
def loaders():
    x, y = toy.batch(12, (2, 4, 4))

    class Set(torch.utils.data.Dataset):
        def __getitems__(self, index):
            return x[index], y[index]

        def __len__(self):
            return 12

    data = Set()
    return [
        Loader(data, order, 5)
        for order in (torch.arange(12), torch.arange(12), torch.arange(12).flip(0))
    ]


@pytest.fixture
def estimates(monkeypatch):
    made, real = [], fisher._estimate
    monkeypatch.setattr(fisher, "_estimate", lambda *arguments: made.append(1) or real(*arguments))
    return made


def test_another_amount_or_update_finds_the_fisher_ready(loaders, estimates):
    model = twin.net()
    cases = [(0.3, {}), (0.6, {}), (0.6, {"update": "joint"}), (0.6, {"scope": "layer"})]
    alone = [
        prune(model, loaders[0], amount, Options(**changes), toy.generator())
        for amount, changes in cases
    ]
    assert len(estimates) == 4 and not any(NOTE in result.notes for result in alone)
    with sharing():
        shared = [
            prune(model, loaders[i % 2], amount, Options(**changes), toy.generator())
            for i, (amount, changes) in enumerate(cases)
        ]
    assert len(estimates) == 5
    assert [NOTE in result.notes for result in shared] == [False, True, True, True]
    for a, b in zip(alone, shared):
        assert (
            M.digest(a.masks) == M.digest(b.masks) and a.predicted_increase == b.predicted_increase
        )
        assert all(torch.equal(p, q) for p, q in zip(a.model.parameters(), b.model.parameters()))


@pytest.mark.parametrize("change", ["data", "damping", "weights", "seed", "masks"])
def test_whatever_decides_a_fisher_makes_another(change, loaders, estimates):
    model, options = twin.net(), Options(fisher="sampled")
    with sharing():
        first = prune(model, loaders[0], 0.3, options, toy.generator())
        if change == "weights":
            with torch.no_grad():
                model[0].weight[0] += 1
        if change == "damping":
            options = Options(fisher="sampled", damping=1e-4)
        prune(
            model,
            loaders[2 if change == "data" else 0],
            0.3,
            options,
            toy.generator(1 if change == "seed" else 0),
            first.masks if change == "masks" else None,
        )
    assert len(estimates) == 2
