"""Narrowing against zeroing (a hand-written one too), factorization against the layer, refusal of
what cannot be followed.
"""

import copy
import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.cells.errors import LayerError, UserError
from common.nets import masks as M
from common.nets import models
from common.nets.edits import ChannelMap
from common.nets.flops import costs
from common.nets.models.parts import PadShortcut
from common.nets.surgery import (
    apply_edits,
    channel_groups,
    factorize,
    narrow,
    replace_module,
    zero_units,
)
from tests import toy
from tests.trust.hugging_face import Conv1D

NETS = {
    "vgg19:width=0.25": (3, 32, 32),
    "resnet20:shortcut=A": (3, 16, 16),
    "resnet20:shortcut=B": (3, 16, 16),
    "preresnet29": (3, 16, 16),
    "mobilenet_v1:width=0.25": (3, 32, 32),
    "digits_cnn": (1, 8, 8),
    "lenet5": (1, 16, 16),
    "cifarnet": (3, 32, 32),
    "lenet300": (1, 8, 8),
    "resnet50": (3, 32, 32),
}
pytestmark = pytest.mark.usefixtures("one_thread")


def random_keep(groups, seed=0):
    """For each group a random choice of at least one unit; one group stays whole."""
    g = toy.generator(seed)
    counts = [1 + int(torch.randint(group.size, (1,), generator=g)) for group in groups]
    return {
        group.name: sorted(torch.randperm(group.size, generator=g)[:count].tolist())
        for group, count in zip(groups[1:], counts[1:], strict=True)
    }


def same(a, b, tolerance=1e-10):
    torch.testing.assert_close(
        a.detach(), b.detach(), rtol=tolerance, atol=tolerance * float(b.detach().abs().max())
    )


def zero_producers(model, groups, keep):
    """The slow, obvious twin of `zero_units`: only what produces the removed channels is zeroed,
    entry by entry.
    """
    modules = dict(model.named_modules())
    for group in groups:
        for unit in set(range(group.size)) - set(keep.get(group.name, range(group.size))):
            for name, axis, indices in group.members:
                for i in indices[unit] if axis == "out" else ():
                    module = modules[name]
                    if isinstance(module, PadShortcut):
                        module.index[i] = -1
                        continue
                    for tensor in (
                        module.weight,
                        module.bias,
                        getattr(module, "running_mean", None),
                    ):
                        if tensor is not None:
                            tensor.data[i] = 0


