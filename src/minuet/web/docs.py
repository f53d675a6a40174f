"""The reference of the API as one HTML page, rendered from the OpenAPI document.

Our own few lines instead of a vendored viewer: no script, no request to
elsewhere, readable on a machine without internet, and strict under a content
security policy that allows nothing.
"""

from __future__ import annotations

import html
import json
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from minuet.web import openapi

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
nav ul{columns:2;padding-left:1rem}code,pre{font:14px/1.4 ui-monospace,monospace}
pre{background:var(--soft);padding:.75rem;overflow:auto;border-radius:6px}
section{border-top:1px solid var(--line);margin-top:1.5rem;padding-top:.5rem}
h3{margin:.5rem 0}h3 b{display:inline-block;min-width:4.5rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.25rem .5rem;border-bottom:1px solid var(--line)}
@media(max-width:40rem){nav ul{columns:1}}
"""


def page(app: FastAPI) -> HTMLResponse:
    """Returns the page, with a policy that keeps it from loading or running anything."""
    body = _render(openapi.document(app))
    return HTMLResponse(body, headers={"Content-Security-Policy": POLICY})


def _render(document: dict[str, Any]) -> str:
    info = document["info"]
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    title = f"{_text(info['title'])} {_text(info['version'])}"
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width,initial-scale=1'>",
        f"<title>{title}</title><style>{_STYLE}</style><main><h1>{title}</h1><p>{_text(info['description'])}</p>",
        "<p>As a document: <a href='/api/v1/openapi.json'>openapi.json</a></p><nav><ul>",
        *(f"<li><a href='#{_text(item['operationId'])}'>{_text(item['operationId'])}</a>" for _, _, item in operations),
        "</ul></nav>",
        *(_operation(path, method, operation) for path, method, operation in operations),
        "<h2>Schemas</h2>",
        *(_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items())),
        "</main></html>",
    ]
    return "".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    return "".join(
        (
            f"<section id='{_text(operation['operationId'])}'>",
            f"<h3><b>{_text(method.upper())}</b> <code>{_text(path)}</code></h3>",
            f"<p>{_text(operation.get('description') or operation.get('summary', ''))}</p>",
            _parameters(operation.get("parameters", [])),
            _body(operation.get("requestBody")),
            _responses(operation["responses"]),
            "</section>",
        )
    )


def _parameters(parameters: list[dict[str, Any]]) -> str:
    if not parameters:
        return ""
    rows = "".join(
        f"<tr><td><code>{_text(item['name'])}</code><td>{_text(item['in'])}"
        f"<td>{'required' if item.get('required') else ''}<td>{_text(item.get('description', ''))}"
        for item in parameters
    )
    return f"<table><tr><th>Parameter<th>In<th><th>Meaning{rows}</table>"


def _body(body: dict[str, Any] | None) -> str:
    if body is None:
        return ""
    names = ", ".join(_reference(item["schema"]) for item in body["content"].values())
    return f"<p>Body: {names}</p>"


def _responses(responses: dict[str, Any]) -> str:
    rows = []
    for status, response in responses.items():
        shown = ", ".join(_reference(item.get("schema", {})) for item in response.get("content", {}).values())
        rows.append(f"<tr><td>{_text(status)}<td>{_text(response['description'])}<td>{shown}")
    return f"<table><tr><th>Status<th>Meaning<th>Schema{''.join(rows)}</table>"


def _reference(schema: dict[str, Any]) -> str:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return f"<a href='#schema-{_text(name)}'>{_text(name)}</a>" if name else _text(schema.get("type", ""))


def _schema(name: str, schema: dict[str, Any]) -> str:
    text = _text(json.dumps(schema, indent=2))
    return f"<section id='schema-{_text(name)}'><h3>{_text(name)}</h3><pre>{text}</pre></section>"


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)
