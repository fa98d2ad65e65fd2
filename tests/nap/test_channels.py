"""Channel-wise NAP: what a channel costs, carried out; its importance written out; the smaller
network.
"""

import copy

import pytest
import torch
from torch import nn

from common.cells.errors import LayerError, UserError
from common.curvature.kron import kron_factors
from common.nets import checkpoint, models
from common.nets import layers as L
from common.nets.flops import costs
from common.nets.surgery import ChannelGroup, Member, channel_groups, narrow
from nap import channels, units
from nap.channels import Options
from tests import toy

SLOW = {"damping": 1e-2, "fisher": "exact", "batch_size": 3}
NETS = {
    "resnet20:width=0.25": (3, 8, 8),
    "resnet20:width=0.25,shortcut=B": (3, 8, 8),
    "vgg16:width=0.0625": (3, 16, 16),
    "mobilenet_v1:width=0.125": (3, 32, 32),
    "lenet5": (1, 28, 28),
}


def build(name):
    model = toy.seeded(models.build(name, 3, NETS[name], 0))
    x, y = toy.batch(4, NETS[name])
    return model, [(x, y)]


@pytest.mark.parametrize("name", NETS)
def test_a_channels_flops_are_what_cutting_it_away_saves(name):
    model, data = build(name)
    groups = channel_groups(model, data[0][0])
    saved = units.saved_macs(model, groups, NETS[name])
    whole = costs(model, NETS[name]).macs
    for group in groups[:3] + groups[-3:]:
        for unit in {0, group.size - 1}:
            smaller = copy.deepcopy(model)
            narrow(smaller, groups, {group.name: [u for u in range(group.size) if u != unit]})
            assert whole - costs(smaller, NETS[name]).macs == saved[group.name][unit], (
                group.name,
                unit,
            )


@pytest.mark.parametrize("sides", ["in", "in+out"])
@pytest.mark.parametrize("normalise", [True, False])
def test_scores_are_importance_over_flops_summed_over_the_virtual_channel(sides, normalise):
    """Written out with explicit inverses, weight by weight, on a network with residual paths."""
    name = "resnet20:width=0.125,shortcut=B"
    # a seed that leaves no layer without a gradient
    model, shape = toy.seeded(models.build(name, 3, (3, 8, 8), 0), 4), (3, 8, 8)
    x, y = toy.batch(8, shape)
    groups = channel_groups(model, x)
    factors = kron_factors(model, [(x, y)], fisher="exact", bias=True)
    importance = {}
    for layer, module in L.prunable(model).items():
        A, G = factors[layer].A[0], factors[layer].G[0]
        a, g = A.trace() / len(A), G.trace() / len(G)
        A = A + (1e-2 * a * g).sqrt() * (a / g).sqrt() * torch.eye(len(A), dtype=torch.float64)
        G = G + (1e-2 * a * g).sqrt() / (a / g).sqrt() * torch.eye(len(G), dtype=torch.float64)
        W = L.joined(module, module.bias is not None)[0]
        inverse = torch.linalg.inv(torch.kron(G, A)).diagonal().reshape(W.shape)
        importance[layer] = W**2 / (2 * inverse)
        if normalise:
            importance[layer] = importance[layer] / importance[layer].sum()
    whole, expected = costs(model, shape).macs, {}
    for group in groups:
        for unit in range(group.size):
            total = 0.0
            for member in group.members:
                if member.module not in importance:
                    continue
                for channel in member.map[unit]:
                    if member.axis == "out":
                        total += float(importance[member.module][channel].sum())
                    elif sides == "in+out":
                        module = model.get_submodule(member.module)
                        block = module.weight[0].numel() // module.weight.shape[1]
                        total += float(
                            importance[member.module][
                                :, channel * block : (channel + 1) * block
                            ].sum()
                        )
            smaller = copy.deepcopy(model)
            narrow(smaller, groups, {group.name: [u for u in range(group.size) if u != unit]})
            expected[group.name, unit] = total / (whole - costs(smaller, shape).macs)
    options = Options(**SLOW, sides=sides, normalise=normalise)
    amount = 0.2
    result = channels.prune(model, [(x, y)], amount, options, toy.generator())
    order = sorted(expected, key=expected.get)
    left, gone = {g.name: g.size for g in groups}, []
    for key in order:  # every layer keeps its best channel
        if len(gone) < round(amount * len(order)) and key != max(
            (k for k in order if k[0] == key[0]), key=expected.get
        ):
            gone.append(key)
            left[key[0]] -= 1
    for group in groups:
        member = next(m for m in group.members if m.axis == "out")
        assert len(result.model.get_submodule(member.module).weight) == sum(
            len(member.map[u]) for u in range(group.size) if (group.name, u) not in gone
        ), group.name
    by_hand = copy.deepcopy(model)
    narrow(
        by_hand,
        groups,
        {g.name: [u for u in range(g.size) if (g.name, u) not in gone] for g in groups},
    )
    plain = channels.prune(
        model,
        [(x, y)],
        amount,
        Options(**SLOW, sides=sides, normalise=normalise, compensate=False),
        toy.generator(),
    )
    torch.testing.assert_close(plain.model(x), by_hand(x))


