"""What the studies of L-OBS record, on networks of seconds: the numbers are those that the parts
they call give.
"""

import pytest
import torch

from common.cells.spec import Recipe, Spec
from common.data import sources as D
from common.running import pipeline, study
from common.running.timing import Timer
from lobs.studies import dns, imagenet, theorem
from lobs.studies.peak import PeakBytes

SPEC = Spec(
    paper="lobs",
    model="lenet300",
    dataset="synthetic:classes=3,samples=240",
    train=Recipe(epochs=2, lr=0.05, batch_size=24),
)
pytestmark = pytest.mark.usefixtures("one_thread")


def test_peak_bytes_by_hand():
    with PeakBytes() as peak:
        a = torch.zeros(1_000)  # 4,000 bytes
        b = a + 1  # 8,000 at once
        view = b[:10]  # no memory of its own
        del a
        c = torch.zeros(500)  # 6,000
    assert peak.peak == 8_000 and peak.now == 6_000 and view.numel() + c.numel() == 510


def test_every_layers_predicted_error_is_the_one_carried_out():
    rows = imagenet.imagenet(
        SPEC.but(model="digits_cnn:width=0.25", sparsity=0.6), Timer(), examples=16
    )
    assert len(rows) >= 3
    for row in rows:
        assert row["kept"] == pytest.approx(0.4, abs=0.02) and row["measured"] > 0
        assert row["predicted"] == pytest.approx(row["measured"], rel=1e-3)


def test_theorem_and_dns_rows_are_of_the_dense_network_that_is_there(tmp_path, monkeypatch):
    spec, given = SPEC.but(output_dir=str(tmp_path)), D.Data.calibration
    monkeypatch.setattr(
        D.Data,
        "calibration",
        lambda self, num_samples, *rest, **named: given(self, min(num_samples, 240), 48),
    )
    model, data = study.dense(spec)
    assert not model.training and (pipeline.dense_folder(spec) / "train.json").exists()
    rows = theorem.theorem(spec, Timer())
    assert [row["method"] for row in rows] == [
        name for name in ("l-obs", "l-obs-joint", "l-obs-ours") for _ in range(3)
    ]
    for row in rows:
        assert row["accumulated"] <= row["bound"] * (1 + 1e-6), row
    monkeypatch.setattr(dns, "STEPS", (4,))
    rows = dns.surgery(spec, Timer())
    assert [(row["kept"], row["step"]) for row in rows] == [
        (keep, step) for keep in (0.018, 0.015) for step in (1, 2, 3, 4)
    ]
    assert all(0 <= row["error"] <= 1 and 0 < row["kept_then"] <= 1 for row in rows)
