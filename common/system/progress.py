"""Progress that suits where it is seen: a tqdm bar with an ETA on a terminal, a log line now and
then otherwise.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 15.0
_quiet = contextvars.ContextVar("quiet", default=False)


class _Lines:
    """The part of tqdm's interface that is used here, as log lines."""

    def __init__(self, total: int | None, desc: str):
        self.total, self.desc, self.n, self._note = total, desc, 0, ""
        self._start = self._last = time.monotonic()

    def update(self, n: int = 1) -> None:
        self.n += n
        now = time.monotonic()
        if not self.n or now - self._last < SECONDS_BETWEEN_LINES:
            return
        self._last = now
        left = ""
        if self.total:
            eta = (now - self._start) / self.n * (self.total - self.n)
            left = f"/{self.total}, about {tqdm.format_interval(eta)} left"
        log.info("%s: %s%s %s", self.desc, self.n, left, self._note)

    def set_postfix_str(self, text: str, refresh: bool = False) -> None:
        self._note = text

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def progress(total: int | None, desc: str, unit: str = "it", leave: bool = False):
    """A context manager with update(n) and set_postfix_str(text)."""
    if _quiet.get() or (sys.stderr is not None and sys.stderr.isatty()):
        return tqdm(
            total=total, desc=desc, unit=unit, leave=leave, dynamic_ncols=True, disable=_quiet.get()
        )
    return _Lines(total, desc)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress from what runs inside: the caller has a bar of its own."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)
