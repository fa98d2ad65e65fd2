"""Kronecker factors against brute force, and against the dense Fisher wherever theory says they are
exact.
"""

import copy

import pytest
import torch
from torch import nn

from common.cells.errors import LayerError, NumericalError, UserError
from common.curvature import kron
from common.curvature.kron import (
    Kron,
    KronInverse,
    input_hessian,
    input_moment,
    kron_factors,
    second_moment,
    split_bias,
)
from common.curvature.moving import MovingKron
from common.nets import layers as L
from common.nets.capture import capture
from tests import reference, toy


def equal(a, b, tolerance=1e-10):
    a, b = a.detach(), b.detach()
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", toy.CONVOLUTIONS)
def test_input_factor_equals_the_sum_over_positions(kind, bias):
    model = toy.conv_head(kind, bias)
    x, _ = toy.batch()
    equal(input_moment(model[0], x, bias) / len(x), reference.kfac_A(model[0], x, bias))


@pytest.mark.parametrize("kind", toy.CONVOLUTIONS)
def test_layout_turns_convolution_into_a_product(kind):
    model = toy.conv_head(kind)
    x, _ = toy.batch()
    conv = model[0]
    product = L.inputs(conv, x) @ L.to_matrix(conv, conv.weight).mT  # [B, groups, T, out]
    equal(product, L.gradients(conv, conv(x)))  # an output has a gradient's layout


@pytest.mark.parametrize("kind", toy.CONVOLUTIONS)
def test_channel_only_factor_is_the_mean_of_the_position_blocks(kind):
    model = toy.conv_head(kind)
    x, _ = toy.batch()
    conv = model[0]
    taps = conv.kernel_size[0] * conv.kernel_size[1]
    full = reference.kfac_A(conv, x).reshape(
        conv.groups, -1, taps, conv.in_channels // conv.groups, taps
    )
    blocks = torch.stack([full[:, :, i, :, i] for i in range(taps)])
    equal(input_moment(conv, x, channel_only=True) / len(x), blocks.mean(0))


@pytest.mark.parametrize("kind", toy.CONVOLUTIONS)
def test_exact_for_a_convolution_under_squared_loss(kind):
    """Output gradients of the Gaussian model are uncorrelated over positions, so G ⊗ A is the
    Fisher block itself.
    """
    model = toy.conv_head(kind)
    x, _ = toy.batch()
    y = torch.zeros_like(model(x))
    factors = kron_factors(model, [(x, y)], fisher="exact", loss="mse")["0"]
    truth = reference.exact_fisher(model, model[0], x, "mse")
    per_group = truth.shape[0] // model[0].groups
    for i, block in enumerate(factors.dense()):
        equal(
            block, truth[i * per_group : (i + 1) * per_group, i * per_group : (i + 1) * per_group]
        )


def test_exact_for_a_deep_linear_network_under_squared_loss():
    model = toy.seeded(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5), nn.Linear(5, 2)))
    x, _ = toy.batch(7, (4,))
    factors = kron_factors(model, [(x, torch.zeros(7, 2))], fisher="exact", loss="mse")
    for name, module in L.prunable(model).items():
        equal(factors[name].dense()[0], reference.exact_fisher(model, module, x, "mse"))


@pytest.mark.parametrize("fisher", ["exact", "empirical"])
def test_exact_for_one_example_of_a_classifier(fisher):
    model = toy.seeded(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)))
    x, y = toy.batch(1, (4,))
    factors = kron_factors(model, [(x, y)], fisher=fisher)
    for name, module in L.prunable(model).items():
        truth = (
            reference.exact_fisher(model, module, x)
            if fisher == "exact"
            else reference.empirical_fisher(model, module, x, y)
        )
        equal(factors[name].dense()[0], truth)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", toy.CONVOLUTIONS)
def test_patches_taken_an_example_at_a_time_are_the_same_patches(kind, bias, monkeypatch):
    module, (x, _) = toy.conv_head(kind, bias=bias)[0], toy.batch(5, (2, 6, 6))
    truth = input_moment(module, x, bias)
    monkeypatch.setattr(kron, "POSITIONS", 1)
    equal(input_moment(module, x, bias), truth)


@pytest.mark.parametrize("width", [1, 159, 160, 161, 401])
def test_a_second_moment_formed_in_strips_is_the_product(width):
    rows = torch.randn(5, 2, 3, width, generator=toy.generator(), dtype=torch.float64)
    truth = torch.einsum("bgti,bgtj->gij", rows, rows)
    torch.testing.assert_close(second_moment(rows), truth, rtol=1e-12, atol=1e-12)


