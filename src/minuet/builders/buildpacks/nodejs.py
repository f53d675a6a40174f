"""Node.js: dependencies by npm (or yarn, pnpm) into a layer at node_modules, the build's own script, the start."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minuet.builders import package_sources, sbom
from minuet.builders.buildpacks import node_versions
from minuet.builders.buildpacks.port import WORK, DependencyLayer, Plan, Request, Step, served
from minuet.builders.buildpacks.procfile import start_command
from minuet.builders.failure import BuildFailure
from minuet.builders.tree import Tree
from minuet.protocol.building import BuildpackOffer

MODULES = "/app/node_modules"
_TOOLCHAIN = "/layers/node"
_PROJECT = f"{WORK}/project"
_LOCKS = ("package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml")
_MANIFESTS = ("package.json", ".npmrc", *_LOCKS)
_LOCAL = ("file:", "link:", "workspace:", "./", "../")
_REVISION = "3"
_OWN_SCRIPTS = ("preinstall", "install", "postinstall")
_MAX_PACKAGES, _MAX_COPIED = 500, 64 * 2**20
_PRUNE = "npm prune --omit=dev --no-save --offline --ignore-scripts || echo 'development dependencies stay'"
_PLACE = re.compile(r"(?:/app/|\./)?([\w./-]+\.(?:[cm]?[jt]sx?|vue))[:(](\d+)(?:[:,]\d+|$)")

_INSTALL = r"""
mkdir -p "$PROJECT" && cd "$PROJECT" || exit 1
find . -mindepth 1 -maxdepth 1 ! -name node_modules -exec rm -rf {} +
if [ -n "$WHOLE" ]; then
    (cd /app && tar -c --exclude=./node_modules --exclude=./.git .) | tar -x || exit 1
else
    for name in $MANIFESTS; do [ -f "/app/$name" ] && cp "/app/$name" .; done
fi
# The scripts of the component itself may write anywhere in its source; they run in the build.
node -e 'const fs = require("fs"), p = JSON.parse(fs.readFileSync("package.json", "utf8").replace(/^\uFEFF/, ""));
    delete p.scripts; fs.writeFileSync("package.json", JSON.stringify(p));' || exit 1
# Locks name the registry they were made with; a package's place and its checksum are the same in every other one.
[ -z "$npm_config_registry" ] || node -e 'const fs = require("fs"), base = process.env.npm_config_registry.replace(/\/+$/, "");
    const place = /^([ \t]*"?resolved"?:? ")https?:\/\/[^"]*?(\/(?:@[^"\/]+(?:\/|%2[fF]))?[^"\/]+\/-\/[^"\/]+\.tgz(?:#[^"]*)?")/gm;
    for (const name of process.env.LOCKS.split(" ").filter(fs.existsSync))
        fs.writeFileSync(name, fs.readFileSync(name, "utf8").replace(place, (_, key, path) => key + base + path));' || exit 1
attempt() { echo "> $*"; "$@" </dev/null && taken="$*"; }
npm_ladder() {
    if [ -f package-lock.json ] || [ -f npm-shrinkwrap.json ]; then
        attempt npm ci $NPM_OMIT && return
        echo "npm ci failed; trying npm install"
    fi
    attempt npm install --no-save $NPM_OMIT || attempt npm install --no-save --legacy-peer-deps $NPM_OMIT
}
case "$MANAGER" in
    yarn*) attempt npx --yes "$MANAGER" install --frozen-lockfile --non-interactive --ignore-engines $YARN_OMIT \
        || attempt npx --yes "$MANAGER" install --non-interactive --ignore-engines $YARN_OMIT \
        || { echo "yarn failed; trying npm"; npm_ladder; } ;;
    pnpm*) attempt npx --yes "$MANAGER" install --frozen-lockfile --config.node-linker=hoisted $PNPM_OMIT \
        || attempt npx --yes "$MANAGER" install --no-frozen-lockfile --config.node-linker=hoisted $PNPM_OMIT ;;
    *) npm_ladder ;;
