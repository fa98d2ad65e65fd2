"""On the course's clock the optimiser keeps its momentum across prunings, as in one run that prunes
on its way.
"""

import dataclasses

import pytest
import torch

from common.cells.spec import Recipe, Spec
from common.data import sources as D
from common.nets import checkpoint, models
from common.pruning.pruned import Pruned
from common.running import pipeline, stages
from common.running import train as T

# a step an epoch, over all images
WHOLE = Recipe(epochs=6, lr=0.05, momentum=0.9, weight_decay=1e-3, batch_size=1_438)
NOTHING = Spec(
    model="digits_cnn:width=0.25",
    train=Recipe(epochs=1, lr=0.05),
    method="magnitude-global",
    sparsity=0.0,
    levels=(0.0,),
    clock="course",
    first_epoch=4,
    finetune=WHOLE,
)


def test_a_pruning_of_nothing_leaves_the_run_as_if_it_had_not_been(tmp_path):
    """Four steps, the pruning, two steps: the weights of six steps. Without the momentum they are
    others.
    """
    spec = NOTHING.but(output_dir=str(tmp_path))
    pipeline.finetune(spec)
    through = checkpoint.load(pipeline.cell_folder(spec) / "finetuned.safetensors").model
    data = D.load("digits")

    def trained(*stretches):
        model = checkpoint.load(pipeline.dense_folder(spec) / "model.safetensors").model
        for epochs in stretches:
            T.fit(model, data, dataclasses.replace(WHOLE, epochs=epochs))
        return model

    def distance(model):
        return max(
            float((a - b).detach().abs().max())
            for a, b in zip(through.parameters(), model.parameters(), strict=True)
        )

    assert distance(trained(6)) < 1e-4 < 30 * 1e-4 < distance(trained(4, 2))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_two_fits_with_moments_are_one(optimizer):
    data, recipe = (
        D.load("digits"),
        dataclasses.replace(WHOLE, optimizer=optimizer, lr=0.01, epochs=4),
    )
    one, two = (models.build("digits_cnn:width=0.25", 10, data.input_shape, 0) for _ in range(2))
    T.fit(one, data, recipe)
    half = dataclasses.replace(recipe, epochs=2)
    first = T.fit(two, data, half)
    assert first.moments and all(torch.isfinite(value).all() for value in first.moments.values())
    T.fit(two, data, half, moments=first.moments)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


def test_moments_travel_in_a_checkpoint_beside_latent_weights_and_masked_ones_are_zero():
    latent, moments = {"a.weight": torch.ones(2)}, {"a.weight/momentum_buffer": torch.zeros(2)}
    told = stages.recalled_tensors(
        stages.kept_tensors(Pruned(torch.nn.Linear(1, 1), latent=latent, moments=moments))
    )
    assert told == {"latent": latent, "moments": moments}
    data = D.load("digits")
    model = models.build("digits_cnn:width=0.25", 10, data.input_shape, 0)
    first = T.fit(model, data, dataclasses.replace(WHOLE, epochs=1))
    mask = torch.rand_like(model.conv1.weight) < 0.5
    later = T.fit(
        model,
        data,
        dataclasses.replace(WHOLE, epochs=1),
        {"conv1.weight": mask},
        moments=first.moments,
    )
    buffer = later.moments["conv1.weight/momentum_buffer"]
    assert not buffer[~mask].any() and buffer[mask].any()


def test_a_parameter_of_another_shape_starts_anew():
    model = torch.nn.Linear(3, 2)
    optimizer = T.make_optimizer(model, WHOLE)
    T._recall(
        model,
        optimizer,
        {
            "weight/momentum_buffer": torch.ones(2, 4),
            "bias/momentum_buffer": torch.ones(2),
            "gone.weight/momentum_buffer": torch.ones(1),
        },
    )
    assert set(T.moments_of(model, optimizer)) == {"bias/momentum_buffer"}


def test_on_the_interval_clock_momentum_starts_anew(tmp_path):
    spec = NOTHING.but(
        output_dir=str(tmp_path),
        clock="interval",
        first_epoch=0.0,
        levels=(0.1, 0.2),
        sparsity=0.2,
        step_epochs=1,
        finetune=dataclasses.replace(WHOLE, epochs=1),
    )
    pipeline.prune(spec)
    assert not checkpoint.load(pipeline.cell_folder(spec) / "pruned.safetensors").extra_tensors
