"""The training loop: resumed = uninterrupted bit for bit, schedules by value, masks held,
divergence survived.
"""

import copy
import math

import pytest
import torch
from torch import nn

from common.cells.errors import UserError
from common.cells.spec import Recipe
from common.curvature.diag import diagonal_fisher
from common.curvature.kron import kron_factors
from common.curvature.rows import gradient_rows
from common.data import sources as D
from common.nets import models
from common.nets.checkpoint import state_hash
from common.nets.flops import costs
from common.nets.surgery import channel_groups
from common.running import train as T
from tests import toy

DATA = D.load("synthetic:classes=3,samples=96")
MORE = D.load("synthetic:classes=3,samples=480")
RECIPES = {
    "sgd": Recipe(
        epochs=2.5, lr=0.05, batch_size=16, weight_decay=1e-3, schedule="cosine", augment=True
    ),
    "adam": Recipe(
        epochs=2, lr=0.01, batch_size=16, optimizer="adam", schedule="multistep", milestones=(1,)
    ),
    "adamw": Recipe(epochs=2, lr=0.01, batch_size=16, optimizer="adamw", weight_decay=0.1),
}


def network(dropout=False):
    model = models.build("digits_cnn:width=0.25", DATA.classes, DATA.input_shape, 0)
    if dropout:
        model.relu5 = nn.Sequential(nn.ReLU(), nn.Dropout(0.5))
    return model


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [1, 5, 6, 9])
@pytest.mark.parametrize("name", RECIPES)
def test_stopped_anywhere_and_resumed_ends_bit_for_bit_the_same(name, at, tmp_path, monkeypatch):
    monkeypatch.setattr(T, "SNAPSHOT_SECONDS", 0.0)
    recipe, whole = RECIPES[name], network(dropout=True)
    straight = T.fit(whole, DATA, recipe, seed=3)

    def stop(state):
        if state.event == "gradient" and state.step == at:
            raise Stop

    path = tmp_path / "snapshot.safetensors"
    with pytest.raises(Stop):
        T.fit(network(dropout=True), DATA, recipe, seed=3, snapshot=path, callbacks=[stop])
    resumed = network(dropout=True)
    torch.manual_seed(99)  # the caller's generator has no say
    fit = T.fit(resumed, DATA, recipe, seed=3, snapshot=path)
    assert state_hash(resumed) == state_hash(whole)
    strip = [{k: v for k, v in entry.items() if k != "seconds"} for entry in fit.history]
    assert strip == [
        {k: v for k, v in entry.items() if k != "seconds"} for entry in straight.history
    ]


def test_training_learns_and_leaves_the_global_generator_alone():
    model, state = network(), torch.get_rng_state()
    fit = T.fit(model, MORE, Recipe(epochs=6, lr=0.05, batch_size=16, schedule="cosine"))
    assert fit.last > 0.8 > 0.5 > fit.history[0]["accuracy"] and fit.best >= fit.last
    assert torch.equal(torch.get_rng_state(), state)
    loss, accuracy = T.evaluate(model, MORE.test_loader(7))  # another batch size, the same mean
    assert accuracy == fit.last and loss == pytest.approx(fit.history[-1]["loss"], rel=1e-5)


def test_no_epochs_means_no_steps_but_a_measurement():
    model = network()
    before = state_hash(model)
    fit = T.fit(model, DATA, Recipe(epochs=0))
    assert (
        state_hash(model) == before
        and len(fit.history) == 1
        and fit.last == T.evaluate(model, DATA.test_loader())[1]
    )


def test_steps_are_capped_and_epochs_may_be_fractions():
    steps = math.ceil(len(DATA.train) / 16)
    assert T.fit(network(), DATA, Recipe(epochs=2.5, batch_size=16)).history[-1]["steps"] == round(
        2.5 * steps
    )
    assert (
        T.fit(network(), DATA, Recipe(epochs=2.5, batch_size=16, max_steps=3)).history[-1]["steps"]
        == 3
    )


