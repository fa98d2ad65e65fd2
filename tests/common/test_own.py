"""Networks of one's own, through `from common import prune, compare`."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from common import prune
from common.cells.errors import LayerError, UserError
from common.cells.registry import METHODS
from common.pruning.baselines import OBDOptions, obd
from tests import toy

ROOT = Path(__file__).resolve().parents[2]
X, Y = (t.float() if t.is_floating_point() else t for t in toy.batch(24))
WEIGHTS = [name for name, method in METHODS.items() if method.kind == "weights"]


def test_importing_common_loads_nothing():
    code = "import sys, common; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    code = "from common import nothing"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=-3).returncode == 1


def test_it_is_the_method_with_its_options():
    model = toy.small_net().float()
    found = prune(model, [(X, Y)], 0.7, "obd-layer", fisher="empirical")
    wanted = obd(model, [(X, Y)], 0.7, OBDOptions("layer", fisher="empirical"), torch.Generator())
    assert all(torch.equal(found.masks[name], mask) for name, mask in wanted.masks.items())
    assert found.predicted_increase == wanted.predicted_increase
    assert found.weights == {
        name.removesuffix(".weight"): (int(mask.sum()), mask.numel())
        for name, mask in wanted.masks.items()
    }


class Two(nn.Module):
    """Two inputs, a dict out."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.head = nn.Linear(6, 8), nn.Linear(3, 8), nn.Linear(8, 3)

    def forward(self, image, meta):
        return {"logits": self.head(torch.relu(self.left(image) + self.right(meta)))}


class Recurrent(nn.Module):
    """What curvature knows nothing of, with a head."""

    def __init__(self, width=16):
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.lstm, self.head = nn.LSTM(4, width, batch_first=True), nn.Linear(width, 3)

    def forward(self, ids):
        return self.head(self.lstm(self.embed(ids))[0][:, -1])


def convolutions():
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 2))


def numbers(seed=0):
    return torch.randn(24, 6, generator=toy.generator(seed))


# name: (network, loader, what prune is told)
NETWORKS = {
    "own CNN": (lambda: toy.small_net().float(), [(X, Y)], {}),
    "regression": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)),
        [(numbers(), numbers(1)[:, :2])],
        {"loss": "mse"},
    ),
    "two inputs": (Two, [{"image": numbers(), "meta": numbers(1)[:, :3], "labels": Y}], {}),
    "two inputs in a row": (Two, [(numbers(), numbers(1)[:, :3], Y)], {}),
    "segmentation": (
        convolutions,
        [(X, torch.randint(3, (24, 2, 2), generator=toy.generator()))],
        {},
    ),
    "binary": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)),
        [(numbers(), (Y > 0)[:, None])],
        {"loss": "binary"},
    ),
    "own loss": (
        Two,
        [{"a": numbers(), "b": numbers(1)[:, :3], "wanted": Y}],
        {
            "forward_fn": lambda model, batch: model(batch["a"], batch["b"])["logits"],
            "loss_fn": lambda output, batch: F.cross_entropy(output, batch["wanted"]),
        },
    ),
    "tokens": (
        lambda: toy.Tokens().float(),
        [(torch.randint(5, (24, 6)), torch.randint(5, (24, 6)))],
        {"loss": "language_model"},
    ),
}
# methods whose default labels are not the true ones, which a loss of one's own alone has
DRAWN = {"obd-layer", "obd-global", "nap"}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("method", WEIGHTS)
def test_every_method_of_single_weights_prunes_every_network(method, kind):
    make, loader, told = NETWORKS[kind]
    torch.manual_seed(0)
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    if "loss_fn" in told and method in DRAWN:
        with pytest.raises(UserError, match="use fisher=empirical"):
            prune(model, loader, 0.5, method, **told)
        told = told | {"fisher": "empirical"}
    damping = {"damping": 1.0} if method == "woodtaylor" else {}
    pruned = prune(model, loader, 0.5, method, **told, **damping)
    total = sum(of for _, of in pruned.weights.values())
    kept = sum(left for left, _ in pruned.weights.values())
    assert abs(kept - total / 2) <= len(pruned.weights)
    for name, mask in pruned.masks.items():
        assert not pruned.model.get_parameter(name)[~mask].any()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_what_is_left_dense_is_named_with_its_reason():
    ids = torch.randint(9, (24, 5), generator=toy.generator())
    pruned = prune(Recurrent(), [(ids, Y)], 0.5, "obd-global", skip=["lstm"])
    assert pruned.dense == {
        "embed": "a table that is looked up, not a product",
        "lstm": "named in skip",
    }
    assert pruned.weights == {"head": (24, 48)}
    text = str(pruned).splitlines()
    assert text[0] == "removed 24 of 48 weights (50.0%) in 1 layer"
    assert any("lstm " in line and "stays dense: named in skip" in line for line in text)
    assert pruned.summary() == str(pruned)


