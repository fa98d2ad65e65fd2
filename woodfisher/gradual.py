"""Fig. 6 and Tables 3 and S5 at cpu scale: gradual pruning of ResNet-20 and LeNet-5, methods on one cubic schedule with one budget.

Magnitude per layer is GMP (Zhu & Gupta 2017); DPF takes its steps on the dense weights and chooses its masks again on the way.
The paper trains 100 epochs; here what a CPU does in minutes a cell, stated by each Spec.
"""

from __future__ import annotations

from common.compare import job_of
from common.spec import Recipe, Spec
from woodfisher import imagenet
from woodfisher.cells import Group, labelled, sweep

LENET5 = Spec(paper="woodfisher", scale="cpu", model="lenet5", dataset="mnist", train=job_of("mnist", "lenet5").train)
BASELINES = ("magnitude-global", "magnitude-layer", "dpf")
ROWS = {"num_samples": 1000, "fisher_batch_size": 10}


def tuning(epochs: float, augment: bool) -> Recipe:
    """Sec. S1.1's optimiser, at a rate for these networks, annealed once a step and once at the end."""
    return Recipe(epochs=epochs, lr=0.01, momentum=0.9, weight_decay=1e-4, batch_size=128, schedule="cosine", augment=augment)


def on_resnet20(resnet20: Spec) -> Spec:
    """All layers: 4 prunings 39 iterations apart, judged on 2,000 test images meanwhile, then 98 iterations."""
    return resnet20.but(steps=4, step_epochs=0.1, step_test_samples=2000, finetune=tuning(0.25, augment=True))


def profile(resnet20: Spec, *methods: str) -> list[Group]:
    """Tables 3 and S5 on ResNet-20: the first convolution dense, the classifier to 80%, the rest to 90%."""
    base = on_resnet20(resnet20).but(options={**imagenet.CONV1, "layer_sparsity": {"*": 0.9, "linear": 0.8}})
    return [sweep(base, f"resnet20-{method}", method, (0.9,), **ROWS if method.startswith("woodfisher") else {}) for method in methods]


def table3(resnet20: Spec) -> Group:
    """WoodFisher and global magnitude choose between the layers in the middle, GMP (magnitude per layer) does not."""
    return labelled("table", "3", *profile(resnet20, "woodfisher", "magnitude-global", "magnitude-layer"), imagenet.table3())


def table_s5(resnet20: Spec) -> Group:
    """Neither chooses."""
    return labelled("table", "S5", *profile(resnet20, "woodfisher-layer", "magnitude-layer"), imagenet.table_s5())


def fig6(resnet20: Spec) -> Group:
    """ResNet-20, and LeNet-5: 5 prunings three tenths of an epoch apart, then one epoch."""
    small = LENET5.but(steps=5, step_epochs=0.3, finetune=tuning(1, augment=False))
    groups = []
    for base, name, amounts in ((small, "lenet5", (0.98, 0.99)), (on_resnet20(resnet20), "resnet20", (0.95, 0.9, 0.98, 0.8))):
        groups.append(sweep(base, f"{name}-woodfisher", "woodfisher", amounts, 5, **ROWS))
        groups += [sweep(base, f"{name}-{method}", method, amounts, 5) for method in BASELINES]
    return labelled("figure", "6", *groups)
