"""Everything as code: applying is idempotent, shows its difference, and export writes what apply reads."""

from __future__ import annotations

from pathlib import Path

from tests.given.platform import Platform, eventually
from tests.given.repository import Repository


def manifest(repository: Repository, greeting: str) -> str:
    return f"""\
kind: Project
name: coded
displayName: Written down
---
kind: Component
project: coded
name: web
type: service
repository:
  url: {repository.url}
buildConfigs:
  buildpack: python
  buildPackLangVersion: "3.11"
---
kind: Configuration
project: coded
component: web
environment: Development
variables:
  GREETING: {greeting}
"""


def test_what_is_applied_twice_changes_once_and_can_be_exported(
    platform: Platform, repository: Repository, tmp_path: Path
) -> None:
    file = tmp_path / "coded.yaml"
    file.write_text(manifest(repository, "hello"))
    dry = platform.cli("apply", "-f", str(file), "--dry-run")
    assert "+ project coded" in dry.stdout
    assert platform.cli("get", "project", "coded", check=False).returncode == 3, "a dry run changes nothing"
    assert "3 of 3 changed" in platform.cli("apply", "-f", str(file)).stderr
    assert "0 of 3 changed" in platform.cli("apply", "-f", str(file)).stderr

    platform.cli("create", "build", "web", "--project", "coded")
    platform.cli("create", "deployment", "web", "--project", "coded", "--env", "Development")
    url = platform.url("web", project="coded")
    assert platform.fetch(url) == (200, "one hello")
    file.write_text(manifest(repository, "bye"))
    assert "~ GREETING" in platform.cli("apply", "-f", str(file)).stdout
    eventually(lambda: platform.fetch(url) == (200, "one bye"), what="the change is deployed")

    exported = platform.cli("export", "--project", "coded").stdout
    (tmp_path / "exported.yaml").write_text(exported)
    again = platform.cli("apply", "-f", str(tmp_path / "exported.yaml"))
    assert "0 of 4 changed" in again.stderr, again.stdout


def test_a_mistake_in_a_manifest_names_document_field_and_the_nearest_known_one(
    platform: Platform, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("kind: Component\nproject: shop\nname: web\ntype: service\nbuildConfig: {}\n")
    refused = platform.cli("apply", "-f", str(file), check=False)
    assert refused.returncode == 2
    assert "buildConfig" in refused.stderr
    assert "buildConfigs" in refused.stderr
    assert "document 1" in refused.stderr


def test_a_build_needs_no_flags_that_were_applied(platform: Platform, repository: Repository, tmp_path: Path) -> None:
    file = tmp_path / "second.yaml"
    file.write_text(
        manifest(repository, "hi").replace("name: web", "name: api").replace("component: web", "component: api")
    )
    platform.cli("apply", "-f", str(file))
    done = platform.cli("create", "build", "api", "--project", "coded")
    assert "api-1" in done.stdout
