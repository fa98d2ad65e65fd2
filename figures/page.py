"""Pages from figures/templates: one HTML file that opens offline, and whose content policy lets
nothing run but its own script. Every text that is filled in is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

TEMPLATES = Path(__file__).with_name("templates")


def prose(text: str) -> Markup:
    """A line of Markdown as HTML: what stands in backticks is code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters |= {"base64": _base64, "prose": prose}


def page(name: str, title: str, **fields: object) -> str:
    """templates/<name>.html with its script, <name>.js, and the styles of page.css and, where there
    is one, <name>.css.
    """
    script = (TEMPLATES / f"{name}.js").read_text(encoding="utf-8")
    styles = [TEMPLATES / f"{one}.css" for one in ("page", name)]
    return ENVIRONMENT.get_template(f"{name}.html").render(
        title=title,
        script=Markup(script),
        digest=_base64(hashlib.sha256(script.encode()).digest()),
        style=Markup("".join(p.read_text(encoding="utf-8") for p in styles if p.exists())),
        **fields,
    )
