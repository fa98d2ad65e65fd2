"""The report is one offline page: escaped, self-contained, operable, and it says what the numbers
say.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from figures import compare, report
from figures.records import gather
from tests.figures.fixtures import pair, small, write

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Every start tag with its attributes; fails on tags that do not nest."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data

    def every(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def report_file(tmp_path_factory):
    """The report of the fixture comparison."""
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "FORMATS", {"png": {}})  # the page takes no other
        compare.compare([write(small(), folder / "runs")], folder / "out")
    return folder / "out" / "report.html"


@pytest.fixture(scope="module")
def page(report_file) -> Page:
    return Page(report_file.read_text())


def test_self_contained_with_alternative_texts(page, report_file):
    text = report_file.read_text()
    assert (
        "http://" not in text
        and "https://" not in text
        and "@import" not in text
        and "url(" not in text
    )
    assert not page.every("link")
    assert len(page.every("img")) == 7
    for image in page.every("img"):
        assert image["src"].startswith("data:image/png;base64,") and len(image["alt"]) > 60
    assert any("width=device-width" in meta.get("content", "") for meta in page.every("meta"))
    assert "prefers-color-scheme: dark" in text and "overflow-x: auto" in text


def test_table_is_sortable_filterable_and_complete(page):
    assert [head.get("aria-sort") for head in page.every("th") if head.get("scope") == "col"] == [
        "none"
    ] * 12 + [None]
    assert len(page.every("button")) == 12 and all(
        button["type"] == "button" for button in page.every("button")
    )
    assert len([row for row in page.every("tr") if "data-kind" in row]) == 6
    values = [float(cell["data-value"]) for cell in page.every("td") if cell.get("class") == "best"]
    # the two amounts of single weights, then of unit ratios
    assert values == pytest.approx([0.92, 0.88, 0.9, 0.9])


def test_provenance_is_one_click_away(page):
    assert len(page.every("details")) == 6
    for said in (
        "git: abc1234",
        "torch 2.8.0",
        "threads: 2",
        "seed: 2",
        "command: python -m common.compare",
        "data sha256: feed",
    ):
        assert said in page.text


def test_texts_of_records_are_escaped(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "FORMATS", {"png": {}})
    records = pair("<script>alert(1)</script>", 0.5) + pair('"><img src=x onerror=alert(1)>', 0.5)
    for one in records:
        one.provenance["command"] = "<b>bold</b> & more"
        one.notes = ["<i>note</i>"]
    for number, one in enumerate(records):
        one.id = f"odd{number}"
    compare.compare([write(records, tmp_path / "runs")], tmp_path / "out")
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert len(page.every("script")) == 1 and not page.every("b") and not page.every("i")
    assert not [image for image in page.every("img") if "onerror" in image]
    assert "<b>bold</b> & more" in page.text and "<script>alert(1)</script>" in page.text


@pytest.mark.parametrize(("other", "verdict"), [(0.945, "not more than"), (0.9, "; more than")])
def test_summary_compares_the_margin_with_the_scatter(other, verdict):
    records = [
        r
        for seed, up in enumerate((-0.01, 0, 0.01))
        for r in pair("magnitude-global", 0.9, seed, last=0.95 + up)
        + pair("random", 0.9, seed, last=other + up)
    ]
    (sentence,) = report.summary(gather(records))
    assert sentence.startswith(
        "Single weights, sparsity 0.9: Magnitude, global, 95.00% (3 seeds), "
    )
    assert f"{95 - 100 * other:.2f} points above Random" in sentence
    assert f"{verdict} the seed standard deviation, 1.00" in sentence


def test_summary_of_one_seed_claims_no_scatter():
    (sentence,) = report.summary(
        gather(pair("magnitude-global", last=0.95) + pair("random", last=0.9))
    )
    assert "(1 seed)" in sentence and "too few seeds" in sentence
    (alone,) = report.summary(gather(pair("random")))
    assert "no other method" in alone


def test_without_fine_tuning_the_methods_are_ranked_by_the_pruned_accuracy():
    comparison = gather([pair("random", pruned=0.3)[0], pair("magnitude-global", pruned=0.6)[0]])
    (sentence,) = report.overview(comparison)
    assert sentence.startswith(
        "Single weights, best accuracy after pruning: Magnitude, global at 1 of 1 amounts. No seed"
    )


def test_overview_counts_firsts_and_clear_margins():
    weights, units = report.overview(gather(small()))
    assert (
        "Diagonal-Fisher OBD, global at 2 of 2 amounts" in weights
        and "at 2 of the 2 amounts" in weights
    )
    assert "EigenDamage at 2 of 2" in units and "No seed standard deviation" in units


# -- in a browser ----------------------------------------------------------------------------------

in_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here")
PROBE = """
const out = {}, all = what => [...document.querySelectorAll(what)];
const names = () => all('tbody tr').filter(r => !r.hidden).map(r => r.cells[0].textContent);
const press = i => all('th button')[i].click();
const column = i => all('tbody tr').map(r => r.cells[i].dataset.value);
const type = (id, value) => {
  document.getElementById(id).value = value;
  document.getElementById(id).dispatchEvent(new Event('input'));
};
press(7); out.rising = column(7); press(7); out.falling = column(7);
out.sorted = document.querySelectorAll('th')[7].getAttribute('aria-sort');
press(8); out.missing = column(8);
type('text', 'eigen');
out.filtered = names(); out.count = document.getElementById('count').textContent;
document.getElementById('text').value = '';
type('kind', 'weights');
out.weights = names().length;
const detail = document.querySelector('td details');
detail.querySelector('summary').click();
out.open = detail.open;
out.record = detail.innerText.includes('git: abc1234');
const style = getComputedStyle(document.body);
out.ink = style.color;
out.page = style.backgroundColor;
out.wide = document.documentElement.scrollWidth <= document.documentElement.clientWidth;
document.title = JSON.stringify(out);
"""


def browse(page: str, folder: Path, *flags: str) -> str:
    """The document after its scripts ran, of a page of one's own."""
    (folder / "page.html").write_text(page)
    return subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder / 'profile'}",
            *flags,
            "--dump-dom",
            (folder / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=90,
    ).stdout


