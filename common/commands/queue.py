"""Work down a committed list of cells: one lane a core, finished cells skipped, what is left and
when it ends.

    python -m common.queue campaign.toml --list        what is done, what is left, what it costs
    python -m common.queue campaign.toml --lanes 2     two workers, each on a core of its own, one
                                                       thread
    python -m common.queue campaign.toml --publish     copy whole seeds to where records are
                                                       committed

common/commands/campaign.py says what a list holds. A lane takes the first cell that nobody holds;
while a dense network is being trained, the cells that need it are passed over. Kill anything at any
moment and run the same command again. What failed is not tried again at the same commit, unless
with --again.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from common.cells import committed
from common.cells.errors import Parser, UserError, whole
from common.cells.spec import Spec
from common.commands import campaign
from common.commands.campaign import Entry, Job
from common.running.cli import guarded
from common.system.shard import parse as parse_lane

POLL = 3.0  # seconds until a lane that found nothing free looks again
FAILED = "failed.txt"  # in a cell's folder: the commit, and what was said
PARENT = "QUEUE_PARENT"  # in a lane's environment: who started it


@contextlib.contextmanager
def holding(folders: Sequence[Path]) -> Iterator[bool]:
    """Whether this lane has all the folders to itself, which it then has until the end of the block
    or of the process.
    """
    with contextlib.ExitStack() as stack:
        yield all(_lock(stack, folder) for folder in folders)


def _lock(stack: contextlib.ExitStack, folder: Path) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        fcntl.flock(
            stack.enter_context((folder / "queue.lock").open("w")), fcntl.LOCK_EX | fcntl.LOCK_NB
        )
    except BlockingIOError:
        return False
    return not computing(folder)


def computing(folder: Path) -> bool:
    """Whether a process computes in the folder (running.claim), whoever started it."""
    try:
        with (folder / ".lock").open("r+") as claimed:
            fcntl.flock(claimed, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


class Lane:
    """A worker: the i-th of n. `run` goes through the list until all is finished or has failed."""

    def __init__(
        self, i: int, n: int, output: Path, commit: str, again: bool = False, threads: int = 1
    ):
        self.i, self.n, self.commit, self.again, self.started = i, n, commit, again, time.time()
        self.log = output / "queue" / f"lane{i}.log"
        self.environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
        }

    def run(self, jobs: Sequence[Job]) -> int:
        """How many jobs failed."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        todo, failed, parent = list(jobs), 0, os.environ.get(PARENT, "")
        while todo:
            if parent and str(os.getppid()) != parent:
                raise UserError(
                    "lane", f"{self.i}/{self.n}", "who started it is gone", "start the queue again"
                )
            for job in todo:
                if job.finished() or self.failed(job) or self.tried(job, jobs):
                    failed += self.failed(job)
                    todo.remove(job)
                    break
            else:
                time.sleep(POLL)
        return failed

    def failed(self, job: Job) -> bool:
        """Whether the job failed at this commit; with `again`, since this lane started."""
        note = job.folders[0] / FAILED
        return (
            note.exists()
            and note.read_text(encoding="utf-8").startswith(f"{self.commit} ")
            and (not self.again or note.stat().st_mtime >= self.started)
        )

    def tried(self, job: Job, jobs: Sequence[Job]) -> bool:
        """Run the job if nobody holds its folders, its dense network first if that is not there;
        whether the job has ended.
        """
        if job.training and not (job.dense / "train.json").exists():
            with holding([job.dense]) as free:
                if free and not (job.dense / "train.json").exists():
                    self._process(job, job.training, [job.dense / "train.json"], jobs)
                return self.failed(job)
        with holding(job.folders) as free:
            if free and not job.finished():
                self._process(job, job.command, job.records, jobs)
            return free and (job.finished() or self.failed(job))

    def _process(
        self, job: Job, command: Sequence[str], records: Sequence[Path], jobs: Sequence[Job]
    ) -> None:
        """Run a command, its words in the log; where it fails or leaves no records, the note says
        what it said last.
        """
        told = f"{command[1]} {job.name}"
        self._say(f"{told}; {campaign.forecast(campaign.left(jobs), self.n)}")
        start = time.monotonic()
        with self.log.open("ab") as out:
            out.write(f"# {datetime.now():%F %T} python {shlex.join(command)}\n".encode())
            out.flush()
            where = out.tell()
            # a cell that another process takes meanwhile is no error where there are two shards
            child = subprocess.Popen(
                [sys.executable, *command, "--shard", "1/2"],
                env=self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
            try:
                status = child.wait()
            except BaseException:
                child.terminate()
                child.wait()
                raise
        left = [path for path in records if not path.exists()]
        if not left:
            self._say(f"{told}: {(time.monotonic() - start) / 60:.1f} min")
        elif status == 0 and any(computing(path.parent) for path in left):
            self._say(f"{told}: in other hands")
        else:
            with self.log.open("rb") as said:
                said.seek(where)
                words = said.read().decode(errors="replace").split("\n")
            last = next((line.strip() for line in reversed(words) if line.strip()), "")
            why = f"{last} (status {status})" if status else "left no record"
            (job.folders[0] / FAILED).parent.mkdir(parents=True, exist_ok=True)
            (job.folders[0] / FAILED).write_text(f"{self.commit} {why}\n", encoding="utf-8")
            self._say(f"{told} FAILED: {why}")

    def _say(self, text: str) -> None:
        print(f"{datetime.now():%H:%M} lane {self.i}: {text}", flush=True)


def publish(jobs: Sequence[Job]) -> Iterator[str]:
    """Copy the records of every seed of an entry of which all cells lie in the output folder; one
    line a seed.
    """
    from common.commands.publish import publish as copy

    for entry in dict.fromkeys(job.entry for job in jobs):
        cells = [
            (spec, path, job.dense)
            for job in jobs
            if job.entry == entry
            for spec, path in zip(job.specs, job.records, strict=True)
        ]
        for seed in sorted({spec.seed for spec, *_ in cells}):
            mine = [cell for cell in cells if cell[0].seed == seed]
            missing = sum(not path.exists() for _, path, _ in mine)
            if missing:
                yield f"{entry.name}, seed {seed}: {missing} of {len(mine)} cells are not there yet"
                continue
            folders = {path.parent for _, path, _ in mine} | {dense for *_, dense in mine}
            count = copy(sorted(folders), _results(entry, mine[0][0]))
            yield f"{entry.name}, seed {seed}: {count} records"


def _results(entry: Entry, spec: Spec) -> Path:
    if entry.results:
        return committed.ROOT / entry.results
    return committed.results(spec.paper) / (spec.table if spec.paper == "compare" else "")


# -- the command line ------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status, 1 where a cell failed."""
    p = Parser(description=__doc__)
    p.add_argument("file", type=Path, help="the list of cells, a TOML file")
    p.add_argument(
        "--list", action="store_true", help="show what is left and when it ends, and stop"
    )
    p.add_argument(
        "--lanes", type=whole(), default=1, help="workers, each on cores of its own (default: 1)"
    )
    p.add_argument(
        "--lane", metavar="I/N", help="be the I-th of N lanes, the others being started elsewhere"
    )
    p.add_argument(
        "--threads", type=whole(), default=1, help="threads, and cores, of a lane (default: 1)"
    )
    p.add_argument(
        "--publish",
        action="store_true",
        help="copy the records of whole seeds to where they are committed, and stop",
    )
    p.add_argument("--again", action="store_true", help="try again what failed at this commit")
    p.add_argument(
        "--dirty",
        action="store_true",
        help="run from a tree that differs from its commit, for trying",
    )
    p.add_argument(
        "--only", default="", metavar="TEXT", help="only entries whose name contains this"
    )
    p.add_argument(
        "--output-dir", default=Spec.output_dir, help="where runs are kept (default: runs)"
    )
    p.add_argument(
        "--data-dir", default="", help="data root (default: $DATA_DIR, ./data, or ../data)"
    )
    arguments = p.parse_args(argv)
    failed: list[int] = []
    return guarded(lambda: failed.append(_main(arguments))) or int(any(failed))


def _main(a: argparse.Namespace) -> int:
    """How many cells failed."""
    i, n = parse_lane(a.lane) if a.lane else (1, a.lanes)
    entries = [entry for entry in campaign.read(a.file) if a.only in entry.name]
    if not entries:
        raise UserError(
            "only", a.only, "no entry has that in its name", f"see the names in {a.file}"
        )
    jobs = campaign.jobs(entries, a.output_dir, a.data_dir)
    if a.list or a.publish:
        print("\n".join(campaign.overview(jobs, n) if a.list else publish(jobs)))
        return 0
    from common.system import machine  # torch

    commit, dirty = machine.code()
    if (dirty or not commit) and not a.dirty:
        raise UserError(
            "tree",
            commit[:7],
            "differs from its commit, so that records would name code that did not run",
            "commit, or run from a clean clone; --dirty is for trying",
        )
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if cores and n * a.threads > len(cores):
        raise UserError(
            "lanes",
            n,
            f"times {a.threads} threads is more than the {len(cores)} cores",
            "start fewer",
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if a.lane or n == 1:
        if cores:
            os.sched_setaffinity(0, cores[(i - 1) * a.threads : i * a.threads])
        return Lane(i, n, Path(a.output_dir), commit, a.again, a.threads).run(jobs)
    print(campaign.forecast(campaign.left(jobs), n), flush=True)
    return _start(a, n)


def _start(a: argparse.Namespace, n: int) -> int:
    """Start the lanes and wait for them."""
    words = [
        str(a.file),
        "--threads",
        str(a.threads),
        "--only",
        a.only,
        "--output-dir",
        a.output_dir,
        "--data-dir",
        a.data_dir,
    ]
    words += ["--again"] * a.again + ["--dirty"] * a.dirty
    lanes = [
        subprocess.Popen(
            [sys.executable, "-m", "common.commands.queue", *words, "--lane", f"{i}/{n}"],
            env=os.environ | {PARENT: str(os.getpid())},
        )
        for i in range(1, n + 1)
    ]
    try:
        return sum(lane.wait() != 0 for lane in lanes)
    except BaseException:
        for lane in lanes:
            lane.terminate()
        for lane in lanes:
            lane.wait()
        raise


if __name__ == "__main__":
    sys.exit(main())
