"""How each pair of data set and network is compared, its dense network's recipe included."""

from __future__ import annotations

from dataclasses import dataclass

from common.cells import registry
from common.cells.spec import Recipe

SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)


@dataclass(frozen=True)
class Job:
    """How one pair of data set and network is compared. Sparsities apply to weights methods, unit
    ratios to the others. rows: at most so many gradients, each the mean over as many examples as
    there are a row, make the Fisher of a method that has rows."""

    train: Recipe
    finetune: Recipe
    scale: str = "cpu"
    checkpoint: str = ""
    sparsities: tuple[float, ...] = SPARSITIES
    unit_ratios: tuple[float, ...] = (0.2, 0.35, 0.5, 0.65, 0.8)
    num_samples: int = 1_000
    rows: int = 1_000  # WoodFisher Sec. 5.1 on ResNet-20: 1,000 samples, a row each
    dataset_options: str = ""


_CIFAR_TRAIN = Recipe(
    epochs=30, lr=0.1, batch_size=128, weight_decay=5e-4, schedule="cosine", augment=True
)
JOBS: dict[tuple[str, str], Job] = {
    ("digits", "digits_cnn"): Job(
        Recipe(epochs=20, lr=0.05, batch_size=64, weight_decay=5e-4, schedule="cosine"),
        Recipe(epochs=2, lr=0.01, batch_size=64, weight_decay=5e-4, schedule="cosine"),
        scale="quick",
    ),
    # the L-OBS authors' dense network reads inputs in [0, 1]
    ("mnist", "lenet300"): Job(
        Recipe(epochs=0),
        Recipe(epochs=1, lr=0.02, batch_size=128, schedule="cosine"),
        checkpoint="lenet300_mnist",
    ),
    ("mnist", "lenet5"): Job(
        Recipe(epochs=8, lr=0.05, batch_size=128, weight_decay=5e-4, schedule="cosine"),
        Recipe(epochs=1, lr=0.02, batch_size=128, weight_decay=5e-4, schedule="cosine"),
    ),
    # a public network trained on the original pixels, so it is tuned on the JPEG copy first
    ("cifar10-jpeg", "resnet20"): Job(
        Recipe(
            epochs=3, lr=0.02, batch_size=128, weight_decay=5e-4, schedule="cosine", augment=True
        ),
        Recipe(
            epochs=0.1, lr=0.01, batch_size=128, weight_decay=5e-4, schedule="cosine", augment=True
        ),
        checkpoint="resnet20_cifar10",
        sparsities=(0.5, 0.7, 0.8, 0.9, 0.95),
        dataset_options="norm=imagenet",
    ),
    # public weights; five hundred images are no training set, so nothing is tuned
    ("imagenet-sample", "efficientnet_lite0"): Job(
        Recipe(epochs=0),
        Recipe(epochs=0),
        checkpoint="efficientnet_lite0_imagenet",
        sparsities=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
        unit_ratios=(0.05, 0.1, 0.2, 0.3),
        num_samples=400,
        rows=400,
    ),
}
# of any size, so its rows are few: as many as WoodFisher's Sec. 3.2 at least calls typical
FALLBACK = Job(
    _CIFAR_TRAIN,
    Recipe(epochs=2, lr=0.01, batch_size=128, weight_decay=5e-4, schedule="cosine", augment=True),
    rows=registry.OPEN_ROWS,
)

USUAL = {
    "digits": "digits_cnn",
    "synthetic": "digits_cnn",
    "mnist": "lenet300",
    "cifar10": "resnet20",
    "cifar10-jpeg": "resnet20",
    "cifar100": "resnet20",
    "imagefolder": "resnet20",
    "tiny-imagenet": "vgg19:width=0.25",
    "imagenet": "resnet50",
    "imagenet-sample": "efficientnet_lite0",
}


def job_of(dataset: str, model: str) -> Job:
    """The prepared settings of a pair, or the general ones."""
    return JOBS.get((dataset.partition(":")[0], model.partition(":")[0]), FALLBACK)