# -- (f) narrowed = zeroed -------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_narrowed_equals_zeroed(name):
    shape = NETS[name]
    x, _ = toy.batch(2, shape)
    dense = toy.seeded(models.build(name, 5, shape))
    groups = channel_groups(dense, x)
    keep = random_keep(groups, seed=3)
    narrowed, zeroed, produced, replayed = (copy.deepcopy(dense) for _ in range(4))
    edits = narrow(narrowed, groups, keep)
    masks = zero_units(zeroed, groups, keep)
    zero_producers(produced, groups, keep)
    with torch.no_grad():
        y = narrowed(x)
        assert not torch.allclose(y, dense(x), rtol=1e-6)
        same(y, zeroed(x))
        same(y, produced(x))
    for (key, mine), theirs in zip(
        zeroed.state_dict().items(), produced.state_dict().values(), strict=True
    ):
        # a silent channel's mean is zero, others' are kept
        assert not key.endswith("running_mean") or torch.equal(mine, theirs), key
    apply_edits(replayed, json.loads(json.dumps(edits)))
    assert all(
        torch.equal(a, b)
        for a, b in zip(narrowed.state_dict().values(), replayed.state_dict().values(), strict=True)
    )
    kept = sum(
        int(masks[n].sum()) if n in masks else p.numel() for n, p in dense.named_parameters()
    )
    # the mask keeps exactly what the narrow network has
    assert kept == sum(p.numel() for p in narrowed.parameters())
    assert costs(narrowed, shape).params == costs(zeroed, shape).kept_params
    M.apply(dense, masks)
    assert all(
        torch.equal(p, q) for p, q in zip(dense.parameters(), zeroed.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    "name", ["resnet20", "preresnet29", "mobilenet_v1:width=0.25", "digits_cnn"]
)
def test_narrow_again(name):
    """Groups found on a narrow network narrow it further, down to one unit each."""
    shape = NETS.get(name, (3, 16, 16))
    x, _ = toy.batch(2, shape)
    model = toy.seeded(models.build(name, 5, shape))
    edits = []
    for keep_of in (lambda size: range(0, size, 2), lambda size: [size // 2]):
        groups = channel_groups(model, x)
        keep = {group.name: list(keep_of(group.size)) for group in groups}
        zeroed = copy.deepcopy(model)
        zero_units(zeroed, groups, keep)
        edits += narrow(model, groups, keep)
        same(model(x), zeroed(x))
    assert all(group.size == 1 for group in channel_groups(model, x))
    fresh = models.build(name, 5, shape).double().eval()
    apply_edits(fresh, edits)
    fresh.load_state_dict(model.state_dict())
    same(fresh(x), model(x))


def test_narrowed_networks_train():
    model = models.build("resnet20", 5, (3, 16, 16), 0)
    groups = channel_groups(model, torch.zeros(1, 3, 16, 16))
    assert model.training and all(m.training for m in model.modules())
    narrow(model, groups, random_keep(groups))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    F.cross_entropy(model(torch.randn(4, 3, 16, 16)), torch.tensor([0, 1, 2, 3])).backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())
    optimizer.step()


# -- what is coupled -------------------------------------------------------------------------------


def members(group):
    return [(name, axis) for name, axis, _ in group.members]


def test_groups_of_the_digits_net():
    """The residual sum couples conv2 with conv4; pooling to 2x2 gives fc1 four inputs a channel;
    fc2 is the output.
    """
    groups = channel_groups(models.build("digits_cnn", 10, (1, 8, 8)), torch.zeros(1, 1, 8, 8))
    assert [(g.name, g.size) for g in groups] == [
        ("conv1", 16),
        ("conv2", 32),
        ("conv3", 32),
        ("fc1", 64),
    ]
    assert members(groups[1]) == [
        ("conv2", "out"),
        ("bn2", "out"),
        ("conv3", "in"),
        ("conv4", "out"),
        ("bn4", "out"),
        ("fc1", "in"),
    ]
    assert groups[1].members[-1].map[3] == [12, 13, 14, 15]


def test_a_padding_shortcut_decouples_its_two_sides():
    groups = {
        g.name: g
        for g in channel_groups(
            models.build("resnet20", 10, (3, 16, 16)), torch.zeros(1, 3, 16, 16)
        )
    }
    assert ("layer2.0.shortcut", "in") in members(groups["conv1"])
    assert ("layer2.0.shortcut", "out") in members(groups["layer2.0.conv2"])
    assert (groups["conv1"].size, groups["layer2.0.conv2"].size) == (16, 32)


def test_skip_leaves_a_layers_channels_alone():
    model, x = models.build("digits_cnn", 10, (1, 8, 8)), torch.zeros(1, 1, 8, 8)
    assert [g.name for g in channel_groups(model, x, skip=["conv4", "fc2"])] == [
        "conv1",
        "conv3",
        "fc1",
    ]
    with pytest.raises(UserError, match="no layer of the model"):
        channel_groups(model, x, skip=["conv9"])


class Concatenated(nn.Module):
    """Two branches side by side, the first read once more, a sigmoid (zero in, one half out), a
    frozen layer.
    """

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 6, 3, padding=1)
        self.mix, self.norm, self.again = (
            nn.Conv2d(10, 4, 1),
            nn.BatchNorm2d(4, affine=False),
            nn.Conv2d(4, 4, 1),
        )
        self.fc = nn.Linear(16, 3)
        self.again.requires_grad_(False)

    def forward(self, x):
        a = torch.sigmoid(self.a(x))
        y = self.norm(self.mix(torch.cat([a, torch.sigmoid(self.b(x))], 1))) + self.again(a)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(torch.tanh(y), 2), 1))


