"""What the README says can be run and is current."""

import re
from pathlib import Path

import pytest

from figures import readme

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_the_python_example_runs(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    scope = {}
    exec(block, scope)
    removed = sum(int((~mask).sum()) for mask in scope["pruned"].masks.values())
    assert (
        removed == round(0.9 * (64 * 32 + 32 * 10))
        and "predicted loss increase" in capsys.readouterr().out
    )
    assert all(
        not scope["pruned"].model.get_parameter(n)[~m].any()
        for n, m in scope["pruned"].masks.items()
    )


@pytest.mark.parametrize("path", readme.readmes(), ids=lambda path: path.parent.name)
def test_tables_are_what_the_records_say(path):
    """`python -m figures.readme` writes them."""
    text = path.read_text()
    assert readme.render(text, ROOT / "figures" / "results") == text


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()
