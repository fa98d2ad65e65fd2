"""The clock of a long computation."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from common.system import machine


class Timer:
    """Seconds per named phase, processor seconds and peak memory since it was made, and the
    machine's load meanwhile.
    """

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self.resumed = False
        self._cpu, self._loads = _cpu_seconds(), [machine.load()]
        machine.code()
        machine.reset_peak_memory()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's duration to `<name>_s`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[f"{name}_s"] = (
                self.seconds.get(f"{name}_s", 0.0) + time.perf_counter() - start
            )
            self._loads.append(machine.load())

    def report(self) -> dict[str, float | bool]:
        """For Record.timing. core_s: processor seconds of all threads, which a busy machine
        stretches less than wall time. resumed: the stage went on from half-done work, and all these
        seconds are those since."""
        return (
            {name: round(s, 4) for name, s in self.seconds.items()}
            | {
                "core_s": round(_cpu_seconds() - self._cpu, 4),
                "peak_rss_mb": round(machine.peak_memory_mb(), 1),
            }
            | ({"resumed": True} if self.resumed else {})
        )

    def load(self) -> dict[str, float | bool]:
        """For Record.provenance: the machine's load at the start and after each phase."""
        return machine.contention(self._loads)


def _cpu_seconds() -> float:
    """Of this process with all its threads, and of its children that have ended."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system
