"""Whole networks: surgery against zeros, full bottlenecks against the layer, costs against torch's
counter, BatchNorm, masks.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from common.cells.errors import LayerError
from common.cells.schedule import sparsity_at
from common.curvature.kron import Kron, kron_factors
from common.nets import layers as L
from common.nets import masks as M
from common.nets import models
from common.nets.flops import costs
from common.nets.surgery import channel_groups, narrow, zero_units
from common.running.train import recalibrate_bn
from eigendamage import method as eigen
from eigendamage.bottleneck import factors_of, place, rotatable
from tests import reference, toy
from tests.trust.oracles import floats, normal, numbers, oracle, pair

NETS = {
    "vgg19:width=0.125": (3, 32, 32),
    "resnet20:shortcut=A": (3, 16, 16),
    "resnet20:shortcut=B": (3, 16, 16),
    "preresnet29:width=0.5": (3, 16, 16),
    "mobilenet_v1:width=0.125": (3, 32, 32),
    "digits_cnn:width=0.5": (1, 8, 8),
}


class Shared(nn.Module):
    """A user's network: a stem read by two branches, one head for both, and a sum; nothing is
    called twice.
    """

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = (
            nn.Conv2d(2, 6, 3, padding=1),
            nn.Conv2d(6, 4, 1),
            nn.Conv2d(6, 4, 3, padding=1, stride=1),
        )
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x):
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.norm(self.left(x) + self.right(x))).mean((2, 3)))


class Reused(Shared):
    """The same, with one layer called twice."""

    def __init__(self):
        super().__init__()
        self.again = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        return self.head(
            F.relu(self.left(self.again(F.relu(self.again(x))))).mean((2, 3))
            + self.right(x).mean((2, 3))
        )


class Tied(Shared):
    """The same, with one weight under two names."""

    def __init__(self):
        super().__init__()
        self.right = nn.Conv2d(6, 4, 1)
        self.right.weight = self.left.weight


def keep_some(groups):
    return {
        g.name: sorted(
            torch.randperm(g.size, generator=toy.generator(i))[: max(1, g.size // 2)].tolist()
        )
        for i, g in enumerate(groups)
    }


def built(dtype):
    for name, shape in NETS.items():
        model, twin = pair(toy.seeded(models.build(name, 3, shape, 0)), dtype)
        ((x, x2),) = numbers(dtype, toy.batch(2, shape)[0])
        yield name, model, twin, x, x2


@oracle(
    "narrowed network = zeroed network (VGG, ResNets, PreResNet, MobileNet)",
    "common/nets/surgery.py",
)
def narrowed(dtype):
    for name, model, twin, x, x2 in built(dtype):
        groups = channel_groups(model, x)
        keep = keep_some(groups)
        zero_units(twin, groups, keep)
        narrow(model, groups, keep)
        yield name, model(x), twin(x2)


@oracle("a user's network: right, or a typed error", "common/nets/surgery.py, capture.py")
def users_networks(dtype):
    """Shared layers are followed. Reused ones are refused by curvature and by surgery until they
    are skipped; tied ones always.
    """
    (x, x2), (y, _) = numbers(dtype, *toy.batch(4))
    for kind, skip in (
        (Shared, ()),
        (Reused, ("again", "stem", "left")),
        (Shared, ("left", "right")),
    ):
        model, twin = pair(toy.seeded(kind()), dtype)
        groups = channel_groups(model, x, skip)
        if groups:
            keep = keep_some(groups)
            zero_units(twin, groups, keep)
            narrow(model, groups, keep)
        yield f"{kind.__name__} without {skip}", model(x), twin(x2)
    refused = []
    for kind in (Reused, Tied):
        model = toy.seeded(kind()).to(dtype)
        for work in (
            lambda m: channel_groups(m, x),
            lambda m: kron_factors(m, [(x, y)], fisher="empirical"),
        ):
            before = copy.deepcopy(model.state_dict())
            try:
                work(model)
            except LayerError as error:
                refused.append(
                    bool(error.layer)
                    and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
                )
            else:
                refused.append(False)
    yield "refused, model untouched", floats(*refused), floats(1, 1, 1, 1)
    model, twin = pair(toy.seeded(Shared()), dtype)
    factors = kron_factors(model, [(x, y)], fisher="empirical")
    for name in ("left", "right"):
        yield (
            f"A of {name}, which shares its input",
            factors[name].A,
            reference.kfac_A(twin.get_submodule(name), F.relu(twin.stem(x2))),
        )


@oracle("full eigen-bottlenecks in every layer = the network", "EigenDamage Eqs. 15, 16")
def bottlenecks(dtype):
    for name, model, twin, x, x2 in built(dtype):
        expected = twin(x2)
        # the second is merged into the first
        for step in range(2 if name.startswith("digits") else 1):
            for layer, module in rotatable(
                model, [n for n, m in model.named_modules() if L.groups(m) > 1]
            ).items():
                d = module.weight.shape
                a, g = (
                    normal(1, d[1] + 2, d[1], seed=step),
                    normal(1, d[0] + 2, d[0], seed=step + 1),
                )
                rotated = eigen.rotate(module.weight, Kron(a.mT @ a, g.mT @ g, 1))
                place(model, layer, factors_of(module, rotated.QA, rotated.W, rotated.QS))
            yield f"{name}, rotation {step + 1}", model(x), expected
    for name in ("resnet20:shortcut=B", "vgg19:width=0.125"):
        model, twin = pair(toy.seeded(models.build(name, 3, NETS[name], 0)), dtype)
        ((x, x2),) = numbers(dtype, toy.batch(2, NETS[name])[0])
        for layer, module in rotatable(model).items():
            a, g = (normal(1, n, n, seed=3) for n in (module.weight[0].numel(), len(module.weight)))
            rotated = eigen.rotate(module.weight, Kron(a + a.mT, g + g.mT, 1))
            place(model, layer, factors_of(module, rotated.QA, rotated.W, rotated.QS))
        yield f"{name}, patch", model(x), twin(x2)


@oracle(
    "weights and MACs = torch's FlopCounter", "common/nets/flops.py", double=1e-15, single=1e-15
)
def counts(dtype):
    for name, model, _, x, _ in built(dtype):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(x[:1])
        mine = costs(model, tuple(x.shape[1:]))
        yield f"{name}, MACs", floats(mine.macs), floats(counter.get_total_flops() / 2)
        dims = [p.numel() for n, p in model.named_parameters() if p.ndim > 1]
        yield f"{name}, weights", floats(mine.params), floats(sum(dims))


@oracle("BatchNorm statistics = plain average over batches", "common/running/train.py")
def batchnorm(dtype):
    model, twin = pair(toy.small_net(), dtype)
    batches = [numbers(dtype, toy.batch(4, seed=i)[0])[0] for i in range(3)]
    recalibrate_bn(model, [(x, None) for x, _ in batches], 3)
    seen = [twin[0](x2).detach().transpose(0, 1).flatten(1) for _, x2 in batches]
    yield "mean", model[1].running_mean, sum(s.mean(1) for s in seen) / 3
    yield "variance", model[1].running_var, sum(s.var(1, unbiased=True) for s in seen) / 3


@oracle(
    "masked weights stay zero, the others follow plain SGD with momentum", "common/nets/masks.py"
)
def held(dtype):
    (w, w2), (mask, _) = numbers(dtype, normal(4, 3), normal(4, 3, seed=1) > 0)
    layer = nn.Linear(3, 4, bias=False).to(dtype)
    layer.weight.data.copy_(w)
    optimizer, hold = (
        torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01),
        M.Hold(layer, {"weight": mask}),
    )
    hold(optimizer)
    value, velocity = w2 * mask, torch.zeros_like(w2)
    for step in range(5):
        g, g2 = numbers(dtype, normal(4, 3, seed=step + 2))[0]
        layer.weight.grad = g.clone()
        optimizer.step()
        hold(optimizer)
        velocity = 0.9 * velocity + (g2 + 0.01 * value) * mask
        value = value - 0.1 * velocity
    yield "weights", layer.weight, value


@oracle("sparsity schedules", "Zhu & Gupta 2017; WoodFisher Sec. S1.1", double=1e-12, single=1e-12)
def schedules(dtype):
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    truth = {
        "cubic": 0.9 + (0.1 - 0.9) * (1 - t) ** 3,
        "linear": 0.1 + 0.8 * t,
        "constant": torch.full_like(t, 0.9),
    }
    for kind, values in truth.items():
        yield kind, floats(*[sparsity_at(float(p), 0.9, 0.1, kind) for p in t]), values
