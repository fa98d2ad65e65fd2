"""What must hold for every network, amount and seed (at least 200 examples each)."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from common.cells.errors import LayerError, NumericalError, UserError
from common.curvature.blocks import BlockFisher
from common.curvature.kron import Kron, KronInverse
from common.curvature.shared import LowRankMatrix, SharedRows
from common.nets import layers as L
from common.nets import masks as M
from common.pruning import baselines, obs
from common.pruning.select import select
from eigendamage.threshold import percentile
from lobs import ours as lobs
from tests import reference, toy
from woodfisher import kfac
from woodfisher import ours as wood

pytestmark = pytest.mark.usefixtures("one_thread")
many = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
seeds, amounts = st.integers(0, 2**31), st.floats(0.05, 0.9)


def mlp(seed, sizes=(5, 6, 4, 3)):
    layers = []
    for a, b in zip(sizes, sizes[1:]):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return toy.seeded(nn.Sequential(*layers[:-1]), seed)


def batch(seed, examples=12):
    x, y = toy.batch(examples, (5,), seed=seed)
    return [(x[:7], y[:7]), (x[7:], y[7:])]


METHODS = {
    "magnitude-global": lambda m, d, a, masks=None: baselines.magnitude(
        m, d, a, baselines.ScopeOptions("global"), toy.generator(), masks
    ),
    "magnitude-layer": lambda m, d, a, masks=None: baselines.magnitude(
        m, d, a, baselines.ScopeOptions("layer"), toy.generator(), masks
    ),
    "obd": lambda m, d, a, masks=None: baselines.obd(
        m, d, a, baselines.OBDOptions(), toy.generator(), masks
    ),
    "woodfisher": lambda m, d, a, masks=None: wood.prune(
        m, d, a, wood.Options(damping=1e-2), toy.generator(), masks
    ),
    "woodfisher-joint": lambda m, d, a, masks=None: wood.prune(
        m, d, a, wood.Options(damping=1e-2, update="joint"), toy.generator(), masks
    ),
    "kfac": lambda m, d, a, masks=None: kfac.prune(
        m, d, a, kfac.Options(damping=1e-2, fisher="exact"), toy.generator(), masks
    ),
    "l-obs": lambda m, d, a, masks=None: lobs.prune(
        m, d, a, lobs.Options(damping=1e-2), toy.generator(), masks
    ),
    "l-obs-joint": lambda m, d, a, masks=None: lobs.prune(
        m, d, a, lobs.Options(damping=1e-2, update="joint"), toy.generator(), masks
    ),
}
LAYERWISE = ("magnitude-layer", "l-obs", "l-obs-joint")
methods = st.sampled_from(sorted(METHODS))


def gone(masks):
    return {name: int((~mask).sum()) for name, mask in masks.items()}


@many
@given(methods, amounts, amounts, seeds)
def test_counts_are_exact_masks_nest_no_layer_is_empty_and_what_went_is_zero(
    method, first, second, seed
):
    first, second = sorted((first, second))
    model, data = mlp(seed), batch(seed)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    one = METHODS[method](model, data, first)
    two = METHODS[method](one.model, data, second, one.masks)
    totals = {n: p.numel() for n, p in model.named_parameters() if n in two.masks}
    for result, amount in ((one, first), (two, second)):
        if method in LAYERWISE:
            assert gone(result.masks) == {n: round(amount * t) for n, t in totals.items()}
        else:
            assert sum(gone(result.masks).values()) == round(amount * sum(totals.values()))
        assert all(mask.any() for mask in result.masks.values())
        assert all(
            not result.model.get_parameter(n)[~mask].any() for n, mask in result.masks.items()
        )
    assert M.nested(two.masks, one.masks)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


@many
@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 1.0, math.inf, -math.inf]), min_size=1, max_size=9),
        min_size=1,
        max_size=4,
    ),
    st.floats(0, 0.99),
    st.floats(0.05, 1),
)
def test_units_are_counted_exactly_under_ties_and_the_cap_holds(lists, amount, cap):
    scores = {
        f"layer{i}": torch.tensor(values, dtype=torch.float64) for i, values in enumerate(lists)
    }
    total = sum(map(len, lists))
    try:
        kept, notes = percentile(scores, amount, cap)
    except UserError:
        assert round(amount * total) > total - len(lists)
        return
    removed = {name: int((~k).sum()) for name, k in kept.items()}
    assert all(k.any() for k in kept.values())
    assert all(
        r <= max(math.floor(cap * len(scores[name]) + 1e-9), 0) for name, r in removed.items()
    )
    assert (sum(removed.values()) == round(amount * total)) == (not notes)
    for name, k in kept.items():
        if removed[name] > 0 and k.any():
            assert scores[name][~k].max() <= scores[name][k].min()


OPTIMIZERS = {
    "sgd": lambda p, decay: torch.optim.SGD(
        p, lr=0.1, momentum=0.9, weight_decay=decay, nesterov=True
    ),
    "adam": lambda p, decay: torch.optim.Adam(p, lr=0.05, weight_decay=decay),
    "adamw": lambda p, decay: torch.optim.AdamW(p, lr=0.05, weight_decay=decay),
}


@many
@given(
    st.sampled_from(sorted(OPTIMIZERS)),
    st.sampled_from([0.0, 0.01, 1.0]),
    amounts,
    st.integers(1, 99),
    seeds,
)
def test_nothing_revives_in_a_hundred_steps_before_and_after_a_resume(
    kind, decay, amount, resume, seed
):
    g = toy.generator(seed)
    layer = nn.Linear(4, 3, bias=False)
    layer.weight.data.copy_(torch.randn(3, 4, generator=g))
    masks = select({"weight": torch.rand(3, 4, generator=g)}, min(amount, 0.9))
    away = ~masks["weight"]
    start = layer.weight.detach().clone()
    optimizer = OPTIMIZERS[kind](layer.parameters(), decay)
    layer.weight.grad = torch.randn(3, 4, generator=g)
    optimizer.step()  # momentum is full before the mask comes
    hold = M.Hold(layer, masks)
    hold(optimizer)
    for step in range(100):
        if step == resume:
            state, weights = optimizer.state_dict(), layer.state_dict()
            layer = nn.Linear(4, 3, bias=False)
            layer.load_state_dict(weights)
            optimizer = OPTIMIZERS[kind](layer.parameters(), decay)
            optimizer.load_state_dict(state)
            hold = M.Hold(layer, masks)
        layer.weight.grad = torch.randn(3, 4, generator=g)
        optimizer.step()
        hold(optimizer)
        assert not layer.weight.detach()[away].any()
    assert away.all() or not torch.equal(layer.weight.detach()[~away], start[~away])
    layer.weight.grad = torch.zeros(3, 4)
    optimizer.step()  # the mask is lifted: no momentum is left to bring anything back
    assert not layer.weight.detach()[away].any()


class Tied(nn.Module):
    """One weight under two names, as in a language model's embedding and output."""

    def __init__(self, seed):
        super().__init__()
        self.first, self.second, self.last = (
            nn.Linear(4, 4, bias=False),
            nn.Linear(4, 4, bias=False),
            nn.Linear(4, 3),
        )
        toy.seeded(self, seed)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))


