"""What the studies of NAP record, on networks of seconds."""

import pytest
import torch

from common.cells.errors import UserError
from common.cells.record import Record
from common.cells.spec import Recipe, Spec
from common.nets import checkpoint, models
from common.nets import layers as L
from common.nets.flops import costs
from common.running import pipeline
from common.running.timing import Timer
from nap.studies import imagenet, importance, latency, survivors

pytestmark = pytest.mark.usefixtures("one_thread")
BASE = Spec(
    paper="nap",
    dataset="synthetic:samples=240,channels=3,size=8,classes=4",
    model="resnet20:width=0.25",
    num_samples=64,
    train=Recipe(epochs=1, lr=0.05, batch_size=24),
    finetune=Recipe(epochs=1, lr=0.01, batch_size=24),
)
CHANNELS = BASE.but(
    method="nap-channel",
    unit_ratio=0.1,
    speedup=1.5,
    steps=20,
    step_schedule="constant",
    step_epochs=0.2,
    cell="narrow",
    options={"every": 1, "examples": 8},
)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A channel-wise run to 1.5 times fewer MACs, and where it lies."""
    spec = CHANNELS.but(output_dir=str(tmp_path_factory.mktemp("runs")))
    pipeline.finetune(spec)
    return spec


def test_survivors_are_the_channels_that_the_network_has_left(narrow):
    rows = survivors.survivors([narrow, narrow])
    left = {
        name: len(module.weight)
        for name, module in L.prunable(
            checkpoint.load(pipeline.cell_folder(narrow) / "pruned.safetensors").model
        ).items()
    }
    assert {row["name"]: sum(row["survives"]) for row in rows} == {
        name: 2 * n for name, n in left.items()
    }
    assert all(row["runs"] == 2 and set(row["survives"]) <= {0, 2} for row in rows)
    assert any(0 in row["survives"] for row in rows)
    with pytest.raises(UserError, match="no run has left a network"):
        survivors.survivors([narrow.but(unit_ratio=0.5)])


def test_latencies_stand_beside_the_macs_of_the_two_networks(narrow, monkeypatch):
    def medians(networks, x, rounds):
        assert tuple(x.shape) == (2, 3, 8, 8) and rounds > 1
        sizes = {
            name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()
        }
        assert sizes["dense"] > sizes["pruned"]
        return {"dense": 0.006, "pruned": 0.004}  # what the clock said

    monkeypatch.setattr(latency.latency, "medians", medians)
    (row,) = latency.latencies([narrow, narrow.but(unit_ratio=0.5)], Timer(), batch=2)
    record = Record.read(pipeline.cell_folder(narrow) / "finetune.json")
    assert row["speedup_macs"] == pytest.approx(
        record.achieved["dense_macs"] / record.achieved["kept_macs"], rel=1e-3
    )
    assert row["name"] == "narrow" and row["speedup_macs"] >= 1.5
    assert (row["dense_s"], row["pruned_s"], row["speedup_latency"]) == (0.006, 0.004, 1.5)


def test_points_of_the_weights_are_those_that_are_left(tmp_path):
    spec = BASE.but(
        dataset="synthetic:samples=1300,channels=3,size=8,classes=4",
        method="nap",
        model="lenet300",
        sparsity=0.9,
        step_ratio=0.5,
        step_epochs=0.2,
        options={"every": 1, "examples": 8},
        output_dir=str(tmp_path),
    )
    pipeline.finetune(spec)
    rows = importance.weights(spec, Timer())
    model = checkpoint.load(pipeline.cell_folder(spec) / "finetuned.safetensors").model
    for moment in ("early", "late"):
        mine = [row for row in rows if row["moment"] == moment]
        total = sum(row["left"] for row in mine)
        # median of all
        assert sum(row["left"] * row["below_median_magnitude"] for row in mine) == pytest.approx(
            total / 2, rel=0.02
        )
        assert all(
            sum(row["histogram"]) == row["left"] and len(row["magnitude"]) == len(row["importance"])
            for row in mine
        )
    for row in (row for row in rows if row["moment"] == "late"):
        w = model.get_submodule(row["name"]).weight
        assert row["left"] == int((w != 0).sum()) and row["reach"] == pytest.approx(
            float(w.detach().abs().max()), rel=1e-4
        )
        assert set(row["magnitude"]) <= {importance.short(v, 3) for v in w.abs().flatten().tolist()}


def test_the_imagenet_path_ends_at_its_speed_up_and_keeps_the_residual_paths_whole(monkeypatch):
    data = pipeline.data_of(BASE)
    monkeypatch.setattr(imagenet, "data_of", lambda spec: data)
    monkeypatch.setitem(imagenet.NETWORKS, "resnet20", (2.3, ()))
    seen = []
    given = imagenet.channels.prune
    monkeypatch.setattr(imagenet.channels, "prune", lambda *a: seen.append(given(*a)) or seen[-1])
    rows = imagenet.imagenet("resnet20", "", Timer(), examples=4)
    assert [row["step"] for row in rows] == list(range(len(rows))) and rows[-2][
        "speedup"
    ] < 2.3 <= rows[-1]["speedup"]
    speedups, channels = [row["speedup"] for row in rows], [row["channels"] for row in rows]
    assert speedups == sorted(speedups) and channels == sorted(channels, reverse=True)
    model, widths = seen[-1].model, rows[-1]["widths"]
    assert widths == {name: len(module.weight) for name, module in L.prunable(model).items()}
    assert model(torch.randn(2, *data.input_shape)).shape == (2, 4)  # additions still meet
    dense = models.build("resnet20", 4, data.input_shape, 0)
    assert costs(model, data.input_shape).macs * 2.3 <= costs(dense, data.input_shape).macs
