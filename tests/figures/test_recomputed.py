"""Every number of docs/tables/*.md once more, from the committed files alone: records as JSON, csv,
none of figures' reading.

A field is "paper / ours". The paper's side is looked up in paper_values.csv; ours is worked out
from the records whose cell the line names, of those settings that <paper>/experiments.py gives it,
by formulas that are typed here.
"""

from __future__ import annotations

import csv
import importlib
import json
import math
import re
import statistics
from functools import cache
from pathlib import Path

import pytest

from common.cells import library

ROOT = Path(__file__).resolve().parents[2]
PAPERS = ("eigendamage", "lobs", "nap", "woodfisher")
# decide no number
PLACES = {
    "paper",
    "table",
    "cell",
    "series",
    "data_dir",
    "device",
    "memory_budget",
    "output_dir",
    "allow_untrained",
}
FIELD = re.compile(r"(?P<paper>.*?) / (?P<ours>.*)$")
OURS = re.compile(
    r"(?P<mean>-?[\d,.]+(?:e[+-]?\d+)?)(?: ± (?P<std>[\d,.]+(?:e[+-]?\d+)?))?(?: \((?P<n>\d+)(?: "
    r"of (?P<of>\d+))?(?:, of \d+ dense networks)?\))?$"
)


def tuned(one: dict) -> dict:
    return one["finetune"] if "finetune" in one else one["prune"]


def last(one: dict, prefix: str = "") -> float:
    if prefix:
        return (
            one["finetune"]["accuracy"]["top5_last"]
            if "finetune" in one
            else one["prune"]["accuracy"]["top5_pruned"]
        )
    return (
        one["finetune"]["accuracy"]["last"]
        if "finetune" in one
        else one["prune"]["accuracy"]["pruned"]
    )


def steps(one: dict) -> float:
    """Optimiser steps after the last pruning, as counted, and those between prunings, from the
    recipe and MNIST's or CIFAR's size.
    """
    record = one["finetune"]
    spec = record["spec"]
    images = {"mnist": 60_000, "cifar10-jpeg": 50_000}[spec["dataset"].partition(":")[0]]
    recipe = spec.get("between") or spec["finetune"] | {
        "epochs": spec["step_epochs"],
        "max_steps": 0,
    }
    between = round(recipe["epochs"] * math.ceil(images / recipe["batch_size"]))
    between = min(between, recipe["max_steps"]) if recipe["max_steps"] else between
    return (
        (len(spec.get("levels") or ()) or spec["steps"]) * between
        - between
        + record["trajectory"][-1]["steps"]
    )


def achieved(one: dict) -> dict:
    return one["prune"]["achieved"]


