"""NN Slimming: one threshold over all |γ|, what follows a channel goes with it, and what it cannot
do is said.
"""

import pytest
import torch
from torch import nn

from common.cells.errors import NumericalError, UserError
from common.nets import models
from common.nets.surgery import channel_groups
from eigendamage import nn_slimming
from eigendamage.nn_slimming import Options, prune
from tests import toy


def network(name: str, shape=(1, 16, 16)):
    return toy.seeded(models.build(name, 3, shape, 0))


def test_a_plain_network_keeps_the_largest_scales_of_all():
    """VGG: every unit has one BatchNorm, so the kept channels are those above one threshold on |γ|,
    found by sorting.
    """
    model, data = network("vgg19:width=0.1"), [toy.batch(4, (1, 16, 16))]
    norms = {name: m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    everything = torch.cat([norm.weight.detach().abs() for norm in norms.values()]).sort().values
    threshold = everything[round(0.4 * len(everything))]
    result = prune(model, data, 0.4, Options(cap=1.0), toy.generator())
    for name, norm in norms.items():
        expected = norm.weight.detach()[norm.weight.detach().abs() >= threshold]
        assert torch.equal(result.model.get_submodule(name).weight.detach(), expected)
    assert result.predicted_increase is None and result.edits


def test_a_residual_stream_is_judged_by_the_mean_scale_of_its_readers():
    model, data = network("preresnet29"), [toy.batch(4, (1, 16, 16))]
    (stream,) = [g for g in channel_groups(model, data[0][0]) if g.name == "conv1"]
    readers = [f"layer1.{i}.bn1" for i in range(3)] + ["layer2.0.bn1"]
    expected = torch.stack(
        [model.get_submodule(name).weight.detach().abs() for name in readers]
    ).mean(0)
    torch.testing.assert_close(nn_slimming.importance(model, stream), expected)


def test_layers_without_batchnorm_stay_whole_and_are_named():
    model, data = network("digits_cnn"), [toy.batch(4, (1, 16, 16))]
    result = prune(model, data, 0.6, Options(), toy.generator())
    assert result.model.fc1.out_features == model.fc1.out_features
    assert any("no BatchNorm follows: fc1" in note for note in result.notes)
    assert result.model.bn1.num_features < model.bn1.num_features


def test_a_network_without_batchnorm_is_refused_and_its_variant_is_not():
    data = [toy.batch(4, (1, 16, 16))]
    with pytest.raises(UserError, match="no BatchNorm.*lenet5:bn=1"):
        prune(network("lenet5"), data, 0.5, Options(), toy.generator())
    result = prune(network("lenet5:bn=1"), data, 0.5, Options(), toy.generator())
    assert (
        sum(m.num_features for m in (result.model.bn1, result.model.bn2, result.model.bn3)) == 285
    )
    model = network("lenet5:bn=1")
    model.bn2.weight.data[0] = torch.nan
    with pytest.raises(NumericalError, match="bn2"):
        prune(model, data, 0.5, Options(), toy.generator())
    with pytest.raises(UserError, match="cap"):
        Options(cap=0.0)
