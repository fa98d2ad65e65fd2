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
    layers). notes: what the numerics had to do, one line each, kept in the record. weights: by
    layer name (kept, of how many), and dense: by module name why it stays as it was, where
    common.prune made it.
    """

    model: nn.Module
    masks: Masks = field(default_factory=dict)
    edits: list[dict] = field(default_factory=list)
    predicted_increase: float | None = None
    latent: dict[str, Tensor] = field(default_factory=dict)
    moments: dict[str, Tensor] = field(default_factory=dict)
    layers: dict[str, dict] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    weights: dict[str, tuple[int, int]] = field(default_factory=dict)
    dense: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """Lines for a person: what is left in all, what it should cost, each layer, and what
        stayed dense and why."""
        weights = self.weights or {
            name.removesuffix(".weight"): (int(mask.sum()), mask.numel())
            for name, mask in self.masks.items()
        }
        kept, total = (sum(pair[i] for pair in weights.values()) for i in (0, 1))
        share = f" ({1 - kept / total:.1%})" if total else ""
        where = f"{len(weights)} layer{'s' * (len(weights) != 1)}"
        lines = [f"removed {total - kept:,} of {total:,} weights{share} in {where}"]
        if self.predicted_increase is not None:
            lines.append(f"predicted increase of the loss: {self.predicted_increase:.3g}")
        width = max(map(len, [*weights, *self.dense]), default=0)
        lines += [
            f"  {name:{width}}  {left:>12,} of {of:>12,} kept ({left / max(of, 1):.1%})"
            for name, (left, of) in weights.items()
        ]
        lines += [f"  {name:{width}}  stays dense: {why}" for name, why in self.dense.items()]
        return "\n".join(lines + self.notes)