class Grouped(nn.Module):
    """Convolution groups of 2 and 3 on 12 channels: units must be balanced in both."""

    def __init__(self):
        super().__init__()
        self.stem, self.two = (
            nn.Conv2d(2, 12, 3, padding=1),
            nn.Conv2d(12, 12, 3, padding=1, groups=2),
        )
        self.three, self.multiplier = nn.Conv2d(12, 9, 1, groups=3), nn.Conv2d(9, 18, 1, groups=9)
        self.fc = nn.Linear(18, 3)

    def forward(self, x):
        y = F.relu(self.stem(x))
        y = F.relu(self.two(y)) + y
        return self.fc(F.relu(self.multiplier(self.three(y))).mean((2, 3)))


@pytest.mark.parametrize(("net", "sizes"), [(Concatenated, [4, 6, 4]), (Grouped, [2, 1, 2])])
def test_concatenation_and_convolution_groups(net, sizes):
    model, (x, _) = toy.seeded(net()), toy.batch(3)
    groups = channel_groups(model, x)
    assert [group.size for group in groups] == sizes
    keep = {group.name: [i for i in range(group.size) if i % 3 != 1] for group in groups}
    zeroed = copy.deepcopy(model)
    zero_units(zeroed, groups, keep)
    narrow(model, groups, keep)
    same(model(x), zeroed(x))
    assert all(
        p.requires_grad is (not name.startswith("again")) for name, p in model.named_parameters()
    )


# -- what is refused -------------------------------------------------------------------------------


class Net(nn.Module):
    """conv, then `between`, then a linear head; input [2, 4, 4]."""

    def __init__(self, between, features=64, **parts):
        super().__init__()
        self.conv, self.fc, self.between = nn.Conv2d(2, 4, 1), nn.Linear(features, 3), between
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.fc(torch.flatten(self.between(self, F.relu(self.conv(x))), 1))


HOPELESS = {
    "channels last": Net(lambda net, y: y.permute(0, 2, 3, 1)),
    "channel shuffle": Net(lambda net, y: y.unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2)),
    "pixel shuffle": Net(lambda net, y: F.pixel_shuffle(y, 2)),
    "flipped sum": Net(lambda net, y: y + y.flip(1)),
    "halves": Net(lambda net, y: y[:, :2] * y[:, 2:], features=32),
    "raw parameter": Net(lambda net, y: y * net.scale, scale=nn.Parameter(torch.ones(1, 4, 1, 1))),
    "reused layer": Net(lambda net, y: net.twice(net.twice(y)), twice=nn.Conv2d(4, 4, 1)),
    "functional": Net(lambda net, y: F.conv2d(y, torch.ones(4, 4, 1, 1).to(y))),
    "LayerNorm": Net(lambda net, y: net.norm(y), norm=nn.GroupNorm(2, 4)),
    "one output a group": Net(
        lambda net, y: net.odd(y), features=32, odd=nn.Conv2d(4, 2, 1, groups=2)
    ),
    "transposed, grouped": Net(lambda net, y: net.up(y), up=nn.ConvTranspose2d(4, 4, 1, groups=2)),
}


CONV = (nn.Conv2d, nn.ConvTranspose2d)


@pytest.mark.parametrize("case", HOPELESS)
def test_coupling_that_cannot_be_followed_names_the_layer(case):
    with pytest.raises(LayerError, match="conv|twice|norm|odd|up"):
        channel_groups(HOPELESS[case], torch.zeros(1, 2, 4, 4))
    assert (
        channel_groups(
            HOPELESS[case],
            torch.zeros(1, 2, 4, 4),
            skip=[name for name, m in HOPELESS[case].named_modules() if isinstance(m, CONV)],
        )
        == []
    )


def test_bad_requests_are_refused_and_change_nothing():
    model, x = models.build("digits_cnn", 10, (1, 8, 8), 0), torch.zeros(1, 1, 8, 8)
    groups, before = channel_groups(model, x), copy.deepcopy(model.state_dict())
    for keep in (
        {"conv1": []},
        {"conv1": [16]},
        {"conv1": [-1]},
        {"conv1": [1, 1]},
        {"conv1": [2, 1]},
        {"conv4": [0]},
    ):
        with pytest.raises(UserError, match="keep"):
            narrow(model, groups, keep)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    narrow(model, groups, {"conv1": [0]})
    with pytest.raises(UserError, match="find them again"):
        narrow(model, groups, {"conv1": [0]})


