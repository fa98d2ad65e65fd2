"""EigenDamage against dense rotations: scores, bottlenecks, projections, merged bases, cells, and a
fresh process.
"""

import copy
import functools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from common.cells.errors import UserError
from common.cells.spec import Recipe, Spec
from common.curvature.kron import kron_factors
from common.nets import checkpoint, models
from common.nets.surgery import apply_edits
from common.running import pipeline
from eigendamage import experiments, method, ours
from eigendamage.bottleneck import factors_of, is_bottleneck, place, rotatable
from eigendamage.depthwise import joined, separate
from eigendamage.ours import folded, product
from tests import toy

ROOT = Path(__file__).resolve().parents[2]
KINDS = [kind for kind in toy.CONVOLUTIONS if kind != "grouped"]


def estimate(model, data, layers, factor, seed=0):
    return kron_factors(
        model,
        data,
        layers,
        fisher="sampled",
        channel_only=factor == "channel",
        generator=toy.generator(seed),
    )


@pytest.mark.parametrize("factor", ["channel", "patch"])
@pytest.mark.parametrize("kind", ["padded", "strided", "1x1", "oblong"])
def test_theta_is_the_diagonal_of_the_rotated_fisher(kind, factor):
    """Θ = ½ w'² diag(Rᵀ F R) for the dense F = S ⊗ A (⊗ I over the offsets), R = Q_S ⊗ Q_A (⊗
    I).
    """
    model, data = toy.conv_head(kind), [toy.batch(6)]
    conv = model[0]
    f = estimate(model, data, {"0": conv}, factor)["0"]
    layer = method.rotate(conv.weight, f)
    eye = torch.eye(layer.W.shape[2], dtype=torch.float64)
    fisher = torch.kron(f.G[0], torch.kron(f.A[0], eye))
    R = torch.kron(layer.QS.contiguous(), torch.kron(layer.QA.contiguous(), eye))
    rotated = R.T @ fisher @ R
    w = R.T @ conv.weight.detach().flatten()
    expected = (0.5 * w.square() * rotated.diagonal()).reshape(layer.W.shape).sum(2)
    torch.testing.assert_close(layer.theta, expected, rtol=1e-9, atol=1e-12)
    assert (rotated - torch.diag(rotated.diagonal())).abs().max() < 1e-10 * rotated.abs().max()


