"""Every flag of every verb reaches the Spec, every wrong value is one line and status 2, and --help
says units and defaults.
"""

import argparse
import contextlib
import json
import typing

import pytest
import torch

from common.cells import registry
from common.cells.errors import Parser
from common.cells.registry import METHODS
from common.commands import agreement, compare, export, publish
from common.curvature import memory
from common.curvature.diag import diagonal_fisher
from common.curvature.kron import kron_factors
from common.curvature.memory import rows_work
from common.curvature.rows import gradient_rows
from common.curvature.spool import SpooledRows
from common.data import sources as data
from common.nets import layers as L
from common.nets import models
from common.running.cli import parser, run
from common.system import machine
from tests import toy
from woodfisher.method import FisherOptions, fisher_parts

# flag -> (words, what the resolved Spec then says); None: no field of the Spec
COMMON = {
    "--scale": (["cpu"], None),
    "--model": (["lenet300"], {"model": "lenet300"}),
    "--dataset": (["synthetic:classes=3"], {"dataset": "synthetic:classes=3"}),
    "--loss": (["mse"], {"loss": "mse"}),
    "--metric": (["net.py:right"], {"metric": "net.py:right"}),
    "--data-dir": (["x"], {"data_dir": "x"}),
    "--checkpoint": (["a.pth"], {"checkpoint": "a.pth"}),
    "--device": (["cpu"], {"device": "cpu"}),
    "--amp": ([], {"amp": True}),
    "--output-dir": (["there"], {"output_dir": "there"}),
    "--shard": (["1/1"], None),
    "--table": (["1"], None),
    "--figure": (["2a"], None),
    "--cell": (["one"], None),
    "--list": ([], None),
    "--dry-run": ([], None),
    "--help": ([], None),
}
RECIPE = {
    "--epochs": (["2.5"], {"epochs": 2.5}),
    "--lr": (["0.25"], {"lr": 0.25}),
    "--batch-size": (["7"], {"batch_size": 7}),
}
PRUNING = {
    "--method": (["woodfisher"], {"method": "woodfisher"}),
    "--sparsity": (["0.75"], {"sparsity": 0.75}),
    "--unit-ratio": (["0.25"], {"unit_ratio": 0.25, "sparsity": None}),
    "--pattern": (["2:4"], {"pattern": "2:4", "sparsity": 0.5}),
    "--scope": (["global"], {"scope": "global"}),
    "--fisher": (["sampled"], {"fisher": "sampled"}),
    "--num-samples": (["64"], {"num_samples": 64}),
    "--fisher-batch-size": (["2"], {"fisher_batch_size": 2}),
    "--damping": (["1e-3"], {"damping": 1e-3}),
    "--chunk": (["100"], {"chunk": 100}),
    "--recompute": (["2"], {"recompute": 2}),
    "--step-ratio": (["0.5"], {"step_ratio": 0.5}),
    "--speedup": (["2"], {"speedup": 2.0}),
    "--max-error-increase": (["1.5"], {"max_error_increase": 1.5}),
    "--update": (["joint"], {"update": "joint"}),
    "--memory-budget": (["2"], {"memory_budget": 2.0}),
    "--option": (["num_rows=5"], {"options": {"num_rows": 5}}),
    "--seed": (["3"], {"seed": 3}),
    "--allow-untrained": ([], {"allow_untrained": True}),
}
WRONG = [
    ("--sparsity", "1.5"),
    ("--sparsity", "nan"),
    ("--sparsity", "half"),
    ("--unit-ratio", "-0.1"),
    ("--pattern", "4:2"),
    ("--pattern", "1:4"),
    ("--loss", "hinge"),
    ("--metric", "right"),
    ("--model", "gone.py:build"),
    ("--scope", "both"),
    ("--fisher", "true"),
    ("--num-samples", "0"),
    ("--num-samples", "many"),
    ("--fisher-batch-size", "0"),
    ("--damping", "-1"),
    ("--damping", "inf"),
    ("--chunk", "some"),
    ("--chunk", "0"),
    ("--recompute", "-1"),
    ("--update", "full"),
    ("--memory-budget", "-1"),
    ("--option", "nonsense"),
    ("--option", "num_rows=many"),
    ("--option", "num_rows=[1]"),
    ("--option", "num_rows=NaN"),
    ("--option", "damping={}"),
    ("--option", "lambda=3"),
    ("--epochs", "-1"),
    ("--epochs", "nan"),
    ("--lr", "-1"),
    ("--batch-size", "0"),
    ("--seed", "-1"),
    ("--seed", "x"),
    ("--device", "tpu:0"),
    ("--method", "obs"),
    ("--model", "resnet21"),
    ("--model", "digits_cnn:width=-1"),
    ("--dataset", "mnits"),
    ("--dataset", "synthetic:noise=nan"),
    ("--scale", "big"),
    ("--table", "99"),
    ("--figure", "99"),
    ("--cell", "zzz"),
    ("--shard", "3/2"),
    ("--speedup", "-1"),
    ("--step-ratio", "2"),
    ("--max-error-increase", "nan"),
    ("--checkpoint", "missing.safetensors"),
    ("--wrong", "1"),
    ("--samp", "5"),
]
NEEDS = dict.fromkeys(
    (
        "--damping",
        "--chunk",
        "--recompute",
        "--update",
        "--option",
        "--fisher-batch-size",
        "--fisher",
    ),
    "woodfisher",
)