esac || exit 1
echo "installed by: $taken"
node -e 'const fs = require("fs"), p = JSON.parse(fs.readFileSync("package.json", "utf8").replace(/^\uFEFF/, ""));
    const absent = Object.keys(p.dependencies || {}).filter(name => !(name in (p.optionalDependencies || {}))
        && !fs.existsSync("node_modules/" + name + "/package.json"));
    if (absent.length) { console.log("not installed although asked for: " + absent.join(", ")); process.exit(1); }'
"""


class NodeJs:
    """A package.json that something starts."""

    name = "nodejs"

    def offers(self) -> tuple[BuildpackOffer, ...]:
        return served(self.name, tuple(node_versions.obtainable()), "runCommand", "buildCommand")

    def detect(self, tree: Tree) -> str | None:
        return "there is a package.json" if tree.has("package.json") else None

    def plan(self, request: Request) -> Plan:
        project = read_project(request.tree)
        version, warning = node_versions.choose(request.config.get("buildPackLangVersion"), project.engines)
        command = start_command(request, _guess(request.tree, project))
        build = request.config.get("buildCommand") or ("npm run build" if "build" in project.scripts else None)
        steps = own_scripts(project, version)
        scripted = bool(steps)
        if build is not None:
            steps.append(Step(("/bin/sh", "-c", build), explain_build))
        if scripted and project.development:
            steps.append(Step(("/bin/sh", "-c", _PRUNE), explain_build, environment=_environment(version)))
        if entry := re.fullmatch(r"(?:exec )?node (\S+\.[cm]?js)(?: .*)?", command):
            steps.append(Step(("node", "--check", entry[1]), explain_syntax))
        return Plan(
            toolchain=f"nodejs {version}",
            command=command,
            layers=layers(
                request, project, version, build_needs_more=build is not None, for_launch=True, scripted=scripted
            ),
            steps=tuple(steps),
            environment={"PATH": search_path(version), "NODE_ENV": "production"},
            emptied=("node_modules",),
            warnings=(warning,) if warning else (),
        )


@dataclass(frozen=True, slots=True)
class Project:
    """What a package.json says, as far as a build needs it."""

    text: str
    fields: Mapping[str, Any]

    @property
    def scripts(self) -> Mapping[str, str]:
        return self._mapping("scripts")

    @property
    def engines(self) -> str | None:
        return self._mapping("engines").get("node")

    @property
    def development(self) -> Mapping[str, str]:
        return self._mapping("devDependencies")

    @property
    def needs_its_source(self) -> bool:
        """Whether installing copies or links parts of the source."""
        return "workspaces" in self.fields or bool(self.local)

    @property
    def local(self) -> tuple[str, ...]:
        """The paths of dependencies that lie in the source."""
        specs = (*self._mapping("dependencies").values(), *self.development.values())
        local = (spec for spec in specs if spec.startswith(_LOCAL) and not spec.startswith("workspace:"))
        return tuple(posixpath.normpath(re.sub("^(?:file|link):", "", spec)) for spec in local)

    def _mapping(self, name: str) -> Mapping[str, str]:
        found = self.fields.get(name)
        if not isinstance(found, dict):
            return {}
        return {str(key): value for key, value in found.items() if isinstance(value, str)}


def read_project(tree: Tree) -> Project:
    """Raises `BuildFailure` (`InvalidSource`) for a package.json that is none."""
    text = tree.read("package.json")
    if text is None:
        raise BuildFailure("InvalidSource", "there is no package.json in the component's directory")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BuildFailure("InvalidSource", f"package.json is not valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BuildFailure("InvalidSource", "package.json must hold an object")
    return Project(text, fields)


def layers(
    request: Request,
    project: Project,
    version: str,
    *,
    build_needs_more: bool,
    for_launch: bool,
    scripted: bool = False,
) -> tuple[DependencyLayer, ...]:
    """The toolchain, if it is not this machine's; what the build needs; what the launch needs.

    Where a build needs development dependencies, the launch gets a layer without them;
    where the component's own scripts may change what was installed, it gets what they left.
    """
    own = version == node_versions.host()
    found = [] if own else [_toolchain(version, for_launch=for_launch)]
    if scripted and for_launch:
        return (*found, _modules(request, project, version, development=True, for_launch=True, after_build=True))
    separate = build_needs_more and bool(project.development)
    if separate or not for_launch:
        found.append(_modules(request, project, version, development=True, for_launch=False))
    if for_launch:
        made = _modules(request, project, version, development=False, for_launch=True, for_build=not separate)
        found.append(made)
    return tuple(found)


def _toolchain(version: str, *, for_launch: bool) -> DependencyLayer:
    packages = (f"{node_versions.package()}@{version}", node_versions.npm_for(version))
    step = Step(
        ("/usr/bin/npm", "install", "--prefix", _TOOLCHAIN, "--no-save", "--ignore-scripts", *packages),
        explain_install,
        cwd=WORK,
        environment=_environment(None) | {"PATH": "/usr/bin:/bin"},
        fetches=True,
    )
    key = _key("toolchain", *packages)
    return DependencyLayer(
        "node", _TOOLCHAIN, key, (step,), lambda _: iter(()), for_build=True, for_launch=for_launch
    )  # fmt: skip


def _modules(
    request: Request,
    project: Project,
    version: str,
    *,
    development: bool,
    for_launch: bool,
    for_build: bool = True,
    after_build: bool = False,
) -> DependencyLayer:
    whole = project.needs_its_source
    manager = _manager(request.tree)
    environment = _environment(version) | {
        "PATH": search_path(version),
        "NODE_ENV": "development",
        "PROJECT": _PROJECT,
        "WHOLE": "1" if whole else "",
        "MANIFESTS": " ".join(_MANIFESTS),
        "MANAGER": manager,
        "LOCKS": " ".join(_LOCKS[:3]),
        "NPM_OMIT": "--include=dev" if development else "--omit=dev",
        "YARN_OMIT": "--production=false" if development else "--production=true",
        "PNPM_OMIT": "" if development else "--prod",
    }
    step = Step(("/bin/sh", "-c", _INSTALL), explain_install, cwd=WORK, environment=environment, fetches=True)
    texts = [request.tree.read(name, 32 * 2**20) or "" for name in _MANIFESTS]
    key = _key("modules", version, str(development), manager, *texts, _of_source(request, project) if whole else "")
    return DependencyLayer(
        "node_modules", MODULES, key, (step,), sbom.node_packages,
        made_at=f"{_PROJECT}/node_modules", for_build=for_build, for_launch=for_launch, after_build=after_build,
    )  # fmt: skip


def _of_source(request: Request, project: Project) -> str:
    """What of the source decides what is installed: each package's description, and what is copied."""
    tree = request.tree
    found = [name for name in tree.files("package.json", _MAX_PACKAGES) if "node_modules" not in name.split("/")]
    parts = [f"{name}\0{tree.read(name)}" for name in found]
    copied = [tree.digest(path, _MAX_COPIED) for path in project.local]
    if None in copied or len(found) == _MAX_PACKAGES:
        return request.commit
    return "\0".join([*parts, *(str(digest) for digest in copied)])


