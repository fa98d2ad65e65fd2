"""What a pruning method holds at its peak beside the network and a batch's activations, counted
tensor by tensor: what `--dry-run` forecasts, and what is refused before anything is allocated.

Three things are counted. A square is a matrix as wide as a layer, float64, one for each convolution
group. A vector has an entry for each weight, of all layers where it is kept, or of the largest one
where it lives while that layer is worked on. The rest are buffers of fixed size. Numbers beside a
term name the tensors that are alive together; tests/trust/test_budget.py holds the sum against the
resident memory of a process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from common.curvature import blocks, shared
from common.nets import layers as L
from common.system import machine

PER_EXAMPLE_ENTRIES = 1 << 24  # float32 entries of per-example gradients held at once (64 MB)
BLOCK_ENTRIES = 1 << 24  # weights of a layer that L-OBS works on together (128 MB in float64)
# what can be done about a method that the memory budget does not hold
SMALLER = "leave the widest layer dense (--option 'skip=[\"name\"]'), or raise --memory-budget"


@dataclass(frozen=True)
class Sizes:
    """Of some layers: how many weights in all and in the largest, and the bytes of their squares:
    all of them, all of the output side, the largest layer's two, the largest one.
    """

    weights: int
    largest: int
    squares: int
    outputs: int
    pair: int
    square: int

    @classmethod
    def of(
        cls, layers: Iterable[nn.Module], bias: bool = False, channel_only: bool = False
    ) -> Sizes:
        """bias: an input of ones stands beside a layer's own, where it has a bias. channel_only:
        the input side's square is as wide as the input channels, whatever the kernel."""
        weights, inner, outer = [], [], []
        for module in layers:
            groups, out, width = L.shape(module)
            one = bias and module.bias is not None
            wide = (width // L.offsets(module) if channel_only else width) + one
            weights.append(groups * out * (width + one))
            inner.append(8 * groups * wide**2)
            outer.append(8 * groups * out**2)
        return cls(
            sum(weights),
            max(weights),
            sum(inner) + sum(outer),
            sum(outer),
            max(map(sum, zip(inner, outer, strict=True))),
            max(inner + outer),
        )


def select(n: int, t: int) -> int:
    """Bytes of pruning.select beside float64 scores of n weights, t in the largest layer: three
    masks, and one copy of the values, of the largest layer two while its best weights are found.
    """
    return max(11 * n, n + 20 * t) + 2 * n


def plain(layers: Iterable[nn.Module]) -> int:
    """Of a method without curvature: scores, float32, and their float64 copies; the weights once
    more, and what a training goes on from. Or, of a layer's least squares (CP), the weight and its
    fit, their difference, and three terms of the fit, float64."""
    sizes = Sizes.of(layers)
    n, t = sizes.weights, sizes.largest
    return max((4 + 8 + 4) * n + select(n, t), 4 * n + 6 * 8 * t)


def diagonal(layers: Iterable[nn.Module]) -> int:
    """Of the diagonal Fisher and what is scored by it: both of them, float64, and the new network.
    While it is estimated three tensors of per-example gradients, one of them in the layout that
    torch's convolution has them in, and three of the largest layer."""
    sizes = Sizes.of(layers)
    n, t = sizes.weights, sizes.largest
    examples = 3 * 4 * min(max(PER_EXAMPLE_ENTRIES, t), 256 * t)
    return 4 * n + max(8 * n + 24 * t + examples, 16 * n + select(n, t))


def at_once(m: int, t: int) -> int:
    """How many of m examples' gradients are held together, of a layer of t weights. It does not
    depend on the number of processes, so that a row is the same number wherever it is computed."""
    return max(1, min(m, max(32, -(-m // 16)), PER_EXAMPLE_ENTRIES // t))


def rows_work(sizes: Iterable[int], m: int, chunk: int | str | None) -> int:
    """Of the work on m gradient rows, beside them: the kept factors, min(m, c)² a block of c
    weights, and three more of one block; six tiles of rows, float64; two tensors of per-example
    gradients; of all weights the diagonal of the inverse, scores, new weights and masks; of those
    worked on together five vectors, float64.

    sizes: weights of each layer. chunk: block size; None is a block a layer, any word one block
    over all layers.
    """
    sizes = list(sizes)
    n = sum(sizes)
    together = [n] if isinstance(chunk, str) else sizes
    widths = [min(size, chunk) if isinstance(chunk, int) else size for size in together]
    kept = sum(
        min(blocks.KEPT_ENTRIES, size // c * min(m, c) ** 2)
        for size, c in zip(together, widths, strict=True)
    )
    t, square = max(together), max(min(m, c) for c in widths) ** 2
    tile, examples = min(max(blocks.WORK_ENTRIES, m), m * t), at_once(m, max(sizes)) * max(sizes)
    return 8 * (kept + 3 * square + 6 * tile) + 2 * 4 * examples + 26 * n + 45 * t


def moment(layers: Iterable[nn.Module], options: object) -> int:
    """Of L-OBS: the second moments of all layers' inputs, and of the layer at work Ψ + ρI, its
    Cholesky factor and its inverse, or the last beside the vectors and buffers of an update.

    options: lobs.ours.Options.
    """
    layers = list(layers)
    sizes = Sizes.of(layers, bias=True)
    inner = [Sizes.of([module], bias=True) for module in layers]
    squares = [each.squares - each.outputs for each in inner]
    t, top = sizes.largest, max(squares)
    # of an update: new weights, scores, target; a block's order, ranks, columns, and what is solved
    vectors = 25 * t + 49 * min(t, BLOCK_ENTRIES)
    if getattr(options, "update", "triangular") == "joint":
        # a row's matrix, what is kept of it, a factor and an inverse; greedy elimination has three
        # such, the inverse of what is alive twice, and the order and losses of all rows
        every = sum(each.largest for each in inner) * max(square // 8 for square in squares)
        buffers = 4 * 8 * min(max(shared.WORK_ENTRIES, top // 8), every)
        if getattr(options, "greedy", False):
            buffers += 2 * top + 4 * 8 * t
    else:  # a walk's triangles, what they are cut from, and the solver's copy
        buffers = 3 * 8 * min(shared.WALK_ENTRIES, shared.WALK * t)
    return sum(squares) + max(3 * top, 2 * top + vectors + buffers) + 6 * sizes.weights


def estimated(sizes: Sizes) -> int:
    """Of Kronecker factors while they are estimated: the means, a batch's output sides, and one
    factor of a batch with what it is made of."""
    return sizes.squares + sizes.outputs + 2 * sizes.square


def kron(layers: Iterable[nn.Module]) -> int:
    """Of a method that inverts them in place: factors and inverses, and a Cholesky factor; or of
    all weights scores, new weights and masks beside five vectors of the layer at work."""
    sizes = Sizes.of(layers, bias=True)
    n, t = sizes.weights, sizes.largest
    work = max(12 * n + select(n, t), 18 * n + 45 * t)
    both = 2 * sizes.squares
    return max(estimated(sizes) + 4 * n, both + sizes.square + 4 * n, both + work)


def kron_kept(layers: Iterable[nn.Module]) -> int:
    """Of a method that needs the factors afterwards too (NAP): they stand beside both; weights and
    scores of all layers, float64, and once more while the scores are normalised."""
    sizes = Sizes.of(layers, bias=True)
    n, t = sizes.weights, sizes.largest
    work = max(25 * n + 8 * t, 17 * n + select(n, t), 19 * n + 34 * t)
    kept = 3 * sizes.squares
    return 4 * n + max(estimated(sizes), kept + max(sizes.square, work))


def kron_bare(layers: Iterable[nn.Module]) -> int:
    """Of a method that inverts nothing (Kron-OBD): three vectors of the layer it scores."""
    sizes = Sizes.of(layers, bias=True)
    return 8 * sizes.weights + max(estimated(sizes), sizes.squares + 24 * sizes.largest)


def channel(layers: Iterable[nn.Module], options: object) -> int:
    """Of EigenDamage: eigenbases, rotated weights and their curvature, float64. A layer is rotated
    beside its factors and the solver's two squares; five vectors of it are scored and cut.

    options: eigendamage.ours.Options.
    """
    sizes = Sizes.of(layers, channel_only=options.factor == "channel")
    n, t = sizes.weights, sizes.largest
    rotated = sizes.pair + 2 * sizes.square
    return 4 * n + max(estimated(sizes), sizes.squares + 16 * n + max(rotated, 40 * t))


def peak(kind: str, layers: Mapping[str, nn.Module], options: object) -> int:
    """Bytes at the peak of a method whose curvature is of this kind (cells.registry.Method). Rows
    are counted where their number is known (rows_work)."""
    modules = list(layers.values())
    with_options = {"moment": moment, "channel": channel}
    if kind in with_options:
        return with_options[kind](modules, options)
    kinds = {"": plain, "diagonal": diagonal, "kron": kron}
    return (kinds | {"kron-kept": kron_kept, "kron-bare": kron_bare})[kind](modules)


def require(kind: str, layers: Mapping[str, nn.Module], options: object) -> None:
    """UserError before anything is computed where the memory budget does not hold the peak."""
    what = f"curvature of the kind {kind} and the work on it" if kind else "scores and selection"
    machine.require_memory(what, peak(kind, layers, options) / 2**30, SMALLER)
