"""A report as a web page that stands alone: no script, nothing loaded from elsewhere, light or dark as one likes.

What a colour says is said in words too.
"""

from __future__ import annotations

from html import escape
from typing import Final

from orc_trio.testing.conformance.report import Outcome, Report, Verdict

__all__ = ["page"]

_SIGNS: Final = {Outcome.PASSED: "✓", Outcome.FAILED: "✗", Outcome.NOT_APPLICABLE: "–", Outcome.HUNG: "⧗"}
_STYLE: Final = """\
:root { color-scheme: light dark; --text: #1b1f24; --page: #ffffff; --line: #c8ccd1; --soft: #57606a;
  --passed: #116329; --failed: #a40e26; --hung: #8a4600; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e9ed; --page: #14171b; --line: #3d444d; --soft: #a3adb8;
    --passed: #5fd47f; --failed: #ff8f8f; --hung: #f0b25a; }
}
body { margin: 2rem auto; padding: 0 1rem; max-width: 70rem; color: var(--text); background: var(--page);
  font: 1rem/1.5 system-ui, sans-serif; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
caption { text-align: left; color: var(--soft); padding-bottom: .5rem; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { overflow-wrap: anywhere; min-width: 8rem; }
tbody th { font-weight: normal; white-space: nowrap; }
.passed { color: var(--passed); } .failed { color: var(--failed); font-weight: bold; }
.hung { color: var(--hung); font-weight: bold; } .not-applicable { color: var(--soft); }
td a { color: inherit; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border-left: 3px solid var(--line); padding-left: 1rem; }
.seconds, footer { color: var(--soft); font-size: .875rem; font-weight: normal; }
"""


def page(report: Report) -> str:
    """The page."""
    title = "Conformance: " + ", ".join(subject.name for subject in report.subjects)
    heads = "".join(f'<th scope="col">{escape(subject.name)}</th>' for subject in report.subjects)
    rows = "\n".join(
        f'<tr><th scope="row">{guarantee} {escape(name)}</th>'
        + "".join(_cell(verdict, number) for number, verdict in enumerate(verdicts))
        + "</tr>"
        for guarantee, name, verdicts in report.rows()
    )
    summaries = "\n".join(
        f"<li>{escape(subject.name)}: {escape(subject.summary())}</li>" for subject in report.subjects
    )
    details = "\n".join(
        f'<section id="{_anchor(verdict, number)}"><h3>{verdict.guarantee} {escape(verdict.title)}, '
        f'{escape(subject.name)}: <span class="{_class(verdict)}">{verdict.outcome.value}</span></h3>\n'
        f'<p class="seconds">{verdict.seconds:.2f} s, seed {verdict.seed}</p>\n'
        f"<pre>{escape(verdict.why)}</pre></section>"
        for number, subject in enumerate(report.subjects)
        for verdict in subject.verdicts
        if verdict.why
    )
    remarks = f"<h2>Details</h2>\n{details}\n" if details else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{_STYLE}</style>
</head>
<body>
<main>
<h1>Conformance</h1>
<ul>
{summaries}
</ul>
<div class="wide" tabindex="0" role="region" aria-label="verdicts">
<table>
<caption>Each guarantee, and what its check found</caption>
<thead><tr><th scope="col">Guarantee</th>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
{remarks}</main>
<footer><p>orc_trio {escape(str(report.as_dict()["orc_trio"]))}</p></footer>
</body>
</html>
"""


def _cell(verdict: Verdict | None, number: int) -> str:
    if verdict is None:
        return "<td>not looked at</td>"
    text = f'<span aria-hidden="true">{_SIGNS[verdict.outcome]}</span> {verdict.outcome.value}'
    if verdict.why:
        text = f'<a href="#{_anchor(verdict, number)}">{text}</a>'
    return f'<td class="{_class(verdict)}">{text} <span class="seconds">{verdict.seconds:.2f} s</span></td>'


def _class(verdict: Verdict) -> str:
    return verdict.outcome.value.replace(" ", "-")


def _anchor(verdict: Verdict, number: int) -> str:
    return f"{verdict.guarantee}-{number + 1}"
