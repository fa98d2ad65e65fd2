"""ImageNet networks as torchvision defines them, untrained, with ReLUs that leave their input alone."""

from __future__ import annotations

import torchvision
from torch import nn

from common.models.parts import require_colour, require_side


def out_of_place(model: nn.Module) -> nn.Module:
    """The model with every in-place ReLU made an ordinary one, so that hooks see what layers really computed."""
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return model


def alexnet(classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """torchvision's AlexNet (Krizhevsky 2014, one column). NAP prunes Caffe's grouped AlexNet of 60,954,656 weights instead.

    ImageNet: 61,100,840 parameters, 61,090,496 weights, 714,188,480 MACs.
    """
    require_colour("alexnet", input_shape)
    require_side("alexnet", input_shape, 63)
    return out_of_place(torchvision.models.alexnet(weights=None, num_classes=classes))


def vgg16_imagenet(classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """torchvision's VGG-16 (Simonyan & Zisserman 2015): no BatchNorm, two hidden layers of 4,096. `vgg16` picks it.

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
