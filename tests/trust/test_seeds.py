"""A seed decides its part, anew wherever it is drawn from, and the process's generator has no say.

test_determinism.py asks the parts one by one; here whole runs are asked, and the papers' studies.
"""

import pytest
import torch

from common.cells.spec import Recipe, Spec
from common.curvature.kron import kron_factors
from common.curvature.labels import losses
from common.data import sources as D
from common.nets import checkpoint, models
from common.nets import masks as M
from common.pruning import baselines
from common.pruning.pruned import Pruned
from common.running import gradual, pipeline
from common.running import train as T
from lobs import dns
from nap.method import Options as NAPOptions
from nap.statistics import Statistics, pack
from tests import toy
from woodfisher import dpf
from woodfisher.studies import choice, gradients, parts

DIGITS = D.load("digits")
GRADUAL = Spec(
    model="digits_cnn:width=0.25",
    train=Recipe(epochs=0.5, lr=0.05, batch_size=128),
    finetune=Recipe(epochs=0.5, lr=0.02, batch_size=128, augment=True),
    method="obd-global",
    num_samples=60,
    sparsity=0.8,
    steps=3,
    step_epochs=0.25,
    recalibrate_bn=2,
)


def network(seed=0):
    return models.build("digits_cnn:width=0.25", 10, (1, 8, 8), seed)


def differ(*values):
    """Whether no two are alike."""
    return len(set(values)) == len(values)


def bits(x):
    return x.numpy().tobytes()


@pytest.mark.parametrize("augment", [False, True])
def test_every_epoch_has_an_order_and_crops_of_its_own(augment):
    """The images of an epoch, in their order: the epochs of two seeds are four orders, and the same
    seed gives the same again."""
    runs, data = [], D.load("synthetic:classes=3,samples=60")
    data.train.crop = 1
    recipe = Recipe(epochs=2, lr=0.01, batch_size=10, augment=augment)
    for seed in (0, 0, 1):
        seen = []
        T.fit(
            models.build("digits_cnn:width=0.25", 3, data.input_shape, 0),
            data,
            recipe,
            seed=seed,
            callbacks=[lambda s: s.event == "step" and seen.append(s.batch[0])],  # noqa: B023
        )
        runs.append([torch.cat(seen[:6]), torch.cat(seen[6:])])
    assert all(torch.equal(*pair) for pair in zip(*runs[:2], strict=True))
    assert differ(*(bits(epoch) for run in (runs[0], runs[2]) for epoch in run))
    if augment:  # image by image, too: an order of its own with the same crops would not do
        images = [{bits(image) for image in epoch} for run in (runs[0], runs[2]) for epoch in run]
        assert all(one != other for i, one in enumerate(images) for other in images[:i])
    else:  # an epoch has every image once
        assert {bits(x) for x in runs[0][0]} == {bits(x) for x in runs[0][1]}


def test_every_part_of_a_gradual_run_is_drawn_by_the_runs_seed(tmp_path, monkeypatch):
    """Calibration images, the images that BatchNorm is re-estimated on and the seeds of the
    trainings: those of two runs are all different, but for the dense network, which they share.
    """
    drawn, fits = [], []
    calibration, recalibrate, fit = D.Data.calibration, T.recalibrate_bn, T.fit

    def images(loader):
        return tuple(i for batch in loader.batch_sampler for i in batch)

    def draw(self, num_samples, *rest, **named):
        loader = calibration(self, num_samples, *rest, **named)
        if num_samples == GRADUAL.num_samples:
            drawn.append(images(loader))
        return loader

    def again(model, loader, batches):
        estimated.append(images(loader))
        return recalibrate(model, loader, batches)

    def trained(*arguments, seed=0, **how):
        fits.append((how["desc"].split()[0], seed))
        return fit(*arguments, seed=seed, **how)

    monkeypatch.setattr(D.Data, "calibration", draw)
    monkeypatch.setattr(T, "recalibrate_bn", again)
    monkeypatch.setattr(T, "fit", trained)
    orders = []
    for seed in (0, 1):
        estimated = []
        pipeline.finetune(GRADUAL.but(output_dir=str(tmp_path), seed=seed))
        assert len(estimated) == 3
        orders.append(estimated)
    assert len(drawn) == 6 and differ(*drawn)
    assert not set(orders[0]) & set(orders[1])
    assert [seed for what, seed in fits if what == "train"] == [0]
    for what, count in (("step", 4), ("fine-tune", 2)):
        seeds = [seed for name, seed in fits if name == what]
        assert len(seeds) == count and differ(*seeds)


def test_a_dense_network_is_its_own_seeds(tmp_path):
    """The weights that it begins with and the order of its images are the dense seed's, which its
    record names; the seed of the cell that asked for it has no say."""
    spec = GRADUAL.but(output_dir=str(tmp_path))
    plain, asked, other = (
        pipeline.train(one) for one in (spec, spec.but(seed=5), spec.but(dense_seed=7))
    )
    assert plain.dense_hash == asked.dense_hash != other.dense_hash
    assert other.provenance["seed"] == 7 == other.spec["dense_seed"] and "-seed7-" in other.id
    model, data = network(7), DIGITS
    T.fit(model, data, spec.train, seed=7)
    assert checkpoint.state_hash(model) == other.dense_hash


def test_a_record_names_the_seed_of_its_stage(tmp_path):
    spec = GRADUAL.but(output_dir=str(tmp_path), steps=1, step_epochs=0.0, seed=3, dense_seed=2)
    pipeline.finetune(spec)
    for verb, seed in (("train", 2), ("prune", 3), ("finetune", 3)):
        assert pipeline.VERBS[verb](spec).provenance["seed"] == seed


