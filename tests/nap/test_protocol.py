"""Every cell at the paper's scale does what NAP's text states (Zeng et al., arXiv:2101.06608);
numbers typed from the paper.
"""

from __future__ import annotations

import pytest

from common.cells import trace
from common.cells.spec import Recipe
from common.cells.trace import Prune, Train
from common.nets.models import build
from nap.experiments import FIGURES, TABLES
from nap.method import Options

PAPER = {
    f"{label}/{name}": spec
    for group in (TABLES, FIGURES)
    for label, cells in group.items()
    for name, spec in cells.items()
    if spec.scale == "paper"
}
IMAGES = 1_281_167


def stretches(spec, stage):
    return [
        event for event in trace.course(spec) if isinstance(event, Train) and event.stage == stage
    ]


def rates(stretch, *epochs):
    return [stretch.rate(epoch) for epoch in epochs]


def test_these_are_all_the_cells_at_the_papers_scale():
    assert set(PAPER) == {
        "1/vgg16-5.4x-paper",
        "1/resnet50-2.3x-paper",
        "4/alexnet-25x-paper",
        "4/vgg16-25x-paper",
        "4/resnet50-6.7x-paper",
        "5/vgg16-p0.5-T0.1-paper",
        "5/vgg16-p1-T0.2-paper",
        "5/vgg16-p2-T0.4-paper",
        "5/vgg16-p5-T1-paper",
        "5/vgg16-p10-T2-paper",
    }


@pytest.mark.parametrize("name", PAPER)
def test_of_every_cell(name):
    """App. D: "we first pretrain models"; "For all experiments, we use SGD with momentum of 0.9".
    Sec. 3.2: "a decay factor of 0.95 in all experiments". Algorithm 1, lines 2 to 5: every step
    updates A and DS. ImageNet ILSVRC-2012."""
    spec = PAPER[name]
    # a named dense network, never an untrained one
    assert spec.checkpoint and spec.train == Recipe() and spec.dataset == "imagenet"
    for stretch in (e for e in trace.course(spec) if isinstance(e, Train)):
        assert (stretch.recipe.optimizer, stretch.recipe.momentum, stretch.recipe.augment) == (
            "sgd",
            0.9,
            True,
        )
    options = Options(**{k: tuple(v) if isinstance(v, list) else v for k, v in spec.options})
    # footnote 5: the model's labels
    assert (options.decay, options.every, options.examples, options.fisher) == (
        0.95,
        1,
        0,
        "sampled",
    )


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("4/alexnet-25x-paper", [50, 25, 12.5, 6.25, 5, 4]),
        ("4/vgg16-25x-paper", [50, 25, 12.5, 6.25, 5, 4]),
        ("4/resnet50-6.7x-paper", [50, 30, 25, 20, 15]),
    ],
)
def test_single_weights_go_in_the_stated_steps(name, kept):
    """App. D: "we prune AlexNet and VGG16 iteratively to 50%, 25%, 12.5%, 6.25%, 5%, 4%", "ResNet50
    to 50%, 30%, 25%, 20%, 15%".
    """
    prunings = [event for event in trace.course(PAPER[name]) if isinstance(event, Prune)]
    assert [100 * (1 - p.amount) for p in prunings] == pytest.approx(kept)
    assert (
        len(stretches(PAPER[name], "between")) == len(kept) - 1
        and len(stretches(PAPER[name], "final")) == 1
    )
    # Table 4's compression
    assert 1 / (1 - PAPER[name].sparsity) == pytest.approx({4: 25, 15: 6.7}[kept[-1]], abs=0.05)


def test_alexnet_and_vgg_are_retrained_by_the_pre_trainings_schedule_after_each_pruning():
    """App. D: "After each pruning, we retrain the network with the same learning schedule as in the
    pre-training, with slightly lower weight decay (2e-4)". Caffe's AlexNet: batch 256, 0.01, a
    tenth every 100,000 of 450,000 iterations."""
    for stretch in [
        *stretches(PAPER["4/alexnet-25x-paper"], "between"),
        *stretches(PAPER["4/alexnet-25x-paper"], "final"),
    ]:
        assert (stretch.recipe.weight_decay, stretch.recipe.batch_size, stretch.clock) == (
            2e-4,
            256,
            0,
        )
        assert stretch.epochs * IMAGES / 256 == pytest.approx(450_000, rel=1e-3)
        assert rates(stretch, 0, 19.9, 20, 40, 60, 80, 89.9) == pytest.approx(
            [1e-2, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-6]
        )
    assert abs(20 * IMAGES / 256 - 100_000) < 200
    for stretch in [
        *stretches(PAPER["4/vgg16-25x-paper"], "between"),
        *stretches(PAPER["4/vgg16-25x-paper"], "final"),
    ]:
        assert (stretch.recipe.weight_decay, stretch.recipe.batch_size, stretch.epochs) == (
            2e-4,
            256,
            74,
        )
        # its authors drop it three times
        assert rates(stretch, 0, 73) == pytest.approx([1e-2, 1e-5])


