"""Every table and figure of the four papers has its entry, a status read off the records, and
commands that parse.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import runpy
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from common.cells.errors import UserError
from common.running import cli
from figures import __main__ as entrance
from figures import book, cells, draw, evidence, frame, gallery, tables
from figures.evidence import FAILS, HOLDS, OPEN, PART, Missing
from figures.gallery import DRAWING, UNBUILT, WAITING, Item, State, items, state
from figures.page import prose
from tests.figures.test_report import BROWSER, Page

ROOT = Path(__file__).resolve().parents[2]
SEARCHED = {  # what the papers number, appendices included
    "eigendamage": [
        "Example 1",
        "Table 1",
        "Table 2",
        "Appendix F",
        *(f"Figure {n}" for n in (1, 2, 3, 4, 5, 6, 8)),
    ],
    "lobs": ["Table 1", "Table 2", "Figure 1", "Figure 2a", "Figure 2b", "Theorem 3.2"],
    "nap": [*(f"Table {n}" for n in range(1, 7)), *(f"Figure {n}" for n in range(1, 8))],
    "woodfisher": [
        *(f"Table {n}" for n in range(1, 9)),
        *(f"Table S{n}" for n in range(1, 9)),
        "Figure 1",
        "Figure 2",
        "Figure 3a",
        "Figure 3b",
        "Figure 4",
        "Figure 5a",
        "Figure 5b",
        "Figure 6",
        "Figure 7",
        *(f"Figure S{n}" for n in range(1, 15)),
    ],
}
COMMANDS = sorted({command for item in items() for command in item.commands})


def test_every_table_and_figure_has_one_entry():
    printed = {(paper, label) for paper, labels in SEARCHED.items() for label in labels}
    assert {(item.paper, item.label) for item in items() if item.kind != "ours"} == printed


def test_every_entry_is_reproduced_or_runnable():
    """An entry that is not built has no command: there must be none."""
    unbuilt = [item.key for item in items() if state(item).words(item) == UNBUILT]
    assert not unbuilt
    for item in items():
        now = state(item)
        if item.kind != "drawing" and not now.records and not now.outputs:
            assert item.cost, f"{item.key}: nobody has run it, so say what it would cost"


def test_labels_of_cells_are_entries():
    """A group of cells that no entry shows would be lost."""
    for paper in SEARCHED:
        shown = {label for item in items() if item.paper == paper for label in item.labels}
        assert set(cells.groups(paper)) <= shown


class Parsed(Exception):
    """Raised where a command would begin to work."""


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command, monkeypatch):
    words = shlex.split(command)
    assert words[:2] == ["python", "-m"]
    module, arguments = words[2], words[3:]
    paper, _, verb = module.partition(".")
    if verb in ("train", "prune", "finetune"):
        options = cli.parser(verb).parse_args(arguments)
        groups = cells.groups(paper)
        kind = "table" if options.table else "figure"
        chosen = groups[f"{kind.capitalize()} {getattr(options, kind)}"]
        assert [
            s
            for n, s in chosen.items()
            if options.scale in (None, s.scale) and (options.cell or "") in n
        ]
        return
    found = importlib.util.find_spec(module)
    if found.submodule_search_locations:  # a package is started by its __main__
        module += ".__main__"
        found = importlib.util.find_spec(module)
    source = Path(found.origin).read_text()
    if short := re.search(r"^from (\S+) import main$", source, re.M):  # another file's short name
        source = Path(importlib.util.find_spec(short[1]).origin).read_text()
    if "parse_args" not in source:  # it reads a word or nothing
        assert all(f'"{word}"' in source for word in arguments)
        return

    def stop(self, args=None, namespace=None):
        self.parse_known_args(arguments if args is None else args, namespace)
        if self.parse_known_args(arguments if args is None else args, namespace)[1]:
            self.error("unknown arguments")
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(Parsed):
        runpy.run_module(module, run_name="__main__")


def test_pictures_and_results_that_are_named_exist_or_are_made_by_a_command():
    for item in items():
        assert list(item.draw) in ([], item.pictures), item.key
        assert not item.results or item.run, (
            f"{item.key}: results without the command that makes them"
        )
        assert (item.kind == "drawing") == (not item.commands), item.key


def counted(ran: dict, asked: dict, outputs: tuple = ()) -> State:
    return State(Counter(ran), Counter(asked), outputs, 0, 0.0, 0.0, ())


@pytest.mark.parametrize(
    ("now", "results", "words"),
    [
        (counted({}, {"cpu": 3}), (), WAITING),
        (counted({"cpu": 2}, {"cpu": 3, "paper": 9}), (), "cpu scale, in part"),
        (counted({"cpu": 3}, {"cpu": 3, "paper": 9}), (), "cpu scale"),
        (counted({"cpu": 3, "paper": 1}, {"cpu": 3, "paper": 9}), (), "paper scale, in part"),
        (counted({"cpu": 3, "paper": 9}, {"cpu": 3, "paper": 9}), (), "paper scale"),
        (counted({"cpu": 3}, {"cpu": 3}), ("x.json",), "cpu scale, in part"),
        (counted({}, {}, ("x.json",)), ("x.json",), "cpu scale"),
        (counted({}, {}, ("x.json",)), ("x.json", "y.json"), "cpu scale, in part"),
    ],
)
def test_status(now, results, words):
    item = Item(
        "lobs", "Table 1", "table", "t", results=results, run=("python -m lobs.studies dns",)
    )
    assert now.words(item) == words
    assert now.words(Item("lobs", "Figure 1", "drawing", "t")) == DRAWING
    if not now.outputs and not now.ran:
        assert now.words(Item("lobs", "Table 99", "table", "t")) == UNBUILT


def test_what_was_seen_is_the_rules_and_not_that_something_ran(monkeypatch):
    """An entry that ran is not tested without a rule; of several rules a part holds; a rule without
    its records is not tested.
    """

    def rule(verdict):
        def one():
            """The paper's claim."""
            if verdict == OPEN:
                raise Missing("a record")
            return verdict, ["a line"]

        return one

    for verdicts, word in (
        ((), "not tested"),
        ((OPEN,), "not tested"),
        ((HOLDS,), "holds"),
        ((HOLDS, OPEN), "holds"),
        ((FAILS, FAILS), "not seen here"),
        ((HOLDS, FAILS), "in part"),
        ((PART,), "in part"),
    ):
        monkeypatch.setitem(
            evidence.ENTRIES, ("lobs", "Table 1"), [rule(verdict) for verdict in verdicts]
        )
        found, told = evidence.seen("lobs", "Table 1")
        assert found == word and [verdict for _, (verdict, _) in told] == list(verdicts)
        assert all(statement == "The paper's claim." for statement, _ in told)
    shown = {(paper, label) for paper, label in evidence.ENTRIES}
    # a rule of an entry that does not exist decides nothing
    assert shown <= {(item.paper, item.label) for item in items()}