def flags_of(p):
    return {
        option
        for action in p._actions
        for option in action.option_strings
        if option.startswith("--")
    }


def resolved(verb, argv, capsys):
    assert run("common", verb, argv=[*argv, "--dry-run"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("verb", ["train", "prune", "finetune"])
def test_every_flag_reaches_the_spec(verb, capsys):
    table = (
        COMMON | RECIPE | (PRUNING if verb != "train" else {"--seed": (["3"], {"dense_seed": 3})})
    )
    assert flags_of(parser(verb)) == set(table)
    for flag, (words, expected) in table.items():
        if expected is None:
            continue
        base = (
            []
            if verb == "train" or flag in ("--sparsity", "--unit-ratio")
            else ["--sparsity", "0.5"]
        )
        if flag in NEEDS:
            base += ["--method", NEEDS[flag]]
        if flag == "--unit-ratio":
            base += ["--method", "kron-obs"]
        told = resolved(verb, [*base, flag, *words], capsys)
        spec = told["spec"]
        if flag in RECIPE:
            spec = spec["train" if verb == "train" else "finetune"]
        assert {name: spec[name] for name in expected} == expected, flag
        assert told["folder"]


@pytest.mark.parametrize(("flag", "value"), WRONG, ids=lambda v: str(v))
def test_every_wrong_value_is_one_line_and_status_two_before_data_are_looked_for(
    flag, value, tmp_path, capsys, monkeypatch
):
    if not value.startswith("synthetic:"):  # made on the spot, and judged by what makes it
        monkeypatch.setattr(data, "load", lambda *names: pytest.fail("data were looked for"))
    base = [
        "--model",
        "digits_cnn:width=0.125",
        "--dataset",
        "synthetic:classes=3,samples=48",
        "--epochs",
        "0",
        "--allow-untrained",
        "--output-dir",
        str(tmp_path),
    ]
    base += [] if flag == "--unit-ratio" else ["--sparsity", "0.5"]
    if flag in NEEDS:
        base += ["--method", NEEDS[flag]]
    try:
        status = run("common", "finetune", argv=[*base, flag, value])
    except SystemExit as stop:
        status = stop.code
    told = capsys.readouterr()
    lines = [line for line in told.err.splitlines() if line.startswith("error")]
    assert (
        status == 2
        and len(lines) == 1
        and told.err.splitlines()[-1] == lines[0]
        and "Traceback" not in told.err
    )
    assert (
        flag.strip("-").replace("-", "_").split("_")[0] in lines[0].replace("-", "_")
        or value.partition("=")[0] in lines[0]
    )
    assert not list(tmp_path.rglob("prune.json"))


@pytest.mark.parametrize("verb", ["train", "prune"])
def test_help_says_what_is_measured_in_what_and_what_is_taken_otherwise(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        parser(verb, "x").parse_args(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0 and all(action.help for action in parser(verb)._actions)
    pruning = ("0.9 removes 90%", "GB that curvature") if verb == "prune" else ()
    for words in ("default: runs", "default: auto", "may be a fraction", *pruning):
        assert words in text
    with contextlib.suppress(SystemExit):
        run("demo", verb, argv=["--help"])
    assert "left out keeps the cell's own value" in " ".join(capsys.readouterr().out.split())


def test_a_dry_run_forecasts_what_the_curvature_then_takes(capsys):
    """What common.curvature.memory counts (tests/trust/test_budget.py holds it against processes),
    never less than what the estimators return; and the same refusals as a run.
    """
    model, flags = (
        models.build("digits_cnn", 10, (1, 8, 8), 0),
        ["--model", "digits_cnn", "--num-samples", "40"],
    )
    layers, loader = (
        L.prunable(model),
        [(torch.randn(40, 1, 8, 8, generator=toy.generator()), torch.arange(40) % 10)],
    )
    size = lambda tensors: sum(t.numel() * t.element_size() for t in tensors)
    kron = kron_factors(model, loader, layers, fisher="empirical")
    rows = size(gradient_rows(model, loader, 40, layers=layers).values())
    factors = size(t for f in kron.values() for t in (f.A, f.G))
    least = {
        "woodfisher": rows + rows_work((m.weight.numel() for m in layers.values()), 40, None),
        "kfac-prune": 2 * factors,
        "nap": 3 * factors,
        "kron-obd": factors,
        "obd-global": 2 * size(diagonal_fisher(model, loader, layers).values()),
        "l-obs": 3 * size(f.A for f in kron.values()),
        "random": 12 * sum(m.weight.numel() for m in layers.values()),
        "eigendamage": size(
            t
            for f in kron_factors(
                model, loader, layers, fisher="empirical", channel_only=True
            ).values()
            for t in (f.A, f.G)
        ),
    }
    for method, held in least.items():
        unit = "--sparsity" if METHODS[method].kind == "weights" else "--unit-ratio"
        found = resolved("prune", [*flags, "--method", method, unit, "0.5"], capsys)["memory_gb"]
        kind = METHODS[method].curvature
        options = typing.get_type_hints(registry.load(method))["options"]()
        expected = held if kind == "rows" else memory.peak(kind, layers, options)
        assert found["curvature"] == round(expected / 2**30, 4), method
        assert expected >= held and found["disk"] == 0 and found["budget"] > 0
        assert found["training"] == round(
            16 * sum(p.numel() for p in model.parameters()) / 2**30, 4
        )
    for wrong in (
        ["--method", "obs"],
        ["--model", "resnet21"],
        ["--method", "magnitude-global", "--damping", "1"],
    ):
        assert run("common", "prune", argv=["--sparsity", "0.5", *wrong, "--dry-run"]) == 2
        assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("chunk", [None, 50, "network"])
def test_a_dry_run_says_what_goes_to_disk_just_where_the_run_puts_it_there(
    chunk, capsys, monkeypatch
):
    """One byte below what rows and work take together the rows are a file; the run and the forecast
    agree on either side.
    """
    model = models.build("digits_cnn", 10, (1, 8, 8), 0)
    layers, batches = (
        L.prunable(model),
        [(torch.randn(40, 1, 8, 8, generator=toy.generator()), torch.arange(40) % 10)],
    )
    sizes = [module.weight.numel() for module in layers.values()]
    work, rows = rows_work(sizes, 40, chunk), 40 * 4 * sum(sizes)
    flags = [
        "--model",
        "digits_cnn",
        "--num-samples",
        "40",
        "--method",
        "woodfisher",
        "--sparsity",
        "0.5",
    ]
    flags += ["--chunk", str(chunk)] if chunk else []
    options = FisherOptions(fisher_batch_size=1, num_rows=40, chunk=chunk)
    for budget, file in ((work + rows, False), (work + rows - 1, True)):
        memory = resolved("prune", [*flags, "--memory-budget", repr(budget / 2**30)], capsys)[
            "memory_gb"
        ]
        expected = (work, rows) if file else (work + rows, 0)
        assert (memory["curvature"], memory["disk"]) == tuple(
            round(size / 2**30, 4) for size in expected
        )
        with machine.memory_budget(budget / 2**30):
            parts = fisher_parts(model, batches, options, toy.generator())
        assert all(isinstance(part.curvature.rows, SpooledRows) == file for part in parts)


@pytest.mark.parametrize(
    "main", [compare.main, publish.main, export.main, agreement.main], ids=lambda f: f.__module__
)
def test_the_other_commands_complain_in_one_line_and_explain_themselves(main, capsys):
    for argv in (["--nonsense"], ["--output-dir"]):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        told = capsys.readouterr().err.strip().splitlines()
        assert stop.value.code == 2 and len(told) == 1 and told[0].startswith("error: ")
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0 and "usage" in capsys.readouterr().out


def test_numbers_of_compare_state_their_defaults(monkeypatch):
    seen = []
    monkeypatch.setattr(
        Parser, "parse_args", lambda self, argv=None: seen.append(self) or argparse.Namespace()
    )
    with contextlib.suppress(AttributeError):
        compare.main([])
    for action in seen[0]._actions:
        if action.type in (int, float) or action.option_strings[-1] in (
            "--methods",
            "--sparsities",
            "--dataset",
            "--model",
        ):
            assert "default" in action.help, action.option_strings


def test_an_option_of_every_kind_is_read_and_checked(capsys):
    for words in (
        ["--method", "l-obs", "--option", 'skip=["fc2"]'],
        ["--method", "woodfisher", "--option", "min_keep=2"],
        ["--method", "kron-obs", "--unit-ratio", "0.5", "--option", "form=released"],
    ):
        amount = [] if "--unit-ratio" in words else ["--sparsity", "0.5"]
        assert resolved("prune", [*amount, *words], capsys)["spec"]["options"]
    for option in ("skip=fc2", "skip=[1]", "min_keep=true", "min_keep=1.5"):
        assert (
            run(
                "common",
                "prune",
                argv=["--sparsity", "0.5", "--method", "woodfisher", "--option", option],
            )
            == 2
        )
        assert "has the wrong type" in capsys.readouterr().err
    assert all(entry.label for entry in METHODS.values())
