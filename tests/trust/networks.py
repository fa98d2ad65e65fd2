"""What happens when each method meets the networks that people bring: small versions of them, one
call each, and a page of all outcomes.

    python -m tests.trust.networks [part of a network's name ...] [--method name,...]
        [--kept runs/networks.jsonl] [--page docs/networks.md]

A cell works if the pruned network runs, everything is finite, what a mask says is gone is zero, and
as much went as was asked for; or it is refused by one of the project's own errors, in one line.
Anything else is a fault, and the exit status is 1. Outcomes are kept as they come: a run that was
stopped goes on, and a cell of `--kept` is not run again. `--page` writes the page from all that is
kept, once every cell is there.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import prune
from common.cells.errors import LayerError, NumericalError, Parser, UserError, choose
from common.cells.registry import METHODS, lookup
from common.curvature.labels import losses
from common.data.task import Calibration, Task
from common.nets.assumptions import output_of
from common.nets.dense import left_dense
from common.pruning.pruned import Pruned
from common.running.cli import guarded

EXAMPLES, CLASSES, VOCABULARY, WORDS = 32, 4, 24, 6
AMOUNT = 0.3


@dataclass(frozen=True)
class Network:
    """build: the network. data: its batches. told: what common.prune is told beside."""

    build: Callable[[], nn.Module]
    data: Callable[[], list]
    told: dict = field(default_factory=dict)
    needs: str = ""  # an optional package
    what: str = ""


class Blocks(nn.Module):
    """A residual network as people write it."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 12, 3, stride=2)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.stem(x)))
        y = F.relu(self.two(F.relu(y + self.one(y))))
        return self.head(y.mean((2, 3)))


class DictOutput(Blocks):
    """Gives its features beside its logits."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": super().forward(x), "pixels": x}


class TwoInputs(nn.Module):
    """A picture and a row of numbers."""

    def __init__(self):
        super().__init__()
        self.image, self.meta = nn.Conv2d(3, 8, 3), nn.Linear(5, 8)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, image: Tensor, meta: Tensor) -> Tensor:
        seen = F.relu(self.image(image)).mean((2, 3))
        return self.head(torch.cat([seen, F.relu(self.meta(meta))], 1))


class UNet(nn.Module):
    """Down, up by a transposed convolution, and the stem beside it."""

    def __init__(self):
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 12, 2, stride=2)
        self.up, self.out = nn.ConvTranspose2d(12, 6, 2, stride=2), nn.Conv2d(12, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.stem(x))
        return self.out(torch.cat([y, F.relu(self.up(F.relu(self.down(y))))], 1))


class Recurrent(nn.Module):
    """Words, an LSTM, a small head."""

    def __init__(self):
        super().__init__()
        self.embed, self.cells = nn.Embedding(VOCABULARY, 8), nn.LSTM(8, 8, batch_first=True)
        self.hidden, self.head = nn.Linear(8, 24), nn.Linear(24, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(self.cells(self.embed(ids))[0][:, -1])))


class Encoder(nn.Module):
    """torch's own encoder on patches."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(48, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, 4, stride=4).transpose(1, 2)
        return self.head(self.encoder(self.embed(patches)).mean(1))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def numbers(*shape: int) -> Tensor:
    return torch.randn(EXAMPLES, *shape, generator=generator())


def labels(*shape: int) -> Tensor:
    return torch.randint(CLASSES, (EXAMPLES, *shape), generator=generator())


def words() -> Tensor:
    return torch.randint(VOCABULARY, (EXAMPLES, WORDS), generator=generator())


def pictures() -> list:
    return [(numbers(3, 8, 8), labels())]


def wide_pictures() -> list:
    return [(numbers(3, 16, 16), labels())]


def timm_vit() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=16, patch_size=8, num_classes=CLASSES, embed_dim=16, depth=2, num_heads=2
    )


def torchvision_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(16, 8, 2, 2, 16, 32, num_classes=CLASSES)
    nn.init.normal_(model.heads.head.weight, std=0.1)  # zero at first, and so is every gradient
    return model


def resnet18() -> nn.Module:
    from timm.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, [2, 2, 2, 2], num_classes=CLASSES, channels=(8, 8, 12, 12))


def mobilenet() -> nn.Module:
    from torchvision.models import MobileNetV2

    setting = [[1, 16, 1, 1], [4, 24, 2, 2]]
    return MobileNetV2(num_classes=CLASSES, width_mult=0.5, inverted_residual_setting=setting)


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=CLASSES,
    )
    return BertForSequenceClassification(config)


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=16, n_embd=16, n_layer=2, n_head=2, use_cache=False
    )
    return GPT2LMHeadModel(config)


def sentences() -> list:
    mask = torch.ones(EXAMPLES, WORDS, dtype=torch.long)
    return [{"input_ids": words(), "attention_mask": mask, "labels": labels()}]


