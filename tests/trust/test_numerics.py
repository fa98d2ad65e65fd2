"""Bad numbers: 500 problems through every solver, each finite or a typed error that names the
layer; divergence stops in time.
"""

import math

import pytest
import torch
from torch import nn

from common.cells.errors import LayerError, NumericalError, UserError
from common.cells.spec import Recipe
from common.curvature.blocks import BlockFisher
from common.curvature.kron import Kron, KronInverse, kron_factors
from common.curvature.shared import DenseMatrix, LowRankMatrix, SharedRows
from common.data import sources as D
from common.nets import models
from common.pruning import obs
from common.running import train as T
from eigendamage import kron_obs
from eigendamage import method as eigen
from lobs import ours as lobs
from tests import toy
from woodfisher import ours as wood

TYPED = (NumericalError, LayerError, UserError)
NAME = "the layer"
pytestmark = pytest.mark.usefixtures("one_thread")


def rows(seed):
    """[m, d] float64 or float32 with one or several things wrong, and what was done."""
    g = toy.generator(seed)
    pick = lambda n: int(torch.randint(n, (1,), generator=g))
    m, d = 1 + pick(12), 1 + pick(12)
    X = torch.randn(m, d, generator=g, dtype=torch.float64)
    done = []
    for _ in range(1 + pick(2)):
        kind = (
            "rank",
            "columns",
            "rows",
            "tiny",
            "huge",
            "mixed",
            "infinite",
            "nan",
            "zero",
            "copies",
        )[pick(10)]
        done.append(kind)
        if kind == "rank":
            X = X[:, :1] @ torch.randn(1, d, generator=g, dtype=torch.float64)
        elif kind == "columns":
            X[:, torch.rand(d, generator=g) < 0.5] = 0
        elif kind == "rows":
            X[torch.rand(m, generator=g) < 0.5] = 0
        elif kind in ("tiny", "huge"):
            X = X * (1e-12 if kind == "tiny" else 1e12)
        elif kind == "mixed":
            X = X * 10.0 ** (24 * torch.rand(d, generator=g, dtype=torch.float64) - 12)
        elif kind in ("infinite", "nan"):
            X[pick(m), pick(d)] = float("inf") if kind == "infinite" else float("nan")
        elif kind == "zero":
            X = torch.zeros_like(X)
        else:
            X = X[:1].expand(m, d).clone()
    return (X.float() if pick(2) else X), 10.0 ** -(2 * pick(6)), done


def curvature(kind, X, damping, chunk):
    if kind == "block":
        return BlockFisher(X, damping, chunk, NAME)
    if kind == "dense":
        return SharedRows(DenseMatrix(X.double().T @ X.double() / len(X), damping, NAME), 2)
    if kind == "low rank":
        return SharedRows(LowRankMatrix(X, damping, NAME), 2)
    A = (X.double().T @ X.double() / len(X))[None]
    return KronInverse.of(
        Kron(A, A[:, :2, :2], 1), damping, pi=kind == "kron, pi", relative=chunk == 3, name=NAME
    )


@pytest.mark.parametrize("kind", ["block", "dense", "low rank", "kron", "kron, pi"])
def test_solvers_end_finite_or_name_the_layer(kind):
    """125 problems each, three updates. A score is never NaN nor negative, and no more than
    removing the weight without moving the others costs, ½ w² F_qq; what goes ends at exactly
    zero."""
    finite = 0
    for seed in range(125):
        X, damping, done = rows(seed)
        try:
            c = curvature(kind, X, damping, (None, 2, 3)[seed % 3])
            diagonal = c.diagonal()
            w = torch.randn(len(diagonal), generator=toy.generator(seed), dtype=torch.float64)
            scores = obs.score(w, diagonal)
            assert not scores.isnan().any() and (scores >= 0).all(), (kind, seed, done)
            # F_qq ≥ 1/[F⁻¹]_qq
            own = torch.stack(
                [c.times(e)[q] for q, e in enumerate(torch.eye(len(w), dtype=torch.float64))]
            )
            assert (scores <= 0.5 * w.square() * own * (1 + 1e-6)).all(), (kind, seed, done)
            pruned = torch.rand(len(w), generator=toy.generator(seed + 1)) < 0.5
            for update in obs.UPDATES:
                delta, predicted = obs.update(w, c, pruned, update, name=NAME)
                assert torch.isfinite(delta).all() and not (w + delta)[pruned].any(), (
                    kind,
                    seed,
                    update,
                    done,
                )
                assert math.isfinite(predicted) and predicted >= 0, (kind, seed, update, done)
            finite += 1
        except NumericalError as error:
            assert error.layer == NAME, (kind, seed, done)
    assert finite >= 40