FORMULAS = {  # heading -> number of a cell's stages
    "dense error, %": lambda c: 100 - 100 * tuned(c)["accuracy"]["dense"],
    "error after pruning, %": lambda c: 100 - 100 * c["prune"]["accuracy"]["pruned"],
    "error retrained, %": lambda c: 100 - 100 * c["finetune"]["accuracy"]["last"],
    "dense accuracy, %": lambda c: 100 * tuned(c)["accuracy"]["dense"],
    "accuracy pruned, %": lambda c: 100 * last(c),
    "test accuracy, %": lambda c: 100 * last(c),
    "top1 pct": lambda c: 100 * last(c),
    "top-5, %": lambda c: 100 * last(c, "top5"),
    "relative drop, %": lambda c: 100 * (last(c) / tuned(c)["accuracy"]["dense"] - 1),
    "error, points more": lambda c: 100 * tuned(c)["accuracy"]["dense"] - 100 * last(c),
    "top-1 error, points more": lambda c: 100 * tuned(c)["accuracy"]["dense"] - 100 * last(c),
    "top-5 error, points more": lambda c: (
        100 * tuned(c)["accuracy"]["top5_dense"] - 100 * last(c, "top5")
    ),
    "dense top-5 error, %": lambda c: 100 - 100 * tuned(c)["accuracy"]["top5_dense"],
    "top-5 error after pruning, %": lambda c: 100 - 100 * c["prune"]["accuracy"]["top5_pruned"],
    "top-5 error retrained, %": lambda c: 100 - 100 * c["finetune"]["accuracy"]["top5_last"],
    "weights removed, %": lambda c: (
        100 - 100 * achieved(c)["model_params"] / achieved(c)["dense_model_params"]
    ),
    "FLOPs removed, %": lambda c: 100 - 100 * achieved(c)["kept_macs"] / achieved(c)["dense_macs"],
    "speed-up by FLOPs": lambda c: achieved(c)["dense_macs"] / achieved(c)["kept_macs"],
    "compression": lambda c: achieved(c)["dense_params"] / achieved(c)["kept_params"],
    "weights left, M": lambda c: achieved(c)["kept_params"] / 1e6,
    "MACs, M": lambda c: achieved(c)["kept_macs"] / 1e6,
    "weights": lambda c: achieved(c)["dense_params"],
    "kept, %": lambda c: 100 * achieved(c)["kept_params"] / achieved(c)["dense_params"],
    "removed, %": lambda c: 100 - 100 * achieved(c)["kept_params"] / achieved(c)["dense_params"],
    "iterations of retraining": steps,
    "total retrain iterations": steps,
    "lead points": lambda c: 100 * last(c),
}
OF_FILE = {  # heading -> number of an entry of a study's file
    "error after pruning, %": lambda e: 100 * e["error"],
    "error retrained, %": lambda e: 100 * e["error"],
    "iterations of retraining": lambda e: e["steps"],
    "relative error of the layer": lambda e: e["xi"],
    "loss increase": lambda e: e["increase"],
    "predicted loss increase": lambda e: e["predicted"],
    "latency speedup x": lambda e: e["speedup_latency"],
    "net trim Q memory": lambda e: e["q_bytes"] / 1e9,
    "MACs, M": lambda e: e["kept_macs"] / 1e6,
}
QUANTITY = {  # heading -> column `quantity` of paper_values.csv, where it is not the heading itself
    "dense error, %": "orig_err_top1_pct",
    "dense top-5 error, %": "orig_err_top5_pct",
    "error retrained, %": "retrained_err_top1_pct",
    "top-5 error after pruning, %": "err_after_pruning_top5_pct",
    "top-5 error retrained, %": "retrained_err_top5_pct",
    "iterations of retraining": "retrain_iterations",
    "relative error of the layer": "xi_r",
    "dense accuracy, %": "top1_dense_pct",
    "accuracy pruned, %": "top1_pruned_pct",
    "relative drop, %": "relative_drop_pct",
    "weights left, M": "remaining_params_m",
    "MACs, M": "flops_m",
    "top-5, %": "top5_pct",
    "test accuracy, %": "test_acc_pct",
    "weights removed, %": "weights_reduction_pct",
    "FLOPs removed, %": "flops_reduction_pct",
    "top-1 error, points more": "delta_top1_err_pct",
    "top-5 error, points more": "delta_top5_err_pct",
    "error, points more": "delta_err_pct",
    "compression": "compression_ratio_x",
    "speed-up by FLOPs": "speedup_x",
    "kept, %": "remaining_pct",
    "removed, %": "sparsity_pct",
    "weights": "dense_params",
}
FIRST = ("method", "ours is", "network", "data set")


@cache
def records(paper: str) -> dict[tuple[str, str], list[dict]]:
    """(table, cell) -> its records, of every stage and setting."""
    found: dict[tuple[str, str], list[dict]] = {}
    for one in library.whole(ROOT / paper / "results"):
        if one["stage"] in ("prune", "finetune") and one["cell"]:
            found.setdefault((str(one["table"]), one["cell"]), []).append(one)
    return found


def steps(paper: str, name: str) -> list[dict]:
    """The entries of a study's record, or of another committed file."""
    folder = ROOT / paper / "results"
    if (folder / f"{name}.json").exists():
        return json.loads((folder / f"{name}.json").read_text())
    return [e for one in library.whole(folder) if one["cell"] == name for e in one["trajectory"]]


@cache
def asked(paper: str, group: str) -> dict:
    """Cell -> Spec of "table 1" or "figure 2a"."""
    kind, _, label = group.partition(" ")
    module = importlib.import_module(f"{paper}.experiments")
    return {"table": module.TABLES, "figure": module.FIGURES}[kind][label]


