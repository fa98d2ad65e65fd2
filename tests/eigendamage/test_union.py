"""Independent pruning of residual branches: narrowed = masked, output for output, and the union is
where it belongs.
"""

import copy
import json

import pytest
import torch
from torch import nn

from common.cells.errors import LayerError
from common.nets import layers as L
from common.nets import models
from common.nets.edits import ChannelMap
from common.nets.surgery import apply_edits, channel_groups
from eigendamage import c_obd, kron_obs, union
from eigendamage.filters import FilterOptions
from tests import toy


def network(name, shape=(3, 8, 8)):
    return toy.seeded(models.build(name, 3, shape, 0))


def removal(model, x, share=0.5, seed=0):
    """Filters that go at random, by layer that a group has; at least one of each stays."""
    groups = channel_groups(model, x)
    names = {m.module for group in groups for m in group.members if m.axis == "out"} & set(
        L.prunable(model)
    )
    g, gone = toy.generator(seed), {}
    for name in L.prunable(model):
        if name in names:
            gone[name] = torch.rand(len(model.get_submodule(name).weight), generator=g) < share
            gone[name][int(torch.randint(len(gone[name]), (1,), generator=g))] = False
    return groups, gone


def silence(model, gone):
    """The filters at zero in the whole network, with the BatchNorm that follows each, by name."""
    norm_of = {"conv": "bn", "shortcut.0": "shortcut.1"}
    for name, rows in gone.items():
        conv = model.get_submodule(name)
        conv.weight.data[rows] = 0
        if conv.bias is not None:
            conv.bias.data[rows] = 0
        norm = next(
            (name.replace(a, b) for a, b in norm_of.items() if a in name.split("features.")[-1]),
            None,
        )
        if norm and not isinstance(model, type(models.build("preresnet29", 3, (3, 8, 8)))):
            bn = model.get_submodule(norm)
            for tensor in (bn.weight.data, bn.bias.data, bn.running_mean):
                tensor[rows] = 0


@pytest.mark.parametrize(
    "name", ["resnet20", "resnet20:shortcut=B", "digits_cnn", "vgg19:width=0.1"]
)
def test_the_narrowed_network_is_the_masked_one(name):
    model = network(name, (3, 16, 16))
    x, _ = toy.batch(3, (3, 16, 16))
    groups, gone = removal(model, x)
    masked, narrowed = copy.deepcopy(model), copy.deepcopy(model)
    silence(masked, gone)
    edits = union.cut(narrowed, groups, gone, x)
    torch.testing.assert_close(narrowed(x), masked(x), rtol=1e-9, atol=1e-10)
    again = copy.deepcopy(model)
    apply_edits(again, json.loads(json.dumps(edits)))
    again.load_state_dict(narrowed.state_dict())
    assert torch.equal(again(x), narrowed(x))
    assert any(isinstance(m, ChannelMap) for m in narrowed.modules()) == (
        not name.startswith("vgg")
    )
    for layer, rows in gone.items():  # exactly the filters that stay are there
        module = narrowed.get_submodule(layer)
        while isinstance(module, nn.Sequential):
            module = module.layer
        assert len(module.weight) == int((~rows).sum())


def test_a_preactivation_network_reads_what_was_written_before():
    """PreResNet-29 against masks whose readers' columns are worked out block by block."""
    model = network("preresnet29")
    x, _ = toy.batch(3, (3, 8, 8))
    groups, gone = removal(model, x, share=0.7)
    masked, narrowed = copy.deepcopy(model), copy.deepcopy(model)
    stream = ~gone["conv1"]
    for name, rows in gone.items():
        conv = masked.get_submodule(name)
        conv.weight.data[rows] = 0
    for stage in (1, 2, 3):
        for block in range(3):
            prefix = f"layer{stage}.{block}"
            inner = masked.get_submodule(prefix)
            inner.conv1.weight.data[:, ~stream] = 0
            for norm, conv in ((inner.bn2, f"{prefix}.conv1"), (inner.bn3, f"{prefix}.conv2")):
                for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
                    tensor[gone[conv]] = 0
            if isinstance(inner.downsample, nn.Conv2d):
                stream = ~gone[f"{prefix}.downsample"]
            stream = stream | ~gone[f"{prefix}.conv3"]
    masked.linear.weight.data[:, ~stream] = 0
    union.cut(narrowed, groups, gone, x)
    torch.testing.assert_close(narrowed(x), masked(x), rtol=1e-9, atol=1e-10)
    before = sum(
        isinstance(m, nn.Sequential) and list(dict(m.named_children())) == ["map", "layer"]
        for m in narrowed.modules()
    )
    assert before > 0


