"""What the README says can be run and is current."""

import re
from pathlib import Path

import pytest

from figures import readme

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_the_python_example_runs(capsys):
    """It prunes what it says, loses little, and nothing that went comes back by fine-tuning."""
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    scope = {}
    exec(block, scope)
    pruned = scope["pruned"]
    removed = sum(int((~mask).sum()) for mask in pruned.masks.values())
    assert removed == round(0.8 * (64 * 32 + 32 * 10))
    assert all(not pruned.model.get_parameter(n)[~m].any() for n, m in pruned.masks.items())
    out = capsys.readouterr().out
    assert "removed 1,894 of 2,368 weights (80.0%) in 2 layers" in out
    assert "predicted increase of the loss: " in out
    dense, right_after, tuned = map(
        float, re.search(r"dense (.*)%, pruned (.*)%, fine-tuned (.*)%", out).groups()
    )
    assert dense > 88 and right_after < dense and tuned > 85


@pytest.mark.parametrize("path", readme.pages(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_tables_are_what_the_records_say(path):
    """`python -m figures.readme` writes them."""
    text = path.read_text()
    assert readme.render(text, ROOT / "figures" / "results") == text


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKS = [
    (page, target)
    for page in PAGES
    for target in sorted(set(re.findall(r"\]\(([^)#: ]+)(?:#[^)]*)?\)", page.read_text())))
]


@pytest.mark.parametrize(
    ("page", "target"), LINKS, ids=[f"{page.name}-{target}" for page, target in LINKS]
)
def test_links_lead_somewhere(page, target):
    assert (page.parent / target).exists()


def test_the_first_page_is_one_that_is_read():
    assert len(TEXT.splitlines()) <= 120