# -- label draws -----------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_sampled_labels_are_the_generators(loss):
    """The same generator draws the same whatever was drawn from the process's own, which it leaves
    alone; another draws otherwise, and so does the same one next."""
    output = torch.randn(50, 4, generator=toy.generator(9), requires_grad=True)
    y = torch.zeros(50, dtype=torch.long) if loss == "cross_entropy" else torch.zeros(50, 4)

    def gradient(generator):
        (value,) = losses(output, y, "sampled", loss, generator)
        return bits(torch.autograd.grad(value, output)[0])

    torch.manual_seed(1)
    before, first = torch.get_rng_state(), toy.generator(3)
    one, following = gradient(first), gradient(first)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert gradient(toy.generator(3)) == one
    assert differ(one, following, gradient(toy.generator(4)))


def test_labels_of_mse_are_drawn_from_a_unit_gaussian():
    """With y = f + noise the gradient in f is minus the noise: of 20,000 numbers the mean is within
    3% of zero and the second moment within 4% of one, four deviations each."""
    output = torch.zeros(5_000, 4, requires_grad=True)
    (value,) = losses(output, output.detach(), "sampled", "mse", toy.generator(0))
    noise = torch.autograd.grad(value, output)[0]
    assert abs(float(noise.mean())) < 0.03 and float(noise.square().mean()) == pytest.approx(
        1, abs=0.04
    )


def test_nap_draws_the_labels_of_its_statistics_by_seed_and_step():
    """On one batch and unchanged weights factors differ by the labels alone: those of another seed
    and of another step are others, the same seed's are the same again. The average forgets at once.
    """
    layer, batch = ["fc2"], next(iter(DIGITS.calibration(64)))
    found = []
    for seed in (0, 0, 1):
        model = network()
        factors = kron_factors(
            model,
            [batch],
            {name: model.get_submodule(name) for name in layer},
            bias=True,
            generator=toy.generator(),
        )
        watch = Statistics(
            Pruned(model, latent=pack(factors)), NAPOptions(decay=1e-9, unheard=0.0), seed=seed
        )
        state = T.State(model, None, DIGITS, Recipe(), 1, 2)
        for step, event in ((0, "begin"), (1, "step"), (2, "step")):
            state.event, state.step, state.batch = event, step, batch
            watch(state)
            if event == "step":
                found.append(watch.estimator.factors()["fc2"].G)
    one, same, other = found[:2], found[2:4], found[4:]
    assert all(torch.equal(*pair) for pair in zip(one, same, strict=True))
    draws = [*one, *other]
    for i, a in enumerate(draws):
        assert all(float((a - b).norm() / a.norm()) > 0.01 for b in draws[:i])


# -- methods that draw -----------------------------------------------------------------------------


def removed_at_random(seed):
    model = network()
    return baselines.random(model, [], 0.5, baselines.ScopeOptions(), toy.generator(seed))


def surgery(seed):
    options = dns.Options(steps=12, batch_size=32, interval=3)
    loader = list(DIGITS.calibration(96, 32))
    return dns.prune(network(), loader, 0.5, options, toy.generator(seed))


@pytest.mark.parametrize("prune", [removed_at_random, surgery])
def test_a_method_that_draws_draws_by_its_generator(prune):
    torch.manual_seed(1)
    one, other = prune(3), prune(4)
    torch.manual_seed(2)
    assert M.digest(prune(3).masks) == M.digest(one.masks) != M.digest(other.masks)


def test_dpf_trains_by_its_seed():
    found = []
    for seed in (0, 0, 1):
        model = network()
        dpf.train(model, DIGITS, Recipe(epochs=0.5, lr=0.05, batch_size=128), 0.5, seed=seed)
        found.append(checkpoint.state_hash(model))
    assert found[0] == found[1] != found[2]


# -- studies ---------------------------------------------------------------------------------------


def test_the_studies_of_woodfishers_choice_have_other_images_for_another_seed(monkeypatch):
    model, asked = network().eval(), []
    real = choice.gradient_rows

    def rows(model, loader, *rest, **named):
        asked.append(tuple(i for batch in loader.batch_sampler for i in batch))
        return real(model, loader, *rest, **named)

    monkeypatch.setattr(choice, "gradient_rows", rows)
    for seed in (0, 1):
        list(choice.choices(model, DIGITS, (0.5,), (), seed, rows=((6, 2),), chunks=(50,)))
    assert len(asked) == 2 and differ(*asked)


def test_every_row_of_the_study_of_gradients_that_is_drawn_is_drawn_by_its_seed():
    """All kinds but those that no seed decides: held-out images are given, and the hardest are the
    hardest."""
    model, held = network().eval(), [next(iter(DIGITS.test_loader(6)))]
    found = [
        {
            what: tuple(parts.lengths(rows).tolist())
            for what, rows in gradients.sources(model, DIGITS, held, seed, 6)
        }
        for seed in (0, 0, 1)
    ]
    assert found[0] == found[1]
    same = {what for what in found[0] if found[0][what] == found[2][what]}
    assert same == {"held-out images", "images of highest loss"}


def test_between_two_prunings_statistics_are_given_the_trainings_seed(tmp_path, monkeypatch):
    """gradual.tune hands its seed on to the method's statistics."""
    seeds, real = [], gradual.registry.load_statistics

    def load(method):
        make = real(method)
        return make and (
            lambda result, options, seed: seeds.append(seed) or make(result, options, seed)
        )

    monkeypatch.setattr(gradual.registry, "load_statistics", load)
    for seed in (0, 1):
        pipeline.prune(
            GRADUAL.but(
                output_dir=str(tmp_path), method="nap", seed=seed, recalibrate_bn=0, steps=3
            )
        )
    assert len(seeds) == 4 and differ(*seeds)
