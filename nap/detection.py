"""Table 2: Faster R-CNN on PASCAL VOC 2007 with a pruned VGG-16 as its backbone (Sec. 4.1.3).

    python -m nap.detection --checkpoint runs/nap/1/<cell>/seed0/finetuned.safetensors --data-dir
      <folder with VOCdevkit/VOC2007>

trains on trainval, writes one record with the mean average precision on test. Without --checkpoint
the backbone is the unpruned VGG-16 with random weights: a path, not a baseline. The network is
torchvision's Faster R-CNN on one feature map, conv5_3's at stride 16, with fc6 and fc7 as its box
head, as in Ren et al. (2015). Detection has boxes for labels, so it does not pass through
common.running.train.fit. mAP is torchmetrics' area under the 101-point curve at IoU 0.5, difficult
objects ignored; VOC 2007's own has 11.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import VOCDetection
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.transforms.functional import hflip, pil_to_tensor

from common.cells.errors import NumericalError, Parser, UserError
from common.cells.record import Record
from common.cells.spec import Recipe, Spec
from common.data import sources as D
from common.nets import checkpoint, models
from common.nets.layers import prunable
from common.running.cli import guarded
from common.running.timing import Timer
from common.system import machine

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    # 0 is the background
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Options:
    """The paper states none of these: they are Ren et al.'s for VGG-16 on VOC 2007 (70,000 steps of
    one image are 14 epochs).
    """

    epochs: float = 14.0
    lr: float = 1e-3  # a tenth of it for the last 2/7
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 1
    min_size: int = 600  # pixels of the short side
    max_size: int = 1000
    anchor_sizes: tuple[int, ...] = (128, 256, 512)
    frozen: int = 4  # convolutions that do not learn, from the input on


class VOC(Dataset):
    """VOCdevkit/VOC2007 below `root`: (image [3, h, w] in [0, 1], {"boxes" [n, 4] in pixels,
    "labels", "difficult" [n]}).

    With `flips` (training) difficult objects are left out and every image is there twice, once
    mirrored. Raises UserError where the folder is missing or an object is of no known class.
    """

    def __init__(self, root: str | Path, part: str = "trainval", flips: bool = False):
        try:
            self.images = VOCDetection(str(root), year="2007", image_set=part, download=False)
        except (RuntimeError, OSError):
            raise UserError(
                "data_dir",
                str(root),
                f"has no VOCdevkit/VOC2007 with a list {part!r}",
                "unpack the VOC 2007 archives there",
            ) from None
        self.flips = flips

    def __len__(self) -> int:
        return len(self.images) * (2 if self.flips else 1)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, notes = self.images[index % len(self.images)]
        objects = [
            o
            for o in notes["annotation"].get("object", [])
            if not (self.flips and o.get("difficult") == "1")
        ]
        unknown = next((o["name"] for o in objects if o["name"] not in CLASSES), None)
        if unknown is not None:
            raise UserError(
                "data_dir", unknown, "no class of VOC", f"classes: {', '.join(CLASSES)}"
            )
        corners = [
            [
                float(o["bndbox"][side]) - (side in ("xmin", "ymin"))
                for side in ("xmin", "ymin", "xmax", "ymax")
            ]
            for o in objects
        ]
        boxes = torch.tensor(corners).reshape(-1, 4)  # VOC counts pixels from 1
        x = pil_to_tensor(image.convert("RGB")).float() / 255
        if index >= len(self.images):
            x, width = hflip(x), x.shape[2]
            boxes = torch.stack(
                [width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1
            )
        return x, {
            "boxes": boxes,
            "labels": torch.tensor(
                [CLASSES.index(o["name"]) + 1 for o in objects], dtype=torch.int64
            ),
            "difficult": torch.tensor(
                [o.get("difficult") == "1" for o in objects], dtype=torch.bool
            ),
        }


def detector(backbone: nn.Module, options: Options, classes: int = len(CLASSES)) -> FasterRCNN:
    """Faster R-CNN around a VGG of torchvision's kind, whatever the widths that pruning left: its
    features without the last pooling, and its classifier without the last layer as the box head.
    Raises UserError for another network."""
    features, classifier = (
        getattr(backbone, "features", None),
        getattr(backbone, "classifier", None),
    )
    if not (
        isinstance(features, nn.Sequential)
        and isinstance(features[-1], nn.MaxPool2d)
        and isinstance(classifier, nn.Sequential)
    ):
        raise UserError(
            "checkpoint",
            type(backbone).__name__,
            "is no VGG with features, a last pooling and a classifier",
            "prune vgg16",
        )
    trunk, head = features[:-1], nn.Sequential(nn.Flatten(), *classifier[:-1])
    convolutions = list(prunable(trunk).values())
    for module in convolutions[: options.frozen]:
        module.requires_grad_(False)
    trunk.out_channels = convolutions[-1].out_channels
    side = math.isqrt(classifier[0].in_features // trunk.out_channels)
    if side * side * trunk.out_channels != classifier[0].in_features:
        raise UserError(
            "checkpoint",
            type(backbone).__name__,
            "its classifier does not read a square of its features",
        )
    anchors = AnchorGenerator((options.anchor_sizes,), ((0.5, 1.0, 2.0),))
    return FasterRCNN(
        trunk,
        rpn_anchor_generator=anchors,
        box_roi_pool=MultiScaleRoIAlign(["0"], side, 2),
        box_head=head,
        box_predictor=FastRCNNPredictor(classifier[-1].in_features, classes + 1),
        min_size=options.min_size,
        max_size=options.max_size,
    )


def fit(model: FasterRCNN, data: Dataset, options: Options, seed: int = 0) -> list[float]:
    """Train in place with SGD; returns the loss of every step. Raises NumericalError where it is
    not finite.
    """
    torch.manual_seed(seed)  # the region proposals are sampled from the global generator
    device = next(model.parameters()).device
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        learned, lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay
    )
    total, losses = round(options.epochs * math.ceil(len(data) / options.batch_size)), []
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [round(total * 5 / 7)])
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(
        data, options.batch_size, shuffle=True, generator=generator, collate_fn=_listed
    )
    model.train()
    while len(losses) < total:
        for images, targets in loader:
            if len(losses) == total:
                break
            wanted = [{k: v.to(device) for k, v in t.items() if k != "difficult"} for t in targets]
            loss = sum(model([x.to(device) for x in images], wanted).values())
            if not torch.isfinite(loss):
                raise NumericalError(
                    "detector", f"its loss is {float(loss)} at step {len(losses)}", "lower --lr"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        log.info("detector: step %d of %d, loss %.3f", len(losses), total, losses[-1])
    return losses


@torch.inference_mode()
def mean_average_precision(model: FasterRCNN, data: Dataset) -> dict[str, float]:
    """{"map50", and each class's}, as fractions; classes without an object are left out."""
    # imported here: slow, and needed for nothing else
    from torchmetrics.detection import MeanAveragePrecision

    metric, device = (
        MeanAveragePrecision(iou_thresholds=[0.5], class_metrics=True),
        next(model.parameters()).device,
    )
    model.eval()
    for images, targets in DataLoader(data, 1, collate_fn=_listed):
        found = model([x.to(device) for x in images])
        metric.update(
            [{k: v.cpu() for k, v in f.items()} for f in found],
            [
                {"boxes": t["boxes"], "labels": t["labels"], "iscrowd": t["difficult"].int()}
                for t in targets
            ],
        )
    result = metric.compute()
    classes, values = (
        result["classes"].reshape(-1).tolist(),
        result["map_per_class"].reshape(-1).tolist(),
    )
    return {"map50": float(result["map"])} | {
        CLASSES[c - 1]: v for c, v in zip(classes, values, strict=True) if v >= 0
    }


def _listed(batch: Sequence[tuple]) -> tuple[list, list]:
    return [x for x, _ in batch], [t for _, t in batch]


def run(
    file: str, data_dir: str, options: Options, output: Path, seed: int = 0, device: str = "auto"
) -> Record:
    """Train and judge one detector; the record has mAP and each class's average precision in its
    trajectory.
    """
    where, timer = machine.device(device), Timer()
    spec = Spec(
        paper="nap",
        table="2",
        cell="voc2007",
        scale="paper",
        model="vgg16",
        checkpoint=Path(file).name,
        seed=seed,
        finetune=Recipe(options.epochs, options.lr, options.batch_size),
    )
    backbone = (
        checkpoint.load(file).model if file else models.build("vgg16", 1000, (3, 224, 224), seed)
    )
    root = D.data_root(data_dir)
    parts = VOC(root, "trainval", flips=True), VOC(root, "test")
    model = detector(backbone, options).to(where)
    with timer.phase("finetune"):
        losses = fit(model, parts[0], options, seed)
    with timer.phase("evaluate"):
        precision = mean_average_precision(model, parts[1])
    row = {"steps": len(losses), "train_loss": sum(losses[-100:]) / len(losses[-100:]), **precision}
    record = Record(
        f"voc2007-{Path(file).stem or 'unpruned'}-seed{seed}-finetune",
        "nap",
        "2",
        "voc2007",
        "nap-channel" if file else "dense",
        "finetune",
        "paper",
        spec.to_dict(),
        trajectory=[row],
        timing=timer.report(),
        provenance=machine.provenance(where, seed, ""),
    )
    record.write(output / f"{record.id}.json")
    return record


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    p = Parser(description=__doc__)
    p.add_argument("--checkpoint", default="", help="a pruned VGG-16 of this project")
    p.add_argument("--data-dir", default="", help="folder with VOCdevkit/VOC2007")
    p.add_argument(
        "--epochs",
        type=float,
        default=Options.epochs,
        help="of training; may be a fraction (default: %(default)s)",
    )
    p.add_argument(
        "--lr",
        type=float,
        default=Options.lr,
        help="learning rate at the start (default: %(default)s)",
    )
    p.add_argument(
        "--batch-size",
        type=int,
        default=Options.batch_size,
        help="images a step (default: %(default)s)",
    )
    p.add_argument("--seed", type=int, default=0, help="of weights and order (default: 0)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    p.add_argument(
        "--output-dir",
        type=Path,
        default=Path("runs/nap/2"),
        help="where the record goes (default: runs/nap/2)",
    )
    a = p.parse_args(argv)
    options = Options(epochs=a.epochs, lr=a.lr, batch_size=a.batch_size)

    def work() -> None:
        record = run(a.checkpoint, a.data_dir, options, a.output_dir, a.seed, a.device)
        log.info("mAP at IoU 0.5: %.2f%%", 100 * record.trajectory[0]["map50"])

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
