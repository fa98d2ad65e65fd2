"""Rows in a file are the rows in memory, and what is asked of them is the same."""

import math

import pytest
import torch

from common.cells.errors import NumericalError, UserError
from common.curvature import blocks as inverse
from common.curvature import spool
from common.curvature.blocks import BlockFisher
from common.curvature.rows import gradient_rows
from common.nets import layers as L
from tests import toy


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_written_is_read(dtype):
    rows = torch.randn(7, 30, generator=toy.generator(), dtype=dtype)
    whole = spool.SpooledRows(7, 30, dtype)
    left, right = whole.columns(0, 11), whole.columns(11, 30, gone=torch.arange(19) % 3 == 0)
    for part, there in ((left, slice(0, 11)), (right, slice(11, 30))):
        for start in (0, 5, 3):  # out of order, the last ones twice
            part[start : start + 2 if start else 3] = rows[start : start + 2 if start else 3, there]
    rows[:, 11:][:, torch.arange(19) % 3 == 0] = 0
    assert (
        torch.equal(whole[:, 0:30], rows)
        and torch.equal(right[:, 2:9], rows[:, 13:20])
        and torch.equal(left[2:4, 4:5], rows[2:4, 4:5])
    )
    assert (
        right.aminmax() == tuple(rows[:, 11:].double().aminmax())
        and left.any()
        and right.shape == (7, 19)
    )
    silent = whole.columns(0, 3, gone=torch.ones(3, dtype=torch.bool))
    silent[0:7] = rows[:, :3]
    assert not silent.any() and not whole[:, 0:3].any()


def test_gradients_on_disk_give_the_same_curvature(monkeypatch):
    """Chunked, whole and network-wide blocks, with runs cut small so that tiles of a wide block are
    seen too.
    """
    monkeypatch.setattr(inverse, "WORK_ENTRIES", 40)
    model, (x, y) = toy.small_net(), toy.batch(6)
    layers = L.prunable(model)
    truth = gradient_rows(model, [(x, y)], 6)
    together, parts = spool.spooled(layers, 6, {})
    assert gradient_rows(model, [(x[:4], y[:4]), (x[4:], y[4:])], 6, out=parts) is parts
    everything = torch.cat(list(truth.values()), 1)
    cases = [(parts[name], truth[name], chunk) for name in layers for chunk in (None, 7)] + [
        (together, everything, None)
    ]
    for mine, rows, chunk in cases:
        ours, theirs = BlockFisher(mine, 1e-3, chunk), BlockFisher(rows, 1e-3, chunk)
        v = torch.randn(rows.shape[1], generator=toy.generator(), dtype=torch.float64)
        for a, b in (
            (ours.diagonal(), theirs.diagonal()),
            (ours.solve(v), theirs.solve(v)),
            (ours.times(v), theirs.times(v)),
            (ours.mean_row(), rows.mean(0)),
            (ours.joint(v, v > 0), theirs.joint(v, v > 0)),
            (ours.submatrix(torch.tensor([5, 1])), theirs.submatrix(torch.tensor([5, 1]))),
        ):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_gradients_that_are_not_finite_are_named():
    model, (x, y) = toy.small_net(), toy.batch(6)
    with torch.no_grad():
        model[3].weight[0, 0] = math.nan
    with pytest.raises(NumericalError, match="layer '3'.*not finite"):
        gradient_rows(model, [(x, y)], 6, out=spool.spooled(L.prunable(model), 6, {})[1])


def test_a_disk_without_room_and_rows_that_were_never_written():
    with pytest.raises(UserError, match="neither into memory nor onto the disk"):
        spool.SpooledRows(10**9, 10**9, torch.float32)
    with pytest.raises(ValueError, match="never written"):
        spool.SpooledRows(2, 3, torch.float32)[:, 0:3]