def own_scripts(project: Project, version: str) -> list[Step]:
    """What an installation runs of the component itself, in the source and before the build.

    A check of which package manager is used is not for here: it is the one that the lock is for.
    """
    names = [name for name in _OWN_SCRIPTS if name in project.scripts and "only-allow" not in project.scripts[name]]
    environment = _environment(version)
    return [Step(("npm", "run", name), explain_build, environment=environment, fetches=True) for name in names]


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join((_REVISION, "nodejs", *parts)).encode()).hexdigest()


def _manager(tree: Tree) -> str:
    """Which package manager the lock file is for, with the version that reads it."""
    if tree.has("package-lock.json") or tree.has("npm-shrinkwrap.json"):
        return "npm"
    yarn = tree.read("yarn.lock", 4096)
    if yarn is not None and "__metadata" not in yarn:
        return "yarn@1"
    pnpm = re.search(r"lockfileVersion:\s*'?(\d+)", tree.read("pnpm-lock.yaml", 4096) or "")
    if pnpm:
        return "pnpm@8" if int(pnpm[1]) <= 6 else "pnpm@9"  # noqa: PLR2004 - the format that pnpm 8 writes
    return "npm"


def search_path(version: str) -> str:
    own = "" if version == node_versions.host() else f"{_TOOLCHAIN}/node_modules/{node_versions.package()}/bin:"
    tools = "" if not own else f"{_TOOLCHAIN}/node_modules/.bin:"
    return f"{MODULES}/.bin:{own}{tools}/usr/local/bin:/usr/bin:/bin"


