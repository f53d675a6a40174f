"""Python: dependencies by uv into a virtual environment of their own layer, the source beside it."""

from __future__ import annotations

import hashlib
import posixpath
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from minuet.builders import package_sources, sbom
from minuet.builders.buildpacks import python_locks
from minuet.builders.buildpacks.port import WORK, DependencyLayer, Plan, Request, Step, served
from minuet.builders.buildpacks.procfile import start_command
from minuet.builders.failure import BuildFailure
from minuet.builders.tree import EPOCH, Tree
from minuet.launcher.client import Mount
from minuet.protocol.building import BuildpackOffer

_TARGET = "/layers/python"
_INTERPRETERS = "/usr/bin"
_MAX_INCLUDED = 20
_MAX_VERSION = 40
_COPY = f"{WORK}/source"
_EDITABLE = re.compile(r"(?:-e|--editable)[ \t=]*")
_CONVERTED = f"{WORK}/requirements.txt"
_REVISION = "2"
"""Part of every layer's key: changing how layers are made makes them anew."""

_COMPILE = """\
import os, py_compile, sys
sys.setrecursionlimit(5000)
skipped = {"tests", "test", "docs", "examples", ".git", "node_modules", "venv", ".venv"}
for folder, folders, names in os.walk("."):
    folders[:] = sorted(name for name in folders if name not in skipped)
    for name in sorted(names):
        if not name.endswith(".py"):
            continue
        try:
            py_compile.compile(os.path.join(folder, name), doraise=True,
                               invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        except (py_compile.PyCompileError, ValueError) as error:
            print(str(error).strip())
            sys.exit(1)
"""

_VERIFY = """\
import re, sys
from importlib import metadata
missing = []
for line in open(sys.argv[1], encoding="utf-8-sig", errors="replace"):
    found = re.match(r"\\s*([A-Za-z0-9][A-Za-z0-9._-]*)\\s*(\\[[^]]*\\])?\\s*([=<>!~;@].*)?$", line.split(" #")[0].strip())
    if not found or ";" in line:
        continue
    try:
        metadata.distribution(found[1])
    except metadata.PackageNotFoundError:
        missing.append(found[1])
if missing:
    print("not installed although asked for: " + ", ".join(missing))
    sys.exit(1)
"""


_VERIFY_NAMES = """\
import sys
from importlib import metadata
def is_there(name):
    try:
        return bool(metadata.distribution(name))
    except metadata.PackageNotFoundError:
        return False
missing = [name for name in sys.argv[1:] if not is_there(name)]
if missing:
    print("not installed although asked for: " + ", ".join(missing))
    sys.exit(1)
"""

_COPY_SOURCE = f"""\
mkdir -p {_COPY} && cp -r /app/. {_COPY}/ || exit 1
# Installed as a copy: what is linked to would not be there when the application runs.
find {_COPY} -maxdepth 3 -name '*.txt' -type f -exec sed -i -E 's/^[ \\t]*(-e|--editable)[ \\t=]+//' {{}} +
"""
"""Installing writes into the source, which is not to be written there, and reads more of it than a lock says."""


class Python:
    """Requirements files, pyproject.toml with or without uv.lock, or no dependencies at all."""

    name = "python"

    def offers(self) -> tuple[BuildpackOffer, ...]:
        return served(self.name, tuple(interpreters()), "runCommand")

    def detect(self, tree: Tree) -> str | None:
        marks = (
            "requirements.txt",
            "pyproject.toml",
            "Pipfile",
            "setup.py",
            "uv.lock",
            "app.py",
            "main.py",
            "manage.py",
        )
        return next((f"there is a {mark}" for mark in marks if tree.has(mark)), None)

    def plan(self, request: Request) -> Plan:
        version, interpreter = _interpreter(request)
        tree = request.tree
        inputs = _inputs(tree)
        command = start_command(request, _guess(tree, inputs.text))
        layer = _layer(version, interpreter, inputs, request.commit)
        compile_step = Step(
            (interpreter, "-c", _COMPILE), _explain_compile, environment={"SOURCE_DATE_EPOCH": str(EPOCH)}
        )
        return Plan(
            toolchain=f"python {version}",
            command=command,
            layers=(layer,),
            steps=(compile_step,),
            environment={"PATH": f"{_TARGET}/bin:/usr/local/bin:/usr/bin:/bin", "PYTHONUNBUFFERED": "1"},
            warnings=_warnings(tree, version),
        )


