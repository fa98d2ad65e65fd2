"""Gradient rows and the diagonal Fisher against one backward pass an example, and against
torch.func.
"""

import pytest
import torch
from torch import nn

from common.cells.errors import NumericalError, UserError
from common.curvature.diag import diagonal_fisher
from common.curvature.rows import gradient_rows
from common.nets import layers as L
from common.system import machine
from tests import reference, toy


def equal(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


@pytest.mark.parametrize("kind", toy.CONVOLUTIONS)
def test_rows_are_the_per_example_gradients_for_every_convolution(kind):
    model = toy.conv_head(kind)
    x, _ = toy.batch()
    y = torch.randn(model(x).shape, generator=toy.generator(4), dtype=torch.float64)
    rows = gradient_rows(model, [(x, y)], 5, loss="mse")["0"]
    equal(rows, reference.per_example_gradients(model, model[0], x, y, "mse"))


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_rows_are_means_over_consecutive_examples(batch):
    model, (x, y) = toy.small_net(), toy.batch(6)
    loader = [(x[:4], y[:4]), (x[4:], y[4:])]  # the loader's own batches do not matter
    rows = gradient_rows(model, loader, 6 // batch, batch)
    for name, module in L.prunable(model).items():
        single = reference.per_example_gradients(model, module, x, y)
        equal(rows[name], single.reshape(6 // batch, batch, -1).mean(1))


def test_second_oracle_torch_func():
    model, (x, y) = toy.small_net(), toy.batch(4)
    parameters = {n: p.detach() for n, p in model.named_parameters()}

    def loss(p, x, y):
        return nn.functional.cross_entropy(
            torch.func.functional_call(model, p, (x[None],)), y[None]
        )

    truth = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    for name, rows in gradient_rows(model, [(x, y)], 4).items():
        equal(rows, truth[f"{name}.weight"].flatten(1))


def test_fewer_rows_than_examples_and_a_small_working_memory(monkeypatch):
    model, (x, y) = toy.small_net(), toy.batch(6)
    whole = gradient_rows(model, [(x, y)], 5)
    monkeypatch.setattr("common.curvature.memory.PER_EXAMPLE_ENTRIES", 1)
    for name, rows in gradient_rows(model, [(x, y)], 5).items():
        equal(rows, whole[name])


def test_sampled_rows_have_the_exact_fisher_as_their_second_moment():
    """1,500 draws of 4 examples; entries agree within 6% of the largest."""
    model, (x, y) = (
        toy.seeded(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3))),
        toy.batch(4, (4,)),
    )
    rows = gradient_rows(model, [(x, y)] * 1500, 6000, fisher="sampled", generator=toy.generator(1))
    for name, module in L.prunable(model).items():
        truth = reference.exact_fisher(model, module, x)
        torch.testing.assert_close(
            rows[name].T @ rows[name] / 6000, truth, rtol=0, atol=0.06 * float(truth.abs().max())
        )


@pytest.mark.parametrize("fisher", ["empirical", "exact"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_diagonal_is_the_dense_fishers(fisher, loss):
    model, (x, y) = toy.small_net(), toy.batch(6)
    if loss == "mse":
        y = torch.randn(6, 3, generator=toy.generator(4), dtype=torch.float64)
    diagonal = diagonal_fisher(model, [(x[:4], y[:4]), (x[4:], y[4:])], fisher=fisher, loss=loss)
    for name, module in L.prunable(model).items():
        dense = (
            reference.empirical_fisher(model, module, x, y, loss)
            if fisher == "empirical"
            else reference.exact_fisher(model, module, x, loss)
        )
        equal(diagonal[name].flatten(), dense.diagonal())


def test_a_mini_batch_row_shrinks_the_fisher_by_the_batch():
    """E[row rowᵀ] = F/b + (1 − 1/b) μμᵀ for rows of b independent examples: exact when all C(n, b)
    batches are averaged.
    """
    model, (x, y) = toy.seeded(nn.Sequential(nn.Linear(3, 3))), toy.batch(4, (3,))
    single = reference.per_example_gradients(model, model[0], x, y)
    pairs = [(i, j) for i in range(4) for j in range(4)]  # with replacement: independent
    stream = [(x[list(p)], y[list(p)]) for p in pairs]
    rows = gradient_rows(model, stream, len(pairs), 2)["0"]
    mean = single.mean(0)
    equal(rows.T @ rows / len(pairs), single.T @ single / 4 / 2 + torch.outer(mean, mean) / 2)


def test_too_few_examples_and_bad_values():
    model, (x, y) = toy.small_net(), toy.batch(6)
    with pytest.raises(UserError, match="num_samples=10.*only 6 examples"):
        gradient_rows(model, [(x, y)], 5, 2)
    with pytest.raises(UserError, match="num_rows=0"):
        gradient_rows(model, [(x, y)], 0)
    with pytest.raises(UserError, match="fisher='exact'"):
        gradient_rows(model, [(x, y)], 2, fisher="exact")
    model[6].weight.data.fill_(float("inf"))
    with pytest.raises(NumericalError, match="layer '6'.*not finite"):
        gradient_rows(model, [(x, y)], 2)


def test_rows_that_would_not_fit_are_refused_before_anything_is_computed():
    model = toy.small_net()
    with (
        pytest.raises(
            UserError,
            match="memory_budget=0.01.*4000000 gradient rows would take about .* GB; lower "
            "--num-samples",
        ),
        machine.memory_budget(0.01),
    ):
        gradient_rows(model, iter(()), 4_000_000)