def test_learning_rates_by_value():
    rate = lambda step, **r: T.learning_rate(Recipe(lr=0.1, **r), step, 10, 40)
    assert [
        rate(s, schedule="multistep", milestones=(1, 3)) for s in (0, 9, 10, 29, 30)
    ] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])
    assert [rate(s, schedule="cosine") for s in (0, 20, 40)] == pytest.approx([0.1, 0.05, 0.0])
    assert [rate(s, schedule="exponential", gamma=0.5) for s in (0, 9, 10, 25)] == pytest.approx(
        [0.1, 0.1, 0.05, 0.025]
    )
    assert rate(39) == 0.1


def test_masks_are_held_through_the_loop_and_after_resume(tmp_path, monkeypatch):
    monkeypatch.setattr(T, "SNAPSHOT_SECONDS", 0.0)
    model = network()
    masks = {
        f"{n}.weight": torch.rand(m.weight.shape, generator=toy.generator(1)) < 0.5
        for n, m in model.named_modules()
        if isinstance(m, nn.Conv2d | nn.Linear)
    }
    seen = []

    def check(state):
        if state.event == "step":
            seen.append(all(not model.get_parameter(n)[~m].any() for n, m in masks.items()))

    T.fit(model, DATA, RECIPES["sgd"], masks, callbacks=[check], snapshot=tmp_path / "a")
    assert all(seen) and len(seen) == round(2.5 * math.ceil(len(DATA.train) / 16))


def test_divergence_stops_at_once_and_keeps_the_last_good_state():
    model = models.build("mlpnet", DATA.classes, DATA.input_shape, 0)  # no BatchNorm to save it
    good = copy.deepcopy(model.state_dict())

    def remember(state):
        if state.event == "epoch":
            good.update(copy.deepcopy(state.model.state_dict()))

    fit = T.fit(model, DATA, Recipe(epochs=50, lr=1e9, batch_size=16), callbacks=[remember])
    assert fit.diverged is not None and fit.diverged < 50
    assert all(torch.equal(value, good[name]) for name, value in model.state_dict().items())


def test_every_step_draws_noise_of_its_own_by_the_seed():
    class Noise(nn.Module):
        def forward(self, x):
            if self.training:
                drawn.append(float(torch.rand(())))
            return x

    runs = []
    for seed in (0, 0, 1):
        drawn = []
        T.fit(
            nn.Sequential(nn.Flatten(), Noise(), nn.Linear(64, DATA.classes)),
            DATA,
            Recipe(epochs=2, batch_size=16),
            seed=seed,
        )
        runs.append(drawn)
    assert runs[0] == runs[1] and len(set(runs[0] + runs[2])) == len(runs[0] + runs[2]) >= 16


def test_callbacks_see_every_event_in_order():
    events = []
    T.fit(
        network(),
        DATA,
        Recipe(epochs=1, batch_size=64),
        callbacks=[lambda s: events.append((s.event, s.step))],
    )
    steps = math.ceil(len(DATA.train) / 64)
    expected = (
        [("begin", 0)]
        + [e for i in range(steps) for e in (("gradient", i), ("step", i + 1))]
        + [("epoch", steps), ("end", steps)]
    )
    assert events == expected


def test_batchnorm_is_re_estimated_as_a_plain_average_and_nothing_else_moves():
    model = network(dropout=True)
    loader = list(DATA.train_loader(24, seed=0))
    weights = copy.deepcopy(dict(model.named_parameters()))
    assert T.recalibrate_bn(model, loader, 2) == 2
    inputs = torch.cat([model.conv1(x).detach() for x, _ in loader[:2]])
    torch.testing.assert_close(model.bn1.running_mean, inputs.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(weights[n], p) for n, p in model.named_parameters())
    assert model.training and model.bn1.momentum == 0.1
    before = copy.deepcopy(model.state_dict())
    assert T.recalibrate_bn(model, loader, 0) == 0
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_amp_trains_in_bfloat16_and_keeps_float32_weights():
    model = network()
    fit = T.fit(model, MORE, Recipe(epochs=4, lr=0.05, batch_size=16), amp=True)
    assert fit.last > 0.8 and all(p.dtype == torch.float32 for p in model.parameters())


