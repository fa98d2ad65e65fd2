"""DPF: steps on the dense weights with gradients of the masked ones, by hand; masks and what comes
back.
"""

import copy

import pytest
import torch
from torch import nn

from common.cells.errors import UserError
from common.cells.spec import Recipe, Spec
from common.curvature.labels import mean_loss
from common.data import sources as D
from common.nets import checkpoint, models
from common.nets import masks as M
from common.running import gradual as loop
from common.running import pipeline
from common.running.train import fit
from woodfisher import dpf


def test_three_steps_by_hand():
    data = D.load("synthetic:samples=64,size=2")
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4, bias=False))
    recipe = Recipe(epochs=1, lr=0.5, momentum=0.9, batch_size=16, max_steps=3)
    torch.manual_seed(0)
    nn.init.normal_(model[1].weight)
    w = model[1].weight.detach().clone()
    velocity = torch.zeros_like(w)
    feedback = dpf.Feedback(lambda progress: 0.5, dpf.Options(every=2))

    def masked(weight):
        keep = torch.zeros(16, dtype=torch.bool)
        keep[weight.abs().flatten().argsort(stable=True)[8:]] = True
        return keep.reshape(4, 4)

    keep = masked(w)
    for step, (x, y) in enumerate(data.train_loader(16, seed=0), start=1):
        if step > 3:
            break
        at = (w * keep).requires_grad_()
        gradient = torch.autograd.grad(mean_loss(x.flatten(1) @ at.T, y), at)[0]
        velocity = 0.9 * velocity + gradient
        w = w - 0.5 * velocity
        keep = masked(w) if step in (2, 3) else keep
    fit(model, data, recipe, callbacks=[feedback])
    torch.testing.assert_close(feedback.latent["1.weight"], w)
    assert torch.equal(feedback.masks["1.weight"], keep)
    torch.testing.assert_close(model[1].weight.detach(), w * keep)


def test_weights_come_back_and_the_end_is_exact():
    data = D.load("digits")
    model = models.build("digits_cnn:width=0.25", 10, data.input_shape, 0)
    seen = []
    feedback = dpf.Feedback(lambda progress: 0.8, dpf.Options(every=1))
    watch = lambda state: (
        seen.append(copy.deepcopy(feedback.masks)) if state.event == "step" else None
    )
    fit(model, data, Recipe(epochs=1, lr=0.2, max_steps=6), callbacks=[feedback, watch])
    assert any(not M.nested(later, earlier) for earlier, later in zip(seen, seen[1:]))
    result, masks = dpf.train(model, data, Recipe(epochs=1, lr=0.05, max_steps=6), 0.9)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int((~mask).sum()) for mask in masks.values()) == round(0.9 * total)
    assert (
        all(not model.get_parameter(name)[~mask].any() for name, mask in masks.items())
        and len(result.history) == 2
    )


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: dpf.Options(every=0), "every"),
        (lambda: dpf.train(None, None, Recipe(), 0.5, ramp=0), "ramp"),
    ],
)
def test_bad_input(make, field):
    with pytest.raises(UserError, match=field):
        make()


def gradual(folder, **changes):
    settings = {
        "method": "dpf",
        "sparsity": 0.8,
        "steps": 3,
        "step_schedule": "linear",
        "step_epochs": 0.5,
        "options": {"every": 4},
        "model": "digits_cnn:width=0.25",
        "train": Recipe(epochs=1, lr=0.05),
        "finetune": Recipe(epochs=0.5, lr=0.2, batch_size=32),
    }
    return Spec(output_dir=str(folder), **settings | changes)


