"""WoodFisher's gradual runs against the paper's own statements, typed here by hand; nothing is
trained.

Sec. S1.1: "We use Stochastic Gradient Descent (SGD) as an optimizer during gradual pruning, with a
learning rate = 0.005, momentum = 0.9, and weight decay = 0.0001. We run the overall procedure for
100 epochs [...]. For RESNET-50, we carry out pruning steps from epoch 1, at an interval of 5
epochs, until epoch 40. Once the pruning steps are over, we decay the learning rate in an
exponential schedule from epoch 40 to 90 by a factor of 0.6 every 6 epochs. For MOBILENETV1, we
carry out pruning steps from epoch 4, at an interval of 4 epochs, until epoch 24. Once the pruning
steps are over, we decay the learning rate in an exponential schedule from epoch 30 to 100 by a
factor of 0.92 every epoch. The amount by which to prune at every step is calculated based on the
polynomial schedule, suggested in [19], with the initial sparsity percentage set to 0.05. The same
pruning schedule is followed for all: WoodFisher, Global Magnitude, and Magnitude." Footnote S1:
"All the epoch numbers are based on zero indexing."
"""

import pytest
import torch

from common.cells.spec import Spec
from common.cells.trace import Event, Prune, Train, course, trace
from common.nets import models
from common.nets.layers import prunable
from common.running import pipeline
from woodfisher.experiments import FIGURES, TABLES

GROUPS = {f"Table {k}": cells for k, cells in TABLES.items()} | {
    f"Figure {k}": cells for k, cells in FIGURES.items()
}
PAPER = {
    (label, name): spec
    for label, cells in GROUPS.items()
    for name, spec in cells.items()
    if spec.scale == "paper" and (spec.levels or spec.finetune.epochs)
}

EPOCHS = {"resnet50": [1, 6, 11, 16, 21, 26, 31, 36], "mobilenet_v1": [4, 8, 12, 16, 20, 24]}
LEVELS = {  # Zhu & Gupta's equation by hand, from 5%
    ("resnet50", 0.8): [0.05, 0.3031, 0.4916, 0.6252, 0.7133, 0.7653, 0.7908, 0.7992],
    ("resnet50", 0.9): [0.05, 0.3368, 0.5505, 0.7019, 0.8017, 0.8607, 0.8896, 0.8991],
    ("resnet50", 0.95): [0.05, 0.3537, 0.5800, 0.7403, 0.8459, 0.9084, 0.9389, 0.9490],
    ("resnet50", 0.98): [0.05, 0.3638, 0.5976, 0.7633, 0.8725, 0.9370, 0.9686, 0.9790],
    ("mobilenet_v1", 0.7528): [0.05, 0.3930, 0.6010, 0.7078, 0.7472, 0.7528],
    ("mobilenet_v1", 0.89): [0.05, 0.4599, 0.7086, 0.8362, 0.8833, 0.89],
    ("mobilenet_v1", 0.6): [0.05, 0.3184, 0.4812, 0.5648, 0.5956, 0.6],
}
RATES = {
    "resnet50": {
        0: 5e-3,
        1: 5e-3,
        5: 5e-3,
        36: 5e-3,
        39: 5e-3,
        40: 3e-3,
        45: 3e-3,
        46: 1.8e-3,
        52: 1.08e-3,
        87: 8.398e-5,
        88: 5.039e-5,
        90: 5.039e-5,
        99: 5.039e-5,
    },
    "mobilenet_v1": {
        0: 5e-3,
        4: 5e-3,
        24: 5e-3,
        29: 5e-3,
        30: 4.6e-3,
        31: 4.232e-3,
        40: 1.998e-3,
        99: 1.459e-5,
    },
}
# m, b, c, batch size
TABLE_S1 = {
    ("resnet50", 0.8): (400, 400, 2000, 256),
    ("resnet50", 0.9): (400, 400, 2000, 180),
    ("resnet50", 0.95): (400, 400, 2000, 180),
    ("resnet50", 0.98): (400, 400, 1000, 180),
    ("mobilenet_v1", 0.7528): (400, 2400, 10_000, 256),
    ("mobilenet_v1", 0.89): (400, 2400, 10_000, 180),
}
# cells of another amount: the row of Table S1 that they take, README
REGIME = {0.891: 0.9, 0.9023: 0.9, 0.6: 0.7528}
CELLS = {  # label -> {(model, method, sparsity): seeds}
    "Table 1": {
        ("resnet50", m, s): 2
        for m in ("woodfisher", "magnitude-global")
        for s in (0.8, 0.9, 0.95, 0.98)
    },
    "Table 2": {("resnet50", m, 0.9): 1 for m in ("woodfisher", "magnitude-global", "dpf")},
    "Table 3": {
        ("resnet50", m, 0.891): 1 for m in ("woodfisher", "magnitude-global", "magnitude-layer")
    },
    "Table 4": {
        ("mobilenet_v1", m, s): 1
        for m in ("woodfisher", "magnitude-global")
        for s in (0.7528, 0.89)
    },
    "Table 5": {
        ("mobilenet_v1", m, s): 5
        for m in ("woodfisher", "magnitude-global")
        for s in (0.7528, 0.89)
    },
    # beta .30 and .35
    "Table 6": {
        ("resnet50", "woodfisher-flops", 0.9023): 1,
        ("mobilenet_v1", "woodfisher-flops", 0.7528): 2,
    },
    "Table 7": {
        ("resnet50", "woodfisher", 0.8): 1,
        ("resnet50", "woodfisher", 0.9): 1,
        ("resnet50", "woodfisher-flops", 0.9023): 1,
        ("resnet50", "woodfisher-layer", 0.891): 1,
    },
    "Table S5": {("resnet50", m, 0.891): 1 for m in ("woodfisher-layer", "magnitude-layer")},
    "Figure S11": {
        ("mobilenet_v1", m, 0.6): 1 for m in ("woodfisher", "magnitude-global", "magnitude-layer")
    },
}


