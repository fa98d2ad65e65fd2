"""The one-shot cells do what the paper states, typed by hand from its sections; nothing runs.

m is the fisher subsample size (outer products), b the fisher mini-batch size (images averaged into
one), c the chunk.
"""

import dataclasses

import pytest

from common.cells import trace
from common.cells.spec import Spec
from common.cells.trace import Prune
from common.running import pipeline
from woodfisher.experiments import FIGURES, TABLES

CELLS = {
    (spec.table, name): spec
    for group in (*TABLES.values(), *FIGURES.values())
    for name, spec in group.items()
}
# Sec. 5.1 "prune in a single step, without any re-training"; Sec. S1.2 "the dampening λ ... is set
# to 1e-5 in all the experiments"
DAMPING = 1e-5
# Sec. 5.1, Fig. 3a: "averaged across four seeds", "we compute the inverse of the diagonal blocks
# corresponding to each layer", "WoodFisher performs well even with 1,000 samples"; the amounts and
# the dense ends are the released script's.
RESNET20 = {
    "model": "resnet20:shortcut=B",
    "dataset": "cifar10",
    "m": 1000,
    "b": 1,
    "seeds": 4,
    "amounts": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98),
    "skip": {"conv1", "linear", "layer2.0.shortcut.0", "layer3.0.shortcut.0"},
}
# Sec. S4.1: "we use the TORCHVISION models"; "all layers except the first convolutional layer are
# pruned ... in a single shot"
RESNET50 = {
    "model": "resnet50",
    "dataset": "imagenet",
    "checkpoint": "resnet50_torchvision",
    "skip": {"conv1"},
}
# Fig. 5a, Sec. S2.2: "all the layers are pruned to equal amounts"; m, b and c are the released
# script's
LOBS = RESNET50 | {
    "skip": set(),
    "m": 400,
    "b": 400,
    "c": 2000,
    "amounts": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65),
    "seeds": 3,
}
MOBILENET = {
    "model": "mobilenet_v1",
    "dataset": "imagenet",
    "checkpoint": "mobilenet_v1_distiller",
    "skip": set(),
    "c": 10_000,
}
# Sec. 6.2: "an MLPNET on MNIST, which has only been trained for 2 epochs"; "the number of samples
# used for Fisher in both WoodTaylor and Diagonal Fisher is 8000. A dampening of 1e-1 was used for
# WoodTaylor"
EARLY = {
    "model": "mlpnet",
    "dataset": "mnist:norm=standard",
    "skip": set(),
    "c": "network",
    "m": 8000,
    "b": 1,
    "seeds": 4,
    "amounts": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98),
}
# Sec. S8.1: "in their 'full-matrix' mode ... only the 'layer1.0.conv1', 'layer1.0.conv2' and
# 'layer2.0.conv1'", "the number of samples used was 50,000"
THREE = {"layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1"}
BLOCKS = {
    f"layer{stage}.{block}.conv{conv}"
    for stage in (1, 2, 3)
    for block in (0, 1, 2)
    for conv in (1, 2)
}
FULL = RESNET20 | {
    "skip": RESNET20["skip"] | (BLOCKS - THREE),
    "m": 50_000,
    "c": "network",
    "seeds": 1,
}

