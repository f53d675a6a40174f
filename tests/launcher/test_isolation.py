"""What an application can see and reach from inside of its sandbox: itself, and the outside."""

import json
import os
import socket
from pathlib import Path

import pytest

from minuet.agent.drivers.process.driver import ProcessDriver
from minuet.protocol.desired import Resources
from tests.given.runtime import Installation, get, ready

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

PROBE = """
import ctypes, http.server, json, os, pathlib, socket, sys
def tried(act):
    try: return repr(act())
    except BaseException as error: return type(error).__name__
def dial(address, port):
    with socket.create_connection((address, port), 1.5): return "connected"
libc = ctypes.CDLL(None, use_errno=True)
def call(result):
    if result < 0: raise OSError(ctypes.get_errno(), "refused")
    return result
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        words = self.path[1:].split("/", 1)
        answers = {
            "": lambda: "hello",
            "files": lambda: {path: tried(lambda: os.listdir(path)) for path in sys.argv[1:]},
            "writes": lambda: {path: tried(lambda: pathlib.Path(path).write_text("x")) for path in
                               ("/app/x", "/usr/x", "/etc/x", "/x", "/tmp/x")},
            "processes": lambda: [name for name in os.listdir("/proc") if name.isdigit()],
            "environment": lambda: [dict(os.environ), pathlib.Path("/proc/1/environ").read_text()],
            "status": lambda: pathlib.Path("/proc/self/status").read_text(),
            "dial": lambda: tried(lambda: dial(words[1].split(":")[0], int(words[1].split(":")[1]))),
            "unshare": lambda: tried(lambda: call(libc.unshare(0x10000000))),
            "mount": lambda: tried(lambda: call(libc.mount(b"x", b"/tmp", b"tmpfs", 0, None))),
            "ptrace": lambda: tried(lambda: call(libc.ptrace(0, 0, 0, 0))),
        }
        body = json.dumps(answers[words[0]]()).encode()
        self.send_response(200); self.end_headers(); self.wfile.write(body)
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""


async def started(given: Installation, driver: ProcessDriver, name: str, key: str) -> str:
    seen = f"{given.data} /run/minuet /home /root /sys"
    spec = await given.spec(
        name, {"probe.py": PROBE}, key=key, command=f"exec python3 probe.py {seen}", resources=Resources(cpu=2)
    )
    await driver.start(spec)
    return str((await ready(driver, name)).address)


async def asked(address: str, question: str) -> object:
    return json.loads(await get(address, f"/{question}"))


async def test_an_application_is_alone_in_its_sandbox(given: Installation) -> None:
    driver = await ProcessDriver.open(given.client(), given.plane)
    one = await started(given, driver, "one", "cmp_1/env_1")
    two = await started(given, driver, "two", "cmp_2/env_1")

    files = await asked(one, "files")
    assert isinstance(files, dict)
    assert set(files.values()) <= {"FileNotFoundError"}
    assert await asked(one, "writes") == {
        "/app/x": "OSError", "/usr/x": "OSError", "/etc/x": "OSError", "/x": "OSError", "/tmp/x": "1",
    }  # fmt: skip
    processes = await asked(one, "processes")
    assert isinstance(processes, list)
    assert len(processes) <= 3

    environment, first = await asked(one, "environment")  # type: ignore[misc]
    assert set(environment) <= {"PATH", "HOME", "LANG", "TMPDIR", "PORT", "PWD", "LC_CTYPE"}
    assert first == ""

    status = dict(line.split(":\t", 1) for line in str(await asked(one, "status")).splitlines() if ":\t" in line)
    assert int(status["CapBnd"], 16) == 0
    assert int(status["CapEff"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for attack in ("unshare", "mount", "ptrace"):
        assert await asked(one, attack) in ("OSError", "PermissionError"), attack

    assert await asked(one, f"dial/{two}:8080") != "'connected'"
    assert await get(two, "/processes")
    await driver.close()


async def test_the_machine_cannot_be_reached_but_the_outside_can(given: Installation) -> None:
    driver = await ProcessDriver.open(given.client(), given.plane)
    one = await started(given, driver, "one", "cmp_1/env_1")
    loopback, everywhere = socket.create_server(("127.0.0.1", 0)), socket.create_server(("0.0.0.0", 0))
    hub = one.rsplit(".", 1)[0] + ".1"
    own = _own_address()
    for address, server in (("127.0.0.1", loopback), (hub, everywhere), (own, everywhere)):
        assert await asked(one, f"dial/{address}:{server.getsockname()[1]}") != "'connected'", address
    assert await asked(one, "dial/169.254.169.254:80") != "'connected'"
    if (outside := _something_outside()) is not None:
        assert await asked(one, f"dial/{outside}:80") == "'connected'"
    loopback.close()
    everywhere.close()
    await driver.close()


async def test_tenants_have_uids_of_their_own(given: Installation) -> None:
    driver = await ProcessDriver.open(given.client(), given.plane)
    await started(given, driver, "one", "cmp_1/env_1")
    await started(given, driver, "two", "cmp_2/env_1")
    uids = {(given.plane / "instances" / name).stat().st_uid for name in ("one", "two")}
    shims = [entry["shim"] for entry in await given.client().instances()]
    assert len(uids) == 2
    # What may not be traced has files below /proc that belong to root, whoever it runs as.
    assert {Path(f"/proc/{pid}/maps").stat().st_uid for pid in shims} == {0}
    assert {_uid_of(pid) for pid in shims} == uids
    await driver.close()


def _uid_of(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:"))
    return int(line.split()[1])


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.200", 9))
        return str(probe.getsockname()[0])


def _something_outside() -> str | None:
    """An address outside that accepts connections from this machine, if there is one."""
    for address in ("192.0.2.1", "1.1.1.1"):
        try:
            with socket.create_connection((address, 80), 1):
                return address
        except OSError:
            continue
    return None
