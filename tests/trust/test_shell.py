"""The edge of the program: hostile flags, environments, files and file systems. Each is one line
and status 2, at once; nothing outside the run's own folders is written, emptied or deleted.
"""

import gzip
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from common.cells.errors import UserError
from common.cells.library import read_all
from common.cells.record import Record
from common.cells.spec import Spec
from common.commands import publish as publishing
from common.data import sources as data
from common.nets import checkpoint, models
from common.running.cli import run
from common.system import machine
from common.system.claims import claim

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("one_thread")
HUGE, LONG = "9" * 400, "9" * 5_000  # beyond a float, and beyond what Python reads as a number
DEEP = "[" * 30_000
BASE = ["--model", "digits_cnn:width=0.125", "--dataset", "synthetic:classes=3,samples=48"]
BASE += ["--allow-untrained", "--device", "cpu", "--sparsity", "0.5", "--epochs", "0"]


def one_line(argv, folder, capsys, verb="prune"):
    """What the command says: one line, with status 2, within seconds."""
    began = time.monotonic()
    try:
        status = run("common", verb, argv=[*BASE, "--output-dir", str(folder), *argv])
    except SystemExit as stop:
        status = stop.code
    told = capsys.readouterr()
    lines = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert status == 2 and len(lines) == 1 and told.err.splitlines()[-1] == lines[0], told
    assert len(lines[0]) < 2_100 and lines[0].isprintable() and time.monotonic() - began < 20
    assert not list(folder.rglob("prune.json"))
    return lines[0]


FLAGS = {
    "--sparsity": (HUGE, LONG),
    "--damping": (HUGE, "1e400"),
    "--seed": (HUGE, LONG, str(1 << 63)),
    "--num-samples": (HUGE, LONG),
    "--fisher-batch-size": (HUGE,),
    "--recompute": (HUGE,),
    "--batch-size": (HUGE,),
    "--chunk": (HUGE, LONG, "²", "1_0.0", "\x1b[31m"),
    "--epochs": (HUGE, "1e300"),
    "--lr": (HUGE,),
    "--speedup": (HUGE,),
    "--memory-budget": (HUGE,),
    "--step-ratio": ("1e-9", "1e-300"),
    "--model": (f"digits_cnn:width={HUGE}", f"lenet300:bn={HUGE}", "\x1b[31mred"),
    "--dataset": (
        f"synthetic:classes={HUGE}",
        "synthetic:classes=999999999,samples=9999999999",
        "synthetic:samples=999999999999999",
        "synthetic:size=99999",
        f"synthetic:seed={HUGE}",
        "synthetic:seed=-1",
        f"mnist:shift={HUGE}",
    ),
    "--device": ("cuda:99", "cuda:-1", "cpu:-1", "meta", "xla", "hpu", "privateuseone", ""),
    "--shard": (f"{HUGE}/1", "²/²", "1/0"),
    "--option": (
        f"num_rows={HUGE}",
        f"num_rows={LONG}",
        f"damping={HUGE}",
        f"num_rows={DEEP}",
        "num_rows={}",
        "skip=5",
        "layer_sparsity=5",
        "layer_sparsity=[1]",
        'layer_sparsity={"fc1": "x"}',
        'layer_sparsity={"fc1": [[]]}',
        'layer_sparsity={"fc1": 2}',
        f'layer_sparsity={{"fc1": {HUGE}}}',
        'layer_sparsity={"fc1": null}',
    ),
}


@pytest.mark.parametrize(
    ("flag", "value"),
    [(flag, value) for flag, values in FLAGS.items() for value in values],
    ids=lambda text: ascii(text)[:40],
)
def test_flags_out_of_all_bounds(flag, value, tmp_path, capsys):
    method = ["--method", "woodfisher"] if flag in ("--option", "--damping", "--chunk") else []
    method = (
        method or ["--method", "woodfisher"]
        if flag in ("--fisher-batch-size", "--recompute")
        else method
    )
    told = one_line([*method, flag, value], tmp_path, capsys)
    assert len(told) > 20


def test_an_empty_device_is_named():
    with pytest.raises(UserError, match="device"):
        machine.device("")


