"""A private repository is built with a credential that was set on the component, rotated, and taken off again."""

from __future__ import annotations

import re
import shlex

from tests.given.git_server import git_server
from tests.given.platform import Platform
from tests.given.repository import Repository

WHERE = ("--project", "shop")
PASSWORD = "t0p-s3cret"


def test_a_private_repository_is_built_once_the_credential_is_set_on_the_component(
    platform: Platform, repository: Repository
) -> None:
    with git_server(repository.path.parent, PASSWORD) as url:
        source = ("--repo", f"{url}/{repository.path.name}", "--build-configs", "buildpack=python")
        version = ("--build-configs", "buildPackLangVersion=3.11")
        platform.cli("create", "component", "hidden", *WHERE, "--type", "service", *source, *version)
        refused = platform.cli("create", "build", "hidden", *WHERE, check=False)
        assert (refused.returncode, "AuthenticationRequired" in refused.stderr) == (6, True), refused.stderr
        (line,) = re.findall(r"`minuet (set component [^`]*)`", refused.stderr)

        platform.cli("create", "credential", "elsewhere", "--token-stdin", stdin=f"{PASSWORD}\n")
        platform.cli(*shlex.split(line.replace("<credential>", "elsewhere")))
        assert "hidden-2" in platform.cli("create", "build", "hidden", *WHERE).stdout

        platform.cli("set", "credential", "elsewhere", "--token", stdin="an old one\n")
        assert platform.cli("create", "build", "hidden", *WHERE, check=False).returncode == 6
        platform.cli("set", "credential", "elsewhere", "--token", stdin=f"{PASSWORD}\n")
        done = platform.cli("create", "build", "hidden", *WHERE)
        assert PASSWORD not in done.stdout + done.stderr

        platform.cli("set", "component", "hidden", *WHERE, "--no-credential")
        platform.cli("delete", "credential", "elsewhere", "--yes")
    platform.cli("delete", "component", "hidden", *WHERE, "--yes")
    platform.cli("wait", "component", "hidden", *WHERE, "--for", "delete")
