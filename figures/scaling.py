"""python -m figures.scaling: the tables of docs/scaling.md, from the measurements that `make bench`
left in figures/results/bench.json and those of `python -m woodfisher.size` in woodfisher/results.

A job of m rows of b examples over d weights in blocks of c takes, on the machine of the record,
    rows      m · b · (3 · MACs an example) / r,         r the multiply-add rate of a plain forward
              and backward pass of ResNet-20
    inverse   (k · m² + l · m) · d,                      k, l fitted to one solve and diagonal over
              the record's m: arithmetic, and
                                                         the reading of the rows
    memory    4 · m · d bytes of rows, in float32.
The block size c enters only where c < m, when a block's own c × c matrix is made from its m rows: m
· c · d and not m² · d.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.cells.errors import Parser, UserError

ROOT = Path(__file__).resolve().parent.parent
PAGE, RECORD = ROOT / "docs" / "scaling.md", ROOT / "figures" / "results" / "bench.json"
SIZES = ROOT / "woodfisher" / "results"
BLOCK = re.compile(r"(<!-- (scaling|measured) -->\n).*?(<!-- end -->)", re.S)
PLAIN, PLAIN_EXAMPLES, PLAIN_MACS = "K-FAC pass, full A, ResNet-20, 128 images", 128, 40_551_040
PROCESS_GB = 64  # memory of one process in the last column


@dataclass(frozen=True)
class Job:
    """A network and WoodFisher's m, b, c on it. macs: of one example (a sequence counts as one)."""

    name: str
    weights: int
    macs: int
    rows: int
    batch: int
    chunk: int


# attention 4 d², MLP 8 d² a layer; patches, classifier
VIT_L = 24 * 12 * 1024**2 + 3 * 16**2 * 1024 + 1024 * 1000
# attention 4 d², gated MLP 3 · d · 11,008 a layer
LLAMA = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
TOKENS = 2048
JOBS = (
    Job("ResNet-20, one-shot (Fig. 3a)", 267_264, 40_551_040, 1_000, 1, 37_000),
    Job("ResNet-50, one-shot (Fig. 4)", 25_502_912, 4_089_184_256, 80, 100, 1_000),
    Job("ResNet-50, gradual, one step (Table S1)", 25_502_912, 4_089_184_256, 400, 400, 2_000),
    Job("MobileNetV1, gradual, one step (Table S1)", 4_209_088, 568_740_352, 400, 2_400, 10_000),
    Job("ViT-L/16 at 224", VIT_L, 197 * (VIT_L - 1024 * 1000), 400, 400, 2_000),
    Job(f"7B transformer, {TOKENS:,} tokens", LLAMA, TOKENS * LLAMA, 400, 16, 2_000),
)


@dataclass(frozen=True)
class Machine:
    """k: seconds a row² and weight; l: seconds a row and weight; r: multiply-adds a second."""

    k: float
    l: float
    r: float

    def inverse(self, rows: int, chunk: int, weights: int) -> float:
        """Seconds of diagonal and solve."""
        return (self.k * min(rows, chunk) * rows + self.l * rows) * weights


def record() -> dict:
    """What `make bench` left; UserError where it has not run."""
    if not RECORD.exists():
        raise UserError("results", RECORD.name, "no such record", "run make bench")
    return json.loads(RECORD.read_text())


def constants(bench: dict) -> Machine:
    """What the record's machine does, by least squares on relative errors."""
    try:
        curve = bench["scaling"]["rows"]
        plain = min(bench["ratios"][PLAIN]["seconds"])
    except KeyError as error:
        remedy = "run make bench ARGS='--json figures/results/bench.json'"
        raise UserError("bench.json", str(error), "is not in the record", remedy) from None
    m, seconds = np.array(curve["m"], dtype=float), np.array(curve["seconds"]) / curve["d"]
    k, l = np.linalg.lstsq(np.stack([m**2, m], 1) / seconds[:, None], np.ones(len(m)), rcond=None)[
        0
    ]
    return Machine(float(k), float(l), 3 * PLAIN_MACS * PLAIN_EXAMPLES / plain)


def span(seconds: float) -> str:
    """A duration as a person says it."""
    for unit, size in (("years", 365 * 86400), ("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"


def table(bench: dict) -> str:
    """The Markdown between the page's markers."""
    machine = constants(bench)
    where, scaling = bench["provenance"], bench["scaling"]
    lines = [
        f"Measured on {where['device']}, {where['threads']} threads: time grows as "
        f"m^{scaling['rows']['slope']:.2f} and as d^{scaling['weights']['slope']:.2f}; k = "
        f"{machine.k:.2g} s, l = {machine.l:.2g} s, r = {machine.r:.2g} multiply-adds a second.",
        "",
        "| job | weights d | m × b, c | rows in memory | gradients | inverse and scores | "
        f"processes of {PROCESS_GB} GB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for job in JOBS:
        memory = 4 * job.rows * job.weights / 2**30
        gradients = 3 * job.macs * job.rows * job.batch / machine.r
        inverse = machine.inverse(job.rows, job.chunk, job.weights)
        lines.append(
            f"| {job.name} | {job.weights:,} | {job.rows} × {job.batch}, {job.chunk:,} | "
            f"{memory:,.1f} GB | {span(gradients)} | {span(inverse)} | "
            f"{-(-memory // PROCESS_GB):.0f} |"
        )
    return "\n".join(lines) + "\n"


def measured(bench: dict, sizes: list[dict]) -> str:
    """Whole steps that were run, beside what the two laws say of them; times are of the clock."""
    machine = constants(bench)
    lines = [
        "| step | weights d | m, c | rows | threads | gradients | scores, selection, update | by k "
        "and l | peak of the process | forecast |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for size in sizes:
        chunk = f"{size['chunk']:,}" if isinstance(size["chunk"], int) else "one block"
        law = machine.inverse(
            size["rows"],
            size["chunk"] if isinstance(size["chunk"], int) else size["weights"],
            size["weights"],
        )
        rows = (
            f"{4 * size['rows'] * size['weights'] / 2**30:.1f} GB "
            f"{'on disk' if size['rows_on_disk'] else 'in memory'}"
        )
        forecast = f"{size['forecast_gb']:.1f} GB" if "forecast_gb" in size else ""
        name = f"{size['network']} on {size['dataset'].partition(':')[0]}"
        lines.append(
            f"| {name} | {size['weights']:,} | {size['rows']:,}, {chunk} | {rows} | "
            f"{size['provenance']['threads']} | {span(size['gradients_s'])} | "
            f"{span(size['scores_s'] + size['selection_and_update_s'])} | {span(law)} | "
            f"{size['peak_rss_mb'] / 1024:.1f} GB | {forecast} |"
        )
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Rewrite the page in place; returns the exit status."""
    Parser(description=__doc__).parse_args(argv)
    try:
        bench = record()
        sizes = [json.loads(path.read_text()) for path in sorted(SIZES.glob("size_*.json"))]
        texts = {"scaling": table(bench), "measured": measured(bench, sizes)}
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    PAGE.write_text(
        BLOCK.sub(lambda match: match[1] + texts[match[2]] + match[3], PAGE.read_text())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
