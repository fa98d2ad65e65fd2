"""What comes in from outside: outputs, loaders, labels, ways of calling a layer. Each kind works,
with the numbers of the plain form, or is refused in one line, whatever the method."""

import collections
import dataclasses
import typing
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from common.cells import registry
from common.cells.errors import LayerError, NumericalError, UserError
from common.cells.registry import METHODS
from common.curvature.diag import diagonal_fisher
from common.curvature.kron import input_hessian, kron_factors
from common.curvature.rows import gradient_rows
from common.nets import layers as L
from common.nets.clone import clone
from common.pruning import baselines
from common.running import train as T
from tests import toy
from tests.common.test_assumptions import DATA_FREE, ESTIMATORS, Net, run

TYPED = (LayerError, NumericalError, UserError)


class Returns(nn.Module):
    """A network whose output is not the logits alone."""

    def __init__(self, wrap):
        super().__init__()
        self.net, self.wrap = Net(), wrap

    def forward(self, x):
        return self.wrap(self.net(x))


class Output(collections.OrderedDict):
    """As model libraries return them."""

    @property
    def logits(self):
        return self["logits"]


@dataclasses.dataclass
class Record:
    logits: torch.Tensor


class Fields(typing.NamedTuple):
    scores: torch.Tensor


FIELDS = {
    "dict": lambda y: {"aux": y * 2, "logits": y},
    "tuple": lambda y: (y, y * 2),
    "list": lambda y: [y],
    "model output": lambda y: Output(logits=y),
    "dataclass": Record,
    "segmentation": lambda y: {"out": y, "aux": y * 2},
}
OUTPUTS = {
    "other names": (lambda y: {"scores": y}, r"a dict without a tensor .*model\(x\)\['scores'\]"),
    "no tensor": (lambda y: (None, y), "a tuple without a tensor"),
    "named tuple": (Fields, "a Fields without a tensor"),
    "a score for each position": (
        lambda y: y[:, :, None].expand(-1, -1, 4),
        "are not one number a position",
    ),
    "flat": (lambda y: y[:, 0], "not .batch, classes"),
}


# tensors all the same, of another shape: layers' inputs are seen whatever the labels are
TENSORS = ("a score for each position", "flat")


@pytest.mark.parametrize("kind", FIELDS)
def test_predictions_are_found_in_the_usual_fields(kind):
    plain, model, (x, y) = Net().double(), Returns(FIELDS[kind]).double(), toy.batch()
    model.net.load_state_dict(plain.state_dict())
    for estimate in ESTIMATORS.values():
        wanted, found = estimate(plain, [(x, y)]), estimate(model, [(x, y)])
        for name, value in wanted.items():
            other = found[f"net.{name}"]
            if isinstance(value, torch.Tensor):
                assert torch.equal(other, value)
            else:
                assert torch.equal(other.A, value.A) and torch.equal(other.G, value.G)
    assert T.evaluate(model, [(x, y)]) == T.evaluate(plain, [(x, y)])
    assert T.top_accuracy(model, [(x, y)], 1) == T.top_accuracy(plain, [(x, y)], 1)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_an_output_that_is_not_logits_is_refused(kind):
    wrap, message = OUTPUTS[kind]
    model, (x, y) = Returns(wrap).double(), toy.batch()
    for name, estimate in ESTIMATORS.items():
        if name == "hessian" and kind in TENSORS:
            continue  # inputs alone: what the network makes of them does not matter
        with pytest.raises(UserError, match=message):
            estimate(model, [(x, y)])
    with pytest.raises(UserError, match=message):
        T.evaluate(model, [(x, y)])


# -- loaders ---------------------------------------------------------------------------------------

X, Y = toy.batch(6)
PAIR = [(X[:3], Y[:3]), (X[3:], Y[3:])]


def one_hot(y):
    return nn.functional.one_hot(y, 3).double()