def rate(events: list[Event], epoch: float) -> float:
    """The learning rate at an epoch of the whole run."""
    return next(
        event.rate(epoch - event.epoch)
        for event in events
        if isinstance(event, Train) and event.epoch <= epoch < event.epoch + event.epochs
    )


def test_every_gradual_table_and_figure_has_its_cells():
    found: dict = {}
    for (label, _), spec in PAPER.items():
        key = (spec.model, spec.method, spec.sparsity)
        found.setdefault(label, {})[key] = found.get(label, {}).get(key, 0) + 1
    assert found == CELLS


@pytest.mark.parametrize(("label", "name"), PAPER, ids=map(" ".join, PAPER))
def test_a_paper_cell_is_what_the_paper_says(label, name):
    spec = PAPER[label, name]
    events = course(spec)
    prunings, stretches = (
        [event for event in events if isinstance(event, kind)] for kind in (Prune, Train)
    )
    assert [event.epoch for event in prunings] == EPOCHS[spec.model]
    amount = {0.891: 0.9, 0.9023: 0.9023}.get(spec.sparsity, spec.sparsity)
    amounts = [event.layers.get("*", event.amount) for event in prunings]
    first, whole = EPOCHS[spec.model][0], {"resnet50": 39, "mobilenet_v1": 20}[spec.model]
    assert amounts == pytest.approx(
        [
            amount + (0.05 - amount) * (1 - (epoch - first) / whole) ** 3
            for epoch in EPOCHS[spec.model]
        ]
    )
    if (spec.model, amount) in LEVELS:
        assert amounts == pytest.approx(LEVELS[spec.model, amount], abs=6e-5)
    assert (
        sum(event.epochs for event in stretches) == 100
        and stretches[-1].epoch + stretches[-1].epochs == 100
    )
    for epoch, said in RATES[spec.model].items():
        assert rate(events, epoch) == pytest.approx(said, rel=5e-4), epoch
    m, b, c, batch = TABLE_S1[spec.model, REGIME.get(spec.sparsity, spec.sparsity)]
    for event in stretches:
        recipe = event.recipe
        assert (recipe.optimizer, recipe.momentum, recipe.weight_decay, recipe.batch_size) == (
            "sgd",
            0.9,
            1e-4,
            batch,
        )
        assert recipe.augment and not recipe.nesterov and not recipe.max_steps
    assert (spec.dataset, spec.clock, spec.recalibrate_bn, spec.amp) == (
        "imagenet",
        "course",
        0,
        False,
    )
    if spec.method.startswith("woodfisher"):
        options = pipeline.method_of(spec)[1]
        assert (spec.num_samples, options.fisher_batch_size, options.chunk) == (m * b, b, c)
        assert (options.damping, options.fisher, options.update, options.recompute) == (
            1e-5,
            "empirical",
            "diagonal",
            0,
        )
    # Sec. 5.2: the dense networks are STR's, but for Table 2, which starts "from a similarly
    # trained dense baseline" of 75.98%
    dense = {"Table 2": "resnet50_75.98"}.get(
        label, {"resnet50": "resnet50_str", "mobilenet_v1": "mobilenet_v1_str"}[spec.model]
    )
    assert spec.checkpoint == dense and not spec.train.epochs and not spec.allow_untrained