def text() -> list:
    ids = words()
    return [(ids, torch.cat([ids[:, 1:], torch.full((EXAMPLES, 1), -100)], 1))]


NETWORKS = {
    "own CNN": Network(Blocks, pictures, what="three convolutions with a residual sum"),
    "timm ViT": Network(timm_vit, wide_pictures, needs="timm", what="two blocks of width 16"),
    "torchvision ViT": Network(torchvision_vit, wide_pictures, what="two blocks of width 16"),
    "torch encoder": Network(
        Encoder, lambda: [(numbers(3, 8, 8), labels())], what="nn.TransformerEncoder, batch_first"
    ),
    "ResNet-18": Network(resnet18, wide_pictures, needs="timm", what="timm's, 8 to 12 channels"),
    "MobileNetV2": Network(mobilenet, wide_pictures, what="torchvision's, three blocks"),
    "Conv1d audio": Network(
        lambda: nn.Sequential(
            nn.Conv1d(1, 8, 9, stride=4),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Conv1d(8, 12, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(12, CLASSES),
        ),
        lambda: [(numbers(1, 96), labels())],
        what="raw samples",
    ),
    "MLP regression": Network(
        lambda: nn.Sequential(
            nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 2)
        ),
        lambda: [(numbers(6), numbers(6)[:, :2])],
        {"loss": "mse"},
        what="two numbers out, mse",
    ),
    "dict output": Network(DictOutput, pictures, what="own CNN that gives a dict"),
    "two inputs": Network(
        TwoInputs,
        lambda: [{"image": numbers(3, 8, 8), "meta": numbers(5), "labels": labels()}],
        what="a picture and a row of numbers, as a dict",
    ),
    "segmentation": Network(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, CLASSES, 1),
        ),
        lambda: [(numbers(3, 8, 8), labels(8, 8))],
        what="a class a pixel",
    ),
    "U-Net": Network(
        UNet, lambda: [(numbers(3, 8, 8), labels(8, 8))], what="a transposed convolution, a skip"
    ),
    "LSTM": Network(
        Recurrent,
        lambda: [(words(), labels())],
        {"skip": ["cells"]},
        what="words; the LSTM is named in skip, so that the amount is of the others",
    ),
    "BERT": Network(
        bert, sentences, needs="transformers", what="two layers of width 16, a class a sentence"
    ),
    "GPT-2": Network(
        gpt2,
        text,
        {"loss": "language_model"},
        needs="transformers",
        what="two layers of width 16, its head tied to the table of words",
    ),
}


def loss_of(model: nn.Module, network: Network) -> float:
    """The mean loss on the network's data."""
    task, total, seen = Task(network.told.get("loss", "cross_entropy")), 0.0, 0
    with torch.no_grad():
        for x, y in Calibration(network.data(), task):
            output = output_of(model.eval(), x)
            total += sum(float(v) for v in losses(output, y, "empirical", task, None))
            seen += len(x)
    return total / seen


def judged(pruned: Pruned, network: Network, dense: float, kind: str) -> dict:
    """The outcome of a cell; AssertionError where the pruned network is not what it says."""
    measured = loss_of(pruned.model, network) - dense
    kept, total = (sum(pair[i] for pair in pruned.weights.values()) for i in (0, 1))
    # what an amount is a fraction of: matrices that stay dense count, what skip names does not
    stays = left_dense(pruned.model, network.told.get("skip", ()))
    every = total + sum(left.weights for left in stays.values() if left.counted)
    removed = (total - kept) / every
    assert math.isfinite(measured), f"measured {measured}"
    predicted = pruned.predicted_increase
    assert predicted is None or math.isfinite(predicted), f"predicted {predicted}"
    parameters = dict(pruned.model.named_parameters())
    for name, mask in pruned.masks.items():
        assert not parameters[name][~mask].any(), f"{name}: masked weights are not zero"
    if kind == "weights":
        assert pruned.masks, "no masks"
        wanted = round(AMOUNT * every)
        each = len(pruned.masks)
        assert abs(total - kept - wanted) <= each, f"{total - kept} of {wanted} weights went"
    assert removed > 0, "nothing was removed"
    return {
        "outcome": "works",
        "removed": round(removed, 4),
        "predicted": predicted,
        "measured": measured,
        "dense": pruned.dense,
        "notes": pruned.notes,
    }


def run(name: str, method: str) -> dict:
    """One cell."""
    network, kind = NETWORKS[name], lookup(method).kind
    torch.manual_seed(0)
    model = network.build().eval()
    before, start = loss_of(model, network), time.perf_counter()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    try:
        pruned = prune(model, network.data(), AMOUNT, method, seed=0, **network.told)
        result = judged(pruned, network, before, kind)
    except (UserError, LayerError, NumericalError) as error:
        result = {"outcome": "refused", "words": str(error), "error": type(error).__name__}
        if "\n" in str(error):
            result["outcome"] = "fault"
    except Exception as error:
        traceback.print_exc()
        result = {"outcome": "fault", "words": f"{type(error).__name__}: {error}"}
    after = model.state_dict()
    if set(after) != set(state) or any(not torch.equal(after[k], v) for k, v in state.items()):
        result = {"outcome": "fault", "words": "the network that was given has changed"}
    return (
        {"network": name, "method": method}
        | result
        | {"seconds": round(time.perf_counter() - start, 2)}
    )