@pytest.mark.parametrize("factor", ["channel", "patch"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [False, True])
def test_a_full_bottleneck_is_the_layer_and_a_part_is_a_projection(kind, factor, bias):
    model = toy.conv_head(kind, bias)
    (x, _), conv = (data := [toy.batch(6)])[0], model[0]
    layer = method.rotate(conv.weight, estimate(model, data, {"0": conv}, factor)["0"])
    full, part = copy.deepcopy(model), copy.deepcopy(model)
    place(full, "0", factors_of(conv, layer.QA, layer.W, layer.QS))
    torch.testing.assert_close(full(x), model(x), rtol=0, atol=1e-10)
    QA, QS = layer.QA[:, 1:], layer.QS[:, [0, 2, 3]]
    place(part, "0", factors_of(conv, QA, layer.W[[0, 2, 3]][:, 1:], QS))
    W = conv.weight.detach().reshape(4, len(layer.QA), -1)
    with torch.no_grad():
        conv.weight.copy_(
            torch.einsum("os,oip,ij->sjp", QS @ QS.T, W, QA @ QA.T).reshape(conv.weight.shape)
        )
    torch.testing.assert_close(part(x), model(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("factor", ["channel", "patch"])
@pytest.mark.parametrize("name", ["digits_cnn", "lenet300", "resnet20"])
def test_the_pruned_network_projects_each_weight_onto_what_was_kept(name, factor):
    """End to end, with the bases read off the pruned network itself; the prediction is Θ outside
    the kept rows and columns.
    """
    model = toy.seeded(models.build(name, 3, (1, 16, 16), 0))
    x, y = toy.batch(12, (1, 16, 16))
    result = method.prune(
        model,
        [(x, y)],
        0.6 if factor == "channel" else 0.9,
        method.Options(factor=factor),
        toy.generator(),
    )
    twin, predicted = copy.deepcopy(model), 0.0
    modules = rotatable(model)
    f = estimate(model, [(x, y)], modules, factor)
    for layer_name, module in modules.items():
        new = result.model.get_submodule(layer_name)
        assert is_bottleneck(new) or any(
            note.startswith(f"{layer_name}: left dense") for note in result.notes
        )
        if not is_bottleneck(new):
            continue
        PA, PS = (
            q.T @ q
            for q in (new.first.weight.detach().flatten(1), new.last.weight.detach().flatten(1).T)
        )
        W = module.weight.detach().reshape(len(PS), len(PA), -1)
        projected = torch.einsum("os,oip,ij->sjp", PS, W, PA)
        twin.get_submodule(layer_name).weight.data.copy_(projected.reshape(module.weight.shape))
        lost = (
            method.rotate(module.weight, f[layer_name]).theta.sum()
            - method.rotate(projected, f[layer_name]).theta.sum()
        )
        predicted += float(lost)
        assert new.last.bias is None or torch.equal(new.last.bias, module.bias)
    assert any(map(is_bottleneck, result.model.modules()))
    torch.testing.assert_close(result.model(x), twin(x), rtol=1e-8, atol=1e-10)
    assert result.predicted_increase == pytest.approx(predicted, rel=1e-6)
    head = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)][-1]
    assert isinstance(result.model.get_submodule(head), nn.Linear)


@pytest.mark.parametrize("factor", ["channel", "patch"])
@pytest.mark.parametrize("kind", KINDS)
def test_folding_a_basis_into_the_core_changes_nothing_but_the_count(kind, factor):
    """Every shape of what is kept: the same output as three layers, and the fewest weights of the
    three ways.
    """
    model, data = toy.conv_head(kind, bias=True), [toy.batch(6)]
    layer = method.rotate(model[0].weight, estimate(model, data, {"0": model[0]}, factor)["0"])
    for r, a in ((1, 1), (4, 1), (1, len(layer.QA)), (4, len(layer.QA)), (2, 2)):
        weights = factors_of(model[0], layer.QA[:, :a], layer.W[:r, :a], layer.QS[:, :r])
        three, fewer = copy.deepcopy(model), copy.deepcopy(model)
        place(three, "0", weights)
        place(fewer, "0", folded(weights))
        torch.testing.assert_close(fewer(data[0][0]), three(data[0][0]), rtol=0, atol=1e-10)
        first, core, last = (w.numel() for w in weights)
        offsets, (out, width) = layer.W.shape[2], (4, len(layer.QA))
        ways = [first + core + last, first + out * a * offsets, r * width * offsets + last]
        assert sum(w.numel() for w in folded(weights)) == min(ways)
        assert offsets > 1 or min(ways) < ways[0]


@pytest.mark.parametrize("name", ["digits_cnn", "lenet300", "preresnet29"])
def test_a_folded_network_is_the_projected_one_smaller_and_can_be_pruned_again(name):
    """Low ratios remove something; the layers' products predict the loss that Θ says; edits rebuild
    both steps.
    """
    model = toy.seeded(models.build(name, 3, (1, 16, 16), 0))
    data = [toy.batch(12, (1, 16, 16))]
    plain = method.prune(model, data, 0.4, method.Options(), toy.generator())
    once = ours.prune(model, data, 0.4, ours.Options(fold=True), toy.generator())
    count = lambda m: sum(p.numel() for p in m.parameters())
    assert count(once.model) < count(plain.model)
    dense = lambda result: sum("left dense" in note for note in result.notes)
    assert dense(once) <= dense(plain)
    modules, twin, predicted = rotatable(model), copy.deepcopy(model), 0.0
    f = estimate(model, data, modules, "channel")
    for layer_name, module in modules.items():
        new = once.model.get_submodule(layer_name)
        if isinstance(new, nn.Sequential):
            W = functools.reduce(
                lambda right, left: product(left, right), [part.weight.detach() for part in new]
            )
            twin.get_submodule(layer_name).weight.data.copy_(W)
            predicted += float(
                method.rotate(module.weight, f[layer_name]).theta.sum()
                - method.rotate(W, f[layer_name]).theta.sum()
            )
    torch.testing.assert_close(once.model(data[0][0]), twin(data[0][0]), rtol=1e-8, atol=1e-10)
    assert once.predicted_increase == pytest.approx(predicted, rel=1e-6)
    twice = ours.prune(once.model, data, 0.6, ours.Options(fold=True), toy.generator())
    assert count(twice.model) < count(once.model)
    again = copy.deepcopy(model)
    apply_edits(again, once.edits + twice.edits)
    again.load_state_dict(twice.model.state_dict())
    assert torch.equal(again(data[0][0]), twice.model(data[0][0]))
    with pytest.raises(UserError, match="one of fold and depthwise"):
        ours.Options(fold=True, depthwise=True)


@pytest.mark.parametrize("name", ["digits_cnn", "lenet300"])
def test_a_second_pruning_merges_its_bases_and_replays(name):
    """Eq. 16: still three layers each, bases still orthonormal, smaller; all edits rebuild the
    network.
    """
    model = toy.seeded(models.build(name, 3, (1, 8, 8), 0))
    data = [toy.batch(16, (1, 8, 8))]
    once = method.prune(model, data, 0.7, method.Options(), toy.generator())
    twice = method.prune(once.model, data, 0.9, method.Options(), toy.generator())
    sizes = [sum(p.numel() for p in m.parameters()) for m in (once.model, twice.model)]
    assert sizes[1] < sizes[0]
    bottlenecks = {n: m for n, m in twice.model.named_modules() if is_bottleneck(m)}
    assert bottlenecks and not any(is_bottleneck(part) for m in bottlenecks.values() for part in m)
    for m in bottlenecks.values():
        for q in (m.first.weight.flatten(1), m.last.weight.flatten(1).T):
            torch.testing.assert_close(
                q @ q.T, torch.eye(len(q), dtype=torch.float64), rtol=0, atol=1e-10
            )
    again = copy.deepcopy(model)
    apply_edits(again, once.edits + twice.edits)
    again.load_state_dict(twice.model.state_dict())
    assert torch.equal(again(data[0][0]), twice.model(data[0][0]))


def test_a_full_rank_merge_changes_nothing():
    model, data = toy.conv_head("strided", bias=True), [toy.batch(6)]
    x = data[0][0]
    for _ in range(2):
        name = "0"
        target = model[0].core if is_bottleneck(model[0]) else model[0]
        expected = model(x)
        layer = method.rotate(target.weight, estimate(model, data, {name: target}, "channel")[name])
        place(model, name, factors_of(target, layer.QA, layer.W, layer.QS))
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-10)