def of_these_settings(record: dict, spec) -> bool:
    """Whether all that the record's spec says is what the cell says now; what it does not say yet
    is at its default.
    """

    def flat(values: dict, default: dict) -> dict:
        out = {}
        for name, value in (default | values).items():
            base = default.get(name)
            out[name] = (
                flat(value, base)
                if isinstance(value, dict) and isinstance(base, dict) and base
                else value
            )
        return {
            name: float(v) if isinstance(v, int) and not isinstance(v, bool) else v
            for name, v in out.items()
        }

    plain = json.loads(json.dumps(type(spec)().to_dict()))
    one, now = (
        flat(values, plain) for values in (record["spec"], json.loads(json.dumps(spec.to_dict())))
    )
    return all(one.get(name) == now.get(name) for name in {*one, *now} - PLACES)


def seeds_of(paper: str, group: str, name: str) -> tuple[list[dict], int]:
    """([stages of a seed that ran], how many the cell asks for)."""
    cells = {
        cell: spec
        for cell, spec in asked(paper, group).items()
        if re.sub(r"-seed\d+$", "", cell) == name
    }
    assert cells, f"no cell {name} in {paper} {group}"
    out = []
    for cell, spec in cells.items():
        by_seed: dict[int, dict] = {}
        for record in records(paper).get((spec.table, spec.cell), ()):
            if of_these_settings(record, spec):
                by_seed.setdefault(record["spec"].get("seed", 0), {})[record["stage"]] = record
        out += [stages for _, stages in sorted(by_seed.items()) if "prune" in stages]
        assert cell == spec.cell or cell.startswith(spec.cell)
    return out, len(cells)


