"""Networks: counts equal the papers' and hand counts, initialisation is seeded, checkpoints fit,
options are checked.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.cells.errors import UserError
from common.data import sources as data
from common.nets.layers import prunable
from common.nets.models import MODELS, build, named
from common.nets.models.parts import PadShortcut

# name, classes, input shape, parameters, prunable weights, MACs
COUNTS = [
    ("digits_cnn", 10, (1, 8, 8), 32_314, 32_016, 386_688),
    ("lenet300", 10, (1, 28, 28), 266_610, 266_200, 266_200),
    ("lenet5", 10, (1, 28, 28), 431_080, 430_500, 2_293_000),
    ("cifarnet", 10, (3, 32, 32), 117_034, 116_704, 10_763_904),
    ("mlpnet", 10, (1, 28, 28), 32_360, 32_360, 32_360),
    ("cifarnet_fc", 10, (3, 32, 32), 50_816, 50_816, 50_816),
    ("vgg19", 10, (3, 32, 32), 20_035_018, 20_024_000, 398_136_320),
    ("vgg19", 100, (3, 32, 32), 20_081_188, 20_070_080, 398_182_400),
    ("vgg19", 200, (3, 64, 64), 20_132_488, 20_121_280, 1_592_627_200),
    ("vgg16", 10, (3, 32, 32), 14_724_042, 14_715_584, 313_201_664),
    ("vgg16", 1000, (3, 224, 224), 138_357_544, 138_344_128, 15_470_264_320),
    ("resnet20", 10, (3, 32, 32), 269_722, 268_336, 40_551_040),
    ("resnet20:shortcut=B", 10, (3, 32, 32), 272_474, 270_896, 40_813_184),
    ("resnet32", 10, (3, 32, 32), 464_154, 461_872, 68_862_592),
    ("resnet32:width=4,shortcut=B", 10, (3, 32, 32), 7_427_914, 7_418_048, 1_100_679_680),
    ("resnet32:width=4,shortcut=B", 100, (3, 32, 32), 7_451_044, 7_441_088, 1_100_702_720),
    ("resnet56", 10, (3, 32, 32), 853_018, 848_944, 125_485_696),
    ("preresnet29:width=4", 10, (3, 32, 32), 2_852_426 - 1_408, 2_842_816, 429_591_040),
    ("preresnet29:width=4", 100, (3, 32, 32), 2_875_556 - 1_408, 2_865_856, 429_614_080),
    ("alexnet", 1000, (3, 224, 224), 61_100_840, 61_090_496, 714_188_480),
    ("mobilenet_v1", 1000, (3, 224, 224), 4_231_976, 4_209_088, 568_740_352),
    ("efficientnet_lite0", 1000, (3, 224, 224), 4_652_008, 4_608_992, 385_187_552),
    ("resnet50", 1000, (3, 224, 224), 25_557_032, 25_502_912, 4_089_184_256),
]


def test_every_model_is_counted():
    assert {name.partition(":")[0] for name, *_ in COUNTS} == set(MODELS)


@pytest.mark.parametrize(("name", "classes", "shape", "parameters", "weights", "macs"), COUNTS)
def test_counts_are_the_stated_ones(name, classes, shape, parameters, weights, macs):
    """On the meta device: sizes without memory or arithmetic. A layer's MACs are its weights times
    its output positions.
    """
    with torch.device("meta"):
        model = build(name, classes, shape).eval()
        counted = []
        for layer in prunable(model).values():
            layer.register_forward_hook(
                lambda m, _, out: counted.append(m.weight.numel() * math.prod(out.shape[2:]))
            )
        output = model(torch.empty(2, *shape))
    assert output.shape == (2, classes)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(layer.weight.numel() for layer in prunable(model).values()) == weights
    assert sum(counted) == macs
    if classes in (10, 1000):
        stated = named(name)[0].__doc__
        assert all(f"{count:,}" in stated for count in (parameters, weights, macs))


def test_woodfisher_and_eigendamage_convolution_weights():
    def convolutions(name):
        return sum(
            m.weight.numel()
            for m in build(name, 10, (3, 32, 32)).modules()
            if isinstance(m, nn.Conv2d)
        )

    assert convolutions("resnet20:shortcut=B") == 270_256
    assert convolutions("resnet32:width=4,shortcut=B") == 7_415_488
    assert convolutions("preresnet29:width=4") == 2_840_256


@pytest.mark.parametrize(("name", "channels"), [("lenet300", 400), ("lenet5", 570)])
def test_batchnorm_is_an_option_that_adds_nothing_else(name, channels):
    """Two numbers a channel; the other weights are drawn as without it, and a fresh one's output
    differs only by ε.
    """
    plain, normed = (
        build(name, 10, (1, 28, 28), 0).eval(),
        build(f"{name}:bn=1", 10, (1, 28, 28), 0).eval(),
    )
    assert (
        sum(p.numel() for p in normed.parameters())
        == sum(p.numel() for p in plain.parameters()) + 2 * channels
    )
    x = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(normed(x), plain(x), rtol=1e-3, atol=1e-4)


SMALL = [
    ("digits_cnn", (1, 8, 8)),
    ("lenet300", (1, 8, 8)),
    ("lenet5", (1, 16, 16)),
    ("cifarnet", (3, 32, 32)),
    ("mlpnet", (1, 8, 8)),
    ("cifarnet_fc", (3, 8, 8)),
    ("vgg19:width=0.1", (3, 16, 16)),
    ("vgg16:width=0.1", (1, 28, 28)),
    ("resnet20", (3, 16, 16)),
    ("resnet20:shortcut=B", (1, 9, 9)),
    ("resnet32:width=0.5", (3, 8, 8)),
    ("resnet56:width=0.5", (3, 8, 8)),
    ("preresnet29", (3, 8, 8)),
    ("mobilenet_v1:width=0.25", (3, 32, 32)),
    ("efficientnet_lite0:width=0.25", (3, 32, 32)),
    ("resnet50", (3, 32, 32)),
]


@pytest.mark.parametrize(("name", "shape"), SMALL)
def test_initialisation_is_decided_by_the_seed_and_leaves_the_global_generator(name, shape):
    state = torch.get_rng_state()
    first, again, other = (build(name, 4, shape, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert all(
        not torch.equal(a.weight, b.weight)
        for a, b in zip(prunable(first).values(), prunable(other).values(), strict=True)
    )


def test_without_a_seed_the_global_generator_decides_and_stays():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    model = build("lenet300", 4, (1, 4, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(
        model.fc1.weight, build("lenet300", 4, (1, 4, 4), generator_seed=5).fc1.weight
    )


@pytest.mark.parametrize(("name", "shape"), SMALL)
def test_every_parameter_gets_a_gradient_and_no_layer_is_reused_or_overwritten(name, shape):
    torch.manual_seed(0)
    model = build(name, 4, shape, 0).eval()
    seen: dict[str, list] = {layer: [] for layer in prunable(model)}
    for layer, module in prunable(model).items():
        module.register_forward_hook(
            lambda _, args, out, layer=layer: seen[layer].append(
                (args[0], args[0]._version, out, out._version)
            )
        )
    F.cross_entropy(model(torch.rand(3, *shape)), torch.tensor([0, 1, 2])).backward()
    for layer, uses in seen.items():
        assert len(uses) == 1, layer
        x, x_version, out, out_version = uses[0]
        assert (x._version, out._version) == (x_version, out_version), layer
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_kaiming_and_preresnet_initialisation():
    model = build("vgg19", 10, (3, 32, 32), 0)
    weight = model.features.conv4_2.weight.detach()  # 512 x 512 x 3 x 3: enough draws for 1%
    assert float(weight.std(correction=0)) == pytest.approx(math.sqrt(2 / (512 * 9)), rel=0.01)
    assert torch.equal(model.features.bn4_2.weight, torch.ones(512))
    assert torch.equal(model.classifier.bias, torch.zeros(10))
    # fan-in 64, fan-out 128 tells the two rules apart
    block = build("preresnet29:width=4", 10, (3, 32, 32), 0).layer2[0]
    assert float(block.conv1.weight.detach().std(correction=0)) == pytest.approx(
        math.sqrt(2 / 128), rel=0.03
    )
    assert float(block.conv2.weight.detach().std(correction=0)) == pytest.approx(
        math.sqrt(2 / (128 * 9)), rel=0.02
    )
    assert torch.equal(block.bn2.weight, torch.full((128,), 0.5))


def test_pad_shortcut_by_hand():
    shortcut = PadShortcut(2, 4, stride=2)
    x = torch.arange(2 * 9.0).view(1, 2, 3, 3) + 1
    expected = torch.zeros(1, 4, 2, 2)
    expected[0, 1] = torch.tensor([[1.0, 3.0], [7.0, 9.0]])
    expected[0, 2] = torch.tensor([[10.0, 12.0], [16.0, 18.0]])
    assert torch.equal(shortcut(x), expected)
    assert shortcut.index.tolist() == [-1, 0, 1, -1]
    assert shortcut.index.dtype == torch.int64
    assert not shortcut.state_dict()
    shortcut.index = torch.tensor([1, -1, 0])  # what surgery does
    assert torch.equal(shortcut(x), expected[:, [2, 0, 1]])


def test_pad_shortcut_gradient_reaches_each_copied_pixel_once():
    x = torch.ones(1, 2, 3, 3, requires_grad=True)
    PadShortcut(2, 6, stride=2)(x).sum().backward()
    assert torch.equal(x.grad, torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 0, 1]]).expand(1, 2, 3, 3))


def test_the_two_shortcuts_differ_where_the_shape_changes_and_nowhere_else():
    plain, projected = (
        build("resnet20", 10, (3, 32, 32)),
        build("resnet20:shortcut=B", 10, (3, 32, 32)),
    )
    kinds = {
        (stage, block): type(getattr(plain, f"layer{stage}")[block].shortcut)
        for stage in (1, 2, 3)
        for block in range(3)
    }
    assert {where for where, kind in kinds.items() if kind is PadShortcut} == {(2, 0), (3, 0)}
    assert all(
        kind is nn.Identity for where, kind in kinds.items() if where not in {(2, 0), (3, 0)}
    )
    convolutions = [name for name in prunable(projected) if "shortcut" in name]
    assert convolutions == ["layer2.0.shortcut.0", "layer3.0.shortcut.0"]
    assert not [name for name in prunable(plain) if "shortcut" in name]


def test_mlps_have_the_stated_biases_and_flatten_their_input():
    for name in ("mlpnet", "cifarnet_fc"):
        assert all(layer.bias is None for layer in prunable(build(name, 10, (1, 8, 8))).values())
    model = build("lenet300", 10, (1, 28, 28), 0)
    assert list(prunable(model)) == ["fc1", "fc2", "fc3"]
    x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    by_hand = F.relu(x.flatten(1) @ model.fc1.weight.T + model.fc1.bias)
    by_hand = (
        F.relu(by_hand @ model.fc2.weight.T + model.fc2.bias) @ model.fc3.weight.T + model.fc3.bias
    )
    assert torch.allclose(model(x), by_hand, atol=1e-6)


@pytest.mark.usefixtures("one_thread")
def test_digits_cnn_learns_the_digits_and_has_little_to_spare():
    """At least 97% after ten epochs, and removing the smallest 90% of its weights is anything but
    free.
    """
    digits, model = data.load("digits"), build("digits_cnn", 10, (1, 8, 8), 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for epoch in range(10):
        for x, y in digits.train_loader(64, seed=epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    model.eval()

    @torch.no_grad()
    def accuracy():
        return sum(int((model(x).argmax(1) == y).sum()) for x, y in digits.test_loader()) / len(
            digits.test
        )

    assert accuracy() >= 0.97
    weights = [layer.weight.data for layer in prunable(model).values()]
    threshold = torch.cat([w.abs().flatten() for w in weights]).quantile(0.9)
    for w in weights:
        w[w.abs() <= threshold] = 0
    assert accuracy() < 0.9


@pytest.mark.parametrize(
    ("name", "classes", "shape", "field", "words"),
    [
        ("resnet19", 10, (3, 32, 32), "model", "resnet20"),
        (
            "resnet20:depth=3",
            10,
            (3, 32, 32),
            "model",
            "unknown option 'depth'; options here: width, shortcut",
        ),
        ("mlpnet:width=2", 10, (1, 28, 28), "model", "options here: none"),
        ("lenet300:bn=2", 10, (1, 28, 28), "model", "must be 0 or 1"),
        ("lenet5:bn=yes", 10, (1, 28, 28), "model", "cannot read bn='yes'"),
        ("resnet20:width=wide", 10, (3, 32, 32), "model", "cannot read width='wide'"),
        ("resnet20:width", 10, (3, 32, 32), "model", "cannot read 'width'"),
        ("resnet20:width=0", 10, (3, 32, 32), "model", "must be above 0"),
        ("vgg19:width=nan", 10, (3, 32, 32), "model", "must be above 0"),
        ("vgg19:width=1e9", 10, (3, 32, 32), "model", "at most 64"),
        ("resnet20:shortcut=C", 10, (3, 32, 32), "model", "shortcut=A, shortcut=B"),
        ("cifarnet:dropout=1", 10, (3, 32, 32), "model", "[0, 1)"),
        ("lenet5", 10, (1, 15, 15), "model", "at least 16x16 pixels, these are 15x15"),
        ("cifarnet", 10, (3, 14, 32), "model", "at least 15x15"),
        ("vgg19", 10, (1, 8, 8), "model", "at least 16x16"),
        ("vgg16", 10, (1, 8, 8), "model", "at least 16x16"),
        ("vgg16:width=0.5", 10, (3, 224, 224), "model", "no width option"),
        ("vgg16", 10, (1, 224, 224), "model", "3 colour channels"),
        ("alexnet", 10, (3, 32, 32), "model", "at least 63x63"),
        ("resnet50", 10, (1, 32, 32), "model", "3 colour channels"),
        ("lenet300", 1, (1, 28, 28), "classes", "between 2 and"),
        ("lenet300", 10, (28, 28), "input_shape", "channels, height, width"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(name, classes, shape, field, words):
    with pytest.raises(UserError) as caught:
        build(name, classes, shape)
    assert caught.value.field == field
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("lenet5", 16),
        ("cifarnet", 15),
        ("vgg19:width=0.05", 16),
        ("vgg16:width=0.05", 16),
        ("alexnet", 63),
    ],
)
def test_the_smallest_image_that_is_accepted_works(name, side):
    model = build(name, 3, (3, side, side), 0).eval()
    assert torch.isfinite(
        model(torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)))
    ).all()