@pytest.mark.parametrize("kind", ["block", "low rank"])
def test_rounding_makes_no_score_negative(kind):
    """Rows that outweigh the damping 10³⁴ times: the difference that is the inverse's diagonal has
    no digit left.
    """
    found = 0
    for seed in (7, 14, 29, *range(2950, 2970)):
        X = torch.randn(5, 7, generator=toy.generator(seed), dtype=torch.float64) * 1e12
        X[:, torch.rand(7, generator=toy.generator(seed + 1)) < 0.5] = 0
        try:
            diagonal = curvature(kind, X, 1e-10, None).diagonal()[:7]
        except NumericalError:
            continue
        own = X.square().mean(0) + 1e-10
        assert (diagonal >= 1 / own * (1 - 1e-9)).all() and (
            obs.score(torch.ones(7), diagonal) >= 0
        ).all()
        found += 1
    assert found >= 3


def network(kind, seed):
    """A float32 network and its data, with something wrong in one of them."""
    g = toy.generator(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 6),
        nn.ReLU(),
        nn.Linear(6, 3),
    )
    for p in model.parameters():
        p.data.copy_(torch.randn(p.shape, generator=g) / max(1, p[0].numel()) ** 0.5)
    x, y = torch.randn(12, 1, 4, 4, generator=g), torch.randint(3, (12,), generator=g)
    layer = model[(0, 4, 6)[seed % 3]]
    if kind == "nan weight":
        layer.weight.data.flatten()[0] = float("nan")
    elif kind == "infinite input":
        x[3, 0, 0, 0] = float("inf")
    elif kind in ("huge weights", "tiny weights"):
        layer.weight.data.mul_(1e12 if kind == "huge weights" else 1e-12)
    elif kind == "zero layer":
        layer.weight.data.zero_()
    elif kind == "zero inputs":
        x.zero_()
    elif kind == "one example":
        x, y = x[:1], y[:1]
    elif kind == "copies":
        x = x[:1].expand_as(x).clone()
    elif kind == "huge inputs":
        x.mul_(1e12)
    elif kind == "certain":
        model[6].bias.data[0] = 1e4  # every gradient underflows
    return model.eval(), [(x[:5], y[:5]), (x[5:], y[5:])] if len(x) > 5 else [(x, y)]


KINDS = (
    "nan weight",
    "infinite input",
    "huge weights",
    "tiny weights",
    "zero layer",
    "zero inputs",
    "one example",
    "copies",
    "huge inputs",
    "certain",
)
METHODS = {
    "l-obs": (lobs.prune, lobs.Options()),
    "l-obs-joint": (lobs.prune, lobs.Options(update="joint")),
    "l-obs-ours": (
        lobs.prune,
        lobs.Options(update="joint", rescore=3, inputs="pruned", damping=1e-3, relative=True),
    ),
    "woodfisher": (wood.prune, wood.Options()),
    "woodfisher-joint": (wood.prune, wood.Options(update="joint", chunk=7)),
    "kron-obs": (kron_obs.prune, kron_obs.Options()),
    "eigendamage": (eigen.prune, eigen.Options()),
}


