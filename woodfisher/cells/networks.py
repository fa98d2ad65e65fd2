"""The networks and settings of WoodFisher's cells, except those of ImageNet (imagenet.py).

Scales: cpu is what is committed here, on MLPNet (MNIST) and ResNet-20 (CIFAR-10 as JPEG); paper is
the paper's own setting; quick is seconds, offline.
"""

from __future__ import annotations

from common.cells.jobs import job_of
from common.cells.spec import Recipe, Spec

# MLPNet 784·40 + 40·20 + 20·10 = 32,360 weights; SGD of the released code, 24 epochs to the paper's
# 93.97%
MLP = Spec(
    paper="woodfisher",
    scale="cpu",
    model="mlpnet",
    dataset="mnist:norm=standard",
    train=Recipe(epochs=24, lr=1e-3, momentum=0.5, batch_size=64),
)
# Fig. 7: "only been trained for 2 epochs"
EARLY = MLP.but(train=Recipe(epochs=2, lr=1e-3, momentum=0.5, batch_size=64))
MLP_AMOUNTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)

# ResNet-20 with parameter-free shortcuts: the comparison's dense network. 18 block convolutions of
# 267,264 weights go, the stem's 432 and the classifier's 640 stay (facts of the released code), so
# 70% of the prunable is 69.7% of all.
_JOB = job_of("cifar10-jpeg", "resnet20")
R20 = Spec(
    paper="woodfisher",
    scale="cpu",
    model="resnet20",
    dataset=f"cifar10-jpeg:{_JOB.dataset_options}",
    train=_JOB.train,
    checkpoint=_JOB.checkpoint,
)
DENSE_ENDS = {"skip": ("conv1", "linear")}
# The paper's own: 1x1 shortcuts, the published pixels, four seeds. Its dense recipe is not stated.
# "WoodFisher performs well even with 1,000 samples" (Sec. 5.1): 1,000 rows of one image; the
# released script has rows of 50 too.
R20_PAPER = Spec(
    paper="woodfisher",
    scale="paper",
    model="resnet20:shortcut=B",
    dataset="cifar10",
    train=Recipe(
        epochs=200,
        lr=0.1,
        batch_size=128,
        weight_decay=1e-4,
        schedule="multistep",
        milestones=(100, 150),
        augment=True,
    ),
)
R20_SKIP = {"skip": ("conv1", "layer2.0.shortcut.0", "layer3.0.shortcut.0", "linear")}
R20_AMOUNTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98)
ABLATION = (0.6, 0.75)  # amounts of the ablations: settings differ there, and none is at chance yet
# 37,000 exceeds the largest layer's 36,864: a block a layer
CHUNKS = (20, 100, 1000, 5000, 12288, 37000)
SINGLE = {"num_samples": 1000, "fisher_batch_size": 1}  # m = 1,000 rows of b = 1 image

QUICK = Spec(
    paper="woodfisher",
    train=job_of("digits", "digits_cnn").train,
    finetune=job_of("digits", "digits_cnn").finetune,
    num_samples=1000,
)