def test_resnet50_is_tuned_at_one_small_rate():
    """App. D: "The fine-tune learning schedule is simply use 1e-4 and train until the model
    converges".
    """
    spec = PAPER["4/resnet50-6.7x-paper"]
    for stretch in [*stretches(spec, "between"), *stretches(spec, "final")]:
        assert rates(stretch, 0, stretch.epochs - 0.1) == [1e-4, 1e-4] and stretch.epochs >= 30


@pytest.mark.parametrize(
    ("name", "p", "T", "speedup"),
    [
        ("1/vgg16-5.4x-paper", 0.01, 0.2, 5.4),
        ("1/resnet50-2.3x-paper", 0.01, 0.2, 2.3),
        ("5/vgg16-p0.5-T0.1-paper", 0.005, 0.1, 5.4),
        ("5/vgg16-p1-T0.2-paper", 0.01, 0.2, 5.4),
        ("5/vgg16-p2-T0.4-paper", 0.02, 0.4, 5.4),
        ("5/vgg16-p5-T1-paper", 0.05, 1, 5.4),
        ("5/vgg16-p10-T2-paper", 0.1, 2, 5.4),
    ],
)
def test_channels_go_by_p_of_what_is_left_every_T_epochs(name, p, T, speedup):
    """App. D: "we remove 1% of the remaining channels from a pre-trained model, and fine-tune 0.2
    epoch between two subsequent pruning ... until 5.4x"; Table 5's pairs. "1e-3 as the initial
    learning rate, decay to 1e-4 at 20 epochs and stop at 30 epochs. The weight decay term is set to
    0. For ResNet, ... 1e-3, decay by 10 at 10 epochs and 20 epochs, and stop at 30 epochs"."""
    spec = PAPER[name]
    assert spec.method == "nap-channel" and spec.speedup == speedup
    prunings = [event for event in trace.course(spec) if isinstance(event, Prune)]
    assert {round(event.amount, 6) for event in prunings} == {p} and len(prunings) == 400
    assert [e.epoch for e in prunings[:3]] == pytest.approx([0, T, 2 * T], abs=1e-3)
    (last,) = stretches(spec, "final")
    assert last.epochs == 30
    if "vgg16" in name:
        assert last.recipe.weight_decay == 0 and rates(last, 0, 19.9, 20, 29.9) == pytest.approx(
            [1e-3, 1e-3, 1e-4, 1e-4]
        )
    else:
        assert rates(last, 0, 9.9, 10, 19.9, 20, 29.9) == pytest.approx(
            [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5]
        )
    assert any(f"{speedup:g} times fewer MACs" in line for line in trace.stops(spec))


def test_alexnet_is_caffes():
    """Table 6's layers: 35K, 307K, 885K, 663K, 442K, 38M, 17M, 4M, 61M in all."""
    import torch

    with torch.device("meta"):
        model = build("alexnet:columns=2", 1000, (3, 224, 224))
    weights = [
        m.weight.numel()
        for m in model.modules()
        if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)
    ]
    assert (
        weights == [34_848, 307_200, 884_736, 663_552, 442_368, 37_748_736, 16_777_216, 4_096_000]
        and sum(weights) == 60_954_656
    )


def test_the_cells_that_stand_for_stale_statistics_are_named():
    """Algorithm 1 updates at every step; a cell that does not says so in its options, and the ones
    of Figs. 5, 6 and Table 5 have a sibling that does."""
    for label, cells in (("5", FIGURES["5"]), ("6", FIGURES["6"]), ("table 5", TABLES["5"])):
        for name, spec in cells.items():
            if spec.scale == "cpu" and not name.endswith("-every-step"):
                assert dict(spec.options)["every"] > 1, (label, name)
                assert (
                    not {"every", "examples"} & dict(cells[f"{name}-every-step"].options).keys()
                ), (label, name)
