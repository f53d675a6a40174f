"""React, Angular, Vue: built by Node.js, exported as the static files that came out, served as a static site."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from minuet.builders.buildpacks import node_versions
from minuet.builders.buildpacks.nodejs import explain_build, layers, own_scripts, read_project, search_path
from minuet.builders.buildpacks.port import Plan, Request, Step
from minuet.builders.buildpacks.static import SERVE_SINGLE_PAGE, SERVER
from minuet.builders.tree import Tree
from minuet.protocol.building import BuildpackOffer

_MARKS = {"react": "react-dom", "angular": "@angular/core", "vue": "vue"}
_MAX_PROJECTS = 20
_USUAL = ("dist", "build", "out", "public")


class Frontend:
    """One framework; they differ in how they are recognised and where their output lies."""

    def __init__(self, name: str) -> None:
        self.name = name

    def offers(self) -> tuple[BuildpackOffer, ...]:
        versions = tuple(node_versions.obtainable())
        if not versions:
            return ()
        offer = BuildpackOffer(
            name=self.name,
            versions=versions,
            default_version=versions[0],
            component_types=("web-application",),
            required=("buildCommand", "outputDirectory", "nodeVersion"),
            optional=("port",),
        )
        return (offer,)

    def detect(self, tree: Tree) -> str | None:
        """A front end has a framework, a build, and nothing that would start a server."""
        text = tree.read("package.json")
        if text is None or tree.has("Procfile") or f'"{_MARKS[self.name]}"' not in text:
            return None
        scripts = read_project(tree).scripts
        serves = re.search(r"\b(node|next|nuxt|express)\b", scripts.get("start", ""))
        return None if serves or "build" not in scripts else f"package.json names {_MARKS[self.name]}"

    def plan(self, request: Request) -> Plan:
        project = read_project(request.tree)
        wanted = request.config.get("nodeVersion") or request.config.get("buildPackLangVersion")
        # For front ends the build configuration alone decides; `engines` speak of the developer's machine.
        version, _ = node_versions.choose(wanted, None)
        command = re.sub(r"^(?:yarn|pnpm)(?: run)? ([\w:-]+)$", r"npm run \1",
                         request.config.get("buildCommand") or "npm run build")  # fmt: skip
        path = search_path(version)
        return Plan(
            toolchain=f"nodejs {version}",
            command=SERVE_SINGLE_PAGE,
            layers=layers(request, project, version, build_needs_more=True, for_launch=False),
            steps=(
                *(
                    replace(step, environment={**step.environment, "PATH": path})
                    for step in own_scripts(project, version)
                ),
                Step(("/bin/sh", "-c", command), explain_build, environment={"PATH": path}),
            ),
            environment={"PATH": "/usr/local/bin:/usr/bin:/bin"},
            extra=SERVER,
            output=self._outputs(request),
            emptied=("node_modules",),
        )

    def _outputs(self, request: Request) -> tuple[str, ...]:
        """Where the output may lie, the configured place first: frameworks move it between their versions."""
        given = request.config.get("outputDirectory", "").strip("/")
        places = [f"{given}/browser", given] if given else []
        if self.name == "angular":
            for path in _angular_outputs(request.tree):
                places += [f"{path}/browser", path]
        return tuple(dict.fromkeys([*places, *_USUAL]))


def _angular_outputs(tree: Tree) -> list[str]:
    try:
        document = json.loads(tree.read("angular.json") or "{}")
    except (ValueError, RecursionError):
        return []
    found = []
    for name, project in _mapping(document, "projects").items():
        options = _mapping(_mapping(_mapping(project, "architect"), "build"), "options")
        path = options.get("outputPath")
        base = path.get("base") if isinstance(path, dict) else path
        found.append(str(base or f"dist/{name}").strip("/"))
    return found[:_MAX_PROJECTS]


def _mapping(given: Any, name: str) -> dict[str, Any]:
    inner = given.get(name) if isinstance(given, dict) else None
    return inner if isinstance(inner, dict) else {}