CUT = {"op": "slice", "module": "0", "axis": "out", "keep": [0]}


@pytest.mark.parametrize(
    "edit",
    [
        [],
        {},
        {"op": "drop"},
        {**CUT, "module": "7"},
        {**CUT, "module": ""},
        {**CUT, "module": None},
        {**CUT, "module": "2"},
        {**CUT, "axis": "up"},
        {**CUT, "module": "1", "axis": "in"},
        {**CUT, "keep": []},
        {**CUT, "keep": [4]},
        {**CUT, "keep": [-1]},
        {**CUT, "keep": [0, 0]},
        {**CUT, "keep": [1, 0]},
        {**CUT, "keep": [True]},
        {**CUT, "keep": [0.0]},
        {**CUT, "keep": "0"},
        {**CUT, "keep": None},
        {**CUT, "module": "3", "keep": [0]},
        {**CUT, "module": "3", "axis": "in", "keep": [0, 1, 2]},
        {"op": "factorize", "module": "6", "shapes": [[1, 16], [1, 1]]},
        {"op": "factorize", "module": "6", "shapes": None},
        {"op": "factorize", "module": "6", "shapes": [[2, 16], [1, 1], [3, 1]]},
        {"op": "factorize", "module": "0", "shapes": [[2, 2, 3, 3], [2, 2, 3, 3], [4, 2, 1, 1]]},
        {"op": "factorize", "module": "0", "shapes": [[2, 2, 1, 1], [2, 2, 1, 1], [4, 2, 1, 1]]},
        {"op": "factorize", "module": "0", "shapes": [[2, 2, 1, 1], [2, 2, 3, 3], [4, 2, 3, 3]]},
        {"op": "factorize", "module": "0", "shapes": [[2, 2, 1, 1], [4, 2, 1, 1]]},
        {"op": "factorize", "module": "0", "shapes": [[2, 2, 3, 3], [4, 2, 3, 3]]},
        {"op": "factorize", "module": "0", "shapes": [[4, 2, 3, 3]]},
        {"op": "map", "module": "0", "side": "left", "index": [0]},
        {"op": "map", "module": "0", "side": "after", "index": [4]},
        {"op": "map", "module": "0", "side": "before", "index": [0]},
        {"op": "map", "module": "0", "side": "after", "index": []},
        {"op": "map", "module": "0", "side": "after", "index": [-2]},
        {"op": "map", "module": "0", "side": "after", "index": [True]},
        {"op": "map", "module": "2", "side": "after", "index": [0]},
        {"op": "unmap", "module": "0"},
        {"op": "widen", "module": "2", "axis": "out", "index": [0]},
        {"op": "widen", "module": "0", "axis": "in", "index": [2]},
        {"op": "widen", "module": "0", "axis": "up", "index": [0]},
        {"op": "widen", "module": "0", "axis": "out", "index": []},
        {"op": "widen", "module": "0", "axis": "out", "index": [-2]},
        {"op": "widen", "module": "0", "axis": "out", "index": None},
    ],
    ids=str,
)
def test_edits_that_do_not_fit_are_refused(edit):
    with pytest.raises(UserError, match="edits"):
        apply_edits(toy.small_net(), [edit])


def test_replace_module_reaches_into_sequentials():
    model = nn.Sequential(nn.Sequential(nn.ReLU(), nn.Tanh()), nn.ReLU())
    replace_module(model, "0.0", nn.Sigmoid())
    assert [type(m) for m in model[0]] == [nn.Sigmoid, nn.Tanh]
    with pytest.raises(UserError):
        replace_module(model, "0.2", nn.Sigmoid())


# -- (e) factorization -----------------------------------------------------------------------------


def orthogonal(n, dtype, seed):
    return torch.linalg.qr(
        torch.randn(n, n, generator=toy.generator(seed), dtype=torch.float64)
    ).Q.to(dtype)