WRONG_FIELDS = [
    {"seed": 10**400},
    {"seed": 1.5},
    {"seed": True},
    {"seed": None},
    {"sparsity": "half"},
    {"sparsity": 10**400},
    {"model": 5},
    {"dataset": None},
    {"levels": 5},
    {"levels": ["x"]},
    {"levels": [10**400]},
    {"options": 5},
    {"options": [1]},
    {"options": [[1, 2, 3]]},
    {"train": 5},
    {"train": {"lr": 10**400}},
    {"train": {"lr": "fast"}},
    {"train": {"speed": 1}},
    {"finetune": {"milestones": 5}},
    {"finetune": {"milestones": [[]]}},
    {"finetune": {"epochs": 1e300}},
    {"between": []},
    {"steps": 10**400},
    {"chunk": []},
    {"memory_budget": {}},
]


@pytest.mark.parametrize("fields", WRONG_FIELDS, ids=lambda f: ascii(f)[:40])
def test_fields_of_a_wrong_type_or_size(fields):
    """As a record or a caller may give them."""
    with pytest.raises(UserError) as caught:
        Spec.from_dict(fields)
    name = next(iter(fields))
    assert caught.value.field in (name, "lr", "milestones", "epochs")
    assert len(str(caught.value)) < 1_500


def test_a_course_of_too_many_prunings_is_refused_at_once():
    from common.cells import trace

    began = time.monotonic()
    for fields in ({"steps": 1 << 60}, {"step_ratio": 1e-12}):
        with pytest.raises(UserError, match="prunings; ask for at most"):
            trace.trace(Spec(sparsity=0.5, **fields))
    assert time.monotonic() - began < 2


