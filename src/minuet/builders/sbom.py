"""A CycloneDX bill of materials from what was really installed, never from what was asked for."""

from __future__ import annotations

import email.parser
import json
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
    """The same for a `node_modules` directory, nested ones included."""
    for manifest in sorted(modules.glob("**/package.json")):
        if manifest.parent.parent.name != "node_modules" and not manifest.parent.parent.name.startswith("@"):
            continue
        try:
            fields = json.loads(Tree(manifest.parent).read("package.json", 256 * 1024) or "")
            yield fields["name"], fields["version"], f"pkg:npm/{fields['name'].replace('@', '%40')}@{fields['version']}"
        except (ValueError, KeyError, TypeError, AttributeError):
            continue


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
        component = Component(
            name=package, version=version, type=ComponentType.LIBRARY, purl=PackageURL.from_string(url), bom_ref=url
        )
        bom.components.add(component)
    written = json.loads(JsonV1Dot6(bom).output_as_string())
    # A serial number and a time would make equal builds differ.
    written.pop("serialNumber", None)
    written.get("metadata", {}).pop("timestamp", None)
    return json.dumps(written, sort_keys=True, indent=1).encode()
