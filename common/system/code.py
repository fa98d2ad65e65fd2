"""Functions of other people's code, by a name that says where they are.

    path/to/file.py:build           a function of a file
    package.module:build            a function of an installed package

Options follow behind one more colon: file.py:build:width=64,depth=2. A name counts only where a
person gave it to this process (a command line, a list of cells, common.compare): a file that names
code runs nothing.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from common.cells.errors import UserError
from common.cells.spec import is_own, split_options

LIBRARIES = ("torchvision", "timm")
GIVEN = "own"  # the place of what this process was given as an object
log = logging.getLogger(__name__)
_allowed: set[str] = set()


def parts(name: str, field: str = "model") -> tuple[str, str, dict[str, object]]:
    """(file, module or library; attribute; options) of a name. Options are read as JSON, else as
    text."""
    place, _, rest = name.partition(".py:") if ".py:" in name else name.partition(":")
    place += ".py" if ".py:" in name else ""
    attribute, texts = split_options(rest, field)
    options: dict[str, object] = {}
    for key, text in texts.items():
        try:
            options[key] = json.loads(text)
        except ValueError:
            options[key] = text
    return place, attribute, options


def allow(name: str) -> None:
    """A person gave this name to this process: its code may run."""
    _allowed.add(name)


def require_allowed(name: str, digest: str) -> None:
    """Raise UserError for a network that a file names and nobody else, or whose source is another
    than the file says."""
    if name not in _allowed:
        raise UserError(
            "checkpoint",
            name,
            "its network is built by code that this process was not given",
            "give --model with that name, or build the network and load the weights into it",
        )
    if (here := source_digest(name)) != digest:
        raise UserError(
            "checkpoint",
            name,
            f"was saved from another version of that code: {digest}, here {here}",
            "take the file back to that version, or build the network and load the weights",
        )


def source_digest(name: str, field: str = "model") -> str:
    """Sixteen hexadecimal digits of the source: of the file's bytes, or of a library's version."""
    place, attribute, _ = parts(name, field)
    if place == GIVEN:
        return attribute.rpartition("-")[2]
    if place in LIBRARIES:
        try:
            text = f"{place} {importlib.metadata.version(place)}".encode()
        except importlib.metadata.PackageNotFoundError:
            text = place.encode()  # building says that it is missing
    else:
        text = _file_of(place, name, field).read_bytes()
    return hashlib.sha256(text).hexdigest()[:16]


def function(name: str, field: str = "model") -> Callable:
    """The function that a name means, its options bound. Raises UserError, in one line, for what is
    not there or cannot be imported."""
    place, attribute, options = parts(name, field)
    module = load(place, name, field)
    found = getattr(module, attribute, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if inspect.isroutine(value)]
        raise UserError(
            field, name, f"{place} has no function {attribute!r}", f"it has {', '.join(known[:20])}"
        )
    try:
        parameters = inspect.signature(found).parameters
    except (TypeError, ValueError):  # of what is not written in Python
        return functools.partial(found, **options)
    loose = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    unknown = [] if loose else [key for key in options if key not in parameters]
    if unknown:
        known = [p for p in parameters if p not in ("classes", "num_classes", "input_shape")]
        raise UserError(
            field,
            name,
            f"unknown option {unknown[0]!r}",
            f"options here: {', '.join(known) or 'none'}",
        )
    return functools.partial(found, **options)


def _file_of(place: str, name: str, field: str) -> Path:
    """Where the source of a file or module lies."""
    if place.endswith(".py"):
        path = Path(place).expanduser()
        if path.is_file():
            return path
        raise UserError(field, name, "no such file", "give a path to a Python file")
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError, AttributeError):
        spec = None
    if spec is None or not spec.origin:
        raise UserError(
            field,
            name,
            f"there is no module {place!r}",
            "install it, or give path/to/file.py:function",
        )
    return Path(spec.origin)


@functools.cache
def load(place: str, name: str, field: str) -> ModuleType:
    """The module, imported once; said once, for it is other people's code."""
    if place in LIBRARIES:
        try:
            return importlib.import_module(place)
        except ImportError:
            raise UserError(
                field, name, f"needs the package {place}", f"install it: pip install {place}"
            ) from None
    path = _file_of(place, name, field)
    log.info("runs the code of %s, for %s %s", path, field, name)
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        key = f"own_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
        spec = importlib.util.spec_from_file_location(key, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[key] = module  # dataclasses and copies look their module up
        if (folder := str(path.resolve().parent)) not in sys.path:
            sys.path.append(folder)  # for the files that it imports from beside it
        spec.loader.exec_module(module)
        return module
    except UserError:
        raise
    except Exception as error:  # other people's code, whatever it raises
        line = (str(error).splitlines() or [""])[0]
        raise UserError(
            field,
            name,
            f"importing {place} failed ({type(error).__name__}: {line[:300]})",
            "run that file alone to see where",
        ) from error


__all__ = ["GIVEN", "LIBRARIES", "allow", "function", "is_own", "load", "parts", "source_digest"]
