"""What a network is for: how it is called on a batch and what its output is held against. A Task
travels with the data, so that whoever estimates anything from a batch knows it.

    batch         of a loader: tensors in tuples, lists and dicts, the examples first in each tensor
    (inputs, y)   its canonical form, which every estimator reads: inputs is a tensor, or an Inputs
                  where a network reads more than that or the loss is not cross-entropy

A plain loader of pairs of tensors has the default task, model(x) under cross-entropy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cells.errors import UserError, choose
from common.cells.spec import LOSSES

IGNORED = -100  # the label of a token that no loss counts, as torch and transformers have it
# where the labels of a batch that is a dict are looked for
LABELS = ("labels", "label", "targets", "target", "y")


@dataclass(frozen=True)
class Task:
    """loss: a name of LOSSES, or a function (output, batch) -> the loss of those examples.
    forward: (model, batch) -> output; by default the model is called with all of the batch but its
    labels. metric: (output, batch) -> a number, higher is better; by default accuracy, R² for mse.
    ignore_index: the label that cross-entropies leave out; None refuses labels that are no class.

    cross_entropy: logits [batch, classes, ...], labels [batch, ...]. language_model: logits
    [batch, tokens, vocabulary], labels [batch, tokens], which a loader has shifted already. binary:
    logits and labels in [0, 1] of one shape. mse: ½‖f − y‖² of an example, y like f.
    """

    loss: str | Callable = "cross_entropy"
    forward: Callable | None = None
    metric: Callable | None = None
    ignore_index: int | None = None

    def __post_init__(self):
        if not callable(self.loss):
            choose("loss", self.loss, LOSSES)
        if self.loss == "language_model" and self.ignore_index is None:
            object.__setattr__(self, "ignore_index", IGNORED)

    def canonical(self, batch: object) -> tuple[Tensor | Inputs, Tensor | Inputs]:
        """(inputs, labels) of a loader's batch; the labels of a loss of one's own are the batch."""
        if isinstance(batch, (tuple, list)) and batch and isinstance(batch[0], Inputs):
            return batch[0], batch[1]
        content = mapped(as_tensor, batch)
        pair = isinstance(content, tuple) and len(content) == 2
        if self == Task() and pair and all(map(torch.is_tensor, content)):
            return content
        x = Inputs(content, self)
        y = x if callable(self.loss) else labels(content)
        if len(x) != len(y):
            raise UserError(
                "calibration",
                f"{len(x)}, {len(y)}",
                "a batch has not as many labels as inputs",
                "give tensors whose first dimension is the examples",
            )
        return x, y


class Inputs:
    """Some examples, all that the loader says of them, and the task: what stands in the place of a
    tensor of inputs. It is cut, joined and moved like one."""

    def __init__(self, content: object, task: Task):
        self.content, self.task = content, task

    def call(self, model: nn.Module) -> object:
        """The network's output, as it comes."""
        if self.task.forward is not None:
            return self.task.forward(model, self.content)
        given = self.content
        if isinstance(given, dict):
            return model(**{key: value for key, value in given.items() if key not in LABELS})
        if isinstance(given, tuple):
            return model(*(given[:-1] if len(given) > 1 else given))
        return model(given)

    def raw(self) -> bool:
        """Whether the loss reads the output as it comes, and not the one tensor of predictions."""
        return callable(self.task.loss)

    def plain(self) -> Tensor | Inputs:
        """The tensor that the network is called with, where that is all; else itself."""
        given = self.content
        if self.task.forward is None and isinstance(given, tuple) and len(given) in (1, 2):
            given = given[0]
        plain = self.task.forward is None and torch.is_tensor(given)
        return given if plain else self

    def tensors(self) -> list[Tensor]:
        """All tensors of the examples, in their order."""
        found: list[Tensor] = []
        mapped(lambda leaf: found.append(leaf) if torch.is_tensor(leaf) else None, self.content)
        return found

    def __len__(self) -> int:
        sizes = {len(tensor) for tensor in self.tensors() if tensor.dim()}
        if len(sizes) != 1:
            raise UserError(
                "calibration",
                sorted(sizes),
                "the tensors of a batch have not one number of examples",
                "give tensors whose first dimension is the examples",
            )
        return sizes.pop()

    def __getitem__(self, index: object) -> Inputs:
        return self._each(lambda tensor: tensor[index] if tensor.dim() else tensor)

    def to(self, *where: object) -> Inputs:
        """Moved to a device; whole numbers stay whole."""
        return self._each(lambda tensor: tensor.to(*where))

    def clone(self) -> Inputs:
        """A copy with tensors of its own."""
        return self._each(torch.clone)

    def is_inference(self) -> bool:
        """Whether autograd can save none of the tensors."""
        return any(tensor.is_inference() for tensor in self.tensors())

    @property
    def device(self) -> torch.device:
        """Where the examples lie."""
        return self.tensors()[0].device

    def changed(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """With `change` of each tensor in its place."""
        return self._each(change)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        return Inputs(
            mapped(lambda leaf: change(leaf) if torch.is_tensor(leaf) else leaf, self.content),
            self.task,
        )


class Calibration:
    """A loader together with what its network is for: batches in their canonical form."""

    def __init__(self, loader: Iterable, task: Task):
        if not isinstance(loader, Iterable):
            raise UserError(
                "calibration",
                type(loader).__name__,
                "cannot be read",
                "give an iterable of batches",
            )
        self.loader = list(loader) if isinstance(loader, Iterator) else loader
        self.task = task
        # how the examples are drawn, for those who ask a loader
        self.dataset = getattr(loader, "dataset", None)
        self.batch_sampler = getattr(loader, "batch_sampler", None)

    def __iter__(self) -> Iterator[tuple[Tensor | Inputs, Tensor | Inputs]]:
        return (self.task.canonical(batch) for batch in self.loader)


def task_of(x: Tensor | Inputs) -> Task:
    """What the network that reads x is for."""
    return x.task if isinstance(x, Inputs) else Task()


def labels(batch: object) -> Tensor:
    """The labels of a batch: the last of a tuple, or what a dict has under a usual name."""
    if isinstance(batch, dict):
        found = next((batch[key] for key in LABELS if key in batch), None)
        where = f"under one of {', '.join(LABELS)}"
    else:
        found = batch[-1] if isinstance(batch, tuple) and len(batch) > 1 else None
        where = "last in each batch"
    if not torch.is_tensor(found):
        raise UserError(
            "calibration",
            sorted(map(str, batch)) if isinstance(batch, dict) else type(batch).__name__,
            "a batch has no labels",
            f"give them {where}, or a loss_fn(output, batch)",
        )
    return found


def joined(parts: list) -> Tensor | Inputs:
    """Several batches' inputs, or labels, as one. Raises UserError for examples of other shapes."""
    if len(parts) == 1:
        return parts[0]
    if not isinstance(parts[0], Inputs):
        return torch.cat(parts)
    return Inputs(contents_joined([part.content for part in parts]), parts[0].task)


def contents_joined(contents: list) -> object:
    """The contents of several batches as one."""
    try:
        return _joined(contents)
    except RuntimeError as error:
        raise UserError(
            "calibration",
            str(error).splitlines()[0],
            "examples of different batches have different shapes",
            "pad all batches to one length",
        ) from None


def mapped(change: Callable, tree: object) -> object:
    """`change` of each leaf; mappings become dicts, lists and tuples tuples."""
    if isinstance(tree, Mapping):
        return {key: mapped(change, value) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)) and not _numbers(tree):
        return tuple(mapped(change, value) for value in tree)
    return change(tree)


def _joined(trees: list) -> object:
    first = trees[0]
    if isinstance(first, dict):
        return {key: _joined([tree[key] for tree in trees]) for key in first}
    if isinstance(first, tuple):
        return tuple(_joined(list(parts)) for parts in zip(*trees, strict=True))
    return torch.cat(trees) if torch.is_tensor(first) and first.dim() else first


def _numbers(tree: list | tuple) -> bool:
    """Whether a list is a row of numbers, which is a tensor to be."""
    return bool(tree) and all(isinstance(value, (int, float)) for value in tree)


def as_tensor(leaf: object) -> object:
    """A leaf as a tensor; what says something of the whole batch stays as it is."""
    if leaf is None or isinstance(leaf, (str, bool, int, float)):
        return leaf
    try:
        return torch.as_tensor(leaf)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(
            "calibration",
            type(leaf).__name__,
            "is in a batch, and is no tensor",
            "give tensors whose first dimension is the examples",
        ) from None