def test_the_update_is_eq_6_summed_over_the_filters_that_go():
    model = toy.seeded(
        nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(125, 3))
    )
    data = [toy.batch(6)]
    result = channels.prune(model, data, 0.4, Options(**SLOW), toy.generator())
    keep = next(e["keep"] for e in result.edits if e["module"] == "0")
    assert len(keep) == 3
    factors = kron_factors(model, data, {"0": model[0]}, fisher="exact", bias=True)["0"]
    A, G = factors.A[0], factors.G[0]
    a, g = A.trace() / len(A), G.trace() / len(G)
    F = torch.kron(
        G + (1e-2 * a * g).sqrt() / (a / g).sqrt() * torch.eye(5, dtype=torch.float64),
        A + (1e-2 * a * g).sqrt() * (a / g).sqrt() * torch.eye(len(A), dtype=torch.float64),
    )
    inverse, w = torch.linalg.inv(F), L.joined(model[0], True).flatten()
    delta = torch.zeros_like(w)
    for q in range(len(w)):
        if q // len(A) not in keep:
            delta -= w[q] / inverse[q, q] * inverse[:, q]
    expected = (w + delta).reshape(5, -1)[keep]
    torch.testing.assert_close(L.joined(result.model[0], True)[0], expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["resnet20:width=0.25,shortcut=B", "vgg16:width=0.0625", "lenet5"])
def test_the_statistics_of_the_channels_that_are_left_are_carried_over(name):
    model, data = build(name)
    result = channels.prune(model, data, 0.3, Options(**SLOW, compensate=False), toy.generator())
    before = kron_factors(model, data, fisher="exact", bias=True)
    carried = units.carried(before, result.edits, model)
    for layer, module in L.prunable(result.model).items():
        width = module.weight[0].numel() + (module.bias is not None)
        assert carried[layer].A.shape[-1] == width and carried[layer].G.shape[-1] == len(
            module.weight
        )
    # the first layer's inputs are unchanged: its A is, and its DS loses rows and columns
    silent = copy.deepcopy(model)
    first = next(iter(L.prunable(silent)))
    keep = next(
        (e["keep"] for e in result.edits if e["module"] == first and e["axis"] == "out"),
        range(len(before[first].G[0])),
    )
    assert torch.equal(carried[first].A, before[first].A)
    assert torch.equal(carried[first].G[0], before[first].G[0][list(keep)][:, list(keep)])
    second = [
        e
        for e in result.edits
        if e["axis"] == "in" and isinstance(model.get_submodule(e["module"]), nn.Conv2d)
    ][0]
    block = model.get_submodule(second["module"]).weight[0, 0].numel()
    rows = [c * block + k for c in second["keep"] for k in range(block)]
    rows += list(
        range(
            model.get_submodule(second["module"]).weight[0].numel(),
            before[second["module"]].A.shape[-1],
        )
    )
    assert torch.equal(carried[second["module"]].A[0], before[second["module"]].A[0][rows][:, rows])


def test_the_network_is_smaller_saved_and_built_again(tmp_path):
    name = "resnet20:width=0.5"
    model = models.build(name, 3, (3, 16, 16), 0)
    x, y = torch.randn(8, 3, 16, 16), torch.randint(3, (8,))
    result = channels.prune(model, [(x, y)], 0.3, Options(fisher="empirical"), toy.generator())
    assert (
        costs(result.model, (3, 16, 16)).macs < costs(model, (3, 16, 16)).macs and not result.masks
    )
    again = channels.prune(
        result.model,
        [(x, y)],
        0.3,
        Options(fisher="empirical"),
        toy.generator(),
        latent=result.latent,
    )
    edits = result.edits + again.edits
    checkpoint.save(
        tmp_path / "n.safetensors",
        again.model,
        {"model": name, "classes": 3, "input_shape": [3, 16, 16]},
        edits,
    )
    loaded = checkpoint.load(tmp_path / "n.safetensors").model
    assert torch.equal(loaded.eval()(x), again.model.eval()(x))


def test_one_channel_goes_where_the_fraction_is_less_than_one_and_one_of_each_layer_stays():
    model, data = build("lenet5")
    result = channels.prune(model, data, 1e-4, Options(**SLOW), toy.generator())
    assert (
        sum(len(m.weight) for m in L.prunable(model).values())
        - sum(len(m.weight) for m in L.prunable(result.model).values())
        == 1
    )
    result = channels.prune(model, data, 0.99, Options(**SLOW), toy.generator())
    assert all(len(m.weight) >= 1 for m in L.prunable(result.model).values())


def test_a_layer_without_flops_stays_and_the_note_says_so():
    scores, notes = channels.ratio(
        {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([0.0, 1.0])},
        {"a": torch.tensor([4.0, 0.0]), "b": torch.tensor([1.0, 2.0])},
    )
    assert scores["a"].tolist() == [0.25, float("inf")] and scores["b"].tolist() == [0.0, 0.5]
    assert notes == ["a: 1 channels take no FLOPs and stay"]


def test_members_that_disagree_in_width_name_the_layer():
    model, _ = build("lenet5")
    group = ChannelGroup(
        "conv1",
        20,
        [
            Member("conv1", "out", [[i] for i in range(20)]),
            Member("conv2", "in", [[i] for i in range(19)]),
        ],
    )
    with pytest.raises(LayerError, match="conv2.*19 channels where the group of 'conv1' has 20"):
        units.saved_macs(model, [group], (1, 28, 28))


def test_bad_input_is_refused_and_the_model_untouched():
    model, data = build("lenet5")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError, match="masked before"):
        channels.prune(
            model, data, 0.5, Options(), toy.generator(), masks={"conv1.weight": torch.ones(1)}
        )
    with pytest.raises(UserError, match="no batch"):
        channels.prune(model, [], 0.5, Options(), toy.generator())
    with pytest.raises(UserError, match="sides"):
        Options(sides="out")
    with pytest.raises(UserError, match="no channels that can go"):
        channels.prune(model, data, 0.5, Options(skip=("conv1", "conv2", "fc1")), toy.generator())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
