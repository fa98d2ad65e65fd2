"""A method's options: its own defaults, then the registry's preset, then what the Spec says."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing

from common.cells import registry
from common.cells.errors import UserError
from common.cells.spec import MAX_INT, Spec

METHOD_FIELDS = ("scope", "fisher", "fisher_batch_size", "damping", "chunk", "recompute", "update")


def method_of(spec: Spec) -> tuple[typing.Callable, object]:
    """(prune function, its Options) for a Spec. Options are the method's own defaults, then the
    registry's preset, then what the Spec says. Raises UserError for a field that the method does
    not have, so that no setting is silently ignored."""
    entry = registry.lookup(spec.method)
    unit, other = (
        ("sparsity", "unit_ratio") if entry.kind == "weights" else ("unit_ratio", "sparsity")
    )
    if getattr(spec, unit) is None and spec.amount is not None:
        raise UserError(
            other,
            spec.amount,
            f"method {spec.method!r} removes {entry.kind}",
            f"give --{unit.replace('_', '-')}",
        )
    if entry.kind != "weights" and spec.steps > 1 and spec.step_schedule != "constant":
        raise UserError(
            "step_schedule",
            spec.step_schedule,
            f"every step of {spec.method!r} removes its ratio of the units that are left",
            "use the constant schedule",
        )
    given = {name: getattr(spec, name) for name in METHOD_FIELDS if getattr(spec, name) is not None}
    given |= {
        name: tuple(v) if isinstance(v, list) else v
        for name, v in spec.options
        if name != "layer_sparsity"
    }
    return resolved(spec.method, given)


def resolved(method: str, given: dict[str, object]) -> tuple[typing.Callable, object]:
    """(prune function, its Options) of a method with what is `given` laid over its own defaults and
    its preset. Raises UserError for an option that it does not have, a value of another type, and
    one that contradicts the method's name."""
    entry, function = registry.lookup(method), registry.load(method)
    kind = typing.get_type_hints(function)["options"]
    known = {f.name for f in dataclasses.fields(kind)}
    types_of = typing.get_type_hints(kind)
    for name, value in given.items():
        if name not in known:
            raise UserError(
                name,
                value,
                f"method {method!r} has no such option",
                f"its options: {', '.join(sorted(known))}",
            )
        if not _is_a(value, types_of[name]):
            hint = types_of[name]
            raise UserError(
                name,
                value,
                "has the wrong type",
                f"give {hint.__name__ if isinstance(hint, type) else hint}",
            )
        if name in entry.preset and entry.preset[name] != value:
            raise UserError(
                name,
                value,
                f"contradicts method {method!r}",
                "choose the method whose name says it",
            )
    return function, kind(**entry.preset | given)


def _is_a(value: object, hint: object) -> bool:
    """Whether an option's value, perhaps from a command line, is of its field's type; numbers must
    be finite.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_is_a(value, part) for part in parts)
    if origin is tuple:
        inner = (
            parts[:1] * len(value) if isinstance(value, tuple) and parts[1:] == (...,) else parts
        )
        return (
            isinstance(value, tuple) and len(value) == len(inner) and all(map(_is_a, value, inner))
        )
    if hint in (int, float):
        number = isinstance(value, int | hint) and not isinstance(value, bool)
        return number and abs(value) <= (MAX_INT if isinstance(value, int) else sys.float_info.max)
    return isinstance(value, origin or hint) if isinstance(origin or hint, type) else True
