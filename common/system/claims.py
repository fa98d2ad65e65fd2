"""A folder held by one process, or by all processes of one run."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from common.cells.errors import Busy, UserError
from common.system import distributed

# what tempfile names beside the files of a stage (cells.record, nets.tensorfile)
HALF_WRITTEN = re.compile(r"\.[\w.-]+\.(json|safetensors)\.[a-z0-9_]{8}")
log = logging.getLogger(__name__)


@contextlib.contextmanager
def claim(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold `folder` for this process; the kernel lets go of it however the process ends.
    Half-written files of a killed predecessor are removed. Under torchrun the first process holds
    it for all, and none goes on before.

    Raises Busy where another process holds it, or with `wait` waits for that one to end."""
    if distributed.rank():
        distributed.barrier()
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # not through a link, whose target is anybody's
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        handle = os.fdopen(os.open(folder / ".lock", flags, 0o644), "rb")
    except OSError as error:
        raise UserError(
            "output_dir",
            folder.name,
            f"its .lock cannot be written ({error.strerror})",
            "choose another --output-dir",
        ) from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            if not wait:
                raise Busy(
                    "output_dir",
                    folder.name,
                    "another process is computing this cell",
                    "wait for it, or choose another --output-dir",
                ) from None
            log.info("waiting for another process that computes %s", folder.parent.name)
            fcntl.flock(handle, fcntl.LOCK_EX)
        for orphan in folder.iterdir():
            if HALF_WRITTEN.fullmatch(orphan.name) and not orphan.is_dir():
                orphan.unlink()
        distributed.barrier()
        yield


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process holds the folder so, then hold it. It is made if need be; no file
    is left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