ENVIRONMENTS = {
    "WORLD_SIZE without RANK": {"WORLD_SIZE": "2"},
    "WORLD_SIZE in words": {"WORLD_SIZE": "two"},
    "WORLD_SIZE without an address": {"WORLD_SIZE": "2", "RANK": "0"},
    "RANK in words": {"WORLD_SIZE": "2", "RANK": "x", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
    "RANK too large": {"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
    "port in words": {
        "WORLD_SIZE": "2",
        "RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "x",
    },
    "WORLD_SIZE huge": {"WORLD_SIZE": HUGE},
    "LOG_LEVEL": {"LOG_LEVEL": "chatty"},
    "home of nobody": {"DATA_DIR": "~nobody-of-that-name/x"},
}


@pytest.mark.parametrize("kind", ENVIRONMENTS)
def test_environments(kind, tmp_path, capsys, monkeypatch):
    for name, value in ENVIRONMENTS[kind].items():
        monkeypatch.setenv(name, value)
    more = ["--dataset", "imagefolder"] if "DATA_DIR" in ENVIRONMENTS[kind] else []
    assert one_line(more, tmp_path, capsys)


# -- standard output -------------------------------------------------------------------------------


def listing(redirect):
    """(status, standard error) of a command that prints, with a redirection of the shell."""
    code = "import sys; from common.running.cli import guarded; "
    code += "sys.exit(guarded(lambda: print('a line\\n' * 100_000)))"
    words = f'{sys.executable} -c "{code}" {redirect}'
    done = subprocess.run(["bash", "-c", words], cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stderr


def test_closed_and_full_standard_output(monkeypatch):
    assert listing(">&-") == (0, "")
    assert listing(">&- 2>&-") == (0, "")
    status, told = listing("> /dev/full")
    assert status == 2 and told.startswith("error: No space left on device")
    assert len(told.splitlines()) == 1
    assert listing("| head -1; exit ${PIPESTATUS[0]}") == (141, "")


# -- nothing is written or deleted elsewhere -------------------------------------------------------


def test_a_lock_that_is_a_link_empties_nothing(tmp_path):
    (tmp_path / "precious").write_text("all of it")
    folder = tmp_path / "cell"
    folder.mkdir()
    (folder / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match=r"\.lock cannot be written"), claim(folder):
        pass
    assert (tmp_path / "precious").read_text() == "all of it"
    (folder / ".lock").unlink()
    (folder / ".lock").write_text("somebody's")
    with claim(folder):
        assert (folder / ".lock").read_text() == "somebody's"


def test_a_claim_deletes_half_written_files_of_ours_alone(tmp_path):
    ours = (".prune.json.ab12_x9z", ".model.safetensors.abcdefgh")
    others = (
        ".gitignore",
        ".DS_Store",
        ".nfs0001",
        ".prune.json",
        ".keep.safetensors.backup-1",
        ".d",
    )
    for name in (*ours, *others[:-1]):
        (tmp_path / name).touch()
    (tmp_path / ".d").mkdir()
    (tmp_path / ".x.json.abcdefgh").mkdir()
    with claim(tmp_path):
        assert not any((tmp_path / name).exists() for name in ours)
    assert all((tmp_path / name).exists() for name in others)


def test_what_a_killed_process_left_is_known_by_its_name(tmp_path, monkeypatch):
    """The names that the writers give are the names that a claim deletes."""
    model = models.build("digits_cnn", 10, (1, 8, 8))
    seen = []
    with monkeypatch.context() as patched:
        patched.setattr("os.replace", lambda a, b: seen.append(Path(a).name) or os.rename(a, b))
        architecture = {"model": "digits_cnn", "classes": 10, "input_shape": [1, 8, 8]}
        checkpoint.save(tmp_path / "prune-snapshot-1a2b3c4d.safetensors", model, architecture)
        Record("a", "b", "c", "d", "e", "train", "quick", {}).write(tmp_path / "train.json")
    assert len(seen) == 2
    for name in seen:
        (tmp_path / name).touch()
    with claim(tmp_path):
        assert not any((tmp_path / name).exists() for name in seen)


@pytest.mark.parametrize(
    "id", ["../../../x", "/tmp/x", "..", ".hidden", "a/b", "", "x" * 300, "a\nb"]
)
def test_a_record_whose_id_would_leave_the_folder_is_not_published(id, tmp_path):
    for names in ((id, "table"), ("id", id)):
        if names[0] == "id" and id in ("", "a\nb"):  # no table, and one in its older spelling
            continue
        record = Record(names[0], "b", names[1], "d", "e", "prune", "quick", {})
        record.provenance = {"git": "1"}
        record.write(tmp_path / "runs" / "prune.json")
        with pytest.raises(UserError, match="no file's name"):
            publishing.publish([tmp_path / "runs"], tmp_path / "deep" / "er" / "results")
        assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["prune.json"]


@pytest.mark.parametrize(
    "word",
    [
        "/home/me/data",
        "--data-dir=/home/me/data",
        "--data-dir=~/me/data",
        "~me/data",
        "DATA=/home/me/data/",
        'names=["/home/me/data"]',
        "a:/home/me/data",
        r"C:\Users\me\data",
        "--data-dir=/home/me too/data",
        "/home/me too/data",
        'names=["/home/me too/data"]',
    ],
)
def test_a_recorded_command_has_no_folder_of_the_machine(word, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "woodfisher.prune", word])
    command = machine.provenance(torch.device("cpu"), 0)["command"]
    assert "me" not in command.split("prune", 1)[1].replace("names", "") and "data" in command


def test_other_words_of_a_command_are_recorded_as_they_are(monkeypatch):
    words = ["--table", "1", "--dataset", "mnist:norm=unit", "--shard", "1/4", "a/b", "lr=1e-3"]
    monkeypatch.setattr(sys, "orig_argv", ["python", *words])
    assert machine.provenance(torch.device("cpu"), 0)["command"] == "python " + " ".join(words)


# -- files and file systems ------------------------------------------------------------------------


def test_pipes_and_devices_are_no_records(tmp_path):
    os.mkfifo(tmp_path / "prune.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    assert list(read_all(tmp_path)) == []
    with pytest.raises(UserError, match="no regular file"):
        Record.read(tmp_path / "prune.json")


@pytest.mark.parametrize("lacking", ["chmod", "fsync of a folder"])
def test_a_file_system_that_lacks_something_still_holds_files(lacking, tmp_path, monkeypatch):
    real = os.fsync

    def refuse(*_, **__):
        raise OSError(95 if lacking == "chmod" else 22, "Operation not supported")

    def sync(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            refuse()
        real(handle)

    if lacking == "chmod":
        monkeypatch.setattr(os, "chmod", refuse)
    else:
        monkeypatch.setattr(os, "fsync", sync)
    model = models.build("digits_cnn", 10, (1, 8, 8))
    architecture = {"model": "digits_cnn", "classes": 10, "input_shape": [1, 8, 8]}
    checkpoint.save(tmp_path / "a.safetensors", model, architecture)
    Record("a", "b", "c", "d", "e", "train", "quick", {}).write(tmp_path / "train.json")
    assert checkpoint.load(tmp_path / "a.safetensors") and Record.read(tmp_path / "train.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "train.json"]


def idx(kind, *shape, value=b"\0"):
    """A file in MNIST's format: kind 8 is uint8, 11 int16, 12 int32, 13 float, 14 double."""
    width = {8: 1, 9: 1, 11: 2, 12: 4, 13: 4, 14: 8}.get(kind, 1)
    head = struct.pack(">HBB", 0, kind, len(shape)) + b"".join(struct.pack(">I", n) for n in shape)
    return head + value * (width * int(torch.tensor(shape).prod()))


MNIST = {
    "floats for images": (idx(13, 20, 28, 28), idx(8, 20)),
    "shorts for images": (idx(11, 20, 28, 28), idx(8, 20)),
    "an unknown type": (idx(7, 20, 28, 28), idx(8, 20)),
    "images of another size": (idx(8, 20, 5, 5), idx(8, 20)),
    "images in a row": (idx(8, 20, 784), idx(8, 20)),
    "labels of two numbers": (idx(8, 20, 28, 28), idx(8, 20, 2)),
    "floats for labels": (idx(8, 20, 28, 28), idx(14, 20)),
    "labels above 9": (idx(8, 20, 28, 28), idx(8, 20, value=b"\xff")),
    "fewer labels": (idx(8, 20, 28, 28), idx(8, 3)),
    "nothing": (b"", b""),
    "a text": (b"a text" * 20, b"a text" * 20),
    "more than there is": (idx(8, 20, 28, 28)[:100], idx(8, 20)),
    "a huge header": (struct.pack(">HBBIII", 0, 8, 3, *[1 << 31] * 3), idx(8, 20)),
}


@pytest.mark.parametrize("kind", MNIST)
def test_mnist_files_of_another_kind(kind, tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unreachable)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for name, content in zip(("images-idx3", "labels-idx1"), MNIST[kind], strict=True):
            (raw / f"{part}-{name}-ubyte").write_bytes(content)
            with gzip.open(raw / f"{part}-{name}-ubyte.gz", "wb") as packed:
                packed.write(content)
    with pytest.raises(UserError) as caught:
        data.load("mnist", str(tmp_path))
    assert caught.value.field in ("data_dir", "dataset") and str(caught.value).isprintable()


# -- processes -------------------------------------------------------------------------------------


def pictures(folder, side=64, count=24):
    for part in ("train", "test"):
        for name in ("a", "b"):
            (folder / part / name).mkdir(parents=True)
            for i in range(count // 2):
                Image.new("RGB", (side, side), (i, 0, 0)).save(folder / part / name / f"{i}.png")
    return folder


def test_images_are_read_by_as_many_processes_as_shared_memory_has_room_for(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(data, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(machine, "cores", lambda: 4)
    found = data.load("imagefolder:size=64", str(pictures(tmp_path)))
    batch = 4 * 3 * 64 * 64 * 4
    for free, processes in (
        (None, 4),
        (1 << 40, 4),
        (2 * 3 * batch, 2),
        (3 * batch - 1, 0),
        (0, 0),
    ):
        monkeypatch.setattr(machine, "shared_memory", lambda free=free: free)
        caplog.clear()
        with caplog.at_level("INFO"):
            assert found.train_loader(4).num_workers == processes
        assert ("/dev/shm" in caplog.text) == (processes < 4)


def test_a_container_with_little_shared_memory_reads_its_images(tmp_path):
    """A /dev/shm of 1 MB, in which two batches do not fit: a mount of one process's own."""
    code = (
        "import sys, torch; from common.data import sources as data; from common.system import "
        "machine; data.IN_MEMORY_BYTES = 0; machine.cores = lambda: 2; "
        "found = data.load('imagefolder:size=256', sys.argv[1]); "
        "print(sum(len(y) for _, y in found.train_loader(12)))"
    )
    mount = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", code]
    try:
        done = subprocess.run(
            [*words, str(pictures(tmp_path, side=256))],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("a file system cannot be mounted here")
    assert done.returncode == 0 and done.stdout.split() == ["24"], done.stderr[-500:]
