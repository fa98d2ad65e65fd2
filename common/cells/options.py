"""Reading the options of a mini-syntax name ("resnet32:width=4,shortcut=B") by the signature of the
function they are for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from common.cells.errors import UserError
from common.cells.spec import MAX_INT


def read_options(
    field: str, text: str, function: Callable, options: dict[str, str]
) -> dict[str, object]:
    """`options` as keyword arguments of `function`: its keyword-only parameters, each read as the
    type of its default.

    Raises UserError in `field`, whose whole value is `text`, for an unknown option or a value of
    the wrong type.
    """
    parameters = inspect.signature(function).parameters.values()
    known = {
        p.name: type(p.default) for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    values = {}
    for key, value in options.items():
        if key not in known:
            raise UserError(
                field,
                text,
                f"unknown option {key!r}",
                f"options here: {', '.join(known) or 'none'}",
            )
        try:
            values[key] = known[key](value)
            if isinstance(values[key], int) and abs(values[key]) > MAX_INT:
                raise ValueError("larger than 64 bits hold")
        except ValueError:
            raise UserError(
                field, text, f"cannot read {key}={value!r}", f"give {key} as {known[key].__name__}"
            ) from None
    return values
