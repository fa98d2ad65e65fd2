"""Methods of single weights on a vision transformer, torch's own encoder and GPT-2: their numbers
against an autograd loop over the examples, float64."""

import math

import pytest
import torch
from torch import nn

from common import prune
from common.curvature.kron import kron_factors
from common.curvature.labels import losses
from common.curvature.rows import gradient_rows
from common.data.task import Calibration, Task
from common.nets import layers as L
from common.nets.assumptions import prediction
from tests import reference, toy
from tests.lobs import reference as lobs_reference

EXAMPLES, VOCABULARY, WORDS = 6, 7, 4


def equal(a, b, tolerance=1e-7):
    a, b = a.detach(), b.detach()
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


class Encoder(nn.Module):
    """torch's encoder on the columns of a small image."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.encoder(x.flatten(2).transpose(1, 2)).mean(1))


def encoder():
    return Encoder(), *toy.batch(EXAMPLES, (6, 2, 2)), "cross_entropy"


def vit():
    timm = pytest.importorskip("timm")
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=4, patch_size=2, num_classes=3, embed_dim=8, depth=1, num_heads=2, mlp_ratio=1
    )
    return model, *toy.batch(EXAMPLES, (3, 4, 4)), "cross_entropy"


def gpt2():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=8, n_embd=8, n_inner=8, n_layer=1, n_head=2,
        use_cache=False,
    )  # fmt: skip
    ids = torch.randint(VOCABULARY, (EXAMPLES, WORDS), generator=toy.generator())
    following = torch.cat([ids[:, 1:], torch.full((EXAMPLES, 1), -100)], 1)
    following[0, 1:] = -100  # a shorter text
    return transformers.GPT2LMHeadModel(config), ids, following, "language_model"


NETWORKS = {"torch encoder": encoder, "timm ViT": vit, "GPT-2": gpt2}


@pytest.fixture(params=NETWORKS, scope="module")
def case(request):
    """(network, inputs, labels, loss)."""
    torch.manual_seed(0)
    model, *rest = NETWORKS[request.param]()
    return toy.seeded(model), *rest


def gradients_of(model, x, y, loss):
    """Each example's gradient in every layer's weight, by one backward pass each: [examples, d] in
    the order of the weight."""
    layers, rows = L.prunable(model), []
    for i in range(len(x)):
        value = reference.loss_of_example(prediction(model(x[i : i + 1]))[0], y[i], loss)
        rows.append(torch.autograd.grad(value, [m.weight for m in layers.values()]))
    return {name: torch.stack([r[k].flatten() for r in rows]) for k, name in enumerate(layers)}


def seen_by(model, x):
    """What every layer that is called reads, and what it gives, by hooks of this test."""
    seen, handles = {}, []
    for name, module in L.prunable(model).items():
        handles.append(
            module.register_forward_hook(
                lambda _, inputs, output, name=name: seen.update({name: (inputs[0], output)})
            )
        )
    output = prediction(model(x))
    for handle in handles:
        handle.remove()
    return seen, output


def told(model, x, y, loss, amount, method, **options):
    return prune(model, [(x, y)], amount, method, loss=loss, **options)


def test_rows_are_autograds(case):
    model, x, y, loss = case
    truth = gradients_of(model, x, y, loss)
    found = gradient_rows(model, Calibration([(x, y)], Task(loss)), EXAMPLES)
    assert set(found) == set(truth) and len(truth) > 3
    for name, layer in L.prunable(model).items():
        equal(found[name], truth[name][:, reference.matrix_order(layer)])


def test_obd_removes_the_smallest_of_half_w_squared_times_the_fisher(case):
    model, x, y, loss = case
    fishers = {n: g.square().mean(0) for n, g in gradients_of(model, x, y, loss).items()}
    scores = {
        name: 0.5 * model.get_submodule(name).weight.detach().flatten() ** 2 * fisher
        for name, fisher in fishers.items()
    }
    result = told(model, x, y, loss, 0.1, "obd-layer", fisher="empirical")
    for name, score in scores.items():
        gone = ~result.masks[f"{name}.weight"].flatten()
        assert score[gone].max() <= score[~gone].min()
    total = sum(s[~result.masks[f"{n}.weight"].flatten()].sum() for n, s in scores.items())
    assert result.predicted_increase == pytest.approx(float(total), rel=1e-7)


def test_woodfisher_is_the_dense_surgeon_of_each_layer(case):
    model, x, y, loss = case
    damping, predicted = 1e-3, 0.0
    result = told(
        model, x, y, loss, 0.1, "woodfisher-layer",
        damping=damping, num_rows=EXAMPLES, fisher_batch_size=1,
    )  # fmt: skip
    for name, rows in gradients_of(model, x, y, loss).items():
        w = model.get_submodule(name).weight.detach().flatten()
        fisher = reference.damped_fisher(rows, damping)
        inverse = torch.linalg.inv(fisher)
        gone = ~result.masks[f"{name}.weight"].flatten()
        score = w**2 / inverse.diagonal()
        assert score[gone].max() <= score[~gone].min()
        delta = reference.summed_single(inverse, w, gone)
        equal(result.model.get_submodule(name).weight.flatten(), w + delta, 1e-6)
        predicted += 0.5 * float(delta @ fisher @ delta)
    assert result.predicted_increase == pytest.approx(predicted, rel=1e-6)


def test_k_fac_pruning_is_the_dense_surgeon_under_kronecker_factors(case):
    model, x, y, loss = case
    damping, predicted, (seen, output) = 1e-3, 0.0, seen_by(model, x)
    result = told(model, x, y, loss, 0.1, "kfac-prune", damping=damping, pi=False)
    worst_gone, best_kept = 0.0, math.inf
    (value,) = losses(output, y, "empirical", Task(loss), None)
    for name, (read, given) in seen.items():
        layer = model.get_submodule(name)
        a = reference.seen_by_positions(layer, read)[:, 0]
        (g,) = torch.autograd.grad(value, [given], retain_graph=True)
        g = g.flatten(2).mT if isinstance(layer, nn.Conv2d) else g.reshape(len(g), -1, g.shape[-1])
        A = torch.einsum("bti,btj->ij", a, a) / len(x)
        G = torch.einsum("bti,btj->ij", g, g) / (len(x) * g.shape[1])
        A += damping**0.5 * torch.eye(len(A))
        G += damping**0.5 * torch.eye(len(G))
        fisher = torch.kron(G, A)
        order = reference.matrix_order(layer)
        w = layer.weight.detach().flatten()[order]
        gone = ~result.masks[f"{name}.weight"].flatten()[order]
        inverse = torch.linalg.inv(fisher)
        score = w**2 / inverse.diagonal()
        worst_gone = max([worst_gone, *score[gone].tolist()])
        best_kept = min(best_kept, float(score[~gone].min()))
        delta = reference.summed_single(inverse, w, gone)
        equal(result.model.get_submodule(name).weight.flatten()[order], w + delta, 1e-6)
        predicted += 0.5 * float(delta @ fisher @ delta)
    assert worst_gone <= best_kept * (1 + 1e-9)
    called = set(seen) == set(L.prunable(model))  # torch's attention does not call its projection
    assert called == (type(model).__name__ != "Encoder")
    if called:
        assert result.predicted_increase == pytest.approx(predicted, rel=1e-6)


def test_factors_of_nap_have_the_bias_as_a_coordinate(case):
    model, x, y, loss = case
    factors = kron_factors(model, Calibration([(x, y)], Task(loss)), fisher="empirical", bias=True)
    for name, (read, _) in seen_by(model, x)[0].items():
        layer = model.get_submodule(name)
        equal(factors[name].A, reference.kfac_A(layer, read, layer.bias is not None))


def test_l_obs_walks_every_layer_by_what_it_reads(case):
    model, x, y, loss = case
    amount, ridge = 0.1, 1e-3
    result = told(model, x, y, loss, amount, "l-obs", damping=ridge)
    for name, (read, _) in seen_by(model, x)[0].items():
        layer = model.get_submodule(name)
        bias = layer.bias is not None
        rows = lobs_reference.rows_of(layer, read, bias)[0]
        W = lobs_reference.matrix_of(layer, bias)[0]
        remove = int((~result.masks[f"{name}.weight"]).sum())
        truth = lobs_reference.paper_layer(rows, W, ridge, remove, W.shape[1] - bias)
        equal(lobs_reference.matrix_of(result.model.get_submodule(name), bias)[0], truth, 1e-6)
        moved = (rows @ (truth - W).T).square().sum(1).mean() / 2
        assert result.layers[name]["predicted_error"] == pytest.approx(float(moved), rel=1e-6)


@pytest.mark.parametrize("method", ["magnitude-global", "woodfisher", "nap", "l-obs", "kfac-prune"])
def test_masks_count_exactly_and_what_stays_dense_is_named(case, method):
    model, x, y, loss = case
    result = told(model, x, y, loss, 0.1, method)
    kept, total = (sum(pair[i] for pair in result.weights.values()) for i in (0, 1))
    gone = sum(int((~mask).sum()) for mask in result.masks.values())
    assert total - kept == gone
    named = dict(model.named_parameters(remove_duplicate=False))
    stays = {key.rpartition(".")[0] for key, p in named.items() if p.dim() > 1}
    stays -= set(L.prunable(model))
    assert stays == set(result.dense)
    for name, mask in result.masks.items():
        assert not result.model.get_parameter(name)[~mask].any()
