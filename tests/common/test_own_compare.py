"""Networks and data of one's own in the comparison: by a call, and by names of files."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from common import compare
from common.cells.errors import UserError
from common.cells.record import Record
from common.cells.spec import Recipe, Spec, is_own, without_folder
from common.commands import compare as command
from common.data import sources
from common.nets import checkpoint, models, tensorfile
from common.running import stages
from common.system import code
from tests import toy

ROOT = Path(__file__).resolve().parents[2]
NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.body, self.head = nn.Linear(6, width), nn.Linear(width, classes)

    def forward(self, image, meta):
        return {"logits": self.head(torch.relu(self.body(image)) * meta)}


def build(classes, width=8):
    import beside  # a file beside this one

    return Net(beside.units(width), classes)


def loaders(count=96):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(count, 6, generator=g)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    sets = []
    for part in (slice(0, 64), slice(64, count)):
        sets.append([{"image": x[part], "meta": torch.ones(len(x[part]), 1), "labels": y[part]}])
    return sets


def squared(output, batch):
    target = nn.functional.one_hot(batch["labels"], 3).float()
    return (output["logits"] - target).square().mean()


def right(output, batch):
    return (output["logits"].argmax(1) == batch["labels"]).float().mean()


def fails():
    raise RuntimeError("no such weights")


def number():
    return 3
"""


@pytest.fixture
def net(tmp_path):
    """A file in another folder."""
    path = tmp_path / "elsewhere" / "net.py"
    path.parent.mkdir()
    path.write_text(NET)
    (path.parent / "beside.py").write_text("def units(width):\n    return width\n")
    return path


def regression():
    x = torch.randn(80, 6, generator=toy.generator(1))
    y = torch.stack([x[:, 0] * 2, x[:, 1] - x[:, 2]], 1)
    return [(x[:60], y[:60])], [(x[60:], y[60:])]


def test_a_call_gives_table_figures_and_report_and_goes_on(tmp_path, capsys):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))
    train, test = regression()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(train[0][0]), train[0][1]).backward()
        optimizer.step()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def run(net=model, **more):
        told = {"methods": ["magnitude-global", "woodfisher", "l-obs"], "amounts": [0.3, 0.6]}
        return compare(net, train, test, loss="mse", out=tmp_path, **told | more)

    found = run()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    for name in ("table.md", "table.csv", "report.html"):
        assert (found.folder / name).stat().st_size > 0
    assert len(found.records) == 6 and str(found) == found.table
    assert "WoodFisher" in found.table and "Dense R² 0." in found.table
    assert "What is called accuracy in this table and its figures is R²" in found.table
    dense = found.records[0].accuracy["dense"]
    output, y = model(test[0][0]).detach(), test[0][1]
    r2 = 1 - float((output - y).square().sum() / (y - y.mean(0)).square().sum())
    assert dense == pytest.approx(r2, abs=1e-5) and dense > 0.8
    for record in found.records:
        assert record.achieved["sparsity"] == pytest.approx(record.requested["sparsity"], abs=0.01)
    told = capsys.readouterr().out
    assert "test R² " in told and "6 cells in" in told and ": 6 ran, 0 were there" in told
    run()
    assert ": 0 ran, 6 were there" in capsys.readouterr().out
    with torch.no_grad():
        model[0].weight[0, 0] += 1.0
    other = run(methods=["magnitude-global"], finetune=Recipe(epochs=1.0))
    assert other.folder != found.folder and ": 2 ran, 0 were there" in capsys.readouterr().out


def test_functions_of_ones_own_reach_the_records(tmp_path):
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    train, test = ([{"a": x, "b": y}] for ((x, y),) in regression())
    found = compare(
        model,
        train,
        test,
        methods=["woodfisher"],
        amounts=[0.5],
        out=tmp_path,
        forward_fn=lambda net, batch: (net(batch["a"]),),
        loss_fn=lambda output, batch: (output[0] - batch["b"]).square().mean(),
        metric=lambda output, batch: -float((output[0] - batch["b"]).abs().mean()),
    )
    wanted = -float((model(test[0]["a"]).detach() - test[0]["b"]).abs().mean())
    (record,) = found.records
    assert record.accuracy["dense"] == pytest.approx(wanted, rel=1e-5)
    assert record.loss["predicted_increase"] > 0
    assert "Dense metric own:lambda-" in found.table


