"""The paper's ImageNet cells. They need ImageNet's training and validation images under DATA_DIR/imagenet and GPUs for days;
none was run here. Gradual runs start from STR's dense networks (77.01% ResNet-50, 72.00% MobileNetV1), one-shot ones from
torchvision's ResNet-50 (76.13%): put them into DATA_DIR/checkpoints under the names below.

Steps are (prune, train) pairs of the pipeline: one more pruning than trainings between, then the final training.
"""

from __future__ import annotations

from common.spec import Recipe, Spec

Group = dict[str, Spec]

ONE_SHOT = Spec(paper="woodfisher", scale="paper", model="resnet50", dataset="imagenet", checkpoint="resnet50_torchvision")

# Sec. S1.1: SGD 0.005, momentum 0.9, decay 1e-4. ResNet-50: 8 prunings 5 epochs apart from epoch 1 on, then ×0.6 at epochs
# 40, 46, ..., 88 (here counted from the last pruning at 36). MobileNetV1: 5 of 4 epochs, from 20 on ×0.92 each of 80 epochs.
_SGD = {"lr": 0.005, "momentum": 0.9, "weight_decay": 1e-4, "augment": True}
R50 = Spec(paper="woodfisher", scale="paper", model="resnet50", dataset="imagenet", checkpoint="resnet50_str", steps=8, step_epochs=5,
           initial_sparsity=0.05, finetune=Recipe(epochs=64, schedule="multistep", gamma=0.6,
                                                  milestones=tuple(range(4, 53, 6)), **_SGD))
MOBILENET = Spec(paper="woodfisher", scale="paper", model="mobilenet_v1", dataset="imagenet", checkpoint="mobilenet_v1_str", steps=5,
                 step_epochs=4, initial_sparsity=0.05, finetune=Recipe(epochs=80, schedule="exponential", gamma=0.92, **_SGD))

# Table S1: sparsity -> (m, b, c, batch size of training)
R50_SETTINGS = {0.8: (400, 400, 2000, 256), 0.9: (400, 400, 2000, 180), 0.95: (400, 400, 2000, 180), 0.98: (400, 400, 1000, 180)}
MOBILENET_SETTINGS = {0.7528: (400, 2400, 10_000, 256), 0.89: (400, 2400, 10_000, 180)}


def gradual(base: Spec, settings: dict[float, tuple[int, int, int, int]], name: str, seeds: int) -> Group:
    """WoodFisher and global magnitude on one schedule."""
    cells = {}
    for sparsity, (m, b, c, batch) in settings.items():
        both = base.but(sparsity=sparsity, finetune=_batch(base.finetune, batch))
        for seed in range(seeds):
            cells[f"{name}-woodfisher-{sparsity:g}-seed{seed}"] = both.but(
                method="woodfisher", seed=seed, num_samples=m * b, fisher_batch_size=b, chunk=c)
            cells[f"{name}-magnitude-global-{sparsity:g}-seed{seed}"] = both.but(method="magnitude-global", seed=seed)
    return cells


def _batch(recipe: Recipe, size: int) -> Recipe:
    return Recipe(**{**recipe.__dict__, "batch_size": size})


def labelled(label: str, cells: Group) -> Group:
    """The cells under their own names."""
    return {name: spec.but(table=f"table-{label}", cell=name) for name, spec in cells.items()}


GRADUAL: dict[str, Group] = {
    "1": labelled("1", gradual(R50, R50_SETTINGS, "resnet50", 2)),
    "4": labelled("4", gradual(MOBILENET, MOBILENET_SETTINGS, "mobilenet", 1)),
    "5": labelled("5", gradual(MOBILENET, MOBILENET_SETTINGS, "mobilenet", 5)),
}
