"""CP-decomposition: exact where the kernel has that rank, no worse than what the mean's SVD starts
from, and what becomes of a network.
"""

import copy

import pytest
import torch
from torch import nn

from common.cells.errors import LayerError, UserError
from common.nets import models
from common.nets.surgery import apply_edits
from eigendamage.bottleneck import is_bottleneck
from eigendamage.cp import Options, prune
from eigendamage.depthwise import joined, separate
from tests import toy


def test_a_kernel_of_known_rank_is_found_above_and_below_its_matrix_rank():
    g = toy.generator(4)
    for rank in (2, 6):  # 6 is above min(4, 5)
        W = joined(*(torch.randn(n, rank, generator=g, dtype=torch.float64) for n in (4, 9, 5)))
        fitted = joined(*separate(W, 1000, rank))
        assert float((fitted.detach() - W).norm() / W.norm()) < 1e-2
    W = torch.randn(4, 5, 9, generator=g, dtype=torch.float64)
    errors = [float((joined(*separate(W, 50, rank)) - W).norm()) for rank in (1, 2, 4, 8, 16)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.2 * errors[0]


def test_the_network_computes_the_decomposed_kernels_and_its_edits_rebuild_it():
    model = toy.seeded(models.build("digits_cnn", 3, (1, 8, 8), 0))
    x, _ = toy.batch(4, (1, 8, 8))
    result = prune(model, [], 0.0, Options(rank=0.5), toy.generator())
    twin = copy.deepcopy(model)
    for name, module in result.model.named_modules():
        if is_bottleneck(module):
            W = model.get_submodule(name).weight.detach()
            rank = max(1, round(0.5 * min(W.shape[:2])))
            assert (
                module.core.groups
                == module.core.out_channels
                == result.layers[name]["rank"]
                == rank
            )
            last, core, first = (
                module.last.weight[..., 0, 0],
                module.core.weight[:, 0],
                module.first.weight[..., 0, 0],
            )
            fitted = torch.einsum("oq,qhw,qi->oihw", last, core, first)
            assert float((fitted.detach() - W).norm() / W.norm()) == pytest.approx(
                result.layers[name]["relative_error"], abs=1e-6
            )
            twin.get_submodule(name).weight.data.copy_(fitted)
    assert set(result.layers) == {"conv1", "conv2", "conv3", "conv4"}
    torch.testing.assert_close(result.model(x), twin(x), rtol=1e-8, atol=1e-10)
    again = copy.deepcopy(model)
    apply_edits(again, result.edits)
    again.load_state_dict(result.model.state_dict())
    assert torch.equal(again(x), result.model(x))


def test_ranks_are_relative_or_absolute_and_a_larger_layer_stays():
    weight = torch.empty(8, 6, 3, 3)
    assert [Options(rank=r).of(weight, 0.0) for r in (0.01, 0.5, 2.0)] == [1, 3, 12]
    assert [Options(rank=r, absolute=True).of(weight, 0.0) for r in (4, 512)] == [4, 6]
    assert Options().of(weight, 0.5) == 3
    model = toy.seeded(models.build("digits_cnn", 3, (1, 8, 8), 0))
    result = prune(model, [], 0.0, Options(rank=9.0), toy.generator())
    assert any(note.startswith("conv2: left dense, rank 144") for note in result.notes)
    assert isinstance(result.model.conv2, nn.Conv2d)


def test_what_cannot_be_decomposed_is_said():
    with pytest.raises(UserError, match="no convolution"):
        prune(models.build("lenet300", 3, (1, 8, 8), 0), [], 0.0, Options(), toy.generator())
    with pytest.raises(LayerError, match="grouped"):
        prune(
            models.build("mobilenet_v1:width=0.25", 3, (1, 8, 8), 0),
            [],
            0.0,
            Options(),
            toy.generator(),
        )
    with pytest.raises(UserError, match="rank"):
        Options(rank=0.0)
    with pytest.raises(UserError, match="outside"):
        prune(models.build("digits_cnn", 3, (1, 8, 8), 0), [], 1.0, Options(), toy.generator())