def probed(report_file: Path, folder: Path, *flags: str) -> dict:
    """What PROBE finds in the report; the content policy is taken out of this copy, as it would not
    let PROBE run.
    """
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", report_file.read_text())
    shown = browse(text.replace("</body>", f"<script>{PROBE}</script></body>"), folder, *flags)
    return json.loads(unescape(re.search(r"<title>(.*?)</title>", shown, re.S).group(1)))


@in_browser
def test_script_runs_in_a_browser_under_the_content_policy(report_file, tmp_path):
    assert "6 of 6 rows" in browse(report_file.read_text(), tmp_path)
    changed = report_file.read_text().replace("' rows';", "' rows!';")
    # a script that is not the page's own does not run
    assert "rows!</output>" not in browse(changed, tmp_path)


@in_browser
def test_a_reader_can_sort_filter_and_open_the_provenance(report_file, tmp_path):
    found = probed(report_file, tmp_path)
    rising = [float(v) for v in found["rising"]]
    assert (
        rising == sorted(rising)
        and len(set(rising)) > 3
        and [float(v) for v in found["falling"]] == rising[::-1]
    )
    assert found["sorted"] == "descending"
    numbers = [v for v in found["missing"] if v]
    # without a value: last
    assert found["missing"][len(numbers) :] == [""] * 2 and numbers == sorted(numbers, key=float)
    assert (
        found["filtered"] == ["EigenDamage"] * 2
        and found["count"] == "2 of 6 rows"
        and found["weights"] == 4
    )
    assert found["open"] and found["record"]


@in_browser
def test_dark_and_light_and_a_phone(report_file, tmp_path):
    def bright(colour: str) -> float:
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

    light, dark = (
        probed(
            report_file,
            tmp_path,
            "--window-size=500,900",
            f"--blink-settings=preferredColorScheme={n}",
        )
        for n in (1, 0)
    )
    assert bright(light["page"]) > 240 and bright(light["ink"]) < 60
    assert bright(dark["page"]) < 40 and bright(dark["ink"]) > 200
    assert light["wide"] and dark["wide"]  # nothing but the table and the figures scrolls sideways
