"""What is wrong with a Spec whatever the data hold: said before they are looked for, downloaded or
read.
"""

from __future__ import annotations

import functools
import inspect

import torch

from common.cells.spec import Spec, is_own
from common.data import sources as D
from common.nets import models
from common.running import pipeline
from common.system import code, distributed, machine


def flags(spec: Spec, verb: str, files: bool = True) -> None:
    """Raise the UserError that the run would end in, for the device, the data set's and the
    network's names and options, the amount, the method and its options, and, with `files`, for a
    checkpoint that is not there."""
    machine.device(spec.device)
    distributed.wanted()
    _network(spec.model, spec.dataset)
    if verb != "train":
        spec.amount  # noqa: B018  its error
        pipeline.method_of(spec)
        pipeline.trained(spec)
    if files and spec.checkpoint:
        pipeline.find_checkpoint(spec)


@functools.lru_cache(maxsize=64)
def _network(model: str, dataset: str) -> None:
    """Build it without its weights where the size of the data set's images is known, which tells
    whether it takes them.
    """
    base, source, options = D.named(dataset)
    models.named(model)
    for field, name in (("model", model), ("dataset", dataset)):
        if is_own(name):
            code.source_digest(name, field)  # says where there is none
    size = D.SHAPES.get(base)
    if base == "synthetic":
        given = {p.name: p.default for p in inspect.signature(source).parameters.values()} | options
        size = given["classes"], (given["channels"], given["size"], given["size"])
    if size is not None and size[0] > 1:
        with torch.device("cpu" if is_own(model) else "meta"):
            models.build(model, *size)
