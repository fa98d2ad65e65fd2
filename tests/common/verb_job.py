"""A verb as a module, for torchrun: `verb_job VERB flags`. Table "all" is one cell for each kind of
curvature.
"""

import sys

from common.cells.spec import Recipe, Spec
from common.running.cli import run

BASE = Spec(
    dataset="synthetic",
    model="digits_cnn",
    train=Recipe(epochs=1, lr=0.05, batch_size=32),
    num_samples=512,
    table="all",
)
CELLS = {
    "rows": BASE.but(
        method="woodfisher", sparsity=0.8, options={"num_rows": 128, "fisher_batch_size": 1}
    ),
    "chunks-joint": BASE.but(
        method="woodfisher", sparsity=0.8, update="joint", chunk=100, fisher_batch_size=1
    ),
    "mean-rows-sampled": BASE.but(
        method="woodfisher",
        sparsity=0.8,
        fisher="sampled",
        options={"num_rows": 64, "fisher_batch_size": 8},
    ),
    "diagonal": BASE.but(method="obd-global", sparsity=0.8),
    "diagonal-sampled": BASE.but(method="obd-global", sparsity=0.8, fisher="sampled"),
    "kron": BASE.but(method="kfac-prune", sparsity=0.8, options={"batch_size": 128}),
    "structured": BASE.but(method="kron-obs", unit_ratio=0.5),
    "eigenbasis": BASE.but(method="eigendamage", unit_ratio=0.5),
    "layer-wise": BASE.but(method="l-obs", sparsity=0.8),
    "layer-wise-behind-pruned": BASE.but(
        method="l-obs", sparsity=0.8, options={"inputs": "pruned"}
    ),
    "layer-wise-divided": BASE.but(method="l-obs-ours", sparsity=0.8),
    "layer-wise-ranked": BASE.but(
        method="l-obs-ours", sparsity=0.8, options={"weigh": True, "rescore": 3}
    ),
}

if __name__ == "__main__":
    sys.exit(run("common", sys.argv[1], {"all": CELLS}, argv=sys.argv[2:]))
