"""The paper's own settings on ImageNet, Tables 1, 4 and 5: cells whose names end in -paper."""

from __future__ import annotations

from dataclasses import replace

from common.cells.spec import Recipe, Spec


def tables() -> dict[str, dict[str, Spec]]:
    """The paper's own settings (Sec. 4, App. D) on ImageNet, from dense networks trained by "the
    Caffe model zoo (AlexNet and VGG16) or the original paper (ResNet50)": put them into
    DATA_DIR/checkpoints under the names below. Not stated, and ours: damping, batch sizes where the
    recipe is not the pre-training's, epochs until ResNet-50 has converged (README, Deviations)."""
    big = Spec(paper="nap", scale="paper", dataset="imagenet", num_samples=256)
    vgg, resnet, alexnet = (
        big.but(model=model, checkpoint=checkpoint)
        for model, checkpoint in (
            ("vgg16", "vgg16_caffe"),
            ("resnet50", "resnet50_original"),
            ("alexnet:columns=2", "alexnet_caffe"),
        )
    )
    # App. D: "remove 1% of the remaining channels ..., and fine-tune 0.2 epoch between", "less than
    # 8 epochs", then "1e-3 as the initial learning rate, decay to 1e-4 at 20 epochs and stop at 30
    # epochs. The weight decay term is set to 0"; ResNet by 10 at 10 and 20
    end = Recipe(
        epochs=30,
        lr=1e-3,
        batch_size=64,
        weight_decay=0.0,
        schedule="multistep",
        milestones=(20,),
        augment=True,
    )
    channel = {
        "method": "nap-channel",
        "unit_ratio": 0.01,
        "steps": 400,
        "step_schedule": "constant",
        "step_epochs": 0.2,
    }
    skip = {"skip": ["classifier.0", "classifier.3"], "batch_size": 16}
    slimmer = vgg.but(speedup=5.4, options=skip, finetune=end, **channel)
    tables = {
        "1": {
            "vgg16-5.4x-paper": slimmer,
            "resnet50-2.3x-paper": resnet.but(
                speedup=2.3, finetune=replace(end, milestones=(10, 20)), **channel
            ),
        }
    }
    tables["5"] = {
        f"vgg16-p{100 * p:g}-T{T:g}-paper": slimmer.but(unit_ratio=p, step_epochs=T)
        for p, T in ((0.005, 0.1), (0.01, 0.2), (0.02, 0.4), (0.05, 1), (0.1, 2))
    }
    # "to 50%, 25%, 12.5%, 6.25%, 5%, 4%. ... After each pruning, we retrain the network with the
    # same learning schedule as in the pre-training, with slightly lower weight decay (2e-4)".
    # Caffe's AlexNet: 450,000 iterations of 256 from 0.01, a tenth every 100,000. Its VGG-16 has no
    # solver; its authors' 74 epochs of 256 from 0.01 drop three times, at plateaus: here at
    # quarters
    halving = (0.5, 0.75, 0.875, 0.9375, 0.95, 0.96)
    retrain = Recipe(
        epochs=90,
        lr=0.01,
        batch_size=256,
        weight_decay=2e-4,
        schedule="multistep",
        milestones=(20, 40, 60, 80),
        augment=True,
    )
    longer = replace(retrain, epochs=74, milestones=(18.5, 37, 55.5))
    # "ResNet50 to 50%, 30%, 25%, 20%, 15%. ... simply use 1e-4 and train until the model converges"
    converge = Recipe(epochs=30, lr=1e-4, batch_size=64, augment=True)
    tables["4"] = {
        f"{name}-paper": base.but(
            method="nap", sparsity=levels[-1], levels=levels, between=recipe, finetune=recipe
        )
        for name, base, levels, recipe in (
            ("alexnet-25x", alexnet, halving, retrain),
            ("vgg16-25x", vgg, halving, longer),
            ("resnet50-6.7x", resnet, (0.5, 0.7, 0.75, 0.8, 0.85), converge),
        )
    }
    return tables
