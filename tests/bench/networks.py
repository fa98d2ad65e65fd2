"""Latency of pruned networks beside their multiply-accumulates, and of sparse matrices beside dense
ones.

Structured pruning leaves a smaller dense network, measured against its parent in turns
(common/nets/latency.py). Unstructured pruning leaves zeros: the sparsity at which a CSR product
passes a dense one is measured, and a dense runtime is shown to gain nothing. Weights are random,
since time does not depend on their values.
"""

from __future__ import annotations

import tempfile
import typing
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from common.cells.registry import load
from common.commands import export
from common.nets import latency, models
from common.nets.flops import costs

SHAPE = (3, 32, 32)
NETWORKS = ("resnet20", "vgg16:width=0.5")
METHODS = {"eigendamage": 0.6, "kron-obd": 0.5}
BATCHES = (1, 64)
SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)


def pruned(model: nn.Module, method: str, ratio: float) -> nn.Module:
    """A smaller network by a registered method with its defaults, from random images."""
    function = load(method)
    generator = torch.Generator().manual_seed(0)
    images = [
        (
            torch.randn(64, *SHAPE, generator=generator),
            torch.randint(10, (64,), generator=generator),
        )
    ]
    options = typing.get_type_hints(function)["options"]()
    return function(model, images, ratio, options, generator).model


def engines(network: nn.Module, folder: Path, name: str) -> dict[str, Callable]:
    """The network as torch runs it, compiled by torch, and in onnxruntime with as many threads."""
    import onnxruntime

    path = folder / f"{name}.onnx"
    export.to_onnx(network, SHAPE, path)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    compiled = torch.compile(network, dynamic=False)
    return {
        "eager": network,
        "compile": lambda x: compiled(x),
        "onnxruntime": lambda x: session.run(None, {"input": x.numpy()}),
    }


def structured() -> list[dict]:
    """One row a network, method, batch and engine: MAC ratio, latency ratio and both medians."""
    rows = []
    for name in NETWORKS:
        torch.manual_seed(0)
        dense = models.build(name, 10, SHAPE, 0).eval()
        smaller = {method: pruned(dense, method, ratio).eval() for method, ratio in METHODS.items()}
        macs = {key: costs(model, SHAPE).macs for key, model in {"dense": dense, **smaller}.items()}
        with tempfile.TemporaryDirectory() as folder:
            ready = {
                key: engines(model, Path(folder), key)
                for key, model in {"dense": dense, **smaller}.items()
            }
            for batch in BATCHES:
                x = torch.randn(batch, *SHAPE)
                for engine in ("eager", "compile", "onnxruntime"):
                    taken = latency.medians(
                        {key: ready[key][engine] for key in ready},
                        x,
                        rounds=30 if batch == 1 else 10,
                    )
                    for method in METHODS:
                        fewer, faster = macs["dense"] / macs[method], taken["dense"] / taken[method]
                        rows.append(
                            {
                                "network": name,
                                "method": method,
                                "batch": batch,
                                "engine": engine,
                                "mac_ratio": fewer,
                                "latency_ratio": faster,
                                "dense_s": taken["dense"],
                                "pruned_s": taken[method],
                            }
                        )
                        print(
                            f"{name:16} {method:12} batch {batch:3} {engine:12} {fewer:5.2f}x "
                            f"fewer MACs, {faster:5.2f}x faster "
                            f"({1e3 * taken['dense']:.2f} / {1e3 * taken[method]:.2f} ms)",
                            flush=True,
                        )
    return rows


def unstructured(shape: tuple[int, int] = (1024, 1024), batch: int = 64) -> dict:
    """A fully connected layer of `shape` at several sparsities: CSR product against dense, and the
    least sparsity that pays.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape[1], batch, generator=generator)
    weight = torch.randn(shape, generator=generator)
    rows = []
    for sparsity in SPARSITIES:
        zeros = torch.where(torch.rand(shape, generator=generator) < sparsity, 0.0, weight)
        csr = zeros.to_sparse_csr()
        torch.testing.assert_close(csr @ x, zeros @ x, rtol=1e-4, atol=1e-3)
        runs = {
            "dense": lambda x: weight @ x,
            "zeros": lambda x, w=zeros: w @ x,
            "csr": lambda x, w=csr: w @ x,
        }
        taken = latency.medians(runs, x, rounds=50)
        gain = {name: taken["dense"] / taken[name] for name in ("csr", "zeros")}
        rows.append(
            {"sparsity": sparsity, "csr_speedup": gain["csr"], "zeros_speedup": gain["zeros"]}
        )
        print(
            f"{shape[0]}x{shape[1]} layer, batch {batch}, {100 * sparsity:.0f}% zeros: CSR "
            f"{gain['csr']:.2f}x the dense speed, "
            f"zeros in a dense matrix {gain['zeros']:.2f}x",
            flush=True,
        )
    pays = [row["sparsity"] for row in rows if row["csr_speedup"] > 1]
    return {
        "shape": list(shape),
        "batch": batch,
        "rows": rows,
        "break_even_sparsity": min(pays) if pays else None,
    }
