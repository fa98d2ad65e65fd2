"""A pruned network for other people's software: ONNX, held against onnxruntime, or plain weights
beside a JSON architecture.

    python -m common.export runs/.../pruned.safetensors --onnx model.onnx
    python -m common.export runs/.../pruned.safetensors --plain folder

Removed weights are zeros in the file, removed channels are not there. docs/serving.md shows how to
run what comes out.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from common.cells.errors import NumericalError, Parser, UserError
from common.cells.record import write_json
from common.nets import checkpoint, tensorfile
from common.running.cli import guarded
from common.system import code

if TYPE_CHECKING:
    from google.protobuf.message import Message

TOLERANCE = 1e-4  # of an output, relative to the largest of its batch


def to_onnx(model: nn.Module, input_shape: tuple[int, ...], path: Path) -> None:
    """Write `model` in evaluation mode as ONNX: "input" [batch, *input_shape] -> "logits" [batch,
    classes], any batch size.
    """
    example = torch.zeros(2, *input_shape)
    for chatty in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model.eval(),
                (example,),
                dynamo=True,
                input_names=["input"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    except ImportError as error:
        raise UserError(
            "onnx",
            path.name,
            f"needs the package {error.name}",
            "pip install onnx onnxscript onnxruntime",
        ) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    proto = program.model_proto
    _forget_places(proto)
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_bytes(proto.SerializeToString())
    scratch.replace(path)


def _forget_places(message: Message) -> None:
    """Clear what the exporter notes of where it ran, at any depth: stack traces in metadata and doc
    strings name files of this machine.
    """
    for field in message.DESCRIPTOR.fields:
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for part in [value] if hasattr(value, "ListFields") else value:
                _forget_places(part)


@torch.no_grad()
def worst_difference(
    model: nn.Module, input_shape: tuple[int, ...], path: Path, batches: tuple[int, ...] = (1, 5)
) -> float:
    """Largest |onnxruntime − torch| over random inputs of several batch sizes, relative to the
    largest output.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError(
            "onnx", path.name, "cannot be checked without onnxruntime", "pip install onnxruntime"
        ) from None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for batch in batches:
        x = torch.randn(batch, *input_shape, generator=generator)
        expected = model.eval()(x)
        given = torch.from_numpy(session.run(["logits"], {"input": x.numpy()})[0])
        if given.shape != expected.shape:
            raise NumericalError(
                "output", f"onnxruntime gives {tuple(given.shape)}, torch {tuple(expected.shape)}"
            )
        worst = max(worst, float((given - expected).abs().max() / expected.abs().max()))
    return worst


def to_plain(found: checkpoint.Checkpoint, folder: Path) -> None:
    """weights.safetensors with the state dict's names, and architecture.json {model, classes,
    input_shape, edits}.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensorfile.write(folder / "weights.safetensors", dict(found.model.state_dict()), "")
    write_json(folder / "architecture.json", found.architecture | {"edits": found.edits})


def main(argv: list[str] | None = None) -> int:
    """Export one checkpoint; returns the exit status."""
    p = Parser(description=__doc__)
    p.add_argument("checkpoint", type=Path, help="a .safetensors file that prune or finetune left")
    p.add_argument(
        "--onnx", type=Path, help="write this ONNX file and compare its outputs with torch's"
    )
    p.add_argument(
        "--plain",
        type=Path,
        help="write weights.safetensors and architecture.json into this folder",
    )
    p.add_argument(
        "--model",
        help="the name of a network of your own, path/to/file.py:build, whose code may build it",
    )
    return guarded(lambda: _main(p.parse_args(argv)))


def _main(arguments: argparse.Namespace) -> None:
    if not (arguments.onnx or arguments.plain):
        raise UserError("onnx", None, "nothing to write", "give --onnx FILE or --plain FOLDER")
    if arguments.model:
        code.allow(arguments.model)
    found = checkpoint.load(arguments.checkpoint)
    if arguments.plain:
        to_plain(found, arguments.plain)
        print(f"{arguments.plain}: weights.safetensors, architecture.json")
    if arguments.onnx:
        shape = tuple(found.architecture["input_shape"])
        to_onnx(found.model, shape, arguments.onnx)
        worst = worst_difference(found.model, shape, arguments.onnx)
        if not worst <= TOLERANCE:
            raise NumericalError(
                "output",
                f"ONNX differs from torch by {worst:.1e}, more than {TOLERANCE:g}; the file is "
                "left for a look",
            )
        print(
            f"{arguments.onnx}: {arguments.onnx.stat().st_size / 1e6:.2f} MB, differs from torch "
            f"by {worst:.1e} at most"
        )


if __name__ == "__main__":
    sys.exit(main())
