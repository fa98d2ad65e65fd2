"""What can befall a run from outside: kills, Ctrl-C, a full or read-only disk, a second process.
Nothing is ever corrupted.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from PIL import Image

from common.cells.record import Record
from common.cells.spec import Recipe, Spec
from common.data import folders
from common.nets import checkpoint
from common.running import pipeline
from common.running import train as T
from common.running.cli import guarded, run
from tests.trust import crash
from tests.trust.crash import fingerprint, readable

pytestmark = pytest.mark.usefixtures("one_thread")

NET = [
    "--model",
    "digits_cnn:width=0.25",
    "--dataset",
    "synthetic:classes=3,samples=96",
    "--epochs",
    "0.5",
]
CELL = [*NET, "--num-samples", "32", "--sparsity", "0.5", "--allow-untrained"]
FLAGS = {"train": NET, "prune": CELL, "finetune": CELL}
TINY = {
    "model": "digits_cnn:width=0.25",
    "dataset": "synthetic:classes=3,samples=96",
    "num_samples": 32,
    "finetune": Recipe(epochs=0.5),
    "allow_untrained": True,
}


def verb(name, folder, *flags, before=lambda: None):
    """(status, standard error) of a verb's command line in a process of its own."""
    with tempfile.NamedTemporaryFile() as errors:
        status = crash.wait(launch(name, folder, *flags, errors=errors.name, before=before), 120)
        return status, Path(errors.name).read_text()


def launch(name, folder, *flags, errors=None, before=lambda: None):
    def work():
        before()
        if status := run("common", name, argv=[*FLAGS[name], "--output-dir", str(folder), *flags]):
            sys.stderr.flush()
            os._exit(status)

    return crash.launch(work, errors)