def eigen_factors(layer, full):
    """Full-rank orthogonal bases on both sides; `full`: the input basis spans (cin, kh, kw), else
    cin alone.
    """
    weight = layer.weight.detach()
    out, cin, *kernel = weight.shape
    left = orthogonal(out, weight.dtype, 1)
    right = orthogonal(cin * (math.prod(kernel) if full else 1), weight.dtype, 2)
    if not kernel:
        return right.T, left.T @ weight @ right, left
    if full:
        core = left.T @ weight.flatten(1) @ right
        return right.T.reshape(-1, cin, *kernel), core[..., None, None], left[..., None, None]
    core = torch.einsum("or,oihw,ia->rahw", left, weight, right)
    return right.T[..., None, None], core, left[..., None, None]


LAYERS = {
    "plain": {"kernel_size": 3},
    "all": {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2},
    "oblong": {"kernel_size": (1, 3), "padding": (0, 2), "stride": (2, 1)},
    "1x1": {"kernel_size": 1, "stride": 2},
    "same": {"kernel_size": 3, "padding": "same"},
    "reflect": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [*LAYERS, "linear"])
def test_full_rank_bases_reproduce_the_layer(kind, bias, full, dtype, tolerance):
    torch.manual_seed(0)
    layer = (
        nn.Linear(7, 5, bias) if kind == "linear" else nn.Conv2d(3, 5, bias=bias, **LAYERS[kind])
    )
    model = nn.Sequential(nn.Identity(), layer).to(dtype).eval()
    x = torch.randn(2, 7, dtype=dtype) if kind == "linear" else torch.randn(2, 3, 9, 8, dtype=dtype)
    before, original = model(x), copy.deepcopy(model)
    edit = factorize(model, "1", *eigen_factors(layer, full))
    same(model(x), before, tolerance)
    assert [name for name, _ in model[1].named_children()] == [
        "first",
        "core",
        "last",
    ] and not model[1].training
    apply_edits(original, json.loads(json.dumps([edit])))
    original.load_state_dict(model.state_dict())
    assert torch.equal(original(x), model(x))


@pytest.mark.parametrize("spatial", ["first", "last"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [*LAYERS, "linear"])
def test_two_factors_reproduce_the_layer_wherever_the_kernel_is(kind, bias, spatial):
    torch.manual_seed(0)
    layer = (
        nn.Linear(7, 5, bias) if kind == "linear" else nn.Conv2d(3, 5, bias=bias, **LAYERS[kind])
    )
    model = nn.Sequential(nn.Identity(), layer).double().eval()
    x = torch.randn(2, 7).double() if kind == "linear" else torch.randn(2, 3, 9, 8).double()
    before, original, W = model(x), copy.deepcopy(model), layer.weight.detach()
    point = (1,) * (W.ndim - 2)
    Q = torch.linalg.qr(
        torch.randn(
            len(W) if spatial == "first" else W.shape[1],
            len(W) if spatial == "first" else W.shape[1],
        ).double()
    ).Q
    if spatial == "first":
        weights = torch.einsum("or,o...->r...", Q, W), Q.reshape(*Q.shape, *point)
    else:
        weights = Q.T.reshape(*Q.shape, *point), torch.einsum("oi...,ia->oa...", W, Q)
    edit = factorize(model, "1", *weights)
    same(model(x), before, 1e-10)
    assert [name for name, _ in model[1].named_children()] == ["first", "last"]
    apply_edits(original, json.loads(json.dumps([edit])))
    original.load_state_dict(model.state_dict())
    assert torch.equal(original(x), model(x))


def test_a_channel_map_copies_drops_and_fills_with_zeros():
    x = torch.arange(6.0).reshape(1, 3, 2)
    torch.testing.assert_close(
        ChannelMap([2, -1, 0, 2])(x)[0],
        torch.tensor([[4.0, 5.0], [0.0, 0.0], [0.0, 1.0], [4.0, 5.0]]),
    )
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3)).double()
    x, old = torch.randn(4, 3).double(), copy.deepcopy(model)
    apply_edits(
        model,
        [
            {"op": "map", "module": "0", "side": "after", "index": [1, -1]},
            {"op": "map", "module": "1", "side": "before", "index": [0, 1]},
        ],
    )
    between = torch.stack([old[0](x)[:, 1], torch.zeros(4).double()], 1)
    same(model(x), old[1](between))
    assert sorted(model.state_dict()) == [
        "0.layer.bias",
        "0.layer.weight",
        "1.layer.bias",
        "1.layer.weight",
    ]


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_widening_undoes_maps_around_a_layer_and_its_norm(kind):
    """Channels 1 and 3 of four outputs and 0 and 2 of three inputs are left; widened, the removed
    ones give and read zeros.
    """
    torch.manual_seed(0)
    if kind == "linear":
        layer, norm, x = nn.Linear(3, 4), nn.BatchNorm1d(4), torch.randn(5, 3).double()
    else:
        layer, norm, x = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), torch.randn(5, 3, 6, 6).double()
    model = nn.Sequential(layer, norm).double()
    model(x)
    model.eval()
    with torch.no_grad():
        layer.weight[:, 1], norm.weight[::2], norm.bias[::2] = 0, 0, 0
    before, old = model(x), copy.deepcopy(model)
    apply_edits(
        model,
        [
            {"op": "slice", "module": "0", "axis": "in", "keep": [0, 2]},
            {"op": "slice", "module": "0", "axis": "out", "keep": [1, 3]},
            {"op": "slice", "module": "1", "axis": "out", "keep": [1, 3]},
            {"op": "map", "module": "0", "side": "before", "index": [0, 2]},
            {"op": "map", "module": "1", "side": "after", "index": [-1, 0, -1, 1]},
        ],
    )
    same(model(x), before)
    apply_edits(
        model,
        [
            {"op": "unmap", "module": "0"},
            {"op": "unmap", "module": "1"},
            {"op": "widen", "module": "0", "axis": "in", "index": [0, -1, 1]},
            {"op": "widen", "module": "0", "axis": "out", "index": [-1, 0, -1, 1]},
            {"op": "widen", "module": "1", "axis": "out", "index": [-1, 0, -1, 1]},
        ],
    )
    same(model(x), before)
    assert [type(module) for module in model] == [type(layer), type(norm)] and model[
        1
    ].num_features == 4
    assert (
        model[0].weight.shape == old[0].weight.shape
        and not model[0].weight[::2].any()
        and not model[0].weight[:, 1].any()
    )
    assert model[1].running_var.tolist()[::2] == [1, 1] and not model[1].running_mean[::2].any()
    assert model.train()(x).isfinite().all()


