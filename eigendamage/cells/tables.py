"""The tables and figures of EigenDamage as cells: the differences from a network's Spec, and the
arithmetic behind them.
"""

from __future__ import annotations

import math
from dataclasses import replace

from common.cells.spec import Recipe
from eigendamage.cells.networks import (
    _TUNE,
    CIFAR_NETWORKS,
    LIU,
    MNIST_BN,
    MNIST_NETWORKS,
    NETWORKS,
    PLAIN_VGG,
    TEN_EPOCHS,
    TINY_VGG,
    VGG,
)
from eigendamage.cells.sweeps import (
    COUPLED,
    CRITERIA,
    METHODS,
    RATIOS,
    Cells,
    cell,
    dense_tuned,
    released,
    sweep,
)


def one_pass(table: str, ratios: tuple[float, ...]) -> Cells:
    """The paper's networks on CIFAR-10 and CIFAR-100, five runs over one dense network each (Sec.
    5.2).
    """
    cells: Cells = {}
    for name, base in NETWORKS.items():
        for dataset in ("cifar10", "cifar100"):
            on, called = base.but(dataset=dataset), f"{name}-{dataset}"
            cells |= sweep(
                on, table, called, ratios, 5, CRITERIA if name == "resnet32" else METHODS
            )
            cells |= released(on, table, called, ratios, 5)
    return cells


def table1() -> Cells:
    """One pass at 60% and 90%: 2 data sets · (3 networks · 6 methods + ResNet-32 · 5) · 2 · 5 =
    460, the released form of Kron-OBD and Kron-OBS, and the dense controls. NN Slimming is not
    applicable to ResNet-32 in the paper; at cpu scale coupled channels make it so. The cells named
    cpu- have 150 steps of tuning and, on residual networks, coupled channels (ours). Those named
    cpu10- have ten epochs, cpu782- 782 steps and cpu150- 150, all with the paper's coupling."""
    cells = one_pass("1", (0.6, 0.9))
    for name, base in NETWORKS.items():
        for dataset in ("cifar10", "cifar100"):
            cells |= dense_tuned(base.but(dataset=dataset), "1", f"{name}-{dataset}")
    for name, base in CIFAR_NETWORKS.items():
        cells |= sweep(base, "1", f"cpu-{name}", (0.9, 0.6), 2, options={"coupling": COUPLED})
        cells |= dense_tuned(base, "1", f"cpu-{name}")
    return cells | short_budgets() | ten_epochs()


def short_budgets() -> Cells:
    """Residual networks at 90% with 150 and 782 steps. Both couplings from one dense network and
    one budget: only the unit differs. Three seeds for who leads, one for the rest. A ResNet-32 cell
    takes about two minutes, at 782 steps four."""
    cells: Cells = {}
    for name in ("resnet32", "preresnet29-L1"):
        for steps, seeds in ((150, 3), (782, 1)):
            base = TEN_EPOCHS[f"cpu10-{name}"].but(
                finetune=replace(_TUNE, epochs=math.ceil(steps / 391), max_steps=steps)
            )
            called = f"cpu{steps}-{name}"
            cells |= sweep(
                base, "1", called, (0.9,), seeds, ("eigendamage", "kron-obd", "kron-obs")
            )
            cells |= sweep(base, "1", called, (0.9,), 1, ("c-obd", "c-obs"))
            cells |= released(base, "1", called, (0.9,), 1)
            for method in ("kron-obd", "kron-obs"):
                for seed in range(seeds):
                    cells |= cell(
                        base,
                        "1",
                        called,
                        0.9,
                        method,
                        seed,
                        f"{method}-coupled",
                        options={"coupling": COUPLED},
                    )
            cells |= dense_tuned(base, "1", called)
    return cells


def ten_epochs() -> Cells:
    """Two seeds at 90%, one at 60%; NN Slimming where the network has the pull on its scales."""
    cells: Cells = {}
    for name, base in TEN_EPOCHS.items():
        methods = METHODS if base.train.bn_l1 else CRITERIA
        for ratio, seeds in ((0.9, 2), (0.6, 1)):
            cells |= sweep(base, "1", name, (ratio,), seeds, methods) | released(
                base, "1", name, (ratio,), seeds
            )
        cells |= dense_tuned(base, "1", name)
    return cells


def tiny(table: str, ratios: tuple[float, ...]) -> Cells:
    """Tiny-ImageNet, five runs: 5 criteria on VGG19, NN Slimming on VGG19+L1."""
    base = TINY_VGG
    slim = base.but(train=replace(LIU, epochs=300, milestones=(150, 225), bn_l1=1e-4))
    return (
        sweep(base, table, "vgg19-tiny", ratios, 5, CRITERIA)
        | released(base, table, "vgg19-tiny", ratios, 5)
        | sweep(slim, table, "vgg19-L1-tiny", ratios, 5, ("nn-slimming",))
    )


def table2() -> Cells:
    """Tiny-ImageNet at 50%."""
    return tiny("2", (0.5,)) | dense_tuned(TINY_VGG, "2", "vgg19-tiny")


def appendix() -> Cells:
    """Appendix F: the ratios that Tables 1 and 2 leave out."""
    return one_pass("F", (0.5, 0.7, 0.8)) | tiny("F", (0.6, 0.7, 0.8, 0.9))


