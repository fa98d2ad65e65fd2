"""docs/scaling.md: shapes counted again, arithmetic checked on a record of round numbers."""

import pytest
from torchvision.models import vit_l_16

from common.cells.errors import UserError
from common.nets import models
from common.nets.flops import costs
from figures import scaling

BENCH = {
    "provenance": {"device": "a machine", "threads": 1},
    "ratios": {
        scaling.PLAIN: {"seconds": [3 * scaling.PLAIN_MACS * scaling.PLAIN_EXAMPLES / 1e9, 99.0]}
    },
    "scaling": {
        "rows": {
            "m": [10, 100, 1000],
            "d": 1000,
            "seconds": [1000 * (1e-9 * m**2 + 1e-8 * m) for m in (10, 100, 1000)],
            "slope": 2.0,
        },
        "weights": {"slope": 1.0},
    },
}


@pytest.mark.parametrize(
    "name,model,shape,classes",
    [
        ("ResNet-20", "resnet20", (3, 32, 32), 10),
        ("ResNet-50", "resnet50", (3, 224, 224), 1000),
        ("MobileNetV1", "mobilenet_v1", (3, 224, 224), 1000),
    ],
)
def test_shapes_are_the_networks(name, model, shape, classes):
    """Weights of ResNet-20 leave out the stem's 432 and the classifier's 640, as Fig. 3a does."""
    counted = costs(models.build(model, classes, shape, 0), shape)
    for job in (job for job in scaling.JOBS if job.name.startswith(name)):
        assert job.macs == counted.macs
        assert job.weights == counted.params - (432 + 640 if name == "ResNet-20" else 0)


def test_vision_transformer_is_counted_from_its_layers():
    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        parameters = dict(vit_l_16().named_parameters())
    matrices = (
        p.numel()
        for name, p in parameters.items()
        if p.dim() > 1 and not name.endswith(("class_token", "pos_embedding"))
    )
    assert sum(matrices) == scaling.VIT_L


def test_arithmetic():
    machine = scaling.constants(BENCH)
    assert (machine.k, machine.l, machine.r) == pytest.approx((1e-9, 1e-8, 1e9))
    # c < m: a c × c matrix from m rows
    assert machine.inverse(100, 40, 7) == pytest.approx((1e-9 * 40 * 100 + 1e-8 * 100) * 7)
    row = next(
        line
        for line in scaling.table(BENCH).splitlines()
        if line.startswith("| ResNet-50, one-shot")
    )
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[1:4] == ["25,502,912", "80 × 100, 1,000", "7.6 GB"]
    assert cells[4] == f"{3 * 4_089_184_256 * 8000 / 1e9 / 86400:.3g} days"
    assert cells[5] == f"{(1e-9 * 80**2 + 1e-8 * 80) * 25_502_912 / 60:.3g} min"
    assert [scaling.span(s) for s in (5, 90, 7200, 86400 * 2, 365 * 86400 * 3)] == [
        "5 s",
        "1.5 min",
        "2 h",
        "2 days",
        "3 years",
    ]


def test_measured_steps_stand_beside_the_law():
    size = {
        "network": "resnet50",
        "dataset": "imagenet",
        "weights": 1000,
        "rows": 100,
        "chunk": 50,
        "rows_on_disk": True,
        "provenance": {"threads": 2},
        "gradients_s": 3.0,
        "scores_s": 1.0,
        "selection_and_update_s": 0.5,
        "peak_rss_mb": 2048.0,
        "forecast_gb": 2.1,
    }
    lines = scaling.measured(
        BENCH, [size, size | {"chunk": "network", "rows_on_disk": False}]
    ).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert cells[0][1:] == [
        "1,000",
        "100, 50",
        "0.0 GB on disk",
        "2",
        "3 s",
        "1.5 s",
        "0.006 s",
        "2.0 GB",
        "2.1 GB",
    ]
    assert cells[1][2:4] == ["100, one block", "0.0 GB in memory"] and cells[1][7] == "0.011 s"


def test_a_record_without_the_measurement_is_said():
    with pytest.raises(UserError, match="make bench"):
        scaling.constants({"ratios": {}})
