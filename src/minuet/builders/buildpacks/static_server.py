"""Serves a folder of files: the program inside every static artifact, run by the system's Python alone.

Ranges, conditional requests, content types and index pages. With `--single-page`
the index page also answers the paths that a front end's own code knows, which
have no suffix; a missing asset is a 404, never somebody else's page. It stays
one file, because it is shipped as one.
"""

import contextlib
import functools
import hashlib
import http.server
import mimetypes
import os
import posixpath
import re
import shutil
import sys
import urllib.parse
from http import HTTPStatus

_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".svg": "image/svg+xml"}
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection, kept alive."""

    protocol_version = "HTTP/1.1"
    server_version = "minuet-static"
    sys_version = ""
    root = "."
    single_page = False

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = self._path()
        if path is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        if os.path.isdir(path):  # noqa: PTH112 - a path for every request, pathlib costs more than the answer
            if not self.path.partition("?")[0].endswith("/"):
                self._redirect()
                return
            path = f"{path}/index.html"
        if not os.path.isfile(path) and self._is_page():  # noqa: PTH113 - as the library this extends does
            path = f"{self.root}/index.html"
        try:
            file = open(path, "rb")  # noqa: PTH123, SIM115
        except OSError:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        with file:
            self._send(file, path, body=body)

    def _is_page(self) -> bool:
        """Whether a path that is no file may be a page of the front end's own: its last part has no suffix."""
        path = self.path.partition("?")[0].partition("#")[0]
        return self.single_page and "." not in posixpath.basename(path)

    def _path(self) -> str | None:
        """The file asked for, if it lies below the root, links resolved."""
        asked = urllib.parse.unquote(self.path.partition("?")[0].partition("#")[0])
        if "\0" in asked:
            return None
        clean = posixpath.normpath("/" + asked.lstrip("/"))
        path = os.path.realpath(self.root + clean)
        return path if path == self.root or path.startswith(self.root + "/") else None

    def _send(self, file: object, path: str, *, body: bool) -> None:
        state = os.fstat(file.fileno())  # type: ignore[attr-defined]
        tag = f'"{digest_of(path)}"'
        if self.headers.get("If-None-Match") == tag:
            self._head(HTTPStatus.NOT_MODIFIED, tag, path)
            self.end_headers()
            return
        start, end = self._range(state.st_size)
        if start > end and state.st_size:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{state.st_size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        whole = (start, end) == (0, state.st_size - 1)
        self._head(HTTPStatus.OK if whole else HTTPStatus.PARTIAL_CONTENT, tag, path)
        self.send_header("Content-Length", str(end - start + 1))
        if not whole:
            self.send_header("Content-Range", f"bytes {start}-{end}/{state.st_size}")
        self.end_headers()
        if body:
            file.seek(start)  # type: ignore[attr-defined]
            with contextlib.suppress(OSError):
                copy(file, self.wfile, end - start + 1)

    def _range(self, size: int) -> tuple[int, int]:
        found = _RANGE.fullmatch(self.headers.get("Range", ""))
        if not found or not (found[1] or found[2]):
            return 0, size - 1
        if not found[1]:
            return max(0, size - int(found[2])), size - 1
        return int(found[1]), min(int(found[2] or size), size - 1)

    def _head(self, status: HTTPStatus, tag: str, path: str) -> None:
        suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122
        kind = _TYPES.get(suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream"
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)
        self.send_header("ETag", tag)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("X-Content-Type-Options", "nosniff")

    def _redirect(self) -> None:
        path, _, query = self.path.partition("?")
        place = "/" + path.lstrip("/") + "/" + (f"?{query}" if query else "")
        self.send_response(HTTPStatus.MOVED_PERMANENTLY)
        self.send_header("Location", place)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _refuse(self, status: HTTPStatus) -> None:
        text = f"{status.value} {status.phrase}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)


@functools.lru_cache(maxsize=4096)
def digest_of(path: str) -> str:
    """What a file's content is told by; computed once, since an artifact never changes and all its files have one time."""
    with open(path, "rb") as file:  # noqa: PTH123
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def copy(source: object, target: object, length: int) -> None:
    while length > 0:
        data = source.read(min(length, shutil.COPY_BUFSIZE))  # type: ignore[attr-defined]
        if not data:
            return
        target.write(data)  # type: ignore[attr-defined]
        length -= len(data)


class Server(http.server.ThreadingHTTPServer):
    """One thread for each connection; a burst of them waits in the queue instead of being refused."""

    request_queue_size = 128


def main() -> None:
    Handler.root = os.path.realpath(sys.argv[1])
    Handler.single_page = "--single-page" in sys.argv[2:]
    server = Server(("0.0.0.0", int(os.environ["PORT"])), Handler)  # noqa: S104 - a sandbox reached by the gateway alone
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