# the kinds that work, as the plain pairs do
WELCOME = {
    "tuples": PAIR,
    "lists": [list(batch) for batch in PAIR],
    "generator": None,  # made anew each time
    "data loader": torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), 3),
    "numpy": [(x.numpy(), y.numpy()) for x, y in PAIR],
    "labels of 32 bits": [(x, y.int()) for x, y in PAIR],
    "labels of 8 bits": [(x, y.to(torch.uint8)) for x, y in PAIR],
    "labels in a list": [(x, y.tolist()) for x, y in PAIR],
    "inputs with gradients": [(x.clone().requires_grad_(), y) for x, y in PAIR],
    "empty batches between": [(X[:0], Y[:0]), PAIR[0], (X[:0], Y[:0]), PAIR[1]],
}
REFUSED = {
    "dicts": ([{"image": x, "label": y} for x, y in PAIR], r"batch\['image'\], batch\['label'\]"),
    "triples": ([(x, y, y) for x, y in PAIR], "no pairs"),
    "inputs alone": ([x for x, _ in PAIR], "no pairs"),
    "dicts of inputs": ([({"x": x}, y) for x, y in PAIR], "inputs of a batch are no tensor"),
    "fewer labels": ([(x, y[:2]) for x, y in PAIR], "not as many labels"),
    "sparse": ([(x.to_sparse(), y) for x, y in PAIR], "not all there; give x.to_dense"),
    "without values": ([(x.to("meta"), y) for x, y in PAIR], "not all there"),
    "another number of channels": ([(x[:, :1], y) for x, y in PAIR], "fails on inputs of shape"),
    "shapes that differ": (
        [PAIR[0], (PAIR[1][0][..., :4], PAIR[1][1])],
        "different shapes|fails on inputs of shape",
    ),
    "no batch": ([], "no batch was seen|only 0 examples|has 0|at least one example"),
    "not a loader": (None, "cannot be read"),
    "bytes": ([((x * 50).to(torch.uint8), y) for x, y in PAIR], r"give x.float\(\) / 255"),
    "half precision": ([(x.half(), y) for x, y in PAIR], r"give x.to\(torch.float64\)"),
    "single precision": ([(x.float(), y) for x, y in PAIR], r"give x.to\(torch.float64\)"),
}
LABELS = {
    "one-hot": ([(x, one_hot(y)) for x, y in PAIR], r"y.argmax\(1\)"),
    "one-hot integers": ([(x, one_hot(y).long()) for x, y in PAIR], "not one number an example"),
    "a column": ([(x, y[:, None]) for x, y in PAIR], r"give y.squeeze\(1\)"),
    "floats": ([(x, y.double()) for x, y in PAIR], r"give y.long\(\)"),
    "bool": ([(x, y > 1) for x, y in PAIR], r"give y.long\(\)"),
}


AMOUNTS = ("0.5", None, [0.5], True, torch.tensor(0.5), 10**400, float("nan"), -0.5, 1.0)


@pytest.mark.parametrize("amount", AMOUNTS, ids=lambda amount: repr(amount)[:12])
def test_an_amount_that_is_no_fraction_is_refused_by_every_method(amount):
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)
    )
    model = toy.seeded(net)
    for method in METHODS:
        prune = registry.load(method)
        options = typing.get_type_hints(prune)["options"](**METHODS[method].preset)
        with pytest.raises(UserError, match="(sparsity|unit_ratio)=") as caught:
            prune(model, PAIR, amount, options, toy.generator())
        assert "\n" not in str(caught.value), method


