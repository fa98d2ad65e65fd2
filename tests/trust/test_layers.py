"""Corners of the one layout that ordinary convolutions do not reach."""

import pytest
import torch
from torch import nn

from common.nets import layers as L
from tests import toy
from tests.trust.oracles import normal


@pytest.mark.parametrize("kernel", [2, (2, 4), (4, 3)])
def test_same_padding_of_even_kernels_falls_where_torch_puts_it(kernel):
    """An odd total cannot be split evenly: torch pads more on the right and below."""
    conv = toy.seeded(nn.Sequential(nn.Conv2d(2, 3, kernel, padding="same")))[0]
    x = normal(2, 2, 5, 6)
    product = L.inputs(conv, x, bias=True) @ L.joined(conv, bias=True).mT
    torch.testing.assert_close(product, L.gradients(conv, conv(x).detach()), rtol=1e-12, atol=1e-12)


def test_weights_and_bias_are_written_back_where_they_were():
    for module in (
        nn.Linear(3, 4),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.Conv2d(4, 6, 3, groups=2, bias=False),
    ):
        module = module.double()
        before = {n: p.detach().clone() for n, p in module.named_parameters()}
        joined = L.joined(module, module.bias is not None)
        L.write_joined(module, 2 * joined)
        assert all(torch.equal(p.detach(), 2 * before[n]) for n, p in module.named_parameters())
