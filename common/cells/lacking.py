"""What a file system may lack without harm to what is written on it."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

_LACKING = {
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EPERM,
    errno.EACCES,
    errno.EBADF,
}


@contextlib.contextmanager
def where_supported() -> Iterator[None]:
    """Around chmod of a file, or fsync of its folder, once the file itself is on the disk: some
    file systems (FAT, SMB, FUSE) have neither. Other errors, of a disk that fails, stay errors."""
    try:
        yield
    except OSError as error:
        if error.errno not in _LACKING:
            raise
