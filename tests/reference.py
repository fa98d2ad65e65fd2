"""Slow, dense, obvious twins of every formula in common/. Loops over examples and positions,
explicit matrices, float64.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def example_loss(output: Tensor, y: Tensor, loss: str) -> Tensor:
    """The loss of one example; output [1, classes]."""
    return (
        F.cross_entropy(output, y) if loss == "cross_entropy" else 0.5 * (output - y).square().sum()
    )


def per_example_gradients(
    model: nn.Module, module: nn.Module, x: Tensor, y: Tensor, loss: str = "cross_entropy"
) -> Tensor:
    """One ordinary backward pass an example: [examples, weights]."""
    model.eval()
    rows = []
    for i in range(len(x)):
        value = example_loss(model(x[i : i + 1]), y[i : i + 1], loss)
        rows.append(torch.autograd.grad(value, module.weight)[0].flatten())
    return torch.stack(rows)


def empirical_fisher(
    model: nn.Module, module: nn.Module, x: Tensor, y: Tensor, loss: str = "cross_entropy"
) -> Tensor:
    """(1/B) Σ ∇ℓ ∇ℓᵀ with the true labels, [d, d]."""
    rows = per_example_gradients(model, module, x, y, loss)
    return rows.T @ rows / len(rows)


def exact_fisher(
    model: nn.Module, module: nn.Module, x: Tensor, loss: str = "cross_entropy"
) -> Tensor:
    """(1/B) Σ_b E_{y ~ model} ∇ℓ ∇ℓᵀ by enumerating the labels (cross-entropy) or the unit
    Gaussian's covariance (mse).
    """
    model.eval()
    total = 0.0
    for i in range(len(x)):
        output = model(x[i : i + 1])
        probabilities = output.detach().softmax(1)[0]
        for c in range(output.shape[1]):
            if loss == "cross_entropy":
                value, weight = F.cross_entropy(output, torch.tensor([c])), probabilities[c]
            else:
                value, weight = output[0, c], 1.0
            g = torch.autograd.grad(value, module.weight, retain_graph=True)[0].flatten()
            total = total + weight * torch.outer(g, g)
    return total / len(x)


def loss_of_example(output: Tensor, y: Tensor, loss: str, ignored: int = -100) -> Tensor:
    """The loss of one example, position by position; output and y without a batch dimension."""
    if loss == "mse":
        return sum(0.5 * (a - b) ** 2 for a, b in zip(output.flatten(), y.flatten()))
    if loss == "binary":
        terms = [
            -(b * torch.sigmoid(a).log() + (1 - b) * (1 - torch.sigmoid(a)).log())
            for a, b in zip(output.flatten(), y.flatten().to(output))
        ]
        return sum(terms) / len(terms)
    rows = output.reshape(len(output), -1).T if loss == "cross_entropy" else output
    terms = [
        -(row.exp() / row.exp().sum()).log()[label]
        for row, label in zip(rows.reshape(-1, rows.shape[-1]), y.flatten().tolist())
        if label != ignored
    ]
    return sum(terms) / len(terms) if terms else 0 * output.sum()


def gauss_newton(model: nn.Module, module: nn.Module, x: Tensor, y: Tensor, loss: str) -> Tensor:
    """(1/B) Σ_b Jᵀ H J, [d, d]: J the output's derivative in the weight, row by row, H the second
    derivative of the example's loss in its output, by torch.func."""
    total = 0.0
    for i in range(len(x)):
        output = model(x[i : i + 1])[0]
        J = torch.stack(
            [
                torch.autograd.grad(value, module.weight, retain_graph=True)[0].flatten()
                for value in output.flatten()
            ]
        )
        H = torch.func.hessian(lambda f, i=i: loss_of_example(f, y[i], loss))(output.detach())
        total = total + J.T @ H.reshape(len(J), len(J)) @ J
    return total / len(x)


