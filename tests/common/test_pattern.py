"""N:M patterns: exact in every group, the same whatever way they are asked for."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from common import prune
from common.cells.errors import UserError
from common.cells.registry import METHODS
from common.cells.spec import Spec, removed_by
from common.nets import checkpoint
from common.nets import masks as M
from common.pruning.pattern import Pattern
from common.pruning.select import select
from common.running import cli, pipeline
from tests import toy

WEIGHTS = [name for name, method in METHODS.items() if method.kind == "weights"]
# NAP finds each layer's ratio by itself, and the others go weight by weight over all layers
FREE = {"nap", "l-obs-ours", "l-obs-greedy"}


def twin(scores, keep, of, gone=None):
    """Group by group: the lowest go, equal ones of earlier inputs first, those that are gone before
    them."""
    kept = torch.ones_like(scores, dtype=torch.bool)
    flat = scores.reshape(*scores.shape[:2], -1)
    for o in range(flat.shape[0]):
        for p in range(flat.shape[2]):
            for start in range(0, flat.shape[1], of):
                lost = [] if gone is None else gone.reshape(flat.shape)[o, start : start + of, p]
                values = flat[o, start : start + of, p].tolist()
                order = sorted(range(of), key=lambda i: (not (len(lost) and lost[i]), values[i], i))
                away = set(order[: of - keep]) | {i for i in range(of) if len(lost) and lost[i]}
                for i in away:
                    kept.reshape(flat.shape)[o, start + i, p] = False
    return kept


@pytest.mark.parametrize("shape", [(3, 8), (2, 8, 3, 2), (5, 4, 1)])
@pytest.mark.parametrize("pattern", ["2:4", "1:4", "1:2", "3:4"])
def test_masks_are_the_twins_with_ties_and_with_weights_gone_before(shape, pattern):
    found = Pattern.parse(pattern)
    scores = torch.randint(4, shape, generator=toy.generator(1)).double()
    before = torch.rand(shape, generator=toy.generator(2)) > 0.3
    kept = select({"a": scores}, found)["a"]
    assert torch.equal(kept, twin(scores, found.keep, found.of))
    assert int(kept.sum()) == scores.numel() * found.keep // found.of
    again = select({"a": scores}, found, "layer", {"a": before})["a"]
    assert torch.equal(again, twin(scores, found.keep, found.of, ~before))
    assert not (again & ~before).any()


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 8), nn.Tanh(), nn.Linear(8, 3)
    )


@pytest.mark.parametrize("method", WEIGHTS)
def test_every_method_keeps_to_it_or_says_that_it_does_not(method):
    x, y = toy.batch(30, (4, 5, 5))
    told = {"trust": None, "damping": 1.0} if method == "woodtaylor" else {}
    try:
        pruned = prune(network(), [(x.float(), y)], "2:4", method, **told)
    except UserError as error:
        assert method in FREE and "\n" not in str(error), method
        return
    for mask in pruned.masks.values():
        groups = mask.movedim(1, -1).unflatten(-1, (-1, 4)).sum(-1)
        assert bool((groups == 2).all()), method
    assert method not in FREE


def test_inputs_without_whole_groups_are_refused_by_name():
    model, (x, y) = toy.small_net().float(), toy.batch(8)
    with pytest.raises(UserError, match="layer '0' has 2 inputs, .*name it in skip"):
        prune(model, [(x.float(), y)], "2:4", "magnitude-global")
    pruned = prune(model, [(x.float(), y)], "2:4", "magnitude-global", skip=["0", "3"])
    assert pruned.weights == {"6": (24, 48)} and set(pruned.dense) == {"0", "3"}
    for wrong in ("2of4", "4:2", "0:4", "2:", "4:4"):
        with pytest.raises(UserError, match="write N:M"):
            prune(model, [(x.float(), y)], wrong, "magnitude-global")
    with pytest.raises(UserError, match="is of weights"):
        prune(model, [(x.float(), y)], "2:4", "c-obd")


def test_the_verbs_take_it(tmp_path):
    flags = cli.parser("prune").parse_args(["--pattern", "1:4", "--method", "magnitude-global"])
    given = cli.overrides(flags, "prune", Spec(unit_ratio=0.5))
    spec = Spec(unit_ratio=0.5).but(**given)
    assert (spec.pattern, spec.sparsity, spec.unit_ratio) == ("1:4", 0.75, None)
    for wrong in ({"sparsity": 0.6}, {"sparsity": 0.5, "steps": 3}, {}):
        with pytest.raises(UserError):
            Spec(pattern="2:4", **wrong)
    assert removed_by("2:4") == 0.5 and spec.digest() != spec.but(pattern="").digest()
    spec = spec.but(
        model="lenet300",
        dataset="synthetic:samples=64",
        allow_untrained=True,
        output_dir=str(tmp_path),
        method="woodfisher",
        num_samples=32,
    )
    record = pipeline.prune(spec)
    assert record.achieved["sparsity"] == pytest.approx(0.75)
    kept = checkpoint.load(pipeline.cell_folder(spec) / "pruned.safetensors").masks
    for mask in kept.values():
        assert bool((mask.unflatten(1, (-1, 4)).sum(-1) == 1).all())


def test_masks_become_torchs_own():
    x, y = toy.batch(30, (4, 5, 5))
    pruned = prune(network(), [(x.float(), y)], "2:4", "magnitude-global")
    wanted = pruned.model(x.float())
    model = M.attach(pruned.model, pruned.masks)
    assert torch_prune.is_pruned(model) and torch.equal(
        model[0].weight_mask != 0, pruned.masks["0.weight"]
    )
    assert torch.equal(model(x.float()), wanted)
    for name in pruned.masks:
        torch_prune.remove(model.get_submodule(name.removesuffix(".weight")), "weight")
    assert torch.equal(model(x.float()), wanted)
