"""The only training loop, with evaluation and BatchNorm re-estimation.

A run is decided by (model, data, recipe, seed): the order of epoch e comes from (seed, e), and
whatever randomness a step draws (dropout) from (seed, step), so a run that was stopped anywhere and
resumed ends bit for bit where it would have.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from common.cells.errors import UserError
from common.cells.schedule import learning_rate
from common.cells.spec import Recipe
from common.curvature.labels import mean_loss
from common.curvature.metric import Meter
from common.data.batches import batches as pairs
from common.data.sources import Data
from common.data.task import Inputs, task_of
from common.nets import checkpoint
from common.nets.assumptions import call, output_of, prediction
from common.nets.masks import Hold, Masks
from common.system import distributed
from common.system.progress import progress

SNAPSHOT_SECONDS = 30.0
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
log = logging.getLogger(__name__)


@dataclass
class State:
    """What a callback sees. event: begin | gradient (after backward, before the step) | step |
    epoch | end | diverged (the last epoch's weights are back)."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    data: Data
    recipe: Recipe
    steps_per_epoch: int
    total: int
    clock: int = 0  # steps that the recipe's rates are ahead of `step`
    # steps of the recipe's rates in all; `total` where the two clocks are one
    whole: int = 0
    event: str = "begin"
    step: int = 0
    batch: tuple[Tensor | Inputs, Tensor | Inputs] | None = None
    loss: float = math.nan
    hold: Hold | None = None
    history: list[dict] = field(default_factory=list)


Callback = Callable[[State], None]


@dataclass
class Fit:
    """history: one entry an epoch {epoch, steps, train_loss, loss, accuracy, seconds}, the first
    before training. diverged: the step whose loss was not finite (the model is then the last good
    one), or None. moments: the optimiser's state at the end, for a `fit` that goes on; none after a
    divergence."""

    history: list[dict]
    diverged: int | None = None
    moments: dict[str, Tensor] = field(default_factory=dict)

    @property
    def last(self) -> float:
        """Accuracy at the end, on the images that judge (Data.judge_loader)."""
        return self.history[-1]["accuracy"]

    @property
    def best(self) -> float:
        """Best accuracy of any epoch on the images that judge: without images held out these are
        the test set's, as in the papers.
        """
        return max(entry["accuracy"] for entry in self.history)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over all parameters."""
    extra = (
        {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
        if recipe.optimizer == "sgd"
        else {}
    )
    return OPTIMIZERS[recipe.optimizer](
        model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, **extra
    )


def moments_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimiser remembers of each parameter: "<parameter name>/<its own key>" -> tensor,
    copied.
    """
    return {
        f"{name}/{key}": value.detach().clone()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if torch.is_tensor(value)
    }


def _recall(
    model: nn.Module, optimizer: torch.optim.Optimizer, moments: Mapping[str, Tensor]
) -> None:
    """The inverse of `moments_of`. A parameter that surgery has given another shape starts anew."""
    parameters = dict(model.named_parameters())
    for name, value in moments.items():
        owner, _, key = name.rpartition("/")
        parameter = parameters.get(owner)
        if parameter is not None and (value.dim() == 0 or value.shape == parameter.shape):
            optimizer.state[parameter][key] = value.to(
                parameter.device if value.dim() else "cpu", copy=True
            )


def fit(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    hold: Masks | None = None,
    callbacks: Sequence[Callback] = (),
    *,
    seed: int = 0,
    amp: bool = False,
    snapshot: Path | None = None,
    before: tuple[float, float] | None = None,
    clock: tuple[float, float] | None = None,
    moments: Mapping[str, Tensor] | None = None,
    desc: str = "training",
) -> Fit:
    """Train `model` in place, keeping the weights that `hold` masks at zero.

    amp: bfloat16 autocast. snapshot: a file that is rewritten every half minute and epoch, from
    which a killed run goes on; the caller removes it once the result is safe. before: (test loss,
    accuracy) of the start, where it is known. clock: (epochs at which the recipe's rates begin,
    epochs of those rates in all), for a stretch of a longer course; by default the rates are this
    run's own. moments: of the `fit` that this one goes on from, whose momentum it keeps. Under
    torchrun every process trains on its share of each batch, and the mean over the batch is what
    one process would take, to rounding; BatchNorm normalises each share by itself.
    """
    device = next(model.parameters()).device
    steps_per_epoch = math.ceil(len(data.train) / recipe.batch_size)
    total = round(recipe.epochs * steps_per_epoch)
    total = min(total, recipe.max_steps) if recipe.max_steps else total
    optimizer = make_optimizer(model, recipe)
    judged = "test" if data.valid is None else "held out"
    _recall(model, optimizer, moments or {})
    ahead, whole = (round(epochs * steps_per_epoch) for epochs in clock) if clock else (0, total)
    state = State(
        model,
        optimizer,
        data,
        recipe,
        steps_per_epoch,
        total,
        ahead,
        whole,
        hold=Hold(model, hold) if hold else None,
    )
    loss_sum, elapsed, good = _resume(state, snapshot)
    if state.hold:
        state.hold(optimizer)
    if not state.history:
        loss, accuracy = before or evaluate(model, data.judge_loader())
        state.history.append(
            {
                "epoch": 0,
                "steps": 0,
                "train_loss": None,
                "loss": loss,
                "accuracy": accuracy,
                "seconds": 0.0,
            }
        )
    # a quarter faster convolutions; the numbers are the same to rounding
    model.to(memory_format=torch.channels_last)
    network = _parallel(model, device)
    _tell(callbacks, state, "begin")
    good = good or copy.deepcopy(model.state_dict())  # of the last epoch whose numbers were finite
    started = saved = time.monotonic()
    with (
        progress(total=total, desc=desc, unit="step") as bar,
        torch.random.fork_rng(devices=_cuda(device)),
    ):
        bar.update(state.step)
        while state.step < total:
            epoch, skip = divmod(state.step, steps_per_epoch)
            loader = data.train_loader(
                recipe.batch_size,
                seed=seed * 100_003 + epoch,
                augment=recipe.augment,
                rank=distributed.rank(),
                world=distributed.world(),
            )
            for index, (x, y) in enumerate(loader):
                if index < skip:
                    continue
                if state.step >= total:
                    break
                size = min(recipe.batch_size, len(data.train) - index * recipe.batch_size)
                share = distributed.share(size)
                _step(network, state, x.to(device), y.to(device), share, amp, seed, callbacks)
                if not math.isfinite(state.loss):
                    return _diverged(state, good, callbacks, desc)
                loss_sum += state.loss
                bar.update(1)
                # at an epoch's end its evaluation comes first
                inside = state.step < total and state.step % steps_per_epoch
                if snapshot and inside and time.monotonic() - saved > SNAPSHOT_SECONDS:
                    _save(snapshot, state, loss_sum, elapsed + time.monotonic() - started, good)
                    saved = time.monotonic()
            loss, accuracy = evaluate(model, data.judge_loader())
            if not math.isfinite(loss):  # the epoch's last step was the bad one
                state.loss = loss
                return _diverged(state, good, callbacks, desc)
            seconds = elapsed + time.monotonic() - started
            done = state.step - (state.history[-1]["steps"] if len(state.history) > 1 else 0)
            state.history.append(
                {
                    "epoch": round(state.step / steps_per_epoch, 4),
                    "steps": state.step,
                    "train_loss": loss_sum / done,
                    "loss": loss,
                    "accuracy": accuracy,
                    "seconds": round(seconds, 3),
                }
            )
            bar.set_postfix_str(f"{judged} {100 * accuracy:.2f}%", refresh=False)
            loss_sum, good = 0.0, copy.deepcopy(model.state_dict())
            _tell(callbacks, state, "epoch")
            if snapshot and time.monotonic() - saved > 1.0:
                _save(snapshot, state, loss_sum, seconds)
                saved = time.monotonic()
    model.to(memory_format=torch.contiguous_format)
    _tell(callbacks, state, "end")
    return Fit(state.history, moments=moments_of(model, optimizer))


def _diverged(
    state: State, good: dict[str, Tensor], callbacks: Sequence[Callback], desc: str
) -> Fit:
    """Put the last good epoch back and stop."""
    state.model.load_state_dict(good)
    state.model.to(memory_format=torch.contiguous_format)
    _tell(callbacks, state, "diverged")
    log.warning(
        "%s: loss is %s at step %d; the state of the last epoch is kept",
        desc,
        state.loss,
        state.step,
    )
    return Fit(state.history, diverged=state.step)


def _step(
    network: nn.Module,
    state: State,
    x: Tensor,
    y: Tensor,
    share: float,
    amp: bool,
    seed: int,
    callbacks: Sequence[Callback],
) -> None:
    """One optimiser step. share: of the batch, which this process's examples are."""
    rate = learning_rate(state.recipe, state.step + state.clock, state.steps_per_epoch, state.whole)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    torch.manual_seed(seed * 1_000_003 + state.step)
    network.train()
    state.batch = (x, y)
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=amp):
        output = output_of(network, x)
        whole = amp and torch.is_tensor(output)
        loss = mean_loss(output.float() if whole else output, y, task_of(x))
    seen = loss.detach() * share
    # so that all processes see one loss, and stop together where it is not finite
    distributed.add_up([seen])
    state.loss = float(seen)
    if not math.isfinite(state.loss):
        return
    state.optimizer.zero_grad(set_to_none=True)
    # DistributedDataParallel takes the plain mean over the processes
    (loss * (share * distributed.world())).backward()
    if state.recipe.bn_l1:
        _pull_scales(state.model, state.recipe.bn_l1)
    _tell(callbacks, state, "gradient")
    state.optimizer.step()
    if state.hold:
        state.hold(state.optimizer)
    state.step += 1
    _tell(callbacks, state, "step")


