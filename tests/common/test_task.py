"""Networks of every kind of task: what is sampled has the exact Fisher as its mean, batches of any
form give the numbers of the plain one, and what does not fit is refused in one line."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.cells.errors import UserError
from common.curvature.diag import diagonal_fisher
from common.curvature.kron import input_hessian, kron_factors
from common.curvature.labels import mean_loss
from common.curvature.metric import Meter
from common.curvature.moving import MovingKron
from common.curvature.rows import gradient_rows
from common.data.task import Calibration, Inputs, Task, joined
from common.nets import layers as L
from common.running import train as T
from tests import reference, toy


def kinds():
    return list(toy.tasks())


def of(kind):
    """(loss, network, inputs, labels)."""
    return kind.split(",")[0].split(" of")[0], *toy.tasks()[kind]


def estimates(model, data, fisher="empirical"):
    """Every estimate that reads labels, flat, by what it is called."""
    found = {f"rows {n}": v for n, v in gradient_rows(model, data, 4, fisher="empirical").items()}
    found |= {f"diagonal {n}": v for n, v in diagonal_fisher(model, data, fisher=fisher).items()}
    for name, kron in kron_factors(model, data, fisher=fisher).items():
        found |= {f"A {name}": kron.A, f"G {name}": kron.G}
    return found | {f"moment {n}": v for n, v in input_hessian(model, data).items()}


@pytest.mark.parametrize("kind", kinds())
def test_sampled_labels_have_the_gauss_newton_matrix_as_their_mean(kind):
    loss, model, x, y = of(kind)
    draws = 400
    data = Calibration([(x, y)] * draws, Task(loss))
    rows = gradient_rows(model, data, 4 * draws, fisher="sampled", generator=toy.generator())
    for name, module in L.prunable(model).items():
        truth = reference.gauss_newton(model, module, x, y, loss)
        found = rows[name].T @ rows[name] / len(rows[name])
        assert float((found - truth).norm()) < 0.16 * float(truth.norm()), name


class Fields(nn.Module):
    """A network of a task that is called with names and gives a dict."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, image, scale=None):
        return {"logits": self.net(image)}


class Raw(Fields):
    """The same without a usual name."""

    def forward(self, image, scale=None):
        return {"values": self.net(image), "aux": None}


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("form", ["dicts", "triples", "forward", "own loss"])
def test_batches_of_another_form_give_the_same_numbers(kind, form):
    loss, model, x, y = of(kind)
    wanted = estimates(model, Calibration([(x[:3], y[:3]), (x[3:], y[3:])], Task(loss)))
    parts = [slice(0, 3), slice(3, 4)]
    net, task = Fields(model), Task(loss)
    batches = [{"image": x[p], "labels": y[p]} for p in parts]
    if form == "triples":
        batches = [(x[p], torch.ones(len(x[p])), y[p]) for p in parts]
    if form == "forward":
        net = Raw(model)
        task = Task(loss, lambda m, batch: m(batch["image"])["values"])
    if form == "own loss":
        net = Raw(model)
        task = Task(
            lambda output, batch: reference.loss_of_example(
                output["values"][0], batch["labels"][0], loss
            )
        )
    found = estimates(net, Calibration(batches, task))
    for key, value in wanted.items():
        what, name = key.split(" ")
        torch.testing.assert_close(found[f"{what} net.{name}"], value, rtol=1e-10, atol=1e-14)


def test_the_moving_average_reads_the_task_too():
    loss, model, x, y = of("cross_entropy of positions")
    data = list(Calibration([(x, y)], Task(loss)))
    estimator = MovingKron(model, decay=0.5, fisher="empirical")
    estimator.update(*data[0])
    wanted = kron_factors(model, data, fisher="empirical")
    for name, kron in estimator.factors().items():
        torch.testing.assert_close(kron.G, wanted[name].G)


def test_a_loss_of_ones_own_may_be_a_mean_a_sum_or_a_number_an_example():
    _, model, x, y = of("cross_entropy")
    wanted = gradient_rows(model, [(x, y)], 4)
    for loss in (
        lambda output, batch: F.cross_entropy(output, batch[1]),
        lambda output, batch: F.cross_entropy(output, batch[1], reduction="sum"),
        lambda output, batch: F.cross_entropy(output, batch[1], reduction="none"),
    ):
        rows = gradient_rows(model, Calibration([(x, y)], Task(loss)), 4)
        for name, value in wanted.items():
            torch.testing.assert_close(rows[name], value)


@pytest.mark.parametrize("fisher", ["sampled", "exact"])
def test_a_loss_of_ones_own_has_no_distribution(fisher):
    _, model, x, y = of("cross_entropy")
    data = Calibration([(x, y)], Task(lambda output, batch: F.cross_entropy(output, batch[1])))
    with pytest.raises(UserError, match="use fisher=empirical, or a loss by name") as caught:
        diagonal_fisher(model, data, fisher=fisher, generator=toy.generator())
    assert "\n" not in str(caught.value)


