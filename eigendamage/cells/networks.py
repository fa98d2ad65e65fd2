"""The networks of EigenDamage's cells, and how they are trained and fine-tuned.

Scales: paper is the paper's own setting, cpu the same methods on networks that two cores finish.
"""

from __future__ import annotations

from dataclasses import replace

from common.cells.jobs import job_of
from common.cells.spec import Recipe, Spec

# -- the paper's scale -----------------------------------------------------------------------------

# Sec. 5.1: SGD 150 epochs from 0.1, weight decay 2e-4, a tenth at 1/2 and 3/4 (batch: released
# code); then 150 epochs from 1e-3, weight decay 1e-4, the same decay. Statistics over all 50,000
# training images. "+L1": the settings of Liu et al. (2017), who start BatchNorm at 0.5 (preresnet29
# does, vgg19 here at 1).
DENSE = Recipe(
    epochs=150,
    lr=0.1,
    batch_size=128,
    weight_decay=2e-4,
    schedule="multistep",
    milestones=(75, 112.5),
    augment=True,
)
TUNE = Recipe(
    epochs=150,
    lr=1e-3,
    batch_size=128,
    weight_decay=1e-4,
    schedule="multistep",
    milestones=(75, 112.5),
    augment=True,
)
LIU = Recipe(
    epochs=160,
    lr=0.1,
    batch_size=64,
    weight_decay=1e-4,
    nesterov=True,
    schedule="multistep",
    milestones=(80, 120),
    augment=True,
)
PAPER = Spec(paper="eigendamage", scale="paper", train=DENSE, finetune=TUNE, num_samples=50_000)
RESNET_TUNE = replace(TUNE, batch_size=64)  # released code
NETWORKS = {
    "vgg19": PAPER.but(model="vgg19"),
    "vgg19-L1": PAPER.but(model="vgg19", train=replace(LIU, bn_l1=1e-4)),
    "resnet32": PAPER.but(model="resnet32:width=4,shortcut=B", finetune=RESNET_TUNE),
    "preresnet29-L1": PAPER.but(
        model="preresnet29:width=4", train=replace(LIU, bn_l1=1e-5), finetune=RESNET_TUNE
    ),
}
TINY_VGG = NETWORKS["vgg19"].but(
    dataset="tiny-imagenet",
    train=replace(DENSE, epochs=300, milestones=(150, 225)),
    num_samples=100_000,
)  # Sec. 5.1

# -- cpu scale -------------------------------------------------------------------------------------

# Labels: a network that fits its training set almost never draws a wrong one, so all ten take part,
# weighted by their probability ("exact"), on fewer images: a pass costs six times as much.
MNIST = Spec(paper="eigendamage", scale="cpu", dataset="mnist", num_samples=1_000)
# rate: at 0.02 one of three bottlenecked LeNet-300s diverged (three layers in a row, no BatchNorm),
# so all methods take a quarter of it
_LENET5 = MNIST.but(
    model="lenet5",
    train=job_of("mnist", "lenet5").train,
    finetune=Recipe(epochs=0.3, lr=0.005, batch_size=128, schedule="cosine"),
)
_LENET300 = MNIST.but(
    model="lenet300",
    checkpoint="lenet300_mnist",
    finetune=Recipe(epochs=1, lr=0.005, batch_size=128, schedule="cosine"),
)
_BN_TRAIN = replace(_LENET5.train, epochs=5, bn_l1=1e-4)
MNIST_NETWORKS = {
    # the L-OBS authors' network; 300 + 100 channels, 784 + 300 and 300 + 100 columns and rows
    "lenet300": _LENET300,
    "lenet5": _LENET5,  # 20 + 50 + 500 channels; 1 + 20, 20 + 50 and 800 + 500 columns and rows
}
# the same with BatchNorm and the pull on its scales, without which there is no NN Slimming
MNIST_BN = {
    "lenet300-bn-L1": _LENET300.but(model="lenet300:bn=1", checkpoint="", train=_BN_TRAIN),
    "lenet5-bn-L1": _LENET5.but(model="lenet5:bn=1", train=_BN_TRAIN),
}
# JPEG CIFAR-10: short schedules; "+L1" where NN Slimming needs it, as in Table 1
_SHORT = Recipe(
    epochs=10, lr=0.1, batch_size=128, weight_decay=2e-4, schedule="cosine", augment=True
)
_TUNE = Recipe(
    epochs=1,
    max_steps=150,
    lr=0.02,
    batch_size=128,
    weight_decay=1e-4,
    schedule="cosine",
    augment=True,
)
CIFAR = Spec(
    paper="eigendamage", scale="cpu", dataset="cifar10-jpeg", num_samples=500, finetune=_TUNE
)
CIFAR_NETWORKS = {
    # a public network trained on the original pixels, so it is tuned on the JPEG copy first
    "resnet32": CIFAR.but(
        model="resnet32",
        dataset="cifar10-jpeg:norm=imagenet",
        checkpoint="resnet32_cifar10",
        train=replace(_SHORT, epochs=2, lr=0.02, weight_decay=5e-4),
    ),
    "preresnet29-L1": CIFAR.but(model="preresnet29", train=replace(_SHORT, epochs=7, bn_l1=1e-5)),
    "vgg19-L1": CIFAR.but(model="vgg19:width=0.25", train=replace(_SHORT, bn_l1=1e-4)),
}
VGG = CIFAR_NETWORKS["vgg19-L1"]
# Figs. 4, 5, 6 and 8 prune VGG19 without the pull, trained until it fits: their premise is a
# gradient of zero
PLAIN_VGG = CIFAR.but(model="vgg19:width=0.25", amp=True, train=replace(_SHORT, epochs=30))
# Table 1 with a budget at which methods settle: ten epochs in the paper's shape (a tenth at 1/2 and
# 3/4), dense networks trained until they stop gaining, bfloat16. Costs on an idle core: a ResNet-32
# cell at 90% some 15 minutes, VGG19 and PreResNet-29 some 5
_TUNE10 = Recipe(
    epochs=10,
    lr=0.02,
    batch_size=128,
    weight_decay=1e-4,
    schedule="multistep",
    milestones=(5, 7.5),
    augment=True,
)
TEN_EPOCHS = {  # cpu150-, cpu782-: the same dense networks with a smaller budget
    "cpu10-resnet32": CIFAR_NETWORKS["resnet32"].but(amp=True, finetune=_TUNE10),
    "cpu10-preresnet29-L1": CIFAR_NETWORKS["preresnet29-L1"].but(
        amp=True, finetune=_TUNE10, train=replace(_SHORT, epochs=30, bn_l1=1e-5)
    ),
    "cpu10-vgg19": PLAIN_VGG.but(finetune=_TUNE10),
}