@torch.no_grad()
def _pull_scales(model: nn.Module, strength: float) -> None:
    """Add the subgradient of strength · Σ|γ| over BatchNorm scales γ (Liu et al. 2017, Eq. 1)."""
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.affine:
            norm.weight.grad.add_(norm.weight.sign(), alpha=strength)


def _tell(callbacks: Sequence[Callback], state: State, event: str) -> None:
    state.event = event
    for callback in callbacks:
        callback(state)


def _cuda(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


def _parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """The model itself, or its DistributedDataParallel wrapper under torchrun."""
    if distributed.world() == 1:
        return model
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def _save(
    path: Path, state: State, loss_sum: float, elapsed: float, good: dict[str, Tensor] | None = None
) -> None:
    """A snapshot; within an epoch with the weights that the last one ended with. Weights that are
    no longer finite are not kept: the next step or evaluation sees it."""
    if distributed.rank() == 0:
        extra = {
            "step": state.step,
            "history": state.history,
            "loss_sum": loss_sum,
            "elapsed": elapsed,
            "threads": torch.get_num_threads(),
        }
        try:
            checkpoint.save_state(path, state.model, state.optimizer, extra, good)
        except UserError as error:
            if error.field != "checkpoint":
                raise


def _resume(state: State, path: Path | None) -> tuple[float, float, dict[str, Tensor]]:
    """Put a snapshot's state back; (running loss sum, seconds spent, weights of the last epoch if
    other than the snapshot's).
    """
    if path is None or not path.exists():
        return 0.0, 0.0, {}
    good: dict[str, Tensor] = {}
    extra = checkpoint.load_state(path, state.model, state.optimizer, good)
    try:
        state.step, state.history = extra["step"], extra["history"]
        log.info("resuming at step %d of %d", state.step, state.total)
        if (before := extra.get("threads")) not in (None, torch.get_num_threads()):
            log.warning(
                "the first steps were taken with %s threads, the rest are with %d: the result is "
                "bit for bit neither's",
                before,
                torch.get_num_threads(),
            )
        return extra["loss_sum"], extra["elapsed"], good
    except (KeyError, TypeError):
        raise UserError(
            "checkpoint", path.name, "is no snapshot of a training run", "delete it to begin again"
        ) from None


@torch.no_grad()
def evaluate(model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """(mean loss, the task's metric) in evaluation mode; by default accuracy as a fraction."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    loss, count, meter = 0.0, 0, Meter()
    for x, y in pairs(loader):
        x, y = x.to(device), y.to(device)
        output = output_of(model, _channels_last(x))
        loss += float(mean_loss(output, y, task_of(x))) * len(y)
        meter.add(output, x, y)
        count += len(y)
    model.train(training)
    if not count:
        raise UserError("data", 0, "no batch was seen", "give at least one example")
    return loss / count, meter.value()


@torch.no_grad()
def top_accuracy(model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]], k: int = 5) -> float:
    """The fraction of examples whose label is among the `k` largest outputs, in evaluation mode.
    Raises UserError for as many classes as `k` or fewer, where every example would count."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    found, count = 0, 0
    for x, y in pairs(loader):
        output = prediction(call(model, _channels_last(x.to(device))), type(model).__name__)
        if output.shape[1] <= k:
            raise UserError(
                "classes",
                output.shape[1],
                f"top-{k} of so few says nothing",
                f"it needs more than {k} classes",
            )
        found += int((output.topk(k, 1).indices == y.to(device)[:, None]).sum())
        count += len(y)
    model.train(training)
    if not count:
        raise UserError("data", 0, "no batch was seen", "give at least one example")
    return found / count


def _channels_last(x: Tensor | Inputs) -> Tensor | Inputs:
    """Images as convolutions take them fastest on a CPU, a third here; the numbers are the same to
    rounding.
    """
    images = torch.is_tensor(x) and x.dim() == 4
    return x.contiguous(memory_format=torch.channels_last) if images else x


@torch.no_grad()
def recalibrate_bn(model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]], batches: int) -> int:
    """Re-estimate every BatchNorm's running statistics as the plain average over `batches` batches;
    weights do not move.

    Everything but BatchNorm stays in evaluation mode. Returns how many batches were used; 0 leaves
    all as it was. Raises UserError for a loader without a batch.
    """
    norms = [
        m
        for m in model.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    if not norms or batches < 1:
        return 0
    training, momenta, device = (
        model.training,
        [norm.momentum for norm in norms],
        next(model.parameters()).device,
    )
    used, before = 0, [copy.deepcopy(norm.state_dict()) for norm in norms]
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        while used < batches:
            for x, _ in loader:
                call(model, x.to(device))
                used += 1
                if used == batches:
                    break
            if not used:
                for norm, state in zip(norms, before, strict=True):
                    norm.load_state_dict(state)
                raise UserError("data", 0, "no batch was seen", "give at least one example")
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(training)
    return used
