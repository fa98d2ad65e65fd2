"""What a run says about where it ran: versions, device, memory, and the command, without any path
of the machine.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import hashlib
import logging
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import torch

from common.cells.errors import UserError
from common.system import distributed

ROOT = Path(__file__).resolve().parents[2]
STARTED = time.time()  # of this process, nearly
log = logging.getLogger(__name__)
_budget = contextvars.ContextVar("memory budget in GB", default=0.0)
M_MMAP_THRESHOLD = -3  # of malloc.h
# bytes from which blocks are given back under a memory budget, and the most that glibc takes
LARGE, LARGEST = 1 << 20, 1 << 25
OUTCOMES = ("*/results", "docs/evidence")  # folders of what came out, which no code depends on
PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "torch-pruning", "safetensors")


def device(name: str = "auto") -> torch.device:
    """ "auto" is CUDA where there is one, else Apple's MPS, else the CPU; any name torch knows is
    taken. Under torchrun each process of a machine has a GPU of its own."""
    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        chosen = torch.device(name)
        torch.empty(1, device=chosen)
        if chosen.type == "meta":
            raise RuntimeError("holds no values")
    except (RuntimeError, AssertionError, ImportError):
        raise UserError("device", name, "not available here", "use --device cpu or auto") from None
    return chosen


def curvature_device(where: torch.device) -> torch.device:
    """Where the curvature of a network on `where` is computed: there, or on the CPU where the
    device has no float64 (MPS).
    """
    return torch.device("cpu") if where.type == "mps" else where


def unsupported(error: Exception) -> UserError | None:
    """What torch says when a device lacks an operator or a type, as one line that names it; None
    for any other error.
    """
    text = str(error)
    if "MPS" not in text:
        return None
    found = re.search(r"operator '([^']+)'", text) or re.search(r"(float64|complex128)", text)
    return UserError(
        "device",
        "mps",
        f"has no {found[1]}" if found else text.splitlines()[0],
        "set PYTORCH_ENABLE_MPS_FALLBACK=1 for operators, or use --device cpu",
    )


def precision(where: torch.device) -> dict[str, str | bool]:
    """How this device rounds float32 products ("ieee", "tf32", or torch's default "none") and lays
    out images in training (train.fit). Curvature is float64 throughout, and bfloat16 (--amp) is a
    field of the Spec."""
    found: dict[str, str | bool] = {"channels_last": True}
    if where.type == "cuda":
        found |= {
            "matmul": torch.backends.cuda.matmul.fp32_precision,
            "conv": torch.backends.cudnn.conv.fp32_precision,
        }
    return found


@functools.cache
def code() -> tuple[str, bool]:
    """`git_state` of this checkout as it was at the first call, which running.Timer makes: what is
    committed while a stage runs did not make its result."""
    return git_state(ROOT)


def git_state(root: Path) -> tuple[str, bool]:
    """(commit, whether the code under `root` differs from it): a tracked file was changed, or a
    module is in no commit, which would run unnoticed. What came out, runs, data and other files
    that nobody has added decide nothing. ("", False) outside a checkout."""

    def run(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        ).stdout.strip()

    try:
        changed = run(
            "status",
            "--porcelain",
            "--untracked-files=no",
            "--",
            ".",
            *(f":(exclude,glob){part}/**" for part in OUTCOMES),
        )
        return run("rev-parse", "HEAD"), bool(
            changed or run("ls-files", "--others", "--exclude-standard", "--", "*.py")
        )
    except (OSError, subprocess.SubprocessError):
        return "", False


def edited_since(moment: float, root: Path = ROOT) -> bool:
    """Whether a module of `root` that this process has loaded changed on disk after `moment`
    (seconds since the epoch): which of the two versions ran is then anybody's guess."""
    inside, installed = f"{root}{os.sep}", f"{root}{os.sep}.venv{os.sep}"
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None) or ""
        with contextlib.suppress(OSError):
            if (
                file.startswith(inside)
                and not file.startswith(installed)
                and os.stat(file).st_mtime > moment
            ):
                return True
    return False