class _Inputs:
    """Where the dependencies are written, the text that decides them, and which must be there in the end.

    `source` says that parts of the source are installed too.
    """

    def __init__(self, name: str | None, text: str, direct: tuple[str, ...] = (), *, source: bool = False) -> None:
        self.name = name
        self.text = text
        self.direct = direct
        self.source = source


@package_sources.kept
def interpreters() -> dict[str, str]:
    """The versions that applications can run here, newest first: found by running each."""
    found = {}
    for path in sorted(Path(_INTERPRETERS).glob("python3.[0-9]*")):
        if not re.fullmatch(r"python3\.\d+", path.name):
            continue
        done = subprocess.run([str(path), "-c", "import ssl, venv, sys; print(sys.version.split()[0])"],
                              capture_output=True, text=True, timeout=20, check=False)  # fmt: skip
        if done.returncode == 0:
            found[path.name.removeprefix("python")] = str(path)
    return dict(sorted(found.items(), key=lambda item: int(item[0].split(".")[1]), reverse=True))


def _interpreter(request: Request) -> tuple[str, str]:
    available = interpreters()
    wanted = request.config.get("buildPackLangVersion") or _pinned(request.tree) or next(iter(available), "")
    parts = re.findall(r"\d{1,4}", wanted[:_MAX_VERSION])[:2]
    # Newest first, so that `3` and `3.x` are the newest of those.
    found = next((version for version in available if parts and version.split(".")[: len(parts)] == parts), None)
    if found is None:
        have = ", ".join(available) or "none"
        raise BuildFailure("VersionUnavailable", f"Python {wanted} cannot be had here; these can: {have}")
    return found, available[found]


def _pinned(tree: Tree) -> str | None:
    for line in tree.lines(".python-version"):
        if line.strip() and not line.startswith("#"):
            return line.strip()
    return None


def _inputs(tree: Tree) -> _Inputs:
    if tree.has("uv.lock") and tree.has("pyproject.toml"):
        project = tree.read("pyproject.toml") or ""
        return _Inputs("uv.lock", (tree.read("uv.lock", 16 * 2**20) or "") + project, _direct(_project(project)))
    requirements = tree.read("requirements.txt")
    if requirements is not None:
        kept = [line for line in requirements.splitlines() if line.strip() and not line.strip().startswith("#")]
        text = _with_included(tree, requirements)
        return _Inputs("requirements.txt" if kept else None, text, source=_installs_source(text))
    if converted := python_locks.requirements(tree):
        return _Inputs(_CONVERTED, converted[1]) if converted[1] else _Inputs(None, "")
    project = tree.read("pyproject.toml") or ""
    described = _project(project)
    if _direct(described):
        return _Inputs("pyproject.toml", project, _direct(described))
    if tree.has("setup.py") or tree.has("setup.cfg") or "dependencies" in described.get("dynamic", ()):
        return _Inputs(".", "", source=True)
    if tree.has("environment.yml"):
        raise BuildFailure(
            "InvalidSource",
            "environment.yml is for Conda; write requirements.txt, pyproject.toml, Pipfile or poetry.lock",
        )
    return _Inputs(None, "")


def _with_included(tree: Tree, text: str) -> str:
    """The text of a requirements file and of those it includes, all of which decide what is installed."""
    texts, waiting, seen = [text], _included(text, ""), set[str]()
    while waiting and len(seen) < _MAX_INCLUDED:
        name = waiting.pop(0)
        if name not in seen:
            seen.add(name)
            found = tree.read(name) or ""
            texts.append(found)
            waiting += _included(found, name)[:_MAX_INCLUDED]
    return "\n".join(texts)