def test_an_entry_says_on_which_network_it_ran():
    item = next(item for item in items() if (item.paper, item.label) == ("woodfisher", "Figure 5a"))
    assert state(item).networks(item) == "resnet20, CIFAR-10 (JPEG) for resnet50, ImageNet"
    rows = [
        line for line in book.index().splitlines() if line.startswith("| WoodFisher | Figure 5a |")
    ]
    assert len(rows) == 1 and "resnet20, CIFAR-10 (JPEG) for resnet50, ImageNet" in rows[0]


def test_a_status_is_read_off_the_records():
    item = next(item for item in items() if (item.paper, item.label) == ("lobs", "Table 1"))
    now, groups = state(item), cells.groups("lobs")["Table 1"]
    assert now.asked["cpu"] == len([s for s in groups.values() if s.scale == "cpu"])
    finished = [
        n
        for n, s in groups.items()
        if any("finetune" in stages for stages in cells.runs(s).values())
    ]
    assert now.ran["cpu"] == len(finished) > 0
    idle = [
        record.timing["core_s"]
        for record in now.records
        if record.provenance.get("load", {}).get("contended") is False
        and not record.timing.get("resumed")
    ]
    assert (now.timed, now.seconds) == (len(idle), pytest.approx(sum(idle)))
    assert 0 < now.timed < len(now.records)


@pytest.mark.parametrize(
    "text",
    [
        'paper = "nobody"\nlabel = "T"\nkind = "table"\ntitle = ""',
        'paper = "lobs"\nlabel = "T"\nkind = "song"\ntitle = ""',
        'paper = "lobs"\nlabel = "T"\nkind = "table"\ntitle = ""\nodd = 1',
    ],
)
def test_an_entry_that_cannot_be_used_is_refused(text, tmp_path):
    (tmp_path / "g.toml").write_text(f"[[item]]\n{text}\n")
    with pytest.raises(UserError):
        gallery.items(tmp_path / "g.toml")


# -- drawing ---------------------------------------------------------------------------------------