STATED = {
    # (folder, series): method, and what differs from its setting
    ("figure-3a", "paper-woodfisher"): ("woodfisher", RESNET20),
    ("figure-3a", "paper-woodfisher-layer"): ("woodfisher-layer", RESNET20),
    # facts of the released script: b in {1, 50}
    ("figure-3a", "paper-b50-woodfisher"): ("woodfisher", RESNET20 | {"b": 50}),
    ("figure-3a", "paper-b50-woodfisher-layer"): ("woodfisher-layer", RESNET20 | {"b": 50}),
    ("figure-3a", "paper-magnitude-global"): ("magnitude-global", RESNET20 | {"seeds": 1}),
    ("figure-3a", "paper-magnitude-layer"): ("magnitude-layer", RESNET20 | {"seeds": 1}),
    # Sec. 5.1: "We used 16,000 samples to estimate the diagonal Fisher"
    ("figure-3a", "paper-diagonal-fisher"): ("obd-layer", RESNET20 | {"samples": 16_000}),
    # Sec. 5.1: "the set {20, 100, 1000, 5000, 12288, 37000}", "we take the above setting", joint;
    # S8 in independent mode, "even starting from blocks of size as small as 100, there is a
    # significant gain in comparison to magnitude pruning"
    **{
        ("figure-3b", f"paper-chunk-{c}"): ("woodfisher", RESNET20 | {"c": c})
        for c in (20, 100, 1000, 5000, 12288, 37000)
    },
    **{
        ("figure-S8", f"paper-chunk-{c}"): ("woodfisher-layer", RESNET20 | {"c": c})
        for c in (20, 100, 1000, 5000, 12288, 37000)
    },
    **{
        (folder, f"paper-{m}"): (m, RESNET20 | {"seeds": 1})
        for folder in ("figure-3b", "figure-S8")
        for m in ("magnitude-global", "magnitude-layer")
    },
    # Fig. 4: "(fisher subsample size, fisher mini-batch size)" of (80, 100) and (240, 100), "a
    # chunk size of 1000"; Sec. S4.1 "WoodFisher outperforms Global Magnitude and Magnitude". How
    # often "Recompute" recomputes is not stated.
    **{
        ("figure-4", f"paper-m{m}-recompute-{r}"): (
            "woodfisher",
            RESNET50
            | {
                "m": m,
                "b": 100,
                "c": 1000,
                "recompute": r,
                "amounts": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
                "seeds": 3,
            },
        )
        for m, r in ((80, 0), (240, 0), (80, 2), (80, 5))
    },
    **{
        ("figure-4", f"paper-{m}"): (
            m,
            RESNET50 | {"amounts": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), "seeds": 1},
        )
        for m in ("magnitude-global", "magnitude-layer")
    },
    ("figure-5a", "paper-woodfisher-layer"): ("woodfisher-layer", LOBS),
    ("figure-5a", "paper-woodfisher"): ("woodfisher", LOBS),
    ("figure-7", "paper-woodtaylor"): ("woodtaylor", EARLY | {"damping": 0.1}),
    ("figure-7", "paper-woodfisher"): ("woodfisher", EARLY),
    ("figure-7", "paper-magnitude-global"): ("magnitude-global", EARLY | {"seeds": 1}),
    ("figure-7", "paper-magnitude-layer"): ("magnitude-layer", EARLY | {"seeds": 1}),
    ("figure-7", "paper-diagonal-fisher"): ("obd-layer", EARLY | {"samples": 8000}),
    # Figs. S12, S13: "WoodTaylor (with damp=1e-3) outperforms WoodFisher (across various dampening
    # values)"; "damp=1e-5, ... 10x bigger norm"
    **{
        ("figure-S12", f"paper-{m}-{d:g}"): (m, FULL | {"damping": d})
        for m in ("woodtaylor", "woodfisher")
        for d in (1e-3, 1e-4, 1e-5)
    },
    # Fig. S14: dampening and samples of Fig. 7's WoodTaylor; the text states no values
    **{
        ("figure-S14", f"paper-damping-{d:g}-samples-{n}"): (
            "woodtaylor",
            EARLY | {"m": n, "damping": d, "seeds": 1},
        )
        for n in (1000, 8000)
        for d in (1e-3, 1e-2, 1e-1, 1.0)
    },
    # Table 8: "chunk size = 1000, fisher subsample size = 240, fisher mini batch-size = 100",
    # "averaged over three seeds", joint
    **{
        ("table-8", f"paper-{fisher}"): (
            "woodfisher",
            RESNET50
            | {
                "m": 240,
                "b": 100,
                "c": 1000,
                "fisher": fisher,
                "seeds": 3,
                "amounts": (0.2, 0.4, 0.6, 0.7, 0.8),
            },
        )
        for fisher in ("empirical", "sampled")
    },
    # Table S2: "a chunk size of 1000 ... averaged over three seeds"
    **{
        ("table-S2", f"paper-m{m}-b{b}"): (
            "woodfisher",
            RESNET50 | {"m": m, "b": b, "c": 1000, "amounts": (0.3, 0.5), "seeds": 3},
        )
        for m in (80, 160)
        for b in (1, 30, 100, 400, 800, 2400)
    },
    # Table S3 and its picture Fig. S6: "a chunk size of 10,000 ... averaged over three seeds"
    **{
        (folder, f"paper-m{m}-b{b}"): (
            "woodfisher",
            MOBILENET | {"m": m, "b": b, "amounts": (0.1, 0.3, 0.5), "seeds": 3},
        )
        for folder in ("table-S3", "figure-S6")
        for m in (160, 400)
        for b in (1, 10, 30, 100, 400, 2400)
    },
}
ONE_SHOT = (
    "figure-3a",
    "figure-3b",
    "figure-S8",
    "figure-4",
    "figure-5a",
    "figure-7",
    "figure-S6",
    "figure-S12",
    "figure-S14",
    "table-8",
    "table-S2",
    "table-S3",
)


