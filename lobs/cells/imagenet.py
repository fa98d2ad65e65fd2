"""ImageNet: AlexNet and VGG-16 of Table 1, ResNet-50 of Fig. 2a."""

from __future__ import annotations

from dataclasses import replace

from common.cells.spec import Recipe, Spec
from lobs.cells.networks import IMAGENET, control


def table1() -> dict[str, Spec]:
    """Table 1 on ImageNet: pass the dense network as --checkpoint, or it is trained first. Kept
    fractions and iterations are the paper's; batch 256, momentum, decay and the original rate of
    0.01 are those of Caffe's AlexNet, which LWC retrains. VGG-16 is pruned "alteratively twice"
    (Sec. 4.1), with half the iterations after each and by equal factors. Not stated, and ours:
    ratios a layer (one for all), how many images the Hessian sees (5,000)."""
    dense = Recipe(
        epochs=90,
        lr=0.01,
        batch_size=256,
        weight_decay=5e-4,
        schedule="multistep",
        milestones=(30, 60),
        augment=True,
    )
    tune = Recipe(
        epochs=10, lr=0.01, batch_size=256, weight_decay=5e-4, max_steps=18_100, augment=True
    )
    half = replace(tune, max_steps=86_300 // 2)
    big = IMAGENET.but(
        table="1",
        scale="paper",
        num_samples=5_000,
        train=dense,
        options={"batch_size": 32},
        finetune=tune,
    )
    cells = {"alexnet-100-dense-paper": control(big)}
    for name, changes in {
        "l-obs": {},
        "l-obs-ours": {"method": "l-obs-ours"},
        "lwc": {"method": "magnitude-layer", "num_samples": None, "options": {}},
    }.items():
        cells[f"alexnet-11-{name}-paper"] = big.but(sparsity=0.89, **changes)
        # "even without any retraining"
        cells[f"alexnet-16-{name}-paper"] = big.but(sparsity=0.84, finetune=Recipe(), **changes)
        cells[f"vgg16-7.5-{name}-iterative-paper"] = big.but(
            model="vgg16",
            sparsity=0.925,
            levels=(round(1 - 0.075**0.5, 6), 0.925),
            between=half,
            finetune=half,
            **changes,
        )
    cells["vgg16-100-dense-iterative-paper"] = control(cells["vgg16-7.5-l-obs-iterative-paper"])
    return cells


def figure2a() -> dict[str, Spec]:
    """ResNet-50, one ratio in every layer, BatchNorm estimated again; the paper's fractions; its
    100% is the dense network.
    """
    base = IMAGENET.but(
        scale="paper",
        model="resnet50",
        num_samples=5_000,
        recalibrate_bn=100,
        options={"batch_size": 32},
        train=Recipe(
            epochs=90,
            lr=0.1,
            batch_size=256,
            weight_decay=1e-4,
            schedule="multistep",
            milestones=(30, 60),
            augment=True,
        ),
    )
    return {
        f"resnet50-{100 * (1 - s):.0f}-{method}-paper": base.but(
            method=method, sparsity=s, **changes
        )
        for s in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65)
        for method, changes in {
            "l-obs": {},
            "l-obs-joint": {},
            "magnitude-layer": {"num_samples": None, "options": {}},
        }.items()
    } | {"resnet50-100-dense-paper": control(base)}