def test_a_figure_is_drawn_in_both_formats_and_one_without_records_says_so_in_a_line(
    tmp_path, monkeypatch
):
    drawn = draw.draw("lobs", "theorem32", tmp_path)
    assert [path.name for path in drawn.files] == ["lobs_theorem32.png", "lobs_theorem32.pdf"]
    assert drawn.files[0].read_bytes()[:4] == b"\x89PNG" and "Theorem 3.2" in drawn.alt
    first = drawn.files[1].read_bytes()
    assert draw.draw("lobs", "theorem32", tmp_path).files[1].read_bytes() == first
    monkeypatch.setattr(frame, "records", lambda paper: frame.frame([]))
    skipped = draw.draw("lobs", "theorem32", tmp_path / "..")
    assert not skipped.files and "no such record" in skipped.why and "\n" not in skipped.why


def test_a_picture_that_breaks_is_named_and_fails_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(frame, "study", lambda *names: 1 / 0)
    monkeypatch.setattr(draw, "PAPERS", ["lobs"])
    monkeypatch.setattr(draw, "comparisons", lambda output: [])
    known = draw.sheets("lobs")
    monkeypatch.setattr(draw, "sheets", lambda paper: {k: known[k] for k in ("2a", "theorem32")})
    assert entrance.main(["--all", "--output", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "failed  lobs_theorem32: ZeroDivisionError: division by zero" in told
    assert "drawn   lobs_fig2a\n" in told and (tmp_path / "lobs_fig2a.pdf").exists()


def test_a_picture_asked_for_by_name_has_its_table_beside_it(tmp_path, capsys):
    assert entrance.main(["lobs", "2a", "--output", str(tmp_path), "--formats", "png", "svg"]) == 0
    assert {p.name for p in tmp_path.iterdir()} == {"fig2a.png", "fig2a.svg", "fig2a.md"}
    assert (tmp_path / "fig2a.md").read_text() == draw.sheets("lobs")["2a"].table()
    assert str(tmp_path / "fig2a.svg") in capsys.readouterr().out


def test_a_comparison_without_records_is_passed_over(tmp_path):
    (tmp_path / "results" / "empty").mkdir(parents=True)
    (outcome,) = draw.comparisons(tmp_path, tmp_path / "results")
    assert outcome.name == "compare_empty" and "no record" in outcome.why


# -- the page --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    """The book with a single picture, so that it is built in a moment."""
    folder = tmp_path_factory.mktemp("book")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            draw,
            "redraw",
            lambda output: [
                draw.draw("lobs", "theorem32", folder),
                draw.Outcome("woodfisher_fig2", why="no record"),
            ],
        )
        (folder / "book.html").write_text(book.build(folder))
    return folder / "book.html"


def test_the_book_has_every_entry_offline(page_file):
    page = Page(page_file.read_text())
    text = page_file.read_text()
    assert (
        "http://" not in text
        and "https://" not in text
        and "@import" not in text
        and "url(" not in text
        and not page.every("link")
    )
    assert {article["id"] for article in page.every("article")} == {item.key for item in items()}
    links = [a["href"] for a in page.every("a")]
    assert set(links) == {
        f"#{key}" for key in [*(item.key for item in items()), *SEARCHED, "comparisons"]
    }
    (image,) = page.every("img")
    assert "Theorem 3.2" in image["alt"] and image["src"].startswith("data:image/png;base64,")
    assert "2: no record" in page.text
    for item in items():
        assert item.title in page.text and all(command in page.text for command in item.commands)
        assert all(why in page.text for why in item.deviations)


def test_the_book_shows_the_papers_number_beside_ours(page_file):
    lines = dict(tables.sections_of("lobs"))["Table 1"]
    line = next(one for one in lines if one.known and one.known.name == "lenet300-8.4-l-obs")
    ours = tables.spread(line.ours["err_after_pruning_top1_pct"], "err_after_pruning_top1_pct")
    row = next(
        row
        for row in re.findall(r"<tr>.*?</tr>", page_file.read_text())
        if "lenet300-8.4-l-obs:" in row
    )
    assert f'<td class="n">3.1</td><td class="n">{ours}</td>' in row


@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
def test_the_book_filters_in_a_browser(page_file, tmp_path):
    shown = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            page_file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert f"{len(items())} of {len(items())} entries" in shown.stdout


def test_the_committed_index_is_current():
    """`make tables` writes it."""
    assert (ROOT / "docs" / "gallery.md").read_text() == book.index()


def test_the_book_tells_the_evidence_as_text_and_code(page_file):
    assert prose("a < b, `x.json` & `y`") == "a &lt; b, <code>x.json</code> &amp; <code>y</code>"
    text = page_file.read_text()
    assert "<code>lenet300-net-trim.json</code>" in text and "`lenet300-net-trim.json`" not in text
    assert "<strong>In part.</strong>" in text
