"""Every layer in one layout, whatever its kind (kinds.py).

With its `groups` convolution groups as independent blocks (1 for Linear):
    weight    [groups, out, in]       out = output units of a group, in = all that one of them
              reads, ordered (input channel of the group, kernel offset)
    inputs    [batch, groups, T, in]  T = output positions: one row is what one output position sees
    gradients [batch, groups, T, out] of the loss in the layer's output
so that output = inputs @ weightᵀ + bias and dLoss/dweight = Σ_batch Σ_T gradientsᵀ inputs, for all
kinds. A layer's flat weights, in gradient rows and curvatures, are this matrix flattened; of most
kinds that is the weight itself flattened, not of all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from common.cells.errors import LayerError, NumericalError, UserError
from common.nets import kinds


def prunable(model: nn.Module, skip: Iterable[str] = ()) -> dict[str, nn.Module]:
    """What a method prunes: `weighted` of a network that can be pruned, which every method asks for
    first.

    Raises what `weighted` raises, UserError where no layer is left and under
    torch.inference_mode, NumericalError where weights or buffers of any module are not finite.
    """
    if torch.is_inference_mode_enabled():
        raise UserError("torch.inference_mode", True, "has no gradients", "prune outside of it")
    _require_finite(model)
    chosen = weighted(model, skip)
    if chosen:
        return chosen
    if skip := sorted(set(skip)):
        raise UserError("skip", skip, "leaves no layer, so there is nothing to prune", "skip fewer")
    raise UserError(
        "model",
        type(model).__name__,
        "has no layer of a known kind, so there is nothing to prune",
        f"known are {kinds.KNOWN}; others and scripted modules are left as they are",
    )


def weighted(model: nn.Module, skip: Iterable[str] = ()) -> dict[str, nn.Module]:
    """Every layer of a known kind (kinds.py) by name, in definition order, whatever its weights
    are; without those named in `skip` and those that multiply by an embedding's table.

    Raises UserError for a name in `skip` that is no layer, LayerError for a layer whose weight is
    no parameter of its own (shared with another module, or computed from other tensors).
    """
    layers, skipped = of_known_kinds(model), set(skip)
    for name in skip:
        if name not in layers and name not in tables(model):
            raise UserError(
                "skip",
                name,
                "no layer of the model that a method prunes",
                f"layers: {', '.join(layers)}",
            )
    chosen = {name: module for name, module in layers.items() if name not in skipped}
    _require_own_weights(model, chosen)
    return chosen


def tables(model: nn.Module) -> dict[str, str]:
    """Layers whose weight is an embedding's table: name -> the embedding's."""
    owners = {
        _place(module.weight): name
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
    }
    return {
        name: owners[_place(weight)]
        for name, module in model.named_modules()
        if owners and kinds.kind(module)
        for weight in [module._parameters.get("weight")]
        if weight is not None and _place(weight) in owners
    }


def of_known_kinds(model: nn.Module) -> dict[str, nn.Module]:
    """All that `weighted` may list, by name in definition order."""
    tied = tables(model)
    return {
        name: module
        for name, module in model.named_modules()
        if kinds.kind(module) and name not in tied
    }


def _require_finite(model: nn.Module) -> None:
    """Raise NumericalError naming a module whose weights or buffers (BatchNorm's statistics) are
    not finite: magnitudes of such a network are as little worth as its gradients."""
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if isinstance(tensor, nn.parameter.UninitializedTensorMixin):
            continue  # named where its layer is asked for
        if tensor.is_meta or not tensor.is_floating_point() or not tensor.numel():
            continue
        if not torch.isfinite(torch.stack(tensor.detach().aminmax())).all():
            layer, _, what = name.rpartition(".")
            raise NumericalError(layer, f"its {what} is not finite", "check the checkpoint")


def _require_own_weights(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Raise LayerError for a layer whose weight cannot be set, or not without changing another
    module."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            users = owners.setdefault(_place(parameter), [])
            if name not in users:
                users.append(name)
    for name, module in layers.items():
        weight = module._parameters.get("weight")
        if weight is None:
            raise LayerError(
                name,
                "its weight is computed from other tensors (weight_norm, spectral_norm, a "
                "parametrization, nn.utils.prune); make it a plain parameter first "
                "(remove_parametrizations, remove_weight_norm, prune.remove), or name it in skip",
            )
        if isinstance(weight, nn.parameter.UninitializedParameter):
            raise LayerError(name, "its weight has no shape yet; run the network once first")
        if not weight.numel():
            raise LayerError(name, "has no weights; leave it out with skip")
        if weight.is_inference():
            raise LayerError(
                name,
                "its weight was made under torch.inference_mode and has no gradient; build the "
                "network outside of it",
            )
        first, *others = owners[_place(weight)]
        # of two layers the later one is named
        shares = [first] if first != name else [other for other in others if other not in layers]
        if shares:
            raise LayerError(
                name,
                f"shares its weight with {shares[0]!r}; untie them, or name every layer that has "
                "it in skip",
            )


def _place(parameter: Tensor) -> int:
    """Equal for parameters that are one: where the data lies, or the object that has none."""
    uninitialized = isinstance(parameter, nn.parameter.UninitializedTensorMixin)
    return (0 if uninitialized or parameter.is_meta else parameter.data_ptr()) or -id(parameter)


def kind(module: nn.Module) -> kinds.Kind:
    """What the layer is. Raises LayerError for a module of no known kind."""
    found = kinds.kind(module)
    if found is None:
        raise LayerError(type(module).__name__, f"is of no kind that is known: {kinds.KNOWN}")
    return found


def forward(module: nn.Module, x: Tensor) -> Tensor:
    """What the layer's class computes of x: the function that the formulas here are about."""
    return kind(module).forward(module, x)


def groups(module: nn.Module) -> int:
    """Number of convolution groups; 1 for any module without."""
    found = kinds.kind(module)
    return found.groups(module) if found else 1


def shape(module: nn.Module) -> tuple[int, int, int]:
    """(groups, out, in) of the layer's weight matrix."""
    inputs, outputs = kind(module).channels(module)
    blocks = groups(module)
    return blocks, outputs // blocks, module.weight.numel() // outputs


def channels(module: nn.Module) -> tuple[int, int]:
    """(input, output) channels of the layer."""
    return kind(module).channels(module)


def offsets(module: nn.Module) -> int:
    """Kernel offsets: how many weights lie between an input and an output channel."""
    return module.weight.numel() * groups(module) // math.prod(channels(module))


def single(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums over a network of this dtype are formed: float32 for 16 bits, whose
    squares overflow and whose sums lose the small terms."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def at_least_single(x: Tensor) -> Tensor:
    """The tensor in float32 if it has 16 bits, else as it is."""
    return x.to(single(x.dtype))


def to_matrix(module: nn.Module, weight: Tensor) -> Tensor:
    """A weight-shaped tensor as [groups, out, in] (a view where torch can make one)."""
    return kind(module).to_matrix(module, weight)


def to_weight(module: nn.Module, matrix: Tensor) -> Tensor:
    """The inverse of `to_matrix`, also of a flat matrix: the weight's own shape."""
    return kind(module).to_weight(module, matrix)


def flat(module: nn.Module, weight: Tensor) -> Tensor:
    """A weight-shaped tensor as the layer's flat vector [d], its matrix row by row."""
    return to_matrix(module, weight).flatten()


def joined(module: nn.Module, bias: bool) -> Tensor:
    """The weight as [groups, out, in], float64, with the layer's bias as a last column if
    `bias`.
    """
    W = to_matrix(module, module.weight.detach())
    if not bias:
        return W.double()
    result = W.new_empty(*W.shape[:2], W.shape[2] + 1, dtype=torch.float64)
    result[..., :-1], result[..., -1] = W, module.bias.detach().reshape(W.shape[:2])
    return result


def finite_weights(layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Every layer's weight with its bias, if it has one, as `joined` gives them. Raises
    NumericalError naming a layer whose weights are not finite."""
    weights = {name: joined(module, module.bias is not None) for name, module in layers.items()}
    for name, W in weights.items():
        if not torch.isfinite(W).all():
            raise NumericalError(name, "its weights are not finite", "check the checkpoint")
    return weights


@torch.no_grad()
def write_joined(module: nn.Module, W: Tensor) -> None:
    """The inverse of `joined`, in place: the bias is written where W has a column for it."""
    width = shape(module)[2]
    module.weight.copy_(to_weight(module, W[..., :width]))
    if W.shape[-1] > width:
        module.bias.copy_(W[..., width].flatten())


def inputs(module: nn.Module, x: Tensor, bias: bool = False) -> Tensor:
    """What each output position sees: [batch, groups, T, in], with a last column of ones if
    `bias`.
    """
    rows = kind(module).inputs(module, x)
    return torch.cat([rows, rows.new_ones(*rows.shape[:-1], 1)], dim=-1) if bias else rows


def gradients(module: nn.Module, g: Tensor) -> Tensor:
    """A gradient in the layer's output as [batch, groups, T, out]."""
    return kind(module).gradients(module, g)


def weight_gradients(module: nn.Module, x: Tensor, g: Tensor, each: bool = True) -> Tensor:
    """Gradients in the weight from the layer's input x and output gradient g: each example's,
    [batch, groups, out, in], or their sum, [1, groups, out, in].
    """
    return kind(module).weight_gradients(module, x, g, each)