def test_an_amount_that_what_stays_dense_cannot_meet_is_an_error():
    ids = torch.randint(9, (24, 5), generator=toy.generator())
    with pytest.raises(UserError, match=r"1,280 stay dense in lstm \(lstm: recurrent.*0.036") as e:
        prune(Recurrent(), [(ids, Y)], 0.5, "obd-global")
    assert "\n" not in str(e.value)
    # of all weights that count, 1,328
    pruned = prune(Recurrent(), [(ids, Y)], 0.03, "obd-global")
    assert pruned.weights == {"head": (48 - round(0.03 * 1328), 48)}


@pytest.mark.parametrize("kind", ["two inputs", "own loss", "regression"])
def test_methods_of_channels_follow_one_tensor_or_say_so(kind):
    make, loader, told = NETWORKS[kind]
    for name, method in METHODS.items():
        if method.kind == "weights":
            continue
        try:
            pruned = prune(make(), loader, 0.4, name, **told)
        except (UserError, LayerError) as error:
            assert "\n" not in str(error), name
            if kind != "regression" and method.kind == "channels":
                assert "more than one tensor" in str(error), name
        else:
            assert any(left < of for left, of in pruned.weights.values()), name
            assert kind == "regression" or method.kind == "low-rank"


def test_skip_takes_patterns():
    model = nn.Sequential()
    for i in range(3):
        model.add_module(f"block{i}", nn.Sequential(nn.Linear(6, 6), nn.Tanh()))
    model.add_module("head", nn.Linear(6, 3))
    pruned = prune(model, [(numbers(), Y)], 0.5, "obd-global", skip=["block*.0"])
    assert list(pruned.weights) == ["head"]
    assert list(pruned.dense) == ["block0.0", "block1.0", "block2.0"]
    with pytest.raises(UserError, match=r"skip='stem.\*': matches no layer .*head"):
        prune(model, [(numbers(), Y)], 0.5, "obd-global", skip=["stem.*"])


@pytest.mark.parametrize(
    ("method", "told", "message"),
    [
        ("woodfish", {}, "method='woodfish': unknown; choose one of: random"),
        ("woodfisher", {"chunks": 5}, "no such option; its options: chunk, damping"),
        ("woodfisher", {"chunk": 2.5}, "chunk=2.5: has the wrong type"),
        ("woodfisher", {"loss": "hinge"}, "loss='hinge': unknown"),
        ("woodfisher", {"num_samples": 0}, "num_samples=0: must be at least 1"),
        ("c-obd", {"ignore_index": -100, "damping": 1}, "no such option"),
    ],
)
def test_what_cannot_be_asked_is_one_line(method, told, message):
    with pytest.raises(UserError, match=message) as caught:
        prune(toy.small_net().float(), [(X, Y)], 0.5, method, **told)
    assert "\n" not in str(caught.value)


def test_a_loader_that_shuffles_is_read_once_by_the_seed():
    data = TensorDataset(numbers(), Y)
    model = nn.Sequential(nn.Linear(6, 3))
    loaders = [DataLoader(data, 5, shuffle=True) for _ in range(3)]
    state = torch.random.get_rng_state()
    one, two = (
        prune(model, each, 0.5, "obd-global", num_samples=7, fisher="empirical", seed=seed)
        for each, seed in zip(loaders, (0, 0))
    )
    assert one.predicted_increase == two.predicted_increase
    other = prune(model, loaders[2], 0.5, "obd-global", num_samples=7, fisher="empirical", seed=1)
    assert other.predicted_increase != one.predicted_increase
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_method_that_removed_nothing_says_so(monkeypatch):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    pruned = prune(model, [(numbers(), Y)], 0.5, "c-obd", fisher="empirical")
    assert pruned.weights["0"] == (24, 48) and pruned.edits
    from common.commands import own

    monkeypatch.setattr(own, "_kept", lambda pruned, before: {n: (v, v) for n, v in before.items()})
    for method, told in (("c-obd", {}), ("magnitude-global", {})):
        with pytest.raises(UserError, match="amount=0.5: was not met: 0 of 72 weights went"):
            prune(model, [(numbers(), Y)], 0.5, method, **told)
