"""Which device is taken, what is computed where, and what is said of it. Devices that are not here
are played.
"""

import pytest
import torch

from common.cells.spec import Recipe, Spec
from common.nets.masks import digest
from common.running import pipeline
from common.running.cli import run
from common.system import machine

MISSING = (
    "The operator 'aten::linalg_eigh' is not currently implemented for the MPS device. If you "
    "want this op to be considered\n"
    "for addition please comment on an issue. As a temporary fix, you can set the environment "
    "variable ..."
)
NO_FLOAT64 = (
    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support "
    "float64. Please use float32 instead."
)


@pytest.fixture
def there(monkeypatch):
    """Makes devices seem to be there: there("cuda", "mps")."""

    def play(*names):
        monkeypatch.setattr("torch.cuda.is_available", lambda: "cuda" in names)
        monkeypatch.setattr("torch.backends.mps.is_available", lambda: "mps" in names)
        monkeypatch.setattr("torch.empty", lambda *size, device: None)

    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return play


@pytest.mark.parametrize(
    "names,chosen", [((), "cpu"), (("mps",), "mps"), (("cuda",), "cuda"), (("cuda", "mps"), "cuda")]
)
def test_auto_takes_the_best_there_is(there, names, chosen):
    there(*names)
    assert machine.device().type == machine.device("auto").type == chosen
    assert machine.device("cpu").type == "cpu"


def test_every_process_of_torchrun_has_a_gpu_of_its_own(there, monkeypatch):
    there("cuda")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert machine.device("auto") == machine.device("cuda") == torch.device("cuda:3")
    assert machine.device("cuda:1") == torch.device("cuda:1")
    there()
    assert machine.device("auto") == torch.device("cpu")


def test_curvature_is_computed_where_there_is_float64():
    assert machine.curvature_device(torch.device("mps")) == torch.device("cpu")
    for name in ("cpu", "cuda:1"):
        assert machine.curvature_device(torch.device(name)) == torch.device(name)


def test_pruning_moves_the_network_to_where_curvature_is_and_back(monkeypatch, tmp_path):
    """The same network, whichever device the curvature is computed on; here another name of the CPU
    plays it.
    """
    spec = Spec(
        dataset="synthetic",
        model="mlpnet",
        train=Recipe(epochs=1, lr=0.05, batch_size=32),
        num_samples=64,
        method="obd-global",
        sparsity=0.5,
        output_dir=str(tmp_path / "plain"),
    )
    record = pipeline.prune(spec)
    seen = []

    def moved(spec):
        function, options = real(spec)

        def method(model, *rest, **how):
            seen.append(next(model.parameters()).device)
            return function(model, *rest, **how)

        return method, options

    real = pipeline.method_of
    monkeypatch.setattr(pipeline, "method_of", moved)
    monkeypatch.setattr(machine, "curvature_device", lambda where: torch.device("cpu", 0))
    again = pipeline.prune(spec.but(output_dir=str(tmp_path / "moved")))
    assert len(seen) == 1 and again.accuracy == record.accuracy and again.loss == record.loss
    masks = [
        pipeline.checkpoint.load(next((tmp_path / name).rglob("pruned.safetensors"))).masks
        for name in ("plain", "moved")
    ]
    assert digest(masks[0]) == digest(masks[1])


@pytest.mark.parametrize(
    "error,named",
    [
        (NotImplementedError(MISSING), "has no aten::linalg_eigh"),
        (TypeError(NO_FLOAT64), "has no float64"),
    ],
)
def test_what_a_device_lacks_is_one_line(error, named, monkeypatch, capsys, tmp_path):
    def lack(spec):
        raise error

    monkeypatch.setitem(pipeline.VERBS, "train", lack)
    assert (
        run(
            "common",
            "train",
            argv=["--dataset", "synthetic", "--model", "mlpnet", "--output-dir", str(tmp_path)],
        )
        == 2
    )
    said = capsys.readouterr().err
    assert said.startswith(f"error: device='mps': {named}; ") and said.count("\n") == 1
    assert machine.unsupported(TypeError("unsupported operand")) is None


def test_precision_is_recorded(monkeypatch):
    assert machine.provenance(torch.device("cpu"), 0)["precision"] == {"channels_last": True}
    monkeypatch.setattr("torch.cuda.get_device_name", lambda where: "a GPU")
    found = machine.provenance(torch.device("cuda"), 0)
    assert found["device"] == "a GPU" and set(found["precision"]) == {
        "channels_last",
        "matmul",
        "conv",
    }
    assert {found["precision"]["matmul"], found["precision"]["conv"]} <= {"ieee", "tf32", "none"}
    assert "amp" in Spec(amp=True).to_dict()
