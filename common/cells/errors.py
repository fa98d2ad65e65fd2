"""Errors that a person can act on. The command line turns a UserError into one line and exit status
2.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterable
from typing import NoReturn

MAX_SHOWN = 1_000  # characters of a value in a message


class UserError(ValueError):
    """Bad input: names the field, the value that was given, what is wrong and what to do."""

    def __init__(self, field: str, value: object, problem: str, remedy: str = ""):
        self.field, self.value, self.problem, self.remedy = field, value, problem, remedy
        super().__init__(
            printable(f"{field}={_shown(value)}: {problem}" + (f"; {remedy}" if remedy else ""))
        )


class NumericalError(ArithmeticError):
    """Numeric trouble that has no finite answer; names the layer."""

    def __init__(self, layer: str, problem: str, remedy: str = ""):
        self.layer = layer
        super().__init__(f"layer {layer!r}: {problem}" + (f"; {remedy}" if remedy else ""))


class LayerError(TypeError):
    """A layer that an algorithm cannot treat correctly (unknown kind, reused, tied); names the
    layer.
    """

    def __init__(self, layer: str, problem: str):
        self.layer, self.problem = layer, problem
        super().__init__(f"layer {layer!r}: {problem}")


def printable(text: str) -> str:
    """One line without a terminal's escape codes: names and messages of files hold anything."""
    text = " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).split())
    return "".join(c if c.isprintable() else "?" for c in text)


def _shown(value: object) -> str:
    """repr, shortened; of a number that Python does not write out, its size."""
    try:
        text = repr(value)
    except ValueError:
        return "<a number of thousands of digits>"
    except RecursionError:
        return "<nested too deep to show>"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that complains in one line, with status 2; its description keeps its line
    breaks.
    """

    def __init__(self, **options):
        super().__init__(
            **{"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
            | options
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {printable(message)[:MAX_SHOWN]}; see --help\n")


def whole(least: int = 1) -> Callable[[str], int]:
    """An argparse type: a whole number of at least `least`."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return value

    return number


def number(least: float = 0.0) -> Callable[[str], float]:
    """An argparse type: a finite number of at least `least`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= least):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a finite number of at least {least:g}"
            )
        return value

    return read


def choose(field: str, value: str, known: Iterable[str]) -> str:
    """`value` if it is one of `known`; otherwise a UserError that lists them."""
    known = list(known)
    if value not in known:
        raise UserError(field, value, "unknown", f"choose one of: {', '.join(known)}")
    return value


def require(holds: bool, field: str, value: object, problem: str, remedy: str = "") -> None:
    """Raise UserError with the other arguments unless `holds`."""
    if not holds:
        raise UserError(field, value, problem, remedy)


class Busy(UserError):
    """Another process holds the folder."""
