"""Networks that break what the curvature code takes for granted: each is refused by layer, by every
method that looks at data, and left as it was; networks that only look unusual are not."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.flop_counter import FlopCounterMode

from common.cells.errors import LayerError, NumericalError, UserError
from common.cells.registry import METHODS
from common.cells.spec import Spec
from common.curvature.diag import diagonal_fisher
from common.curvature.kron import input_hessian, kron_factors
from common.curvature.rows import gradient_rows
from common.nets import layers as L
from common.nets.flops import costs
from common.pruning import baselines
from common.running.options import method_of
from tests import toy

ESTIMATORS = {
    "kron": lambda model, data, layers=None: kron_factors(
        model, data, layers, generator=toy.generator()
    ),
    "rows": lambda model, data, layers=None: gradient_rows(model, data, 4, layers=layers),
    "diagonal": diagonal_fisher,
    "hessian": input_hessian,
}


class Standardized(nn.Conv2d):
    """Weight standardisation (Qiao et al. 2019)."""

    def forward(self, x):
        mean, std = self.weight.mean((1, 2, 3), True), self.weight.std((1, 2, 3), keepdim=True)
        return self._conv_forward(x, (self.weight - mean) / std, self.bias)


class SameConv(nn.Conv2d):
    """Pads in its forward, as TensorFlow's convolutions do."""

    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1)))


class Scaled(nn.Linear):
    """A learned gain on an ordinary layer."""

    def forward(self, x):
        return 1.5 * super().forward(x)


class Net(nn.Module):
    """A convolution, whatever `between` does, a linear head; input [2, 5, 5]."""

    def __init__(self, between=lambda net, y: y, conv=nn.Conv2d, fc=nn.Linear, width=36, **parts):
        super().__init__()
        self.conv, self.fc, self.between = conv(2, 4, 3), fc(width, 3), between
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        y = self.between(self, F.relu(self.conv(x)))
        return self.fc(torch.flatten(y, 1))


class Pair(nn.Conv2d):
    """Gives its input too."""

    def forward(self, x):
        return super().forward(x), x


class Hooked(Net):
    def __init__(self):
        super().__init__()
        self.fc.register_forward_hook(lambda module, args, output: output * 2)


class Frames(nn.Module):
    """Five frames of every example folded into the batch."""

    def __init__(self):
        super().__init__()
        self.frame, self.fc = nn.Linear(10, 4), nn.Linear(20, 3)

    def forward(self, x):
        frames = x.transpose(1, 2).flatten(0, 1).flatten(1)
        return self.fc(self.frame(frames).tanh().unflatten(0, (len(x), -1)).flatten(1))


class TimeFirst(nn.Module):
    """[T, B, d], with as many steps as the test's batch has examples: the sizes agree."""

    def __init__(self):
        super().__init__()
        self.step, self.fc = nn.Linear(10, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.step(x.transpose(1, 2).flatten(2).transpose(0, 1)).tanh().mean(0))


class Encoder(nn.Module):
    """torch's own layer, whose default is [T, B, d]."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(10, 2, 8, dropout=0.0)
        self.fc = nn.Linear(10, 3)

    def forward(self, x):
        return self.fc(self.layer(x.transpose(1, 2).flatten(2).transpose(0, 1)).mean(0))


class Mixed(nn.Module):
    """Every example takes a part of its neighbour."""

    def forward(self, x):
        return x + 0.1 * x.roll(1, 0)


class Dropout(nn.Module):
    """Forgets to ask whether it is training."""

    def forward(self, x):
        return F.dropout(x, 0.5)


def reused():
    """The head's weight multiplies by hand as well."""
    return Net(lambda net, y: y.flatten(1) @ net.fc.weight.T @ net.fc.weight)


class Language(nn.Module):
    """Input embedding and output layer are one weight; images become tokens."""

    def __init__(self):
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(3, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.body(self.embed((x.flatten(1) > 0).long()).mean(1)).tanh())


def normalized():
    return Net(lambda net, y: net.norm(y), norm=nn.BatchNorm2d(4, track_running_stats=False))


def parametrized(wrap, name):
    net = Net()
    wrap(getattr(net, name))
    return net


def pruned_live():
    net = Net()
    prune.l1_unstructured(net.conv, "weight", 0.5)
    return net