def test_bias_is_the_homogeneous_coordinate():
    model = toy.seeded(nn.Sequential(nn.Linear(4, 3)))
    x, y = toy.batch(1, (4,))
    A = kron_factors(model, [(x, y)], fisher="empirical", bias=True)["0"].A[0]
    equal(A, torch.outer(torch.cat([x[0], torch.ones(1)]), torch.cat([x[0], torch.ones(1)])))
    assert split_bias(Kron(A[None], torch.eye(3)[None], 1), model[0]).A.shape == (1, 4, 4)


def test_sampled_labels_approach_the_exact_ones():
    """2,000 draws: the relative standard error of each entry is about 1/√(2000·5)."""
    model, (x, y) = toy.small_net(), toy.batch()
    exact = kron_factors(model, [(x, y)], fisher="exact")
    sampled = kron_factors(model, [(x, y)] * 2000, fisher="sampled", generator=toy.generator(1))
    for name, factor in exact.items():
        equal(sampled[name].A, factor.A)
        torch.testing.assert_close(
            sampled[name].G, factor.G, rtol=0, atol=0.05 * float(factor.G.abs().max())
        )


def test_batches_do_not_matter_to_the_mean_and_moving_average_weighs_the_last():
    model, (x, y) = toy.small_net(), toy.batch(6)
    whole = kron_factors(model, [(x, y)], fisher="exact")
    split = kron_factors(model, [(x[:1], y[:1]), (x[1:4], y[1:4]), (x[4:], y[4:])], fisher="exact")
    moving = MovingKron(model, fisher="exact", decay=0.95)
    moving.update(x[:2], y[:2])
    moving.update(x[2:4], y[2:4])
    first = kron_factors(model, [(x[:2], y[:2])], fisher="exact")
    second = kron_factors(model, [(x[2:4], y[2:4])], fisher="exact")
    for name in whole:
        equal(split[name].A, whole[name].A)
        equal(split[name].G, whole[name].G)
        equal(moving.factors()[name].G, 0.95 * first[name].G + 0.05 * second[name].G)
        equal(moving.factors()[name].A, 0.95 * first[name].A + 0.05 * second[name].A)


def test_a_moving_average_starts_where_it_is_told_and_has_the_shapes():
    model, (x, y) = toy.small_net(), toy.batch(6)
    start = kron_factors(model, [(x[:2], y[:2])], fisher="exact", bias=True)
    name = next(iter(start))
    wide = start[name].A.shape[-1] + 1
    # of another network
    start[name] = Kron(
        torch.eye(wide, dtype=torch.float64)[None], start[name].G, start[name].positions
    )
    moving = MovingKron(model, decay=0.9, start=start, fisher="exact", bias=True)
    batches = [
        kron_factors(model, [(x[i : i + 2], y[i : i + 2])], fisher="exact", bias=True)
        for i in (2, 4)
    ]
    for i in (2, 4):
        moving.update(x[i : i + 2], y[i : i + 2])
    for layer, found in moving.factors().items():
        first, second = (batch[layer] for batch in batches)
        begin = (
            first
            if layer == name
            else Kron(0.9 * start[layer].A + 0.1 * first.A, 0.9 * start[layer].G + 0.1 * first.G, 1)
        )
        equal(found.A, 0.9 * begin.A + 0.1 * second.A)
        equal(found.G, 0.9 * begin.G + 0.1 * second.G)
        assert found.positions == first.positions


def test_a_moving_average_refuses_what_is_not_finite():
    model, (x, y) = toy.small_net(), toy.batch(2)
    moving = MovingKron(model, decay=0.95, fisher="empirical")
    moving.update(x * float("inf"), y)
    with pytest.raises(NumericalError, match="not finite"):
        moving.factors()


def test_second_oracle_curvlinops():
    curvlinops = pytest.importorskip("curvlinops")
    model = toy.seeded(
        nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(75, 4, bias=False),
        )
    )
    x, y = toy.batch(6, classes=4)
    ours = kron_factors(model, [(x, y)], fisher="exact")
    weights = list(model.parameters())
    operator = curvlinops.KFACLinearOperator(
        model,
        nn.CrossEntropyLoss(reduction="mean"),
        weights,
        [(x, y)],
        fisher_type=curvlinops.FisherType.TYPE2,
        separate_weight_and_bias=False,
    )
    theirs = operator @ torch.eye(sum(p.numel() for p in weights), dtype=torch.float64)
    first = model[0].weight.numel()
    equal(ours["0"].dense()[0], theirs[:first, :first], 1e-8)
    equal(ours["3"].dense()[0], theirs[first:, first:], 1e-8)


