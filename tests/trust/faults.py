"""The planted faults, by file: (old text, which occurs once; new text; the tests that must fail, as pytest arguments)."""

ORACLES = "tests/trust/test_oracles.py"
KRON = "tests/common/test_kron.py"
INVERSE = "tests/common/test_inverse_and_obs.py"
ROWS = "tests/common/test_rows_and_diag.py"
SELECT = "tests/common/test_select_and_masks.py"
TRAIN = "tests/common/test_train.py"
LOBS = "tests/lobs/test_method.py"
EIGEN = "tests/eigendamage/test_method.py"
CRITERIA = "tests/eigendamage/test_criteria.py"
WOOD = "tests/woodfisher/test_method.py"
SURGERY = "tests/common/test_surgery.py"
FLOPS = "tests/common/test_flops.py"
FILES = "tests/common/test_checkpoint.py"
OTHERS = "tests/woodfisher/test_others.py"
SPEC = "tests/common/test_spec_and_record.py"
PROPERTIES = "tests/trust/test_properties.py"
LAYERS = "tests/trust/test_layers.py"
NUMERICS = "tests/trust/test_numerics.py"
MOVING = "tests/nap/test_statistics.py"

FAULTS = {
    "common/layers.py": [
        ("return columns, columns, rows, rows", "return rows, rows, columns, columns", f"{ROWS} -k wide"),
        ("total[1] // 2, total[1] - total[1] // 2, total[0] // 2", "total[1] - total[1] // 2, total[1] // 2, total[0] // 2", LAYERS),
        ("groups=examples * module.groups)", "groups=module.groups)", f"{ROWS} -k grouped"),
        ("reshape(x.shape[0], module.groups, -1, columns.shape[-1])",
         "reshape(x.shape[0], -1, module.groups, columns.shape[-1])", f"{KRON} -k grouped"),
    ],
    "common/capture.py": [
        ("module.training = training", "module.training = False", f"{KRON} -k leaves_the_model"),
        ("if x._version != version:", "if False:", f"{KRON} -k cannot_be_captured"),
    ],
    "common/fisher/__init__.py": [
        ("log_p.detach().mul(0.5).exp()", "log_p.detach().exp()", f"{ORACLES} -k Gauss"),
        ("yield 0.5 * (output - y).pow(2).sum()", "yield (output - y).pow(2).sum()", f"{ORACLES} -k gradients and convolution"),
        ("yield -log_p.gather(1, drawn).sum()", "yield -log_p.gather(1, drawn).mean()", f"{ORACLES} -k sampled"),
    ],
    "common/fisher/rows.py": [
        ("= rows if batch == 1 else rows / batch", "= rows", f"{ORACLES} -k mini"),
    ],
    "common/fisher/diag.py": [
        ("part.square().sum(0)", "part.sum(0).square()", f"{ORACLES} -k diagonal and Fisher"),
        ("value / examples for", "value for", f"{ORACLES} -k diagonal and Fisher"),
    ],
    "common/fisher/moving.py": [
        ("else (self.decay, 1 - self.decay)", "else (1 - self.decay, self.decay)", f"{ORACLES} -k moving"),
    ],
    "common/fisher/kron.py": [
        ("second_moment(rows) / (rows.shape[2] * len(x))", "second_moment(rows) / len(x)", f"{ORACLES} -k positions and examples"),
        ("torch.kron(g, a) for a, g", "torch.kron(a, g) for a, g", f"{ORACLES} -k exact"),
        ("A.lerp_(new.A, len(x) / self.seen)", "A.lerp_(new.A, 1 / self.seen)", f"{ORACLES} -k batches"),
        ("ratio = (mean_a / mean_g).where", "ratio = (mean_g / mean_a).where", f"{ORACLES} -k Kronecker"),
        ("(root / ratio)[:, None].expand(G.shape[:2])", "(root * ratio)[:, None].expand(G.shape[:2])", f"{ORACLES} -k Kronecker"),
        ("return (self.G @ self._matrix(v) @ self.A).flatten()",
         "return (self.G @ self._matrix(v) @ self.A_inverse).flatten()", f"{ORACLES} -k Kronecker"),
        ("(padded * times.sqrt())", "(padded * times)", f"{ORACLES} -k channel"),
        ("total / rows[name] for name", "total for name", f"{KRON} -k layer_hessian"),
    ],
    "common/fisher/patches.py": [
        ("seen += by_pixel[u, v]", "seen -= by_pixel[u, v]", f"{ORACLES} -k factor and positions and convolution"),
        ("range(i + reach, size)) if before", "range(i + reach + 1, size)) if before",
         f"{ORACLES} -k factor and positions and convolution"),
        ("min(k - 1 - min(at),", "min(k - 1 - max(at),", KRON),
    ],
    "common/fisher/inverse.py": [
        ("return torch.maximum(diagonal, 1 / (own + damping))", "return diagonal", f"{NUMERICS} -k rounding"),
        ("matrix /= self.count", "matrix /= 1", f"{ORACLES} -k damped and shapes"),
        ("add_(self.damping * (self.count if dual else 1))", "add_(self.damping)", f"{ORACLES} -k damped and shapes"),
        ("(1 - Z.square_().sum(-2))", "(1 - Z.square_().sum(-2) / 2)", f"{ORACLES} -k damped and shapes"),
        ("pull = sum((G - _without(G, pruned[place])) @", "pull = sum(G @", f"{ORACLES} -k joint"),
        ("torch.where(pruned, -w.double(), moves)", "torch.where(pruned, w.double(), moves)", f"{ORACLES} -k joint"),
    ],
    "common/fisher/shared.py": [
        ("return (V - (V @ self.Z.T) @ self.Z) / self.ridge", "return (V - (V @ self.Z.T) @ self.Z)", f"{ORACLES} -k damped and shapes"),
        ("return self.ridge * V + (V @ self.X.T) @ self.X / self.count",
         "return self.ridge * V + (V @ self.X.T) @ self.X", f"{ORACLES} -k damped and shapes"),
        ("torch.where(kept[rows], 0.0, target[rows]) @ self.X.T", "target[rows] @ self.X.T", f"{ORACLES} -k joint"),
    ],
    "common/obs.py": [
        ("return w.double().square().div_(2 * inverse_diagonal)", "return w.double().square().div_(inverse_diagonal)",
         f"{ORACLES} -k score"),
        ("return 0.5 * float(delta @ curvature.times(delta))",
         "return float(delta @ curvature.times(delta))", f"{ORACLES} -k update and kinds"),
        ("solve_triangular(lower, current[:, None], upper=False)", "solve_triangular(lower, current[:, None], upper=True)",
         f"{ORACLES} -k triangular"),
        ("order = order[pruned[order]]", "order = order[pruned[order]].flip(0)", f"{ORACLES} -k triangular"),
        ("delta = torch.where(pruned, -w, delta)", "delta = torch.where(pruned, delta, delta)", f"{ORACLES} -k diagonal and update"),
    ],
    "common/select.py": [
        ("return round(amount * total)", "return int(amount * total)", SELECT),
        ("lowest([(-values).masked_fill_", "lowest([values.clone().masked_fill_", SELECT),
        ("lowest(flat, free, goal - already)", "lowest(flat, free, goal)", SELECT),
        ("nonzero().flatten()[:left]", "nonzero().flatten()", SELECT),
        ("may & (v == edge)", "(v == edge)", SELECT),
    ],
    "common/masks.py": [
        ("value.masked_fill_(gone, 0)", "value.masked_fill_(~gone, 0)", SELECT),
        ("bool((~mask | outer[name]).all())", "bool((mask | outer[name]).all())", SELECT),
    ],
    "common/train.py": [
        ("if not math.isfinite(loss):", "if False:", f"{NUMERICS} -k diverges"),
        ("    if state.hold:\n        state.hold(state.optimizer)\n    state.step += 1", "    state.step += 1", TRAIN),
        ("torch.manual_seed(seed * 1_000_003 + state.step)", "torch.manual_seed(seed * 1_000_003)", TRAIN),
        ("if index < skip:", "if index <= skip:", TRAIN),
        ("loss += float(mean_loss(output, y)) * len(y)", "loss += float(mean_loss(output, y))", TRAIN),
        ("    state.model.load_state_dict(good)\n", "", TRAIN),
    ],
    "common/schedule.py": [
        ("(1 - progress) ** power", "progress ** power", SELECT),
    ],
    "common/surgery.py": [
        ("period = channel_count(module, axis) // module.groups", "period = module.groups", SURGERY),
        ("module.running_mean[gone] = 0", "module.running_mean[gone] = 1", SURGERY),
    ],
    "common/edits.py": [
        ("(index % width).chunk(conv.groups)", "(index // conv.groups).chunk(conv.groups)", SURGERY),
        ("new.last.bias = layer.bias", "new.last.bias = None", SURGERY),
    ],
    "common/flops.py": [
        ("output.numel() // module.weight.shape[0]", "output.numel()", FLOPS),
    ],
    "common/tensorfile.py": [
        ('!= metadata.get("sha256"):', '== "":', f"{FILES} -k flipped"),
    ],
    "common/checkpoint.py": [
        ("state[int(index)][key] = tensor", "state[int(index) + 1][key] = tensor", f"{FILES} -k resumed"),
    ],
    "common/spec.py": [
        ("json.dumps(self.identity(), sort_keys=True)", "json.dumps(self.to_dict(), sort_keys=True)", SPEC),
    ],
    "lobs/hessian.py": [
        ("moved = matrix.times(delta) - matrix.ridge * delta",
         "moved = matrix.times(delta)", f"{ORACLES} -k predicted and measured"),
    ],
    "lobs/method.py": [
        (".masked_fill_(layer.dead(), 0.0)", "", f"{LOBS} -k dead"),
    ],
    "eigendamage/method.py": [
        ('"os,oip,ia->sap", QS', '"so,oip,ia->sap", QS', f"{ORACLES} -k eigen"),
        ("return 0.5 * (self.W - new).square()", "return (self.W - new).square()", f"{ORACLES} -k eigen"),
    ],
    "eigendamage/kron_obs.py": [
        ("0.5 * input_form(W, inverse.A, form) / inverse",
         "0.5 * input_form(W, inverse.A_inverse, form) / inverse", f"{ORACLES} -k filters"),
    ],
    "eigendamage/filters.py": [
        ('((W @ A) * W if form == "paper"', '((W @ A) * W.abs() if form == "paper"', f"{ORACLES} -k filters"),
    ],
    "eigendamage/bottleneck.py": [
        ("QA.T.reshape(QA.shape[1], module.in_channels", "QA.reshape(QA.shape[1], module.in_channels", f"{ORACLES} -k bottlenecks"),
    ],
    "eigendamage/threshold.py": [
        ("most = math.floor(cap * len(score) + 1e-9)", "most = math.ceil(cap * len(score) + 1e-9)", CRITERIA),
    ],
    "woodfisher/woodtaylor.py": [
        ("increase - gain", "increase + gain", f"{ORACLES} -k WoodTaylor"),
    ],
    "woodfisher/surgeon.py": [
        ("moved |= part.split(w + delta)", "moved |= part.split(w - delta)", f"{ORACLES} -k WoodFisher"),
    ],
    "woodfisher/fisher.py": [
        ("rows[name][:, lost] = 0", "rows[name][:, ~lost] = 0", f"{WOOD} -k second_pruning"),
    ],
    "woodfisher/flops_aware.py": [
        ("price[name] ** options.beta", "price[name] * options.beta", f"{OTHERS} -k flops"),
    ],
    "woodfisher/structured.py": [
        ("w[q].sum() / column[q].sum() * column", "w[q].sum() / column.sum() * column", f"{OTHERS} -k structured"),
    ],
    "common/baselines.py": [
        ("0.5 * module.weight.detach().double().square() * fisher[name]",
         "0.5 * module.weight.detach().double().abs() * fisher[name]", f"{PROPERTIES} -k predicted"),
    ],
    "nap/method.py": [
        ("return scores / total if total > 0", "return scores * total if total > 0", f"{ORACLES} -k NAP"),
        ("after[name].shape[-1]] = ~after[name]", "after[name].shape[-1]] = after[name]", f"{ORACLES} -k NAP"),
    ],
    "nap/statistics.py": [
        ("(state.step - 1) % self.options.every == 0", "state.step % self.options.every == 0", MOVING),
    ],
}