MEASURES = {
    "evaluate": lambda model: T.evaluate(model, DATA.test_loader()),
    "top_accuracy": lambda model: T.top_accuracy(model, DATA.test_loader(), k=1),
    "recalibrate_bn": lambda model: T.recalibrate_bn(model, DATA.train_loader(16), 2),
    "costs": lambda model: costs(model, DATA.input_shape),
    "gradient_rows": lambda model: gradient_rows(model, DATA.calibration(4), 4),
    "diagonal_fisher": lambda model: diagonal_fisher(model, DATA.calibration(4)),
    "kron_factors": lambda model: kron_factors(
        model, DATA.calibration(4), generator=toy.generator()
    ),
    "channel_groups": lambda model: channel_groups(model, DATA.calibration(1).dataset[0][0][None]),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("measure", MEASURES)
def test_what_measures_a_network_leaves_its_mode_as_it_was(measure, training):
    model = network(dropout=True).train(training)
    MEASURES[measure](model)
    assert {module.training for module in model.modules()} == {training}


def test_a_snapshot_that_cannot_be_written_stops_the_training_and_one_of_no_numbers_does_not(
    tmp_path, monkeypatch
):
    """A disk that is full is said at once; weights that are no longer finite are the next
    evaluation's to tell."""
    monkeypatch.setattr(T, "SNAPSHOT_SECONDS", 0.0)
    (tmp_path / "file").write_text("no folder")
    recipe = Recipe(epochs=1, lr=0.01, batch_size=16)
    with pytest.raises(UserError, match="output_dir"):
        T.fit(network(), DATA, recipe, snapshot=tmp_path / "file" / "snapshot")
    bad = models.build("mlpnet", DATA.classes, DATA.input_shape, 0)
    path = tmp_path / "snapshot"
    fit = T.fit(bad, DATA, Recipe(epochs=3, lr=1e9, batch_size=16), snapshot=path)
    assert fit.diverged is not None


def test_the_l1_pull_is_the_gradient_of_the_penalty_on_batchnorm_scales_alone():
    """One plain step with bn_l1 = λ against autograd's on loss + λ Σ|γ|; a scale at zero stays
    unpulled, other layers do not feel it.
    """
    model, twin = network(), network()
    for net in (model, twin):
        net.bn1.weight.data[:3] = torch.tensor([-0.5, 0.0, 2.0])
    recipe = Recipe(epochs=1, max_steps=1, lr=0.1, momentum=0.0, batch_size=16, bn_l1=0.3)
    T.fit(model, DATA, recipe)
    x, y = next(iter(DATA.train_loader(16, seed=0)))
    twin.train()
    scales = [m.weight for m in twin.modules() if isinstance(m, nn.BatchNorm2d)]
    (
        nn.functional.cross_entropy(twin(x), y) + 0.3 * sum(scale.abs().sum() for scale in scales)
    ).backward()
    for (name, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs - 0.1 * theirs.grad, rtol=1e-5, atol=1e-6, msg=name)


def test_top_five_counts_labels_among_the_five_largest_and_refuses_fewer_classes():
    class Fixed(torch.nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.arange(classes, dtype=torch.float32))

        def forward(self, x):
            return x[:, :1] * self.weight  # the larger the class, the larger its output

    x = torch.ones(8, 1)
    y = torch.tensor([11, 10, 7, 6, 0, 8, 9, 3])  # of twelve classes 7 to 11 are the five largest
    assert T.top_accuracy(Fixed(12), [(x, y)]) == 5 / 8
    assert T.top_accuracy(Fixed(12), [(x[:3], y[:3]), (x[3:], y[3:])], k=1) == 1 / 8
    with pytest.raises(UserError, match="classes=5: top-5 of so few"):
        T.top_accuracy(Fixed(5), [(x, y % 5)])
