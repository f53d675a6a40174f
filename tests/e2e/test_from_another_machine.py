"""`minuet up` on one machine, a person on another: signed in, pushing and browsing over TLS with a pinned certificate."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.given.platform import MINUET
from tests.given.repository import Repository, python_app

HERE, THERE = "mn-here", "mn-there"
ADDRESS = "10.231.8.1"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def run(machine: str, home: Path, *command: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    variables = {"HOME": str(home), "MINUET_CONFIG": str(home / "contexts.toml"), "GIT_TERMINAL_PROMPT": "0"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        ["nsenter", f"--net=/run/netns/{machine}", *command],
        env={**inherited, **variables, "NO_COLOR": "1"}, input=stdin, capture_output=True, text=True, timeout=170,
        check=False,
    )  # fmt: skip


@pytest.fixture
def machines(open_path: Path) -> Iterator[Path]:
    """Two network namespaces joined by one link, and the data directory of the platform on the first."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("bwrap"):
        pytest.skip("needs root, bubblewrap and iproute2: the machines are network namespaces")
    data = open_path / "data"
    try:
        for name in (HERE, THERE):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("link", "add", "eth0", "netns", HERE, "type", "veth", "peer", "name", "eth0", "netns", THERE)
        for name, address in ((HERE, ADDRESS), (THERE, "10.231.8.2")):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield data
    finally:
        run(HERE, open_path, str(MINUET), "down", "--now", "--data", str(data))
        for name in (HERE, THERE):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def test_the_printed_command_signs_in_from_another_machine_which_can_then_push(
    machines: Path, open_path: Path, tmp_path: Path
) -> None:
    (open_path / "here").mkdir()
    choices = ["--listen", ADDRESS, "--gateway-address", ADDRESS, "--domain", "apps.example.com"]
    started = run(HERE, open_path / "here", str(MINUET), "up", "--detach", "--data", str(machines), *choices)
    assert started.returncode == 0, started.stderr
    assert "below apps.example.com" in started.stderr
    printed = re.search(r"minuet (login --server (\S+) --fingerprint [0-9a-f]{64} --with-token)", started.stderr)
    assert printed, started.stderr
    assert printed[2] == f"https://{ADDRESS}:8400"
    token = (machines / "server" / "owner.token").read_text()

    def there(*command: str, stdin: str | None = None) -> str:
        done = run(THERE, tmp_path, *command, stdin=stdin)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    there(str(MINUET), *printed[1].split(), stdin=token)
    there(str(MINUET), "status")
    there(str(MINUET), "create", "project", "shop")
    component = ["create", "component", "web", "--project", "shop", "--type", "service"]
    there(str(MINUET), *component, "--build-configs", "buildpack=python,buildPackLangVersion=3.11")

    repository = Repository(open_path / "repository")
    repository.commit(python_app("far"))
    certificate = shutil.copy(machines / "builder" / "tls" / "certificate.pem", tmp_path)
    place = f"https://minuet:{token.strip()}@{ADDRESS}:8401/git/default/shop.git"
    told = there("git", "-C", str(repository.path), "-c", f"http.sslCAInfo={certificate}", "push", place, "main")
    assert "Ready: http://web--shop--development.apps.example.com:8480/" in told
    answer = there("curl", "-s", "-H", "Host: web--shop--development.apps.example.com", f"http://{ADDRESS}:8480/")
    assert answer == "far"
