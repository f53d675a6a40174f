"""Which versions of Node.js can be had: this machine's own, and those that the package registry carries."""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path

from minuet.builders import package_sources
from minuet.builders.failure import BuildFailure

HOST_NODE = Path("/usr/bin/node")
"""Every sandbox shows `/usr`, so this one needs no layer."""

OLDEST, PREFERRED = 12, 20
_MACHINES = {"x86_64": "x64", "aarch64": "arm64"}
_COMPARATOR = re.compile(r"(>=|<=|>|<|\^|~|=)?\s*v?(\d+|[xX*])(?:\.(\d+|[xX*]))?(?:\.(\d+|[xX*]))?")
_UNBOUNDED = 10**6
_MAX_RANGE = 200


def package() -> str:
    """The package of the registry that holds the program."""
    return f"node-linux-{_MACHINES.get(platform.machine(), platform.machine())}"


def npm_for(version: str) -> str:
    """The npm that runs on a version: newer ones refuse older Nodes."""
    return "npm@10" if int(version.split(".", maxsplit=1)[0]) >= 18 else "npm@8"  # noqa: PLR2004 - as npm's own `engines` says


@package_sources.kept
def host() -> str | None:
    """The version of this machine's Node, if it runs and npm is beside it."""
    if not HOST_NODE.with_name("npm").exists():
        return None
    found = package_sources.ask([str(HOST_NODE), "--version"]).removeprefix("v")
    return found if re.fullmatch(r"\d+\.\d+\.\d+", found) else None


@package_sources.kept
def obtainable() -> dict[str, str]:
    """The newest release of each major version that can be had, this machine's own first."""
    own = host()
    if own is None:
        return {}
    newest = {own.split(".")[0]: own}
    for version in _registry():
        newest.setdefault(version.split(".")[0], version)
    return newest


@package_sources.kept
def _registry() -> tuple[str, ...]:
    """Every release that the registry carries and that is offered, newest first; empty when it does not answer."""
    with_timeouts = ("--fetch-retries=0", "--fetch-timeout=8000", "--loglevel=silent")
    said = package_sources.ask(["npm", "view", package(), "versions", "--json", *with_timeouts])
    try:
        found = json.loads(said or "[]")
    except ValueError:
        return ()
    plain = [str(item) for item in found if re.fullmatch(r"\d+\.\d+\.\d+", str(item))]
    # Versions with an odd number were never meant to run services.
    served = [item for item in plain if _numbers(item)[0] >= OLDEST and _numbers(item)[0] % 2 == 0]
    return tuple(sorted(served, key=_numbers, reverse=True))


def choose(configured: str | None, engines: str | None) -> tuple[str, str | None]:
    """The exact version for a source, and a warning where its own wish was not followed.

    The build configuration wins over `engines`, which wins over the default.
    Raises `BuildFailure` (`VersionUnavailable`) naming what can be had.
    """
    candidates = [*obtainable().values(), *_registry()]
    if configured:
        chosen = next((version for version in candidates if satisfies(version, configured)), None)
        major = re.match(r"v?(\d{1,4})\.\d", configured)
        if chosen is None and major and (newest := obtainable().get(major[1])):
            return newest, f"Node.js {configured} cannot be had; {newest}, the newest of its line, is used"
        if chosen is None:
            have = ", ".join(obtainable()) or "none"
            raise BuildFailure("VersionUnavailable", f"Node.js {configured} cannot be had here; these can: {have}")
        differs = engines and not satisfies(chosen, engines)
        return chosen, f"package.json asks for Node.js {engines}, {chosen} was configured" if differs else None
    ordered = sorted(obtainable().values(), key=lambda version: (not version.startswith(f"{PREFERRED}."),))
    if not ordered:
        raise BuildFailure("VersionUnavailable", "this builder has no Node.js")
    if not engines:
        return ordered[0], None
    chosen = next((version for version in (*ordered, *_registry()) if satisfies(version, engines)), None)
    if chosen is None:
        return ordered[0], f"package.json asks for Node.js {engines}, which cannot be had; {ordered[0]} is used"
    return chosen, None


def satisfies(version: str, wanted: str) -> bool:
    """Whether a version lies in a range as npm writes them; what cannot be read is satisfied by nothing."""
    return any(_within(_numbers(version), part) for part in wanted[:_MAX_RANGE].split("||"))


def _within(version: tuple[int, ...], comparators: str) -> bool:
    words = comparators.replace("*", "x").split() or ["x"]
    if len(words) == 3 and words[1] == "-":  # noqa: PLR2004 - from - to
        words = [f">={words[0]}", f"<={words[2]}"]
    text = " ".join(words)
    if _COMPARATOR.sub("", text).strip():
        return False
    return all(_fits(version, *found) for found in _COMPARATOR.findall(text))


def _fits(version: tuple[int, ...], sign: str, *given: str) -> bool:
    known = [int(part) for part in given if part.isdigit()]
    low = tuple([*known, 0, 0, 0][:3])
    # The last number that is given, or for ^ and ~ the one they let stand, moves by one.
    keep = {"^": 1, "~": min(2, len(known))}.get(sign, len(known))
    high = (*low[: keep - 1], low[keep - 1] + 1) if keep and known else (_UNBOUNDED,)
    return {
        ">=": version >= low,
        ">": version >= high if len(known) < 3 else version > low,  # noqa: PLR2004 - a whole version
        "<": version < low,
        "<=": version < high,
    }.get(sign, low <= version < high)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
