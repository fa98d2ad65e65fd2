"""C-OBD, C-OBS, Kron-OBD and Kron-OBS against the dense Fisher they stand for, and what is left of
the network.
"""

import copy

import pytest
import torch
from torch import nn

from common.cells.errors import LayerError, NumericalError, UserError
from common.curvature.kron import Kron, KronInverse, kron_factors
from common.nets import checkpoint, models
from common.nets import layers as L
from common.nets.surgery import apply_edits, channel_groups, zero_units
from common.pruning import channels
from eigendamage import c_obd, c_obs, filters, kron_obd, kron_obs
from eigendamage import method as eigen
from eigendamage.threshold import percentile
from tests import reference, toy

METHODS = {
    "c-obd": (c_obd.prune, filters.FilterOptions()),
    "c-obs": (c_obs.prune, filters.KronOptions()),
    "kron-obd": (kron_obd.prune, kron_obd.Options()),
    "kron-obs": (kron_obs.prune, kron_obs.Options()),
}
EVERY = METHODS | {"eigendamage": (eigen.prune, eigen.Options())}


def factors(groups: int = 1, out: int = 4, width: int = 5) -> Kron:
    g = toy.generator(1)
    draw = lambda d: (
        (r := torch.randn(groups, d + 2, d, generator=g, dtype=torch.float64)).mT @ r / d
    )
    return Kron(draw(width), draw(out), 1)


def weight(groups: int = 1, out: int = 4, width: int = 5):
    return torch.randn(groups, out, width, generator=toy.generator(2), dtype=torch.float64)


def network(name: str = "digits_cnn:width=0.25", classes: int = 3):
    return toy.seeded(models.build(name, classes, (1, 8, 8), 0))


def loader(examples: int = 24):
    x, y = toy.batch(examples, (1, 8, 8))
    return [(x[:16], y[:16]), (x[16:], y[16:])]


def test_kron_obd_is_the_quadratic_of_each_filters_own_block():
    """½ θ_iᵀ (S_ii A) θ_i with the block cut out of the dense S ⊗ A."""
    f, W = factors(), weight()
    dense, scores = f.dense()[0], kron_obd.importance(W, f)
    for i in range(4):
        own = slice(5 * i, 5 * i + 5)
        assert scores[i] == pytest.approx(
            float(0.5 * W[0, i] @ dense[own, own] @ W[0, i]), rel=1e-12
        )


