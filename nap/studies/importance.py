"""Figs. 2, 3 and 4: weights and their importance, before and after a run of Table 3."""

from __future__ import annotations

from pathlib import Path

import torch

from common.cells.errors import UserError
from common.cells.spec import Spec
from common.curvature.kron import kron_factors
from common.nets import checkpoint
from common.nets import layers as L
from common.nets import masks as M
from common.running import pipeline
from common.running.stages import data_of
from common.running.study import short
from common.running.timing import Timer
from nap.method import Options, importance, inverse_fisher, normalised

POINTS, BINS = 60, 41  # of a layer in Fig. 4; of its histogram in Figs. 2 and 3


def weights(spec: Spec, timer: Timer) -> list[dict]:
    """|w| and ΔL of every layer's remaining weights, before and after the cell's run: a sample of
    points, a histogram of w, and the fraction of each layer below the median over all layers, by
    |w| and by importance (App. A)."""
    data, rows = data_of(spec), []
    options = Options(**{k: v for k, v in dict(spec.options).items() if k in ("damping", "fisher")})
    for moment, path in (
        ("early", pipeline.dense_folder(spec) / "model.safetensors"),
        ("late", pipeline.cell_folder(spec) / "finetuned.safetensors"),
    ):
        loaded = checkpoint.load(there(path))
        layers = L.prunable(loaded.model)
        with timer.phase("statistics"):
            factors = kron_factors(
                loaded.model,
                data.calibration(1_000, 100),
                layers,
                bias=True,
                generator=torch.Generator().manual_seed(0),
            )
        W, F = L.finite_weights(layers), inverse_fisher(factors, options)
        left = M.by_layer(layers, loaded.masks)
        seen = {}
        for name in layers:
            kept = left[name]
            width = kept.shape[-1]
            score = normalised(importance(W[name], F[name])[..., :width], kept)
            seen[name] = W[name][..., :width][kept], score[kept]
        medians = [
            float(torch.cat([value.abs() for value in values]).median())
            for values in zip(*seen.values(), strict=True)
        ]
        for name, (w, score) in seen.items():
            drawn = torch.randperm(len(w), generator=torch.Generator().manual_seed(0))[:POINTS]
            reach = float(w.abs().max())
            rows.append(
                {
                    "moment": moment,
                    "name": name,
                    "left": len(w),
                    "reach": short(reach, 5),
                    "below_median_magnitude": short(
                        float((w.abs() < medians[0]).double().mean()), 5
                    ),
                    "below_median_importance": short(
                        float((score < medians[1]).double().mean()), 5
                    ),
                    "magnitude": [short(v, 3) for v in w.abs()[drawn].tolist()],
                    "importance": [short(v, 3) for v in score[drawn].tolist()],
                    "histogram": torch.histc(w, BINS, -reach, reach).int().tolist(),
                }
            )
    return rows


def there(path: Path) -> Path:
    if not path.exists():
        raise UserError(
            "results",
            path.parent.parent.name,
            "its run has left no network here",
            "run python -m nap.finetune --table 3 first",
        )
    return path