def removed(spec: Spec) -> tuple[int, int]:
    """(weights left, weights in all) after the last pruning of a ResNet-50 cell, by the sizes of
    its layers.
    """
    with torch.device("meta"):
        sizes = {
            name: module.weight.numel()
            for name, module in prunable(models.build("resnet50", 1000, (3, 224, 224), 0)).items()
        }
    last = [event for event in course(spec) if isinstance(event, Prune)][-1]
    skip = dict(spec.options).get("skip", ())
    left = sum(
        n * (1 if name in skip else 1 - last.layers.get(name, last.layers.get("*", last.amount)))
        for name, n in sizes.items()
    )
    return round(left), sum(sizes.values())


def test_table_2_leaves_the_classifier_and_what_is_printed():
    """ "We follow their protocol and prune all layers except the last": printed 82.70% and 4.41 M.
    To 90% without the schedule's last step it would be 82.8%."""
    for name, spec in TABLES["2"].items():
        if spec.scale == "paper":
            assert dict(spec.options) == {"skip": ("fc",)}, name
            left, total = removed(spec)
            assert total == 25_502_912 and 100 * (1 - left / total) == pytest.approx(
                82.70, abs=0.02
            )
            assert left / 1e6 == pytest.approx(4.41, abs=0.006)


@pytest.mark.parametrize("table", ["3", "S5"])
def test_tables_3_and_s5_have_gales_layers_and_what_is_printed(table):
    """ "Skipping the (input) first convolutional layer, and pruning the last fully connected layer
    to 80%. The rest of the layers are pruned to an overall target of 90%": printed 89.1% and 2.79
    M."""
    for name, spec in TABLES[table].items():
        if spec.scale == "paper":
            assert dict(spec.options) == {
                "skip": ("conv1",),
                "layer_sparsity": {"*": 0.9, "fc": 0.8},
            }, name
            left, total = removed(spec)
            assert round(100 * (1 - left / total), 1) == 89.1 and round(left / 1e6, 2) == 2.79


def test_flops_aware_cells_have_the_papers_beta():
    """Table 6: ResNet-50 at 0.30, MobileNetV1 at 0.30 and 0.35."""
    betas = sorted(
        (spec.model, dict(spec.options)["beta"])
        for (label, _), spec in PAPER.items()
        if label == "Table 6"
    )
    assert betas == [("mobilenet_v1", 0.3), ("mobilenet_v1", 0.35), ("resnet50", 0.3)]


