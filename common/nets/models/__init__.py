"""Networks by name. `build("resnet32:width=4,shortcut=B", classes, input_shape, seed)`; every net
returns logits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import nn

from common.cells.errors import UserError, choose
from common.cells.options import read_options
from common.cells.registry import imported
from common.cells.spec import is_own, split_options

# "module:builder" below this package, imported when the network is asked for. A builder(classes,
# input_shape, *, options) has as keyword-only parameters what may follow the name's colon
MODELS: dict[str, str] = {
    "digits_cnn": "digits:digits_cnn",
    "lenet300": "mlp:lenet300",
    "lenet5": "lenet:lenet5",
    "cifarnet": "lenet:cifarnet",
    "mlpnet": "mlp:mlpnet",
    "cifarnet_fc": "mlp:cifarnet_fc",
    "vgg19": "vgg:vgg19",
    "vgg16": "vgg:vgg16",
    "resnet20": "resnet:resnet20",
    "resnet32": "resnet:resnet32",
    "resnet56": "resnet:resnet56",
    "preresnet29": "preresnet:preresnet29",
    "alexnet": "torchvision_nets:alexnet",
    "mobilenet_v1": "mobilenet:mobilenet_v1",
    "efficientnet_lite0": "efficientnet:efficientnet_lite0",
    "resnet50": "torchvision_nets:resnet50",
}

MAX_CLASSES, MAX_SIDE = 1_000_000, 16_384


def named(name: str) -> tuple[Callable[..., nn.Module], dict[str, object]]:
    """(builder, options) of a network's name; UserError for an unknown name, option or kind of
    value.
    """
    if is_own(name) and name.partition(":")[0] not in MODELS:
        from common.nets.models import own

        return functools.partial(own.build, name), {}
    base, options = split_options(name, "model")
    builder = imported(f"{__name__}.{MODELS[choose('model', base, MODELS)]}")
    return builder, read_options("model", name, builder, options)


def build(
    name: str, classes: int, input_shape: tuple[int, int, int], generator_seed: int | None = None
) -> nn.Module:
    """The network called `name` for `classes` classes and images of `input_shape` (c, h, w), in
    training mode on the CPU; a network of one's own (own.py) as its function gives it.

    Its initialisation is decided by `generator_seed`; None takes the global generator as it stands.
    Either way the global generator is left as it was. Raises UserError for an unknown name or
    option, and for images the net cannot take.
    """
    builder, values = named(name)
    if is_own(name):
        return _seeded(generator_seed, builder, classes, tuple(input_shape))
    if not 2 <= classes <= MAX_CLASSES:
        raise UserError("classes", classes, f"must be between 2 and {MAX_CLASSES:,}")
    if len(input_shape) != 3 or not 1 <= min(input_shape) <= max(input_shape) <= MAX_SIDE:
        raise UserError(
            "input_shape",
            input_shape,
            f"must be (channels, height, width), each between 1 and {MAX_SIDE:,}",
        )
    return _seeded(generator_seed, builder, classes, tuple(input_shape), **values)


def _seeded(seed: int | None, builder: Callable, *shape: object, **values: object) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        return builder(*shape, **values)