def test_the_released_form_squares_the_weights_first():
    f, W = factors(), weight()
    expected = [0.5 * f.G[0, i, i] * (W[0, i] ** 2 @ f.A[0]).sum() for i in range(4)]
    torch.testing.assert_close(
        kron_obd.importance(W, f, "released"), torch.stack(expected), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_kron_obs_is_the_constrained_minimum_for_a_filter(groups):
    """Score, update and predicted increase, on the dense damped G ⊗ A."""
    inverse, W = KronInverse.of(factors(groups), 1e-2, relative=True), weight(groups)
    dense = torch.block_diag(*Kron(inverse.A, inverse.G, 1).dense())
    scores = kron_obs.importance(W, inverse)
    for i in range(4 * groups):
        gone = torch.zeros(4 * groups, dtype=torch.bool).index_fill(0, torch.tensor(i), True)
        delta, increase = reference.constrained_minimum(
            dense, W.flatten(), gone.repeat_interleave(5)
        )
        mine, predicted = kron_obs.change(W, inverse, gone)
        torch.testing.assert_close(mine.flatten(), delta, rtol=1e-9, atol=1e-11)
        assert float(scores[i]) == pytest.approx(increase, rel=1e-9)
        assert predicted == pytest.approx(increase, rel=1e-9)


def test_joint_kron_obs_is_the_constrained_minimum_for_several_and_the_papers_sum_is_not_better():
    inverse, W = KronInverse.of(factors(), 1e-2, relative=True), weight()
    gone = torch.tensor([True, False, True, False])
    delta, increase = reference.constrained_minimum(
        Kron(inverse.A, inverse.G, 1).dense()[0], W.flatten(), gone.repeat_interleave(5)
    )
    mine, predicted = kron_obs.change(W, inverse, gone, "joint")
    torch.testing.assert_close(mine.flatten(), delta, rtol=1e-9, atol=1e-11)
    assert predicted == pytest.approx(increase, rel=1e-9)
    assert kron_obs.change(W, inverse, gone)[1] > predicted


def test_c_obs_sums_single_weights():
    inverse, W = KronInverse.of(factors(), 1e-2, relative=True), weight()
    dense_inverse = torch.linalg.inv(Kron(inverse.A, inverse.G, 1).dense()[0])
    expected = (W.flatten() ** 2 / (2 * dense_inverse.diagonal())).reshape(4, 5).sum(1)
    torch.testing.assert_close(c_obs.importance(W, inverse), expected, rtol=1e-10, atol=0)
    gone = torch.tensor([False, True, True, False])
    delta, _ = c_obs.change(W, inverse, gone)
    torch.testing.assert_close(
        delta.flatten(),
        reference.summed_single(dense_inverse, W.flatten(), gone.repeat_interleave(5)),
        rtol=1e-9,
        atol=1e-11,
    )


def test_c_obd_sums_the_diagonal_of_the_fisher():
    """Through prune: the prediction is ½ Σ w² F over the filters that went, F from one backward
    pass an example.
    """
    model, data = network(), loader()
    result = c_obd.prune(
        model, data, 0.4, filters.FilterOptions(fisher="empirical"), toy.generator()
    )
    x, y = (torch.cat(parts) for parts in zip(*data))
    keep = {(e["module"], e["axis"]): e["keep"] for e in result.edits}
    expected = 0.0
    for name, module in model.named_modules():
        if (name, "out") in keep and isinstance(module, nn.Conv2d | nn.Linear):
            fisher = (
                reference.per_example_gradients(model, module, x, y)
                .square()
                .mean(0)
                .reshape(module.weight.shape)
            )
            gone = [i for i in range(len(module.weight)) if i not in keep[name, "out"]]
            expected += float((0.5 * module.weight.detach() ** 2 * fisher)[gone].sum())
    assert result.predicted_increase == pytest.approx(expected, rel=1e-5) and expected > 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["digits_cnn:width=0.25", "lenet300", "preresnet29:width=0.25"])
def test_the_narrowed_network_is_the_masked_one(method, name, monkeypatch):
    """The same choice and update at full size, with zeros in place of what was cut; the edits
    rebuild the narrow one.
    """
    prune, options = METHODS[method]
    model, data = network(name), loader()
    result = prune(model, data, 0.5, options, toy.generator())
    monkeypatch.setattr(
        channels, "narrow", lambda m, groups, keep: zero_units(m, groups, keep) and []
    )
    masked = prune(model, data, 0.5, options, toy.generator())
    assert sum(p.numel() for p in result.model.parameters()) < sum(
        p.numel() for p in masked.model.parameters()
    )
    torch.testing.assert_close(
        result.model(data[0][0]), masked.model(data[0][0]), rtol=1e-9, atol=1e-9
    )
    again = copy.deepcopy(model)
    apply_edits(again, result.edits)
    again.load_state_dict(result.model.state_dict())
    assert torch.equal(again(data[0][0]), result.model(data[0][0]))