def tables(paper: str) -> list[tuple[str, list[dict[str, str]], list[str]]]:
    """(label, lines by heading, commands) of each table of docs/tables/<paper>.md."""
    out = []
    for part in (ROOT / "docs" / "tables" / f"{paper}.md").read_text().split("\n## ")[1:]:
        label = part.split("\n", 1)[0].split(":")[0]
        rows = [
            [c.strip().replace("&lt;", "<") for c in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in part.splitlines()
            if line.startswith("|")
        ]
        # "kept, %" may stand twice
        heads = [f"{h}#{i}" if rows[0].index(h) != i else h for i, h in enumerate(rows[0])]
        commands = re.findall(r"^\d+\. `(.*)`$", part, re.M)
        out.append((label, [dict(zip(heads, row, strict=True)) for row in rows[2:]], commands))
    return out


def agrees(text: str, values: list[float], many: int, what: str) -> None:
    """A printed "mean ± deviation (n of m)" is that of the values, to the last digit that it
    has.
    """
    match = OURS.match(text)
    assert match, f"{what}: {text!r} is not a number"
    for printed, value in (
        (match["mean"], statistics.fmean(values)),
        (match["std"], statistics.stdev(values) if len(values) > 1 else 0.0),
    ):
        if printed is None:
            assert len(set(values)) == 1, f"{what}: {text!r} has no deviation, {values} has"
            continue
        plain = printed.replace(",", "")
        last_digit = 10.0 ** (
            int(plain.partition("e")[2] or 0) - len(plain.partition("e")[0].partition(".")[2])
        )
        assert abs(float(plain) - value) <= 0.5001 * last_digit, (
            f"{what}: printed {text!r}, the records say {value:.8g}"
        )
    n = int(match["n"] or 1)
    assert (n, int(match["of"] or n)) == (len(values), many), (
        f"{what}: printed {text!r}, {len(values)} of {many} ran"
    )


def layer_of(stages: dict, layer: str, heading: str) -> float:
    names = {"alexnet": ["conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "fc2", "fc3"]}
    found = stages["prune"]["layers"]
    number, _, rest = layer.partition(" ")
    named = [e for e in found if e["name"] in (layer, rest)]
    if named:
        (entry,) = named
    elif number.isdigit():
        entry = found[int(number) - 1]
    else:
        entry = found[names[stages["prune"]["spec"]["model"]].index(layer)]
    share = 100 * entry["kept"] / entry["total"]
    return {"kept, %": share, "removed, %": 100 - share, "weights": entry["total"]}[heading]


def check(
    paper: str, label: str, line: dict[str, str], heading: str, text: str, commands: list[str]
) -> None:
    """One printed number of ours."""
    what = f"{paper} {label}, {line['method']}, {line['ours is']}, {heading}"
    name, _, _ = line["ours is"].partition(": ")
    command = commands[int(line["command"].strip("[]")) - 1] if line["command"] else ""
    group = re.search(r"--(table|figure) (\S+)", command)
    conditions = re.findall(r", ([^,=]+)=([^,]*(?:,(?! [^,=]+=)[^,]*)*)", name)
    entries = [] if group else steps(paper, name.split(", ")[0])
    if conditions or entries:
        entries = entries or steps(paper, name.split(", ")[0])

        def fits(entry: dict) -> bool:
            return all(
                str(entry.get(k)) == v
                or (
                    re.fullmatch(r"[\d.]+", v)
                    and isinstance(entry.get(k), int | float)
                    and abs(entry[k] - float(v)) < 1e-6
                )
                for k, v in conditions
            )

        (entry,) = [e for e in entries if fits(e)]
        agrees(text, [OF_FILE[heading](entry)], 1, what)
        return
    runs, many = seeds_of(paper, f"{group[1]} {group[2]}", name)
    layer = line.get("layer", "")
    if heading == "lead points":
        rivals, asked_of = seeds_of(
            paper, f"{group[1]} {group[2]}", name.replace("woodfisher", "magnitude-global")
        )
        at = {r["prune"]["spec"]["seed"]: 100 * last(r) for r in rivals}
        values = [
            100 * last(r) - at.get(r["prune"]["spec"]["seed"], next(iter(at.values())))
            for r in runs
            if asked_of == 1 or r["prune"]["spec"]["seed"] in at
        ]
    elif layer and layer not in ("total", "FLOPs") and not layer.endswith("Overall"):
        values = [layer_of(r, layer, heading) for r in runs]
    else:
        needs = (
            ("finetune" in stages for stages in runs)
            if heading in ("error retrained, %", "iterations of retraining")
            else None
        )
        runs = runs if needs is None else [r for r, has in zip(runs, needs, strict=True) if has]
        values = [FORMULAS[heading](r) for r in runs]
    agrees(text, values, many, what)


@pytest.mark.parametrize("paper", PAPERS)
def test_every_number_of_ours_is_what_the_records_say(paper):
    checked = 0
    for label, lines, commands in tables(paper):
        for line in lines:
            for heading, field in line.items():
                plain = heading.partition("#")[0]
                if (
                    heading in (*FIRST, "command")
                    or not (match := FIELD.match(field))
                    or match["ours"] == "–"
                ):
                    continue
                if plain in ("setting", "layer"):
                    continue
                check(paper, label, line, plain, match["ours"], commands)
                checked += 1
    least = {"eigendamage": 100, "lobs": 60, "nap": 30, "woodfisher": 50}
    assert checked >= least[paper]


@pytest.mark.parametrize("paper", PAPERS)
def test_what_ours_kept_is_what_the_records_say(paper):
    for label, lines, commands in tables(paper):
        for line in lines:
            share = re.match(r"[\d.]+", line.get("ours kept, %", ""))
            name = line["ours is"].partition(": ")[0]
            if not share:
                continue
            group = re.search(
                r"--(table|figure) (\S+)", commands[int(line["command"].strip("[]")) - 1]
            )
            if group is None:
                entries = steps(paper, name.split(", ")[0])
                found = {round(100 * e.get("kept_then", e["kept"]), 9) for e in entries}
                assert any(f"{one:.3g}" == share[0] for one in found), (label, line)
                continue
            runs, _ = seeds_of(paper, f"{group[1]} {group[2]}", name)
            units = any(
                runs[0]["prune"]["spec"].get(k) is not None for k in ("unit_ratio", "speedup")
            )
            over = (
                ("model_params", "dense_model_params") if units else ("kept_params", "dense_params")
            )
            mean = statistics.fmean(100 * achieved(r)[over[0]] / achieved(r)[over[1]] for r in runs)
            assert f"{mean:.3g}" == share[0], (label, line)


@pytest.mark.parametrize("paper", PAPERS)
def test_every_number_of_the_papers_is_in_its_file(paper):
    with (ROOT / paper / "paper_values.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        fixed = ("table", "model", "dataset", "method", "quantity", "value", "cells", "note")
        free = [name for name in reader.fieldnames if name not in fixed]
        known: dict[tuple, set[str]] = {}
        for row in reader:
            known.setdefault(
                (row["table"], row["method"], row["model"], row["dataset"], row["quantity"]), set()
            ).add((row["value"], " ".join(sorted(row[name] for name in free if row[name]))))
    shown: set[tuple] = set()
    for label, lines, _ in tables(paper):
        for line in lines:
            settings = [
                (k, v)
                for k, v in line.items()
                if " / " not in v and v and k not in (*FIRST, "command", "ours kept, %")
            ]
            for heading, field in line.items():
                match = FIELD.match(field)
                if (
                    heading in (*FIRST, "command", "setting", "layer")
                    or not match
                    or match["paper"] == "–"
                ):
                    continue
                plain = heading.partition("#")[0]
                quantity = QUANTITY.get(plain, plain.replace(" ", "_"))
                quantities = (
                    {quantity, "pruned_err_pct", "err_after_pruning_top1_pct"}
                    if plain == "error after pruning, %"
                    else {quantity}
                )
                values = {
                    (value, key)
                    for q in quantities
                    for value, key in known.get(
                        (label, line["method"], line["network"], line["data set"], q), set()
                    )
                }
                mine = match["paper"].partition(" ± ")[0]
                fitting = [
                    key
                    for value, key in values
                    if value == mine and all(v in key for _, v in settings)
                ]
                assert fitting, (
                    f"{paper} {label} {line['method']}: {heading} {mine} is not in paper_values.csv"
                )
                shown |= {(label, line["method"], line["network"], line["data set"], mine)}
    printed = {
        (t, m, n, d, v)
        for (t, m, n, d, q), found in known.items()
        for v, _ in found
        if v and not q.endswith("_std")
    }
    assert printed <= shown, sorted(printed - shown)[:5]


@pytest.mark.parametrize("paper", PAPERS)
def test_what_is_called_not_run_has_no_record_of_its_settings(paper):
    seen = 0
    for label, lines, commands in tables(paper):
        for line in lines:
            if line["ours is"] != "runnable, not run":
                continue
            group = re.search(
                r"--(table|figure) (\S+)(?: --cell (\S+))?",
                commands[int(line["command"].strip("[]")) - 1],
            )
            if (
                group
                and group[3]
                and re.sub(r"-seed\d*$", "", group[3])
                in {
                    re.sub(r"-seed\d+$", "", cell)
                    for cell in asked(paper, f"{group[1]} {group[2]}")
                }
            ):
                seen += 1
                assert not seeds_of(
                    paper, f"{group[1]} {group[2]}", re.sub(r"-seed\d*$", "", group[3])
                )[0], (label, line)
    assert seen > 10


def test_dynamic_surgery_at_a_fixed_budget_is_read_at_its_last_step():
    """Step 500 of 4,000 has 1.66% error, with 77% of the weights; 1.8% are left at the last one
    alone.
    """
    entries = steps("lobs", "lenet300-dns")
    final = [e for e in entries if e["kept"] == 0.018 and e["steps"] == 4000][-1]
    (line,) = [
        one
        for label, lines, _ in tables("lobs")
        for one in lines
        if (label, one["method"], one["network"]) == ("Table 1", "DNS", "LeNet-300-100")
    ]
    assert line["error retrained, %"] == f"1.99 / {100 * final['error']:.2f}" == "1.99 / 5.57"
    assert (
        line["ours kept, %"] == f"{100 * final['kept_then']:.3g}"
        and f"step={final['step']}" in line["ours is"]
    )


def test_what_ran_elsewhere_is_never_in_one_field_with_the_papers_number():
    for paper in PAPERS:
        for label, lines, _ in tables(paper):
            for line in lines:
                # ours, as a Spec calls it
                if re.match(r"[a-z]", line["network"]) and line["network"] not in (
                    "any",
                    "three weights",
                ):
                    fields = [match for match in map(FIELD.match, line.values()) if match]
                    assert fields and all(match["paper"] == "–" for match in fields), (
                        paper,
                        label,
                        line,
                    )
