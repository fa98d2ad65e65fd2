"""The cells: every option exists, the arithmetic in their comments, and the one flag that a nap
needs.
"""

import math

import pytest

from common.cells import schedule
from common.cells.record import Record
from common.nets import models
from common.nets.flops import costs
from common.running import pipeline
from nap.cells.networks import LENET5, LENET300, RESNET20, VGG16
from nap.experiments import BARE, FIGURES, TABLES

CELLS = {
    name: spec
    for group in (TABLES, FIGURES)
    for cells in group.values()
    for name, spec in cells.items()
}


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_is_one_that_its_method_takes(name):
    pipeline.method_of(CELLS[name])
    assert CELLS[name].cell == name and CELLS[name].paper == "nap"


def test_no_two_cells_share_a_folder():
    folders = [pipeline.cell_folder(spec) for spec in CELLS.values()]
    assert len(set(folders)) == len(folders)


def test_the_targets_are_the_papers():
    for spec, weights, times in ((LENET300, 266_200, 77), (LENET5, 430_500, 200)):
        kept = weights - round(spec.sparsity * weights)
        assert weights / kept >= times
        steps = math.ceil(math.log(1 - spec.sparsity) / math.log(1 - spec.step_ratio))
        assert len(schedule.shrinking(spec.step_ratio, spec.sparsity)) == steps


def test_the_channels_and_macs_of_the_comments():
    vgg = models.build(VGG16.model, 10, (3, 32, 32), 0)
    assert (
        sum(m.out_channels for n, m in vgg.named_modules() if "conv" in n.rpartition(".")[2])
        == 1_056
    )
    assert costs(vgg, (3, 32, 32)).macs == pytest.approx(19.8e6, rel=0.05)
    assert costs(models.build(RESNET20.model, 10, (3, 32, 32), 0), (3, 32, 32)).macs == 40_551_040


def test_a_bound_on_the_added_error_is_all_that_a_nap_needs(tmp_path):
    from common.running.cli import run

    argv = [
        "--model",
        "digits_cnn:width=0.25",
        "--dataset",
        "digits",
        "--max-error-increase",
        "2",
        "--num-samples",
        "200",
        "--output-dir",
        str(tmp_path),
    ]
    assert run("nap", "finetune", TABLES, FIGURES, argv=argv, base=BARE) == 0
    record = Record.read(next(tmp_path.rglob("prune.json")))
    tuned = [entry["tuned"] for entry in record.trajectory]
    assert tuned and all(100 * (record.accuracy["dense"] - t) <= 2 for t in tuned)
    assert record.achieved["sparsity"] > 0.5 and any(
        "stopped before" in note for note in record.notes
    )
