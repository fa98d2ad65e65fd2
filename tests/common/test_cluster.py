"""The job arrays of docs/cluster: the scripts are run with a scheduler's variables, and their
commands resolve as --dry-run says.
"""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from common.system import shard

DOCS = Path(__file__).resolve().parents[2] / "docs"
SAY = '#!/bin/sh\nprintf \'%s\\n\' "$@" "threads=$OMP_NUM_THREADS"\n'
STANDINS = {
    "python": SAY,
    "torchrun": SAY,
    "srun": '#!/bin/sh\nshift\nexec "$@"\n',
    "scontrol": "#!/bin/sh\necho node1\necho node2\n",
}


@pytest.fixture
def said(tmp_path):
    """Runs a shell command with stand-ins for python, torchrun and Slurm; the words that it would
    start.
    """
    for name, text in STANDINS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(words: list[str], **variables: str) -> list[str]:
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(words, env=variables | {"PATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def resolved(words: list[str], capsys, monkeypatch) -> list[dict]:
    """What `python -m MODULE flags --dry-run` prints, for words from -m on."""
    monkeypatch.setattr(sys, "argv", [words[1], *words[2:], "--dry-run"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(words[1], run_name="__main__")
    out, err = capsys.readouterr()
    assert end.value.code == 0, err
    decoder, cells = json.JSONDecoder(), []
    while out.strip():
        cell, at = decoder.raw_decode(out.lstrip())
        cells, out = [*cells, cell], out.lstrip()[at:]
    return cells


SLURM = {
    "SLURM_SUBMIT_DIR": "/home/me",
    "SLURM_CPUS_PER_TASK": "16",
    "SLURM_ARRAY_TASK_COUNT": "8",
    "SLURM_NNODES": "2",
    "SLURM_JOB_ID": "17",
    "SLURM_JOB_NODELIST": "node[1-2]",
}


def test_every_task_of_the_slurm_array_has_a_shard(said, capsys, monkeypatch):
    script = DOCS / "cluster" / "slurm-array.sh"
    subprocess.run(["bash", "-n", script], check=True)
    first, last = map(int, re.search(r"#SBATCH --array=(\d+)-(\d+)", script.read_text()).groups())
    shards = []
    for task in range(first, last + 1):
        *words, threads = said(["bash", str(script)], **SLURM, SLURM_ARRAY_TASK_ID=str(task))
        shards.append(shard.parse(words[words.index("--shard") + 1]))
    assert shards == [(i, last + 1) for i in range(1, last + 2)] and threads == "threads=16"
    cells = resolved([*words, "--cell", "0.8-seed0"], capsys, monkeypatch)
    assert len(cells) > 1 and all(
        cell["folder"].startswith("/home/me/runs/woodfisher/") for cell in cells
    )


def test_torchrun_gets_its_machines_and_one_cell(said, capsys, monkeypatch):
    script = DOCS / "cluster" / "slurm-torchrun.sh"
    subprocess.run(["bash", "-n", script], check=True)
    *words, threads = said(["bash", str(script)], **SLURM)
    assert threads == "threads=4"
    from torch.distributed.run import get_args_parser

    options = get_args_parser().parse_args(words)
    assert (options.nnodes, options.nproc_per_node, options.rdzv_endpoint, options.rdzv_id) == (
        "2",
        "4",
        "node1:29500",
        "17",
    )
    assert options.module and len(resolved(words[words.index("-m") :], capsys, monkeypatch)) == 1
    (example,) = re.findall(r"```\ntorchrun (.*?)```", (DOCS / "arrays.md").read_text(), re.S)
    words = example.replace("\\\n", " ").split()
    assert get_args_parser().parse_args(words).nnodes == "2"
    assert len(resolved(words[words.index("-m") :], capsys, monkeypatch)) == 1


def test_every_pod_of_the_kubernetes_job_has_a_shard(said, capsys, monkeypatch):
    job = json.loads((DOCS / "cluster" / "kubernetes-array.json").read_text())
    spec, (container,) = job["spec"], job["spec"]["template"]["spec"]["containers"]
    assert (job["apiVersion"], job["kind"], spec["completionMode"]) == (
        "batch/v1",
        "Job",
        "Indexed",
    )
    shards = []
    # Kubernetes numbers the pods of an Indexed Job in this variable
    for index in range(spec["completions"]):
        *words, _ = said(
            [*container["command"], *container["args"]], JOB_COMPLETION_INDEX=str(index)
        )
        shards.append(shard.parse(words[words.index("--shard") + 1]))
    assert shards == [(i, spec["completions"]) for i in range(1, spec["completions"] + 1)]
    assert len(resolved([*words, "--cell", "0.8-seed0"], capsys, monkeypatch)) > 1
    assert {volume["name"] for volume in spec["template"]["spec"]["volumes"]} == {
        m["name"] for m in container["volumeMounts"]
    }


def test_links_of_the_page_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", (DOCS / "arrays.md").read_text()):
        assert (DOCS / target).exists(), target