def test_a_coupled_unit_scores_the_sum_of_its_filters_and_exactly_the_asked_number_goes():
    model, data = network(), loader()
    net = filters.Filters(model, data)
    scores = {
        name: torch.rand(len(m.weight), generator=toy.generator(3), dtype=torch.float64)
        for name, m in net.layers.items()
    }
    coupled = next(
        g
        for g in net.channels.groups
        if {"conv2", "conv4"} <= {m.module for m in g.members if m.axis == "out"}
    )
    best = int((scores["conv2"] + scores["conv4"]).argmax())
    result = net.remove(scores, 0.5, 1.0)
    total = sum(g.size for g in net.channels.groups)
    left = sum(g.size for g in channel_groups(result.model, data[0][0]))
    assert left == total - round(0.5 * total)
    kept = next(
        (e["keep"] for e in result.edits if e["module"] == coupled.name and e["axis"] == "out"),
        list(range(coupled.size)),
    )
    assert best in kept


def test_the_cap_holds_the_best_unit_stays_and_the_notes_say_so():
    scores = {"small": torch.linspace(1e-6, 1e-5, 20), "large": torch.linspace(1, 2, 20)}
    kept, notes = percentile(scores, 0.6, 0.5)
    assert kept["small"].nonzero().flatten().tolist() == list(range(10, 20))
    assert int(kept["large"].sum()) == 15 or int(kept["large"].sum()) == 16
    assert "small: capped at 10 of 20 units" in notes and "24 were asked" in notes[-1]
    kept, _ = percentile({"one": torch.tensor([3.0]), "two": torch.arange(9.0)}, 0.5, 0.95)
    assert kept["one"].all() and kept["two"][8]


def test_a_bias_goes_and_is_updated_with_its_filter():
    """Kron-OBS treats the bias as the weight of a constant input."""
    model, data = network("lenet300"), loader()
    net = filters.Filters(model, data)
    assert L.joined(model.fc1, True).shape == (1, 300, 65)
    inverse = net.inverses(filters.KronOptions(), toy.generator())["fc1"]
    gone = torch.arange(300) % 2 == 0
    delta, _ = kron_obs.change(L.joined(model.fc1, True), inverse, gone)
    assert delta[0, 1::2, -1].abs().max() > 0


def test_a_layer_without_any_gradient_is_damped_by_its_inputs():
    """Predictions so sure that every gradient is exactly zero: no curvature, no failure, whatever
    the size of A.
    """
    f = Kron(1e6 * factors().A, torch.zeros(1, 4, 4, dtype=torch.float64), 1)
    # as rounding may
    f.A[0] -= 2e-8 * torch.linalg.eigvalsh(f.A[0]).max() * torch.eye(5, dtype=torch.float64)
    inverse = KronInverse.of(f, 1e-4, relative=True)
    assert inverse.damping["A"][0] == pytest.approx(1e-2 * float(f.A[0].diagonal().mean()))
    assert torch.isfinite(kron_obs.importance(weight(), inverse)).all()


@pytest.mark.parametrize("method", EVERY)
def test_bad_input_is_a_typed_error_and_the_network_is_untouched(method):
    prune, options = EVERY[method]
    model, data = network(), loader()
    before = checkpoint.state_hash(model)
    with pytest.raises(UserError, match="outside"):
        prune(model, data, 1.0, options, toy.generator())
    with pytest.raises(UserError, match="fewer than 1"):
        prune(model, data, 0.99, options, toy.generator())
    with pytest.raises(UserError, match="calibration"):
        prune(model, [], 0.5, options, toy.generator())
    with pytest.raises(UserError, match="masks"):
        prune(
            model,
            data,
            0.5,
            options,
            toy.generator(),
            {"conv1.weight": torch.ones(4, 1, 3, 3, dtype=torch.bool)},
        )
    with pytest.raises(UserError, match="cap"):
        type(options)(cap=0.0)
    with pytest.raises(UserError, match="fisher"):
        type(options)(fisher="true")
    with pytest.raises(NumericalError, match="not finite"):
        prune(
            model,
            [
                (
                    torch.full((4, 1, 8, 8), torch.nan, dtype=torch.float64),
                    torch.zeros(4, dtype=torch.long),
                )
            ],
            0.5,
            options,
            toy.generator(),
        )
    flags = [p.requires_grad for p in model.parameters()]
    prune(model, data, 0.5, options, toy.generator())
    assert (
        checkpoint.state_hash(model) == before
        and [p.requires_grad for p in model.parameters()] == flags
    )
    with torch.no_grad():
        model.conv2.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(NumericalError, match="conv2.*not finite"):
        prune(model, data, 0.5, options, toy.generator())