def _included(text: str, name: str) -> list[str]:
    """The files that a file of requirements names to be read too; they are looked for beside it."""
    lines = [line.strip() for line in text.splitlines()]
    options = ("--requirement", "--constraint", "-r", "-c")
    found = [
        re.sub(r"^(?:--requirement|--constraint|-r|-c)[ \t=]*", "", line) for line in lines if line.startswith(options)
    ]
    beside = name.rpartition("/")[0]
    return [posixpath.normpath(posixpath.join(beside, line.split()[0])) for line in found if line.split()]


def _installs_source(text: str) -> bool:
    """Whether a line asks for a folder of the source itself."""
    lines = (_EDITABLE.sub("", line.strip(), count=1) for line in text.splitlines())
    return any(
        line.partition(" ")[0].partition("[")[0] in (".", "..") or line.startswith(("./", "../", "file:"))
        for line in lines
    )


def _project(text: str) -> dict[str, Any]:
    """The part of a pyproject.toml that says what the project is."""
    try:
        project = tomllib.loads(text).get("project", {})
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BuildFailure("InvalidSource", f"pyproject.toml is not valid TOML: {str(error)[:200]}") from error
    return project if isinstance(project, dict) else {}


def _direct(project: dict[str, Any]) -> tuple[str, ...]:
    """The names of the dependencies that are asked for on every machine."""
    given = project.get("dependencies")
    lines = [line for line in given if isinstance(line, str) and ";" not in line] if isinstance(given, list) else []
    found = (re.match(r"[ \t]*([A-Za-z0-9][A-Za-z0-9._-]*)", line) for line in lines)
    return tuple(match[1] for match in found if match)


def _guess(tree: Tree, dependencies: str) -> str | None:
    """What to start when nothing says so: a well-known module, served the way its framework is."""
    names = dependencies.lower()
    for module in ("app", "main", "server", "wsgi"):
        text = tree.read(f"{module}.py")
        if text and (found := _served(module, text, names)):
            return found
    project = next((found for line in tree.lines("manage.py") if (found := _django_project(line))), None)
    if project and "gunicorn" in names:
        return f"gunicorn --bind 0.0.0.0:$PORT {project}.wsgi"
    return "python manage.py runserver --noreload 0.0.0.0:$PORT" if project else None


def _django_project(line: str) -> str | None:
    """The package whose settings a line of manage.py names."""
    found = re.match(r"\W+([\w.]+)", line.partition("DJANGO_SETTINGS_MODULE")[2])
    return found[1].rpartition(".settings")[0] or None if found else None


def _served(module: str, text: str, names: str) -> str | None:
    name = re.search(r"^(app|application)[ \t]*(?::[ \t]*\w+[ \t]*)?=", text, re.MULTILINE)
    if name and "gunicorn" in names and "FastAPI(" not in text:
        return f"gunicorn --bind 0.0.0.0:$PORT {module}:{name[1]}"
    if name and "Flask(" in text and "flask" in names and "0.0.0.0" not in text:  # noqa: S104 - looked for, not bound
        # Its own `run` listens on the loopback alone, where nobody can reach it.
        return f"flask --app {module}:{name[1]} run --host 0.0.0.0 --port $PORT"
    if name and ("uvicorn" in names or "fastapi[" in names):
        return f"uvicorn --host 0.0.0.0 --port $PORT {module}:{name[1]}"
    if "__main__" in text or "serve_forever" in text or ".run(" in text:
        return f"python {module}.py"
    if name and "Flask(" in text:
        return f"flask --app {module}:{name[1]} run --host 0.0.0.0 --port $PORT"
    return None


