"""The studies measure what they say, on networks of a few weights."""

import dataclasses
import json
import statistics

import pytest
import torch

from common.cells.errors import UserError
from common.curvature.blocks import BlockFisher
from common.curvature.rows import gradient_rows
from common.data import sources as D
from common.nets import masks as M
from common.nets import models
from common.running.timing import Timer
from tests import toy
from tests.woodfisher import twin
from woodfisher.ours import Options, prune
from woodfisher.studies import __main__ as studies
from woodfisher.studies import choice, gradients, parts


@pytest.fixture(scope="module")
def digits():
    data = D.load("digits")
    return models.build("digits_cnn:width=0.25", 10, data.input_shape, 0).eval(), data


def test_ready_curvatures_prune_as_the_method_does():
    model, batch = twin.net(), toy.batch(12, (2, 4, 4))
    rows = gradient_rows(model, [batch], 12)
    for chunk in (None, 3):
        ready = {name: BlockFisher(part, 1e-3, chunk, name) for name, part in rows.items()}
        for update in ("diagonal", "none"):
            network, masks = parts.pruned(model, ready, 0.6, update)
            whole = prune(
                model,
                [batch],
                0.6,
                Options(damping=1e-3, chunk=chunk, fisher_batch_size=1, update=update),
                toy.generator(),
            )
            assert M.digest(masks) == M.digest(whole.masks)
            assert all(
                torch.allclose(a, b) for a, b in zip(network.parameters(), whole.model.parameters())
            )


def test_shared_weights_and_effective_rows_by_hand():
    one = {"a": torch.tensor([True, True, False]), "b": torch.tensor([True])}
    other = {"b": torch.tensor([False]), "a": torch.tensor([True, False, True])}
    assert parts.shared(one, one) == 1 and parts.shared(one, other) == pytest.approx(1 / 4)
    rows = {
        "a": torch.tensor([[3.0, 0.0], [0.0, 0.0], [0.0, 1.0]]),
        "b": torch.tensor([[4.0], [5.0], [0.0]]),
    }
    assert parts.lengths(rows).tolist() == [25, 25, 1]
    assert parts.effective(torch.tensor([25.0, 25, 25, 25])) == 4
    assert parts.effective(torch.tensor([1.0, 0, 0, 0])) == 1


def test_choices_have_every_setting_and_magnitude_beside_them(digits):
    model, data = digits
    entries = list(
        choice.choices(model, data, (0.5, 0.9), (0.9,), rows=((5, 4), (20, 1)), chunks=(None, 50))
    )
    assert [(e["m"], e["b"], e["chunk"], e["amount"]) for e in entries] == [
        (m, b, c, a) for m, b in ((5, 4), (20, 1)) for c in ("layer", 50) for a in (0.5, 0.9)
    ]
    assert all(("accuracy" in e) == (e["amount"] == 0.9) and 0 < e["overlap"] < 1 for e in entries)
    (few,) = choice.choices(model, data, (0.5,), (), rows=((1000, 10),), chunks=(50,))
    assert (few["m"], few["b"]) == (1000, 1)  # digits has 1,438 training images
    alone, kept = parts.magnitude(model, 0.9)
    assert M.sparsity(kept) == pytest.approx(0.9, abs=1e-3)
    assert len({e["magnitude"] for e in entries if "magnitude" in e}) == 1


def test_sources_differ_in_what_they_name(digits):
    model, data = digits
    held = [(x[:6], y[:6]) for x, y in data.test_loader(6)][:1]
    found = dict(gradients.sources(model, data, held, 0, 6))
    lengths = {what: parts.lengths(rows) for what, rows in found.items()}
    assert list(found) == [
        "training images",
        "rows made equally long",
        "labels from the model",
        "labels at random",
        "shifted images",
        "held-out images",
        "images of highest loss",
    ]
    equal, plain = lengths["rows made equally long"], lengths["training images"]
    assert torch.allclose(equal, equal.mean().expand(6), rtol=1e-5) and float(
        equal.mean()
    ) == pytest.approx(float(plain.mean()), rel=1e-5)
    name = next(iter(found["training images"]))
    assert (
        torch.nn.functional.cosine_similarity(
            found["training images"][name], found["rows made equally long"][name]
        ).min()
        > 0.9999
    )
    assert len({tuple(rows[name].flatten().tolist()) for rows in found.values()}) == 7
    losses = torch.nn.functional.cross_entropy(
        model(data.train.__getitems__(range(len(data.train)))[0]),
        data.train.__getitems__(range(len(data.train)))[1],
        reduction="none",
    )
    assert set(gradients.hardest(model, data, 6).tolist()) == set(losses.topk(6).indices.tolist())


