"""ImageNet networks as torchvision defines them, untrained, with ReLUs that leave their input
alone.
"""

from __future__ import annotations

import torchvision
from torch import nn

from common.cells.errors import UserError
from common.nets.models.parts import require_colour, require_side


def out_of_place(model: nn.Module) -> nn.Module:
    """The model with every in-place ReLU made an ordinary one, so that hooks see what layers really
    computed.
    """
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return model


def alexnet(classes: int, input_shape: tuple[int, int, int], *, columns: int = 1) -> nn.Module:
    """torchvision's AlexNet (Krizhevsky 2014, one column) or, with columns=2, Caffe's: grouped
    convolutions 2, 4 and 5, and local response normalisation (Krizhevsky et al. 2012). Caffe crops
    227 pixels and pads none where 224 and two of padding are taken here.

    ImageNet: one column 61,100,840 parameters, 61,090,496 weights, 714,188,480 MACs; two columns
    60,965,224 and 60,954,656.
    """
    require_colour("alexnet", input_shape)
    require_side("alexnet", input_shape, 63)
    if columns not in (1, 2):
        raise UserError("model", f"alexnet:columns={columns}", "has one column or two")
    model = torchvision.models.alexnet(weights=None, num_classes=classes)
    if columns == 2:

        def convolution(cin: int, cout: int, size: int, **how: int) -> tuple[nn.Module, ...]:
            return nn.Conv2d(cin, cout, size, **how), nn.ReLU()

        def norm() -> tuple[nn.Module, ...]:
            return nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2)

        model.features = nn.Sequential(
            *convolution(3, 96, 11, stride=4, padding=2),
            *norm(),
            *convolution(96, 256, 5, padding=2, groups=2),
            *norm(),
            *convolution(256, 384, 3, padding=1),
            *convolution(384, 384, 3, padding=1, groups=2),
            *convolution(384, 256, 3, padding=1, groups=2),
            nn.MaxPool2d(3, 2),
        )
    return out_of_place(model)


def vgg16_imagenet(classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """torchvision's VGG-16 (Simonyan & Zisserman 2015): no BatchNorm, two hidden layers of 4,096.
    `vgg16` picks it.

    ImageNet: 138,357,544 parameters, 138,344,128 weights, 15,470,264,320 MACs.
    """
    require_colour("vgg16", input_shape)
    return out_of_place(torchvision.models.vgg16(weights=None, num_classes=classes))


def resnet50(classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """torchvision's ResNet-50 (He et al. 2016, v1.5: the stride is in the 3x3 convolutions).

    ImageNet: 25,557,032 parameters, 25,502,912 weights, 4,089,184,256 MACs.
    """
    require_colour("resnet50", input_shape)
    return out_of_place(torchvision.models.resnet50(weights=None, num_classes=classes))
