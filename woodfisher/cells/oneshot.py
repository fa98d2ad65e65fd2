"""WoodFisher's one-shot tables and figures (Secs. 5.1, 6.2, S4.1, S8): prune, no fine-tuning."""

from __future__ import annotations

from common.cells.jobs import job_of
from common.cells.spec import Spec
from woodfisher.cells import imagenet
from woodfisher.cells.imagenet import ONE_SHOT
from woodfisher.cells.networks import (
    ABLATION,
    CHUNKS,
    DENSE_ENDS,
    EARLY,
    MLP,
    MLP_AMOUNTS,
    QUICK,
    R20,
    R20_AMOUNTS,
    R20_PAPER,
    R20_SKIP,
    SINGLE,
)
from woodfisher.cells.sweeps import Group, labelled, sweep


def fig3a() -> Group:
    """One-shot ResNet-20. cpu: m = 1,000 single gradients, three seeds at 50, 70 and 80%; magnitude
    has no randomness. The diagonal Fisher of 2,000 images stands beside that of the paper's
    16,000."""
    some, few = (0.5, 0.6, 0.7, 0.8, 0.9), (0.5, 0.7, 0.8)
    rows = SINGLE | {"options": DENSE_ENDS}
    cpu = [
        sweep(R20, "woodfisher-layer", "woodfisher-layer", some, **rows),
        sweep(R20, "woodfisher", "woodfisher", some, **rows),
        sweep(R20, "magnitude-global", "magnitude-global", some, options=DENSE_ENDS),
        sweep(R20, "woodfisher-joint-update", "woodfisher", (0.8, 0.7), update="joint", **rows),
        sweep(R20, "woodfisher-no-update", "woodfisher", some, update="none", **rows),
        {
            name: cell
            for name, cell in sweep(R20, "woodfisher", "woodfisher", few, 3, **rows).items()
            if cell.seed
        },
        sweep(R20, "magnitude-layer", "magnitude-layer", few, options=DENSE_ENDS),
        *(
            sweep(
                R20, name, "obd-layer", few, num_samples=n, fisher="empirical", options=DENSE_ENDS
            )
            for name, n in (("diagonal-fisher", 2000), ("diagonal-fisher-16000", 16_000))
        ),
    ]
    paper = [
        sweep(R20_PAPER, f"paper-{name}{m}", m, R20_AMOUNTS, 4, options=R20_SKIP, **rows)
        for name, rows in (("", SINGLE), ("b50-", {"num_samples": 50_000, "fisher_batch_size": 50}))
        for m in ("woodfisher", "woodfisher-layer")
    ]
    paper += [
        sweep(R20_PAPER, f"paper-{m}", m, R20_AMOUNTS, options=R20_SKIP)
        for m in ("magnitude-global", "magnitude-layer")
    ]
    paper.append(
        sweep(
            R20_PAPER,
            "paper-diagonal-fisher",
            "obd-layer",
            R20_AMOUNTS,
            4,
            num_samples=16_000,
            fisher="empirical",
            options=R20_SKIP,
        )
    )
    quick = [
        sweep(QUICK, f"quick-{m}", m, (0.5, 0.8), **(SINGLE if m.startswith("wood") else {}))
        for m in ("woodfisher", "woodfisher-layer", "magnitude-global")
    ]
    return labelled("figure", "3a", *cpu, *paper, *quick)


def fig3b(method: str, label: str) -> Group:
    """Chunk sizes in Fig. 3a's setting beside magnitude, and beyond the paper one block over the
    whole network.
    """
    rows = SINGLE | {"options": DENSE_ENDS}
    chunks = (
        (20, 100, 1000, 5000, None, "network") if method == "woodfisher" else (20, 100, 1000, None)
    )
    cpu = [sweep(R20, f"chunk-{c or 'layer'}", method, ABLATION, chunk=c, **rows) for c in chunks]
    cpu += [
        sweep(R20, m, m, ABLATION, options=DENSE_ENDS)
        for m in ("magnitude-global", "magnitude-layer")
    ]
    rows = SINGLE | {"options": R20_SKIP}
    paper = [
        sweep(R20_PAPER, f"paper-chunk-{c}", method, R20_AMOUNTS, 4, chunk=c, **rows)
        for c in CHUNKS
    ]
    paper += [
        sweep(R20_PAPER, f"paper-{m}", m, R20_AMOUNTS, options=R20_SKIP)
        for m in ("magnitude-global", "magnitude-layer")
    ]
    return labelled("figure", label, *cpu, *paper)


