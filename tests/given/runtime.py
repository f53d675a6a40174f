"""A real launcher on a data directory of its own, for tests that start real processes."""

import asyncio
import contextlib
import hashlib
import io
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import minuet
from minuet.agent.drivers.port import InstanceSpec, InstanceState
from minuet.agent.drivers.process.driver import ProcessDriver
from minuet.launcher.client import Launcher
from minuet.protocol.desired import Workload
from tests.given.documents import workload

POOL = "100.65"
SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path
        body = os.environ.get(path[5:], "") if path.startswith("/env/") else "hello"
        if path.startswith("/file/"):
            body = open(path[5:]).read()
        self.send_response(200); self.end_headers(); self.wfile.write(body.encode())
    def log_message(self, *words): print("request", words[1:], flush=True)
address, port = sys.argv[1], int(sys.argv[2] if len(sys.argv) > 2 else os.environ["PORT"])
http.server.ThreadingHTTPServer((address, port), Handler).serve_forever()
"""

Found = TypeVar("Found")


async def eventually(look: Callable[[], Awaitable[Found]], seconds: float = 10.0) -> Found:
    """Returns the first truthy thing seen; fails with the last one when the deadline passes."""
    deadline = time.monotonic() + seconds
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.01)


def tar_of(files: dict[str, str]) -> bytes:
    """A tar of text files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content.encode()), 0o755
            tar.addfile(member, io.BytesIO(content.encode()))
    return buffer.getvalue()


class Installation:
    """One data directory with a launcher that a test may kill and start again."""

    def __init__(
        self, source: Path | None = None, user: int | None = None, isolation: str = "auto", *, portable: bool = False
    ) -> None:
        self.data = Path(tempfile.mkdtemp(prefix="mn-", dir="/tmp"))
        self.plane = self.data / "plane"
        self._source = source or Path(minuet.__file__).resolve().parent.parent
        self._process: subprocess.Popen[bytes] | None = None
        self._shut_down = False
        self._user = user
        self._isolation = isolation
        self._environment = {"MINUET_PORTABLE": "1"} if portable else {}
        (self.data / "launcher").mkdir()
        self._choose_pool()
        if user is not None:
            for path in (self.data, self.data / "launcher"):
                os.chown(path, user, user)

    def _choose_pool(self) -> None:
        pool = f"{POOL}.{secrets.randbelow(256)}.0/24"
        settings = f'address_pool = "{pool}"\nisolation = "{self._isolation}"\n'
        (self.data / "launcher/settings.toml").write_text(settings, encoding="utf-8")

    def client(self, role: str = "agent") -> Launcher:
        return Launcher(self.data / "launcher/sockets" / f"{role}.sock")

    @property
    def launcher_pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Starts the launcher; a pool that another test took meanwhile is exchanged."""
        while not await self._try_start():
            self._choose_pool()

    async def _try_start(self) -> bool:
        log = (self.data / "launcher.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "minuet.launcher", "--settings", str(self.data / "launcher/settings.toml")],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(self._source), **self._environment},
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            user=self._user, group=self._user, extra_groups=None if self._user is None else [],
        )  # fmt: skip
        log.close()

        async def answers() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                assert "no address pool is free" in self.log(), self.log()
                return True
            with contextlib.suppress(Exception):
                return bool(await self.client().isolation())
            return False

        await eventually(answers, 15)
        return self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL to the launcher alone."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(5)

    def log(self) -> str:
        return (self.data / "launcher.log").read_text()

    async def shut_down(self) -> None:
        """The orderly end, of everything."""
        await self.client("supervisor").shutdown(1.0)
        assert self._process is not None
        await asyncio.to_thread(self._process.wait, 10)
        self._shut_down = True

    async def close(self) -> None:
        if not self._shut_down:
            if self._process is None or self._process.poll() is not None:
                await self.start()
            await self.shut_down()
        shutil.rmtree(self.data)

    async def layer(self, files: dict[str, str]) -> tuple[Path, str]:
        """Unpacks files as a layer that the application sees at /app."""
        tar = tar_of(files)
        digest = f"sha256:{hashlib.sha256(tar).hexdigest()}"
        with tempfile.TemporaryFile() as file:
            file.write(tar)
            file.seek(0)
            await self.client().unpack(file.fileno(), digest)
        return self.plane / "artifacts/layers" / digest[7:], "/app"

    async def spec(self, name: str = "one", files: dict[str, str] | None = None, **changes: object) -> InstanceSpec:
        """An instance of a small web server, unless `changes` say otherwise."""
        given: Workload = workload(**({"command": "exec python3 -S server.py 0.0.0.0"} | changes))
        layer = await self.layer(files or {"server.py": SERVER})
        return InstanceSpec(name, given, (layer,))


@contextlib.asynccontextmanager
async def installation(
    source: Path | None = None, user: int | None = None, isolation: str = "auto", *, portable: bool = False
) -> AsyncIterator[Installation]:
    given = Installation(source, user, isolation, portable=portable)
    await given.start()
    try:
        yield given
    finally:
        await given.close()


async def ready(driver: ProcessDriver, name: str = "one", seconds: float = 15.0) -> InstanceState:
    """Waits until the driver sees that instance ready."""
    return await seen(driver, lambda state: state.ready, name, seconds)


async def seen(
    driver: ProcessDriver, wanted: Callable[[InstanceState], bool], name: str = "one", seconds: float = 15.0
) -> InstanceState:
    """Waits, by the driver's own news, until an instance is seen in the wanted state."""
    last: InstanceState | None = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                last = next((state for state in await driver.observe() if state.id == name), None)
                if last and wanted(last):
                    return last
                await driver.changed()
    except TimeoutError:
        raise AssertionError(f"not seen within {seconds} s, but {last}") from None


async def get(address: str, path: str = "/", port: int = 8080) -> str:
    """The body of a GET at an instance's own address."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(address, port)
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
    return answer.partition(b"\r\n\r\n")[2].decode()


def processes_of(uid_from: int, uid_to: int) -> Iterator[tuple[int, str]]:
    """Every process of a range of uids, with its command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if uid_from <= entry.stat().st_uid < uid_to:
                    yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
