"""The planted faults, by file: (old text, which occurs once in the file as ast.unparse prints it;
new text; the tests that must fail, as pytest arguments)."""

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
LIBRARY = "tests/common/test_library.py"
SPEC = "tests/common/test_spec_and_record.py"
PROPERTIES = "tests/trust/test_properties.py"
LAYERS = "tests/trust/test_layers.py"
KINDS = "tests/common/test_layer_kinds.py"
NUMERICS = "tests/trust/test_numerics.py"
MOVING = "tests/nap/test_statistics.py"
ASSUMPTIONS = "tests/common/test_assumptions.py"
FOREIGN = "tests/common/test_foreign.py"
EDGE = "tests/common/test_edge.py"
FOLDERS = "tests/common/test_folders.py"
DISTRIBUTED = "tests/common/test_distributed.py"
BUDGET = "tests/trust/test_budget.py"
SEEDS = "tests/trust/test_seeds.py"
HOLDOUT = "tests/common/test_holdout.py"
GRADUAL = "tests/common/test_gradual.py"
PIPELINE = "tests/common/test_pipeline.py"
IDENTITY = "tests/common/test_identity.py"
PROVENANCE = "tests/common/test_provenance.py"
TABLES = "tests/figures/test_tables.py"
PICTURES = "tests/figures/test_papers.py"
PAIRED = "tests/figures/test_paired.py"