def fig5a() -> Group:
    """Beside L-OBS, every layer pruned alike. cpu: ResNet-20, as many images for both; L-OBS's
    walk, and its joint optimum (ours).
    """
    amounts, few = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.8), (0.5, 0.65, 0.8)
    rows = SINGLE
    layerwise = {
        "woodfisher-layer": rows,
        "l-obs": {"num_samples": 1000},
        "l-obs-joint": {"num_samples": 1000},
    }
    cpu = [sweep(R20, method, method, amounts, **changes) for method, changes in layerwise.items()]
    cpu += [
        {
            name: cell
            for name, cell in sweep(R20, method, method, few, 3, **changes).items()
            if cell.seed
        }
        for method, changes in layerwise.items()
    ]
    cpu += [
        sweep(R20, "woodfisher", "woodfisher", amounts, **rows),
        *(
            sweep(R20, method, method, amounts)
            for method in ("magnitude-layer", "magnitude-global")
        ),
    ]
    return labelled("figure", "5a", *cpu, *imagenet.fig5a())


def fig5b() -> Group:
    """One-shot MLPNet: K-FAC from 50,000 samples with and without π, WoodFisher from 1,000 rows of
    50 of them.
    """
    some, big = MLP_AMOUNTS[4:], {"batch_size": 2000}
    return labelled(
        "figure",
        "5b",
        sweep(MLP, "magnitude-global", "magnitude-global", MLP_AMOUNTS),
        *(
            sweep(MLP, name, method, amounts, seeds, num_samples=50_000, **changes)
            for name, method, amounts, seeds, changes in (
                ("woodfisher", "woodfisher", MLP_AMOUNTS, 3, {"fisher_batch_size": 50}),
                (
                    "woodfisher-joint-update",
                    "woodfisher",
                    MLP_AMOUNTS,
                    1,
                    {"fisher_batch_size": 50, "update": "joint"},
                ),
                ("kfac-pi", "kfac-prune", some, 3, {"options": big}),
                ("kfac", "kfac-prune", some, 3, {"options": big | {"pi": False}}),
            )
        ),
    )


def fig7() -> Group:
    """One-shot at two epochs, 8,000 samples. The paper's cells have them as 8,000 rows of one in
    one block over the network, the released code's "full" matrix. cpu has 1,000 rows of 8, which
    are another Fisher (a mean of b gradients has 1/b the variance), and cells named single 2,000
    rows of one."""
    rows = {"num_samples": 8000, "fisher_batch_size": 8}
    amounts = (*MLP_AMOUNTS[:9], 0.98)
    early, full = (
        EARLY.but(scale="paper"),
        {"num_samples": 8000, "fisher_batch_size": 1, "chunk": "network"},
    )
    diagonal = {"num_samples": 8000, "fisher": "empirical"}
    paper = [
        sweep(early, f"paper-{name}", method, amounts, seeds, **changes)
        for name, method, seeds, changes in (
            ("woodtaylor", "woodtaylor", 4, full),
            ("woodfisher", "woodfisher", 4, full),
            ("magnitude-global", "magnitude-global", 1, {}),
            ("magnitude-layer", "magnitude-layer", 1, {}),
            ("diagonal-fisher", "obd-layer", 4, diagonal),
        )
    ]
    return labelled(
        "figure",
        "7",
        *(
            sweep(EARLY, name, method, amounts, seeds, **changes)
            for name, method, seeds, changes in (
                ("magnitude-global", "magnitude-global", 1, {}),
                ("magnitude-layer", "magnitude-layer", 1, {}),
                ("woodtaylor", "woodtaylor", 3, rows),
                ("woodfisher", "woodfisher", 3, rows),
                (
                    "woodtaylor-single",
                    "woodtaylor",
                    3,
                    {"num_samples": 2000, "fisher_batch_size": 1},
                ),
                ("woodtaylor-network", "woodtaylor", 3, rows | {"chunk": "network"}),
                ("diagonal-fisher-layer", "obd-layer", 3, diagonal),
                ("diagonal-fisher-global", "obd-global", 3, diagonal),
            )
        ),
        *paper,
    )