@pytest.mark.parametrize("prune", [c_obd.prune, kron_obs.prune])
def test_every_layer_loses_its_own_filters(prune):
    """Through a criterion: one percentile over all filters, none coupled, and fewer weights kept
    where branches disagree.
    """
    model, data = network("resnet20"), [toy.batch(16, (3, 8, 8))]
    options = (FilterOptions if prune is c_obd.prune else kron_obs.Options)(
        coupling="union", cap=1.0
    )
    result = prune(model, data, 0.5, options, toy.generator())
    convolutions = {
        name: m for name, m in L.prunable(result.model).items() if isinstance(m, nn.Conv2d)
    }
    total = sum(len(m.weight) for m in L.prunable(model).values()) - 3
    assert sum(len(m.weight) for m in convolutions.values()) == total - round(0.5 * total)
    assert torch.isfinite(result.model(data[0][0])).all() and result.predicted_increase > 0


def test_a_grouped_convolution_is_refused_by_name():
    model, x = network("mobilenet_v1:width=0.25", (3, 32, 32)), toy.batch(1, (3, 32, 32))[0]
    groups, gone = removal(model, x)
    with pytest.raises(LayerError, match="grouped"):
        union.cut(model, groups, gone, x)


@pytest.mark.parametrize("name", ["resnet20", "resnet20:shortcut=B", "preresnet29"])
def test_what_is_cut_again_is_what_would_be_cut_at_once(name):
    """Three rounds, each of them of what is left: the same network, output for output, as one cut
    of all that went; replayable.
    """
    model = network(name, (3, 16, 16))
    x, _ = toy.batch(3, (3, 16, 16))
    groups, total = removal(model, x, share=0.75)
    g, narrowed, edits = toy.generator(1), copy.deepcopy(model), []
    rounds = {layer: torch.randint(3, rows.shape, generator=g) for layer, rows in total.items()}
    for number in range(3):
        wide = copy.deepcopy(narrowed)
        union.widen(wide, x)
        torch.testing.assert_close(wide(x), narrowed(x), rtol=1e-9, atol=1e-10)
        assert not any(isinstance(m, ChannelMap) for m in wide.modules())
        left = {layer: ~(rows & (rounds[layer] < number)) for layer, rows in total.items()}
        now = {
            layer: (rows & (rounds[layer] == number))[left[layer]] for layer, rows in total.items()
        }
        edits += union.cut(narrowed, channel_groups(wide, x), now, x)
    once = copy.deepcopy(model)
    union.cut(once, groups, total, x)
    torch.testing.assert_close(narrowed(x), once(x), rtol=1e-9, atol=1e-10)
    assert sum(p.numel() for p in narrowed.parameters()) == sum(
        p.numel() for p in once.parameters()
    )
    again = copy.deepcopy(model)
    apply_edits(again, json.loads(json.dumps(edits)))
    again.load_state_dict(narrowed.state_dict())
    assert torch.equal(again(x), narrowed(x))


@pytest.mark.parametrize("prune", [c_obd.prune, kron_obs.prune])
def test_a_criterion_prunes_again_at_most_half_of_each_layer(prune):
    """Twice half of what is left: filters are counted among those that are left, and the result is
    what its maps say.
    """
    model, data = network("resnet20"), [toy.batch(16, (3, 8, 8))]
    options = (FilterOptions if prune is c_obd.prune else kron_obs.Options)(
        coupling="union", cap=0.5
    )
    first = prune(model, data, 0.5, options, toy.generator())
    second = prune(first.model, data, 0.5, options, toy.generator())

    def filters(net):
        return {
            name: len(net.get_submodule(union.inner(net, name)).weight)
            for name in L.prunable(model)
            if name != "linear"
        }

    zero, one, two = filters(model), filters(first.model), filters(second.model)
    assert all(two[name] >= one[name] - one[name] // 2 >= zero[name] // 4 for name in zero)
    assert sum(two.values()) <= 0.7 * sum(one.values())  # half, but for the cap
    again = network("resnet20")
    apply_edits(again, first.edits + second.edits)
    again.load_state_dict(second.model.state_dict())
    assert (
        torch.equal(again(data[0][0]), second.model(data[0][0])) and second.predicted_increase > 0
    )