def seen_by_positions(module: nn.Module, x: Tensor, bias: bool = False) -> Tensor:
    """What each output position of each group sees, cut out by hand: [batch, groups, T, in
    (+1)].
    """
    if isinstance(module, TRANSPOSED):
        rows = _seen_through_the_transposed(module, x)
    elif isinstance(module, CONVOLUTIONS):
        p = module.padding
        if p == "same":
            p = tuple(d * (k - 1) // 2 for d, k in zip(module.dilation, module.kernel_size))
        elif p == "valid":
            p = (0,) * len(module.kernel_size)
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        padded = F.pad(x, [each for one in reversed(p) for each in (one, one)], mode=mode)
        sizes = [
            (n - d * (k - 1) - 1) // s + 1
            for n, k, s, d in zip(
                padded.shape[2:], module.kernel_size, module.stride, module.dilation
            )
        ]
        per_group = x.shape[1] // module.groups
        rows = []
        for group, place in itertools.product(range(module.groups), _places(sizes)):
            window = [slice(group * per_group, (group + 1) * per_group)]
            for t, s, k, d in zip(place, module.stride, module.kernel_size, module.dilation):
                window.append(slice(t * s, t * s + d * (k - 1) + 1, d))
            rows.append(padded[(slice(None), *window)].flatten(1))
        rows = torch.stack(rows, 1).unflatten(1, (module.groups, -1))
    else:
        rows = x.reshape(len(x), 1, -1, x.shape[-1])
    return torch.cat([rows, torch.ones_like(rows[..., :1])], -1) if bias else rows


def _places(sizes: list[int]) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, sizes)))


def _seen_through_the_transposed(module: nn.Module, x: Tensor) -> Tensor:
    """Input t adds to output p through the kernel offset k where p = t·stride + k·dilation −
    padding: every such meeting, one after the other."""
    sizes = [
        (n - 1) * s - 2 * p + d * (k - 1) + more + 1
        for n, s, p, d, k, more in zip(
            x.shape[2:],
            module.stride,
            module.padding,
            module.dilation,
            module.kernel_size,
            module.output_padding,
        )
    ]
    outputs, offsets = _places(sizes), _places(list(module.kernel_size))
    per_group = x.shape[1] // module.groups
    rows = x.new_zeros(len(x), module.groups, len(outputs), per_group, len(offsets))
    for t, (at, k) in itertools.product(_places(list(x.shape[2:])), enumerate(offsets)):
        meets = tuple(
            one * s + offset * d - p
            for one, s, offset, d, p in zip(t, module.stride, k, module.dilation, module.padding)
        )
        if meets in outputs:
            seen = x[(slice(None), slice(None), *t)].unflatten(1, (module.groups, per_group))
            rows[:, :, outputs.index(meets), :, at] += seen
    return rows.flatten(3)


def matrix_order(module: nn.Module) -> Tensor:
    """Where each weight of the matrix [groups, out, in] lies in the flattened weight."""
    place = torch.arange(module.weight.numel()).reshape(module.weight.shape)
    if type(module).__name__ == "Conv1D":
        return torch.cat([place[:, unit] for unit in range(place.shape[1])])
    if isinstance(module, TRANSPOSED):
        return torch.cat(
            [
                block[:, unit].flatten()
                for block in place.chunk(module.groups)
                for unit in range(place.shape[1])
            ]
        )
    return place.flatten()


def kfac_A(module: nn.Module, x: Tensor, bias: bool = False) -> Tensor:
    """(1/B) Σ_b Σ_t a aᵀ, one outer product at a time."""
    rows = seen_by_positions(module, x, bias)
    total = torch.zeros(rows.shape[1], rows.shape[-1], rows.shape[-1], dtype=rows.dtype)
    for b in range(rows.shape[0]):
        for group in range(rows.shape[1]):
            for t in range(rows.shape[2]):
                total[group] += torch.outer(rows[b, group, t], rows[b, group, t])
    return total / len(x)