def test_a_method_without_anything_to_prune_is_named_unless_asked_for(tmp_path, capsys):
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    with pytest.raises(UserError):
        compare(model, *regression(), loss="mse", methods=["cp"], amounts=[0.5], out=tmp_path)


# -- the command -----------------------------------------------------------------------------------


def folder_of(out):
    (folder,) = {path.parents[2] for path in Path(out).rglob("finetune.json")}
    return folder


def run(*flags):
    return command.main([*flags, "--seeds", "1", "--methods", "magnitude-global,woodfisher"])


def test_a_file_in_another_folder_is_compared_and_reported(net, tmp_path, capfd):
    flags = ["--model", f"{net}:build:width=6", "--dataset", f"{net}:loaders"]
    flags += ["--sparsities", "0.4", "--train-epochs", "3", "--epochs", "1"]
    flags += ["--output-dir", str(tmp_path / "runs")]
    assert run(*flags) == 0
    out, err = capfd.readouterr()
    assert "2 cells in" in out and ": 2 ran, 0 were there" in out
    assert err.count(f"runs the code of {net}") <= 2  # once a use: the network, the data
    folder = folder_of(tmp_path / "runs")
    records = [Record.read(path) for path in folder.rglob("finetune.json")]
    assert all(record.spec["model"] == "net.py:build:width=6" for record in records)
    assert all(str(net.parent) not in json.dumps(record.spec) for record in records)
    assert {record.achieved["dense_params"] for record in records} == {6 * 6 + 6 * 3}
    assert run(*flags) == 0 and ": 0 ran, 2 were there" in capfd.readouterr().out
    # as the next steps of make compare, in processes that were given no code
    for step in (["common.agreement", folder], ["figures.compare", "--records", folder]):
        to = ["--output", tmp_path / "report"] if len(step) > 2 else []
        told = [sys.executable, "-m", *map(str, [*step, *to])]
        done = subprocess.run(told, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "report" / "report.html").is_file()
    # another source is another network
    net.write_text(NET.replace("torch.relu", "torch.tanh"))
    code.load.cache_clear()
    assert run(*flags) == 0 and ": 2 ran, 0 were there" in capfd.readouterr().out


def test_a_configuration_holds_the_job_and_flags_go_before_it(net, tmp_path, capsys):
    config = net.parent / "compare.toml"
    config.write_text(
        'model = "net.py:build"\ndataset = "net.py:loaders"\nloss = "net.py:squared"\n'
        'metric = "net.py:right"\nsparsities = [0.3, 0.6]\ntrain_epochs = 1\nepochs = 0\n'
        f'output_dir = "{tmp_path / "runs"}"\n'
    )
    assert run("--config", str(config), "--sparsities", "0.5") == 0
    records = [Record.read(path) for path in (tmp_path / "runs").rglob("finetune.json")]
    assert {record.requested["sparsity"] for record in records} == {0.5}
    assert {record.spec["loss"] for record in records} == {"net.py:squared"}
    assert "test metric " in capsys.readouterr().out
    config.write_text("modle = 3\n")
    assert run("--config", str(config)) == 2
    assert "config='modle': unknown; choose one of" in capsys.readouterr().err


WRONG = {
    "gone.py:build": "no such file",
    "{net}:nothing": "has no function 'nothing'; it has build",
    "{net}:build:depth=3": "unknown option 'depth'; options here: width",
    "{net}:fails": r"building it failed \(RuntimeError: no such weights\)",
    "{net}:number": "gives a int",
    "no.such.module:build": "there is no module 'no.such.module'",
    "torchvision:resnet1000": "building it failed",
}


@pytest.mark.parametrize("name", WRONG)
def test_code_that_is_not_there_is_one_line(name, net, tmp_path, capsys):
    told = name.format(net=net)
    flags = ["--model", told, "--dataset", "digits", "--output-dir", str(tmp_path / "runs")]
    assert run(*flags, "--sparsities", "0.5", "--train-epochs", "0", "--allow-untrained") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert re.search(WRONG[name], line), line
    assert not list((tmp_path / "runs").rglob("*.json"))


