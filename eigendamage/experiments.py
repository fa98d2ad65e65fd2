"""The tables of EigenDamage as cells: the differences from a base Spec, and the arithmetic behind them.

`python -m eigendamage.prune --list` shows them. Unit ratios are fractions removed, of channels or of eigenvectors. Scales: paper
is the paper's own setting, cpu the same criteria on a network that two cores finish. Table 1's "+L1" networks are not among them.
"""

from __future__ import annotations

from dataclasses import replace

from common.compare import job_of
from common.spec import Recipe, Spec

METHODS = ("c-obd", "c-obs", "kron-obd", "kron-obs", "eigendamage")
RATIOS = (0.5, 0.6, 0.7, 0.8, 0.9)

# Sec. 5.1: SGD 150 epochs from 0.1, weight decay 2e-4, a tenth at 1/2 and 3/4 (batch: released code); then 150 epochs from 1e-3,
# weight decay 1e-4, the same decay. Statistics over all 50,000 training images.
DENSE = Recipe(epochs=150, lr=0.1, batch_size=128, weight_decay=2e-4, schedule="multistep", milestones=(75, 112.5), augment=True)
TUNE = Recipe(epochs=150, lr=1e-3, batch_size=128, weight_decay=1e-4, schedule="multistep", milestones=(75, 112.5), augment=True)
NETWORKS = {"vgg19": ("vgg19", 128), "resnet32": ("resnet32:width=4,shortcut=B", 64)}  # and the batch that tunes it (released code)
PAPER = Spec(paper="eigendamage", scale="paper", train=DENSE, num_samples=50_000)

# LeNet-5 has 570 prunable channels (20 + 50 + 500) and 20 + 1, 50 + 20 and 500 + 800 rows and columns with channel-only A
LENET5 = Spec(paper="eigendamage", scale="cpu", model="lenet5", dataset="mnist", train=job_of("mnist", "lenet5").train,
              finetune=job_of("mnist", "lenet5").finetune, num_samples=5_000)

# JPEG CIFAR-10 at cpu scale: short schedules; "+L1" (Liu et al. 2017) where NN Slimming needs it, as in Table 1
_SHORT = Recipe(epochs=10, lr=0.1, batch_size=128, weight_decay=2e-4, schedule="cosine", augment=True)
_HALF = Recipe(epochs=0.5, lr=0.01, batch_size=128, weight_decay=1e-4, schedule="cosine", augment=True)
CIFAR = Spec(paper="eigendamage", scale="cpu", dataset="cifar10-jpeg", num_samples=5_000, finetune=_HALF)
CPU_NETWORKS = {
    "vgg19-L1": CIFAR.but(model="vgg19:width=0.25", train=replace(_SHORT, bn_l1=1e-4)),
    "preresnet29-L1": CIFAR.but(model="preresnet29", train=replace(_SHORT, epochs=7, bn_l1=1e-5)),
    # a public network trained on the original pixels, so it is tuned on the JPEG copy first
    "resnet32": CIFAR.but(model="resnet32", dataset="cifar10-jpeg:norm=imagenet", checkpoint="resnet32_cifar10",
                          train=replace(_SHORT, epochs=2, lr=0.02, weight_decay=5e-4)),
}


def sweep(base: Spec, table: str, name: str, ratios: tuple[float, ...], seeds: int) -> dict[str, Spec]:
    """Cells `<name>-<method>-<ratio>-seed<k>`: every criterion at every ratio."""
    cells = {}
    for seed in range(seeds):
        for method in METHODS:
            for ratio in ratios:
                cell = f"{name}-{method}-{ratio:g}-seed{seed}"
                cells[cell] = base.but(table=table, cell=cell, method=method, unit_ratio=ratio, seed=seed)
    return cells


def table1() -> dict[str, Spec]:
    """One pass at 60% and 90%, five runs over one dense network each: 2 networks · 2 data sets · 5 criteria · 2 · 5 = 200."""
    cells = {}
    for name, (model, batch) in NETWORKS.items():
        for dataset in ("cifar10", "cifar100"):
            base = PAPER.but(model=model, dataset=dataset, finetune=Recipe(**vars(TUNE) | {"batch_size": batch}))
            cells |= sweep(base, "1", f"{name}-{dataset}", (0.6, 0.9), 5)
    return cells


TABLES: dict[str, dict[str, Spec]] = {"1": table1(), "lenet5": sweep(LENET5, "lenet5", "lenet5", RATIOS, 3)}
FIGURES: dict[str, dict[str, Spec]] = {}
TABLES["1"] |= {name: spec for net, base in CPU_NETWORKS.items() for name, spec in sweep(base, "1", f"cpu-{net}", (0.6, 0.9), 1).items()}
