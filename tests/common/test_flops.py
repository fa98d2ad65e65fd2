"""Costs against counts by hand, against published totals and against torch's own counter."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from common.cells.errors import LayerError, UserError
from common.nets import models
from common.nets.flops import costs
from tests import toy

CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)


def on_meta(name: str, classes: int, shape: tuple[int, int, int]) -> nn.Module:
    with torch.device("meta"):
        return models.build(name, classes, shape)


def test_by_hand():
    """[2, 5, 5]: a padded 3x3 conv sees 25 positions, the strided grouped one (valid, 3x3) 4, the
    linear layer 1.
    """
    cost = costs(toy.small_net(), (2, 5, 5))
    assert [(c.name, c.params, c.macs) for c in cost.layers] == [
        ("0", 72, 1800),
        ("3", 72, 288),
        ("6", 48, 48),
    ]
    assert (cost.params, cost.kept_params, cost.macs, cost.nonzero_macs) == (192, 192, 2136, 2136)
    # BatchNorm's two vectors, the second conv's and the linear layer's bias
    assert cost.model_params == 192 + 8 + 4 + 3


def test_zeros_and_masks_are_counted():
    model = toy.small_net()
    with torch.no_grad():
        model[0].weight[0] = 0
    cost = costs(model, (2, 5, 5))
    assert (cost.kept_params, cost.nonzero_macs, cost.macs) == (192 - 18, 2136 - 18 * 25, 2136)
    mask = torch.ones(3, 16, dtype=torch.bool)
    mask[:, :10] = False
    cost = costs(model, (2, 5, 5), {"6.weight": mask, "6.bias": torch.ones(3, dtype=torch.bool)})
    assert [c.nonzero for c in cost.layers] == [54, 72, 18]
    model[6].weight.data.zero_()  # a mask, where there is one, decides alone
    assert costs(model, (2, 5, 5), {"6.weight": mask}).layers[2].nonzero == 18


class Twice(nn.Module):
    """One convolution at two resolutions, and one that is never called."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.idle = (
            nn.Conv2d(3, 3, 3, padding=1),
            nn.MaxPool2d(2),
            nn.Linear(4, 4),
        )

    def forward(self, x):
        return self.conv(self.pool(self.conv(x)))


def test_a_layer_called_twice_costs_twice():
    cost = costs(Twice(), (3, 8, 8))
    assert [(c.name, c.params, c.macs) for c in cost.layers] == [
        ("conv", 81, 81 * (64 + 16)),
        ("idle", 16, 0),
    ]


def test_linear_over_a_sequence_counts_every_row():
    assert costs(nn.Sequential(nn.Flatten(2), nn.Linear(16, 5)), (3, 4, 4)).macs == 3 * 16 * 5


@pytest.mark.parametrize(
    ("name", "classes", "shape", "macs"),
    [
        ("vgg16", 1000, IMAGENET, 15_470_264_320),
        ("resnet50", 1000, IMAGENET, 4_089_184_256),
        ("mobilenet_v1", 1000, IMAGENET, 568_740_352),
        ("alexnet", 1000, IMAGENET, 714_188_480),
        ("vgg19", 10, CIFAR, 398_131_200 + 5_120),
        ("resnet32:width=4,shortcut=B", 10, CIFAR, 1_100_677_120 + 2_560),
        ("resnet20", 10, CIFAR, 40_551_040),
        ("lenet5", 10, (1, 28, 28), 2_293_000),
        ("lenet300", 10, (1, 28, 28), 266_200),
    ],
)
def test_published_totals(name, classes, shape, macs):
    assert costs(on_meta(name, classes, shape), shape).macs == macs


@pytest.mark.parametrize(
    ("name", "shape"),
    [("resnet20", CIFAR), ("mobilenet_v1:width=0.25", CIFAR), ("digits_cnn", (1, 8, 8))],
)
def test_agrees_with_torch(name, shape):
    model = models.build(name, 10, shape, 0).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *shape))
    assert counter.get_total_flops() == 2 * costs(model, shape).macs


def test_leaves_the_model_as_it_was():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(72, 3)
    ).train()
    model[1].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    costs(model, (1, 8, 8))
    with pytest.raises(UserError, match=r"no batch of one example of shape \(1, 9, 9\)"):
        costs(model, (1, 9, 9))
    assert [m.training for m in model.modules()] == [True, True, False, True, True, True]
    assert not any(m._forward_hooks for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_refuses_masks_that_do_not_fit_and_tied_layers():
    model = toy.small_net()
    with pytest.raises(UserError, match="no such parameter"):
        costs(model, (2, 5, 5), {"7.weight": torch.ones(1)})
    with pytest.raises(UserError, match="shape"):
        costs(model, (2, 5, 5), {"6.weight": torch.ones(3, 15)})
    tied = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 4))
    tied[2].weight = tied[1].weight
    with pytest.raises(LayerError, match="shares"):
        costs(tied, (1, 2, 2))
