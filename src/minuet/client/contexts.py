"""Which server, as whom, in which organization: contexts in one private file.

`MINUET_SERVER`, `MINUET_TOKEN`, `MINUET_ORGANIZATION` and `MINUET_PROJECT`
override what stands there; a stored token is never sent to another server than
its own, and a stored project is never meant in another organization.
"""

from __future__ import annotations

import json
import os
import tempfile
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from minuet.kernel.errors import Invalid, NotFound, Unauthenticated, invalid_field
from minuet.kernel.names import nearest

MAX_BYTES = 1024 * 1024
"""Longest file of contexts that is read."""


@dataclass(frozen=True, slots=True)
class Context:
    """One place to talk to.

    `fingerprint` pins the server's certificate (SHA-256), `ca_file` names an
    authority of one's own; `project` is the one meant when none is named.
    """

    server: str
    token: str
    organization: str = "default"
    fingerprint: str | None = None
    ca_file: str | None = None
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
        with file().open("rb") as opened:
            document = tomllib.loads(opened.read(MAX_BYTES).decode())
    except FileNotFoundError:
        return None, {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(str(error)) from error
    found = document.get("contexts", {})
    if not isinstance(found, dict):
        raise _unreadable("contexts is not a table")
    current = document.get("current")
    return current if isinstance(current, str) else None, {name: _context(name, item) for name, item in found.items()}


def current() -> Context:
    """The context in force; raises `Unauthenticated` when there is none."""
    name, contexts = load()
    chosen = contexts.get(name or "")
    server, token = os.environ.get("MINUET_SERVER"), os.environ.get("MINUET_TOKEN")
    if server:
        check_server(server)
        if chosen is None or server.rstrip("/") != chosen.server.rstrip("/"):
            if not token:
                raise Unauthenticated(
                    f"there is no token for {server}",
                    hint="set MINUET_TOKEN beside MINUET_SERVER, or `minuet login --server <address>`",
                )
            chosen = Context(server, token)
    if chosen is None:
        raise Unauthenticated(
            "you are not signed in anywhere", hint="start with `minuet up`, or `minuet login --server <address>`"
        )
    organization, project = os.environ.get("MINUET_ORGANIZATION"), os.environ.get("MINUET_PROJECT")
    if organization and organization != chosen.organization:
        chosen = replace(chosen, project=None)
    changes: dict[str, Any] = {"token": token, "organization": organization, "project": project}
    return replace(chosen, **{name: value for name, value in changes.items() if value})


def check_server(server: str) -> str:
    """Returns an address that a client can use; raises `Invalid` otherwise."""
    if not server.startswith(("http://", "https://")) or not server.isprintable() or " " in server:
        raise invalid_field("server", "must start with http:// or https://", given=server)
    return server.rstrip("/")


def save(name: str, context: Context, *, use: bool = True) -> None:
    """Adds or replaces a context; only its owner may read the file."""
    chosen, contexts = load()
    contexts[name] = context
    _write(name if use or chosen is None else chosen, contexts)


def mean(project: str | None, used: Context) -> bool:
    """Makes a project the one meant when none is named; false when what was `used` is not the stored context.

    A context that came from the environment, or another organization than the
    stored one, is for this command only and leaves nothing behind.
    """
    name, contexts = load()
    stored = contexts.get(name or "")
    if name is None or stored is None or (stored.server, stored.organization) != (used.server, used.organization):
        return False
    save(name, replace(stored, project=project))
    return True


def use(name: str) -> None:
    """Makes a context the current one; raises `NotFound`."""
    _, contexts = load()
    _known(name, contexts)
    _write(name, contexts)


def remove(name: str) -> None:
    """Forgets a context and its token; raises `NotFound`."""
    chosen, contexts = load()
    _known(name, contexts)
    del contexts[name]
    _write(chosen if chosen in contexts else next(iter(contexts), None), contexts)


def _known(name: str, contexts: dict[str, Context]) -> None:
    if name not in contexts:
        raise NotFound(f"there is no context {name}", hint=f"there are: {', '.join(contexts) or 'none'}")


def _context(name: str, item: Any) -> Context:
    known = [field.name for field in fields(Context)]
    if not isinstance(item, dict):
        raise _unreadable(f"{name} is not a table")
    for key, value in item.items():
        if key not in known:
            close = nearest(key, known)
            raise _unreadable(f"contexts.{name}.{key} is not known{f'; did you mean {close}?' if close else ''}")
        if not isinstance(value, str):
            raise _unreadable(f"contexts.{name}.{key} is not a text")
    missing = [key for key in ("server", "token") if not item.get(key)]
    if missing:
        raise _unreadable(f"contexts.{name} has no {missing[0]}")
    return Context(**item)


def _unreadable(why: str) -> Invalid:
    return Invalid(f"{file()} cannot be read: {why}", code="BadContexts", hint="correct or remove it")


def _write(chosen: str | None, contexts: dict[str, Context]) -> None:
    """Replaces the file as a whole, so that no reader ever sees half of it."""
    lines = [] if chosen is None else [f"current = {_quoted(chosen)}"]
    for name, context in contexts.items():
        lines += ["", f"[contexts.{_quoted(name)}]"]
        lines += [f"{key} = {_quoted(value)}" for key, value in asdict(context).items() if value is not None]
    path = file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as out:
                out.write("\n".join(lines).lstrip() + "\n")
                out.flush()
                os.fsync(out.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Invalid(f"{path} cannot be written: {error}", code="BadContexts", hint="set MINUET_CONFIG") from error


def _quoted(text: str) -> str:
    """A basic string of TOML, which is one of JSON, but for one control character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
