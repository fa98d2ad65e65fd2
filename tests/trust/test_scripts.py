"""Every file with a command line: --help explains it, a wrong flag or value is one line and status
2, and so is a missing record.
"""

import runpy
import shutil
import subprocess
import sys
import warnings

import pytest

from common.cells.errors import Parser
from common.data import sources as data
from figures import draw
from figures.values import PAPERS
from tests.trust.mutants import ROOT

ROOMS = ("common", "eigendamage", "lobs", "nap", "woodfisher", "figures", "tests")
# what tests run in processes of their own
WORKERS = (("common", "verb_job.py"), ("trust", "peak.py"))
MARK = 'if __name__ == "__main__"'
SCRIPTS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for room in ROOMS
    for path in (ROOT / room).rglob("*.py")
    if f"\n{MARK}" in path.read_text() and path.parts[-2:] not in WORKERS
)
OTHERS = {
    "tests.lobs.bench",
    "tests.nap.bench",
    "tests.bench.__main__",
    "tests.trust.crash",
    "tests.trust.evidence",
    "tests.trust.mutants",
    "tests.trust.mutate",
    "tests.trust.networks",
    "tests.trust.oracles",
}
# words after the script's name -> what the line must say
WRONG = [
    ("lobs.studies nonsense", "choose one of: theorem"),
    ("lobs.studies", "required: study"),
    ("lobs.studies imagenet --examples 0", "whole number of at least 1"),
    ("lobs.studies imagenet --examples x", "'x'"),
    ("lobs.studies imagenet --model alexnett", "choose one of: alexnet"),
    ("lobs.studies imagenet --model alexnet --data-dir HERE/no", "data_dir"),
    ("nap.studies nonsense", "invalid choice"),
    ("nap.studies importance --cell zz", "choose one of"),
    ("nap.studies survivors --runs HERE/no", "nap.prune --table 5"),
    ("nap.studies survivors --cell zz", "no run has left"),
    ("nap.studies latency --runs HERE/no", "nap.finetune --table 1"),
    ("nap.studies imagenet --model zz", "choose one of: vgg16"),
    ("nap.detection --epochs x", "--epochs"),
    ("nap.detection --epochs nan", "epochs"),
    ("nap.detection --lr -1", "lr"),
    ("nap.detection --batch-size 0", "batch_size"),
    ("nap.detection --seed -1", "seed"),
    ("nap.detection --device tpu:0", "device"),
    ("nap.detection --data-dir HERE/no", "data_dir"),
    ("woodfisher.size zz", "choose one of: resnet50"),
    ("woodfisher.size resnet20 --memory-budget x", "--memory-budget"),
    ("woodfisher.size resnet20 --memory-budget -1", "--memory-budget: '-1' is not"),
    ("woodfisher.size resnet20 --memory-budget nan", "--memory-budget: 'nan' is not"),
    ("woodfisher.size resnet50 --data-dir HERE/no", "data_dir"),
    ("woodfisher.studies zz", "choose one of: choice"),
    ("woodfisher.studies choice --model zz", "choose one of: digits_cnn"),
    ("woodfisher.studies gradients --model lenet5", "choose one of: lenet300"),
    ("woodfisher.studies gradients --seed -1", "--seed"),
    ("woodfisher.hessian S9", "choose one of: S2, S4"),
    ("eigendamage.studies nonsense", "example1"),
    ("eigendamage.studies latency --table 99", "table 99"),
    ("eigendamage.studies latency --network zz", "zz"),
    ("eigendamage.studies latency --runs HERE/no", "eigendamage.prune --table 1"),
    ("common.commands.publish HERE/no HERE/there", "holds no records"),
    ("common.commands.publish HERE", "holds no records"),
    ("common.commands.agreement HERE/no", "HERE/no"),
    ("common.commands.export HERE/no.safetensors --plain HERE/there", "no.safetensors"),
    ("common.commands.export HERE/no.safetensors", "nothing to write"),
    ("common.commands.compare --methods zz", "choose one of"),
    ("common.commands.compare --sparsities half", "not a list of numbers"),
    ("common.commands.compare --sparsities 0.5,1.5", "outside [0, 1)"),
    ("common.commands.compare --seeds 0", "at least 1"),
    ("common.commands.compare --seeds x", "--seeds"),
    ("common.commands.compare --threads 0", "at least 1"),
    ("common.commands.compare --epochs -1", "epochs"),
    ("common.commands.compare --train-epochs nan", "epochs"),
    ("common.commands.compare --num-samples 0", "num_samples"),
    ("common.commands.compare --shard 3/2", "shard"),
    ("common.commands.compare --dataset mnits --dry-run", "mnits"),
    ("common.commands.compare --model resnet21 --dry-run", "resnet21"),
    ("common.commands.compare --device tpu:0", "device"),
    ("common.commands.compare --checkpoint HERE/no.safetensors", "no.safetensors"),
    ("figures.compare --records HERE/no --output HERE/there", "HERE/no"),
    ("figures.compare --records HERE", "required: --output"),
    ("figures.book --output", "expected one argument"),
    ("figures --output", "expected one argument"),
    ("figures", "a paper and a figure of it, or --all"),
    ("figures zz", "invalid choice: 'zz'"),
    ("figures woodfisher zz", "choose one of: 2, 3a, "),
    ("figures woodfisher 3a --formats bmp", "invalid choice: 'bmp'"),
    ("tests.bench --only zz", "choose one of: ratios"),
    ("tests.trust.crash --jobs zz", "choose one of: train"),
    ("tests.trust.crash --kills x", "--kills"),
    ("tests.trust.mutants --part 9/2", "i/n"),
    ("tests.trust.mutants zz", "common/nets/capture.py"),
    ("tests.trust.networks zz", "choose one of: own CNN"),
    ("tests.trust.networks --method zz", "choose one of"),
    ("tests.trust.oracles zz", "no formula"),
    ("tests.trust.evidence zz", "choose one of: oracles"),
    ("common.commands.verify --cells 0", "--cells"),
    ("common.commands.verify --seed -1", "--seed"),
    ("common.commands.verify --paper zz", "choose one of"),
    ("common.commands.verify --paper lobs --table zz", "none of 0 cells"),
    ("common.commands.queue HERE/no.toml", "cannot be read"),
    ("common.commands.queue HERE/no.toml --lanes 0", "--lanes"),
    ("common.commands.queue HERE/no.toml --lane 3/2", "'3/2'"),
]


