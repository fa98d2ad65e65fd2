"""What of a network stays dense, and why: weights in layers that no method reaches, and in those
that a person leaves out."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from common.cells.errors import UserError
from common.nets.layers import of_known_kinds, tables

SKIPPED = "named in skip"
# why a layer of a kind has no curvature here, the first kind that fits
KINDS: tuple[tuple[type, str], ...] = (
    (nn.Embedding, "a table that is looked up, not a product"),
    (nn.EmbeddingBag, "a table that is looked up, not a product"),
    (nn.RNNBase, "recurrent: its weights are used again at every step"),
    (nn.RNNCellBase, "recurrent: its weights are used again at every step"),
    (nn.MultiheadAttention, "attention multiplies by in_proj_weight without calling a layer"),
    (nn.Bilinear, "a product of two inputs"),
)
TABLES = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True)
class Left:
    """A module's weights that stay dense. counted: whether they are among the weights that an
    amount is a fraction of: tables, single vectors and what is named in skip are not."""

    weights: int
    why: str
    counted: bool


def left_dense(model: nn.Module, skip: Iterable[str] = ()) -> dict[str, Left]:
    """By module name what stays dense: matrices and tensors of more dimensions, without those of
    the layers that methods prune. skip: names of modules, as `skipped` gives them."""
    leave, found, tied = set(skip), {}, tables(model)
    pruned = of_known_kinds(model)
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.dim() > 1]
        if not own or (name in pruned and name not in leave):
            continue
        why = SKIPPED if name in leave else _why(module)
        if name in tied:
            why = f"its weight is the table of {tied[name]!r}"
        table = name in tied or isinstance(module, TABLES)
        counted = not (name in leave or table) and any(len(p) > 1 for p in own)
        found[name] = Left(sum(p.numel() for p in own), why, counted)
    return found


def skipped(model: nn.Module, patterns: Iterable[str]) -> tuple[str, ...]:
    """The modules with weights whose names match one of the patterns: "head", "blocks.*.qkv".
    Raises UserError for a pattern that matches none."""
    names = [
        name
        for name, module in model.named_modules()
        if any(p.dim() > 1 for p in module.parameters(recurse=False))
    ]
    chosen: dict[str, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        hits = [name for name in names if name == pattern] or fnmatch.filter(names, pattern)
        if not hits:
            raise UserError(
                "skip", pattern, "matches no layer of the model", f"layers: {', '.join(names)}"
            )
        chosen |= dict.fromkeys(hits)
    return tuple(chosen)


def prunable_among(model: nn.Module, names: Iterable[str]) -> tuple[str, ...]:
    """Those of the modules that methods prune, which their option `skip` takes."""
    pruned = of_known_kinds(model)
    return tuple(name for name in names if name in pruned)


def _why(module: nn.Module) -> str:
    reasons: Iterator[str] = (why for kind, why in KINDS if isinstance(module, kind))
    names = [key for key, p in module.named_parameters(recurse=False) if p.dim() > 1]
    return next(
        reasons,
        f"{', '.join(names)} of a {type(module).__name__}, which is no layer of a known kind",
    )
