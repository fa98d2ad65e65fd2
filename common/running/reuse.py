"""What a finished stage must share with the one that is asked for before it is used again: content,
and not names.

A record's `identity` holds what decided its result: the Spec's fields, the method's resolved
options, and the digests of the data, of the checkpoint that the network started from, and of the
network file that the stage wrote. Every use of a finished stage compares them. Records from before
there was an identity are compared in what they hold.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from pathlib import Path

import torch

from common.cells.errors import UserError
from common.cells.record import Record
from common.cells.spec import NAMING, Spec
from common.nets import tensorfile
from common.running.places import file_sha256

SHOWN = 12  # hexadecimal digits of a digest in a message
COMPARED = {
    "data_sha256": "the data",
    "data_content_sha256": "the data",
    "checkpoint_sha256": "the checkpoint",
    "dense_hash": "the dense network",
    "options": "the method's options",
}
log = logging.getLogger(__name__)


def identity(
    spec: Spec, options: dict, data_sha256: str, content_sha256: str, checkpoint: Path | None
) -> dict:
    """What decides a stage's result. options: the method's, resolved; {} for a dense network.
    content_sha256: of every pixel and label, "" for data that are not held in memory. checkpoint:
    the file that the network starts from, None for an initialisation."""
    return {
        "naming": NAMING,
        "spec": spec.identity(),
        "options": json.loads(json.dumps(options)),
        "data_sha256": data_sha256,
        "data_content_sha256": content_sha256,
        "checkpoint_sha256": file_sha256(checkpoint) if checkpoint else "",
    }


def mark(wanted: dict) -> str:
    """Eight hexadecimal digits of an identity: the name of the half-done work that goes on only
    under the same one.
    """
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:8]


def require_same(record: Record, path: Path, wanted: dict) -> None:
    """Raise UserError, naming what differs and both values, where the record was made of something
    else than is asked for.
    """
    try:
        made = Spec.from_dict(record.spec).identity()
    except (UserError, TypeError) as error:
        raise UserError(
            "record",
            str(path),
            f"has a spec that cannot be read ({error})",
            "delete it to compute the cell again",
        ) from None
    for name in sorted(made.keys() | wanted["spec"].keys()):
        if made.get(name) != wanted["spec"].get(name):
            _refuse(
                path, name, made.get(name, "the default"), wanted["spec"].get(name, "the default")
            )
    before = record.identity or {"data_sha256": record.provenance.get("data_sha256", "")}
    if not record.identity:
        _say_once(
            f"{path.parent.parent.parent} has records from before records held an identity: "
            "compared by spec and data alone"
        )
    for name, what in COMPARED.items():
        old, new = before.get(name), wanted.get(name)
        if (
            name == "data_sha256"
            and before.get("data_content_sha256")
            and wanted.get("data_content_sha256")
        ):
            # of known sets it is of names and sizes, which a copy of the same pixels need not share
            continue
        if old not in (None, "") and new is not None and old != new:
            _refuse(path, what, _short(old, new), _short(new, old))
        if name == "checkpoint_sha256" and record.identity and not old and new:
            _refuse(path, what, "none", _short(new, ""))
    _tell_threads(record, path)


def _tell_threads(record: Record, path: Path) -> None:
    """Say in the log where other threads made the record: it is used all the same."""
    made, here = record.provenance.get("threads"), torch.get_num_threads()
    if made not in (None, here):
        _say_once(
            f"{path.parent.parent.parent} has records of {made} threads, this process has {here}: "
            "sums are rounded in another "
            "order, so what is computed now is not bit for bit what those threads would give"
        )


def require_file(record: Record, path: Path, network: Path) -> None:
    """Raise UserError where the network file beside the record is not the one that the stage
    wrote.
    """
    written = record.identity.get("file_sha256")
    if not written:
        return
    found = tensorfile.stated_digest(network)
    if found != written:
        raise UserError(
            "checkpoint",
            str(network),
            f"is not the file that {path.name} speaks of: {written[:SHOWN]} there, here "
            f"{found[:SHOWN] if found else 'none of ours, or damaged'}",
            "delete both to compute the cell again",
        )


def _refuse(path: Path, what: str, made: object, asked: object) -> None:
    raise UserError(
        "record",
        str(path),
        f"was made with another value of {what}: {made}, asked for is {asked}",
        "give another --output-dir to keep both, or delete that folder",
    )


def _short(value: object, other: object) -> object:
    """A digest's first digits; of options those that differ."""
    if isinstance(value, dict):
        other = other if isinstance(other, dict) else {}
        return (
            ", ".join(f"{k}={v!r}" for k, v in sorted(value.items()) if other.get(k) != v)
            or "none of those"
        )
    return str(value)[:SHOWN]


@functools.cache
def _say_once(line: str) -> None:
    log.info("%s", line)