def ended(capsys, monkeypatch, module, *words):
    """(status, lines on stderr, stdout) of one script in this process."""
    monkeypatch.setattr(sys, "argv", [module, *words])
    capsys.readouterr()
    with warnings.catch_warnings(), pytest.raises(SystemExit) as stop:
        # "found in sys.modules": it was imported here before
        warnings.simplefilter("ignore", RuntimeWarning)
        runpy.run_module(module, run_name="__main__")
    told = capsys.readouterr()
    return stop.value.code, told.err.strip().splitlines(), told.out


def test_every_script_is_known():
    assert {name for name in SCRIPTS if name.startswith("tests.")} == OTHERS and len(SCRIPTS) > 30
    named = {name.removesuffix(".__main__") for name in SCRIPTS}
    assert {words.split()[0] for words, _ in WRONG} <= named


@pytest.mark.parametrize("module", SCRIPTS)
def test_a_script_explains_itself_and_refuses_what_it_does_not_know(module, capsys, monkeypatch):
    module, seen, parse = module.removesuffix(".__main__"), [], Parser.parse_args
    monkeypatch.setattr(
        Parser, "parse_args", lambda self, argv=None: seen.append(self) or parse(self, argv)
    )
    status, err, out = ended(capsys, monkeypatch, module, "--help")
    for action in seen[0]._actions:
        assert action.help, action.dest
        if action.option_strings and action.default not in (None, False, "", [], "==SUPPRESS=="):
            assert "default: " in action.help, action.dest
    assert (
        status == 0
        and not any(line.startswith("error") for line in err)
        and out.startswith("usage: ")
        and len(out.splitlines()) > 5
    )
    status, err, out = ended(capsys, monkeypatch, module, "--nonsense")
    assert status == 2 and len(err) == 1 and err[0].startswith("error: ") and not out


@pytest.mark.parametrize(("words", "said"), WRONG, ids=lambda v: v)
def test_a_wrong_value_is_one_line_and_status_two(words, said, capsys, monkeypatch, tmp_path):
    """And, unless the line is about the data themselves, it is said before anything looks for
    data.
    """
    monkeypatch.chdir(tmp_path)
    looked, load = [], data.load
    monkeypatch.setattr(data, "load", lambda *names: looked.append(names) or load(*names))
    module, *words = words.replace("HERE", str(tmp_path)).split()
    status, err, _ = ended(capsys, monkeypatch, module, *words)
    assert (
        status == 2
        and err[-1].startswith("error: ")
        and said.replace("HERE", str(tmp_path)) in err[-1]
    )
    assert sum(line.startswith("error: ") for line in err) == 1 and not any(
        "Traceback" in line for line in err
    )
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".json", ".safetensors")]
    assert not looked or "data_dir" in err[-1]


MISSING = """
import contextlib, io, sys
from figures.__main__ import main
for name in sys.argv[1:]:
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = main([*name.split("/"), "--output", "made"])
    print(name, status, " / ".join(said.getvalue().splitlines()))
"""


def test_a_figure_without_records_is_one_line_that_says_which_and_makes_nothing(tmp_path):
    for room in ROOMS[:-1]:
        shutil.copytree(
            ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("results", "__pycache__")
        )
    pictures = [f"{paper}/{key}" for paper in PAPERS for key in draw.sheets(paper)]
    done = subprocess.run(
        [sys.executable, "-c", MISSING, *pictures],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert not done.stderr and set(lines) == set(pictures)
    for name, line in lines.items():
        told = line.startswith("2 error: ") and "; run python -m " in line
        assert told and " / " not in line, f"{name}: {line}"
    assert not list(tmp_path.glob("made/*"))
