"""The networks of NAP's tables and the recipes that their cells share; cells say what differs."""

from __future__ import annotations

from dataclasses import replace

from common.cells.spec import Recipe, Spec

# LeNet-300-100: 266,200 weights, 77x keeps 3,457. The dense network is the L-OBS authors' (error
# 1.61%)
LENET300 = Spec(
    paper="nap",
    scale="cpu",
    model="lenet300",
    dataset="mnist",
    checkpoint="lenet300_mnist",
    method="nap",
    num_samples=2_000,
    sparsity=1 - 1 / 77.5,
    step_ratio=0.25,
    step_epochs=2,
    options={"every": 16},
    finetune=Recipe(epochs=60, lr=0.05, batch_size=128, weight_decay=5e-4, schedule="cosine"),
)
# LeNet-5: 430,500 weights, 200x keeps 2,152. Each update of the statistics reads 32 of a
# minibatch's 128 images
LENET5 = Spec(
    paper="nap",
    scale="cpu",
    model="lenet5",
    dataset="mnist",
    method="nap",
    num_samples=1_000,
    sparsity=1 - 1 / 201,
    step_ratio=0.4,
    step_epochs=1,
    options={"every": 32, "examples": 32},
    train=Recipe(epochs=8, lr=0.05, batch_size=128, weight_decay=5e-4, schedule="cosine"),
    finetune=Recipe(epochs=20, lr=0.05, batch_size=128, weight_decay=5e-4, schedule="cosine"),
)
# CIFAR-Net: 116,704 weights (L-OBS's text; the widths are ours), 15.6x keeps 7,481
# The runs on CIFAR-10 train in bfloat16, which halves an epoch; their statistics are float32
CIFARNET = Spec(
    paper="nap",
    scale="cpu",
    model="cifarnet:dropout=0.1",
    dataset="cifar10-jpeg",
    method="nap",
    num_samples=1_000,
    sparsity=1 - 1 / 15.6,
    step_ratio=0.4,
    step_epochs=0.5,
    options={"every": 16, "examples": 32},
    amp=True,
    train=Recipe(
        epochs=20, lr=0.05, batch_size=128, weight_decay=5e-4, schedule="cosine", augment=True
    ),
    finetune=Recipe(
        epochs=8, lr=0.02, batch_size=128, weight_decay=5e-4, schedule="cosine", augment=True
    ),
)
# VGG-16 in the CIFAR layout, a quarter of its width: 13 convolutions, 1,056 channels, 19.6 million
# MACs
VGG16 = Spec(
    paper="nap",
    scale="cpu",
    model="vgg16:width=0.25",
    dataset="cifar10-jpeg",
    method="nap-channel",
    num_samples=256,
    amp=True,
    unit_ratio=0.02,
    steps=200,
    step_schedule="constant",
    step_epochs=20 / 391,
    step_test_samples=500,
    options={"every": 10, "examples": 32},
    train=Recipe(
        epochs=6, lr=0.1, batch_size=128, weight_decay=5e-4, schedule="cosine", augment=True
    ),
    finetune=Recipe(
        epochs=1, lr=0.02, batch_size=128, weight_decay=5e-4, schedule="cosine", augment=True
    ),
)
# ResNet-20: 448 units (three residual paths of 16, 32, 64 virtual channels, nine inner
# convolutions), 40.6 million MACs
RESNET20 = Spec(
    paper="nap",
    scale="cpu",
    model="resnet20",
    dataset="cifar10-jpeg:norm=imagenet",
    checkpoint="resnet20_cifar10",
    method="nap-channel",
    amp=True,
    num_samples=128,
    unit_ratio=0.04,
    steps=100,
    step_schedule="constant",
    step_epochs=12 / 391,
    step_test_samples=200,
    options={"every": 6, "examples": 32},
    train=Recipe(
        epochs=1, lr=0.02, batch_size=128, weight_decay=5e-4, schedule="cosine", augment=True
    ),
    finetune=Recipe(
        epochs=150 / 391,
        lr=0.02,
        batch_size=128,
        weight_decay=5e-4,
        schedule="cosine",
        augment=True,
    ),
)
SEEDS = range(3)


def seeded(name: str, spec: Spec) -> dict[str, Spec]:
    """The same cell for every seed."""
    return {f"{name}-seed{seed}": spec.but(seed=seed) for seed in SEEDS}


def every_step(cells: dict[str, Spec]) -> dict[str, Spec]:
    """The same cells with the statistics updated at every step from all of its images, as in
    Algorithm 1 (the methods' default). The cells without it update every 16 or 10 steps from 32
    images: where T is 10 steps they see one update."""
    return {
        f"{name}-every-step": spec.but(
            options={k: v for k, v in spec.options if k not in ("every", "examples")}
        )
        for name, spec in cells.items()
    }


def dense_tuned(base: Spec, epochs: float, **changes: float | bool) -> Spec:
    """The dense network given the training that a pruned one had, between its prunings and after,
    in one.
    """
    return base.but(
        method="magnitude-global",
        options={},
        sparsity=0.0,
        unit_ratio=None,
        step_ratio=None,
        speedup=None,
        num_samples=None,
        steps=1,
        step_schedule="cubic",
        step_epochs=0.0,
        initial_sparsity=0.0,
        damping=None,
        finetune=replace(base.finetune, epochs=epochs, **changes),
    )


def magnitude(spec: Spec) -> Spec:
    """Magnitude on the same schedule: one global cut by |w| where NAP cuts by ΔL."""
    return spec.but(method="magnitude-global", options={}, num_samples=None)
