"""N:M patterns: of every M weights that lie next to each other along a layer's inputs, N stay. 2:4
is what sparse tensor cores run. Channels are not permuted to suit the pattern.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.cells.errors import UserError
from common.cells.spec import removed_by

OUT_FIRST = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # layers of weights [out, in, ...]


class Pattern(float):
    """An amount, the fraction 1 − N/M removed, that also says where: N of M weights stay."""

    keep: int
    of: int

    def __new__(cls, keep: int, of: int) -> Pattern:
        made = super().__new__(cls, removed_by(f"{keep}:{of}"))
        made.keep, made.of = keep, of
        return made

    def __str__(self) -> str:
        return f"{self.keep}:{self.of}"

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """ "2:4" as a Pattern."""
        removed_by(text)
        return cls(*map(int, text.split(":")))


def kept(name: str, scores: Tensor, pattern: Pattern, gone: Tensor | None = None) -> Tensor:
    """True for the `keep` highest of each group of `of` scores, equal ones of later inputs; like
    `scores` [out, in, ...], groups along the inputs. gone: entries that are away already, which go
    first. UserError naming the layer for inputs that make no whole groups."""
    groups = _groups(name, scores.detach().double(), pattern)
    if gone is not None:
        groups = groups.masked_fill(_groups(name, gone, pattern), -torch.inf)
    order = groups.argsort(dim=-1, stable=True)
    stays = torch.ones_like(groups, dtype=torch.bool)
    stays.scatter_(-1, order[..., : pattern.of - pattern.keep], False)
    if gone is not None:
        stays &= ~_groups(name, gone, pattern)
    return stays.flatten(-2).movedim(-1, 1).contiguous()


def require(model: nn.Module, masks: Mapping[str, Tensor], pattern: Pattern, method: str) -> None:
    """Raise UserError where a method's masks (parameter name -> bool) keep more than N of M, and
    for layers whose weights are not [out, in, ...]."""
    for name, mask in masks.items():
        layer = name.rpartition(".")[0]
        if not isinstance(model.get_submodule(layer), OUT_FIRST):
            kind = type(model.get_submodule(layer)).__name__
            raise UserError(
                "pattern",
                str(pattern),
                f"layer {layer!r} is a {kind}, whose inputs lie in other places",
                "name it in skip",
            )
        if mask.dim() > 1 and int(_groups(name, mask, pattern).sum(-1).max()) > pattern.keep:
            raise UserError(
                "pattern",
                str(pattern),
                f"method {method!r} did not keep to it in {name!r}",
                "choose a method that removes all weights at one cut",
            )


def _groups(name: str, tensor: Tensor, pattern: Pattern) -> Tensor:
    """[out, ..., groups, M] of a tensor [out, in, ...]."""
    if tensor.shape[1] % pattern.of:
        raise UserError(
            "pattern",
            str(pattern),
            f"layer {name!r} has {tensor.shape[1]} inputs, which make no groups of {pattern.of}",
            "name it in skip",
        )
    return tensor.movedim(1, -1).unflatten(-1, (-1, pattern.of))