def _environment(version: str | None) -> dict[str, str]:
    own = version in (None, node_versions.host())
    variables = {
        "npm_config_cache": f"{WORK}/npm",
        "npm_config_audit": "false",
        "npm_config_fund": "false",
        "npm_config_progress": "false",
        "npm_config_update_notifier": "false",
        "npm_config_fetch_retries": "1",
        "npm_config_nodedir": "/usr" if own else f"{_TOOLCHAIN}/node_modules/{node_versions.package()}",
        "NODE_EXTRA_CA_CERTS": "/etc/ssl/certs/ca-certificates.crt",
        "YARN_CACHE_FOLDER": f"{WORK}/yarn",
    }
    if registry := package_sources.npm_registry():
        variables |= {"npm_config_registry": registry, "YARN_REGISTRY": registry}
    return variables


def _guess(tree: Tree, project: Project) -> str | None:
    start = project.scripts.get("start", "").strip()
    if start:
        # npm between the program and its signals costs a process and 30 MB.
        return "npm start" if "prestart" in project.scripts or "npm_" in start else start
    main = str(project.fields.get("main") or "")
    return next((f"node {name}" for name in ("server.js", main, "index.js", "src/index.js") if name and tree.has(name)),
                None)  # fmt: skip


def explain_install(said: str) -> BuildFailure:
    missing = re.search(r"404\s+'?((?:@[\w.-]+/)?[\w.-]+@[^'\s]*)'? is not in this registry", said) or re.search(
        r"404 Not Found - GET \S*/((?:@[\w.%-]+/)?[\w.%-]+)(?: |$)", said, re.MULTILINE
    )
    version = re.search(r"No matching version found for (\S+?)\.?(?:\s|$)", said)
    absent = re.search(r"not installed although asked for: .*", said)
    if version:
        return BuildFailure("DependencyNotFound", f"there is no version {version[1]} in the package registry")
    if missing:
        return BuildFailure("DependencyNotFound", f"the dependency {missing[1]} does not exist in the package registry")
    if absent:
        return BuildFailure("InstallFailed", absent[0])
    return BuildFailure("InstallFailed", f"installing the dependencies failed: {_complaint(said)}")


def explain_build(said: str) -> BuildFailure:
    places = (_PLACE.match(line.strip()) for line in said.splitlines())
    place = next((found for found in places if found), None)
    where = f"{place[1]}, line {place[2]}: " if place else ""
    return BuildFailure("CompileFailed" if place else "BuildFailed", f"{where}{_complaint(said)}")


def explain_syntax(said: str) -> BuildFailure:
    place = re.search(r"^(?:file://)?/app/(\S+?):(\d+)$", said, re.MULTILINE)
    where = f"{place[1]}, line {place[2]}: " if place else ""
    return BuildFailure("CompileFailed", f"{where}{_complaint(said)}")


def _complaint(said: str) -> str:
    """The line that says most: the last one that names an error, else the last one at all."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and "A complete log of this run" not in line]
    named = [line for line in lines if re.search(r"\b\w*error\b(?! Command failed)", line, re.IGNORECASE)]
    return (named or lines or ["no output"])[-1][:300]