@many
@given(st.sampled_from(["random", "magnitude"]), st.floats(0.1, 0.7), seeds)
def test_tied_weights_share_a_mask_or_are_refused(method, amount, seed):
    model = Tied(seed)
    prune = {"random": baselines.random, "magnitude": baselines.magnitude}[method]
    with pytest.raises(LayerError, match="'second'.*'first'"):
        prune(model, [], amount, baselines.ScopeOptions(), toy.generator(seed))
    # skipping a name does not hide that it is one weight
    with pytest.raises(LayerError, match="'second'.*'first'"):
        L.prunable(model, ["last"])
    mask = torch.rand(4, 4, generator=toy.generator(seed)) > amount
    hold = M.Hold(model, {"second.weight": mask})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = toy.batch(4, (4,), seed=seed)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        hold(optimizer)
    assert (
        model.first.weight is model.second.weight
        and not model.first.weight[~mask].any()
        and model.first.weight[mask].all()
    )


@many
@given(st.sampled_from(["block", "kron", "shared"]), st.integers(1, 8), st.integers(2, 10), seeds)
def test_large_damping_ranks_by_magnitude_and_moves_nothing(kind, m, d, seed):
    g = toy.generator(seed)
    rows = torch.randn(m, d, generator=g, dtype=torch.float64)
    if kind == "block":
        curvature = BlockFisher(rows, 1e12, min(d, 3))
    elif kind == "shared":
        curvature = SharedRows(LowRankMatrix(rows, 1e12), 2)
    else:
        A, G = rows.T @ rows / m, rows[:, :2].T @ rows[:, :2] / m
        curvature = KronInverse.of(Kron(A[None], G[None], 1), 1e12, pi=False)
    w = torch.randn(len(curvature.diagonal()), generator=g, dtype=torch.float64)
    ranked = obs.score(w, curvature.diagonal()).argsort()
    magnitudes = w.abs()
    assert (magnitudes[ranked].diff() >= -1e-4 * magnitudes.max()).all()
    pruned = magnitudes <= magnitudes.median()
    for update in obs.UPDATES:
        delta, _ = obs.update(w, curvature, pruned, update)
        assert (w + delta)[pruned].abs().max() == 0 and (
            pruned.all() or delta[~pruned].abs().max() < 1e-4 * magnitudes.max()
        )