@pytest.mark.parametrize("layer", [lambda: nn.LazyLinear(4), lambda: nn.Linear(0, 4)])
def test_a_layer_without_a_shape_or_without_weights_is_named(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(layer())
    with pytest.raises(LayerError, match="'0': (its weight has no shape yet|has no weights)"):
        L.prunable(model)


def loader(kind):
    return (batch for batch in PAIR) if kind == "generator" else WELCOME[kind]


@pytest.mark.parametrize("kind", WELCOME)
def test_welcome_loaders_give_what_pairs_give(kind):
    model = toy.small_net()
    wanted, found = gradient_rows(model, PAIR, 6), gradient_rows(model, loader(kind), 6)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    wanted, found = diagonal_fisher(model, PAIR), diagonal_fisher(model, loader(kind))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    wanted, found = input_hessian(model, PAIR), input_hessian(model, loader(kind))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    wanted = kron_factors(model, PAIR, fisher="empirical")
    found = kron_factors(model, loader(kind), fisher="empirical")
    assert all(torch.equal(found[name].G, wanted[name].G) for name in wanted)


@pytest.mark.parametrize("kind", REFUSED)
def test_other_loaders_are_refused_in_the_same_words_by_every_estimate(kind):
    batches, message = REFUSED[kind]
    for estimate in ESTIMATORS.values():
        with pytest.raises(UserError, match=message) as caught:
            estimate(toy.small_net(), batches)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", LABELS)
def test_labels_that_are_no_class_numbers_are_refused(kind):
    batches, message = LABELS[kind]
    for estimate in (
        lambda net: gradient_rows(net, batches, 6),
        lambda net: diagonal_fisher(net, batches),
        lambda net: kron_factors(net, batches, fisher="empirical"),
        lambda net: T.evaluate(net, batches),
    ):
        with pytest.raises(UserError, match=message):
            estimate(toy.small_net())


def network():
    """Of every kind of layer that a method may ask for."""
    torch.manual_seed(0)
    parts = {"norm": nn.BatchNorm2d(4), "last": nn.Conv2d(4, 4, 1)}
    return Net(lambda net, y: torch.relu(net.last(net.norm(y))), **parts).double().eval()


@pytest.mark.parametrize("kind", [*REFUSED, *OUTPUTS])
def test_every_method_refuses_what_the_estimates_refuse(kind):
    for method in METHODS:
        model = Returns(OUTPUTS[kind][0]).double() if kind in OUTPUTS else network()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        batches = REFUSED[kind][0] if kind in REFUSED else PAIR
        try:
            run(method, model, batches)
        except TYPED as error:
            assert "\n" not in str(error), method
        else:
            inputs_alone = method.startswith("l-obs") and kind in TENSORS
            assert method in DATA_FREE or inputs_alone, method
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()), method


# -- ways of calling -------------------------------------------------------------------------------


class Tokens(nn.Module):
    """Integers come in."""

    def __init__(self):
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(9, 4), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.body(self.embed(x)).tanh().mean(1))


class Called(nn.Module):
    """conv and two linear layers, reached as `call` says; input [2, 5, 5]."""

    def __init__(self, call):
        super().__init__()
        self.conv, self.fc, self.head = nn.Conv2d(2, 4, 3), nn.Linear(36, 5), nn.Linear(5, 3)
        self.call = call

    def body(self, x):
        return self.fc(torch.relu(self.conv(x)).flatten(1)).tanh()

    def forward(self, x):
        return self.call(self, x)


def keyword(net, x):
    y = torch.relu(net.conv(input=x)).flatten(1)
    return net.head(input=net.fc(input=y).tanh())


def stores(net, x):
    net.kept = [net.body(x)]
    net.last = net.head(net.kept[0])
    return net.last


CALLS = {
    "keyword": keyword,
    "checkpointing": lambda net, x: net.head(checkpoint(net.body, x, use_reentrant=False)),
    "stores its outputs": stores,
}


def called(call):
    torch.manual_seed(0)
    return Called(call).double()


@pytest.mark.parametrize("kind", CALLS)
def test_layers_reached_another_way_have_the_same_curvature(kind):
    plain, model = called(lambda net, x: net.head(net.body(x))), called(CALLS[kind])
    for estimate in (
        lambda net: gradient_rows(net, PAIR, 6),
        lambda net: diagonal_fisher(net, PAIR),
        lambda net: input_hessian(net, PAIR),
        lambda net: {n: f.G for n, f in kron_factors(net, PAIR, fisher="exact").items()},
    ):
        wanted, found = estimate(plain), estimate(model)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    for method in ("obd-global", "l-obs", "woodfisher", "nap", "kfac-prune"):
        wanted, found = run(method, plain, PAIR), run(method, model, PAIR)
        assert found.masks and all(
            torch.equal(found.masks[name], mask) for name, mask in wanted.masks.items()
        ), method


