"""Kill the verbs and the comparison at random moments, run them again, and hold what is left to an
uninterrupted run.

    python -m tests.trust.crash [--kills 60] [--seed 0] [--jobs train,prune,finetune,compare]

Every run is a process of its own, forked from this one, which has torch loaded. It is killed by
SIGKILL after a random time or just before or after a random write reaches the disk, or stopped by
Ctrl-C, which it must obey within two seconds. After every kill each record and each network must be
readable; at the end they must be those of the uninterrupted run, and nothing else may be left.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from common.cells.errors import Parser, choose
from common.cells.record import Record
from common.cells.spec import Recipe, Spec
from common.commands import compare
from common.nets import checkpoint, tensorfile
from common.running import pipeline
from common.running import train as T
from common.running.cli import guarded

DATA = {
    "model": "digits_cnn:width=0.25",
    "dataset": "synthetic:classes=3,samples=96",
    "num_samples": 32,
    "train": Recipe(epochs=2.5, lr=0.05, batch_size=16, schedule="cosine", augment=True),
    "finetune": Recipe(epochs=1.5, lr=0.02, batch_size=16),
}
GRADUAL = {
    "method": "l-obs",
    "sparsity": 0.8,
    "steps": 3,
    "step_epochs": 0.5,
    "recalibrate_bn": 2,
    "damping": 1e-12,
}  # singular: the notes must survive, too


def _train(folder: Path) -> None:
    pipeline.train(Spec(output_dir=str(folder), **DATA))


def _prune(folder: Path) -> None:
    pipeline.prune(Spec(output_dir=str(folder), **DATA, **GRADUAL))


def _finetune(folder: Path) -> None:
    pipeline.finetune(Spec(output_dir=str(folder), method="eigendamage", unit_ratio=0.4, **DATA))


def _compare(folder: Path) -> None:
    compare.main(
        [
            "--dataset",
            DATA["dataset"],
            "--model",
            DATA["model"],
            "--methods",
            "obd-global,woodfisher,kron-obs",
            "--sparsities",
            "0.5",
            "--seeds",
            "2",
            "--train-epochs",
            "1",
            "--epochs",
            "0.5",
            "--num-samples",
            "32",
            "--output-dir",
            str(folder),
        ]
    )


def _callbacks(folder: Path) -> None:
    """Methods that go on while the network is tuned: between two prunings, and with masks that
    change.
    """
    steps = {"sparsity": 0.6, "steps": 3, "step_epochs": 0.5, "output_dir": str(folder)}
    pipeline.finetune(Spec(method="nap", **steps, **DATA))
    pipeline.finetune(Spec(method="dpf", **steps, **DATA))


JOBS: dict[str, Callable[[Path], None]] = {
    "train": _train,
    "prune": _prune,
    "finetune": _finetune,
    "callbacks": _callbacks,
    "compare": _compare,
}


@dataclass
class Tally:
    """What was done and what went wrong."""

    kills: int = 0
    stops: int = 0
    slowest_stop: float = 0.0
    problems: list[str] = field(default_factory=list)


# -- one process -----------------------------------------------------------------------------------


def launch(work: Callable[[], object], errors: Path | None = None) -> int:
    """A child of this process that does the work as a command line would, and ends with its status;
    returns once it has begun. errors: where its standard error goes."""
    ready, told = os.pipe()
    child = os.fork()
    if child:
        os.close(told)
        os.read(ready, 1)
        os.close(ready)
        return child
    status = 70
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(errors or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        sys.stdout, sys.stderr = (
            os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2)
        )
        signal.signal(signal.SIGINT, signal.default_int_handler)
        logging.disable(logging.WARNING)
        torch.set_num_threads(1)

        def begin() -> None:
            os.write(told, b".")
            work()

        status = guarded(begin)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(status)  # whatever happened, this is not the parent


def start(
    job: str, folder: Path, write: int = 0, after: bool = False, count: Path | None = None
) -> int:
    """A child that runs the job; with `write` it kills itself just before (or after) its so-manieth
    write reaches the disk. count: a file for how many there were."""

    def work() -> None:
        T.SNAPSHOT_SECONDS = 0.0  # a snapshot every step
        writes = _watch(write, after)
        JOBS[job](folder)
        if count:
            count.write_text(str(writes[0]))

    return launch(work)


def _watch(fatal: int, after: bool) -> list[int]:
    """Counts the calls that change the disk for good; SIGKILL at the so-manieth."""
    calls = [0]

    def counted(call: Callable) -> Callable:
        def watched(*args, **named):
            calls[0] += 1
            if calls[0] == fatal and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **named)
            if calls[0] == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return watched

    os.replace, os.fsync, os.chmod, Path.unlink = map(
        counted, (os.replace, os.fsync, os.chmod, Path.unlink)
    )
    return calls


def wait(child: int, seconds: float) -> int | None:
    """Its exit status (negative: the signal), or None if it still runs after that time."""
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            return None
        time.sleep(0.001)


# -- what it leaves --------------------------------------------------------------------------------


def readable(folder: Path) -> list[str]:
    """What of the finished files cannot be read."""
    problems = []
    for path in sorted(folder.rglob("[!.]*")):
        try:
            if path.suffix == ".json":
                Record.read(path)
            elif path.suffix == ".safetensors":
                tensorfile.read(path)
                if "snapshot" not in path.name:
                    checkpoint.load(path)
        except Exception as error:  # whatever it is, it is the finding
            problems.append(f"{path.name}: {type(error).__name__}: {error}")
    return problems


def fingerprint(folder: Path) -> dict[str, object]:
    """Every file below by its path: records without times and provenance, networks as the hash of
    their tensors.
    """
    found: dict[str, object] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"):
        name = str(path.relative_to(folder))
        if path.suffix == ".json":
            record = vars(Record.read(path)) | {"timing": None, "provenance": None}
            record["trajectory"] = [
                {k: v for k, v in entry.items() if k != "seconds"} for entry in record["trajectory"]
            ]
            found[name] = record
        elif path.suffix == ".safetensors":
            tensors, text = tensorfile.read(path)
            found[name] = tensorfile.digest(tensors, text)
        else:
            found[name] = "unexpected"
    return found


# -- trials ----------------------------------------------------------------------------------------


def uninterrupted(job: str, folder: Path) -> tuple[dict[str, object], float, int]:
    """(fingerprint, seconds, writes) of the job left in peace."""
    began, count = time.monotonic(), folder.parent / "writes"
    status = wait(start(job, folder, count=count), 300)
    seconds = time.monotonic() - began
    if status:
        raise RuntimeError(f"{job} fails by itself: status {status}")
    return fingerprint(folder), seconds, int(count.read_text())


def trial(
    job: str,
    folder: Path,
    truth: dict[str, object],
    seconds: float,
    writes: int,
    rng: random.Random,
    tally: Tally,
) -> None:
    """Run the job in `folder`, killed up to four times, until it ends by itself; then compare."""
    for attempt in range(rng.randint(1, 4)):
        how = rng.choice(("time", "write", "write", "stop"))
        label = f"{job} ({folder.name}, {how})"
        child = start(
            job,
            folder,
            rng.randint(1, max(1, writes >> attempt)) if how == "write" else 0,
            rng.random() < 0.5,
        )
        status = wait(child, 300 if how == "write" else rng.random() * seconds * 0.8**attempt)
        if status is None:
            os.kill(child, signal.SIGINT if how == "stop" else signal.SIGKILL)
            began = time.monotonic()
            status = wait(child, 20)
            if how == "stop":
                tally.stops += status == 130
                tally.slowest_stop = max(tally.slowest_stop, time.monotonic() - began)
                if status not in (0, 130):
                    tally.problems.append(f"{label}: Ctrl-C ended with status {status}")
        tally.kills += status == -signal.SIGKILL
        tally.problems += [f"{label}: {problem}" for problem in readable(folder)]
        if status == 0:
            break
    if (status := wait(start(job, folder), 300)) != 0:
        tally.problems.append(f"{job} ({folder.name}): run again it ends with status {status}")
        return
    found = fingerprint(folder)
    for name in sorted(set(truth) ^ set(found)):
        tally.problems.append(
            f"{job} ({folder.name}): {name} is {'left behind' if name in found else 'missing'}"
        )
    for name in sorted(set(truth) & set(found)):
        if truth[name] != found[name]:
            keys = (
                [k for k in truth[name] if truth[name][k] != found[name][k]]
                if isinstance(truth[name], dict)
                else ["tensors"]
            )
            tally.problems.append(
                f"{job} ({folder.name}): {name} differs from the uninterrupted run's in "
                f"{', '.join(keys)}"
            )


def main(argv: list[str] | None = None) -> int:
    """Kill until there are enough; 1 if anything went wrong."""
    p = Parser(description=__doc__)
    p.add_argument(
        "--kills", type=int, default=60, help="SIGKILLs at least, over all jobs (default: 60)"
    )
    p.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    p.add_argument(
        "--jobs", default=",".join(JOBS), help=f"comma-separated (default: {','.join(JOBS)})"
    )
    arguments = p.parse_args(argv)
    tally = Tally()

    def work() -> None:
        logging.disable(logging.WARNING)
        torch.set_num_threads(1)
        jobs = [choose("jobs", job, JOBS) for job in arguments.jobs.split(",")]
        number = hunt(jobs, arguments.kills, random.Random(arguments.seed), tally)
        sys.stdout.write(
            f"{tally.kills} kills and {tally.stops} Ctrl-C (slowest {tally.slowest_stop:.2f} s) "
            f"in {number} runs: "
            f"{len(tally.problems)} problems\n" + "".join(f"  {line}\n" for line in tally.problems)
        )

    quiet, threads = logging.root.manager.disable, torch.get_num_threads()
    try:
        return guarded(work) or int(bool(tally.problems) or tally.slowest_stop > 2)
    finally:  # a test calls this in its own process, where others wait for warnings
        logging.disable(quiet)
        torch.set_num_threads(threads)


def hunt(jobs: list[str], kills: int, rng: random.Random, tally: Tally) -> int:
    """Run the jobs in turn until so many kills were counted; how many runs it took."""
    number = 0
    with tempfile.TemporaryDirectory() as place:
        straight = {job: uninterrupted(job, Path(place) / job) for job in jobs}
        for job, (files, seconds, writes) in straight.items():
            sys.stdout.write(f"{job}: {seconds:.1f} s, {writes} writes, {len(files)} files\n")
        while tally.kills < kills:
            job = jobs[number % len(jobs)]
            folder = Path(place) / f"{number:03}"
            trial(job, folder, *straight[job], rng, tally)
            shutil.rmtree(folder, ignore_errors=True)
            number += 1
            sys.stdout.write(
                f"{number}: {job}, {tally.kills} kills, {len(tally.problems)} problems\n"
            )
            sys.stdout.flush()
    return number


if __name__ == "__main__":
    sys.exit(main())
