"""What every pruning method returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from common.nets.masks import Masks


@dataclass
class Pruned:
    """A pruned copy of the network (the one that was given is untouched).

    masks: parameter name -> bool, True = kept (unstructured methods). edits: replayable surgery
    (structured methods). predicted_increase: of the mean training loss, or None for a method that
    predicts none. latent: by name, what the method goes on from at its next pruning: whole weights
    where masked ones may come back (Method.training), or Method.statistics. moments: the
    optimiser's, where training goes on after a pruning as if nothing had happened (Spec.clock
    "course"). layers: by layer name, what the method knows of it (numbers, kept in the record's
    layers). notes: what the numerics had to do, one line each, kept in the record.
    """

    model: nn.Module
    masks: Masks = field(default_factory=dict)
    edits: list[dict] = field(default_factory=list)
    predicted_increase: float | None = None
    latent: dict[str, Tensor] = field(default_factory=dict)
    moments: dict[str, Tensor] = field(default_factory=dict)
    layers: dict[str, dict] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