# the cpu cells' declared scale-down: epochs in all, rate at the start, batch size, (m · b, b, c)
SMALL = {
    ("Table 1", "resnet20-one-epoch"): ("resnet50", 1, 0.01, 128, (4000, 10, 2000)),
    ("Table 1", "resnet20-ten-epochs"): ("resnet50", 10, 0.01, 128, (4000, 10, 2000)),
    ("Table 2", "resnet20-one-epoch"): ("resnet50", 1, 0.01, 128, (4000, 10, 2000)),
    ("Table 2", "resnet20-ten-epochs"): ("resnet50", 10, 0.01, 128, (4000, 10, 2000)),
    ("Table 3", "resnet20-ten-epochs"): ("resnet50", 10, 0.01, 128, (4000, 10, 2000)),
    ("Table S5", "resnet20-ten-epochs"): ("resnet50", 10, 0.01, 128, (4000, 10, 2000)),
    ("Figure S11", "resnet20-one-epoch"): ("mobilenet_v1", 1, 0.01, 128, (4000, 10, 2000)),
    ("Table 5", "lenet5"): ("mobilenet_v1", 3, 0.01, 128, (4000, 10, 10_000)),
}


@pytest.mark.parametrize(("label", "prefix"), SMALL, ids=map(" ".join, SMALL))
def test_cpu_cells_are_the_papers_course_shrunk(label, prefix):
    like, epochs, start, batch, (samples, b, c) = SMALL[label, prefix]
    cells = {
        name: spec
        for name, spec in GROUPS[label].items()
        if spec.scale == "cpu" and name.startswith(f"{prefix}-")
    }
    assert cells
    for name, spec in cells.items():
        events, part = course(spec), epochs / 100
        prunings = [event for event in events if isinstance(event, Prune)]
        assert [event.epoch for event in prunings] == pytest.approx(
            [part * epoch for epoch in EPOCHS[like]]
        ), name
        whole = {"resnet50": 39, "mobilenet_v1": 20}[like]
        assert [event.amount for event in prunings] == pytest.approx(
            [
                spec.sparsity
                + (0.05 - spec.sparsity) * (1 - (epoch - EPOCHS[like][0]) / whole) ** 3
                for epoch in EPOCHS[like]
            ]
        )
        for epoch, said in RATES[like].items():
            assert rate(events, part * (epoch + 0.5)) == pytest.approx(
                said * start / 0.005, rel=5e-4
            ), (name, epoch)
        recipes = {event.recipe for event in events if isinstance(event, Train)}
        assert {(r.momentum, r.weight_decay, r.batch_size, r.augment) for r in recipes} == {
            (0.9, 1e-4, batch, spec.model == "resnet20")
        }
        assert sum(event.epochs for event in events if isinstance(event, Train)) == pytest.approx(
            epochs
        )
        if spec.method.startswith("woodfisher"):
            assert (spec.num_samples, spec.fisher_batch_size, spec.chunk) == (samples, b, c)
        ends = {"Table 2": {"skip": ("linear",)}} | dict.fromkeys(
            ("Table 3", "Table S5"),
            {"skip": ("conv1",), "layer_sparsity": {"*": 0.9, "linear": 0.8}},
        )
        assert dict(spec.options) == ends.get(label, {})


def test_the_trace_of_resnet50_in_words():
    lines = trace(TABLES["1"]["resnet50-woodfisher-0.9-seed0"])
    assert (
        lines[1]
        == "epoch 0 to 1: train (before) at 0.005; sgd, momentum 0.9, decay 0.0001, batch 180, "
        "augmented images"
    )
    assert lines[2] == "epoch 1: prune to 5% of the weights removed by woodfisher"
    assert lines[-2] == "epoch 36: prune to 89.908% of the weights removed by woodfisher"
    assert lines[-1].startswith(
        "epoch 36 to 100: train (final) at 0.005, 0.003 from 40, 0.0018 from 46"
    )
    mobile = trace(TABLES["4"]["mobilenet-woodfisher-0.89-seed0"])[-1]
    assert mobile == (
        "epoch 24 to 100: train (final) at 0.005, 0.0046 from 30, 0.004232 from 31, 67 rates "
        "more, 1.45921e-05 from 99; "
        "sgd, momentum 0.9, decay 0.0001, batch 180, augmented images"
    )