def damped_fisher(rows: Tensor, damping: float, chunk: int | None = None) -> Tensor:
    """λI + (1/m) Σ g gᵀ written out, with everything outside the diagonal chunks set to zero."""
    d = rows.shape[1]
    full = damping * torch.eye(d, dtype=torch.float64) + rows.double().T @ rows.double() / len(rows)
    block = torch.arange(d) // (chunk or d)
    return torch.where(block[:, None] == block[None, :], full, 0.0)


def recursive_inverse(rows: Tensor, damping: float) -> Tensor:
    """WoodFisher Eq. 2 (and L-OBS Eq. 9): m rank-one Sherman-Morrison updates of I/λ, in the rows'
    dtype.
    """
    m, d = rows.shape
    inverse = torch.eye(d, dtype=rows.dtype) / damping
    for g in rows:
        v = inverse @ g
        inverse = inverse - torch.outer(v, v) / (m + g @ v)
    return inverse


def constrained_minimum(fisher: Tensor, w: Tensor, pruned: Tensor) -> tuple[Tensor, float]:
    """(δ, ½ δᵀFδ) minimising the quadratic subject to δ_S = −w_S, from the KKT system itself."""
    index = pruned.nonzero().flatten()
    d, k = len(w), len(index)
    kkt = torch.zeros(d + k, d + k, dtype=torch.float64)
    kkt[:d, :d] = fisher
    kkt[index, d + torch.arange(k)] = 1
    kkt[d + torch.arange(k), index] = 1
    right = torch.cat([torch.zeros(d, dtype=torch.float64), -w[index].double()])
    delta = torch.linalg.solve(kkt, right)[:d]
    return delta, 0.5 * float(delta @ fisher @ delta)


def sequential_walk(inverse: Tensor, w: Tensor, order: list[int]) -> Tensor:
    """L-OBS Algorithm 1 with a fixed inverse: one weight at a time by its current value, then the
    pruned ones set to zero.
    """
    current = w.double().clone()
    for q in order:
        current -= current[q] / inverse[q, q] * inverse[:, q]
    current[order] = 0
    return current - w


def summed_single(inverse: Tensor, w: Tensor, pruned: Tensor) -> Tensor:
    """WoodFisher Eq. 10 for every pruned weight by itself, the sum masked."""
    delta = torch.zeros_like(w, dtype=torch.float64)
    for q in pruned.nonzero().flatten().tolist():
        delta -= w[q] / inverse[q, q] * inverse[:, q]
    return torch.where(pruned, -w.double(), delta)


def kfac_by_unfolding(module: nn.Module, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """(A, G) of a layer without groups from its input x and output gradient g, all patches laid out
    side by side.
    """
    if isinstance(module, nn.Conv2d):
        patches = F.unfold(
            x, module.kernel_size, module.dilation, module.padding, module.stride
        ).transpose(1, 2)
        g = g.flatten(2).transpose(1, 2)
    else:
        patches, g = x[:, None], g[:, None]
    a, b = patches.flatten(0, 1), g.flatten(0, 1)
    return a.T @ a / len(x), b.T @ b / len(b)


def greedy_elimination(
    F: Tensor, w: Tensor, first: list[int], free: list[int]
) -> tuple[list[int], list[float]]:
    """(order, increases of ½ (w' − w)ᵀF(w' − w)) when the weights `first` go and then those of
    `free` one by one, each time the one whose removal, all others refitted, costs least."""
    gone, order, losses = list(first), [], []

    def cost(index: list[int]) -> float:
        mask = torch.zeros(len(w), dtype=torch.bool)
        mask[index] = True
        return constrained_minimum(F, w, mask)[1] if index else 0.0

    left = [q for q in free if q not in first]
    while left:
        now = cost(gone)
        increases = [cost([*gone, q]) - now for q in left]
        best = min(range(len(left)), key=increases.__getitem__)
        order.append(left[best])
        losses.append(increases[best])
        gone.append(left.pop(best))
    return order, losses
