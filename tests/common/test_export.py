"""Exported networks say what the pruned ones say."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common.commands import export
from common.nets import checkpoint, models
from common.nets.edits import apply_edits
from common.nets.masks import apply as hold
from common.running.cli import run

ROOT = Path(__file__).resolve().parents[2]

METHODS = {
    "magnitude-global": ["--sparsity", "0.8"],
    "kron-obd": ["--unit-ratio", "0.5"],
    "eigendamage": ["--unit-ratio", "0.6"],
}


@pytest.fixture(scope="module", params=METHODS)
def pruned(request, tmp_path_factory):
    """A pruned file of each kind: masked weights, narrower layers, bottlenecks."""
    folder = tmp_path_factory.mktemp("runs")
    flags = [
        "--dataset",
        "synthetic",
        "--epochs",
        "0",
        "--num-samples",
        "64",
        "--allow-untrained",
        "--method",
        request.param,
        *METHODS[request.param],
    ]
    assert run("common", "prune", argv=[*flags, "--output-dir", str(folder)]) == 0
    return next(folder.rglob("pruned.safetensors"))


def test_onnx_gives_the_same_outputs_at_any_batch_size(pruned, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    ort = pytest.importorskip("onnxruntime")
    assert export.main([str(pruned), "--onnx", str(tmp_path / "model.onnx")]) == 0
    assert "differs from torch by" in capsys.readouterr().out
    found = checkpoint.load(pruned)
    x = torch.randn(7, *found.architecture["input_shape"])
    given = ort.InferenceSession(str(tmp_path / "model.onnx")).run(None, {"input": x.numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(given, found.model.eval()(x).numpy(), rtol=1e-4, atol=1e-4)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    data = (tmp_path / "model.onnx").read_bytes()
    for place in (str(ROOT), sys.prefix, os.path.dirname(torch.__file__), ".py"):
        assert place.encode() not in data


def test_onnx_that_differs_is_an_error(pruned, tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    honest = export.to_onnx
    monkeypatch.setattr(
        export,
        "to_onnx",
        lambda model, *rest: (honest(model, *rest), list(model.parameters())[-1].data.add_(1.0)),
    )
    assert export.main([str(pruned), "--onnx", str(tmp_path / "model.onnx")]) == 2
    assert "ONNX differs from torch by" in capsys.readouterr().err


def test_plain_weights_rebuild_the_network(pruned, tmp_path):
    """As docs/serving.md does it."""
    assert export.main([str(pruned), "--plain", str(tmp_path)]) == 0
    how = json.loads((tmp_path / "architecture.json").read_text())
    model = models.build(how["model"], how["classes"], tuple(how["input_shape"]))
    apply_edits(model, how["edits"])
    model.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    found = checkpoint.load(pruned)
    hold(found.model, found.masks)
    x = torch.randn(3, *how["input_shape"])
    with torch.no_grad():
        assert torch.equal(model.eval()(x), found.model.eval()(x))


def test_nothing_to_write_is_said(pruned, capsys):
    assert export.main([str(pruned)]) == 2
    assert "nothing to write" in capsys.readouterr().err