def test_a_gradual_run_goes_on_from_the_dense_weights_wherever_it_was_stopped(
    tmp_path, monkeypatch
):
    straight, stopped = gradual(tmp_path / "a"), gradual(tmp_path / "b")
    record, original, seen = pipeline.finetune(straight), loop.tune, []

    def fails_at_the_second(spec, result, *rest, **how):
        if how["desc"] == "step 2 of 3" and not seen:
            seen.append((result.masks, result.latent))
            raise KeyboardInterrupt
        return original(spec, result, *rest, **how)

    monkeypatch.setattr(loop, "tune", fails_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        pipeline.prune(stopped)
    masks, latent = seen[0]
    assert any(weight[~masks[name]].any() for name, weight in latent.items())  # masked, and alive
    pipeline.finetune(stopped)
    a, b = (
        checkpoint.load(pipeline.cell_folder(spec) / "finetuned.safetensors")
        for spec in (straight, stopped)
    )
    assert checkpoint.state_hash(a.model) == checkpoint.state_hash(b.model) and M.digest(
        a.masks
    ) == M.digest(b.masks)
    before = checkpoint.load(pipeline.cell_folder(straight) / "pruned.safetensors").masks
    assert not M.nested(a.masks, before)  # some came back in the final training too
    assert {layer["name"]: layer["kept"] for layer in record.layers} == {
        name.removesuffix(".weight"): int(mask.sum()) for name, mask in a.masks.items()
    }
    assert record.achieved["kept_params"] == sum(int(mask.sum()) for mask in a.masks.values())


def test_masks_and_latent_weights_stay_together_when_training_diverges():
    data = D.load("digits")
    model = models.build("digits_cnn:width=0.25", 10, data.input_shape, 0)
    feedback = dpf.Feedback(lambda progress: 0.5, dpf.Options(every=1))

    def poison(state):
        if state.event == "step" and state.step == 30:
            feedback.latent["conv1.weight"].fill_(float("nan"))

    result = fit(model, data, Recipe(epochs=2, lr=0.05), callbacks=[feedback, poison])
    assert result.diverged is not None and len(result.history) == 2
    for name, weight in feedback.latent.items():
        assert torch.equal(model.get_parameter(name), weight * feedback.masks[name])


def test_equal_norms_takes_the_gradient_at_the_masked_weights_grown_to_the_dense_norm():
    """With batch normalization behind a convolution its masked weights may be scaled freely: the
    loss is the same, and the gradient that `equal_norms` steps with is the one at the grown
    weights."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, bias=False),
        nn.BatchNorm2d(6, eps=1e-12),
        nn.Flatten(),
        nn.Linear(6 * 36, 10),
    ).double()
    x, y = torch.randn(32, 1, 8, 8, dtype=torch.float64), torch.arange(32) % 10
    dense = dpf.weights(model)
    keep = dpf.largest(dense, {"0": 0.7, "3": 0.5}, dpf.Options())
    norm = dense["0.weight"].norm()

    def gradients(grown):
        again = copy.deepcopy(model)
        M.apply(again, keep)
        with torch.no_grad():
            again[0].weight.mul_(norm / again[0].weight.norm() if grown else 1.0)
        loss = mean_loss(again(x), y)
        loss.backward()
        return loss.item(), again

    (plain_loss, plain), (grown_loss, grown) = gradients(False), gradients(True)
    assert plain_loss == pytest.approx(grown_loss, rel=1e-6)
    assert plain[0].weight.grad.norm() > 1.05 * grown[0].weight.grad.norm()
    linear = plain[3].weight.grad.clone()
    dpf._rescale(plain, dense)
    torch.testing.assert_close(plain[0].weight.grad, grown[0].weight.grad)
    assert torch.equal(plain[3].weight.grad, linear)


def test_a_record_tells_the_norms_of_the_dense_weights_at_each_pruning(tmp_path):
    spec = gradual(tmp_path, options={"every": 4, "equal_norms": True})
    record = pipeline.prune(spec)
    start = dpf.weights(checkpoint.load(pipeline.dense_folder(spec) / "model.safetensors").model)
    norms = [entry["latent_norms"] for entry in record.trajectory]
    assert norms[0] == pytest.approx(
        {name: float(weight.norm()) for name, weight in start.items()}, abs=1e-4
    )
    end = checkpoint.load(pipeline.cell_folder(spec) / "pruned.safetensors").extra_tensors
    assert norms[-1] == pytest.approx(
        {name: float(weight.norm()) for name, weight in end.items()}, abs=1e-4
    )
    assert norms[0] != norms[1]


def test_on_the_course_training_is_plain_until_the_first_pruning(tmp_path):
    """No weight is masked before it, and the end has as many as were asked for, wherever the masks
    went meanwhile.
    """
    spec = gradual(
        tmp_path,
        steps=1,
        step_schedule="cubic",
        levels=(0.3, 0.8),
        clock="course",
        first_epoch=0.5,
        finetune=Recipe(epochs=2, lr=0.1, batch_size=32),
    )
    record = pipeline.finetune(spec)
    assert record.achieved["sparsity"] == pytest.approx(0.8, abs=1e-3)
    plain = pipeline.prune(spec.but(method="magnitude-global", options={}))
    assert pipeline.prune(spec).trajectory[0]["pruned"] == plain.trajectory[0]["pruned"]