def one_line(done, *words):
    status, told = done
    assert status == 2, told
    lines = told.strip().splitlines()
    assert (
        len(lines) == 1
        and lines[0].startswith("error: ")
        and all(word in lines[0] for word in words)
    ), told


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 2 MB, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True
        ).returncode
    ):
        pytest.skip("a file system cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_few_kills(capsys):
    """`make crash` does sixty over all jobs."""
    assert crash.main(["--kills", "4", "--jobs", "prune,finetune", "--seed", "7"]) == 0, (
        capsys.readouterr().out
    )


def test_a_disk_that_is_full_and_then_is_not(tiny_disk, tmp_path):
    """Room for nothing, then for a file or two: one line each time, and what is there can be read.
    With room the run goes on to the end it would have had."""
    filler = tiny_disk / "filler"
    fill(filler)
    one_line(verb("finetune", tiny_disk / "runs"), "space")
    for _ in range(6):  # room for two pages more each time: a file or two further
        with filler.open("r+b") as file:
            file.truncate(filler.stat().st_size - 8192)
        one_line(verb("finetune", tiny_disk / "runs"), "space")
        assert not readable(tiny_disk / "runs")
    filler.unlink()
    assert verb("finetune", tiny_disk / "runs")[0] == 0
    assert verb("finetune", tmp_path / "straight")[0] == 0
    assert fingerprint(tiny_disk / "runs") == fingerprint(tmp_path / "straight")


def fill(path):
    """A file that takes all that is left."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def test_a_disk_that_only_reads(tiny_disk):
    spec = Spec(sparsity=0.5, output_dir=str(tiny_disk / "runs"), **TINY)
    pipeline.prune(spec)
    before = fingerprint(tiny_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    one_line(verb("finetune", tiny_disk / "runs"), "output_dir=", "Read-only")
    one_line(verb("prune", tiny_disk / "new"), "output_dir=", "Read-only")
    assert verb("prune", tiny_disk / "runs")[0] == 0  # what is there can be read
    assert fingerprint(tiny_disk) == before


def test_no_file_may_grow(tmp_path):
    """RLIMIT_FSIZE, which needs no mount: the limit that a quota is."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))

    one_line(verb("train", tmp_path / "runs", before=limit), "output_dir=")
    assert not [p for p in (tmp_path / "runs").rglob("*") if p.is_file() and p.name != ".lock"]
    assert verb("train", tmp_path / "runs")[0] == 0


def test_two_processes_on_one_cell_end_as_one(tmp_path):
    """Whoever comes second waits for the dense network, and is told of the cell; run again it finds
    all done.
    """
    pair = [
        (
            launch("finetune", tmp_path / "both", errors=tmp_path / f"errors{i}"),
            tmp_path / f"errors{i}",
        )
        for i in range(2)
    ]
    ended = [(crash.wait(child, 120), errors.read_text()) for child, errors in pair]
    for done in ended:
        if done[0]:
            one_line(done, "another process")
    assert 0 in [status for status, _ in ended]
    assert verb("finetune", tmp_path / "both")[0] == 0 == verb("finetune", tmp_path / "one")[0]
    assert fingerprint(tmp_path / "both") == fingerprint(tmp_path / "one")


def test_ctrl_c_stops_within_two_seconds_and_the_work_is_kept(tmp_path, monkeypatch):
    """In the middle of a training that would take minutes: status 130, one line, a snapshot that is
    taken up again.
    """
    monkeypatch.setattr(T, "SNAPSHOT_SECONDS", 0.0)
    errors, seen = tmp_path / "errors", tmp_path / "seen"
    child = launch("train", tmp_path / "runs", "--epochs", "5000", errors=errors)
    until = time.monotonic() + 60
    while not list(tmp_path.rglob("train-snapshot*")) and time.monotonic() < until:
        time.sleep(0.01)
    began = time.monotonic()
    os.kill(child, signal.SIGINT)
    assert crash.wait(child, 20) == 130 and time.monotonic() - began < 2
    assert errors.read_text().strip() == "stopped; run the same command again to go on"
    assert not readable(tmp_path / "runs") and not list(tmp_path.rglob("*.json"))
    snapshot, original = next(tmp_path.rglob("train-snapshot*")), T._resume

    def resumed(state, path):
        found = original(state, path)
        seen.write_text(str(state.step))
        os.kill(os.getpid(), signal.SIGKILL)
        return found

    monkeypatch.setattr(T, "_resume", resumed)
    crash.wait(launch("train", tmp_path / "runs", "--epochs", "5000"), 60)
    assert int(seen.read_text()) >= 1 and snapshot.exists()


def test_a_network_that_vanished_is_made_again_and_a_torn_one_is_named(tmp_path):
    spec = Spec(sparsity=0.5, output_dir=str(tmp_path), **TINY)
    record = pipeline.finetune(spec)
    folder = pipeline.cell_folder(spec)
    (folder / "finetuned.safetensors").unlink()
    again = pipeline.finetune(spec)
    assert (
        again.accuracy == record.accuracy
        and checkpoint.load(folder / "finetuned.safetensors").masks
    )
    whole = (folder / "pruned.safetensors").read_bytes()
    (folder / "pruned.safetensors").write_bytes(whole[:-100])
    (folder / "finetune.json").unlink()
    one_line(verb("finetune", tmp_path), "checkpoint=", "pruned.safetensors")
    shutil.rmtree(folder)
    assert pipeline.finetune(spec).accuracy == record.accuracy
    assert Record.read(folder / "finetune.json")


def test_trouble_of_the_machine_is_one_line_and_a_mistake_of_ours_is_not_hidden(capsys):
    def fail(error):
        raise error

    for error in (
        OSError(28, "No space left on device"),
        OSError(5, "Input/output error", "some/file"),
    ):
        assert guarded(lambda error=error: fail(error)) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"error: {error.strerror}") and len(told.splitlines()) == 1
    for error in (OSError("no number"), ValueError("ours"), RuntimeError("ours")):
        with pytest.raises(type(error)):
            guarded(lambda error=error: fail(error))


def test_a_half_written_cache_of_decoded_images_does_not_stay(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / "images" / name / f"{i}.png")
    cache = tmp_path / ".cache" / "images.npz"
    cache.parent.mkdir()
    old, fresh = (cache.parent / f".{cache.name}.{age}" for age in ("old", "fresh"))
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    folder = folders.scan(tmp_path / "images")
    folders.decoded.cache_clear()
    images = folders.decoded(folder, 8, cache)
    # another process may still be writing the fresh one
    assert fresh.exists() and not old.exists() and cache.exists()
    folders.decoded.cache_clear()
    assert (folders.decoded(folder, 8, cache) == images).all()
