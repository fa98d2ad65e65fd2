"""Faster R-CNN on a VGG whose channels were pruned, on a handful of images in VOC's format:
loading, training, mean average precision.
"""

import json

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models.vgg import VGG, make_layers

from common.cells.errors import UserError
from nap import channels, detection
from tests import toy

pytest.importorskip("torchmetrics")
SMALL = detection.Options(
    epochs=60, lr=0.02, batch_size=2, min_size=64, max_size=64, anchor_sizes=(16, 32), frozen=0
)


def annotation(objects):
    inside = "".join(
        f"<object><name>{name}</name><difficult>{int(difficult)}</difficult>"
        f"<bndbox><xmin>{b[0] + 1}</xmin>"
        f"<ymin>{b[1] + 1}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for name, difficult, b in objects
    )
    return f"<annotation><filename>x.jpg</filename>{inside}</annotation>"


@pytest.fixture
def voc(tmp_path):
    """Four 64 x 64 images, each with one coloured rectangle: red cats, blue dogs; the first has a
    difficult bird too.
    """
    root = tmp_path / "VOCdevkit" / "VOC2007"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    names = []
    for i in range(4):
        name, box = f"00000{i}", (8 + 4 * i, 20 - 4 * i, 32 + 4 * i, 48 - 4 * i)
        image = Image.new("RGB", (64, 64), (120, 120, 120))
        image.paste((230, 20, 20) if i % 2 else (20, 20, 230), box)
        image.save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        objects = [("cat" if i % 2 else "dog", False, box)] + (
            [("bird", True, (0, 0, 9, 9))] if i == 0 else []
        )
        (root / "Annotations" / f"{name}.xml").write_text(annotation(objects))
        names.append(name)
    for part in ("trainval", "test"):
        (root / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(names) + "\n")
    return tmp_path


def small_vgg():
    torch.manual_seed(0)
    net = VGG(
        make_layers([12, "M", 16, "M", 16, "M", 24, "M", 24, "M"]), num_classes=3, init_weights=True
    )
    net.classifier = nn.Sequential(
        nn.Linear(24 * 49, 32),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(32, 3),
    )
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return net


def test_boxes_labels_and_mirrors_are_read(voc):
    data, training = detection.VOC(voc, "test"), detection.VOC(voc, "trainval", flips=True)
    x, target = data[0]
    assert x.shape == (3, 64, 64) and x.min() >= 0 and x.max() <= 1
    assert target["boxes"].tolist() == [[8, 20, 32, 48], [0, 0, 9, 9]] and target[
        "difficult"
    ].tolist() == [False, True]
    assert [detection.CLASSES[label - 1] for label in target["labels"]] == ["dog", "bird"]
    assert len(training) == 8 and training[0][1]["boxes"].tolist() == [[8, 20, 32, 48]]
    mirrored, boxes = training[4][0], training[4][1]["boxes"][0].int().tolist()
    assert torch.equal(mirrored, x.flip(2)) and boxes == [32, 20, 56, 48]
    inside = mirrored[2, boxes[1] + 2 : boxes[3] - 2, boxes[0] + 2 : boxes[2] - 2]
    assert inside.min() > 0.7  # the blue rectangle is where the mirrored box says


def test_a_pruned_backbone_learns_to_detect(voc):
    net = small_vgg()
    pruned = channels.prune(
        net,
        [(torch.rand(4, 3, 224, 224), torch.randint(3, (4,)))],
        0.25,
        channels.Options(skip=("classifier.0", "classifier.3")),
        toy.generator(),
    )
    widths = [m.out_channels for m in pruned.model.features if isinstance(m, nn.Conv2d)]
    assert sum(widths) < 92
    model = detection.detector(pruned.model, SMALL)
    before = detection.mean_average_precision(model, detection.VOC(voc, "test"))["map50"]
    losses = detection.fit(model, detection.VOC(voc, "trainval", flips=True), SMALL)
    after = detection.mean_average_precision(model, detection.VOC(voc, "test"))
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert after["map50"] > 0.5 > before and "bird" not in after


def test_average_precision_of_answers_that_are_known(voc):
    class Oracle(nn.Module):
        """Says the truth about dogs; calls every cat a dog with less confidence."""

        def __init__(self):
            super().__init__()
            self.anchor, self.data, self.next = (
                nn.Parameter(torch.zeros(1)),
                detection.VOC(voc, "test"),
                0,
            )

        def forward(self, images):
            target = self.data[self.next][1]
            is_dog = self.next % 2 == 0
            self.next += 1
            return [
                {
                    "boxes": target["boxes"][:1],
                    "labels": torch.tensor([detection.CLASSES.index("dog") + 1]),
                    "scores": torch.tensor([0.9 if is_dog else 0.5]),
                }
            ]

    result = detection.mean_average_precision(Oracle(), detection.VOC(voc, "test"))
    assert (
        result["dog"] == pytest.approx(1.0)
        and result["cat"] == 0.0
        and result["map50"] == pytest.approx(0.5)
    )


def test_the_command_writes_a_record(voc, tmp_path, monkeypatch):
    monkeypatch.setattr(detection.models, "build", lambda *a: small_vgg())
    options = detection.dataclasses.replace(SMALL, epochs=0.5)
    record = detection.run("", str(voc), options, tmp_path / "out")
    told = json.loads((tmp_path / "out" / f"{record.id}.json").read_text())
    assert (
        told["stage"] == "finetune"
        and 0 <= told["trajectory"][0]["map50"] <= 1
        and told["trajectory"][0]["steps"] == 2
    )


def test_bad_input(voc, tmp_path):
    with pytest.raises(UserError, match="VOCdevkit"):
        detection.VOC(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no VGG"):
        detection.detector(nn.Linear(2, 2), SMALL)
    file = voc / "VOCdevkit" / "VOC2007" / "Annotations" / "000001.xml"
    file.write_text(file.read_text().replace("cat", "unicorn"))
    with pytest.raises(UserError, match="unicorn"):
        detection.VOC(voc, "test")[1]
