"""A whole pruning step of a large network, from images to masks, within a memory budget
(woodfisher/studies/size.py).
"""

from __future__ import annotations

from common.cells.errors import UserError
from common.data import sources as D
from common.nets import models
from woodfisher.studies import size

BUDGET_GB = 8.0
SECONDS = 60.0  # the aim for scores, selection and update on two cores
# of the data root: ImageNet, or a sample laid out as train/<class>/
FOLDERS = ("", "imagenet-sample")


def images() -> D.Data | None:
    """ImageNet or a sample of it; None where there is neither."""
    for folder in FOLDERS:
        try:
            return D.load(size.CASES["resnet50"].dataset, str(D.data_root() / folder))
        except UserError:
            continue
    return None


def resnet50() -> dict | None:
    """All 25.5 million weights of ResNet-50, once, within 8 GB; None, and a line, where there are
    no images.
    """
    data, case = images(), size.CASES["resnet50"]
    if data is None:
        print(
            "ResNet-50 end to end: skipped, no ImageNet images (imagenet/train/<class>/ or "
            f"{FOLDERS[1]}/train/<class>/ in "
            "the data folder, which DATA_DIR names)",
            flush=True,
        )
        return None
    found = size.measure(
        models.build("resnet50", data.classes, data.input_shape, 0),
        data.calibration(case.samples, batch_size=16),
        case,
        BUDGET_GB,
    )
    after = found["scores_s"] + found["selection_and_update_s"]
    print(
        f"ResNet-50 end to end, {found['weights']:,} weights, {found['rows']} rows: gradients "
        f"{found['gradients_s']:.0f} s, then scores, "
        f"selection and update {after:.0f} s (aim {SECONDS:.0f}); peak {found['peak_gb']:.1f} GB "
        f"(aim {BUDGET_GB:.0f}), "
        f"{found['peak_to_forecast']:.2f} times its forecast (aim 0.8 to 1.2)",
        flush=True,
    )
    return found
