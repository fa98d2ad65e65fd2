"""How well a network does, over a whole data set: one number, higher is better."""

from __future__ import annotations

import torch
from torch import Tensor

from common.cells.errors import UserError
from common.curvature.labels import CATEGORICAL, own, targets
from common.data.task import Inputs, Task, task_of
from common.nets.assumptions import prediction


class Meter:
    """Adds up batches. cross_entropy and language_model: the fraction of labels that are the
    largest logit, of those that count; binary: of outputs on their label's side of zero; mse: R²,
    one minus the squared error over that of the labels' mean. A metric of one's own: its mean, each
    batch weighted by its examples; without one, a loss of one's own measures minus its mean."""

    def __init__(self):
        self.good, self.count = 0.0, 0
        self.error, self.sum, self.squares = 0.0, None, 0.0  # of labels, for R²

    def add(self, output: Tensor | object, x: Tensor | Inputs, y: Tensor | Inputs) -> None:
        """Take one batch in: the network's output for x, and the labels."""
        task = task_of(x)
        if task.metric is not None or callable(task.loss):
            self._own(task, output, x, y)
            return
        output = prediction(output)
        y = targets(output, y, task)
        if task.loss in CATEGORICAL:
            counted = torch.ones_like(y, dtype=torch.bool)
            if task.ignore_index is not None:
                counted = y != task.ignore_index
            found = output.argmax(-1 if task.loss == "language_model" else 1)
            self.good += int((found == y)[counted].sum())
            self.count += int(counted.sum())
        elif task.loss == "binary":
            self.good += int(((output > 0) == (y > 0.5)).sum())
            self.count += y.numel()
        else:
            y = y.double().reshape(len(y), -1)
            self.error += float((output.double().reshape(y.shape) - y).square().sum())
            self.sum = y.sum(0) + (0 if self.sum is None else self.sum)
            self.squares += float(y.square().sum())
            self.count += len(y)

    def _own(self, task: Task, output: Tensor | object, x: Inputs, y: Tensor | Inputs) -> None:
        if task.metric is None:
            self.good -= float(own(output, y).sum())
        else:
            value = task.metric(output, x.content)
            if not (
                isinstance(value, (int, float)) or (torch.is_tensor(value) and value.numel() == 1)
            ):
                raise UserError(
                    "metric",
                    type(value).__name__,
                    "is what it gives, and no number",
                    "give the batch's mean as a number, higher is better",
                )
            self.good += float(value) * len(x)
        self.count += len(x)

    def value(self) -> float:
        """The number over all that was added; NaN where nothing counted."""
        if not self.count:
            return float("nan")
        if self.sum is None:
            return self.good / self.count
        spread = self.squares - float(self.sum.square().sum()) / self.count
        return 1 - self.error / spread if spread > 0 else float("nan")
