"""VGG with BatchNorm in the CIFAR layout, and torchvision's VGG-16 for large images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.cells.errors import UserError
from common.nets.models.parts import kaiming_normal, require_side, scaled
from common.nets.models.torchvision_nets import vgg16_imagenet

IMAGENET_SIDE = 224


class VGG(nn.Module):
    """Stages of 3x3 conv - BatchNorm - ReLU at widths 64, 128, 256, 512, 512 with 2x2 max-pooling
    between them (four, none after the last), global average pooling, one fully connected layer.
    conv<stage>_<number> are the layers' names."""

    def __init__(self, depths: tuple[int, ...], classes: int, channels: int, width: float):
        super().__init__()
        self.features = nn.Sequential()
        for stage, (depth, full) in enumerate(
            zip(depths, (64, 128, 256, 512, 512), strict=True), start=1
        ):
            if stage > 1:
                self.features.add_module(f"pool{stage - 1}", nn.MaxPool2d(2))
            out = scaled(full, width)
            for number in range(1, depth + 1):
                self.features.add_module(
                    f"conv{stage}_{number}", nn.Conv2d(channels, out, 3, padding=1, bias=False)
                )
                self.features.add_module(f"bn{stage}_{number}", nn.BatchNorm2d(out))
                self.features.add_module(f"relu{stage}_{number}", nn.ReLU())
                channels = out
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)
        kaiming_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, c, h, w] -> [batch, classes]."""
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


def vgg19(classes: int, input_shape: tuple[int, int, int], *, width: float = 1.0) -> nn.Module:
    """EigenDamage's VGG19 (the CIFAR layout with BatchNorm and four pools), Kaiming-normal
    initialisation.

    CIFAR-10: 20,035,018 parameters, 20,024,000 weights, 398,136,320 MACs; CIFAR-100: 20,081,188
    parameters; Tiny-ImageNet: 20,132,488 parameters, 1,592,627,200 MACs.
    """
    require_side("vgg19", input_shape, 16)
    return VGG((2, 2, 4, 4, 4), classes, input_shape[0], width)


def vgg16(classes: int, input_shape: tuple[int, int, int], *, width: float = 1.0) -> nn.Module:
    """Two nets, chosen by the size of the images.

    From 224 pixels: `vgg16_imagenet`, which NAP and L-OBS prune; it has no `width`.
    ImageNet: 138,357,544 parameters, 138,344,128 weights, 15,470,264,320 MACs.
    Below: the CIFAR layout of `VGG` with 13 convolutions, Kaiming-normal initialisation.
    CIFAR-10: 14,724,042 parameters, 14,715,584 weights, 313,201,664 MACs.
    """
    if min(input_shape[1:]) < IMAGENET_SIDE:
        require_side("vgg16", input_shape, 16)
        return VGG((2, 2, 3, 3, 3), classes, input_shape[0], width)
    if width != 1:
        raise UserError(
            "model",
            f"vgg16:width={width:g}",
            f"the net for images of {IMAGENET_SIDE} pixels has no width option",
        )
    return vgg16_imagenet(classes, input_shape)
