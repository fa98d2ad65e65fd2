"""Where there is a GPU: curvature on it is the CPU's within stated tolerances, and every method
prunes the same weights.

float32 sums in another order differ by some 1e-6 relative; a mask may then differ where two scores
are closer than that.
"""

import pytest
import torch

from common.cells import registry
from common.cells.spec import Spec
from common.curvature.diag import diagonal_fisher
from common.curvature.kron import kron_factors
from common.curvature.rows import gradient_rows
from common.data import sources as D
from common.nets import models
from common.running.options import method_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
TOLERANCE = 1e-4  # relative to the largest entry
SAME = 0.999  # of a mask's entries


@pytest.fixture(scope="module")
def both():
    """The same small network on the CPU and on the GPU, and images for it."""
    data = D.load("synthetic")
    model = models.build("digits_cnn", data.classes, data.input_shape, 0).eval()
    twin = models.build("digits_cnn", data.classes, data.input_shape, 0).eval().cuda()
    return data, model, twin


@pytest.mark.parametrize(
    "estimate",
    [
        lambda model, loader: gradient_rows(model, loader, 64),
        lambda model, loader: diagonal_fisher(model, loader),
        lambda model, loader: {
            name: f.A for name, f in kron_factors(model, loader, fisher="exact").items()
        },
        lambda model, loader: {
            name: f.G for name, f in kron_factors(model, loader, fisher="exact").items()
        },
    ],
    ids=["rows", "diagonal", "A", "G"],
)
def test_curvature_agrees(both, estimate):
    data, model, twin = both
    here, there = (estimate(net, data.calibration(64)) for net in (model, twin))
    for name, value in here.items():
        torch.testing.assert_close(
            there[name].cpu(), value, rtol=TOLERANCE, atol=TOLERANCE * float(value.abs().max())
        )


@pytest.mark.parametrize("method", registry.METHODS)
def test_every_method_prunes_alike(both, method):
    data, model, twin = both
    amount = {"sparsity": 0.7} if registry.lookup(method).kind == "weights" else {"unit_ratio": 0.4}
    function, options = method_of(Spec(method=method, **amount))
    here, there = (
        function(
            net,
            data.calibration(128),
            0.7 if "sparsity" in amount else 0.4,
            options,
            torch.Generator().manual_seed(0),
        )
        for net in (model, twin)
    )
    assert there.edits == here.edits
    for name, mask in here.masks.items():
        assert float((mask == there.masks[name].cpu()).double().mean()) >= SAME, name
