"""A CycloneDX bill of materials from what was really installed, never from what was asked for."""

from __future__ import annotations

import email.parser
import json
import os
from collections.abc import Iterator
from pathlib import Path

from minuet.builders.tree import Tree

_LIMIT = 5000


def python_packages(site_packages: Path) -> Iterator[tuple[str, str, str]]:
    """Name, version and package URL of every distribution in a directory."""
    for info in sorted(site_packages.glob("*.dist-info")):
        text = Tree(info).read("METADATA", 64 * 1024) if not info.is_symlink() else None
        if text is None:
            continue
        fields = email.parser.HeaderParser().parsestr(text)
        name, version = fields.get("Name", ""), fields.get("Version", "")
        yield name, version, f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"


def node_packages(modules: Path) -> Iterator[tuple[str, str, str]]:
    """The same for a `node_modules` directory, nested ones included; one package may be there more than once."""
    seen = set()
    for folder in _modules(modules):
        try:
            fields = json.loads(Tree(folder).read("package.json", 256 * 1024) or "")
            name, version = str(fields["name"]), str(fields["version"])
        except (ValueError, KeyError, TypeError):
            continue
        if (name, version) not in seen:
            seen.add((name, version))
            yield name, version, f"pkg:npm/{name.replace('@', '%40')}@{version}"


def _modules(directory: Path) -> Iterator[Path]:
    """The folders of packages in a `node_modules`, those of a scope one level deeper, and what they bring along."""
    waiting = [directory]
    while waiting:
        for entry in sorted(os.scandir(waiting.pop(0)), key=lambda item: item.name):
            if not entry.is_dir(follow_symlinks=False) or entry.name.startswith("."):
                continue
            folder = Path(entry.path)
            if entry.name.startswith("@"):
                waiting.append(folder)
                continue
            yield folder
            if Tree(folder).is_directory("node_modules"):
                waiting.append(folder / "node_modules")


def go_packages(listed: str) -> Iterator[tuple[str, str, str]]:
    """The modules that `go version -m` finds in binaries."""
    seen = set()
    for line in listed.splitlines():
        words = line.split("\t")
        if len(words) >= 4 and words[1] in ("dep", "=>") and words[2] not in seen:  # noqa: PLR2004 - its columns
            seen.add(words[2])
            yield words[2], words[3], f"pkg:golang/{words[2]}@{words[3]}"


def document(name: str, packages: Iterator[tuple[str, str, str]]) -> bytes:
    """Returns the CycloneDX 1.6 document; the same packages give the same bytes."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    bom = Bom()
    bom.metadata.component = Component(name=name, type=ComponentType.APPLICATION, bom_ref=name)
    for index, (package, version, url) in enumerate(packages):
        if index >= _LIMIT:
            break
        try:
            purl = PackageURL.from_string(url)
        except ValueError:
            # The name is one that its ecosystem does not allow; it stays in the list without an address.
            purl = None
        component = Component(name=package, version=version, type=ComponentType.LIBRARY, purl=purl, bom_ref=url)
        bom.components.add(component)
    written = json.loads(JsonV1Dot6(bom).output_as_string())
    # A serial number and a time would make equal builds differ.
    written.pop("serialNumber", None)
    written.get("metadata", {}).pop("timestamp", None)
    return json.dumps(written, sort_keys=True, indent=1).encode()