# by assumption: network -> what the error says
BROKEN = {
    "weight standardisation": (lambda: Net(conv=Standardized), "'conv': does not compute"),
    "padding in forward": (lambda: Net(conv=SameConv, width=100), "'conv': does not compute"),
    "gain in forward": (lambda: Net(fc=Scaled), "'fc': does not compute"),
    "forward hook": (Hooked, "'fc': does not compute"),
    "weight_norm": (
        lambda: parametrized(parametrizations.weight_norm, "conv"),
        "'conv': its weight is computed",
    ),
    "weight_norm of old": (
        lambda: parametrized(nn.utils.weight_norm, "conv"),
        "'conv': its weight is computed",
    ),
    "spectral_norm": (
        lambda: parametrized(parametrizations.spectral_norm, "fc"),
        "'fc': its weight is computed",
    ),
    "nn.utils.prune": (pruned_live, "'conv': its weight is computed"),
    "folded frames": (Frames, "'frame': the first dimension"),
    "time first": (TimeFirst, "'step': the first dimension"),
    "encoder, time first": (Encoder, "'layer.linear1': the first dimension"),
    "functional reuse": (reused, "'fc': its weight is used outside"),
    "batch statistics": (normalized, "'fc': what it reads of one example depends on the rest"),
    "batch statistics of vectors": (
        lambda: Net(
            lambda net, y: net.norm(y.flatten(1)),
            norm=nn.BatchNorm1d(36, track_running_stats=False),
        ),
        "takes no batch of one example .*do not see each other",
    ),
    "centred over the batch": (
        lambda: Net(lambda net, y: y - y.mean(0, keepdim=True)),
        "'fc': what it reads of one example depends on the rest",
    ),
    "attention over the batch": (
        lambda: Net(lambda net, y: (y.flatten(1) @ y.flatten(1).T).softmax(1) @ y.flatten(1)),
        "'fc': what it reads of one example depends on the rest",
    ),
    "another way for one example": (
        lambda: Net(lambda net, y: net.extra(y) if len(y) > 1 else y, extra=nn.Conv2d(4, 4, 1)),
        "'extra': is called in a batch or for one example",
    ),
    "a tuple out of a layer": (
        lambda: Net(lambda net, y: net.pair(y)[0], pair=Pair(4, 4, 1)),
        "'pair': gives a tuple",
    ),
    "mixed behind the head": (
        lambda: nn.Sequential(Net(), Mixed()),
        "its output for one example depends on the rest",
    ),
    "dropout in forward": (
        lambda: Net(lambda net, y: F.dropout(y, 0.5)),
        "'fc': what it reads of one example .* differs from call to call",
    ),
    "a forward pass that fails": (
        lambda: Net(lambda net, y: y[..., :-1]),
        r"fails on inputs of shape \(\d, .*\(RuntimeError: mat1 and mat2",
    ),
    "noise behind the head": (
        lambda: nn.Sequential(Net(), Dropout()),
        "its output for one example .* differs from call to call",
    ),
}


def skipped(kind):
    return {"encoder, time first": ("layer.self_attn.out_proj",)}.get(kind, ())


def data(examples=5):
    return [toy.batch(examples)]


def built(kind):
    torch.manual_seed(0)
    return BROKEN[kind][0]().double()


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_broken_assumption_is_named_and_nothing_is_touched(kind, estimator):
    model = built(kind).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    state = torch.get_rng_state()
    with pytest.raises((LayerError, UserError), match=BROKEN[kind][1]) as caught:
        ESTIMATORS[estimator](model, data(), L.prunable(model, skipped(kind)))
    assert "\n" not in str(caught.value)
    assert torch.equal(torch.get_rng_state(), state)
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def run(method, model, batches, amount=0.5):
    """One method with the options that its label says, on this network and data."""
    unit = "sparsity" if METHODS[method].kind == "weights" else "unit_ratio"
    function, options = method_of(Spec(method=method, **{unit: amount}))
    if any(f.name == "num_samples" for f in dataclasses.fields(options)):
        options = dataclasses.replace(options, num_samples=4)
    return function(model, batches, amount, options, toy.generator())


# these rank by the weights alone, so that no data tells them what a module computes
DATA_FREE = {"random", "magnitude-layer", "magnitude-global", "dpf", "cp", "nn-slimming"}
STATIC = ("weight_norm", "weight_norm of old", "spectral_norm", "tied embedding")
# here the head alone is odd, and its outputs are no channels that a method could remove
HEAD = ("gain in forward", "forward hook", "functional reuse")


@pytest.mark.parametrize("kind", [kind for kind in BROKEN if kind != "nn.utils.prune"])
def test_every_method_refuses_it_in_one_line(kind):
    for method in METHODS:
        model = built(kind)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        try:
            pruned = run(method, model, data())
        except (LayerError, UserError) as error:
            assert "\n" not in str(error), method
        else:
            spared = kind in HEAD and METHODS[method].kind != "weights"
            assert spared or (method in DATA_FREE and kind not in STATIC), method
            for name, mask in pruned.masks.items():
                weight = pruned.model.get_parameter(name)
                assert not weight[~mask].any() and weight[mask].any(), method
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()), method


