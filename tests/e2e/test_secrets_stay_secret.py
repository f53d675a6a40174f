"""Canaries: secrets of the platform and of tenants are looked for wherever they must not be."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from tests.e2e.test_deploy_from_git import build, create, deploy
from tests.given.platform import Platform, eventually
from tests.given.repository import Repository

CANARY = "canary-7f3d9b2e-do-not-leak"

SPY = """\
import concurrent.futures, http.server, json, os, pathlib, socket

def look():
    seen = {"environ": dict(os.environ), "uid": os.getuid(), "files": [], "ports": []}
    for place in ("/run/minuet", "/root", "/home", "/proc/1/environ", "/etc/shadow", "/sys/fs/cgroup"):
        try:
            path = pathlib.Path(place)
            seen["files"].append([place, path.read_text(errors="replace") if path.is_file() else os.listdir(place)])
        except OSError as error:
            seen["files"].append([place, type(error).__name__])
    seen["processes"] = [pathlib.Path(p, "cmdline").read_bytes().decode(errors="replace")
                         for p in sorted(pathlib.Path("/proc").glob("[0-9]*"))]
    with concurrent.futures.ThreadPoolExecutor(64) as several:
        seen["ports"] = list(filter(None, several.map(dial, [(host, port) for port in PORTS for host in HOSTS])))
    return seen

def dial(place):
    try:
        socket.create_connection(place, 1.0).close()
    except OSError:
        return None
    return place

PORTS, HOSTS = json.loads(os.environ["LOOK_AT"])

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(look() if self.path == "/look" else "here").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""


def own_addresses() -> list[str]:
    shown = subprocess.run(["ip", "-o", "-4", "addr"], capture_output=True, text=True, check=True).stdout
    return ["127.0.0.1", *{line.split()[3].partition("/")[0] for line in shown.splitlines()} - {"127.0.0.1"}]


def test_an_application_sees_nothing_of_this_machine(platform: Platform, repository: Repository) -> None:
    import json

    repository.commit({"app.py": SPY, "Procfile": "web: python app.py\n"})
    create(platform, "spy", repository)
    build(platform, "spy")
    with socket.create_server(("0.0.0.0", 0)) as listener:
        ports = [*platform.ports.values(), listener.getsockname()[1]]
        look = json.dumps([ports, own_addresses()])
        where = ("--project", "shop", "--env", "Development")
        platform.cli("set", "config", "spy", f"LOOK_AT={look}", "--secret", f"SECRET={CANARY}", *where)
        deploy(platform, "spy", "Development")
        status, body = platform.fetch(platform.url("spy", path="/look"), timeout=100)
    assert status == 200, body
    seen = json.loads(body)
    assert seen["environ"]["SECRET"] == CANARY, "the application itself gets its secret"
    assert seen["ports"] == [], "nothing of this machine can be reached"
    assert not any(CANARY in command for command in seen["processes"])
    assert len(seen["processes"]) < 6, "only its own processes can be seen"
    for place, content in seen["files"]:
        if place == "/proc/1/environ":
            assert CANARY not in str(content)
        elif place != "/home":
            assert content in ("FileNotFoundError", "PermissionError", "NotADirectoryError"), (place, content)


def test_a_secret_is_nowhere_in_the_clear(platform: Platform, repository: Repository) -> None:
    create(platform, "keeper", repository)
    build(platform, "keeper")
    where = ("--project", "shop", "--env", "Development")
    platform.cli("set", "config", "keeper", "--secret", f"SECRET={CANARY}", *where)
    deploy(platform, "keeper", "Development")
    eventually(lambda: platform.fetch(platform.url("keeper"))[0] == 200)
    assert holders_on_disk(platform.data) == []
    assert holders_in_processes() == []
    for words in (
        ("describe", "component", "keeper", "--project", "shop", "-o", "json"),
        ("list", "config", "keeper", *where, "-o", "json"),
        ("list", "deployments", "--component", "keeper", "--project", "shop", "-o", "json"),
        ("export", "--project", "shop"),
    ):
        assert CANARY not in platform.cli(*words).stdout


def holders_on_disk(directory: Path) -> list[str]:
    """Files of the installation that hold the canary: databases, logs, inventory, snapshots, artifacts, states."""
    files = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return [str(path.relative_to(directory)) for path in files if CANARY.encode() in path.read_bytes()]


def holders_in_processes() -> list[str]:
    """Processes whose command line, or whose environment as another user could ask for it, holds the canary.

    The application itself is the one that may have it, in its own environment.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        application = b"python\0app.py" in command or b"web: " in command or command.startswith(b"/bin/sh\0-c")
        if CANARY.encode() in command or (CANARY.encode() in environment and not application):
            found.append(command.decode(errors="replace"))
    return found
