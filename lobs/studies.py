"""What L-OBS shows that is not a cell: Theorem 3.2, Table 2 (Net-Trim), Fig. 2b (memory), DNS, and
the ImageNet networks.

    python -m lobs.studies theorem | net-trim | dns | memory | imagenet [--model alexnet]
      [--examples 16] [--output-dir runs/lobs/studies]

Each writes one record; the numbers are in its trajectory. ImageNet networks are randomly
initialised: no accuracy is claimed.
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from common.cells.errors import Parser, choose, whole
from common.cells.record import Record
from common.cells.spec import Spec
from common.nets import checkpoint, models
from common.nets import layers as L
from common.nets.capture import capture
from common.nets.clone import clone
from common.running import pipeline
from common.running import train as T
from common.running.cli import guarded
from common.running.timing import Timer
from common.system import machine
from lobs import dns
from lobs.bound import propagation
from lobs.experiments import IMAGENET, LENET300, OURS, STATED
from lobs.hessian import Layer, layer_statistics
from lobs.net_trim import Options as TrimOptions
from lobs.net_trim import constraint_entries, net_trim, net_trim_keeping
from lobs.ours import Fit, Options, prune, prune_layer

log = logging.getLogger(__name__)
MIDDLE = "fc2"  # the only layer of Table 2 and Fig. 2b
TRIM_SAMPLES, TRIM_KEEPS = 1_000, (0.19, 0.074, 0.042, 0.038, 0.034)  # Table 2's CRs
PRINTED_KEEPS = (0.19, 0.074, 0.042)  # Net-Trim's of them
# ImageNet images at once: VGG-16 holds 60 MB of activations for each
BATCH = 4
DNS_STEPS = (643, 4_000)  # the paper's DNS row takes 34,000
XIS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.7)


class PeakBytes(TorchDispatchMode):
    """Peak bytes of the tensors that operations inside the block return and that are alive at
    once.
    """

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                self._see(tensor)
        return result

    def _see(self, tensor: Tensor) -> None:
        place, size = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
        if place not in self._alive:
            self.now += size
            self.peak = max(self.peak, self.now)
        self._alive[place] = self._alive.get(place, 0) + 1
        weakref.finalize(tensor, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self._alive[place] -= 1
        if not self._alive[place]:
            del self._alive[place]
            self.now -= size


def theorem(spec: Spec, timer: Timer) -> list[dict]:
    """Eq. 8 on LeNet-300-100 at the paper's keeps, for its walk, the joint optimum, and ours behind
    pruned inputs.
    """
    model, data = _dense(spec)
    cases = {
        "l-obs": Options(batch_size=1000),
        "l-obs-joint": Options(update="joint", batch_size=1000),
        "l-obs-ours": Options(update="joint", inputs="pruned", damping=1e-3, relative=True, **OURS),
    }
    result = []
    for name, options in cases.items():
        with timer.phase("prune"):
            pruned = prune(
                model, data.calibration(20_000, 1000), STATED, options, torch.Generator()
            )
        with timer.phase("propagate"):
            rows = propagation(model, pruned.model, data.calibration(20_000, 1000))
        result += [{"method": name} | {k: _short(v) for k, v in row.items()} for row in rows]
    return result


def net_trim_table(spec: Spec, timer: Timer) -> list[dict]:
    """Table 2: only the middle layer pruned. Net-Trim over a range of ξ on 1,000 samples; L-OBS at
    the table's keeps on the same samples and on all; ξ_r is measured on the samples, the error on
    the test set."""
    model, data = _dense(spec)
    module, rows = model.get_submodule(MIDDLE), []
    loader = data.calibration(TRIM_SAMPLES, TRIM_SAMPLES)
    with capture(model, {MIDDLE: module}, gradients=False) as tape:
        tape.forward(next(iter(loader))[0])
    X = L.inputs(module, tape.input(MIDDLE), bias=True)[:, 0, 0].T
    dense = torch.cat([module.weight, module.bias[:, None]], 1).detach().double()
    Y = (dense @ X.double()).clamp_min(0)

    def entry(method: str, new: Tensor, **more: object) -> dict:
        other = _with_layer(model, MIDDLE, new)
        xi = float(((new @ X.double()).clamp_min(0) - Y).norm() / Y.norm())
        return {
            "method": method,
            "kept": float((new[:, :-1] != 0).double().mean()),
            "xi": _short(xi),
            "error": round(1 - T.evaluate(other, data.test_loader())[1], 5),
            **more,
        }

    for xi in XIS:
        with timer.phase("net_trim"):
            peak = PeakBytes()
            with peak:
                new, report = net_trim(dense, X, TrimOptions(xi=xi))
        rows.append(
            entry(
                "net-trim",
                new,
                asked=xi,
                violation=_short(report["violation"]),
                samples=TRIM_SAMPLES,
                peak_bytes=peak.peak,
            )
        )
    for keep in PRINTED_KEEPS:
        with timer.phase("net_trim"):
            new, report = net_trim_keeping(dense, X, keep)
        rows.append(
            entry(
                "net-trim",
                new,
                target=keep,
                asked=_short(report["asked"]),
                violation=_short(report["violation"]),
                samples=TRIM_SAMPLES,
            )
        )
    for method, update, samples in (
        ("l-obs", "triangular", TRIM_SAMPLES),
        ("l-obs-joint", "joint", TRIM_SAMPLES),
        ("l-obs", "triangular", 60_000),
        ("l-obs-joint", "joint", 60_000),
    ):
        options = Options(update=update)
        with timer.phase("l_obs"):
            seen = layer_statistics(
                model, data.calibration(samples, 1000), {MIDDLE: module}, True, 1000
            )[MIDDLE]
            layer = Fit.start(Layer.of(MIDDLE, seen, 1e-3, relative=True))
            rows += [
                entry(method, prune_layer(layer, 1 - keep, options)[0][0], samples=samples)
                for keep in TRIM_KEEPS
            ]
    return rows


def surgery(spec: Spec, timer: Timer) -> list[dict]:
    """DNS at the keeps of Table 1's row and of the iterative row, one layer like the other, for the
    iterations of L-OBS and many more: error on the way, of the network as it is masked then, and at
    the end with the exact number kept."""
    model, data = _dense(spec)
    rows = []
    for keep in (0.018, 0.015):
        for steps in DNS_STEPS:

            def watch(state: T.State, keep: float = keep, steps: int = steps) -> None:
                if (
                    state.event == "step"
                    and state.step < steps
                    and state.step % max(1, steps // 8) == 0
                ):
                    used = float(
                        torch.cat(
                            [m.weight.flatten() != 0 for m in L.prunable(state.model).values()]
                        )
                        .double()
                        .mean()
                    )
                    rows.append(
                        {
                            "method": "dns",
                            "kept": keep,
                            "steps": steps,
                            "step": state.step,
                            "kept_then": _short(used),
                            "error": round(1 - T.evaluate(state.model, data.test_loader())[1], 5),
                        }
                    )

            with timer.phase("dns"):
                result = dns.prune(
                    model,
                    data.calibration(60_000, 10_000),
                    1 - keep,
                    dns.Options(steps=steps),
                    torch.Generator().manual_seed(spec.seed),
                    watch=watch,
                )
            rows.append(
                {
                    "method": "dns",
                    "kept": keep,
                    "steps": steps,
                    "step": steps,
                    "kept_then": keep,
                    "error": round(1 - T.evaluate(result.model, data.test_loader())[1], 5),
                }
            )
    return rows


def memory(spec: Spec, timer: Timer) -> list[dict]:
    """Fig. 2b: bytes that pruning the middle layer takes, against the number of samples. Measured
    for L-OBS and for Net-Trim by ADMM; Q is what the quadratic constraints of Net-Trim's own
    formulation would hold, in float64, and is only counted."""
    model, data = _dense(spec)
    module = model.get_submodule(MIDDLE)
    W, rows = torch.cat([module.weight, module.bias[:, None]], 1).detach().double(), []
    for samples in (1, 2, 5, 10, 20, 50, 100, 1_000, 10_000, 60_000):
        loader = data.calibration(samples, 100)
        batches = list(loader)
        with timer.phase("l_obs"), PeakBytes() as ours:
            seen = layer_statistics(model, batches, {MIDDLE: module}, True, 100)[MIDDLE]
            layer = Layer.of(MIDDLE, seen, 1e-3, relative=True)
            prune_layer(Fit.start(layer), 0.9, Options())
        row = {
            "samples": samples,
            "l_obs_bytes": ours.peak,
            "q_bytes": 8 * constraint_entries(samples, module.out_features, module.in_features),
        }
        if samples <= 1_000:
            with capture(model, {MIDDLE: module}, gradients=False) as tape:
                tape.forward(torch.cat([x for x, _ in batches]))
            with timer.phase("net_trim"), PeakBytes() as theirs:
                net_trim(
                    W,
                    L.inputs(module, tape.input(MIDDLE), True)[:, 0, 0].T,
                    TrimOptions(xi=0.3, iterations=20),
                )
            row["net_trim_bytes"] = theirs.peak
        rows.append(row)
    return rows


def imagenet(spec: Spec, timer: Timer, examples: int = 16) -> list[dict]:
    """The paper's walk on every layer at its overall keep, and the layer errors predicted beside
    those carried out.
    """
    data = pipeline.data_of(spec)
    model = models.build(spec.model, data.classes, data.input_shape, 0).eval()
    loader = data.calibration(examples, BATCH)
    with timer.phase("prune"):
        result = prune(
            model,
            loader,
            spec.sparsity,
            Options(damping=1e-3, relative=True, batch_size=BATCH),
            torch.Generator(),
        )
    with timer.phase("measure"):
        measured = measured_errors(model, result.model, loader)
    return [
        {
            "name": name,
            "kept": round(float(result.masks[f"{name}.weight"].double().mean()), 5),
            "predicted": _short(report["predicted_error"]),
            "measured": _short(measured[name]),
            "relative": _short(report["relative_error"]),
        }
        for name, report in result.layers.items()
    ]


@torch.no_grad()
def measured_errors(dense: nn.Module, pruned: nn.Module, loader) -> dict[str, float]:
    """½ mean ‖Ẑ − Z‖² of every layer on the dense network's inputs, carried out; the mean is over
    examples and positions.
    """
    originals, changed = L.prunable(dense), L.prunable(pruned)
    totals, counts = dict.fromkeys(originals, 0.0), dict.fromkeys(originals, 0)
    for x, _ in loader:
        with capture(dense, originals, gradients=False) as tape:
            tape.forward(x)
        for name, module in originals.items():
            gap = (changed[name](tape.input(name)) - module(tape.input(name))).double()
            totals[name] += 0.5 * float(gap.square().sum())
            counts[name] += gap.numel() // module.weight.shape[0]
    return {name: totals[name] / counts[name] for name in totals}


def _with_layer(model: nn.Module, name: str, W: Tensor) -> nn.Module:
    """A copy of the model whose layer `name` has the weights and bias of W [out, in + 1]."""
    other = clone(model)
    with torch.no_grad():
        other.get_submodule(name).weight.copy_(W[:, :-1])
        other.get_submodule(name).bias.copy_(W[:, -1])
    return other


def _dense(spec: Spec):
    data = pipeline.data_of(spec)
    pipeline.train(spec)
    return checkpoint.load(pipeline.dense_folder(spec) / "model.safetensors").model.eval(), data


def _short(value: float) -> object:
    """Numbers with six digits: records are read by people too."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


