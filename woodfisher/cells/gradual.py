"""Gradual pruning at cpu scale: ResNet-20 and LeNet-5 on the paper's courses (course.py), shrunk to
epochs that a CPU does.

Tables 1, 2, 5, Fig. S11 and the ten-epoch cells of Tables 3 and S5 have the paper's course:
prunings from 5% on, rates on one clock. Fig. 6's cells and the other ones of Tables 3 and S5 are
shorter runs on an earlier schedule of this repository, kept as an ablation of the budget: four or
five prunings, none at 5%, and a rate that is annealed once a step. Magnitude per layer is GMP (Zhu
& Gupta 2017); DPF chooses its masks again while it trains.
"""

from __future__ import annotations

from dataclasses import replace

from common.cells.jobs import job_of
from common.cells.spec import Recipe, Spec
from woodfisher.cells import course, imagenet
from woodfisher.cells.sweeps import Group, labelled, sweep

LENET5 = Spec(
    paper="woodfisher",
    scale="cpu",
    model="lenet5",
    dataset="mnist",
    train=job_of("mnist", "lenet5").train,
)
BASELINES = ("magnitude-global", "magnitude-layer", "dpf")
ROWS = {"num_samples": 1000, "fisher_batch_size": 10}

# Tables 3 and S5: the first convolution dense, the classifier to 80%, the rest to 90%
PROFILE = {**imagenet.CONV1, "layer_sparsity": {"*": 0.9, "linear": 0.8}}
# Table S1 has m = 400 rows of b = 400 and blocks of 2,000 for ResNet-50, b = 2,400 and 10,000 for
# MobileNetV1; here b = 10. A course of a hundredth or a tenth of the paper's epochs has twice its
# rate.
SMALL = {"lr": 0.01, "batch_size": 128}
FISHER = {"num_samples": 4000, "fisher_batch_size": 10}
RESNET20_FISHER, LENET5_FISHER = FISHER | {"chunk": 2000}, FISHER | {"chunk": 10_000}


# -- the paper's course ----------------------------------------------------------------------------


def on_course(resnet20: Spec, sparsity: float, epochs: float, **changes: object) -> Spec:
    """ResNet-20 as the paper's ResNet-50: 8 prunings in the first 36% of the run, judged on 1,000
    test images meanwhile.
    """
    return course.RESNET50.run(
        resnet20.but(step_test_samples=1000, **changes), sparsity, epochs=epochs, **SMALL
    )


def of_each(base: Spec, name: str, methods: tuple[str, ...], seeds: int, fisher: dict) -> Group:
    """A run of each method; rows are WoodFisher's alone."""
    return {
        cell: spec
        for method in methods
        for cell, spec in sweep(
            base,
            f"{name}-{method}",
            method,
            (base.sparsity,),
            seeds,
            **fisher if method.startswith("woodfisher") else {},
        ).items()
    }


def table1(resnet20: Spec) -> Group:
    """ResNet-20 beside the paper's ResNet-50: to 90% in one epoch, one seed; to all four amounts in
    ten epochs, three seeds.
    """
    methods = ("woodfisher", "magnitude-global", "magnitude-layer")
    long = [
        of_each(on_course(resnet20, amount, 10), "resnet20-ten-epochs", methods, 3, RESNET20_FISHER)
        for amount in imagenet.R50_SETTINGS
    ]
    return labelled(
        "table",
        "1",
        of_each(on_course(resnet20, 0.9, 1), "resnet20-one-epoch", methods, 1, RESNET20_FISHER),
        *long,
    )


def table2(resnet20: Spec) -> Group:
    """All layers but the classifier, as DPF's protocol has it."""
    methods, ends = ("woodfisher", "magnitude-global", "dpf"), {"skip": ("linear",)}
    return labelled(
        "table",
        "2",
        *(
            of_each(
                on_course(resnet20, 0.9, epochs, options=ends),
                f"resnet20-{name}",
                methods,
                seeds,
                RESNET20_FISHER,
            )
            for name, epochs, seeds in (("one-epoch", 1, 1), ("ten-epochs", 10, 3))
        ),
    )


def table5() -> Group:
    """LeNet-5 as the paper's MobileNetV1: 6 prunings in the first 24% of three epochs, five
    seeds.
    """
    base = course.MOBILENET.run(LENET5, 0.98, epochs=3, augment=False, **SMALL)
    return labelled(
        "table", "5", of_each(base, "lenet5", ("woodfisher", "magnitude-global"), 5, LENET5_FISHER)
    )


