"""Theorem 3.2 holds and is computed right; Net-Trim is feasible, sparse, and optimal where the
optimum is known.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.cells.errors import LayerError, NumericalError, UserError
from lobs.bound import propagation
from lobs.net_trim import Options as TrimOptions
from lobs.net_trim import net_trim, net_trim_keeping
from lobs.ours import Options, prune
from tests import toy
from tests.lobs.test_method import data, mlp


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.floats(0.0, 0.95),
    st.sampled_from(["triangular", "joint", "diagonal"]),
)
def test_the_accumulated_error_never_exceeds_its_bound(seed, amount, update):
    model, loader = mlp((6, 8, 7, 5, 3), seed), data(30, (6,), seed % 1000)
    result = prune(model, loader, amount, Options(update=update, damping=1e-3), toy.generator())
    for entry in propagation(model, result.model, loader):
        assert entry["accumulated"] <= entry["spectral_bound"] * (1 + 1e-9) + 1e-12
        assert entry["spectral_bound"] <= entry["bound"] * (1 + 1e-9) + 1e-12


def test_it_is_equation_8_written_out():
    model, loader = mlp((6, 5, 4, 3)), data(30, (6,))
    pruned = prune(model, loader, 0.5, Options(damping=1e-3), toy.generator()).model
    x, n = torch.cat([x for x, _ in loader]), 30
    y, seen, deltas, norms = x, x, [], []
    for dense, other in zip(model, pruned):
        if isinstance(dense, nn.Linear):
            deltas.append((dense(y) - other(y)).detach().norm() / n**0.5)
            norms.append(other.weight.detach().norm())
        y, seen = dense(y).detach(), other(seen).detach()
    found = propagation(model, pruned, loader)
    assert [e["layer_error"] for e in found] == pytest.approx([float(d) for d in deltas])
    assert found[-1]["accumulated"] == pytest.approx(float((y - seen).norm() / n**0.5))
    assert found[-1]["bound"] == pytest.approx(
        float(deltas[0] * norms[1] * norms[2] + deltas[1] * norms[2] + deltas[2])
    )
    with pytest.raises(LayerError, match="fully connected"):
        propagation(toy.small_net(), toy.small_net(), data())


def test_net_trim_meets_its_constraints_and_keeps_less_the_more_error_is_allowed():
    g = toy.generator(0)
    W, X = (
        torch.randn(6, 9, generator=g, dtype=torch.float64),
        torch.randn(9, 60, generator=g, dtype=torch.float64),
    )
    X[-1] = 1
    kept = []
    for xi in (0.05, 0.3, 0.7):
        U, report = net_trim(W, X, TrimOptions(xi=xi, iterations=1500))
        assert report["violation"] < 1e-2 and report["xi"] < xi + 0.02
        assert report["kept"] == float((U[:, :-1] != 0).double().mean())
        kept.append(report["kept"])
    assert kept[0] > kept[2]
    with pytest.raises(UserError, match="xi"):
        net_trim(W, X, TrimOptions(xi=1.5))


def test_net_trim_finds_the_known_sparse_weights():
    """With orthogonal inputs and all outputs positive the optimum shrinks every weight alike on the
    error sphere.
    """
    W = torch.tensor([[3.0, 2.0, 0.1]], dtype=torch.float64)
    X = torch.eye(3, dtype=torch.float64)
    xi = 0.1
    U, report = net_trim(W, X, TrimOptions(xi=xi, iterations=4_000, bias=False))
    # soft(w, t) with ‖w − soft‖ = ξ‖w‖: t² + t² + 0.1² = ξ²·13.01
    t = ((xi**2 * 13.01 - 0.01) / 2) ** 0.5
    torch.testing.assert_close(
        U, torch.tensor([[3 - t, 2 - t, 0.0]], dtype=torch.float64), rtol=0, atol=1e-4
    )
    assert report["kept"] == pytest.approx(2 / 3)


def test_net_trim_keeps_as_many_weights_as_asked():
    g = toy.generator(0)
    W = torch.randn(20, 31, generator=g, dtype=torch.float64)
    X = torch.randn(31, 200, generator=g, dtype=torch.float64)
    X[-1] = 1
    for kept in (0.6, 0.3):
        answer, report = net_trim_keeping(W, X, kept, tolerance=0.01)
        assert float((answer[:, :-1] != 0).double().mean()) == pytest.approx(kept, abs=0.01)
        again, _ = net_trim(W, X, TrimOptions(xi=report["asked"]))
        assert torch.equal(again, answer)
    with pytest.raises(NumericalError, match="keeps"):
        net_trim_keeping(W, X, 0.5001, tolerance=0.0)
