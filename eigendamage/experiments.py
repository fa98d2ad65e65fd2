"""The tables and figures of EigenDamage as cells: the differences from a base Spec, and the arithmetic behind them.

`python -m eigendamage.prune --list` shows them. Unit ratios are fractions removed, of channels or of eigenvectors. Scales: paper
is the paper's own setting, cpu the same methods on networks that two cores finish. A cell is <network>-<ratio>-<method>-seed<k>.
"""

from __future__ import annotations

from dataclasses import replace

from common.compare import job_of
from common.spec import Recipe, Spec

CRITERIA = ("c-obd", "c-obs", "kron-obd", "kron-obs", "eigendamage")
METHODS = ("eigendamage", "kron-obs", "kron-obd", "c-obs", "c-obd")
RATIOS = (0.5, 0.6, 0.7, 0.8, 0.9)

# -- the paper's scale ----------------------------------------------------------------------------------------------------

# Sec. 5.1: SGD 150 epochs from 0.1, weight decay 2e-4, a tenth at 1/2 and 3/4 (batch: released code); then 150 epochs from 1e-3,
# weight decay 1e-4, the same decay. Statistics over all 50,000 training images.
DENSE = Recipe(epochs=150, lr=0.1, batch_size=128, weight_decay=2e-4, schedule="multistep", milestones=(75, 112.5), augment=True)
TUNE = Recipe(epochs=150, lr=1e-3, batch_size=128, weight_decay=1e-4, schedule="multistep", milestones=(75, 112.5), augment=True)
NETWORKS = {"vgg19": ("vgg19", 128), "resnet32": ("resnet32:width=4,shortcut=B", 64)}  # and the batch that tunes it (released code)
PAPER = Spec(paper="eigendamage", scale="paper", train=DENSE, num_samples=50_000)

# -- cpu scale ------------------------------------------------------------------------------------------------------------

# Labels: a network that fits its training set almost never draws a wrong one, so all ten take part, weighted by their probability
# ("exact"), on fewer images: a pass costs six times as much.
MNIST = Spec(paper="eigendamage", scale="cpu", dataset="mnist", num_samples=1_000)
MNIST_NETWORKS = {
    # the L-OBS authors' network; 300 + 100 channels, 784 + 300 and 300 + 100 columns and rows
    "lenet300": MNIST.but(model="lenet300", checkpoint="lenet300_mnist",
                          finetune=Recipe(epochs=1, lr=0.02, batch_size=128, schedule="cosine")),
    # 20 + 50 + 500 channels; 1 + 20, 20 + 50 and 800 + 500 columns and rows
    "lenet5": MNIST.but(model="lenet5", train=job_of("mnist", "lenet5").train,
                        finetune=Recipe(epochs=0.3, lr=0.02, batch_size=128, schedule="cosine")),
}
# JPEG CIFAR-10: short schedules; "+L1" (Liu et al. 2017) where NN Slimming needs it, as in Table 1
_SHORT = Recipe(epochs=10, lr=0.1, batch_size=128, weight_decay=2e-4, schedule="cosine", augment=True)
_TUNE = Recipe(epochs=1, max_steps=150, lr=0.02, batch_size=128, weight_decay=1e-4, schedule="cosine", augment=True)
CIFAR = Spec(paper="eigendamage", scale="cpu", dataset="cifar10-jpeg", num_samples=500, finetune=_TUNE)
CIFAR_NETWORKS = {
    # a public network trained on the original pixels, so it is tuned on the JPEG copy first
    "resnet32": CIFAR.but(model="resnet32", dataset="cifar10-jpeg:norm=imagenet", checkpoint="resnet32_cifar10",
                          train=replace(_SHORT, epochs=2, lr=0.02, weight_decay=5e-4)),
    "preresnet29-L1": CIFAR.but(model="preresnet29", train=replace(_SHORT, epochs=7, bn_l1=1e-5)),
    "vgg19-L1": CIFAR.but(model="vgg19:width=0.25", train=replace(_SHORT, bn_l1=1e-4)),
}


def sweep(base: Spec, table: str, name: str, ratios: tuple[float, ...], seeds: int, methods: tuple[str, ...] = METHODS) -> dict[str, Spec]:
    """Cells `<name>-<ratio>-<method>-seed<k>`: every method at every ratio. Labels are exact at cpu scale."""
    cells = {}
    for seed in range(seeds):
        for ratio in ratios:
            for method in methods:
                cell = f"{name}-{ratio:g}-{method}-seed{seed}"
                labels = {"fisher": "exact"} if base.scale == "cpu" and method in CRITERIA else {}
                cells[cell] = base.but(table=table, cell=cell, method=method, unit_ratio=ratio, seed=seed, **labels)
    return cells


def table1() -> dict[str, Spec]:
    """One pass at 60% and 90%, five runs over one dense network each: 2 networks · 2 data sets · 5 criteria · 2 · 5 = 200."""
    cells = {}
    for name, (model, batch) in NETWORKS.items():
        for dataset in ("cifar10", "cifar100"):
            base = PAPER.but(model=model, dataset=dataset, finetune=replace(TUNE, batch_size=batch))
            cells |= sweep(base, "1", f"{name}-{dataset}", (0.6, 0.9), 5)
    for name, base in CIFAR_NETWORKS.items():
        cells |= sweep(base, "1", f"cpu-{name}", (0.9, 0.6), 2)
    return cells


TABLES: dict[str, dict[str, Spec]] = {
    "1": table1(),
    "mnist": {cell: spec for name, base in MNIST_NETWORKS.items() for cell, spec in sweep(base, "mnist", name, RATIOS, 3).items()},
}
FIGURES: dict[str, dict[str, Spec]] = {}