@pytest.mark.parametrize("method", METHODS)
def test_methods_end_finite_or_in_a_typed_error_and_leave_the_model_alone(method):
    prune, options = METHODS[method]
    ended = 0
    for seed in range(3):
        for kind in KINDS:
            model, loader = network(kind, seed)
            before = {k: v.clone() for k, v in model.state_dict().items()}
            try:
                result = prune(model, loader, 0.4, options, toy.generator(seed))
                ended += all(
                    torch.isfinite(p).all() for p in result.model.parameters()
                ) or pytest.fail(f"{method}, {kind}: not finite")
                assert result.predicted_increase is None or math.isfinite(
                    result.predicted_increase
                ), (method, kind)
            except TYPED as error:
                assert "\n" not in str(error) and (
                    getattr(error, "layer", None) or getattr(error, "field", None)
                ), (method, kind)
            assert all(
                torch.equal(v, before[k]) or v.isnan().any() for k, v in model.state_dict().items()
            ), (method, kind)
    assert ended >= 9


def test_overflow_of_a_factor_names_the_layer():
    model, loader = network("", 0)
    model[4].weight.data.mul_(1e30)
    with pytest.raises(NumericalError) as caught:
        kron_factors(model, [(x * 1e10, y) for x, y in loader], fisher="empirical")
    assert caught.value.layer in ("0", "4", "6", "output")


# -- divergence ------------------------------------------------------------------------------------

DATA = D.load("synthetic:classes=3,samples=96")


@pytest.mark.parametrize(("batch", "at"), [(16, 7), (96, 2), (48, 4), (48, 3)])
def test_a_run_that_diverges_stops_within_a_step_with_the_last_good_epoch(
    batch, at, tmp_path, monkeypatch
):
    """Weights become infinite in step `at`: inside an epoch, or in its last step, which only the
    evaluation sees.
    """
    monkeypatch.setattr(T, "SNAPSHOT_SECONDS", -1.0)
    model, good = models.build("lenet300", DATA.classes, DATA.input_shape, 0), {}

    def poison(state):
        if state.event == "epoch":
            good.update({k: v.clone() for k, v in state.model.state_dict().items()})
        if state.event == "step" and state.step == at:
            next(state.model.parameters()).data.fill_(float("inf"))
        assert state.event != "step" or state.step <= at, "it went on after the weights were gone"

    fit = T.fit(
        model,
        DATA,
        Recipe(epochs=4, lr=0.01, batch_size=batch),
        callbacks=[poison],
        snapshot=tmp_path / "s.safetensors",
    )
    assert fit.diverged == at and all(math.isfinite(entry["loss"]) for entry in fit.history)
    assert good and all(torch.equal(v, good[k]) for k, v in model.state_dict().items())
    assert T.evaluate(model, DATA.test_loader())[1] == fit.last


def test_divergence_after_a_resume_is_the_uninterrupted_runs(tmp_path, monkeypatch):
    """The last good epoch outlives the process: what is kept does not depend on where the run was
    stopped.
    """
    monkeypatch.setattr(T, "SNAPSHOT_SECONDS", 0.0)
    recipe, build = (
        Recipe(epochs=4, lr=0.05, batch_size=16),
        lambda: models.build("lenet300", DATA.classes, DATA.input_shape, 0),
    )

    def poison(state):
        if state.event == "step" and state.step == 10:
            next(state.model.parameters()).data.fill_(float("inf"))

    def stop(state):
        if state.event == "gradient" and state.step == 9:
            raise KeyboardInterrupt

    whole, half, path = build(), build(), tmp_path / "s.safetensors"
    straight = T.fit(whole, DATA, recipe, callbacks=[poison])
    with pytest.raises(KeyboardInterrupt):
        T.fit(half, DATA, recipe, callbacks=[stop], snapshot=path)
    resumed = build()
    fit = T.fit(resumed, DATA, recipe, callbacks=[poison], snapshot=path)
    assert fit.diverged == straight.diverged == 10 and fit.last == straight.last
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in resumed.state_dict().items())