def test_a_patch_wide_basis_does_not_meet_a_core_with_a_kernel():
    model, data = toy.seeded(models.build("digits_cnn", 3, (1, 8, 8), 0)), [toy.batch(8, (1, 8, 8))]
    once = method.prune(model, data, 0.6, method.Options(), toy.generator())
    with pytest.raises(UserError, match="factor='patch'.*kernel of its own"):
        method.prune(once.model, data, 0.5, method.Options(factor="patch"), toy.generator())


def test_separation_finds_what_is_separable_and_its_error_never_grows():
    """Eq. 18: exact for a sum of few separable terms and for a single offset; more sweeps are never
    worse.
    """
    g = toy.generator(4)
    U, D, V = (torch.randn(n, 2, generator=g, dtype=torch.float64) for n in (2, 9, 5))
    W = joined(U, D, V)
    torch.testing.assert_close(joined(*separate(W, 500)), W, rtol=0, atol=1e-6)
    W = torch.randn(4, 6, 9, generator=g, dtype=torch.float64)
    torch.testing.assert_close(joined(*separate(W[..., :1], 0)), W[..., :1], rtol=0, atol=1e-12)
    errors = [
        float((joined(*separate(W, sweeps)) - W).square().sum()) for sweeps in (0, 1, 2, 5, 20)
    ]
    assert (
        all(later <= earlier + 1e-12 for earlier, later in zip(errors, errors[1:]))
        and errors[-1] < errors[0]
    )


def test_depthwise_cores_compute_the_separated_weight_replay_and_are_not_rotated_again():
    model, data = toy.seeded(models.build("digits_cnn", 3, (1, 8, 8), 0)), [toy.batch(8, (1, 8, 8))]
    x = data[0][0]
    plain = method.prune(model, data, 0.6, method.Options(), toy.generator())
    result = method.prune(model, data, 0.6, method.Options(depthwise=True), toy.generator())
    cores = [
        m.core for m in result.model.modules() if is_bottleneck(m) and isinstance(m.core, nn.Conv2d)
    ]
    assert cores and all(core.groups == core.out_channels == core.in_channels for core in cores)
    assert result.predicted_increase > plain.predicted_increase
    again, twin = copy.deepcopy(model), copy.deepcopy(model)
    apply_edits(again, result.edits)
    again.load_state_dict(result.model.state_dict())
    assert torch.equal(again(x), result.model(x))
    for name, m in result.model.named_modules():
        if is_bottleneck(m) and isinstance(m.core, nn.Conv2d):
            first, last = m.first.weight[..., 0, 0], m.last.weight[..., 0, 0]
            twin.get_submodule(name).weight.data.copy_(
                torch.einsum("oq,qhw,qi->oihw", last, m.core.weight[:, 0], first)
            )
        elif is_bottleneck(m):
            twin.get_submodule(name).weight.data.copy_(
                m.last.weight @ m.core.weight @ m.first.weight
            )
    torch.testing.assert_close(result.model(x), twin(x), rtol=1e-8, atol=1e-10)
    with pytest.raises(UserError, match="bottleneck already"):
        method.prune(plain.model, data, 0.5, method.Options(depthwise=True), toy.generator())