def fig_s11(resnet20: Spec) -> Group:
    """ResNet-20 as the paper's MobileNetV1 to 60%. The figure is of the pruning phase, a quarter of
    an epoch: `prune` is enough.
    """
    base = course.MOBILENET.run(resnet20.but(step_test_samples=1000), 0.6, epochs=1, **SMALL)
    methods = ("woodfisher", "magnitude-global", "magnitude-layer")
    return labelled(
        "figure", "S11", of_each(base, "resnet20-one-epoch", methods, 1, RESNET20_FISHER)
    )


def ten_epochs(resnet20: Spec, *methods: str) -> Group:
    """Tables 3 and S5: the profile of their shorter runs on the course, three seeds."""
    return of_each(
        on_course(resnet20, 0.9, 10, options=PROFILE),
        "resnet20-ten-epochs",
        methods,
        3,
        RESNET20_FISHER,
    )


# -- shorter runs: the ablation of the budget ------------------------------------------------------


def tuning(epochs: float, augment: bool) -> Recipe:
    """Sec. S1.1's optimiser, at a rate for these networks, annealed once a step and once at the
    end.
    """
    return Recipe(
        epochs=epochs,
        lr=0.01,
        momentum=0.9,
        weight_decay=1e-4,
        batch_size=128,
        schedule="cosine",
        augment=augment,
    )


def on_resnet20(resnet20: Spec) -> Spec:
    """All layers: 4 prunings 39 iterations apart, judged on 2,000 test images meanwhile, then 98
    iterations.
    """
    return resnet20.but(
        steps=4, step_epochs=0.1, step_test_samples=2000, finetune=tuning(0.25, augment=True)
    )


def profile(resnet20: Spec, *methods: str) -> list[Group]:
    """Tables 3 and S5 on ResNet-20: the first convolution dense, the classifier to 80%, the rest to
    90%.
    """
    base = on_resnet20(resnet20).but(options=PROFILE)
    return [
        sweep(
            base,
            f"resnet20-{method}",
            method,
            (0.9,),
            **ROWS if method.startswith("woodfisher") else {},
        )
        for method in methods
    ]


def table3(resnet20: Spec) -> Group:
    """WoodFisher and global magnitude choose between the layers in the middle, GMP (magnitude per
    layer) does not.
    """
    methods = ("woodfisher", "magnitude-global", "magnitude-layer")
    return labelled(
        "table",
        "3",
        *profile(resnet20, *methods),
        ten_epochs(resnet20, *methods),
        imagenet.table3(),
    )


def table_s5(resnet20: Spec) -> Group:
    """Neither chooses."""
    methods = ("woodfisher-layer", "magnitude-layer")
    return labelled(
        "table",
        "S5",
        *profile(resnet20, *methods),
        ten_epochs(resnet20, *methods),
        imagenet.table_s5(),
    )


def fig6(resnet20: Spec) -> Group:
    """ResNet-20, and LeNet-5: 5 prunings three tenths of an epoch apart, then one epoch; five seeds
    of LeNet-5 at 98%.
    """
    small = LENET5.but(steps=5, step_epochs=0.3, finetune=tuning(1, augment=False))
    groups = []
    for base, name, amounts in (
        (small, "lenet5", (0.98, 0.99)),
        (on_resnet20(resnet20), "resnet20", (0.95, 0.9, 0.98, 0.8)),
    ):
        for method in ("woodfisher", *BASELINES):
            rows = ROWS if method == "woodfisher" else {}
            many = (0.98,) if name == "lenet5" and method != "magnitude-layer" else ()
            groups += [
                sweep(base, f"{name}-{method}", method, amounts, **rows),
                sweep(base, f"{name}-{method}", method, many, 5, **rows),
            ]
    return labelled("figure", "6", *groups)


def feedback(resnet20: Spec) -> Group:
    """Not in the paper: why does DPF fail on Fig. 6's ResNet-20 beyond 90%? As it is there, at a
    tenth of the rate, and with every convolution's gradient taken as if its masked weights had the
    norm of its dense ones."""
    base = on_resnet20(resnet20).but(step_test_samples=1000)
    slow = base.but(finetune=replace(base.finetune, lr=base.finetune.lr / 10))
    return labelled(
        "table",
        "feedback",
        *(
            sweep(spec, f"resnet20-{name}", "dpf", (0.98, 0.95), options=options)
            for name, spec, options in (
                ("as-it-is", base, {}),
                ("tenth-of-the-rate", slow, {}),
                ("equal-norms", base, {"equal_norms": True}),
            )
        ),
    )
