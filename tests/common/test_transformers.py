"""A small GPT-2 and a small ViT as their libraries build them, trained for moments on a text that
ships with Python and on digits: gradients against twins, and methods of single weights."""

import inspect
import re
import string
from pathlib import Path

import pytest
import torch

from common import prune
from common.curvature.diag import diagonal_fisher
from common.curvature.rows import gradient_rows
from common.data.task import Calibration, Task
from common.nets import layers as L
from tests import reference

METHODS = ("magnitude-global", "obd-global", "woodfisher", "l-obs", "kfac-prune", "nap")


def text(count=24, length=16):
    """Token ids of a text of the standard library, and what each token is followed by."""
    letters = {c: i for i, c in enumerate(string.printable)}
    ids = torch.tensor([letters[c] for c in inspect.getsource(string) if c in letters])
    rows = ids[: count * length].reshape(count, length)
    return rows[:, :-1], rows[:, 1:]


def gpt2():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=100,
        n_positions=16,
        n_embd=32,
        n_layer=2,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    return transformers.GPT2LMHeadModel(config)


def vit():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    sizes = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 24, "depth": 2}
    return timm.models.vision_transformer.VisionTransformer(num_classes=10, num_heads=2, **sizes)


def pictures(count=40):
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = torch.as_tensor(images[:count]).float().reshape(-1, 1, 8, 8) / 16
    return x, torch.as_tensor(labels[:count])


def trained(model, x, y, loss, steps=30):
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        output = model(x)
        logits = output if torch.is_tensor(output) else output.logits
        torch.nn.functional.cross_entropy(logits.flatten(0, -2), y.flatten()).backward()
        optimizer.step()
    return model.eval()


NETWORKS = {"GPT-2": (gpt2, text, "language_model"), "ViT": (vit, pictures, "cross_entropy")}


@pytest.mark.parametrize("kind", NETWORKS)
def test_rows_and_diagonals_are_the_twins(kind):
    make, data, loss = NETWORKS[kind]
    model = make().double().eval()
    x, y = (part[:3] for part in data())
    x = x.double() if x.is_floating_point() else x

    def output(i):
        found = model(x[i : i + 1])
        return (found if torch.is_tensor(found) else found.logits)[0]

    batches = Calibration([(x, y)], Task(loss))
    rows, diagonal = gradient_rows(model, batches, 3), diagonal_fisher(model, batches)
    for name, module in list(L.prunable(model).items())[::3]:
        losses = [reference.loss_of_example(output(i), y[i], loss) for i in range(3)]
        truth = torch.stack([torch.autograd.grad(v, module.weight)[0] for v in losses])
        flat = torch.stack([L.flat(module, gradient) for gradient in truth])
        torch.testing.assert_close(rows[name], flat, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(diagonal[name], truth.square().mean(0), rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("kind", NETWORKS)
def test_methods_prune_them_and_name_what_stays_dense(kind):
    make, data, loss = NETWORKS[kind]
    x, y = data()
    model = trained(make(), x, y, loss)
    skip = ["*head"]
    for method in METHODS:
        told = {"fisher": "sampled"} if method == "obd-global" else {}
        pruned = prune(model, [(x, y)], 0.4, method, loss=loss, skip=skip, **told)
        kept, total = (sum(pair[i] for pair in pruned.weights.values()) for i in (0, 1))
        assert kept / total <= 0.605 and total > 2_000, method
        head = "lm_head" if kind == "GPT-2" else "head"
        assert pruned.dense[head] == "named in skip"
        if kind == "GPT-2":
            assert "looked up" in pruned.dense["transformer.wte"]
        output = pruned.model(x)
        logits = output if torch.is_tensor(output) else output.logits
        assert torch.isfinite(logits).all()


def test_a_batch_of_names_is_the_batch_of_pairs():
    model, (x, y), loss = gpt2().eval(), text(8), "language_model"
    skip = ["lm_head"]
    named = [{"input_ids": x, "attention_mask": torch.ones_like(x), "labels": y}]
    one = prune(model, named, 0.3, "woodfisher", loss=loss, skip=skip)
    two = prune(model, [(x, y)], 0.3, "woodfisher", loss=loss, skip=skip)
    assert one.predicted_increase == pytest.approx(two.predicted_increase, rel=1e-4)


BLOCKS = re.findall(
    r"```python\n(.*?)```",
    (Path(__file__).resolve().parents[2] / "docs" / "own_networks.md").read_text(),
    re.S,
)


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_the_examples_of_the_page_run(index, tmp_path, monkeypatch, capsys):
    for library in ("transformers", "timm"):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(BLOCKS[index], scope)
    told = capsys.readouterr().out
    if index == 0:
        assert "stays dense: named in skip" in told and "predicted increase" in told
        assert float(scope["loss"].detach()) < 4.0  # it learned something: ln 128 is 4.85
    else:
        assert len(scope["report"].records) == 2 and "WoodFisher" in told
        assert scope["report"].records[0].accuracy["dense"] > 0.4