def series(folder: str, name: str) -> dict[str, Spec]:
    """The cells <name>-<amount>-seed<k> of a folder."""
    return {
        cell: spec
        for (table, cell), spec in CELLS.items()
        if table == folder and cell.rsplit("-", 2)[0] == name
    }


def test_every_paper_scale_one_shot_cell_is_stated():
    there = {
        (table, name.rsplit("-", 2)[0])
        for (table, name), spec in CELLS.items()
        if table in ONE_SHOT and spec.scale == "paper"
    }
    assert there == set(STATED)


@pytest.mark.parametrize("folder, name", STATED, ids=map("/".join, STATED))
def test_a_paper_cell_is_what_its_section_says(folder, name):
    method, said = STATED[folder, name]
    cells = series(folder, name)
    assert {(spec.sparsity, spec.seed) for spec in cells.values()} == {
        (a, s) for a in said["amounts"] for s in range(said["seeds"])
    }
    for spec in cells.values():
        assert (spec.scale, spec.method, spec.model, spec.dataset) == (
            "paper",
            method,
            said["model"],
            said["dataset"],
        )
        assert spec.checkpoint == said.get("checkpoint", "")
        # a public network, or one trained here
        assert bool(spec.train.epochs) == (not spec.checkpoint)
        events = trace.course(spec)
        # "in a single step, without any re-training"
        assert events == [Prune(0.0, 0, spec.sparsity)]
        options = pipeline.method_of(spec)[1]
        assert set(options.skip) == said["skip"]
        if method.startswith("wood"):
            assert (spec.num_samples, options.fisher_batch_size) == (
                said["m"] * said["b"],
                said["b"],
            )
            assert (
                options.num_rows in (None, said["m"])
                and spec.num_samples // options.fisher_batch_size == said["m"]
            )
            assert options.chunk == said.get("c") and options.damping == said.get(
                "damping", DAMPING
            )
            assert (
                options.fisher == said.get("fisher", "empirical") and options.update == "diagonal"
            )
            assert getattr(options, "recompute", 0) == said.get("recompute", 0)
            assert options.scope == ("layer" if method == "woodfisher-layer" else "global")
        elif method == "obd-layer":
            assert (spec.num_samples, options.fisher) == (said["samples"], "empirical")


def test_mlpnet_is_trained_for_the_papers_two_epochs():
    """Sec. 6.2, and Sec. S3.2's rate and momentum: 0.001, 0.5, batch 64."""
    for (folder, _), spec in CELLS.items():
        if folder in ("figure-7", "figure-S14"):
            recipe = spec.train
            assert (recipe.epochs, recipe.lr, recipe.momentum, recipe.batch_size) == (
                2,
                1e-3,
                0.5,
                64,
            )
            assert (recipe.schedule, recipe.weight_decay, recipe.augment) == ("constant", 0, False)


@pytest.mark.parametrize(
    "name, method, fields",
    [
        # Fig. 5b, Sec. 5.1: "a block-wise estimate of the Fisher (with respect to the layers, i.e.,
        # no further chunking)", 'joint'; "the same across K-FAC and WoodFisher (i.e., 50,000
        # samples)"; footnote 2: "1000 averaged gradients over a mini-batch size of 50"
        (
            "woodfisher",
            "woodfisher",
            {"fisher_batch_size": 50, "chunk": None, "damping": DAMPING, "scope": "global"},
        ),
        ("kfac-pi", "kfac-prune", {"pi": True, "damping": DAMPING, "scope": "global"}),
        ("kfac", "kfac-prune", {"pi": False, "damping": DAMPING, "scope": "global"}),
    ],
)
def test_figure_5b_is_the_papers_own_on_mlpnet(name, method, fields):
    cells = series("figure-5b", name)
    assert cells
    for spec in cells.values():
        assert (spec.method, spec.model, spec.dataset, spec.num_samples) == (
            method,
            "mlpnet",
            "mnist:norm=standard",
            50_000,
        )
        options = dataclasses.asdict(pipeline.method_of(spec)[1])
        assert fields.items() <= options.items() and options["skip"] == ()
        assert trace.course(spec) == [Prune(0.0, 0, spec.sparsity)]


def test_a_cpu_cell_says_its_rows():
    """m and b stand in the Spec of every one-shot cell whose Fisher is made of rows: what is
    printed beside it is no default.
    """
    for (table, name), spec in CELLS.items():
        if spec.method.startswith("wood") and table in (*ONE_SHOT, "figure-5b", "table-6"):
            assert spec.fisher_batch_size and spec.num_samples, name