def test_positions_without_a_label_count_nowhere():
    """They may hold anything: the gradients are those of the text without them."""
    _, model, x, y = of("language_model")
    data = Calibration([(x, y)], Task("language_model"))
    for fisher in ("empirical", "exact"):
        wanted = diagonal_fisher(model, data, fisher=fisher)
        assert all(value.any() for value in wanted.values())
        none = Calibration([(x, torch.full_like(y, -100))], Task("language_model"))
        with pytest.raises(ArithmeticError, match="every gradient is zero"):
            diagonal_fisher(model, none, fisher=fisher)
    logits = model(x)
    loss = T.evaluate(model, data)[0]
    each = [F.cross_entropy(logits[i].detach(), y[i], ignore_index=-100) for i in range(4)]
    assert loss == pytest.approx(float(sum(each)) / 4)
    right = [(logits[i].argmax(-1) == y[i])[y[i] != -100] for i in range(4)]
    assert T.evaluate(model, data)[1] == pytest.approx(float(torch.cat(right).double().mean()))


def test_whole_numbers_stay_whole():
    data = Calibration(
        [{"ids": torch.arange(6).reshape(2, 3), "labels": torch.zeros(2)}], Task("mse")
    )
    ((x, _),) = list(data)
    assert x.to("cpu").content["ids"].dtype == torch.int64


WRONG = {
    "loss": (lambda x, y: Task("hinge"), "loss='hinge': unknown; choose one of: cross_entropy"),
    "labels of positions": (
        lambda x, y: gradient_rows(
            nn.Sequential(nn.Conv2d(2, 3, 3)).double(), Calibration([(x, y)], Task()), 4
        ),
        "are not one number a position",
    ),
    "tokens": (
        lambda x, y: gradient_rows(
            toy.seeded(toy.Tokens()),
            Calibration([(torch.zeros(4, 6).long(), torch.zeros(4, 6).long())], Task()),
            4,
        ),
        "take the loss language_model",
    ),
    "binary column": (
        lambda x, y: gradient_rows(
            nn.Sequential(nn.Flatten(), nn.Linear(50, 1)).double(),
            Calibration([(x, y > 1)], Task("binary")),
            4,
        ),
        r"give y.unsqueeze\(-1\)",
    ),
    "no probability": (
        lambda x, y: gradient_rows(
            nn.Sequential(nn.Flatten(), nn.Linear(50, 1)).double(),
            Calibration([(x, y[:, None] * 3)], Task("binary")),
            4,
        ),
        r"binary takes labels in \[0, 1\]",
    ),
    "exact of many": (
        lambda x, y: diagonal_fisher(
            nn.Sequential(nn.Conv2d(2, 500, 3)).double(),
            Calibration([(x, torch.zeros(4, 3, 3).long())], Task()),
            fisher="exact",
        ),
        "an output of 4,500 numbers takes as many backward passes",
    ),
    "dict without labels": (
        lambda x, y: list(Calibration([{"image": x}], Task())),
        r"a batch has no labels; give them under one of labels, label.*loss_fn",
    ),
    "no number": (
        lambda x, y: gradient_rows(
            toy.small_net(), Calibration([(x, y)], Task(lambda output, batch: output)), 4
        ),
        "what it gives for one example, and no number",
    ),
    "lengths": (
        lambda x, y: joined([Inputs({"x": torch.zeros(2, n)}, Task()) for n in (3, 4)]),
        "pad all batches to one length",
    ),
    "rows": (
        lambda x, y: list(Calibration([{"x": x, "z": x[:2], "y": y}], Task())),
        "not one number of examples",
    ),
    "metric": (
        lambda x, y: T.evaluate(
            toy.small_net(), Calibration([(x, y)], Task(metric=lambda output, batch: output))
        ),
        "and no number",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_does_not_fit_is_refused_in_one_line(kind):
    make, message = WRONG[kind]
    with pytest.raises(UserError, match=message) as caught:
        make(*toy.batch(4))
    assert "\n" not in str(caught.value)


def measured(task, *batches):
    meter = Meter()
    for output, batch in batches:
        x, y = task.canonical(batch)
        meter.add(output, x, y)
    return meter.value()


def test_metrics_are_over_the_whole_set():
    g = toy.generator(3)
    y, noise = torch.randn(7, 2, generator=g), 0.1 * torch.randn(7, 2, generator=g)
    f = y + noise
    r2 = 1 - float(noise.square().sum() / (y - y.mean(0)).square().sum())
    parts = [(f[:4], (y[:4], y[:4])), (f[4:], (y[4:], y[4:]))]
    assert measured(Task("mse"), *parts) == pytest.approx(r2, abs=1e-6)
    z, b = torch.tensor([[1.0], [-2.0], [3.0]]), torch.tensor([[1.0], [1.0], [0.0]])
    assert measured(Task("binary"), (z, (z, b))) == pytest.approx(1 / 3)
    own = Task("mse", metric=lambda output, batch: float((output - batch[1]).abs().mean()))
    assert measured(own, *parts) == pytest.approx(float(noise.abs().mean()), rel=1e-5)
    free = Task(lambda output, batch: (output - batch[1]).square().mean())
    assert measured(free, *parts) == pytest.approx(-float(noise.square().mean()), rel=1e-5)


@pytest.mark.parametrize("kind", kinds())
def test_training_lowers_the_loss_of_every_task(kind):
    """The same mean loss that curvature is about."""
    loss, model, x, y = of(kind)
    ((inputs, targets),) = list(Calibration([(x, y)], Task(loss)))
    first, _ = T.evaluate(model, [(inputs, targets)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        mean_loss(model(x), targets, Task(loss)).backward()
        optimizer.step()
    assert T.evaluate(model, [(inputs, targets)])[0] < first