def test_a_study_is_a_record_of_its_own_stage(tmp_path, monkeypatch):
    spec = studies.spec_of("choice", "digits_cnn", 1)
    spec = spec.but(
        model="digits_cnn:width=0.25",
        output_dir=str(tmp_path),
        train=dataclasses.replace(spec.train, epochs=0.1),
    )
    monkeypatch.setitem(
        studies.STUDIES,
        "choice",
        (lambda spec, timer: iter([{"m": 5, "overlap": 1.0}]), "resnet20"),
    )
    record = studies.run("choice", spec, tmp_path)
    told = json.loads((tmp_path / "choice-digits_cnn-seed1.json").read_text())
    assert told["stage"] == record.stage == "study" and told["trajectory"] == [
        {"m": 5, "overlap": 1.0}
    ]
    assert told["dense_hash"] and told["spec"]["seed"] == 1 and told["spec"]["damping"] == 1e-5
    with pytest.raises(UserError, match="no such network|model='vgg'"):
        studies.spec_of("choice", "vgg", 0)


def test_the_studies_dense_networks_are_the_comparisons():
    from common.running import pipeline
    from woodfisher.cells.networks import R20

    assert (
        pipeline.dense_folder(studies.spec_of("choice", "resnet20", 0)).name
        == pipeline.dense_folder(R20).name
    )


def test_the_studies_tables_are_their_records():
    """Every kind of rows and every setting has a line, with the numbers of its entries."""
    from figures import woodfisher

    lines = woodfisher.gradients().splitlines()[2:]
    entries = [e for r in woodfisher.study("gradients") for e in r.trajectory if e["chunk"] == 500]
    kinds = list(dict.fromkeys(e["rows"] for e in entries))
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == kinds
    for line, kind in zip(lines, kinds):
        for amount in woodfisher.AMOUNTS:
            mine = [e for e in entries if (e["rows"], e["amount"]) == (kind, amount)]
            for key in ("overlap", "accuracy", "choice", "magnitude"):
                assert f"{statistics.fmean(100 * e[key] for e in mine):.2f}" in line
    told = woodfisher.choice()
    for record in woodfisher.study("choice"):
        assert record.stage == "study" and not record.provenance["dirty"]
        settings = {(e["m"], e["b"], e["chunk"]) for e in record.trajectory}
        name = woodfisher.NAMES[record.spec["model"]]
        assert record.spec["seed"] or sum(
            line.startswith(f"| {name} |") for line in told.splitlines()
        ) == len(settings)


def test_no_image_that_a_fisher_is_estimated_from_judges_its_pruning(tmp_path, monkeypatch):
    """One of the study's Fishers is of test images; accuracies are of the other half, which is the
    same for every seed."""
    held, judged = [], []

    def given(model, data, held_out, seed):
        held.append({i for batch in held_out.batch_sampler for i in batch})
        yield "held-out images", {}

    def compared(model, rows, test, chunk):
        judged.append(torch.cat([x for x, _ in test]))
        return iter(())

    monkeypatch.setattr(gradients, "sources", given)
    monkeypatch.setattr(gradients, "compared", compared)
    monkeypatch.setattr(gradients, "EPOCHS", ())
    data = D.load("digits")
    for seed in (0, 1):
        spec = studies.spec_of("choice", "digits_cnn", seed)
        spec = spec.but(output_dir=str(tmp_path), train=dataclasses.replace(spec.train, epochs=0.1))
        assert list(gradients.gradients(spec, Timer())) == []
    assert len(held[0]) == len(held[1]) == len(data.test) // 2
    for used, images in zip(held, (judged[0], judged[-1]), strict=True):
        seen = {image.numpy().tobytes() for image in images}
        fishers = {data.test[i][0].numpy().tobytes() for i in used}
        assert not seen & fishers and len(images) + len(used) == len(data.test)
    assert torch.equal(judged[0], judged[-1])