# -- what only looks unusual -----------------------------------------------------------------------


class Sequence(nn.Module):
    """Linear layers over five steps of every example, [batch, T, d]."""

    def __init__(self):
        super().__init__()
        self.step, self.fc = nn.Linear(10, 4), nn.Linear(20, 3)

    def forward(self, x):
        return self.fc(self.step(x.transpose(1, 2).flatten(2)).tanh().flatten(1))


class Plain(nn.Conv2d):
    """A subclass that computes what its parent does."""

    def forward(self, x):
        return super().forward(x)


HEALTHY = {
    "tied embedding": (Language, ()),
    "batch first": (Sequence, ()),
    "encoder, batch first": (
        lambda: nn.Sequential(
            nn.Flatten(2),
            nn.TransformerEncoderLayer(25, 5, 8, batch_first=True),
            nn.Flatten(),
            nn.Linear(50, 3),
        ),
        ("1.self_attn.out_proj",),
    ),
    "subclass": (lambda: Net(conv=Plain), ()),
    "in-place ReLU": (lambda: toy.small_net(inplace=True), ()),
    "dropout and BatchNorm": (
        lambda: Net(
            lambda net, y: net.drop(net.norm(y)), drop=nn.Dropout(), norm=nn.BatchNorm2d(4)
        ),
        (),
    ),
    "GroupNorm": (lambda: Net(lambda net, y: net.norm(y), norm=nn.GroupNorm(2, 4)), ()),
    "shared input": (
        lambda: Net(lambda net, y: net.left(y) * net.right(y), left=conv1x1(), right=conv1x1()),
        (),
    ),
    "parametrized, but skipped": (
        lambda: parametrized(parametrizations.weight_norm, "fc"),
        ("fc",),
    ),
    "tied, but skipped": (Language, ("head",)),
    "second layer skipped": (lambda: Net(fc=Scaled), ("fc",)),
}


def conv1x1():
    return nn.Conv2d(4, 4, 1)


