"""Every kind of layer in the one layout: rows, gradients, factors, moments and costs against loops
in float64, and every method's numbers on it."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from common.cells.errors import LayerError, UserError
from common.curvature.diag import diagonal_fisher
from common.curvature.kron import input_hessian, input_moment, kron_factors
from common.curvature.moving import MovingKron
from common.curvature.rows import gradient_rows
from common.nets import layers as L
from common.nets.dense import left_dense, prunable_among, skipped
from common.nets.flops import costs
from common.pruning import baselines
from lobs import method as lobs
from tests import reference, toy
from tests.lobs import reference as lobs_reference
from woodfisher import method as woodfisher


def equal(a, b, tolerance=1e-9):
    a, b = a.detach(), b.detach()
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


def case(kind, examples=4):
    """(network of one layer, the layer, inputs, targets)."""
    model, shape = toy.kind_head(kind)
    x, _ = toy.batch(examples, shape)
    y = torch.randn(model(x).shape, generator=toy.generator(4), dtype=torch.float64)
    return model, model[0], x, y


def ordered(layer, rows):
    """Rows of flat weights in the order of the layer's matrix."""
    return rows[:, reference.matrix_order(layer)]


@pytest.mark.parametrize("kind", toy.KINDS)
def test_the_layout_turns_a_layer_into_a_product(kind):
    _, layer, x, _ = case(kind)
    rows, bias = reference.seen_by_positions(layer, x), layer.bias is not None
    equal(L.inputs(layer, x), rows)
    product = L.inputs(layer, x, bias) @ L.joined(layer, bias).mT
    equal(product, L.gradients(layer, layer(x)))
    equal(L.forward(layer, x), layer(x))
    assert L.shape(layer) == (*product.shape[1:2], product.shape[3], rows.shape[3])
    assert L.channels(layer)[1] == product.shape[1] * product.shape[3]


@pytest.mark.parametrize("kind", toy.KINDS)
def test_a_matrix_goes_back_to_where_its_weights_were(kind):
    layer = toy.kind_head(kind)[0][0]
    matrix = L.to_matrix(layer, layer.weight)
    assert torch.equal(matrix.flatten(), layer.weight.flatten()[reference.matrix_order(layer)])
    assert torch.equal(L.to_weight(layer, matrix), layer.weight)
    assert torch.equal(L.to_weight(layer, L.flat(layer, layer.weight)), layer.weight)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    L.write_joined(layer, 2 * L.joined(layer, layer.bias is not None))
    assert all(torch.equal(p, 2 * before[name]) for name, p in layer.named_parameters())


