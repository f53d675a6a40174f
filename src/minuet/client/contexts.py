"""Which server, as whom, in which organization: contexts in one private file.

`MINUET_SERVER`, `MINUET_TOKEN` and `MINUET_ORGANIZATION` override what stands there.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from minuet.kernel.errors import Invalid, NotFound, Unauthenticated


@dataclass(frozen=True, slots=True)
class Context:
    """One place to talk to. `fingerprint` pins the server's certificate."""

    server: str
    token: str
    organization: str = "default"
    fingerprint: str | None = None
    project: str | None = None

    def __repr__(self) -> str:
        return f"Context({self.server}, {self.organization})"


def file() -> Path:
    """Where contexts are kept."""
    if given := os.environ.get("MINUET_CONFIG"):
        return Path(given)
    base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return base / "minuet" / "contexts.toml"


def load() -> tuple[str | None, dict[str, Context]]:
    """The name of the current context, and all there are; raises `Invalid` for a file that cannot be read."""
    try:
        document = tomllib.loads(file().read_text())
    except FileNotFoundError:
        return None, {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{file()} cannot be read: {error}", code="BadContexts", hint="correct or remove it") from error
    contexts: dict[str, Context] = {}
    for name, fields in document.get("contexts", {}).items():
        try:
            contexts[name] = Context(**fields)
        except TypeError as error:
            raise Invalid(f"{file()}: the context {name} is not complete: {error}", code="BadContexts") from error
    return document.get("current"), contexts


def current() -> Context:
    """The context in force; raises `Unauthenticated` when there is none."""
    name, contexts = load()
    chosen = contexts.get(name or "")
    server, token = os.environ.get("MINUET_SERVER"), os.environ.get("MINUET_TOKEN")
    if chosen is None and server and token:
        chosen = Context(server, token)
    if chosen is None:
        raise Unauthenticated("you are not signed in anywhere", hint="start with `minuet up`, or `minuet login`")
    changes: dict[str, Any] = {"server": server, "token": token, "organization": os.environ.get("MINUET_ORGANIZATION")}
    return replace(chosen, **{name: value for name, value in changes.items() if value})


def save(name: str, context: Context, *, use: bool = True) -> None:
    """Adds or replaces a context; only its owner may read the file."""
    chosen, contexts = load()
    contexts[name] = context
    _write(name if use or chosen is None else chosen, contexts)


def use(name: str) -> None:
    """Makes a context the current one; raises `NotFound`."""
    _, contexts = load()
    if name not in contexts:
        raise NotFound(f"there is no context {name}", hint=f"there are: {', '.join(contexts) or 'none'}")
    _write(name, contexts)


def remove(name: str) -> None:
    """Forgets a context and its token; raises `NotFound`."""
    chosen, contexts = load()
    if contexts.pop(name, None) is None:
        raise NotFound(f"there is no context {name}")
    _write(chosen if chosen in contexts else next(iter(contexts), None), contexts)


def _write(chosen: str | None, contexts: dict[str, Context]) -> None:
    lines = [] if chosen is None else [f"current = {_quoted(chosen)}"]
    for name, context in contexts.items():
        lines += ["", f"[contexts.{_quoted(name)}]"]
        lines += [f"{key} = {_quoted(value)}" for key, value in asdict(context).items() if value is not None]
    path = file()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write("\n".join(lines).lstrip() + "\n")
    temporary.replace(path)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
