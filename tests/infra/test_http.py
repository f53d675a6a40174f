"""Outgoing HTTP: exactly the pinned certificate, and nothing that is inside."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from minuet.infra import http
from minuet.kernel.errors import Forbidden
from minuet.server import keys
from minuet.server.keys import Certificate
from minuet.server.settings import Listen


@pytest.fixture
async def tls(tmp_path: Path) -> AsyncIterator[tuple[str, Certificate, list[bytes]]]:
    made = keys.certificate(tmp_path, Listen())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    received: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(100))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    yield f"https://127.0.0.1:{port}/", made, received
    server.close()


async def test_the_pinned_certificate_is_accepted_without_an_authority(
    tls: tuple[str, Certificate, list[bytes]],
) -> None:
    url, made, _ = tls
    async with http.client(fingerprint=made.fingerprint) as client:
        assert (await client.get(url)).text == "ok"


async def test_another_certificate_is_refused_before_anything_is_sent(
    tls: tuple[str, Certificate, list[bytes]],
) -> None:
    url, _, received = tls
    async with http.client(fingerprint="00" * 32) as client:
        with pytest.raises(Forbidden) as caught:
            await client.get(url, headers={"Authorization": "Bearer secret"})
    assert caught.value.code == "WrongCertificate"
    assert not any(received)


async def test_without_a_pin_the_usual_authorities_decide(tls: tuple[str, Certificate, list[bytes]]) -> None:
    async with http.client() as client:
        with pytest.raises(httpx2.ConnectError):
            await client.get(tls[0])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "localhost", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "0.0.0.0",
        "[::1]", "[fe80::1]", "[fc00::1]", "[::ffff:127.0.0.1]", "2130706433", "100.64.0.1", "224.0.0.1",
    ],
)  # fmt: skip
async def test_addresses_inside_are_refused(address: str) -> None:
    async with http.client(guard=http.public_only()) as client:
        with pytest.raises(Forbidden) as caught:
            await client.get(f"http://{address}:9/")
    assert caught.value.code == "AddressForbidden"


async def test_an_allowed_network_is_let_through() -> None:
    async with http.client(guard=http.public_only(["127.0.0.0/8"])) as client:
        with pytest.raises(httpx2.ConnectError):
            await client.get("http://127.0.0.1:9/")


async def test_a_redirect_is_not_followed_and_no_proxy_of_the_environment_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with http.client() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 302
    server.close()
