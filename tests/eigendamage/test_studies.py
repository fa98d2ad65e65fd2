"""The studies against what they are about: the Fisher's dense twin and its rotation, Example 1's
numbers, latency's table.
"""

import numpy as np
import pytest
import torch

from common.cells.record import Record
from common.cells.spec import Recipe, Spec
from common.data import sources as D
from common.nets import models
from common.running import pipeline
from common.running.timing import Timer
from eigendamage.studies import __main__ as studies
from eigendamage.studies import fisher_basis
from tests import reference, toy


def test_the_fisher_block_is_the_exact_one_and_its_rotation_is_orthogonal():
    model = toy.seeded(models.build("mlpnet", 3, (1, 3, 3), 0))
    x, y = toy.batch(12, (1, 3, 3))
    parameters, kfe = fisher_basis.fisher_bases(model, "fc2", [(x[:8], y[:8]), (x[8:], y[8:])])
    torch.testing.assert_close(
        parameters, reference.exact_fisher(model, model.fc2, x), rtol=1e-9, atol=1e-12
    )
    torch.testing.assert_close(
        torch.linalg.eigvalsh(kfe), torch.linalg.eigvalsh(parameters), rtol=1e-8, atol=1e-10
    )
    assert fisher_basis.off_diagonal(kfe) < fisher_basis.off_diagonal(parameters)


def test_correlation_is_normalised_and_dead_directions_are_zero():
    matrix = torch.tensor([[4.0, 2.0, 0.0], [2.0, 9.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor(
        [[1.0, 1 / 3, 0.0], [1 / 3, 1.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64
    )
    torch.testing.assert_close(fisher_basis.correlation(matrix), expected)
    assert fisher_basis.off_diagonal(torch.eye(3)) == 0 and fisher_basis.off_diagonal(
        matrix
    ) == pytest.approx(8 / 105)


def test_example_1_is_recorded_as_printed(tmp_path):
    assert studies.main(["example1", "--output-dir", str(tmp_path)]) == 0
    record = Record.read(tmp_path / "example1.json")
    found = {row["case"]: (row["increase"], row["predicted"]) for row in record.trajectory}
    assert (
        found["obd-1"] == (0.25, 0.25)
        and found["obd-2"] == (0.76, 0.75)
        and found["obs-2"][0] == 1.99
    )
    assert found["obs-1"] == pytest.approx((0.00985, 0.00985)) and record.stage == "study"


def test_latency_puts_every_pruned_network_beside_its_parent(tmp_path, monkeypatch):
    base = Spec(
        paper="eigendamage",
        table="t",
        model="digits_cnn:width=0.5",
        num_samples=32,
        train=Recipe(epochs=0),
        allow_untrained=True,
        output_dir=str(tmp_path),
    )
    for method in ("eigendamage", "nn-slimming"):
        pipeline.prune(base.but(method=method, unit_ratio=0.5, cell=f"digits-0.5-{method}-seed0"))
    told = {
        "dense": 0.020,
        "digits-0.5-eigendamage-seed0": 0.005,
        "digits-0.5-nn-slimming-seed0": 0.008,
    }
    shapes = []

    def medians(networks, x, rounds):
        """The clock's answers, a tenth for one image; the networks that it is given must be those
        that the names say.
        """
        shapes.append((tuple(x.shape), rounds, torch.get_num_threads()))
        for name, network in networks.items():
            cell = (
                base.but(
                    method=name.split("-0.5-")[1].removesuffix("-seed0"), unit_ratio=0.5, cell=name
                )
                if name != "dense"
                else base
            )
            kept = (
                pipeline.prune(cell).achieved["model_params"]
                if name != "dense"
                else pipeline.train(base).achieved["model_params"]
            )
            assert sum(p.numel() for p in network.parameters()) == kept and not network.training
        return {name: told[name] / (10 if len(x) == 1 else 1) for name in networks}

    monkeypatch.setattr(studies.latency.latency, "medians", medians)
    monkeypatch.setattr(studies.latency, "ROUNDS", 2)
    threads = torch.get_num_threads()
    assert (
        studies.main(
            [
                "latency",
                "--table",
                "t",
                "--network",
                "digits",
                "--runs",
                str(tmp_path),
                "--output-dir",
                str(tmp_path),
            ]
        )
        == 0
    )
    record = Record.read(tmp_path / "latency-digits.json")
    rows = record.trajectory
    assert record.provenance["threads"] == 1 and record.stage == "study"
    assert {(r["method"], r["batch"]) for r in rows} == {
        (m, b) for m in ("eigendamage", "nn-slimming") for b in (1, 64)
    }
    assert {(r["method"], r["batch"]): (r["ms"], r["dense_ms"], r["speedup"]) for r in rows} == {
        ("eigendamage", 64): (5.0, 20.0, 4.0),
        ("nn-slimming", 64): (8.0, 20.0, 2.5),
        ("eigendamage", 1): (0.5, 2.0, 4.0),
        ("nn-slimming", 1): (0.8, 2.0, 2.5),
    }
    for row in rows:
        counts = pipeline.prune(
            base.but(method=row["method"], unit_ratio=0.5, cell=row["cell"])
        ).achieved
        assert (
            row["macs_ratio"] == pytest.approx(counts["dense_macs"] / counts["kept_macs"], abs=1e-3)
            and row["macs_ratio"] > 1
        )
    assert shapes == [((1, 1, 8, 8), 2, 1), ((64, 1, 8, 8), 2, 1)]
    assert torch.get_num_threads() == threads
    assert (
        studies.main(["latency", "--table", "t", "--network", "other", "--runs", str(tmp_path)])
        == 2
    )
    assert studies.main(["unknown"]) == 2


def test_the_rows_of_the_fishers_bases_are_their_matrices(tmp_path, monkeypatch):
    """Three live directions and a dead one: correlations ½ and twice 0 in one basis, none in the
    other; the mean is over the six pairs of live ones, the energy over all entries."""
    one = torch.diag(torch.tensor([4.0, 1.0, 9.0, 0.0], dtype=torch.float64))
    one[0, 1] = one[1, 0] = 1.0
    other = torch.diag(torch.tensor([2.0, 3.0, 5.0, 7.0], dtype=torch.float64))
    monkeypatch.setattr(fisher_basis, "fisher_bases", lambda *rest: (one, other))
    monkeypatch.setattr(fisher_basis, "POOL", 1)
    monkeypatch.setattr(
        fisher_basis.study, "dense", lambda spec: (None, D.load("synthetic:samples=64"))
    )
    spec = fisher_basis.MLP.but(num_samples=8)
    rows = fisher_basis.fisher_basis(spec, Timer(), tmp_path)
    assert rows == [
        {
            "basis": "parameters",
            "size": 4,
            "alive": 3,
            "off_diagonal_energy": 0.02,
            "mean_correlation": round(2 * 0.5 / 6, 6),
        },
        {
            "basis": "kfe",
            "size": 4,
            "alive": 4,
            "off_diagonal_energy": 0.0,
            "mean_correlation": 0.0,
        },
    ]
    with np.load(tmp_path / f"{spec.cell}.npz") as pictures:
        assert pictures["parameters"][0].tolist() == [255, 128, 0, 0]
        assert pictures["kfe"].tolist() == (255 * np.eye(4)).tolist()