@pytest.mark.parametrize("name", ["torchvision:squeezenet1_0", "timm:vit_tiny_patch16_224"])
def test_networks_of_libraries_are_built_for_the_data(name):
    library = pytest.importorskip(name.partition(":")[0])
    assert library
    options = ":img_size=32,depth=2,embed_dim=24" if name.startswith("timm") else ""
    one, two = (models.build(name + options, 5, (3, 32, 32), seed) for seed in (0, 0))
    size = 64 if name.startswith("torchvision") else 32
    assert one.eval()(torch.zeros(2, 3, size, size)).shape == (2, 5)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_checkpoint_of_ones_own_loads_where_its_name_was_given(net, tmp_path):
    name = f"{net}:build:width=6"
    spec = Spec(model=name, dataset=f"{net}:loaders")
    code.allow(name)
    model = models.build(name, 3, (), 0)
    path = tmp_path / "net.safetensors"
    checkpoint.save(path, model, stages.architecture(spec, sources.load(spec.dataset)))
    found = checkpoint.load(path)
    for key, value in model.state_dict().items():
        assert torch.equal(found.model.state_dict()[key], value)
    script = (
        "import sys; from common.nets import checkpoint\n"
        "from common.cells.errors import UserError\n"
        "try: checkpoint.load(sys.argv[1])\n"
        "except UserError as error: print(error)"
    )
    told = subprocess.run(
        [sys.executable, "-c", script, str(path)], cwd=ROOT, capture_output=True, text=True
    )
    assert "code that this process was not given; give --model" in told.stdout
    assert told.stdout.count("\n") == 1 and not told.stderr
    export = [sys.executable, "-m", "common.export", str(path), "--plain", str(tmp_path / "plain")]
    for more, status in (([], 2), (["--model", name], 0)):
        done = subprocess.run([*export, *more], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == status and "Traceback" not in done.stderr, done.stderr
    assert (tmp_path / "plain" / "weights.safetensors").is_file()
    tensors, told = tensorfile.read(path)
    description = json.loads(told)
    for source in (None, ""):  # without its digest a name of code is nothing
        description["architecture"]["source_sha256"] = source
        tensorfile.write(tmp_path / "bare.safetensors", tensors, json.dumps(description))
        with pytest.raises(UserError, match="the digest of its source too"):
            checkpoint.load(tmp_path / "bare.safetensors")
    net.write_text(NET + "\n# changed\n")
    with pytest.raises(UserError, match="saved from another version of that code"):
        checkpoint.load(path)


def test_names_of_ones_own_are_told_from_the_usual():
    for name in ("a/b/net.py:build", "net.py:build:width=3", "package.module:build", "timm:vit"):
        assert is_own(name), name
    for name in ("resnet20", "resnet32:width=4,shortcut=B", "cifar10-jpeg:norm=imagenet", "digits"):
        assert not is_own(name), name
    assert without_folder("/home/me/a/net.py:build:w=1") == "net.py:build:w=1"
    assert without_folder("resnet20:width=4") == "resnet20:width=4"
    assert Spec(model="/a/net.py:build").slug() == Spec(model="b/net.py:build").slug()


def test_a_folder_of_pictures_with_a_network_of_torchvision(tmp_path, capsys):
    """Three classes of generated pictures, stripes of three directions."""
    from PIL import Image

    g = toy.generator(0)
    for label, name in enumerate(("across", "along", "plain")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(10):
            picture = torch.randint(60, (3, 32, 32), generator=g, dtype=torch.uint8)
            if label < 2:
                picture.movedim(1 + label, 0)[::4] += 150
            image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
            image.save(tmp_path / "pictures" / name / f"{i}.png")
    status = command.main(
        [
            *("--model", "torchvision:squeezenet1_1", "--dataset", "imagefolder"),
            *("--data-dir", str(tmp_path / "pictures"), "--methods", "magnitude-global"),
            *("--sparsities", "0.5", "--seeds", "1", "--train-epochs", "0.5", "--epochs", "0"),
            *("--output-dir", str(tmp_path / "runs")),
        ]
    )
    assert status == 0 and "1 cells in" in capsys.readouterr().out
    (path,) = (tmp_path / "runs").rglob("finetune.json")
    assert Record.read(path).achieved["sparsity"] == pytest.approx(0.5, abs=1e-3)