def test_a_factor_can_be_factorized_again():
    torch.manual_seed(0)
    model, x = (
        nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1)).double(),
        torch.randn(2, 3, 8, 8).double(),
    )
    before = model(x)
    for name in ("0", "0.core", "0.core.core"):
        factorize(model, name, *eigen_factors(model.get_submodule(name), full=False))
        same(model(x), before)


def test_depthwise_core():
    """A weight whose filters have one spatial pattern for each rank: first mixes, core filters each
    channel alone.
    """
    torch.manual_seed(0)
    first, core, last = torch.randn(4, 3, 1, 1), torch.randn(4, 1, 3, 3), torch.randn(5, 4, 1, 1)
    layer = nn.Conv2d(3, 5, 3, padding=1)
    layer.weight.data = torch.einsum(
        "or,rhw,ri->oihw", last[..., 0, 0], core[:, 0], first[..., 0, 0]
    )
    model, x = nn.Sequential(layer), torch.randn(2, 3, 6, 6)
    before = model(x)
    factorize(model, "0", first, core, last)
    assert model[0].core.groups == 4
    same(model(x), before, 1e-5)


def test_factorize_refuses_grouped_and_unknown_layers():
    model = toy.small_net()
    with pytest.raises(LayerError, match="without groups"):
        factorize(
            model, "3", torch.ones(1, 2, 1, 1), torch.ones(1, 1, 3, 3), torch.ones(4, 1, 1, 1)
        )
    with pytest.raises(LayerError, match="BatchNorm2d"):
        factorize(model, "1", torch.ones(1, 1), torch.ones(1, 1), torch.ones(1, 1))


# -- kinds of coupling and of layer ----------------------------------------------------------------


class Split(nn.Module):
    """A convolution whose output goes two ways; input [2, 6, 6]."""

    def __init__(self, ways, width=4):
        super().__init__()
        self.conv, self.ways = nn.Conv2d(2, 8, 3, padding=1), ways
        self.left, self.right = nn.Conv2d(width, 6, 1), nn.Conv2d(width, 6, 1)
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        left, right = self.ways(F.relu(self.conv(x)))
        y = torch.cat([self.left(left), self.right(right)], 1)
        return self.fc(F.relu(y).mean((2, 3)))