@pytest.mark.parametrize("kind", toy.KINDS)
@pytest.mark.parametrize("batch", [1, 2])
def test_rows_are_the_gradients_of_the_examples(kind, batch):
    model, layer, x, y = case(kind)
    truth = ordered(layer, reference.per_example_gradients(model, layer, x, y, "mse"))
    rows = gradient_rows(model, [(x, y)], 4 // batch, batch, loss="mse")["0"]
    equal(rows, truth.reshape(4 // batch, batch, -1).mean(1))


@pytest.mark.parametrize("kind", toy.KINDS)
def test_the_diagonal_is_of_squared_gradients(kind):
    model, layer, x, y = case(kind)
    truth = reference.per_example_gradients(model, layer, x, y, "mse").square().mean(0)
    found = diagonal_fisher(model, [(x, y)], loss="mse")["0"]
    equal(found, truth.reshape(layer.weight.shape))


@pytest.mark.parametrize("kind", toy.KINDS)
def test_kronecker_factors_are_exact_under_squared_loss(kind):
    """The outputs are the network's, and their gradients do not correlate over positions."""
    model, layer, x, y = case(kind)
    options = {"fisher": "exact", "loss": "mse"}
    factors = kron_factors(model, [(x, y)], **options)["0"]
    equal(factors.A, reference.kfac_A(layer, x))
    order = reference.matrix_order(layer)
    truth = reference.exact_fisher(model, layer, x, "mse")[order][:, order]
    size = len(order) // L.groups(layer)
    for i, block in enumerate(factors.dense()):
        part = slice(i * size, (i + 1) * size)
        equal(block, truth[part, part])
    moving = MovingKron(model, {"0": layer}, decay=0.5, **options)
    moving.update(x, y)
    equal(moving.factors()["0"].dense(), factors.dense())


@pytest.mark.parametrize("kind", toy.KINDS)
def test_the_factor_over_channels_is_the_mean_over_the_kernel(kind):
    _, layer, x, _ = case(kind)
    taps = layer.weight[0, 0].numel()
    A = reference.kfac_A(layer, x)
    A = A.reshape(len(A), A.shape[1] // taps, taps, A.shape[2] // taps, taps)
    truth = torch.stack([A[:, :, k, :, k] for k in range(taps)]).mean(0)
    equal(input_moment(layer, x, channel_only=True) / len(x), truth)


@pytest.mark.parametrize("kind", toy.KINDS)
def test_moments_of_l_obs_are_means_over_positions(kind):
    model, layer, x, y = case(kind)
    bias = layer.bias is not None
    rows = lobs_reference.rows_of(layer, x, bias)
    equal(input_hessian(model, [(x, y)], bias=True)["0"], lobs_reference.hessian(rows))


@pytest.mark.parametrize("kind", toy.KINDS)
def test_l_obs_walks_the_rows_and_predicts_the_error_of_the_output(kind):
    model, layer, x, y = case(kind, 6)
    bias, ridge = layer.bias is not None, 1e-3
    options = lobs.Options(damping=ridge)
    result = lobs.prune(model, [(x, y)], 0.5, options, toy.generator())
    rows, W = lobs_reference.rows_of(layer, x, bias), lobs_reference.matrix_of(layer, bias)
    if len(W) == 1:
        free = W.shape[2] - bias
        remove = round(0.5 * layer.weight.numel())
        truth = lobs_reference.paper_layer(rows[0], W[0], ridge, remove, free)
        equal(lobs_reference.matrix_of(result.model[0], bias)[0], truth, 1e-7)
    assert int((~result.masks["0.weight"]).sum()) == round(0.5 * layer.weight.numel())
    assert torch.equal(result.model[0].weight != 0, result.masks["0.weight"])
    moved = L.gradients(layer, (result.model[0](x) - layer(x)).detach())
    error = 0.5 * moved.square().sum((1, 3)).mean()
    assert result.layers["0"]["predicted_error"] == pytest.approx(float(error), rel=1e-8)


@pytest.mark.parametrize("kind", toy.KINDS)
def test_woodfisher_is_the_dense_surgeon(kind):
    """In the order of the weight itself: a block a layer does not ask for an order."""
    model, layer, x, y = case(kind, 8)
    model = nn.Sequential(*model, nn.Linear(y.shape[1], 3).double())
    labels, damping, amount = torch.arange(8) % 3, 1e-2, 0.4
    options = woodfisher.Options(damping=damping, num_rows=8, fisher_batch_size=1, skip=("2",))
    result = woodfisher.prune(model, [(x, labels)], amount, options, toy.generator())
    rows = reference.per_example_gradients(model, layer, x, labels)
    fisher = reference.damped_fisher(rows, damping)
    inverse, w = torch.linalg.inv(fisher), layer.weight.detach().flatten()
    scores = w**2 / (2 * inverse.diagonal())
    gone = torch.zeros_like(w, dtype=torch.bool)
    gone[scores.argsort()[: round(amount * len(w))]] = True
    delta = reference.summed_single(inverse, w, gone)
    assert torch.equal(result.masks["0.weight"].flatten(), ~gone)
    equal(result.model[0].weight.flatten(), w + delta)
    assert result.predicted_increase == pytest.approx(0.5 * float(delta @ fisher @ delta))


@pytest.mark.parametrize("kind", toy.KINDS)
def test_masks_count_exactly_and_costs_are_torchs(kind):
    model, layer, x, y = case(kind)
    options = baselines.OBDOptions()
    result = baselines.obd(model, [(x, torch.arange(4) % 2)], 0.25, options, toy.generator())
    gone = round(0.25 * layer.weight.numel())
    assert int((result.model[0].weight == 0).sum()) == gone
    with FlopCounterMode(display=False) as counter:
        model(x[:1])
    dense, pruned = (costs(m, x[:1]) for m in (model, result.model))
    assert 2 * dense.macs == counter.get_total_flops() and dense.other_macs == 0
    each = dense.macs // layer.weight.numel()
    assert dense.macs - pruned.nonzero_macs == gone * each


def test_what_stays_dense_is_named_with_its_reason():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.place = nn.Parameter(torch.zeros(1, 3, 8))
            self.embed, self.steps = nn.Embedding(9, 8), nn.LSTM(8, 8)
            self.attention, self.norm = nn.MultiheadAttention(8, 2), nn.LayerNorm([3, 8])
            self.both, self.body, self.head = nn.Bilinear(8, 8, 8), nn.Linear(8, 8), nn.Linear(8, 9)
            self.head.weight = self.embed.weight

    model = Net()
    dense = left_dense(model, ["body"])
    assert set(dense) == {"", "embed", "steps", "attention", "norm", "both", "body", "head"}
    assert dense["head"].why == "its weight is the table of 'embed'" and not dense["head"].counted
    assert "recurrent" in dense["steps"].why and "attention" in dense["attention"].why
    assert dense["body"].why == "named in skip" and "table" in dense["embed"].why
    prunable = L.prunable(model, ["body"])
    assert list(prunable) == ["attention.out_proj"]
    covered = {f"{name}.weight" for name in prunable}
    everything = dict(model.named_parameters(remove_duplicate=False))
    left = {key for key, p in everything.items() if p.dim() > 1} - covered
    assert {key.rpartition(".")[0] for key in left} == set(dense)
    assert left_dense(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))) == {}


def test_names_of_what_stays_dense_may_be_skipped_and_others_not():
    model = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 2))
    assert skipped(model, ["0"]) == ("0",) and prunable_among(model, ["0", "1"]) == ("1",)
    with pytest.raises(UserError, match="skip='2'.*layers: 1"):
        L.prunable(model, ["2"])


def test_a_module_of_no_known_kind_is_named():
    with pytest.raises(LayerError, match="'Bilinear': is of no kind that is known"):
        L.shape(nn.Bilinear(2, 2, 2))


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_attentions_projection_is_captured_although_torch_never_calls_it(first, need_weights):
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=first)
            self.head = nn.Linear(12, 3)

        def forward(self, x):
            x = x if first else x.transpose(0, 1)
            y = self.attention(x, x, x, need_weights=need_weights)[0]
            return self.head((y if first else y.transpose(0, 1)).flatten(1))

    model, (x, labels) = toy.seeded(Attending()), toy.batch(5, (3, 4))
    before = model(x)
    rows = gradient_rows(model, [(x, labels)], 5)
    for name, layer in L.prunable(model).items():
        equal(rows[name], reference.per_example_gradients(model, layer, x, labels))
    assert list(rows) == ["attention.out_proj", "head"]
    assert torch.equal(model(x), before)