def test_token_ids_are_inputs_like_any_other():
    torch.manual_seed(0)
    model, x = Tokens().double(), torch.randint(9, (6, 7))
    rows = gradient_rows(model, [(x, Y)], 6)
    for i in range(6):
        loss = nn.functional.cross_entropy(model(x[i : i + 1]), Y[i : i + 1])
        found = torch.autograd.grad(loss, [model.body.weight, model.head.weight])
        for name, gradient in zip(("body", "head"), found, strict=True):
            torch.testing.assert_close(rows[name][i], gradient.flatten())
    for method in METHODS:
        try:
            pruned = run(method, model, [(x, Y)])
        except UserError as error:
            assert "\n" not in str(error), method
        else:
            assert pruned.model(x).shape == (6, 3), method


def reentrant(net, x):
    return net.head(checkpoint(net.body, x.requires_grad_(), use_reentrant=True))


def no_grad(net, x):
    with torch.no_grad():
        return net.head(net.body(x))


def largest(net, x):
    found = net.head(net.fc(net.conv(x).flatten(1)))
    return nn.functional.one_hot(found.argmax(1), found.shape[1]).to(x.dtype)


def overwrites(net, x):
    x = x * 1
    y = net.conv(x)
    return net.head(net.fc((y + x.relu_()[:, :1, :3, :3]).flatten(1)))


HIDDEN = {
    "re-entrant checkpointing": (reentrant, "runs without gradients"),
    "no_grad in forward": (no_grad, "runs without gradients|does not reach the loss"),
    "predictions without a gradient": (largest, "does not reach the loss"),
    "input overwritten": (overwrites, "changed in place"),
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_a_gradient_that_cannot_be_seen_is_refused(kind):
    call, message = HIDDEN[kind]
    for name in ("rows", "diagonal", "kron"):
        with pytest.raises(LayerError, match=message):
            ESTIMATORS[name](called(call), [(X.clone(), Y)])


def test_inference_mode_is_refused_and_its_tensors_are_not():
    with torch.inference_mode():
        x, y = X * 1, Y * 1
        made = toy.small_net()
    model = network()
    for method in METHODS:
        with torch.inference_mode(), pytest.raises(UserError, match="outside of it"):
            run(method, model, PAIR)
    rows, wanted = (
        gradient_rows(toy.small_net(), [(x, y)], 6),
        gradient_rows(toy.small_net(), PAIR, 6),
    )
    assert all(torch.equal(rows[name], wanted[name]) for name in wanted)
    with pytest.raises(LayerError, match="made under torch.inference_mode"):
        L.prunable(made)


def test_a_model_under_torchs_own_pruning_is_refused_by_every_method():
    model = network()
    prune.l1_unstructured(model.conv, "weight", 0.5)
    for method in METHODS:
        with pytest.raises(LayerError, match="'conv': its weight is computed"):
            run(method, model, PAIR)


def test_what_cannot_be_copied_is_refused_in_one_line():
    model = network()
    model.stream = (line for line in "ab")
    with pytest.raises(UserError, match="model='Net': cannot be copied"):
        clone(model)
    with pytest.raises(UserError, match="cannot be copied"):
        baselines.magnitude(model, [], 0.5, baselines.ScopeOptions(), toy.generator())


def test_numpy_labels_of_any_integer_width_count_in_the_evaluation():
    batches = [(x, torch.from_numpy(y.numpy().astype(np.int16))) for x, y in PAIR]
    model = toy.small_net()
    assert T.evaluate(model, batches) == T.evaluate(model, PAIR)


def test_measures_of_no_data_are_refused_and_change_nothing():
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for measure in (
        lambda: T.evaluate(model, []),
        lambda: T.top_accuracy(model, [], 1),
        lambda: T.recalibrate_bn(model, [], 3),
    ):
        with pytest.raises(UserError, match="no batch was seen"):
            measure()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("kind", [kind for kind in OUTPUTS if kind not in TENSORS])
def test_the_measures_take_logits_alone(kind):
    model = Returns(OUTPUTS[kind][0]).double()
    with pytest.raises(UserError, match=OUTPUTS[kind][1]):
        T.top_accuracy(model, PAIR, 1)