def gated(y):
    left, right = y.chunk(2, 1)
    y = left * right.sigmoid()
    return y, y


class Beside(nn.Module):
    """The network's input runs beside a feature, before or behind it; input [2, 6, 6]."""

    def __init__(self, first):
        super().__init__()
        self.conv, self.next, self.fc = (
            nn.Conv2d(2, 8, 3, padding=1),
            nn.Conv2d(10, 5, 1),
            nn.Linear(5, 3),
        )
        self.first = first

    def forward(self, x):
        y = F.relu(self.conv(x))
        return self.fc(
            F.relu(self.next(torch.cat([x, y] if self.first else [y, x], 1))).mean((2, 3))
        )


class Added(nn.Module):
    """A feature is added to the input, whose channels are given; input [2, 6, 6]."""

    def __init__(self):
        super().__init__()
        self.conv, self.next, self.fc = (
            nn.Conv2d(2, 2, 3, padding=1),
            nn.Conv2d(2, 5, 1),
            nn.Linear(5, 3),
        )

    def forward(self, x):
        return self.fc(F.relu(self.next(x + self.conv(x))).mean((2, 3)))


class BesideRows(nn.Module):
    """The same of vectors."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Linear(72, 8), nn.Linear(80, 3)

    def forward(self, x):
        return self.fc(torch.cat([x, F.relu(self.conv(x))], 1))


class Volumes(nn.Module):
    """Images as one row of pixels, or as one slice of a volume."""

    def __init__(self, conv, norm, dimensions):
        super().__init__()
        self.stem, self.norm, self.next = conv(2, 6, 1), norm(6), conv(6, 4, 1)
        self.fc, self.dimensions = nn.Linear(4, 3), dimensions

    def forward(self, x):
        x = x.flatten(2) if self.dimensions == 1 else x[:, :, None]
        y = F.relu(self.next(torch.sigmoid(self.norm(self.stem(x)))))
        return self.fc(y.flatten(2).mean(2))


class Projections(nn.Module):
    """Pixels as tokens of two numbers, and GPT-2's kind of MLP on them."""

    def __init__(self):
        super().__init__()
        self.up, self.down, self.fc = Conv1D(8, 2), Conv1D(2, 8), nn.Linear(2, 3)

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)
        return self.fc((x + self.down(torch.sigmoid(self.up(x)))).mean(1))