FAULTS = {
    "common/nets/kinds.py": [
        ("around[:0] = (p, p)", "around += (p, p)", f"{ROWS} -k wide"),
        ("(total // 2, total - total // 2)", "(total - total // 2, total // 2)", LAYERS),
        ("examples * module.groups)", "module.groups)", f"{ROWS} -k grouped"),
        ("return output.numel() // self.channels(module)[1]", "return output.numel()", FLOPS),
        ("blocks.transpose(1, 2).flatten(2)", "blocks.flatten(2)", f"{KINDS} -k product"),
        ("x = x.flip(*range(-len(kernel), 0))", "pass", f"{KINDS} -k product"),
        (
            "return weight.T[None]",
            "return weight.reshape(weight.T.shape)[None]",
            f"{KINDS} -k Conv1D",
        ),
        ("around[:0] = (p, p - more)", "around[:0] = (p, p)", f"{KINDS} -k rows"),
        (
            ", module.groups, -1, columns.shape[-",
            ", -1, module.groups, columns.shape[-",
            f"{KRON} -k grouped",
        ),
    ],
    "common/nets/capture.py": [
        ("module.training = training", "module.training = False", f"{KRON} -k leaves_the_model"),
        ("if x._version != version:", "if False:", f"{KRON} -k cannot_be_captured"),
    ],
    "common/curvature/labels.py": [
        (
            "torch.randn(output.shape, generator=generator, dtype=output.dtype)",
            "torch.randn(output.shape, dtype=output.dtype)",
            f"{SEEDS} -k labels_are_the_generators",
        ),
        (
            "weight = log_p.detach().mul(0.5).exp()",
            "weight = log_p.detach().exp()",
            f"{ORACLES} -k Gauss",
        ),
        (
            "yield (0.5 * (output - targets(output, y, task)).pow(2).sum())",
            "yield (output - targets(output, y, task)).pow(2).sum()",
            f"{ORACLES} -k gradients and convolution",
        ),
        (
            "yield (-(log_p.gather(2, drawn)[..., 0] * scale.sqrt()).sum())",
            "yield (-(log_p.gather(2, drawn)[..., 0] * scale.sqrt()).mean())",
            f"{ORACLES} -k sampled",
        ),
    ],
    "common/curvature/rows.py": [
        ("rows if batch == 1 else rows / batch", "rows", f"{ORACLES} -k mini")
    ],
    "common/curvature/diag.py": [
        (
            "return sum((part.square_().sum(0",
            "return sum((part.sum(0).square(",
            f"{ORACLES} -k diagonal and Fisher",
        ),
        (
            "value.div_(examples) for name, value in",
            "value for name, value in",
            f"{ORACLES} -k diagonal and Fisher",
        ),
    ],
    "common/curvature/moving.py": [
        (
            "first else (self.decay, 1 - self.decay)",
            "first else (1 - self.decay, self.decay)",
            f"{ORACLES} -k moving",
        )
    ],
    "common/curvature/kron.py": [
        (
            "second_moment(rows).div_(rows.shape[2] * len(x))",
            "second_moment(rows).div_(len(x))",
            f"{ORACLES} -k positions and examples",
        ),
        (
            "torch.stack([torch.kron(g, a) for a, g in",
            "torch.stack([torch.kron(a, g) for a, g in",
            f"{ORACLES} -k exact",
        ),
        (
            "share, sums = (len(x) / seen, {})",
            "share, sums = (1 / seen, {})",
            f"{ORACLES} -k batches",
        ),
        (
            " = (mean_a / mean_g).where(~dead | relative",
            " = (mean_g / mean_a).where(~dead | relative",
            f"{ORACLES} -k Kronecker",
        ),
        (
            "add_((root / ratio)[:, None])",
            "add_((root * ratio)[:, None])",
            f"{ORACLES} -k Kronecker",
        ),
        (
            " self._matrix(v) @ self.A).flatten()",
            " self._matrix(v) @ self.A_inverse).flatten()",
            f"{ORACLES} -k Kronecker",
        ),
        (
            "padded * times.sqrt()).reshape(len(x),",
            "padded * times).reshape(len(x),",
            f"{ORACLES} -k channel",
        ),
        (
            " total / rows[name] for name, total ",
            " total for name, total ",
            f"{KRON} -k layer_hessian",
        ),
    ],
    "common/curvature/patches.py": [
        (
            "seen[place] += border",
            "seen[place] -= border",
            f"{ORACLES} -k factor and positions and convolution",
        ),
        (
            "range(i + reach, size)) if before <= u",
            "range(i + reach + 1, size)) if before <= u",
            f"{ORACLES} -k factor and positions and convolution",
        ),
        (
            "range(max(-max(at), -u), min(k - 1 - min",
            "range(max(-max(at), -u), min(k - 1 - max",
            KRON,
        ),
    ],
    "common/system/distributed.py": [
        (
            "len(range(rank(), examples, world())) / examples",
            "1 / world()",
            f"{DISTRIBUTED} -k shares_of",
        ),
        (
            "if mine(first + i)",
            "if mine(i)",
            "tests/common/test_distributed.py -k each_name_is_worked_on",
        ),
    ],
    "common/curvature/blocks.py": [
        (
            "distributed.mine(self.turn + index)",
            "distributed.mine(index)",
            "tests/common/test_inverse_and_obs.py -k its_turn",
        ),
        ("torch.maximum(diagonal, 1 / (own + damping))", "diagonal", f"{NUMERICS} -k rounding"),
        ("matrix /= self.count", "matrix /= 1", f"{ORACLES} -k damped and shapes"),
        (
            "self.damping * (self.count if dual else 1))",
            "self.damping)",
            f"{ORACLES} -k damped and shapes",
        ),
        (
            ".sum(-2)) / self.damping, G, self.damping",
            ".sum(-2) / 2) / self.damping, G, self.damping",
            f"{ORACLES} -k damped and shapes",
        ),
        ("((G - _without(G, pruned[place])) @ ", "(G @ ", f"{ORACLES} -k joint"),
        (
            "torch.where(pruned, -w.double(), moves)",
            "torch.where(pruned, w.double(), moves)",
            f"{ORACLES} -k joint",
        ),
    ],
    "common/curvature/shared.py": [
        (
            "(V - V @ self.Z.T @ self.Z) / self.ridge",
            "V - V @ self.Z.T @ self.Z",
            f"{ORACLES} -k damped and shapes",
        ),
        (
            "+ V @ self.X.T @ self.X / self.count",
            "+ V @ self.X.T @ self.X",
            f"{ORACLES} -k damped and shapes",
        ),
        ("torch.where(kept[rows], 0.0, target[rows])", "target[rows]", f"{ORACLES} -k joint"),
    ],
    "common/pruning/obs.py": [
        (
            ".square().div_(2 * inverse_diagonal)",
            ".square().div_(inverse_diagonal)",
            f"{ORACLES} -k score",
        ),
        (
            "return 0.5 * float(delta @ curvature.times",
            "return float(delta @ curvature.times",
            f"{ORACLES} -k update and kinds",
        ),
        (
            "current[:, None], upper=False)[:, 0]",
            "current[:, None], upper=True)[:, 0]",
            f"{ORACLES} -k triangular",
        ),
        (
            "order = order[pruned[order]]",
            "order = order[pruned[order]].flip(0)",
            f"{ORACLES} -k triangular",
        ),
        (
            "delta = torch.where(pruned, -w, delta)",
            "delta = torch.where(pruned, delta, delta)",
            f"{ORACLES} -k diagonal and update",
        ),
    ],
    "common/pruning/select.py": [
        (
            "every = torch.empty(sum(map(len, values)), dtype=torch.float64)",
            "every = torch.empty(sum(map(len, values)), dtype=torch.float32)",
            f"{SELECT} -k double_precision",
        ),
        ("return round(fraction(amount) * total)", "return int(fraction(amount) * total)", SELECT),
        (
            "lowest([(-values).masked_fill_(lost, ",
            "lowest([values.clone().masked_fill_(lost, ",
            SELECT,
        ),
        ("= lowest(flat, free, goal - already)", "= lowest(flat, free, goal)", SELECT),
        ("== edge)).nonzero().flatten()[:left]", "== edge)).nonzero().flatten()", SELECT),
        (" (may & (v == edge)).nonzero().flatten", " (v == edge).nonzero().flatten", SELECT),
    ],
    "common/nets/masks.py": [
        ("value.masked_fill_(gone, 0)", "value.masked_fill_(~gone, 0)", SELECT),
        ("all((bool((~mask | outer[name]).all()", "all((bool((mask | outer[name]).all()", SELECT),
    ],
    "common/running/train.py": [
        ("seed=seed * 100003 + epoch,", "seed=seed * 100003,", f"{SEEDS} -k every_epoch"),
        (
            "model.eval()\n    loss, count",
            "model.eval()\n    training = True\n    loss, count",
            f"{TRAIN} -k leaves_its_mode",
        ),
        (
            "if error.field != 'checkpoint':\n                raise",
            "if error.field == '':\n                raise",
            f"{TRAIN} -k cannot_be_written",
        ),
        ("if not math.isfinite(loss):", "if False:", f"{NUMERICS} -k diverges"),
        ("if state.hold:\n        state.hold(state.optimizer)\n    ", "", TRAIN),
        (
            "torch.manual_seed(seed * 1000003 + state.step)",
            "torch.manual_seed(seed * 1000003)",
            TRAIN,
        ),
        ("if index < skip:", "if index <= skip:", TRAIN),
        (
            "float(mean_loss(output, y, task_of(x))) * len(y)",
            "float(mean_loss(output, y, task_of(x)))",
            TRAIN,
        ),
        ("state.model.load_state_dict(good)\n    state.model.to", "state.model.to", TRAIN),
    ],
    "common/cells/schedule.py": [
        (
            "sum((epoch >= m - 1e-09 for m in",
            "sum((epoch > m for m in",
            f"{TRAIN} -k rates_by_value",
        ),
        ("- initial) * (1 - progress) ** power", "- initial) * progress ** power", SELECT),
    ],
    "common/nets/surgery.py": [
        ("channel_count(module, axis) // module.groups", "module.groups", SURGERY),
        ("module.running_mean[gone] = 0", "module.running_mean[gone] = 1", SURGERY),
    ],
    "common/nets/edits.py": [
        (
            "(index % width).chunk(conv.groups), ",
            "(index // conv.groups).chunk(conv.groups), ",
            SURGERY,
        ),
        ("new.last.bias = layer.bias", "new.last.bias = None", SURGERY),
    ],
    "common/nets/tensorfile.py": [
        ("checkpoint']) != metadata.get('sha256'):", "checkpoint']) == '':", f"{FILES} -k flipped")
    ],
    "common/nets/checkpoint.py": [
        (
            "state[int(index)][key] = tensor",
            "state[int(index) + 1][key] = tensor",
            f"{FILES} -k resumed",
        )
    ],
    "common/cells/spec.py": [
        ("json.dumps(self.identity(), sort_keys", "json.dumps(self.to_dict(), sort_keys", SPEC)
    ],
    "common/cells/tablefile.py": [
        ("_digest(_said(rows[0], row)) != line['line']", "False", f"{LIBRARY} -k belong"),
        ("if record['id'] not in gone", "", f"{LIBRARY} -k done_anew"),
        ("dict.fromkeys(v) if", "dict.fromkeys(sorted(v)) if", f"{LIBRARY} -k comes_back"),
    ],
    "common/commands/publish.py": [
        (
            " if at % every == 0 or at == len(steps) - 1]",
            " if at % every == 0]",
            f"{LIBRARY} -k shortened",
        ),
        (
            "what = (record['stage'], record['spec'].get('seed', 0))",
            "what = (record['stage'],)",
            f"{LIBRARY} -k longer_name",
        ),
        ("record.series or series(record)", "record.series", f"{LIBRARY} -k told_it"),
    ],
    "lobs/hessian.py": [
        (
            "matrix.times(delta) - matrix.ridge * delta",
            "matrix.times(delta)",
            f"{ORACLES} -k predicted and measured",
        )
    ],
    "lobs/method.py": [(".masked_fill_(layer.dead(), 0.0)", "", f"{LOBS} -k dead")],
    "eigendamage/method.py": [
        (
            " = torch.einsum('os,oip,ia->sap', QS,",
            " = torch.einsum('so,oip,ia->sap', QS,",
            f"{ORACLES} -k eigen",
        ),
        (
            "return 0.5 * (self.W - new).square()",
            "return (self.W - new).square()",
            f"{ORACLES} -k eigen",
        ),
    ],
    "eigendamage/kron_obs.py": [
        (
            "W, inverse.A, form) / inverse.G_inverse.diagonal",
            "W, inverse.A_inverse, form) / inverse.G_inverse.diagonal",
            f"{ORACLES} -k filters",
        )
    ],
    "eigendamage/filters.py": [
        ("relative=True, name=name", "name=name", f"{CRITERIA} -k follows_the_size"),
        (
            "@ A * W if form == 'paper' else W.square",
            "@ A * W.abs() if form == 'paper' else W.square",
            f"{ORACLES} -k filters",
        ),
    ],
    "eigendamage/bottleneck.py": [
        (
            "return [QA.T.reshape(QA.shape[1], module.in_channels",
            "return [QA.reshape(QA.shape[1], module.in_channels",
            f"{ORACLES} -k bottlenecks",
        )
    ],
    "eigendamage/threshold.py": [
        ("most = math.floor(cap * len(score) +", "most = math.ceil(cap * len(score) +", CRITERIA)
    ],
    "woodfisher/woodtaylor.py": [
        (
            "result.notes = (increase - gain, notes(parts) + raised)",
            "result.notes = (increase + gain, notes(parts) + raised)",
            f"{ORACLES} -k WoodTaylor",
        )
    ],
    "woodfisher/surgeon.py": [
        (
            "moved |= part.split((w + delta).to(w.dtype))",
            "moved |= part.split(w - delta)",
            f"{ORACLES} -k WoodFisher",
        )
    ],
    "common/curvature/fisher.py": [
        ("found[name][:, lost] = 0", "found[name][:, ~lost] = 0", f"{WOOD} -k second_pruning")
    ],
    "common/pruning/channels.py": [
        (
            "each[rows].sum() for rows",
            "each[rows].mean() for rows",
            "tests/common/test_channels.py",
        ),
        (
            "(~kept[group.name]).nonzero",
            "kept[group.name].nonzero",
            "tests/common/test_channels.py",
        ),
    ],
    "woodfisher/flops_aware.py": [
        (
            "name] ** options.beta for name, score",
            "name] * options.beta for name, score",
            f"{OTHERS} -k flops",
        )
    ],
    "woodfisher/structured.py": [
        (
            "weighted[q] = w[q].sum() / across",
            "weighted[q] = w[q].mean() / across",
            f"{OTHERS} -k structured",
        )
    ],
    "common/pruning/baselines.py": [
        (
            "().double().square() * fisher[name] ",
            "().double().abs() * fisher[name] ",
            f"{PROPERTIES} -k predicted",
        )
    ],
    "nap/method.py": [
        (
            "return dL / total if total > 0 else",
            "return dL * total if total > 0 else",
            f"{ORACLES} -k NAP",
        ),
        (
            "compensated(W[name], F[name], ~Gamma",
            "compensated(W[name], F[name], Gamma",
            f"{ORACLES} -k NAP",
        ),
    ],
    "nap/statistics.py": [
        ("self.seed * 1000003 + state.step", "state.step", f"{SEEDS} -k nap_draws"),
        (
            "if latent and latent['seen'] else {}",
            "if latent else {}",
            "tests/nap/test_method.py -k no_fine_tuning",
        ),
        (
            "and (state.step - 1) % self.options.every",
            "and state.step % self.options.every",
            MOVING,
        ),
    ],
    "common/nets/assumptions.py": [
        ("if rows != (count, 1):", "if rows[0] % count:", f"{ASSUMPTIONS} -k named and folded"),
        (
            "_agree(batch.input[:1], alone.input)",
            "_agree(alone.input[:1], alone.input)",
            f"{ASSUMPTIONS} -k named and centred",
        ),
        (
            "expected = L.forward(module, seen.input)",
            "expected = seen.output",
            f"{ASSUMPTIONS} -k named and gain",
        ),
        (
            "_agree(L.to_weight(layers[name], own), total, noise)",
            "_agree(total, total, noise)",
            f"{ASSUMPTIONS} -k named and functional",
        ),
    ],
    "common/nets/foreign.py": [
        (
            "needed <= state.keys() <= expected.keys()",
            "needed <= state.keys()",
            f"{FOREIGN} -k one_line and more",
        ),
        ("if len(usual) == 1:", "if not usual:", f"{FOREIGN} -k loads and moving"),
        (
            "entry.compress_type != zipfile.ZIP_STORED",
            "entry.compress_type == zipfile.ZIP_LZMA",
            f"{FOREIGN} -k another_kind",
        ),
    ],
    "common/data/batches.py": [
        ("if len(x):", "if x is not None:", f"{EDGE} -k welcome"),
        ("not y.dim() or len(x) != len(y)", "not y.dim()", f"{EDGE} -k same_words"),
    ],
    "common/data/folders.py": [
        (
            "f'{i} {folder.labels[i]} {sha256}'",
            "f'{i} {sha256}'",
            f"{IDENTITY} -k under_other_labels",
        ),
        ("(state.st_dev, state.st_ino) in above", "place in above", f"{FOLDERS} -k lead_back"),
        (
            "name.startswith('.') or name in OTHERS",
            "name.startswith('.')",
            f"{FOLDERS} -k passed_over",
        ),
        ("str(stored['key']) == key and ", "", "tests/common/test_identity.py -k replaced_images"),
    ],
    "common/curvature/memory.py": [
        ("8 * groups * wide ** 2", "8 * groups * wide", f"{BUDGET} -k squares_are"),
        ("machine.require_memory(what, ", "machine.fits(what, ", f"{BUDGET} -k every_method"),
        (
            "both + sizes.square + 4 * n, both + work",
            "both + sizes.square + 4 * n",
            f"{BUDGET} -k kfac and wide and fifth",
        ),
    ],
    "common/commands/export.py": [
        (
            "('metadata_props', 'doc_string')",
            "('doc_string',)",
            "tests/common/test_export.py -k same_outputs",
        )
    ],
    "common/running/gradual.py": [
        ("seed = spec.seed * 1000 + step", "seed = spec.seed * 1000", f"{SEEDS} -k gradual_run"),
        (
            "data.train_loader(BN_BATCH, seed=spec.seed)",
            "data.train_loader(BN_BATCH)",
            f"{SEEDS} -k gradual_run",
        ),
        (
            "judges = data.test if data.valid is None else data.valid",
            "judges = data.test",
            f"{HOLDOUT} -k before_the_report",
        ),
        (
            "('notes', 'layers', 'predicted_increase')",
            "('layers', 'predicted_increase')",
            f"{GRADUAL} -k was_killed_is and woodfisher-interval",
        ),
        (
            "if not trajectory and -1 in stretches:",
            "if -1 in stretches:",
            f"{GRADUAL} -k was_killed_is and woodfisher-course",
        ),
    ],
    "common/running/stages.py": [
        (
            "seed = work.spec.dense_seed if work.name == 'train' else work.spec.seed",
            "seed = work.spec.seed",
            f"{SEEDS} -k its_own_seeds",
        ),
        (
            "'dense_model_params': before.model_params",
            "'dense_model_params': after.model_params",
            f"{PIPELINE} -k counted_in and kron-obs",
        ),
        (
            "made_of = identity | {'dense_hash': begun.dense_hash}",
            "made_of = identity",
            f"{IDENTITY} -k another_dense_network_is_not",
        ),
    ],
    "lobs/dns.py": [
        ("seed=generator.initial_seed() % 10000", "seed=0", f"{SEEDS} -k draws_by_its_generator")
    ],
    "woodfisher/studies/choice.py": [
        (
            "data.calibration(m * b, seed=seed * 1000)",
            "data.calibration(m * b)",
            f"{SEEDS} -k other_images",
        )
    ],
    "common/running/pipeline.py": [
        (
            "dense.accuracy.get('valid', dense.accuracy['last'])",
            "dense.accuracy['last']",
            f"{HOLDOUT} -k before_the_report",
        )
    ],
    "common/running/timing.py": [
        (
            "self.seconds.get(f'{name}_s', 0.0) + time.perf_counter() - start",
            "time.perf_counter() - start",
            f"{PROVENANCE} -k comes_again",
        )
    ],
    "common/data/sources.py": [
        (
            "(0.2675, 0.2565, 0.2761)",
            "(0.2675, 0.2656, 0.2761)",
            "tests/common/test_data.py -k constants",
        ),
        (
            "dataclasses.replace(data, train=train, valid=valid)",
            "dataclasses.replace(data, valid=valid)",
            f"{HOLDOUT} -k held_out_by_their",
        ),
    ],
    "common/commands/compare.py": [
        (
            "'train_epochs', 'num_samples', 'checkpoint'",
            "'train_epochs', 'checkpoint'",
            "tests/common/test_compare.py -k other_budget",
        )
    ],
    "eigendamage/studies/fisher_basis.py": [
        (
            "(alive * (alive - 1))",
            "alive ** 2",
            "tests/eigendamage/test_studies.py -k fishers_bases",
        )
    ],
    "woodfisher/studies/gradients.py": [
        (
            "order[len(order) // 2:], 500)",
            "order, 500)",
            "tests/woodfisher/test_studies.py -k judges_its",
        )
    ],
    "figures/cells.py": [
        (
            "int(place) - 1 if place.isdigit()",
            "int(place) if place.isdigit()",
            f"{TABLES} -k by_its_number",
        )
    ],
    "figures/lobs.py": [
        ("(pruning.spec['steps'] - 1)", "pruning.spec['steps']", f"{PICTURES} -k every_iteration")
    ],
    "figures/eigendamage.py": [
        ("theirs.assign(x=100 - theirs.x,", "theirs.assign(x=theirs.x,", f"{PICTURES} -k hollow")
    ],
    "figures/woodfisher.py": [
        ("epochs.append(at[step + 1])", "epochs.append(at[step])", f"{PICTURES} -k walk")
    ],
    "common/curvature/sharing.py": [
        (
            ", ('generator', generator.get_state())]",
            "]",
            "tests/woodfisher/test_sharing.py -k makes_another",
        )
    ],
    "common/cells/record.py": [
        (
            "k.endswith('_s') and k != 'core_s' and",
            "k.endswith('_s') and",
            f"{PROVENANCE} -k each_second_once",
        )
    ],
    "lobs/choose.py": [
        (
            "(batches[:number], batches[number:])",
            "(batches[:number], batches)",
            f"{LOBS} -k did_not_see",
        )
    ],
    "nap/studies/importance.py": [
        (
            "pipeline.cell_folder(spec) / 'finetuned.safetensors'",
            "pipeline.cell_folder(spec) / 'pruned.safetensors'",
            "tests/nap/test_studies.py -k points_of_the_weights",
        )
    ],
    "woodfisher/kfac.py": [
        (
            "options.damping, options.pi, name=name",
            "options.damping, True, name=name",
            f"{OTHERS} -k by_loops",
        )
    ],
    "figures/paired.py": [
        ("stats.t.interval(0.95,", "stats.t.interval(0.9,", f"{PAIRED} -k corrected_by_holm"),
        ("one.p * (len(tested) - i)", "one.p * len(tested)", f"{PAIRED} -k corrected_by_holm"),
    ],
    "figures/kinds.py": [
        ("('pi', 100) if", "('pi', 95) if", "tests/figures/test_kinds.py -k joins_the_means")
    ],
    "figures/compare.py": [
        (
            "line[f'{quantity}_max'] = max(",
            "line[f'{quantity}_max'] = min(",
            "tests/figures/test_compare.py -k records_numbers",
        )
    ],
}
