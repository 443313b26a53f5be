"""The page at /docs: every call of an app, made from its own OpenAPI document.

In: the document. Out: one HTML file that loads nothing, neither scripts nor fonts nor pictures, so that it is there
without a network, too. It knows the words of the document only; what has no words there has none on the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from engine.report.markup import text

Schema: TypeAlias = Mapping[str, Any]

#: FastAPI's own forms of what is wrong: `answer_problems` answers another one.
_NEVER_ANSWERED: Final = ("HTTPValidationError", "ValidationError")
_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE: Final = """
:root { color-scheme: light dark; }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; font: 15px/1.5 system-ui, sans-serif; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
th, td { border-top: 1px solid #8886; padding: .4rem .6rem; text-align: left; vertical-align: top; }
th:first-child { width: 30%; }
th:nth-child(n+4) { width: 12%; }
td { overflow-wrap: anywhere; }
ul { margin: 0; padding-left: 1.1rem; }
h3 { margin: 1.6rem 0 .2rem; }
p { margin: .3rem 0; }
"""


def serve_manual(app: FastAPI) -> None:
    """Answer GET /docs with the page."""

    @app.get("/docs", include_in_schema=False)
    def manual() -> HTMLResponse:
        return HTMLResponse(manual_html(app.openapi()))


def manual_html(document: Schema) -> str:
    """An OpenAPI document as a page: what it says of itself, its calls, the forms of bodies and answers."""
    title = text(document["info"]["title"])
    calls = "".join(
        _call_html(path, method, call) for path, ways in document["paths"].items() for method, call in ways.items()
    )
    forms = document.get("components", {}).get("schemas", {})
    described = "".join(_form_html(name, form) for name, form in forms.items() if name not in _NEVER_ANSWERED)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
{_prose(document["info"].get("description", ""))}
<p>The same for programs: <a href="openapi.json">openapi.json</a></p>
<h2>Calls</h2>
{_table(("call", "does", "parameters", "body", "answer"), calls)}
<h2>Forms</h2>
{described}
</body>
</html>
"""


def _call_html(path: str, method: str, call: Schema) -> str:
    """The row of a call; the parameters of its path stand in the path."""
    given = (each for each in call.get("parameters", ()) if each["in"] != "path")
    told = [f"<li>{_named(each['name'], each.get('description', ''))}</li>" for each in given]
    does = f"<b>{text(call.get('summary', ''))}</b>{_prose(call.get('description', ''))}"
    answers = ((status, answer) for status, answer in call.get("responses", {}).items() if status.startswith("2"))
    answer = "".join(f"<p>{text(status)} {_contents(answer)}</p>" for status, answer in answers)
    parameters = f"<ul>{''.join(told)}</ul>" if told else ""
    return _row(
        f"<b>{text(method.upper())}</b> <code>{text(path)}</code>",
        *(does, parameters, _contents(call.get("requestBody", {})), answer),
    )


def _contents(of: Schema) -> str:
    """What a body or an answer may be."""
    kinds = [
        _kind(content.get("schema", {})) + ("" if media == "application/json" else f" ({text(media)})")
        for media, content in of.get("content", {}).items()
    ]
    return "<br>or ".join(kinds)


def _form_html(name: str, form: Schema) -> str:
    needed = set(form.get("required", ()))
    rows = "".join(
        _row(
            f"<code>{text(field)}</code>",
            _kind(schema) + (", needed" if field in needed else ""),
            _words(schema.get("description", "")),
        )
        for field, schema in form.get("properties", {}).items()
    )
    table = _table(("field", "is", "what"), rows) if rows else f"<p>{_kind(form)}</p>"
    return f'<h3 id="{text(name)}">{text(name)}</h3>{_prose(form.get("description", ""))}{table}'


def _kind(schema: Schema) -> str:
    """A schema in a few words; a form by its name, which leads to it."""
    if "$ref" in schema:
        name = text(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return " or ".join(text(str(each)) for each in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"array of {_kind(schema.get('items', {}))}"
    if schema.get("properties"):
        return "object with " + ", ".join(f"<code>{text(name)}</code>" for name in schema["properties"])
    return text(schema.get("type", "anything")) + _limits(schema)


def _limits(schema: Schema) -> str:
    """` 1..100`, ` from 0 on`, ` up to 9`; nothing where there are none."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None and high is None:
        return ""
    return text(f" from {low} on" if high is None else f" up to {high}" if low is None else f" {low}..{high}")


def _named(name: str, description: str) -> str:
    return f"<code>{text(name)}</code>" + (f": {_words(description)}" if description else "")


def _prose(raw: str) -> str:
    """Paragraphs, and lines that begin with `- ` as a list."""
    return "".join(_paragraphs(raw.split("\n\n")))


def _paragraphs(parts: Sequence[str]) -> Iterator[str]:
    for part in filter(str.strip, parts):
        lines = part.strip().splitlines()
        if all(line.startswith("- ") for line in lines):
            yield "<ul>" + "".join(f"<li>{_words(line[2:])}</li>" for line in lines) + "</ul>"
        else:
            yield f"<p>{_words(part)}</p>"


def _words(raw: str) -> str:
    """Escaped, in one line; what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text(" ".join(raw.split())))


def _table(header: Sequence[str], rows: str) -> str:
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in header)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"
