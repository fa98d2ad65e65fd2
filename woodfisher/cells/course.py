"""WoodFisher's gradual runs (Sec. S1.1): one training run with prunings inside it, its rates on one
clock.

The amounts are Zhu & Gupta's (2017) from 5% on. ResNet-50's prunings "from epoch 1, at an interval
of 5 epochs, until epoch 40" come at 1, 6, ..., 36, so the last is an instant before the schedule's
end: 89.91% of 90. README, "Deviations", says why that stays.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.cells.schedule import zhu_gupta
from common.cells.spec import Recipe, Spec

EPOCHS = 100  # "we run the overall procedure for 100 epochs"
INITIAL = 0.05  # "the initial sparsity percentage set to 0.05"
SGD = {"lr": 0.005, "momentum": 0.9, "weight_decay": 0.0001, "augment": True}


@dataclass(frozen=True)
class Course:
    """Prunings at the epochs first, first + every, ... <= last of EPOCHS; the rate is held, then
    `gamma` times smaller from each of `decays` on."""

    first: int
    every: int
    last: int
    decays: tuple[int, ...]
    gamma: float

    def run(
        self,
        base: Spec,
        sparsity: float,
        batch_size: int,
        epochs: float = EPOCHS,
        **settings: object,
    ) -> Spec:
        """`base` on this course to `sparsity`. Fewer epochs than the paper's shrink it evenly;
        settings: of the recipe, in place of the paper's."""
        part = epochs / EPOCHS
        recipe = Recipe(
            **SGD
            | {
                "epochs": epochs,
                "batch_size": batch_size,
                "schedule": "multistep",
                "gamma": self.gamma,
                "milestones": tuple(part * epoch for epoch in self.decays),
            }
            | settings
        )
        return base.but(
            sparsity=sparsity,
            levels=zhu_gupta(sparsity, self.first, self.every, self.last, INITIAL),
            clock="course",
            first_epoch=part * self.first,
            step_epochs=part * self.every,
            finetune=recipe,
        )


# "from epoch 40 to 90 by a factor of 0.6 every 6 epochs"
RESNET50 = Course(1, 5, 40, tuple(range(40, 90, 6)), 0.6)
# "from epoch 30 to 100 by a factor of 0.92 every epoch"
MOBILENET = Course(4, 4, 24, tuple(range(30, 100)), 0.92)
