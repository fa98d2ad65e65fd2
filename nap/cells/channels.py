"""Channels of VGG-16 and ResNet-20 on CIFAR-10: Tables 1 and 5 at cpu scale."""

from __future__ import annotations

from common.cells.spec import Recipe, Spec
from nap.cells.networks import RESNET20, VGG16, dense_tuned, every_step


def table1() -> dict[str, Spec]:
    """Table 1 at cpu scale: 2x, 4x and 5.4x fewer MACs."""
    cells = {}
    for times in (2, 4, 5.4):
        cells |= {
            f"vgg16-{times:g}x-nap": VGG16.but(speedup=times),
            f"resnet20-{times:g}x-nap": RESNET20.but(speedup=times),
        }
    # the same networks, fine-tuned for longer
    for name, spec, epochs in (
        ("vgg16-5.4x-nap-long", VGG16.but(speedup=5.4), 10),
        ("resnet20-2x-nap-long", RESNET20.but(speedup=2), 5),
    ):
        cells[name] = spec.but(finetune=Recipe(**vars(spec.finetune) | {"epochs": epochs}))
    # the dense networks with as much training: 1 or 10 epochs and 1.53 between 30 prunings; 5 and
    # 0.28 between 9
    cells |= {
        "vgg16-dense-tuned": dense_tuned(VGG16, 2.53),
        "vgg16-dense-tuned-long": dense_tuned(VGG16, 11.53),
        "resnet20-dense-tuned-long": dense_tuned(RESNET20, 5.28),
    }
    cells["vgg16-5.4x-no-flops"] = VGG16.but(
        speedup=5.4, options={"every": 10, "examples": 32, "flops": False}
    )
    cells["vgg16-5.4x-no-normalise"] = VGG16.but(
        speedup=5.4, options={"every": 10, "examples": 32, "normalise": False}
    )
    cells["vgg16-5.4x-in+out"] = VGG16.but(
        speedup=5.4, options={"every": 10, "examples": 32, "sides": "in+out"}
    )
    return cells


def table5() -> dict[str, Spec]:
    """The paper's five (p, T), T an eighth of its epochs, so that each run spends about the
    same.
    """
    pairs = ((0.005, 0.1), (0.01, 0.2), (0.02, 0.4), (0.05, 1), (0.1, 2))
    cells = {
        f"vgg16-p{100 * p:g}-T{T:g}": VGG16.but(
            unit_ratio=p, step_epochs=T / 8, speedup=5.4, steps=400
        )
        for p, T in pairs
    }
    return cells | every_step(cells)