def test_a_grouped_convolution_is_refused_by_name_and_can_be_skipped():
    model, data = network("mobilenet_v1:width=0.25"), loader(20)
    grouped = [
        name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups > 1
    ]
    with pytest.raises(LayerError, match="cannot be rotated; name it in skip"):
        eigen.prune(model, data, 0.5, eigen.Options(), toy.generator())
    assert eigen.prune(model, data, 0.5, eigen.Options(skip=tuple(grouped)), toy.generator()).edits


class Shuffled(nn.Module):
    """Channels are mixed by a reshape between two convolutions (a channel shuffle)."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.relu(self.conv1(x))
        x = x.reshape(len(x), 2, 3, *x.shape[2:]).transpose(1, 2).reshape(len(x), 6, *x.shape[2:])
        return self.fc(torch.relu(self.conv2(x)).mean((2, 3)))


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_whose_channels_a_forward_reshapes_stays_whole_and_is_named(method):
    prune, options = METHODS[method]
    model, data = toy.seeded(Shuffled()), loader()
    before = checkpoint.state_hash(model)
    for settings in (options, type(options)(skip=("conv1",))):
        result = prune(model, data, 0.5, settings, toy.generator())
        assert result.model.conv1.out_channels == 6 and result.model.conv2.out_channels == 2
        named = [note for note in result.notes if note.startswith("conv1: kept whole")]
        assert len(named) == (settings is options)
    with pytest.raises(LayerError, match="conv1.*name it in skip"):
        prune(model, data, 0.5, type(options)(skip=("conv2",)), toy.generator())
    assert checkpoint.state_hash(model) == before
    # outer shapes stay, so nothing has to be followed
    rotated = eigen.prune(model, data, 0.7, eigen.Options(), toy.generator())
    assert rotated.edits and torch.isfinite(rotated.model(data[0][0])).all()


@pytest.mark.parametrize("method", ["c-obs", "kron-obs"])
def test_singular_factors_leave_finite_answers_and_their_damping_in_the_record(method):
    """A dead input, and outputs whose gradients are all the same: A and S have null directions."""
    prune, options = METHODS[method]
    model, data = (
        network("lenet300"),
        [(x * (torch.arange(64).reshape(1, 1, 8, 8) > 20), y) for x, y in loader()],
    )
    model.fc2.weight.data[1:] = model.fc2.weight.data[0]
    result = prune(model, data, 0.5, options, toy.generator())
    assert (
        torch.isfinite(torch.tensor(result.predicted_increase))
        and torch.isfinite(result.model(data[0][0])).all()
    )
    assert set(result.layers) == {"fc1", "fc2"} and all(
        v > 0 for layer in result.layers.values() for v in layer.values()
    )


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("name", ["c-obs", "kron-obs"])
def test_damping_follows_the_size_of_the_factors(name, scale):
    """√γ = 1% of each factor's mean eigenvalue is added to it, so that inputs a hundred times as
    large change no choice between units; the record says how much it was."""
    model = network()
    function, options = METHODS[name]
    batches = [(scale * x, y) for x, y in loader()]
    result = function(model, batches, 0.4, options, toy.generator(3))
    wanted = kron_factors(
        model, batches, L.prunable(model, ("fc2",)), bias=True, generator=toy.generator(3)
    )
    assert set(result.layers) == set(wanted)
    for layer, told in result.layers.items():
        for factor in "AG":
            mean = float(getattr(wanted[layer], factor).diagonal(dim1=-2, dim2=-1).mean())
            assert told[f"damping_{factor}"] == pytest.approx(0.01 * mean, rel=1e-9)
