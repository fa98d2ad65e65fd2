"""Networks that are not of this repository.

    path/to/file.py:build, package.module:build   a function (common.system.code)
    torchvision:resnet18                           by torchvision.models.get_model
    timm:vit_tiny_patch16_224                      by timm.create_model
    own:<class>-<digest>                           an object that this process was given

The function may take `classes` (or num_classes) and `input_shape`, and gives an nn.Module.
"""

from __future__ import annotations

import functools
import inspect

from torch import nn

from common.cells.errors import UserError
from common.nets.clone import clone
from common.system import code

_given: dict[str, nn.Module] = {}


def give(model: nn.Module, digest: str) -> str:
    """A name for a network that is there already; what is built by it is a copy."""
    name = f"{code.GIVEN}:{type(model).__name__}-{digest[:12]}"
    _given[name] = model
    code.allow(name)
    return name


def build(name: str, classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """The network of one's own called `name`."""
    place, attribute, options = code.parts(name)
    if place == code.GIVEN:
        if name not in _given:
            raise UserError(
                "model",
                name,
                "is a network that another process was given",
                "build it, and load the weights into it (checkpoint.load_weights)",
            )
        return clone(_given[name])
    if place in code.LIBRARIES:
        make = functools.partial(_library, place, attribute, classes, input_shape, **options)
    else:
        found = code.function(name)
        wanted = inspect.signature(found).parameters
        known = {"classes": classes, "num_classes": classes, "input_shape": input_shape}
        make = functools.partial(found, **{k: v for k, v in known.items() if k in wanted})
    try:
        model = make()
    except UserError:
        raise
    except Exception as error:  # other people's code, whatever it raises
        line = (str(error).splitlines() or [""])[0]
        raise UserError(
            "model",
            name,
            f"building it failed ({type(error).__name__}: {line[:300]})",
            "its options come behind a colon, name:option=value",
        ) from error
    if not isinstance(model, nn.Module):
        raise UserError(
            "model", name, f"gives a {type(model).__name__}", "give a function that gives a Module"
        )
    return model


def _library(
    place: str, attribute: str, classes: int, shape: tuple[int, ...], **options
) -> nn.Module:
    module = code.load(place, f"{place}:{attribute}", "model")
    if place == "timm":
        channels = {"in_chans": shape[0]} if len(shape) == 3 else {}
        model = module.create_model(attribute, num_classes=classes, **channels | options)
    else:
        model = module.models.get_model(attribute, **{"num_classes": classes} | options)
    for part in model.modules():
        # hooks then see what layers really computed
        if hasattr(part, "inplace"):
            part.inplace = False
    return model