@many
@given(methods, st.floats(0.1, 0.8), seeds)
def test_permuting_the_hidden_units_permutes_the_result(method, amount, seed):
    """Scores may differ by rounding, so masks are held to each other where no score is near the
    cut: the outputs.
    """
    model, data = mlp(seed), batch(seed)
    order = torch.randperm(6, generator=toy.generator(seed + 1))
    other = mlp(seed)
    with torch.no_grad():
        other[0].weight.copy_(model[0].weight[order])
        other[0].bias.copy_(model[0].bias[order])
        other[2].weight.copy_(model[2].weight[:, order])
    one, two = METHODS[method](model, data, amount), METHODS[method](other, data, amount)
    assert torch.equal(two.masks["0.weight"], one.masks["0.weight"][order])
    assert torch.equal(two.masks["2.weight"], one.masks["2.weight"][:, order])
    assert torch.equal(two.masks["4.weight"], one.masks["4.weight"])
    x = data[0][0]
    torch.testing.assert_close(two.model(x), one.model(x), rtol=1e-6, atol=1e-8)


@many
@given(st.integers(1, 7), st.integers(2, 8), seeds, st.sampled_from([1e-6, 1e-3, 1.0]))
def test_a_score_lies_between_its_two_bounds(m, d, seed, damping):
    """½ w² λ ≤ ρ ≤ ½ w² F_qq: moving the others helps, and not below what the damping alone
    costs.
    """
    g = toy.generator(seed)
    rows, w = (
        torch.randn(m, d, generator=g, dtype=torch.float64),
        torch.randn(d, generator=g, dtype=torch.float64),
    )
    scores = obs.score(w, BlockFisher(rows, damping).diagonal())
    own = reference.damped_fisher(rows, damping).diagonal()
    assert (scores <= 0.5 * w.square() * own * (1 + 1e-9)).all() and (
        scores >= 0.5 * w.square() * damping * (1 - 1e-9)
    ).all()


def test_the_predicted_increase_of_obd_is_half_the_squared_weights_times_the_fisher():
    model, data = mlp(0), batch(0)
    result = METHODS["obd"](model, data, 0.5)
    x = torch.cat([part for part, _ in data])
    truth = 0.0
    for name, module in L.prunable(model).items():
        fisher = reference.exact_fisher(model, module, x).diagonal().reshape(module.weight.shape)
        truth += float(
            (0.5 * module.weight.detach().square() * fisher)[~result.masks[f"{name}.weight"]].sum()
        )
    assert result.predicted_increase == pytest.approx(truth, rel=1e-10)


def test_nothing_to_go_on_is_told():
    with pytest.raises(NumericalError, match="every gradient is zero"):
        model = mlp(0)
        model[4].weight.data.zero_()
        model[4].bias.data.copy_(torch.tensor([800.0, 0, 0]))
        wood.prune(
            model,
            [(x, torch.zeros(len(x), dtype=torch.long)) for x, _ in batch(0)],
            0.5,
            wood.Options(),
            toy.generator(),
        )
