"""Fig. 6 at cpu scale: gradual pruning of ResNet-20 and LeNet-5, every method on one cubic schedule with one budget.

Magnitude per layer is GMP (Zhu & Gupta 2017); DPF takes its steps on the dense weights and chooses its masks again on the way.
The paper trains 100 epochs; here what a CPU does in minutes a cell, stated by each Spec.
"""

from __future__ import annotations

from common.compare import job_of
from common.spec import Recipe, Spec
from woodfisher.cells import Group, labelled, sweep

LENET5 = Spec(paper="woodfisher", scale="cpu", model="lenet5", dataset="mnist", train=job_of("mnist", "lenet5").train)
BASELINES = ("magnitude-global", "magnitude-layer", "dpf")
ROWS = {"num_samples": 1000, "fisher_batch_size": 10}


def tuning(epochs: float, augment: bool) -> Recipe:
    """Sec. S1.1's optimiser, at a rate for these networks, annealed once a step and once at the end."""
    return Recipe(epochs=epochs, lr=0.01, momentum=0.9, weight_decay=1e-4, batch_size=128, schedule="cosine", augment=augment)


def fig6(resnet20: Spec) -> Group:
    """ResNet-20, all layers: 4 prunings 39 iterations apart, judged on 2,000 test images meanwhile, then 98 iterations.
    LeNet-5: 5 prunings three tenths of an epoch apart, then one epoch."""
    small = LENET5.but(steps=5, step_epochs=0.3, finetune=tuning(1, augment=False))
    large = resnet20.but(steps=4, step_epochs=0.1, step_test_samples=2000, finetune=tuning(0.25, augment=True))
    groups = []
    for base, name, amounts in ((small, "lenet5", (0.98, 0.99)), (large, "resnet20", (0.95, 0.9, 0.98, 0.8))):
        groups.append(sweep(base, f"{name}-woodfisher", "woodfisher", amounts, 5, **ROWS))
        groups += [sweep(base, f"{name}-{method}", method, amounts, 5) for method in BASELINES]
    return labelled("figure", "6", *groups)
