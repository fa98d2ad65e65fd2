"""Training images held out by a hash decide on the way; the test set is for the report alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from common.cells.errors import UserError
from common.cells.spec import Recipe, Spec
from common.data import images, sources
from common.nets import checkpoint
from common.running import gradual, pipeline, stages
from common.running import train as T


def test_images_are_held_out_by_their_content_and_whatever_the_order():
    plain, data = sources.load("digits"), sources.load("digits:holdout=0.2")
    assert len(data.train) + len(data.valid) == len(plain.train)
    assert 0.15 < len(data.valid) / len(plain.train) < 0.25
    assert data.sha256 == plain.sha256 and len(data.test) == len(plain.test)
    held = set(data.valid.keys())
    assert not held & set(data.train.keys())
    order = torch.randperm(len(plain.train), generator=torch.Generator().manual_seed(3)).tolist()
    turned = dataclasses.replace(plain, train=plain.train.subset(order))
    assert set(sources.hold_out(turned, 0.2).valid.keys()) == held
    # a larger part holds out what a smaller one does
    assert held <= set(sources.load("digits:holdout=0.5").valid.keys())


def test_files_are_held_out_by_class_and_name(tmp_path):
    for split, count in (("train", 30), ("test", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(folder / f"{i}.png")
    data = sources.load("imagefolder:size=8,holdout=0.3", str(tmp_path))
    assert len(data.train) + len(data.valid) == 60 and 8 <= len(data.valid) <= 28
    x, y = next(iter(data.judge_loader(100)))
    assert len(x) == len(data.valid) and y.tolist() == data.valid.labels.tolist()


@pytest.mark.parametrize("text", ["0", "1", "-0.1", "nan", "a fifth", "0.0000001"])
def test_a_holdout_that_leaves_nothing_is_refused(text):
    with pytest.raises(UserError, match="holdout"):
        sources.load(f"digits:holdout={text}")


@pytest.mark.parametrize("samples", [0, 50])
@pytest.mark.parametrize("dataset", ["digits", "digits:holdout=0.2"])
def test_with_images_held_out_no_test_image_is_read_before_the_report(
    tmp_path, monkeypatch, dataset, samples
):
    """Training, the bound on the added error and the best epoch are decided by the images held
    out; without any, by the test set, as in the papers."""
    reads, given = [], []

    class Counted(images.Images):
        def __getitems__(self, indices):
            reads.append(stage)
            return super().__getitems__(indices)

    data = sources.load(dataset)
    data.test.__class__ = Counted
    monkeypatch.setattr(pipeline, "data_of", lambda spec: data)
    monkeypatch.setattr(stages, "data_of", lambda spec: data)
    real_fit, real_run = T.fit, gradual.run

    def fit(*parts, **how):
        nonlocal stage
        before, stage = stage, "deciding"
        try:
            return real_fit(*parts, **how)
        finally:
            stage = before

    def run(*parts, **how):
        nonlocal stage
        given.append(parts[5])
        stage = "deciding"
        try:
            return real_run(*parts, **how)
        finally:
            stage = "report"

    stage = "report"
    monkeypatch.setattr(T, "fit", fit)
    monkeypatch.setattr(gradual, "run", run)
    spec = Spec(
        dataset=dataset,
        model="digits_cnn:width=0.25",
        train=Recipe(epochs=2, lr=0.05),
        finetune=Recipe(epochs=1, lr=0.02),
        sparsity=0.8,
        steps=3,
        step_epochs=0.5,
        step_test_samples=samples,
        max_error_increase=50.0,
        output_dir=str(tmp_path),
    )
    record = pipeline.finetune(spec)
    # the bound compares like with like: the dense network on the images that judge
    dense = checkpoint.load(pipeline.dense_folder(spec) / "model.safetensors").model
    assert given == [T.evaluate(dense, data.judge_loader())[1]]
    if samples:
        told = [entry["pruned"] for entry in pipeline.prune(spec).trajectory]
        assert all(round(accuracy * samples, 6) % 1 == 0 for accuracy in told)
    held = "holdout" in dataset
    assert ("deciding" not in reads) == held and "report" in reads
    assert record.accuracy["best_selected_on"] == ("held out" if held else "test")
    loaded = checkpoint.load(pipeline.cell_folder(spec) / "finetuned.safetensors").model
    assert record.accuracy["last"] == T.evaluate(loaded, data.test_loader())[1]
    if held:
        assert record.accuracy["valid"] == T.evaluate(loaded, data.judge_loader())[1]
