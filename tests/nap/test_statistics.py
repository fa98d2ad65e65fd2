"""The moving average while a network is fine-tuned, update by update by hand; a run with it that is
stopped goes on with the same.
"""

import pytest
import torch

from common.cells.spec import Recipe, Spec
from common.curvature.kron import KronEstimator
from common.data import sources as D
from common.nets import checkpoint, models
from common.nets import masks as M
from common.pruning.pruned import Pruned
from common.running import gradual, pipeline
from common.running import train as T
from nap.method import Options
from nap.statistics import Statistics, pack, unpack

TINY = {
    "model": "digits_cnn:width=0.25",
    "train": Recipe(epochs=2, lr=0.05, batch_size=64),
    "finetune": Recipe(epochs=0.5, lr=0.02, batch_size=64),
}


def start():
    data = D.load("digits")
    model = models.build("digits_cnn:width=0.25", 10, data.input_shape, 0)
    first = KronEstimator(model, fisher="empirical", bias=True)
    first.update(*next(iter(data.calibration(64))))
    return data, model, first.factors()


@pytest.mark.parametrize("every", [1, 3])
def test_the_average_is_algorithm_1s(every):
    data, model, factors = start()
    seen = []

    def spy(state):  # runs after Statistics: what one batch alone gives, on the same weights
        if state.event == "step" and (state.step - 1) % every == 0:
            alone = KronEstimator(state.model, fisher="empirical", bias=True)
            alone.update(*state.batch)
            seen.append({name: (k.A.clone(), k.G.clone()) for name, k in alone.factors().items()})

    expected = {name: [k.A.clone(), k.G.clone()] for name, k in factors.items()}
    watch = Statistics(
        Pruned(model, latent=pack(factors)),
        Options(fisher="empirical", every=every, decay=0.9),
        seed=0,
    )
    T.fit(
        model, data, Recipe(epochs=1, lr=0.05, batch_size=256, max_steps=6), callbacks=[watch, spy]
    )
    for batch in seen:
        for name, (A, G) in batch.items():
            expected[name] = [0.9 * expected[name][0] + 0.1 * A, 0.9 * expected[name][1] + 0.1 * G]
    assert len(seen) == len(range(0, 6, every))  # 1,438 images are 6 batches
    for name, k in unpack(watch.latent).items():
        # the recent part is summed in float32
        for ours, wanted in zip((k.A, k.G), expected[name], strict=True):
            torch.testing.assert_close(
                ours, wanted, rtol=1e-4, atol=1e-6 * float(wanted.abs().max())
            )


def test_what_is_not_heard_at_the_pruning_is_passed_over():
    """With decay 0.5 a bound of 0.1 leaves the last three steps' updates and 0.5³ of where the
    average stood.
    """
    latents, updates = {}, {}
    for unheard in (0.0, 0.1, 0.3):
        data, model, factors = start()
        watch = Statistics(
            Pruned(model, latent=pack(factors)), Options(decay=0.5, unheard=unheard), seed=0
        )
        T.fit(model, data, Recipe(epochs=2, lr=0.01, batch_size=256), callbacks=[watch])
        latents[unheard], updates[unheard] = unpack(watch.latent), watch.estimator.updates
    assert updates == {0.0: 12, 0.1: 4, 0.3: 2}  # 2^-3 = .125 is still above .1, 2^-4 is not
    for name, k in latents[0.0].items():
        near, far = ((latents[u][name].A - k.A).norm() / k.A.norm() for u in (0.1, 0.3))
        assert 0 < near < far < 0.3


def test_the_default_is_algorithm_1():
    """Lines 2 to 5: for t = 0, ..., T: A <- 0.95 x A + 0.05 x a aT, on the step's own minibatch;
    what is passed over weighs 0.1%.
    """
    options = Options()
    assert (options.every, options.examples, options.decay) == (
        1,
        0,
        0.95,
    ) and options.unheard <= 1e-3


def test_watching_changes_nothing_in_the_training():
    networks = []
    for watched in (False, True):
        data, model, factors = start()
        watch = Statistics(Pruned(model, latent=pack(factors)), Options(every=2), 0)
        T.fit(
            model,
            data,
            Recipe(epochs=1, lr=0.05, batch_size=64),
            callbacks=[watch] if watched else [],
        )
        networks.append(checkpoint.state_hash(model))
    assert networks[0] == networks[1]


@pytest.mark.parametrize(
    ("method", "amount"),
    [
        ("nap", {"sparsity": 0.9, "step_ratio": 0.4}),
        ("nap-channel", {"unit_ratio": 0.2, "steps": 4, "step_schedule": "constant"}),
    ],
)
def test_a_stopped_run_goes_on_with_its_statistics(method, amount, tmp_path, monkeypatch):
    def spec(folder):
        return Spec(
            method=method,
            step_epochs=0.4,
            num_samples=64,
            output_dir=str(tmp_path / folder),
            options={"every": 2},
            **amount,
            **TINY,
        )

    pipeline.prune(spec("a"))
    original, seen = gradual.tune, []

    def stops(spec, result, *rest, **how):
        if how["desc"].startswith("step 3") and not seen:
            seen.append(result.latent)
            raise KeyboardInterrupt
        return original(spec, result, *rest, **how)

    monkeypatch.setattr(gradual, "tune", stops)
    with pytest.raises(KeyboardInterrupt):
        pipeline.prune(spec("b"))
    assert any(key.endswith(".DS") for key in seen[0])
    pipeline.prune(spec("b"))
    a, b = (
        checkpoint.load(pipeline.cell_folder(spec(folder)) / "pruned.safetensors")
        for folder in "ab"
    )
    assert checkpoint.state_hash(a.model) == checkpoint.state_hash(b.model) and M.digest(
        a.masks
    ) == M.digest(b.masks)
    assert a.edits == b.edits


def test_before_the_first_pruning_the_average_begins_at_the_first_batch():
    """On the course's clock training may come first: there are no factors to start from, and all
    layers are watched."""
    data, model, _ = start()
    alone = []

    def spy(state):
        if state.event == "step" and not alone:
            one = KronEstimator(state.model, fisher="empirical", bias=True)
            one.update(*state.batch)
            alone.append(one.factors())

    watch = Statistics(Pruned(model), Options(fisher="empirical"), seed=0)
    recipe = Recipe(epochs=1, lr=0.05, batch_size=256, max_steps=1)
    T.fit(model, data, recipe, callbacks=[watch, spy])
    found = unpack(watch.latent)
    assert found.keys() == alone[0].keys() and int(watch.latent["seen"]) == 256
    for name, k in found.items():
        for ours, wanted in ((k.A, alone[0][name].A), (k.G, alone[0][name].G)):
            torch.testing.assert_close(
                ours, wanted, rtol=1e-4, atol=1e-6 * float(wanted.abs().max())
            )