@pytest.mark.parametrize("kind", HEALTHY)
@pytest.mark.parametrize("examples", [1, 5])
def test_what_is_merely_unusual_has_the_gradients_of_autograd(kind, examples):
    """Rows, the diagonal and the factors' mean agree with one backward pass an example."""
    torch.manual_seed(0)
    build, skip = HEALTHY[kind]
    model = build().double().eval()
    x, y = toy.batch(examples)
    layers = L.prunable(model, skip)
    rows = gradient_rows(model, [(x, y)], examples, layers=layers)
    for i in range(examples):
        loss = F.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        found = torch.autograd.grad(loss, [module.weight for module in layers.values()])
        for name, gradient in zip(layers, found, strict=True):
            torch.testing.assert_close(rows[name][i], gradient.flatten(), rtol=1e-8, atol=1e-12)
    diagonal = diagonal_fisher(model, [(x, y)], layers)
    for name, each in rows.items():
        torch.testing.assert_close(
            diagonal[name].flatten(), each.square().mean(0), rtol=1e-8, atol=1e-14
        )
    kron_factors(model, [(x, y)], layers, fisher="exact")
    input_hessian(model, [(x, y)], layers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_trial_leaves_every_random_generator_and_every_gradient(dtype):
    model = toy.small_net().to(dtype)
    (x, y), own = toy.batch(), toy.generator(3)
    model(x.to(dtype)).sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    state, drawn = torch.get_rng_state(), own.get_state()
    input_hessian(model, [(x.to(dtype), y)])
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(own.get_state(), drawn)
    assert all(
        torch.equal(parameter.grad, gradient)
        for parameter, gradient in zip(model.parameters(), gradients, strict=True)
    )


# -- there is curvature, and something to prune ----------------------------------------------------

LABELS = {
    "above the classes": (torch.tensor([0, 1, 3, 1, 0]), "labels=3: is no class of 0 to 2"),
    "below": (torch.tensor([0, -1, 1, 1, 0]), "labels=-1: is no class"),
    "to be ignored": (torch.tensor([0, -100, 1, 1, 0]), "labels=-100: is no class"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_no_class_are_refused_by_every_empirical_estimate(kind):
    x, _ = toy.batch()
    y, message = LABELS[kind]
    for estimate in (
        lambda net: gradient_rows(net, [(x, y)], 4),
        lambda net: diagonal_fisher(net, [(x, y)]),
        lambda net: kron_factors(net, [(x, y)], fisher="empirical"),
    ):
        with pytest.raises(UserError, match=message):
            estimate(toy.small_net())


def dead():
    """The last layer's input is zero whatever comes in, and it has no bias to learn."""
    return Net(lambda net, y: y * 0, fc=lambda i, o: nn.Linear(i, o, bias=False))


def certain():
    """Logits so far apart that the true label has probability one in float64."""
    net = Net()
    net.fc.weight.data.zero_()
    net.fc.bias.data.copy_(torch.tensor([1e4, 0.0, 0.0]))
    return net


@pytest.mark.parametrize("build", [dead, certain])
def test_a_fisher_of_zero_is_no_ranking(build):
    torch.manual_seed(0)
    x, _ = toy.batch()
    batches = [(x, torch.zeros(5, dtype=torch.int64))]
    for name in ("kron", "rows", "diagonal"):
        with pytest.raises(NumericalError, match="'conv': every gradient is zero"):
            ESTIMATORS[name](build().double(), batches)


def test_one_class_has_no_curvature():
    model = nn.Sequential(nn.Flatten(), nn.Linear(50, 1)).double()
    x, _ = toy.batch()
    for name in ("kron", "rows", "diagonal"):
        with pytest.raises(UserError, match="one class is zero"):
            ESTIMATORS[name](model, [(x, torch.zeros(5, dtype=torch.int64))])


class Functional(nn.Module):
    """Multiplies by a parameter of its own; has no layer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 50))

    def forward(self, x):
        return F.linear(x.flatten(1), self.weight)


class Recurrent(nn.Module):
    """Its weights are used at every step."""

    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(25, 3, batch_first=True)

    def forward(self, x):
        return self.cells(x.flatten(2))[0][:, -1]


NOTHING = {
    "recurrent": lambda: Recurrent(),
    "scripted": lambda: torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(50, 3))),
    "functional": Functional,
    "no parameters": lambda: nn.Flatten(),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_nothing_to_prune_is_one_error_of_every_method(kind):
    model = NOTHING[kind]().double()
    for method in METHODS:
        with pytest.raises(UserError, match=r"model=.*nothing to prune") as caught:
            run(method, model, data())
        assert "\n" not in str(caught.value)


def test_skipping_every_layer_leaves_nothing():
    with pytest.raises(UserError, match="skip=.*nothing to prune"):
        baselines.magnitude(
            Net(), [], 0.5, baselines.ScopeOptions(skip=("conv", "fc")), toy.generator()
        )


# -- costs count what runs -------------------------------------------------------------------------


class Attention(nn.Module):
    """torch's attention called by hand, which has a fused path of its own."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(25, 5, batch_first=True)

    def forward(self, x):
        x = x.flatten(2)
        return self.attention(x, x, x, need_weights=False)[0]


COUNTED = {
    "Conv1d": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(2, 3, 5), nn.Flatten()),
    "Conv3d": lambda: nn.Sequential(nn.Unflatten(1, (1, 2)), nn.Conv3d(1, 3, (2, 3, 3))),
    "ConvTranspose2d": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ConvTranspose2d(4, 3, 3, stride=2, groups=1)
    ),
    "functional": Functional,
    "attention": lambda: nn.Sequential(
        nn.Flatten(2), nn.TransformerEncoderLayer(25, 5, 8, batch_first=True), nn.Linear(25, 3)
    ),
    "attention by hand": Attention,
    "functional reuse": lambda: reused(),
}


@pytest.mark.parametrize("kind", COUNTED)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_costs_are_those_of_torchs_counter(kind, device):
    model = COUNTED[kind]().eval().to(device)
    cost = costs(model, (2, 5, 5))
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            FlopCounterMode(display=False) as counter,
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        ):
            model(torch.zeros(1, 2, 5, 5, device=device))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert counter.get_total_flops() == 2 * cost.macs > 0
    assert (cost.other_macs > 0) == ("Conv" not in kind) and cost.macs == cost.nonzero_macs


def test_the_projection_behind_attention_counts_its_mask():
    """25 numbers a token, 2 tokens: torch multiplies by out_proj's weight without calling it."""
    model = nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(25, 5, 8, batch_first=True))
    mask = torch.zeros(25, 25, dtype=torch.bool)
    mask[:5] = True
    cost = costs(model, (2, 5, 5), {"1.self_attn.out_proj.weight": mask})
    layer = next(layer for layer in cost.layers if layer.name == "1.self_attn.out_proj")
    assert (layer.macs, layer.nonzero_macs) == (2 * 625, 2 * 125)
    assert cost.macs - cost.nonzero_macs == 2 * 500
    # in_proj, and two products of 2 x 2 scores over 25 numbers
    assert cost.other_macs == 2 * 3 * 625 + 2 * 2 * 2 * 25
