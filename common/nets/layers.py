"""The only place that tells Conv2d from Linear.

Every layer is brought to one layout, with its `groups` convolution groups as independent blocks (1
for Linear):
    weight    [groups, out, in]       out = output units of a group, in = (cin / groups)·kh·kw,
              ordered (cin, kh, kw)
    inputs    [batch, groups, T, in]  T = output positions: one row is what one output position sees
    gradients [batch, groups, T, out] of the loss in the layer's output
so that output = inputs @ weightᵀ + bias and dLoss/dweight = Σ_batch Σ_T gradientsᵀ inputs, for both
kinds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.cells.errors import LayerError, NumericalError, UserError

PRUNABLE = (nn.Conv2d, nn.Linear)


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
        "has no Conv2d or Linear layer, so there is nothing to prune",
        "layers of other kinds and scripted modules are left as they are",
    )


def weighted(model: nn.Module, skip: Iterable[str] = ()) -> dict[str, nn.Module]:
    """Every Conv2d and Linear of the model by name, in definition order, without those named in
    `skip`, whatever their weights are.

    Raises UserError for a name in `skip` that is no layer, LayerError for a layer whose weight is
    no parameter of its own (shared with another module, or computed from other tensors).
    """
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, PRUNABLE)
    }
    skipped = set(skip)
    for name in skip:
        if name not in layers:
            raise UserError(
                "skip",
                name,
                "not a Conv2d or Linear layer of the model",
                f"layers: {', '.join(layers)}",
            )
    chosen = {name: module for name, module in layers.items() if name not in skipped}
    _require_own_weights(model, chosen)
    return chosen


def _require_finite(model: nn.Module) -> None:
    """Raise NumericalError naming a module whose weights or buffers (BatchNorm's statistics) are
    not finite: magnitudes of such a network are as little worth as its gradients."""
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
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


def forward(module: nn.Module, x: Tensor) -> Tensor:
    """What the layer's class computes of x: the function that the formulas here are about."""
    if isinstance(module, nn.Linear):
        return F.linear(x, module.weight, module.bias)
    if isinstance(module, nn.Conv2d):
        return F.conv2d(
            pad(module, x),
            module.weight,
            module.bias,
            module.stride,
            0,
            module.dilation,
            module.groups,
        )
    raise LayerError(type(module).__name__, "neither Conv2d nor Linear")


def groups(module: nn.Module) -> int:
    """Number of convolution groups; 1 for Linear."""
    return module.groups if isinstance(module, nn.Conv2d) else 1


def single(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums over a network of this dtype are formed: float32 for 16 bits, whose
    squares overflow and whose sums lose the small terms."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def at_least_single(x: Tensor) -> Tensor:
    """The tensor in float32 if it has 16 bits, else as it is."""
    return x.to(single(x.dtype))


def to_matrix(module: nn.Module, weight: Tensor) -> Tensor:
    """A weight-shaped tensor as [groups, out, in] (a view where torch can make one)."""
    return weight.reshape(groups(module), weight.shape[0] // groups(module), -1)


def to_weight(module: nn.Module, matrix: Tensor) -> Tensor:
    """The inverse of `to_matrix`: [groups, out, in] -> the weight's own shape."""
    return matrix.reshape(module.weight.shape)


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
    width = module.weight[0].numel()
    module.weight.copy_(to_weight(module, W[..., :width]))
    if W.shape[-1] > width:
        module.bias.copy_(W[..., width].flatten())


def spatial_padding(module: nn.Conv2d) -> tuple[int, int, int, int]:
    """(left, right, top, bottom) padding, also for padding="same"."""
    if module.padding == "valid":
        return 0, 0, 0, 0
    if module.padding == "same":
        total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        return total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2
    rows, columns = module.padding
    return columns, columns, rows, rows


def pad(module: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution's input with its padding made explicit."""
    padding = spatial_padding(module)
    if not any(padding):
        return x
    return F.pad(
        x, padding, mode="constant" if module.padding_mode == "zeros" else module.padding_mode
    )


def inputs(module: nn.Module, x: Tensor, bias: bool = False) -> Tensor:
    """What each output position sees: [batch, groups, T, in], with a last column of ones if
    `bias`.
    """
    if isinstance(module, nn.Linear):
        rows = x.reshape(x.shape[0], 1, -1, x.shape[-1])
    elif isinstance(module, nn.Conv2d):
        columns = F.unfold(
            pad(module, x), module.kernel_size, dilation=module.dilation, stride=module.stride
        )
        rows = columns.reshape(x.shape[0], module.groups, -1, columns.shape[-1]).transpose(2, 3)
    else:
        raise LayerError(type(module).__name__, "neither Conv2d nor Linear")
    return torch.cat([rows, rows.new_ones(*rows.shape[:-1], 1)], dim=-1) if bias else rows


def gradients(module: nn.Module, g: Tensor) -> Tensor:
    """A gradient in the layer's output as [batch, groups, T, out]."""
    if isinstance(module, nn.Linear):
        return g.reshape(g.shape[0], 1, -1, g.shape[-1])
    if isinstance(module, nn.Conv2d):
        return g.reshape(g.shape[0], module.groups, g.shape[1] // module.groups, -1).transpose(2, 3)
    raise LayerError(type(module).__name__, "neither Conv2d nor Linear")


def weight_gradients(module: nn.Module, x: Tensor, g: Tensor, each: bool = True) -> Tensor:
    """Gradients in the weight from the layer's input x and output gradient g: each example's,
    [batch, groups, out, in], or their sum, [1, groups, out, in].

    A convolution's are one grouped convolution backward, with every example a group of its own: no
    patches are formed, which on a CPU is three to six times faster than multiplying unfolded
    patches.
    """
    if isinstance(module, nn.Linear):
        rows, gradient = inputs(module, x), gradients(module, g)
        return (
            gradient.mT @ rows
            if each
            else (gradient.flatten(0, 2).mT @ rows.flatten(0, 2))[None, None]
        )
    if not isinstance(module, nn.Conv2d):
        raise LayerError(type(module).__name__, "neither Conv2d nor Linear")
    padded, examples = pad(module, x), len(x) if each else 1
    if each:
        padded, g = padded.flatten(0, 1)[None], g.flatten(0, 1)[None]
    out, *rest = module.weight.shape
    total = torch.nn.grad.conv2d_weight(
        padded,
        (examples * out, *rest),
        g,
        stride=module.stride,
        dilation=module.dilation,
        groups=examples * module.groups,
    )
    return total.reshape(examples, module.groups, out // module.groups, -1)
