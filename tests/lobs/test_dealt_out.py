"""Layers under torchrun: every one is some process's alone, and all end with the network of one
process.
"""

import copy
import threading

import pytest
import torch

from common.system import distributed
from lobs import hessian, ours
from lobs.ours import Options, prune
from tests import toy
from tests.lobs.test_method import data, mlp

OPTIONS = [
    Options(),
    Options(inputs="pruned", update="joint"),
    Options(scope="global", update="joint"),
    Options(scope="global", update="joint", weigh=True, rescore=2, inputs="pruned"),
    Options(scope="global", weigh=True, prune_bias=True),
]


@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
@pytest.mark.parametrize("world", [2, 5])  # fewer processes than layers, and more
def test_each_layer_is_done_by_one_process(options, world, monkeypatch):
    """Processes are threads here, which meet wherever the code brings together what they know."""
    model, loader = mlp((6, 5, 7, 4, 3)), data(shape=(6,))
    alone = prune(model, loader, 0.6, options, toy.generator())
    here, meet, parts, results, seen = (
        threading.local(),
        threading.Barrier(world, timeout=30),
        {},
        {},
        {},
    )

    def gathered(mine, names):
        parts[here.rank] = mine
        meet.wait()
        merged = {name: value for part in parts.values() for name, value in part.items()}
        assert sum(map(len, parts.values())) == len(merged)
        meet.wait()
        return {name: merged[name] for name in names}

    def statistics(model, loader, layers, *rest, **how):
        seen[here.rank] = seen.get(here.rank, set()) | set(layers)
        return real(model, loader, layers, *rest, **how)

    def process(rank):
        here.rank = rank
        results[rank] = prune(copy.deepcopy(model), loader, 0.6, options, toy.generator())

    real = hessian.statistics_of
    monkeypatch.setattr(distributed, "rank", lambda: here.rank)
    monkeypatch.setattr(distributed, "world", lambda: world)
    monkeypatch.setattr(distributed, "gathered", gathered)
    for module in (hessian, ours):  # the two that call it
        monkeypatch.setattr(module, "statistics_of", statistics)
    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == world and sum(map(len, seen.values())) == 4 == len(
        set().union(*seen.values())
    )
    for result in results.values():
        assert (
            list(result.masks) == list(alone.masks)
            and result.layers == alone.layers
            and result.notes == alone.notes
        )
        assert all(torch.equal(result.masks[name], mask) for name, mask in alone.masks.items())
        assert all(
            map(torch.equal, result.model.state_dict().values(), alone.model.state_dict().values())
        )
