"""CIFAR-Net of Table 1, and ResNet-20 for Fig. 2a."""

from __future__ import annotations

from common.cells.spec import Recipe, Spec
from lobs.cells.networks import ALL, CIFARNET, TUNED, control


def cifarnet() -> dict[str, Spec]:
    tune = Recipe(
        epochs=4,
        lr=0.05,
        batch_size=128,
        weight_decay=5e-4,
        schedule="cosine",
        max_steps=1020,
        augment=True,
    )
    methods = {
        "l-obs": {"method": "l-obs"},
        "l-obs-ours": {"method": "l-obs-ours"},
        "lwc": {"method": "magnitude-layer", "num_samples": None},
    }
    cells = {
        f"cifarnet-9-{name}-seed{seed}": CIFARNET.but(
            sparsity=0.91, finetune=tune, seed=seed, **changes
        )
        for name, changes in methods.items()
        for seed in range(3)
    }
    return (
        cells
        | {
            f"cifarnet-100-dense-seed{seed}": control(CIFARNET.but(finetune=tune, seed=seed))
            for seed in range(3)
        }
        | {
            "cifarnet-9-l-obs-all-images": CIFARNET.but(
                method="l-obs", sparsity=0.91, finetune=tune, num_samples=ALL["cifar10-jpeg"]
            )
        }
    )


def figure2a() -> dict[str, Spec]:
    """One ratio in every layer, no retraining, BatchNorm re-estimated at every point, the dense one
    too; ResNet-20 in place of the paper's ResNet-50: as it was published (resnet20-), and tuned on
    the JPEG copy, the comparison's dense network (r20tuned-)."""
    public = Spec(
        paper="lobs",
        scale="cpu",
        model="resnet20",
        dataset=f"cifar10-jpeg:{TUNED.dataset_options}",
        checkpoint=TUNED.checkpoint,
        num_samples=500,
        recalibrate_bn=20,
    )
    cells = {}
    for name, base in (("resnet20", public), ("r20tuned", public.but(train=TUNED.train))):
        cells[f"{name}-100-dense"] = control(base)
        cells |= {
            f"{name}-{100 * (1 - s):.0f}-{method}": base.but(method=method, sparsity=s)
            for s in (0.2, 0.4, 0.5, 0.6, 0.7, 0.8)
            for method in ("l-obs", "l-obs-joint", "magnitude-layer")
        }
    return cells