class Patches(nn.Module):
    """A small vision transformer: a residual stream with learned places, and an MLP."""

    def __init__(self):
        super().__init__()
        self.embed, self.place = nn.Conv2d(2, 4, 2, stride=2), nn.Parameter(torch.zeros(1, 4, 4))
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(4), nn.Linear(4, 8), nn.Linear(8, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        y = self.embed(x).flatten(2).transpose(1, 2) + self.place
        return self.head((y + self.fc2(F.gelu(self.fc1(self.norm(y))))).mean(1))


def test_what_can_be_followed_goes_and_the_rest_is_named_at_once():
    """The hidden units of a transformer's MLP; the residual stream meets a raw parameter."""
    model, x = toy.seeded(Patches()), toy.batch(3, (2, 4, 4))[0]
    with pytest.raises(LayerError, match=r"'embed'.*raw parameter.*1 other.*\['embed', 'fc2'\]"):
        channel_groups(model, x)
    whole = {}
    (group,) = channel_groups(model, x, whole=whole)
    assert (group.name, group.size) == ("fc1", 8) and list(whole) == ["embed", "fc2"]
    (same_group,) = channel_groups(model, x, skip=list(whole))
    assert group == same_group
    zeroed = copy.deepcopy(model)
    zero_units(zeroed, [group], {"fc1": [0, 3, 4]})
    narrow(model, [group], {"fc1": [0, 3, 4]})
    same(model(x), zeroed(x))
    assert model.fc1.out_features == model.fc2.in_features == 3


def with_layer(layer):
    return nn.Sequential(
        nn.Conv2d(2, 8, 3), layer, nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(64, 3)
    )


# what can be narrowed: network -> sizes of its groups
COUPLED = {
    "chunk": (lambda: Split(lambda y: y.chunk(2, 1)), [4, 6, 6]),
    "split at half": (lambda: Split(lambda y: y.split(y.shape[1] // 2, 1)), [4, 6, 6]),
    "gate": (lambda: Split(gated), [4, 6, 6]),
    "input before a feature": (lambda: Beside(True), [8, 5]),
    "input behind a feature": (lambda: Beside(False), [8, 5]),
    "input before a vector": (BesideRows, [8]),
    "feature added to the input": (Added, [5]),
    "SyncBatchNorm": (lambda: with_layer(nn.SyncBatchNorm(8)), [8, 4]),
    "PReLU": (lambda: with_layer(nn.PReLU(8)), [8, 4]),
    "transposed": (lambda: with_layer(nn.ConvTranspose2d(8, 8, 1)), [8, 8, 4]),
    "one dimension": (lambda: Volumes(nn.Conv1d, nn.BatchNorm1d, 1), [6, 4]),
    "one dimension, transposed": (
        lambda: Volumes(nn.ConvTranspose1d, nn.InstanceNorm1d, 1),
        [6, 4],
    ),
    "three dimensions": (lambda: Volumes(nn.Conv3d, nn.BatchNorm3d, 3), [6, 4]),
    "Conv1D of transformers": (lambda: Projections(), [8]),
    "PReLU of one slope": (lambda: with_layer(nn.PReLU()), [8, 4]),
    "InstanceNorm": (lambda: with_layer(nn.InstanceNorm2d(8)), [8, 4]),
    "InstanceNorm, affine": (lambda: with_layer(nn.InstanceNorm2d(8, affine=True)), [8, 4]),
    "InstanceNorm, running": (
        lambda: with_layer(nn.InstanceNorm2d(8, affine=True, track_running_stats=True)),
        [8, 4],
    ),
}


@pytest.mark.parametrize("kind", COUPLED)
def test_every_kind_of_coupling_narrows_to_what_zeroing_gives(kind):
    build, sizes = COUPLED[kind]
    model, x = toy.seeded(build()), toy.batch(3, (72,) if "vector" in kind else (2, 6, 6))[0]
    state = torch.get_rng_state()
    groups = channel_groups(model, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert [group.size for group in groups] == sizes
    keep = {group.name: [i for i in range(group.size) if i % 3 != 1] for group in groups}
    zeroed, replayed = copy.deepcopy(model), toy.seeded(build())
    zero_units(zeroed, groups, keep)
    edits = narrow(model, groups, keep)
    same(model(x), zeroed(x))
    assert not torch.allclose(model(x), replayed(x))
    apply_edits(replayed, json.loads(json.dumps(edits)))
    replayed.load_state_dict(model.state_dict())
    same(replayed(x), model(x))


class RoundTrip(nn.Module):
    """A flattened image, mixed and brought back beside itself: indices grow with each round."""

    def __init__(self):
        super().__init__()
        self.conv, self.mix, self.fc = nn.Conv2d(2, 4, 1), nn.Linear(64, 64), nn.Linear(64, 3)

    def forward(self, x):
        y = F.relu(self.conv(x))
        return self.fc((y + self.mix(y.flatten(1)).view_as(y)).flatten(1))


class Breaks(nn.Module):
    """Does not take what it is given."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 4, 1), nn.Linear(63, 3)

    def forward(self, x):
        return self.fc(self.conv(x).flatten(1))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("net", [RoundTrip, Breaks])
def test_a_tracing_that_fails_or_has_no_end_is_one_line(net):
    with pytest.raises(
        (UserError, LayerError), match=f"{net.__name__}.*cannot be traced|'conv'|'mix'"
    ) as e:
        channel_groups(net().eval(), torch.zeros(1, 2, 4, 4))
    assert "\n" not in str(e.value)


def test_shufflenet_is_narrowed_or_refused_in_one_line():
    net = pytest.importorskip("torchvision").models.shufflenet_v2_x0_5(num_classes=3).eval()
    try:
        groups = channel_groups(net, torch.zeros(1, 3, 64, 64))
    except (UserError, LayerError) as error:
        assert "\n" not in str(error)
    else:
        assert groups