def _layer(version: str, interpreter: str, inputs: _Inputs, commit: str) -> DependencyLayer:
    name = inputs.name or ""
    parts = (_REVISION, "python", version, name, inputs.text, commit if inputs.source else "")
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    uv = Path(shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv") or "uv")
    mounts = (Mount(str(uv), "/opt/uv"),)
    environment = {
        "UV_CACHE_DIR": f"{WORK}/uv",
        "UV_NO_CONFIG": "1",
        "UV_SYSTEM_CERTS": "true",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        "UV_LINK_MODE": "copy",
        "UV_PROJECT_ENVIRONMENT": _TARGET,
        "SOURCE_DATE_EPOCH": str(EPOCH),
    }
    if index := package_sources.pip_index():
        environment["UV_DEFAULT_INDEX"] = index

    place = _COPY if inputs.source else "/app"

    def step(*argv: str, fetches: bool = False, cwd: str = place) -> Step:
        return Step(argv, _explain_install, cwd, environment=environment, mounts=mounts, fetches=fetches)

    pip = ("/opt/uv", "pip", "install", "--compile-bytecode", "--python", _TARGET, "-r", name)
    install = {
        "uv.lock": ("/opt/uv", "sync", "--frozen", "--no-dev", "--no-install-project", "--compile-bytecode"),
        "requirements.txt": pip,
        "pyproject.toml": pip,
        _CONVERTED: pip,
        ".": (*pip[:-2], "."),
    }
    steps = [Step(("/bin/sh", "-c", _COPY_SOURCE), _explain_install, WORK)] if inputs.source else []
    steps += [step("/opt/uv", "venv", "-q", "--allow-existing", "--python", interpreter, _TARGET)]
    if name == _CONVERTED:
        write = ("/bin/sh", "-c", 'printf %s "$0" > "$1"', inputs.text, _CONVERTED)
        steps.append(Step(write, _explain_install))
    if name:
        steps.append(step(*install[name], fetches=True))
    if name in ("requirements.txt", _CONVERTED):
        steps.append(step(f"{_TARGET}/bin/python", "-c", _VERIFY, name))
    if inputs.direct:
        steps.append(step(f"{_TARGET}/bin/python", "-c", _VERIFY_NAMES, *inputs.direct))
    site = f"lib/python{version}/site-packages"
    return DependencyLayer("python", _TARGET, key, tuple(steps), lambda root: sbom.python_packages(root / site))


def _explain_install(said: str) -> BuildFailure:
    # The installer breaks its lines at the width of a terminal.
    missing = _last_word_before(" was not found in the package registry", " ".join(said.split()))
    version = re.search(r"there is no version of (\S+)", said)
    absent = re.search(r"not installed although asked for: (.*)", said)
    if missing:
        return BuildFailure("DependencyNotFound", f"the dependency {missing} does not exist in the package index")
    if version:
        return BuildFailure("DependencyNotFound", f"there is no version {version[1]} in the package index")
    if absent:
        return BuildFailure("InstallFailed", f"{absent[0]}")
    return BuildFailure("InstallFailed", f"installing the dependencies failed: {_last_line(said)}")


def _explain_compile(said: str) -> BuildFailure:
    place = re.search(r'File "\./?([^"]+)", line (\d+)', said)
    lines = [line.strip() for line in said.splitlines()]
    kind = [line for line in lines if re.match(r"\w*(?:Error|Exception)\b", line)]
    where = f"{place[1]}, line {place[2]}: " if place else ""
    return BuildFailure("CompileFailed", f"{where}{kind[-1] if kind else _last_line(said)}")


def _last_word_before(mark: str, said: str) -> str | None:
    """The word that stands before the first `mark`; a pattern that begins with any word would read a line many times."""
    before, found, _ = said.partition(mark)
    return before.split()[-1] if found and before.split() else None


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"


def _warnings(tree: Tree, version: str) -> tuple[str, ...]:
    pinned = _pinned(tree)
    if pinned and not pinned.startswith(version):
        return (f".python-version asks for {pinned}, the build configuration for {version}; the latter is used",)
    return ()