STUDIES: dict[str, tuple[Callable, Spec]] = {
    "theorem": (theorem, LENET300.but(table="theorem-3.2", cell="lenet300-theorem")),
    "net-trim": (net_trim_table, LENET300.but(table="2", cell="lenet300-net-trim")),
    "dns": (surgery, LENET300.but(table="1-dns", cell="lenet300-dns")),
    "memory": (memory, LENET300.but(table="figure-2b", cell="lenet300-memory")),
    "imagenet": (imagenet, IMAGENET),
}


def study(name: str, spec: Spec, output: Path, **more: object) -> Record:
    """Run one study and write its record."""
    function, timer = STUDIES[choose("study", name, STUDIES)][0], Timer()
    rows = function(spec, timer, **more)
    where = machine.device("cpu")
    told = spec.but(data_dir="", output_dir=Spec.output_dir).to_dict()
    record = Record(
        f"{spec.slug()}-{name}",
        spec.paper,
        spec.table,
        spec.cell,
        "l-obs",
        "prune",
        spec.scale,
        told,
        trajectory=rows,
        timing=timer.report(),
        provenance=machine.provenance(where, spec.seed, pipeline.data_of(spec).sha256),
    )
    record.write(output / f"{spec.cell}.json")
    return record


def main(argv: list[str] | None = None) -> int:
    """Run a study; returns the exit status."""
    p = Parser(description=__doc__)
    p.add_argument("study", help=", ".join(STUDIES))
    p.add_argument(
        "--model",
        default="alexnet",
        help="for imagenet: alexnet, vgg16 or resnet50 (default: alexnet)",
    )
    p.add_argument(
        "--examples", type=whole(), default=16, help="for imagenet: images (default: 16)"
    )
    p.add_argument(
        "--data-dir", default="", help="data root; for imagenet the folder with train/<synset>/"
    )
    p.add_argument(
        "--output-dir",
        default="runs/lobs/studies",
        help="where the record goes (default: runs/lobs/studies)",
    )
    arguments = p.parse_args(argv)

    def work() -> None:
        spec, more = (
            STUDIES[choose("study", arguments.study, STUDIES)][1].but(data_dir=arguments.data_dir),
            {},
        )
        if arguments.study == "imagenet":
            keep = {"alexnet": 0.11, "vgg16": 0.075, "resnet50": 0.45}[
                choose("model", arguments.model, ("alexnet", "vgg16", "resnet50"))
            ]
            spec = spec.but(
                model=arguments.model, sparsity=1 - keep, cell=f"{arguments.model}-imagenet-path"
            )
            more = {"examples": arguments.examples}
        log.info("wrote %s", study(arguments.study, spec, Path(arguments.output_dir), **more).id)

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