def fig_s14() -> Group:
    """WoodTaylor on the same network: dampening and samples (single gradients), whose values the
    paper's text leaves open. The paper's cells go up to Fig. 7's 8,000 and its full matrix; cpu has
    a block a layer."""

    def cells(
        base: Spec,
        name: str,
        amounts: tuple[float, ...],
        samples: tuple[int, ...],
        **changes: object,
    ) -> list[Group]:
        return [
            sweep(
                base,
                f"{name}damping-{damping:g}-samples-{n}",
                "woodtaylor",
                amounts,
                damping=damping,
                num_samples=n,
                fisher_batch_size=1,
                **changes,
            )
            for n in samples
            for damping in (1e-3, 1e-2, 1e-1, 1.0)
        ]

    return labelled(
        "figure",
        "S14",
        *cells(EARLY, "", (0.5, 0.9), (250, 1000, 2000)),
        *cells(
            EARLY.but(scale="paper"),
            "paper-",
            (*MLP_AMOUNTS[:9], 0.98),
            (1000, 8000),
            chunk="network",
        ),
    )


def fig_s12() -> Group:
    """WoodTaylor and WoodFisher on three layers as one block of 2,304 + 2,304 + 4,608 = 9,216
    weights. The paper has 50,000 samples; cpu 1,000, and the cells named all-images all 50,000, so
    that the block is inverted directly."""
    kept = ("layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1")
    blocks = [f"layer{s}.{b}.conv{c}" for s in (1, 2, 3) for b in (0, 1, 2) for c in (1, 2)]
    others = tuple(name for name in blocks if name not in kept)
    rows = {"fisher_batch_size": 1, "chunk": "network"}

    def cells(
        base: Spec,
        name: str,
        amounts: tuple[float, ...],
        samples: int,
        skip: tuple[str, ...],
        dampings: dict[str, tuple[float, ...]],
        seeds: int = 1,
    ) -> list[Group]:
        return [
            sweep(
                base,
                f"{name}{method}-{damping:g}",
                method,
                amounts,
                seeds,
                damping=damping,
                num_samples=samples,
                options={"skip": skip},
                **rows,
            )
            for method, values in dampings.items()
            for damping in values
        ]

    ours = ("conv1", *others, "linear")
    return labelled(
        "figure",
        "S12",
        *cells(
            R20,
            "",
            (0.5, 0.9),
            1000,
            ours,
            {"woodtaylor": (1e-2, 1e-3, 1e-4, 1e-5), "woodfisher": (1e-3, 1e-4, 1e-5)},
        ),
        *cells(
            R20,
            "all-images-",
            (0.5, 0.9),
            50_000,
            ours,
            dict.fromkeys(("woodtaylor", "woodfisher"), (1e-3,)),
        ),
        *cells(
            R20_PAPER,
            "paper-",
            R20_AMOUNTS,
            50_000,
            R20_SKIP["skip"] + others,
            {"woodtaylor": (1e-3, 1e-4, 1e-5), "woodfisher": (1e-3, 1e-4, 1e-5)},
        ),
    )