@functools.cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def cores() -> int:
    """How many cores this process may use, which under taskset, a container or Slurm are fewer than
    the machine has.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def load() -> float | None:
    """Runnable processes for each core of the machine, the mean of the last minute; None where the
    system does not say.
    """
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (OSError, AttributeError):
        return None


def contention(loads: Iterable[float | None]) -> dict[str, float | bool]:
    """For Record.provenance, of `load` at moments of a stage: mean and max, and whether others
    wanted more than the cores that the stage left over, so that its wall times mislead. {} where
    the system does not say."""
    known = [value for value in loads if value is not None]
    if not known:
        return {}
    return {
        "mean": round(sum(known) / len(known), 2),
        "max": round(max(known), 2),
        "contended": max(known) > 1.1,
    }


@functools.cache
def fingerprint() -> str:
    """Twelve hexadecimal digits that tell machines apart without naming them: a salted hash of what
    stays while one runs.
    """
    facts = [platform.node(), platform.machine(), _processor(), str(os.cpu_count())]
    with contextlib.suppress(OSError):
        facts.append(Path("/etc/machine-id").read_text().strip())
    return hashlib.sha256("\n".join(["second-order-pruning", *facts]).encode()).hexdigest()[:12]


def provenance(where: torch.device, seed: int, data_sha256: str = "") -> dict:
    """The record's provenance: git, dirty, versions, device, machine, load (of now), threads, seed,
    command, data_sha256.
    """
    commit, dirty = code()
    words = [_without_folders(word) for word in sys.orig_argv[1:]]
    name = (
        torch.cuda.get_device_name(where)
        if where.type == "cuda"
        else f"{_processor()}, {os.cpu_count()} cores"
    )
    return {
        "git": commit,
        "dirty": dirty or edited_since(STARTED),
        "versions": dict(_versions()),
        "device": name,
        "machine": fingerprint(),
        "load": contention([load()]),
        "threads": torch.get_num_threads(),
        "processes": distributed.world(),
        "precision": precision(where),
        "seed": seed,
        "command": "python " + shlex.join(words),
        "data_sha256": data_sha256,
    }


def _without_folders(word: str) -> str:
    """A word of a command without the folders of this machine: /home/me/data, --data-dir=/home/me,
    ~/data and checkpoints=["/a/b"] keep their last names alone."""

    def last_name(path: str) -> str:
        return re.split(r"[/\\]", path.rstrip("/\\"))[-1]

    start = r"(?:~[^/\s]*|[A-Za-z]:)?[/\\]"
    # a whole word or a quoted part of one may have blanks in it
    for edge, inside, end in ((r"^(?:-[-\w]+=)?", r"[^,;\"'\])}]*", "$"), ('"', '[^"]*', '"')):
        word = re.sub(
            f"({edge})({start}{inside})({end})",
            lambda found: found[1] + last_name(found[2]) + found[3],
            word,
        )
    return re.sub(
        r"(?<![^\s=:,;\"'\[({])(?:~[^/\s]*|[A-Za-z]:)?(?:[/\\][^/\\\s=,;\"'\])}]*)+",
        lambda found: last_name(found[0]),
        word,
    )


def reset_peak_memory() -> None:
    """Start a new measurement of the process's peak memory where the kernel lets us (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _status(field: str) -> int | None:
    """A field of the kernel's account of this process, in kB; None where there is none (Linux has
    it).
    """
    try:
        return next(
            int(line.split()[1])
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith(field)
        )
    except (OSError, StopIteration):
        return None


def resident_gb() -> float:
    """Memory that this process holds now, in GB; the peak where the system does not say."""
    held = _status("VmRSS")
    return peak_memory_mb() / 1024 if held is None else held / (1 << 20)


def peak_memory_mb() -> float:
    """Peak resident memory since `reset_peak_memory` (Linux), else since the process started, in
    MB.
    """
    peak = _status("VmHWM")
    if peak is not None:
        return peak / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


@contextlib.contextmanager
def memory_budget(gigabytes: float) -> Iterator[None]:
    """What jobs inside may take; 0 is 60% of what is free, which also holds outside."""
    token = _budget.set(gigabytes)
    try:
        if gigabytes:
            _give_back_from(LARGE)
        yield
    finally:
        _budget.reset(token)
        if gigabytes:
            _give_back_from(LARGEST)


def _give_back_from(size: int) -> None:
    """Have the C library (glibc) give blocks of `size` bytes and more back to the system as soon as
    they are freed. Left to itself it keeps ever larger ones, and what a process holds is then twice
    what its tensors take."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, size)
        ctypes.CDLL(None).malloc_trim(0)


def require_memory(what: str, gigabytes: float, remedy: str = "") -> None:
    """Say in the log what a job will take; UserError before it starts if that is above the memory
    budget.
    """
    if not fits(what, gigabytes):
        raise UserError(
            "memory_budget",
            float(f"{_limit():.3g}"),
            f"{what} would take about {gigabytes:.3g} GB",
            remedy or "raise --memory-budget",
        )


def fits(what: str, gigabytes: float) -> bool:
    """Say in the log what a job would take; whether the memory budget holds it."""
    log.log(
        logging.INFO if gigabytes > 0.5 else logging.DEBUG,
        "%s: about %.1f GB of %.1f",
        what,
        gigabytes,
        _limit(),
    )
    return gigabytes <= _limit()


def _limit() -> float:
    """The memory budget in GB."""
    return _budget.get() or 0.6 * free_memory_gb()


def shared_memory() -> int | None:
    """Bytes that processes can share now (/dev/shm); None where the system does not say."""
    try:
        state = os.statvfs("/dev/shm")
    except (OSError, AttributeError):
        return None
    return state.f_bavail * state.f_frsize


def free_memory_gb() -> float:
    """Memory that can be taken now, in GB."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) / (1 << 20)
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
