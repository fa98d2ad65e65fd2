"""The verbs on digits: what they write, that they resume, that the second run does nothing, and
that bad input writes nothing.
"""

import copy
import json

import pytest
import torch

from common.cells.errors import UserError
from common.cells.record import Record
from common.cells.registry import METHODS, Method
from common.cells.spec import Recipe, Spec
from common.nets import checkpoint, flops
from common.nets import layers as L
from common.nets import masks as M
from common.running import pipeline
from common.running import train as T
from common.running.cli import run
from common.system.claims import claim

TINY = {
    "model": "digits_cnn:width=0.25",
    "train": Recipe(epochs=3, lr=0.05, batch_size=64, schedule="cosine"),
    "finetune": Recipe(epochs=1, lr=0.02, batch_size=64),
}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return str(tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_through_all_verbs_and_then_nothing_again(method, output, monkeypatch):
    amount = {"sparsity": 0.8} if METHODS[method].kind == "weights" else {"unit_ratio": 0.5}
    spec = Spec(method=method, output_dir=output, num_samples=100, **amount, **TINY)
    record = pipeline.finetune(spec)
    folder = pipeline.cell_folder(spec)
    pruning = Record.read(folder / "prune.json")
    loaded = checkpoint.load(folder / "finetuned.safetensors")
    data = pipeline.data_of(spec)
    assert T.evaluate(loaded.model, data.test_loader())[1] == record.accuracy["last"]
    assert pruning.achieved["kept_params"] < pruning.achieved["dense_params"]
    if METHODS[method].kind == "weights":
        total = pruning.achieved["dense_params"]
        assert (
            pruning.achieved["kept_params"] == total - round(0.8 * total)
            or METHODS[method].preset.get("scope") == "layer"
        )
        assert abs(M.sparsity(loaded.masks) - 0.8) < 1e-2
        assert all(not loaded.model.get_parameter(n)[~m].any() for n, m in loaded.masks.items())
    assert pruning.loss["measured_increase"] == pytest.approx(
        pruning.loss["pruned"] - pruning.loss["dense"]
    )
    assert sum(layer["kept"] for layer in pruning.layers) == pruning.achieved["kept_params"]
    for part in ("git", "versions", "device", "threads", "seed", "command", "data_sha256"):
        assert part in record.provenance
    files = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    monkeypatch.setattr(T, "fit", None)  # anything computed again would fail
    assert pipeline.finetune(spec) == Record.read(folder / "finetune.json")
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == files


@pytest.mark.parametrize("method", ["magnitude-global", "eigendamage", "kron-obs", "nap-channel"])
def test_what_a_record_says_was_left_is_counted_in_its_files(output, method):
    """Every number of `achieved`, and the layers', against the networks that lie there."""
    unit = "sparsity" if METHODS[method].kind == "weights" else "unit_ratio"
    spec = Spec(output_dir=output, method=method, num_samples=64, **TINY | {unit: 0.5})
    pipeline.finetune(spec)
    dense = checkpoint.load(pipeline.dense_folder(spec) / "model.safetensors").model
    whole = flops.costs(dense, (1, 8, 8))
    loaded = checkpoint.load(pipeline.cell_folder(spec) / "pruned.safetensors")
    model, record = loaded.model, pipeline.prune(spec)
    kept = {
        name: int(loaded.masks.get(f"{name}.weight", module.weight != 0).sum())
        for name, module in L.weighted(model).items()
    }
    every = sum(module.weight.numel() for module in L.prunable(dense).values())
    assert record.achieved == {
        "sparsity": 1 - sum(kept.values()) / every,
        "kept_params": sum(kept.values()),
        "kept_macs": flops.costs(model, (1, 8, 8), loaded.masks).nonzero_macs,
        "dense_params": every,
        "dense_macs": whole.macs,
        "model_params": sum(p.numel() for p in model.parameters()),
        "dense_model_params": sum(p.numel() for p in dense.parameters()),
    }
    assert 0 < record.achieved["kept_macs"] < record.achieved["dense_macs"]
    smaller = record.achieved["model_params"] < record.achieved["dense_model_params"]
    assert smaller == (unit == "unit_ratio")
    for layer in record.layers:
        name = layer["name"]
        assert layer["total"] == dense.get_submodule(name).weight.numel()
        assert layer["kept"] == sum(
            n for inner, n in kept.items() if inner == name or inner.startswith(f"{name}.")
        )
    tuned = checkpoint.load(pipeline.cell_folder(spec) / "finetuned.safetensors")
    assert pipeline.finetune(spec).achieved == record.achieved
    assert M.digest(tuned.masks) == M.digest(loaded.masks)


def test_obd_predicts_what_it_says(output):
    """The recorded prediction is ½ Σ w² F over what was removed, from the same calibration."""
    spec = Spec(method="obd-global", sparsity=0.3, output_dir=output, num_samples=200, **TINY)
    record = pipeline.prune(spec)
    dense = checkpoint.load(pipeline.dense_folder(spec) / "model.safetensors").model.double()
    masks = checkpoint.load(pipeline.cell_folder(spec) / "pruned.safetensors").masks
    loader = pipeline.data_of(spec).calibration(200, batch_size=1, seed=0)
    predicted = 0.0
    for x, _ in loader:
        log_p = dense.eval()(x.double()).log_softmax(1)[0]
        for c in range(10):
            gradients = torch.autograd.grad(
                -log_p[c], [dense.get_parameter(n) for n in masks], retain_graph=True
            )
            for (name, mask), g in zip(masks.items(), gradients, strict=True):
                gone = (0.5 * dense.get_parameter(name).detach() ** 2 * g**2)[~mask].sum()
                predicted += float(log_p[c].detach().exp() * gone) / 200
    assert record.loss["predicted_increase"] == pytest.approx(predicted, rel=1e-4)


def test_the_same_cell_twice_gives_the_same_network_and_record(output, tmp_path):
    records, hashes = [], []
    for place in (output, str(tmp_path)):
        spec = Spec(method="obd-global", sparsity=0.9, output_dir=place, num_samples=100, **TINY)
        record = pipeline.finetune(spec)
        loaded = checkpoint.load(pipeline.cell_folder(spec) / "finetuned.safetensors")
        hashes.append((checkpoint.state_hash(loaded.model), M.digest(loaded.masks)))
        record = copy.deepcopy(record)
        for entry in record.trajectory:
            entry.pop("seconds")
        records.append(
            (
                record.accuracy,
                record.loss,
                record.achieved,
                record.layers,
                record.trajectory,
                record.dense_hash,
            )
        )
    assert records[0] == records[1] and hashes[0] == hashes[1]


def test_a_gradual_run_nests_reaches_its_target_and_resumes_where_it_was_killed(
    output, tmp_path, monkeypatch
):
    settings = {
        "method": "magnitude-global",
        "sparsity": 0.9,
        "steps": 3,
        "step_epochs": 0.5,
        "recalibrate_bn": 2,
        **TINY,
    }
    straight = Spec(output_dir=str(tmp_path / "a"), **settings)
    record = pipeline.prune(straight)
    assert [round(e["amount"], 4) for e in record.trajectory] == [0.6333, 0.8667, 0.9]
    assert record.achieved["kept_params"] == record.achieved["dense_params"] - round(
        0.9 * record.achieved["dense_params"]
    )

    killed = Spec(output_dir=str(tmp_path / "b"), **settings)
    original, calls = T.fit, []

    def interrupted(*arguments, **named):
        calls.append(named["desc"])
        if named["desc"] == "step 2 of 3":
            raise KeyboardInterrupt
        return original(*arguments, **named)

    monkeypatch.setattr(T, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.prune(killed)
    monkeypatch.setattr(T, "fit", lambda *a, **n: calls.append(n["desc"]) or original(*a, **n))
    pipeline.prune(killed)
    assert calls.count("step 1 of 3") == 1  # it was not done again
    a, b = (
        checkpoint.load(pipeline.cell_folder(s) / "pruned.safetensors") for s in (straight, killed)
    )
    assert checkpoint.state_hash(a.model) == checkpoint.state_hash(b.model)
    assert not list(pipeline.cell_folder(killed).glob("*snapshot*"))


def test_layers_may_have_fractions_of_their_own(output):
    goals = {"conv1": 0.5, "conv2": 0.0, "conv3": 0.9, "conv4": 0.25, "fc1": 0.75, "fc2": 0.0}
    record = pipeline.prune(
        Spec(
            method="magnitude-layer",
            sparsity=0.6,
            options={"layer_sparsity": goals},
            output_dir=output,
            **TINY,
        )
    )
    for layer in record.layers:
        assert layer["total"] - layer["kept"] == round(goals[layer["name"]] * layer["total"])


def test_fractions_of_their_own_grow_with_the_schedule(tmp_path):
    goals = dict.fromkeys(("conv1", "conv2", "conv3", "conv4", "fc1", "fc2"), 0.8)
    record = pipeline.prune(
        Spec(
            method="magnitude-layer",
            sparsity=0.8,
            options={"layer_sparsity": goals},
            steps=2,
            step_schedule="linear",
            step_epochs=0.2,
            output_dir=str(tmp_path),
            **TINY,
        )
    )
    halfway = pipeline.prune(
        Spec(method="magnitude-layer", sparsity=0.4, output_dir=str(tmp_path), **TINY)
    )
    assert [round(e["amount"], 6) for e in record.trajectory] == [0.4, 0.8]
    assert record.trajectory[0]["pruned"] == halfway.accuracy["pruned"]
    for entry, costs in (
        (record.trajectory[0], halfway.achieved),
        (record.trajectory[1], record.achieved),
    ):
        assert (entry["kept_params"], entry["kept_macs"]) == (
            costs["kept_params"],
            costs["kept_macs"],
        )


def test_settings_that_a_method_does_not_have_are_refused_not_ignored(output):
    with pytest.raises(
        UserError, match="damping=0.1: method 'magnitude-global' has no such option"
    ):
        pipeline.method_of(Spec(damping=0.1, sparsity=0.5))
    with pytest.raises(
        UserError,
        match="unit_ratio=0.5: method 'magnitude-global' removes weights; give --sparsity",
    ):
        pipeline.method_of(Spec(unit_ratio=0.5))
    with pytest.raises(UserError, match="scope='layer': contradicts method 'obd-global'"):
        pipeline.method_of(Spec(method="obd-global", scope="layer", sparsity=0.5))
    with pytest.raises(UserError, match="options: fisher, scope, skip"):
        pipeline.method_of(Spec(method="obd-global", options={"lambda": 3}, sparsity=0.5))
    with pytest.raises(
        UserError, match="step_schedule='cubic': every step of 'eigendamage' removes its ratio"
    ):
        pipeline.method_of(Spec(method="eigendamage", unit_ratio=0.5, steps=3))


def test_two_processes_on_one_cell_are_told_apart(tmp_path):
    with (
        claim(tmp_path / "cell"),
        pytest.raises(UserError, match="another process"),
        claim(tmp_path / "cell"),
    ):
        pass
    (tmp_path / "cell" / ".prune.json.abcdefgh").write_text("half")
    with claim(tmp_path / "cell"):
        assert [p.name for p in (tmp_path / "cell").iterdir()] == [".lock"]


BAD = [
    (["--method", "obs"], "method='obs'"),
    (["--dataset", "mnits"], "dataset='mnits'"),
    (["--model", "resnet21"], "model='resnet21'"),
    (["--sparsity", "1.2"], "sparsity=1.2"),
    (["--sparsity", "-1"], "sparsity=-1"),
    (["--unit-ratio", "0.3"], "unit_ratio"),
    (["--checkpoint", "missing.safetensors"], "checkpoint="),
    (["--checkpoint", "CORRUPT"], "checkpoint="),
    (["--dataset", "imagefolder", "--data-dir", "nowhere"], "data_dir="),
    (["--checkpoint", "CLASSES"], "classes"),
    (["--device", "cuda:77"], "device="),
    (["--option", "nonsense"], "option="),
    (["--num-samples", "1000000"], "num_samples="),
    (["--table", "9"], "table='9'"),
    (["--epochs", "-1"], "epochs=-1"),
]


@pytest.mark.parametrize(
    ("flags", "message"), BAD, ids=lambda v: " ".join(v) if isinstance(v, list) else None
)
def test_bad_input_is_one_line_and_status_two_and_writes_nothing(
    flags, message, tmp_path, capsys, output
):
    """From the command line; a dense network that was there before is untouched."""
    corrupt, classes = tmp_path / "corrupt.safetensors", tmp_path / "classes.safetensors"
    corrupt.write_bytes(b"\x00" * 64)
    from common.nets import models

    checkpoint.save(
        classes,
        models.build(TINY["model"], 7, (1, 8, 8), 0),
        {"model": TINY["model"], "classes": 7, "input_shape": [1, 8, 8]},
    )
    flags = [{"CORRUPT": str(corrupt), "CLASSES": str(classes)}.get(f, f) for f in flags]
    base = ["--sparsity", "0.5"] if not {"--sparsity", "--unit-ratio"} & set(flags) else []
    code = run(
        "common",
        "prune",
        argv=[
            "--model",
            TINY["model"],
            "--allow-untrained",
            "--output-dir",
            str(tmp_path / "runs"),
            *base,
            *flags,
        ],
    )
    captured = capsys.readouterr()
    assert code == 2 and captured.out == ""
    line = captured.err.strip().splitlines()[-1]
    assert line.startswith("error: ") and message in line and "Traceback" not in captured.err
    left = (
        [p for p in (tmp_path / "runs").rglob("*") if p.is_file() and p.name != ".lock"]
        if (tmp_path / "runs").exists()
        else []
    )
    assert not [p for p in left if p.name.startswith("prune")]


def test_the_command_line_runs_lists_and_explains(tmp_path, capsys):
    cells = {
        "1": {
            "a-50": Spec(
                paper="demo", table="1", cell="a-50", sparsity=0.5, output_dir=str(tmp_path), **TINY
            )
        }
    }
    argv = ["--table", "1", "--output-dir", str(tmp_path)]
    assert run("demo", "prune", cells, argv=[*argv, "--list"]) == 0
    assert "not run" in capsys.readouterr().out
    assert run("demo", "prune", cells, argv=[*argv, "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["spec"]["sparsity"] == 0.5 and not list(tmp_path.iterdir())
    assert run("demo", "prune", cells, argv=argv) == 0
    assert "kept 50.00% of the weights" in capsys.readouterr().out
    assert run("demo", "prune", cells, argv=[*argv, "--list"]) == 0
    assert "train, prune" in capsys.readouterr().out
    assert run("demo", "prune", cells, argv=["--cell", "zzz"]) == 2


def test_no_path_of_the_machine_is_in_a_record(output):
    text = json.dumps(vars(pipeline.prune(Spec(sparsity=0.5, output_dir=output, **TINY))))
    assert output not in text


def test_a_method_that_fails_leaves_no_record_and_the_dense_network_whole(output, monkeypatch):
    monkeypatch.setitem(METHODS, "broken", Method("tests.common.broken:prune", "Broken", "weights"))
    spec = Spec(method="broken", sparsity=0.5, output_dir=output, **TINY)
    dense = pipeline.train(spec)
    with pytest.raises(RuntimeError, match="on purpose"):
        pipeline.prune(spec)
    assert not (pipeline.cell_folder(spec) / "prune.json").exists()
    assert (
        checkpoint.state_hash(
            checkpoint.load(pipeline.dense_folder(spec) / "model.safetensors").model
        )
        == dense.dense_hash
    )


def test_the_memory_budget_refuses_before_anything_is_computed(output, capsys):
    code = run(
        "common",
        "prune",
        argv=[
            "--model",
            TINY["model"],
            "--output-dir",
            output,
            "--method",
            "woodfisher",
            "--sparsity",
            "0.51",
            "--memory-budget",
            "0.0001",
            "--allow-untrained",
        ],
    )
    assert code == 2 and "memory_budget=0.0" in capsys.readouterr().err


def test_a_cell_is_chosen_by_its_name_before_by_a_part_of_it(capsys):
    cells = {
        "1": {
            name: Spec(table="1", cell=name, method="random", sparsity=0.5)
            for name in ("wide", "paper-wide", "paper-narrow")
        }
    }
    for asked, found in (
        ("wide", ["wide"]),
        ("paper", ["paper-wide", "paper-narrow"]),
        ("arrow", ["paper-narrow"]),
    ):
        assert run("demo", "prune", cells, argv=["--cell", asked, "--list"]) == 0
        assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == found