def table8() -> Group:
    """Labels of the Fisher: true or drawn from the model. cpu: the same comparison on ResNet-20."""
    cpu = [
        sweep(
            R20,
            "sampled",
            "woodfisher",
            (0.5, 0.7, 0.8),
            3,
            fisher="sampled",
            options=DENSE_ENDS,
            **SINGLE,
        )
    ]
    paper = [
        sweep(
            ONE_SHOT,
            f"paper-{fisher}",
            "woodfisher",
            (0.2, 0.4, 0.6, 0.7, 0.8),
            3,
            num_samples=24_000,
            fisher_batch_size=100,
            chunk=1000,
            fisher=fisher,
        )
        for fisher in ("empirical", "sampled")
    ]
    return labelled("table", "8", *cpu, *paper)


def table_s2() -> Group:
    """Rows m and examples a row b. cpu: ResNet-20."""
    cpu = [
        sweep(
            R20,
            f"m{m}-b{b}",
            "woodfisher",
            ABLATION,
            num_samples=m * b,
            fisher_batch_size=b,
            options=DENSE_ENDS,
        )
        for m, b in ((80, 1), (400, 1), (80, 10), (400, 10), (80, 100))
    ]
    paper = [
        sweep(
            ONE_SHOT,
            f"paper-m{m}-b{b}",
            "woodfisher",
            (0.3, 0.5),
            3,
            num_samples=m * b,
            fisher_batch_size=b,
            chunk=1000,
        )
        for m in (80, 160)
        for b in (1, 30, 100, 400, 800, 2400)
    ]
    return labelled("table", "S2", *cpu, *paper)


def damping() -> Group:
    """Not in the paper: WoodFisher and K-FAC by dampening on the comparison's LeNet-300-100, where
    K-FAC leads at the methods' own λ.
    """
    job = job_of("mnist", "lenet300")
    base = Spec(
        paper="woodfisher",
        scale="cpu",
        model="lenet300",
        dataset="mnist",
        train=job.train,
        checkpoint=job.checkpoint,
        num_samples=job.num_samples,
    )
    return labelled(
        "table",
        "damping",
        sweep(base, "magnitude-global", "magnitude-global", (0.9, 0.95)),
        *(
            sweep(base, f"{method}-damping-{value:g}", method, (0.9, 0.95), damping=value)
            for method in ("woodfisher", "kfac-prune")
            for value in (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
        ),
    )


def fig4() -> Group:
    """Recomputing the Fisher on the way, without training, beside magnitude. cpu: 100 rows of 10.
    The paper's numbers of recomputations are in no text."""
    few, magnitude = (0.8, 0.7, 0.9), ("magnitude-global", "magnitude-layer")
    cpu = [
        sweep(
            R20,
            f"recompute-{r}",
            "woodfisher",
            few,
            num_samples=1000,
            fisher_batch_size=10,
            recompute=r,
            options=DENSE_ENDS | {"num_rows": 100},
        )
        for r in (0, 1, 4)
    ]
    cpu += [sweep(R20, method, method, few, options=DENSE_ENDS) for method in magnitude]
    amounts = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    paper = [
        sweep(
            ONE_SHOT,
            f"paper-m{m}-recompute-{r}",
            "woodfisher",
            amounts,
            3,
            num_samples=m * 100,
            fisher_batch_size=100,
            chunk=1000,
            recompute=r,
        )
        for m, r in ((80, 0), (240, 0), (80, 2), (80, 5))
    ]
    paper += [sweep(ONE_SHOT, f"paper-{method}", method, amounts) for method in magnitude]
    return labelled("figure", "4", *cpu, *paper)


def table6() -> Group:
    """FLOPs-aware statistic. cpu: one-shot ResNet-20."""
    rows = SINGLE
    cpu = [
        sweep(
            R20,
            f"beta-{beta:g}",
            "woodfisher-flops",
            ABLATION,
            options=DENSE_ENDS | {"beta": beta},
            **rows,
        )
        for beta in (0.0, 0.3, 0.35, 1.0)
    ]
    cpu.append(
        sweep(
            R20,
            "target-macs",
            "woodfisher-flops",
            (0.75,),
            options=DENSE_ENDS | {"beta": 0.3, "target": "macs"},
            **rows,
        )
    )
    return labelled("table", "6", *cpu, imagenet.flops_aware())