def mnist() -> Cells:
    """The criteria on two LeNets at every ratio, three seeds; NN Slimming and EigenDamage on the
    same with BatchNorm; the dense networks tuned as long."""
    cells: Cells = {}
    for name, base in (MNIST_NETWORKS | MNIST_BN).items():
        cells |= dense_tuned(base, "mnist", name)
    for name, base in MNIST_NETWORKS.items():
        cells |= sweep(base, "mnist", name, RATIOS, 3, CRITERIA)
    for name, base in MNIST_BN.items():
        cells |= sweep(base, "mnist", name, RATIOS, 3, ("nn-slimming", "eigendamage"))
    return cells


def fold() -> Cells:
    """Ours: a basis multiplied into the core where that is smaller. The same seeds and ratios as
    above; CIFAR-10 without tuning.
    """
    cells: Cells = {}
    for name, base in MNIST_NETWORKS.items():
        cells |= sweep(base, "fold", name, RATIOS, 1, ("eigendamage",), options={"fold": True})
    for name, base in CIFAR_NETWORKS.items():
        cells |= sweep(
            base.but(finetune=Recipe()),
            "fold",
            f"cpu-{name}",
            (0.6, 0.9),
            1,
            ("eigendamage",),
            options={"fold": True},
        )
    return cells


def figure5() -> Cells:
    """VGG19 beside low-rank approximations. Paper: CIFAR-100 and Tiny-ImageNet, ratios 0.4 to 0.9,
    CP ranks 0.1 to 2 times the original or 4 to 512; the depthwise step is tuned from a tenth of
    the rate (released code). cpu: CIFAR-10 at a quarter of the width, one seed, plain as in the
    paper, and with the pull on BatchNorm's scales (there EigenDamage at 60% and 90% is Table
    1's)."""
    cells: Cells = {}
    paper = {"cifar100": NETWORKS["vgg19"].but(dataset="cifar100"), "tiny": TINY_VGG}
    for name, base, ratios, depthwise, times, ranks in (
        *(
            (
                f"vgg19-{key}",
                base,
                (0.4, *RATIOS),
                (0.4, *RATIOS),
                (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0),
                (4, 8, 16, 32, 64, 128, 256, 512),
            )
            for key, base in paper.items()
        ),
        ("cpu-vgg19", PLAIN_VGG, RATIOS, (0.6, 0.8, 0.9), (0.25, 0.5, 1.0, 2.0), (8, 32)),
        (
            "cpu-vgg19-L1",
            VGG,
            (0.4, 0.5, 0.7, 0.8),
            (0.4, 0.6, 0.8, 0.9),
            (0.25, 0.5, 1.0, 2.0),
            (4, 8, 32),
        ),
    ):
        slow = replace(base.finetune, lr=base.finetune.lr / 10)
        cells |= sweep(base, "figure 5", name, ratios, 1, ("eigendamage",))
        for ratio in depthwise:
            cells |= cell(
                base,
                "figure 5",
                name,
                ratio,
                "eigendamage",
                label="depthwise",
                finetune=slow,
                options={"depthwise": True},
            )
        for value in times:
            cells |= cell(
                base, "figure 5", name, 0, "cp", label=f"cp-{value:g}x", options={"rank": value}
            )
        for value in ranks:
            cells |= cell(
                base,
                "figure 5",
                name,
                0,
                "cp",
                label=f"cp-{value}",
                options={"rank": float(value), "absolute": True},
            )
    return cells


def figure6() -> Cells:
    """Loss right after pruning, at the ratios that Table 1 leaves out; Fig. 4's picture on CIFAR-10
    at 50% is read off the same. cpu: a plain VGG19 as in the paper, at every ratio, and the one
    with the pull on BatchNorm's scales."""
    cells: Cells = {}
    for name in ("vgg19", "resnet32"):
        for dataset in ("cifar10", "cifar100"):
            base = NETWORKS[name].but(dataset=dataset, finetune=Recipe())
            cells |= sweep(base, "figure 6", f"{name}-{dataset}", (0.5, 0.7, 0.8), 1, CRITERIA)
    cells |= sweep(PLAIN_VGG.but(finetune=Recipe()), "figure 6", "cpu-vgg19", RATIOS, 1, CRITERIA)
    return cells | sweep(VGG.but(finetune=Recipe()), "figure 6", "cpu-vgg19-L1", (0.5, 0.7, 0.8), 1)


def figure8() -> Cells:
    """Six times half of what is left, at most half of a layer each time, with fine-tuning between
    (Sec. 5.3): a VGG19 and a residual network, as in the paper, and the VGG19 with the pull on its
    scales. Accuracy of every step is in the record's trajectory. Not on LeNets: with half of the
    rows and columns of a fully connected layer gone its bottleneck is still the larger, so it would
    stay dense for ever."""
    cells: Cells = {}
    iterative = {"steps": 6, "step_schedule": "constant", "options": {"cap": 0.5}}
    for name in ("vgg19", "resnet32"):
        for dataset in ("cifar10", "cifar100"):
            cells |= sweep(
                NETWORKS[name].but(dataset=dataset),
                "figure 8",
                f"{name}-{dataset}",
                (0.5,),
                1,
                CRITERIA,
                step_epochs=150,
                **iterative,
            )
    for name, base in (
        ("vgg19", PLAIN_VGG),
        ("resnet32", TEN_EPOCHS["cpu10-resnet32"].but(finetune=_TUNE)),
        ("vgg19-L1", VGG),
    ):
        cells |= sweep(
            base, "figure 8", f"cpu-{name}", (0.5,), 1, CRITERIA, step_epochs=0.2, **iterative
        )
    return cells
