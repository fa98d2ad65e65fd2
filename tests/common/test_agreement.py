"""Agreement between methods' masks, against counts made by hand."""

from __future__ import annotations

import csv

import pytest
import torch
from scipy import stats

from common.cells.errors import UserError
from common.commands import agreement
from common.nets import checkpoint, models
from tests.figures.fixtures import record

ARCHITECTURE = {"model": "digits_cnn", "classes": 10, "input_shape": [1, 8, 8]}


def test_levels_and_overlap():
    masks = {
        0.5: torch.tensor([True, True, False, True]),
        0.9: torch.tensor([False, True, False, False]),
    }
    assert agreement.levels(masks).tolist() == [1, 2, 0, 1]
    assert agreement.overlap(masks[0.5], masks[0.9]) == pytest.approx(1 / 3)
    assert agreement.overlap(~masks[0.5] & masks[0.5], masks[0.9] & ~masks[0.9]) == 1


def run(folder, method, sparsity, keep, dense_hash="d0d0"):
    """A cell's record and pruned network; `keep` says which of the first eight weights of fc stay,
    the rest go.
    """
    model = models.build("digits_cnn", 10, (1, 8, 8), 0)
    name, weight = next((n, p) for n, p in model.named_parameters() if p.dim() == 2)
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[:8] = torch.tensor(keep, dtype=torch.bool)
    with torch.no_grad():
        weight.mul_(mask.reshape(weight.shape))
    one = record("prune", method, sparsity)
    one.dense_hash = dense_hash
    cell = folder / f"{method}-{sparsity}" / "seed0"
    one.write(cell / "prune.json")
    checkpoint.save(
        cell / "pruned.safetensors", model, ARCHITECTURE, masks={name: mask.reshape(weight.shape)}
    )
    return weight.numel()


def test_a_comparisons_masks_are_ranked_by_when_each_weight_goes(tmp_path):
    keeps = {
        "random": {0.5: [1, 1, 1, 1, 0, 0, 0, 0], 0.9: [1, 0, 0, 0, 0, 0, 0, 0]},
        "obd-global": {0.5: [1, 1, 0, 0, 1, 1, 0, 0], 0.9: [0, 1, 0, 0, 0, 0, 0, 0]},
    }
    for method, by in keeps.items():
        for sparsity, keep in by.items():
            total = run(tmp_path, method, sparsity, keep)
    assert agreement.main([str(tmp_path)]) == 0
    (line,) = csv.DictReader((tmp_path / "agreement.csv").open())
    padding = [0] * (total - 8)
    expected = stats.spearmanr(
        [1, 2, 0, 0, 1, 1, 0, 0] + padding, [2, 1, 1, 1, 0, 0, 0, 0] + padding
    ).statistic
    assert (line["method"], line["other"], line["dense_hash"]) == ("obd-global", "random", "d0d0")
    assert float(line["spearman"]) == pytest.approx(expected, abs=1e-4)
    assert [float(v) for v in line["overlap"].split()] == pytest.approx([2 / 6, 0], abs=1e-4)


def test_two_networks_are_refused_and_one_method_is_no_comparison(tmp_path, capsys):
    run(tmp_path / "one", "random", 0.5, [1] * 8)
    assert (
        agreement.main([str(tmp_path / "one")]) == 0
        and not (tmp_path / "one" / "agreement.csv").exists()
    )
    run(tmp_path / "one", "obd-global", 0.5, [1] * 8, "beef")
    with pytest.raises(UserError, match="dense_hash"):
        agreement.read(tmp_path / "one")
    assert (
        agreement.main([str(tmp_path / "nothing")]) == 2
        and "no such folder" in capsys.readouterr().err
    )
