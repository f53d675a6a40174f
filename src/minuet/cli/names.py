"""Names for the shell's completion, asked of the server in a moment; whatever goes wrong, it stays silent.

Each function has the form that click asks for. Called while a person types, so
that a server that is slow or away must cost nothing: the whole answer may take
`SECONDS`, nothing is retried, and no failure is shown.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import click

SECONDS = 1.0
"""Patience for one completion; longer, and a person would have typed the name."""

_LIMIT = 200


def projects(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _found(ctx, incomplete, ("projects",), "name")


def components(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Components of the project that stands in the line already, else of all."""
    return _found(ctx, incomplete, ("components",), "name", project=ctx.params.get("project"))


def environments(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _found(ctx, incomplete.lower(), ("environments",), "name")


def pipelines(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _found(ctx, incomplete, ("pipelines",), "name")


def credentials(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _found(ctx, incomplete, ("credentials",), "name")


def data_planes(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _found(ctx, incomplete, ("data-planes",), "name")


def builds(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Builds of the component that stands in the line, or that the id begins with."""
    return _below(ctx, incomplete, "builds")


def releases(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _below(ctx, incomplete, "releases")


def deployments(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _below(ctx, incomplete, "deployments")


def _below(ctx: click.Context, incomplete: str, collection: str) -> list[str]:
    """Names of what belongs to the component that the line tells: click drops arguments before an open option."""
    words = {*os.environ.get("COMP_WORDS", "").split(), incomplete.rpartition("-")[0]}
    found: list[str] = []
    with contextlib.suppress(Exception):
        server = _api(ctx)
        listed = server.get(server.organization("components"), limit=_LIMIT, project=ctx.params.get("project"))
        for item in listed["items"]:
            if item["name"] in words:
                path = server.organization("projects", item["project"], "components", item["name"], collection)
                found += [each["id"] for each in server.get(path, limit=_LIMIT)["items"]]
    return [name for name in found if name.startswith(incomplete)]


def _found(ctx: click.Context, incomplete: str, parts: tuple[str, ...], key: str, **params: Any) -> list[str]:
    found: list[str] = []
    with contextlib.suppress(Exception):
        server = _api(ctx)
        found = [str(item[key]) for item in server.get(server.organization(*parts), limit=_LIMIT, **params)["items"]]
    return sorted({name for name in found if name.startswith(incomplete)})


def _api(ctx: click.Context) -> Any:
    from dataclasses import replace

    from minuet.client import contexts
    from minuet.client.api import Api

    context = contexts.current()
    organization = ctx.find_root().params.get("organization")
    return Api(replace(context, organization=organization) if organization else context, patience=SECONDS)
