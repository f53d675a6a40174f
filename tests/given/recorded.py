"""A small real HTTP server that gives prepared answers and remembers what it was asked.

For what a healthy server never does: broken streams, wrong certificates, foreign
answers, texts that attack a terminal. Everything else is tested with the real one.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Answer:
    """What is sent: `chunks` one after the other; `cut` drops the connection after them, `hold` keeps it silent."""

    status: int = 200
    chunks: tuple[bytes, ...] = ()
    media_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    cut: bool = False
    hold: bool = False


def document(value: Any, status: int = 200) -> Answer:
    return Answer(status, (json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"),))


def problem(status: int, family: str, code: str, detail: str, **more: Any) -> Answer:
    body = {"type": f"urn:minuet:problem:{code}", "title": "x", "status": status, "code": code, "family": family}
    value = body | {"detail": detail} | more
    return Answer(status, (json.dumps(value).encode(),), "application/problem+json")


def event(name: str, data: Any, identifier: str | None = None) -> bytes:
    mark = f"id: {identifier}\n" if identifier else ""
    return f"{mark}event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def stream(*chunks: bytes, cut: bool = False, hold: bool = False) -> Answer:
    return Answer(200, chunks, "text/event-stream", cut=cut, hold=hold)


@dataclass
class Recorded:
    """Answers by `METHOD /path`; several are given one after the other, the last one for ever."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    def on(self, route: str, *answers: Answer) -> None:
        self.answers[route] = list(answers)

    def next(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        found = self.answers.get(f"{asked.method} {asked.path}")
        if not found:
            return problem(404, "NotFound", "RouteNotFound", f"nothing prepared for {asked.method} {asked.path}")
        return found.pop(0) if len(found) > 1 else found[0]

    def requests(self, route: str) -> list[Asked]:
        return [asked for asked in self.asked if f"{asked.method} {asked.path}" == route]


@contextlib.contextmanager
def serving(tls: Callable[[], ssl.SSLContext] | None = None) -> Iterator[Recorded]:
    """Yields a started server on a free port of loopback."""
    recorded = Recorded()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(recorded))
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls().wrap_socket(server.socket, server_side=True)
    recorded.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield recorded
    finally:
        recorded.released.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def _handler(recorded: Recorded) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = recorded.next(Asked(self.command, parts.path, dict(parse_qsl(parts.query)), headers, body))
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.media_type)
            self.send_header("Connection", "close")
            if answer.media_type == "text/event-stream":
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(sum(map(len, answer.chunks))))
            for name, value in answer.headers:
                self.send_header(name, value)
            self.end_headers()
            self._send(answer)
            self.close_connection = True

        def _send(self, answer: Answer) -> None:
            is_stream = answer.media_type == "text/event-stream"
            for chunk in answer.chunks:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk) if is_stream else chunk)
            if answer.hold:
                recorded.released.wait(60)
            if is_stream and not answer.cut and not answer.hold:
                self.wfile.write(b"0\r\n\r\n")

        do_GET = do_POST = do_PATCH = do_DELETE = _answer

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the library's name
            pass

    return Handler
