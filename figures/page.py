"""The pages' shell: one HTML file that opens offline, and whose content policy lets nothing run but
its own script.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from string import Template

STYLE = """
:root { color-scheme: light dark;
  --ink: #1b1f24; --soft: #57606a; --page: #fff; --raised: #f3f5f7; --line: #d0d7de; --mark: #0a5fb4 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #a3adb8; --page: #14171a; --raised: #20252a; --line: #3a424a; --mark: #7ab8f5 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 88rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--page); overflow-wrap: break-word }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
.soft, figcaption { color: var(--soft); font-size: .9rem } p, li, figcaption { max-width: 50rem }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .5rem 1.5rem; margin: 1rem 0 }
dt { color: var(--soft); font-size: .85rem } dd { margin: 0; overflow-wrap: anywhere }
.filters { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: end; margin: .75rem 0 }
label { display: grid; font-size: .85rem; color: var(--soft) }
input, select { font: inherit; color: var(--ink); background: var(--page); border: 1px solid var(--soft); border-radius: .25rem;
  padding: .35rem .5rem; min-height: 2.5rem }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: .4rem }
table { border-collapse: separate; border-spacing: 0; font-size: .875rem; font-variant-numeric: tabular-nums; width: 100% }
th, td { padding: .4rem .6rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top;
  white-space: nowrap }
tbody tr:last-child > * { border-bottom: 0 } tbody tr:hover { background: var(--raised) }
th:nth-child(-n+3), td:nth-child(-n+3), th:last-child, td:last-child { text-align: left }
thead th { background: var(--raised); vertical-align: bottom; padding: 0 } thead th:last-child { padding: .4rem .6rem }
tr > :first-child { position: sticky; left: 0; background: var(--page) } thead tr > :first-child { background: var(--raised) }
tbody th { font-weight: 600; white-space: normal; min-width: 10rem; max-width: 14rem; overflow-wrap: anywhere }
th button { all: unset; box-sizing: border-box; width: 100%; padding: .4rem .6rem; cursor: pointer; white-space: normal }
th button::after { content: "\\a0\\2195"; color: var(--soft) }
th[aria-sort=ascending] button::after { content: "\\a0\\2191"; color: var(--mark) }
th[aria-sort=descending] button::after { content: "\\a0\\2193"; color: var(--mark) }
:is(button, input, select, summary, a, .wide):focus-visible { outline: 3px solid var(--mark); outline-offset: -2px }
td.best { font-weight: 700 } td.best::after { content: "\\a0\\2605"; color: var(--mark) }
tr.short > * { color: var(--soft); font-style: italic }
summary { cursor: pointer; color: var(--mark); min-height: 1.5rem }
td details div { white-space: normal; width: 24rem; max-width: 80vw; overflow-wrap: anywhere; margin: .3rem 0 .6rem }
figure { margin: 1.5rem 0 } figure img { display: block; width: 100%; min-width: 46rem; background: #fff }
@media print { .filters { display: none } .wide { overflow: visible } }
"""

SHELL = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; $policy">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<h1>$title</h1>
$main
</main>
<script>$script</script>
</body>
</html>
""")


def page(title: str, main: str, script: str, style: str = "") -> str:
    """A whole document. main: HTML, escaped by the caller; title: plain text; style: rules beyond
    this module's.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return SHELL.substitute(
        title=escape(title),
        main=main,
        script=script,
        style=STYLE + style,
        policy=f"script-src 'sha256-{digest}'",
    )


def picture(title: str, alt: str, png: bytes, heading: str = "", caption: str = "") -> str:
    """A PNG inside the page, in a box that scrolls sideways."""
    data = base64.b64encode(png).decode()
    return (
        f'<figure>{heading}<div class="wide" tabindex="0" role="region" '
        f'aria-label="{escape(title)}"><img alt="{escape(alt)}" '
        f'src="data:image/png;base64,{data}"></div>{caption}</figure>'
    )