# every kind of edit: slices, maps, three factors, two, a depthwise core, merged bases
EVERY_WAY = {
    "nn-slimming": {"method": "nn-slimming"},
    "kron-obs": {"method": "kron-obs"},
    "union": {"method": "c-obd", "options": {"coupling": "union"}},
    "eigendamage": {"method": "eigendamage"},
    "folded": {"method": "eigendamage", "options": {"fold": True}},
    "depthwise": {"method": "eigendamage", "options": {"depthwise": True}},
    "cp": {"method": "cp"},
    "iterative": {
        "method": "eigendamage",
        "steps": 2,
        "step_schedule": "constant",
        "step_epochs": 0.2,
    },
}


@pytest.mark.slow
def test_a_saved_network_is_the_same_in_a_fresh_process(tmp_path):
    """To the bit, with one thread in both, whatever the surgery was."""
    base = Spec(
        paper="eigendamage",
        unit_ratio=0.5,
        num_samples=64,
        output_dir=str(tmp_path),
        model="digits_cnn:width=0.5",
        train=Recipe(epochs=1, lr=0.05),
        finetune=Recipe(epochs=0),
    )
    paths, x = {}, torch.randn(3, 1, 8, 8, generator=toy.generator())
    for name, settings in EVERY_WAY.items():
        spec = base.but(**settings)
        record = pipeline.prune(spec)
        paths[name] = str(pipeline.cell_folder(spec) / "pruned.safetensors")
        assert record.achieved["model_params"] < record.achieved["dense_model_params"]
        assert (record.loss["predicted_increase"] or 0) > 0 or name in (
            "nn-slimming",
            "cp",
            "iterative",
        )
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import torch; from common.nets import checkpoint; torch.set_num_threads(1); x = "
        f"torch.load({str(tmp_path / 'x.pt')!r}); "
        "torch.save({n: checkpoint.load(p).model.eval()(x).detach() for n, p in "
        f"{paths!r}.items()}}, {str(tmp_path / 'y.pt')!r})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
    there, threads = torch.load(tmp_path / "y.pt"), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        for name, path in paths.items():
            assert torch.equal(there[name], checkpoint.load(path).model.eval()(x)), name
    finally:
        torch.set_num_threads(threads)


def test_every_cell_is_well_formed_and_has_a_folder_of_its_own():
    groups = experiments.TABLES | {
        f"figure {label}": cells for label, cells in experiments.FIGURES.items()
    }
    cells = [(table, name, spec) for table, group in groups.items() for name, spec in group.items()]
    assert len({(pipeline.cell_folder(spec)) for *_, spec in cells}) == len(cells)
    for table, name, spec in cells:
        assert (spec.table, spec.cell, spec.paper) == (table, name, "eigendamage")
        pipeline.method_of(spec)
        models.MODELS[spec.model.partition(":")[0]]
    count = lambda table, scale: sum(spec.scale == scale for spec in groups[table].values())
    # 460 of the paper, the released form of two criteria on four networks, two data sets, two
    # ratios, five runs, and dense controls
    assert (
        count("1", "paper") == 460 + 2 * 4 * 2 * 2 * 5 + 4 * 2
        and count("2", "paper") == 30 + 2 * 5 + 1
    )
    # 150 steps coupled; 150, 782 and ten epochs with the union
    networks = {"cpu": 75, "cpu150": 40, "cpu782": 20, "cpu10": 69}
    assert (
        Counter(name.partition("-")[0] for name, spec in groups["1"].items() if spec.scale == "cpu")
        == networks
    )
    assert count("mnist", "cpu") == 210 + 4