def test_layer_hessian_is_the_mean_over_examples_and_positions():
    model, (x, y) = toy.small_net(), toy.batch(6)
    hessian = input_hessian(model, [(x[:4], y[:4]), (x[4:], y[4:])], bias=True)
    first = reference.seen_by_positions(model[0], x).flatten(0, 2)
    equal(hessian["0"][0], first.T @ first / len(first))
    strided = reference.seen_by_positions(model[3], model[:3](x), bias=True)
    assert hessian["3"].shape[0] == 2
    for group in range(2):
        rows = strided[:, group].flatten(0, 1)
        equal(hessian["3"][group], rows.T @ rows / len(rows))


@pytest.mark.parametrize("pi", [True, False])
@pytest.mark.parametrize("kind", ["plain", "grouped"])
def test_kron_inverse_is_the_inverse_of_the_damped_product(kind, pi):
    model, (x, y) = toy.conv_head(kind), toy.batch()
    y = torch.zeros_like(model(x))
    factors = kron_factors(model, [(x, y)], fisher="empirical", loss="mse")["0"]
    inverse = KronInverse.of(factors, 1e-2, pi=pi)
    blocks = []
    for A, G in zip(factors.A, factors.G):
        p = ((A.trace() / len(A)) / (G.trace() / len(G))).sqrt() if pi else 1.0
        blocks.append(
            torch.kron(
                G + 0.1 / p * torch.eye(len(G)).double(), A + p * 0.1 * torch.eye(len(A)).double()
            )
        )
    truth = torch.block_diag(*blocks)
    v = torch.randn(truth.shape[0], generator=toy.generator(), dtype=torch.float64)
    equal(inverse.diagonal(), torch.linalg.inv(truth).diagonal(), 1e-9)
    equal(inverse.solve(v), torch.linalg.solve(truth, v), 1e-9)
    equal(inverse.times(v), truth @ v)
    index = torch.randperm(len(v), generator=toy.generator())[:11]
    equal(inverse.submatrix(index), torch.linalg.inv(truth)[index][:, index], 1e-9)


def test_singular_factors_without_damping_name_the_layer():
    factors = Kron(torch.zeros(1, 3, 3).double(), torch.eye(2).double()[None], 1)
    with pytest.raises(NumericalError, match="'fc'.*singular"):
        KronInverse.of(factors, 0.0, name="fc")


def test_capture_leaves_the_model_as_it_was_even_after_an_error():
    model, (x, _) = toy.small_net(), toy.batch()
    model.train()
    model[1].eval()
    model[6].bias.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="on purpose"), capture(model, L.prunable(model)) as tape:
        tape.backward(tape.forward(x).sum())
        raise RuntimeError("on purpose")
    assert (
        model.training
        and not model[1].training
        and not model[6].bias.requires_grad
        and model[0].weight.requires_grad
    )
    assert (model[0].weight.grad == 1).all()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_in_place_relu_changes_nothing():
    x, y = toy.batch()
    plain = kron_factors(toy.small_net(), [(x, y)], fisher="exact")
    inplace = kron_factors(toy.small_net(inplace=True), [(x, y)], fisher="exact")
    for name, factor in plain.items():
        equal(inplace[name].A, factor.A)
        equal(inplace[name].G, factor.G)


class _Reads:
    """Small modules that an honest capture must refuse."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(self.fc(x))

    class Overwrites(Twice):
        def forward(self, x):
            x = x * 1
            return self.fc(x) + x.relu_()

    class Unused(Twice):
        def __init__(self):
            super().__init__()
            self.other = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_Reads.Twice, "'fc': is used twice"),
        (_Reads.Overwrites, "'fc': its input was changed"),
        (_Reads.Unused, "'other': saw no input"),
    ],
)
def test_what_cannot_be_captured_is_refused_by_name(model, message):
    x, y = toy.batch(3, (4,), classes=4)
    with pytest.raises(LayerError, match=message):
        kron_factors(model().double(), [(x, y)], fisher="empirical")


def test_tied_weights_are_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    with pytest.raises(LayerError, match="'1': shares its weight with '0'"):
        L.prunable(model)


def test_bad_input_is_one_line():
    model, (x, y) = toy.small_net(), toy.batch()
    with pytest.raises(UserError, match="fisher='true'"):
        kron_factors(model, [(x, y)], fisher="true")
    with pytest.raises(UserError, match="no batch was seen"):
        kron_factors(model, [], fisher="exact")
    with pytest.raises(UserError, match="generator"):
        kron_factors(model, [(x, y)], fisher="sampled")
    x[0, 0, 0, 0] = float("nan")
    with pytest.raises(NumericalError, match="'0'"):
        kron_factors(model, [(x, y)], fisher="exact")
    with pytest.raises(NumericalError, match="'0'"):
        input_hessian(model, [(x, y)])