def kept(path: Path) -> dict[tuple[str, str], dict]:
    """Outcomes that are there, the latest of each cell; faults are run again."""
    if not path.exists():
        return {}
    rows = map(json.loads, path.read_text().splitlines())
    return {(r["network"], r["method"]): r for r in rows if r["outcome"] != "fault"}


def page(found: dict[tuple[str, str], dict]) -> str:
    """The table of all cells, and below it the refusals in their own words."""
    words: dict[str, int] = {}
    lines = [
        "# Networks that people bring",
        "",
        f"Every registered method on {len(NETWORKS)} small networks with random weights and "
        f"{EXAMPLES} random examples,",
        f"one call `prune(model, loader, {AMOUNT}, method)` each. Written by "
        "`python -m tests.trust.networks --page docs/networks.md`.",
        "",
        "A percentage is the share of the network's weights that went: masks counted,",
        "masked weights zero, the pruned network run, its predicted and measured increase finite,",
        "the given network untouched. A number in brackets is a refusal, quoted below.",
        f"Methods that remove channels or factorize layers take {AMOUNT:.0%} of their own units.",
        "",
        "| method | " + " | ".join(NETWORKS) + " |",
        "|---|" + "---|" * len(NETWORKS),
    ]
    for method in METHODS:
        cells = []
        for name in NETWORKS:
            row = found[name, method]
            if row["outcome"] == "works":
                cells.append(f"{row['removed']:.0%}")
            else:
                cells.append(f"[{words.setdefault(row['words'], len(words) + 1)}]")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    lines += ["", "## The networks", ""]
    for name, network in NETWORKS.items():
        works = [found[name, m] for m in METHODS if found[name, m]["outcome"] == "works"]
        dense = next((row["dense"] for row in works if lookup(row["method"]).kind == "weights"), {})
        stays = "; ".join(f"`{key or 'itself'}`: {why}" for key, why in dense.items())
        told = "".join(f", {key}={value!r}" for key, value in network.told.items())
        lines.append(f"- **{name}**: {network.what}{told}.")
        lines[-1] += f" Stays dense: {stays}." if stays else ""
    lines += ["", "## Refusals", ""]
    lines += [f"{number}. {text}" for text, number in words.items()]
    return "\n".join(lines) + "\n"


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m tests.trust.networks", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="name", help="parts of networks' names (default: all networks)"
    )
    parser.add_argument(
        "--method", default=",".join(METHODS), help="comma-separated methods (default: all)"
    )
    parser.add_argument(
        "--kept",
        type=Path,
        default=Path("runs/networks.jsonl"),
        help="cells that are done, and where more are kept (default: runs/networks.jsonl)",
    )
    parser.add_argument("--page", type=Path, help="write the page there once every cell is done")
    a = parser.parse_args(argv)
    faults: list[dict] = []

    def work() -> None:
        methods = [choose("method", word, METHODS) for word in a.method.split(",")]
        for part in a.parts:
            if not any(part in name for name in NETWORKS):
                choose("network", part, NETWORKS)
        names = [n for n in NETWORKS if not a.parts or any(part in n for part in a.parts)]
        faults.extend(fill(names, methods, a.kept))
        if a.page:
            write(a.page, kept(a.kept))

    return guarded(work) or int(bool(faults))


def fill(names: list[str], methods: list[str], file: Path) -> list[dict]:
    """Run the cells that `file` does not hold yet; returns those that are faults."""
    found, faults = kept(file), []
    file.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        package = NETWORKS[name].needs
        if package and not importlib.util.find_spec(package):
            raise UserError("network", name, f"needs {package}", f"pip install {package}")
        for method in methods:
            if (name, method) in found:
                continue
            row = run(name, method)
            faults += [row] if row["outcome"] == "fault" else []
            with file.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
            what = f"{row['removed']:.0%}" if row["outcome"] == "works" else row["words"]
            tell(f"{name} x {method}: {row['outcome']} {what} ({row['seconds']} s)")
    return faults


def write(target: Path, found: dict[tuple[str, str], dict]) -> None:
    """The page, once every cell is there. UserError before."""
    missing = [(n, m) for n in NETWORKS for m in METHODS if (n, m) not in found]
    if missing:
        name, method = missing[0]
        raise UserError(
            "page", str(target), f"{len(missing)} cells are missing, first {name} x {method}"
        )
    target.write_text(page(found))


if __name__ == "__main__":
    sys.exit(main())
