"""Networks of 16 bits: moments are formed in float32, and the masks are those of the same weights
in float32."""

import copy

import pytest
import torch

from common.curvature.diag import diagonal_fisher
from common.curvature.kron import input_hessian, kron_factors
from common.curvature.rows import gradient_rows
from common.nets import models
from tests import toy
from tests.common.test_assumptions import run

HALVES = [torch.float16, torch.bfloat16]


def pair(dtype, scale=1.0):
    """(network, data) in 16 bits and, of the same numbers, in float32."""
    model = models.build("digits_cnn", 10, (1, 8, 8), 0).eval().to(dtype)
    g = toy.generator(1)
    x, y = torch.randn(64, 1, 8, 8, generator=g), torch.randint(10, (64,), generator=g)
    x = (x * scale).to(dtype)
    return (model, [(x, y)]), (copy.deepcopy(model).float(), [(x.float(), y)])


def agreement(one, other):
    """Intersection over union of what two networks keep, the least over layers."""
    return min(
        float((mask & other.masks[name]).sum() / (mask | other.masks[name]).sum())
        for name, mask in one.masks.items()
    )


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    "method", ["l-obs", "l-obs-joint", "obd-global", "woodfisher", "nap", "kfac-prune"]
)
def test_masks_are_those_of_float32(dtype, method):
    half, single = pair(dtype)
    pruned, wanted = run(method, *half), run(method, *single)
    assert all(p.dtype == dtype for p in pruned.model.parameters())
    assert agreement(pruned, wanted) > 0.97


@pytest.mark.parametrize("dtype", HALVES)
def test_moments_do_not_overflow_and_are_formed_in_single_precision(dtype):
    """Inputs of 500: their squares are beyond float16."""
    (model, data), (twin, plain) = pair(dtype, scale=500.0)
    for found, wanted in (
        (input_hessian(model, data), input_hessian(twin, plain)),
        (diagonal_fisher(model, data), diagonal_fisher(twin, plain)),
        (gradient_rows(model, data, 8), gradient_rows(twin, plain, 8)),
    ):
        for name in wanted:
            assert torch.isfinite(found[name]).all() and found[name].dtype != dtype
    first = next(iter(model.state_dict())).removesuffix(".weight")
    exact = input_hessian(twin, plain)[first]
    torch.testing.assert_close(input_hessian(model, data)[first], exact, rtol=1e-6, atol=1e-3)
    kron = kron_factors(model, data, fisher="exact")
    assert all(torch.isfinite(k.A).all() and k.A.dtype == torch.float64 for k in kron.values())


@pytest.mark.parametrize(
    "method", ["eigendamage", "kron-obs", "nap-channel", "woodfisher-structured"]
)
def test_structured_methods_take_them_too(method):
    (model, data), _ = pair(torch.bfloat16)
    pruned = run(method, model, data)
    assert torch.isfinite(pruned.model(data[0][0]).float()).all()
    assert all(p.dtype == torch.bfloat16 for p in pruned.model.parameters())
