"""The gateway answers again by itself, with nobody else alive, and never from a damaged file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from pathlib import Path

import orjson
import pytest

from minuet.agent.gateway import GatewayHost
from minuet.gateway.bootstrap import bootstrap
from minuet.gateway.compiler import Compiled, Kind, compile_table
from minuet.gateway.envoy import Envoy
from minuet.gateway.model import RoutingTable
from minuet.gateway.settings import GatewaySettings
from minuet.gateway.shim import Shim
from minuet.gateway.snapshot import FILES, Address, Snapshot
from minuet.kernel.retry import GiveUp, Retry
from tests.given.gateway import HOST, Gateway, backend, route, table
from tests.given.load import Load
from tests.given.platform import eventually
from tests.given.upstream import Upstream

pytestmark = pytest.mark.envoy


def _answers(gateway: Gateway) -> bool:
    with contextlib.suppress(OSError):
        return gateway.get().status == 200
    return False


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def test_a_killed_envoy_answers_again_within_a_second(gateway: Gateway, upstream: Upstream) -> None:
    gateway.apply(table(upstream.port))
    for _ in range(3):
        gateway.kill_envoy()
        killed = time.monotonic()
        eventually(lambda: _answers(gateway), 5, "the gateway answers again")
        assert time.monotonic() - killed < 1.0


def test_a_killed_shim_costs_no_request_and_the_next_one_takes_its_envoy_over(
    gateway: Gateway, upstream: Upstream
) -> None:
    gateway.apply(table(upstream.port))
    before = gateway.envoy()
    with Load(gateway.port, HOST) as load:
        gateway.shim.kill()
        gateway.shim.wait()
        gateway.start()
        asked = len(load.answers)
        eventually(lambda: len(load.answers) > asked + 30, what="the load goes on")
    assert load.failures == []
    assert gateway.envoy() == before
    killed = gateway.kill_envoy()
    eventually(lambda: not _lives(killed) and _answers(gateway), 5, "the new shim watches the old Envoy")
    assert gateway.envoy() != before


def test_a_second_shim_on_one_directory_says_so_and_ends(gateway: Gateway, upstream: Upstream) -> None:
    gateway.apply(table(upstream.port))
    first = gateway.shim
    second = gateway.start()
    assert second.wait(10) == 2
    gateway.shim = first
    assert "another gateway runs" in gateway.log()
    assert gateway.get().status == 200


def test_after_a_reboot_it_serves_from_disk_alone(gateway: Gateway, upstream: Upstream) -> None:
    gateway.apply(table(upstream.port))
    gateway.shim.kill()
    gateway.shim.wait()
    gateway.kill_envoy()
    gateway.start()
    started = time.monotonic()
    eventually(lambda: _answers(gateway), 10, "it serves again")
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("name", FILES.values())
def test_a_torn_file_is_not_believed(gateway: Gateway, upstream: Upstream, name: str) -> None:
    gateway.apply(table(upstream.port))
    file = gateway.directory / name
    file.write_bytes(file.read_bytes()[:200])
    gateway.kill_envoy()
    eventually(lambda: _answers(gateway), 5, "it serves from the accepted set")
    assert "torn" in gateway.log()


def test_files_that_envoy_refuses_at_start_give_way_to_the_accepted_ones(gateway: Gateway, upstream: Upstream) -> None:
    """The agent died between writing them and hearing of it, then the machine went down."""
    gateway.apply(table(upstream.port))
    bad = compile_table(table(upstream.port), "127.0.0.1", gateway.port)
    _no_router(bad)
    Snapshot(gateway.directory).write(_resealed(bad))
    gateway.kill_envoy()
    eventually(lambda: _answers(gateway), 20, "it serves from the accepted set")
    assert "does not come up" in gateway.log()


def test_a_listener_whose_port_is_taken_is_tried_again(tmp_path: Path, upstream: Upstream) -> None:
    gateway = Gateway(tmp_path)
    try:
        with socket.create_server(("127.0.0.1", gateway.port)):
            Snapshot(gateway.directory).write(compile_table(table(upstream.port), "127.0.0.1", gateway.port))
            eventually(lambda: "starting it again" in gateway.log(), 20, "it notices")
        eventually(lambda: _answers(gateway), 20, "it serves once the port is free")
    finally:
        gateway.stop()


def test_an_envoy_that_listens_but_does_not_answer_at_once_is_waited_for(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that is so busy that requests take longer than they should."""
    monkeypatch.setattr("minuet.gateway.shim._DEAF_SECONDS", 0.1)
    gateway = Gateway(tmp_path)
    gateway.stop()
    compiled = compile_table(table(upstream.port), "127.0.0.1", gateway.port)
    Snapshot(gateway.directory).write(compiled)
    (gateway.directory / "bootstrap.json").write_text(json.dumps(bootstrap()))
    shim = Shim(GatewaySettings(gateway.directory))
    envoy = _Slow.start(shim._settings)
    try:
        assert isinstance(envoy, _Slow)
        assert shim._watch_start(envoy, Address("127.0.0.1", gateway.port))
        assert envoy.asked_while_live > 20
    finally:
        envoy.end()
        envoy.forget()


class _Slow(Envoy):
    """A real one whose answers are held back for a while once it is live."""

    live_since = 0.0
    asked_while_live = 0

    def answers(self, host: str, port: int) -> bool:
        if not self.live_since:
            self.live_since = time.monotonic() if super().answers(host, port) else 0.0
            return False
        self.asked_while_live += 1
        return time.monotonic() - self.live_since > 0.6


def test_a_snapshot_that_cannot_be_written_is_told_and_tried_again(gateway: Gateway, upstream: Upstream) -> None:
    gateway.apply(table(upstream.port))
    blocked = gateway.directory / ".routes.json.new"
    blocked.mkdir()
    with pytest.raises(Retry, match="snapshot cannot be written"):
        asyncio.run(gateway.host.apply(table(upstream.port, base_path="/v2")))
    blocked.rmdir()
    gateway.apply(table(upstream.port, base_path="/v2"))
    assert (gateway.get("/v2").status, gateway.get("/").status) == (200, 404)


def _unknown_policy(compiled: Compiled) -> None:
    _first(compiled.clusters)["lb_policy"] = "NO_SUCH_POLICY"


def _bad_expression(compiled: Compiled) -> None:
    _first(compiled.routes)["virtual_hosts"][0]["routes"][0]["match"] = {"safe_regex": {"regex": "("}}


def _unknown_field(compiled: Compiled) -> None:
    _first(compiled.routes)["virtual_hosts"][0]["no_such_field"] = 1


def _no_router(compiled: Compiled) -> None:
    _first(compiled.listeners)["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"].pop()


REFUSED_BY_ENVOY = {
    "clusters": (_unknown_policy, "NO_SUCH_POLICY"),
    "routes": (_bad_expression, "missing )"),
    "a field that nobody knows": (_unknown_field, "no_such_field"),
    "listeners": (_no_router, "is the last filter"),
}


@pytest.mark.parametrize("what", REFUSED_BY_ENVOY)
def test_a_configuration_that_envoy_refuses_changes_nothing(
    gateway: Gateway, upstream: Upstream, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler makes no such thing, so the test puts the defect in after it."""
    gateway.apply(table(upstream.port))
    accepted = {name: (gateway.directory / name).read_bytes() for name in FILES.values()}

    def broken(*arguments):
        compiled = compile_table(*arguments)
        REFUSED_BY_ENVOY[what][0](compiled)
        return _resealed(compiled)

    with monkeypatch.context() as patch:
        patch.setattr("minuet.agent.gateway.compile_table", broken)
        with Load(gateway.port, HOST) as load:
            with pytest.raises(GiveUp) as caught:
                gateway.apply(table(upstream.port, base_path="/v2"))
            asked = len(load.answers)
            eventually(lambda: len(load.answers) > asked + 20, what="the load goes on")
    assert load.failures == []
    assert caught.value.reason == "GatewayRejected"
    assert REFUSED_BY_ENVOY[what][1] in str(caught.value)
    for name, content in accepted.items():
        assert orjson.loads((gateway.directory / name).read_bytes()) == orjson.loads(content)
    gateway.apply(table(upstream.port, base_path="/v3"))
    assert gateway.get("/v3").status == 200
    gateway.kill_envoy()
    eventually(lambda: gateway.is_ready() and gateway.get("/v3").status == 200, 5, "it restarts with the good one")


def test_a_restarted_agent_finds_its_table_in_force_and_writes_nothing(gateway: Gateway, upstream: Upstream) -> None:
    gateway.apply(table(upstream.port))
    before = {name: (gateway.directory / name).stat().st_ino for name in FILES.values()}
    successor = GatewayHost(gateway.directory, "127.0.0.1", gateway.port)
    asyncio.run(successor.apply(table(upstream.port)))
    assert {name: (gateway.directory / name).stat().st_ino for name in FILES.values()} == before


def test_a_restarted_agent_does_not_lose_what_it_forgot(gateway: Gateway, upstream: Upstream) -> None:
    gateway.apply(table(upstream.port))
    for damage in (None, "routes.json"):
        if damage:
            (gateway.directory / damage).write_text("{")
        successor = GatewayHost(gateway.directory, "127.0.0.1", gateway.port)
        with pytest.raises(GiveUp, match="would vanish"):
            asyncio.run(successor.apply(RoutingTable()))
    assert gateway.get().status == 200


def test_a_table_written_while_envoy_is_down_is_served_when_it_returns(tmp_path: Path, upstream: Upstream) -> None:
    gateway = Gateway(tmp_path)
    try:
        gateway.shim.terminate()
        gateway.shim.wait(10)
        host = GatewayHost(gateway.directory, "127.0.0.1", gateway.port)
        assert not asyncio.run(host.ready())
        assert asyncio.run(host.active_requests(backend("one").key)) is None
        gateway.start()
        gateway.apply(table(upstream.port), host=host)
        assert gateway.get().status == 200
        assert asyncio.run(host.ready())
    finally:
        gateway.stop()


def test_a_table_that_envoy_never_confirmed_is_not_taken_for_applied(gateway: Gateway, upstream: Upstream) -> None:
    gateway.apply(table(upstream.port))
    envoy = gateway.envoy()
    eventually(lambda: f"Envoy {envoy} answers" in gateway.log(), 10, "the shim has seen it come up")
    os.kill(envoy, signal.SIGSTOP)
    try:
        for _ in range(2):
            with pytest.raises(Retry):
                asyncio.run(gateway.host.apply(table(upstream.port, base_path="/v2")))
    finally:
        os.kill(envoy, signal.SIGCONT)
    gateway.apply(table(upstream.port, base_path="/v2"))
    assert (gateway.get("/v2").status, gateway.get("/").status) == (200, 404)


def test_nobody_else_reads_the_admin_socket_or_the_snapshot(gateway: Gateway, upstream: Upstream) -> None:
    gateway.apply(table(upstream.port))
    for name in ("admin.sock", *FILES.values(), "good.json", "bootstrap.json"):
        assert (gateway.directory / name).stat().st_mode & 0o007 == 0, name


def test_it_is_small(gateway: Gateway, upstream: Upstream) -> None:
    gateway.apply(table(upstream.port))
    status = Path(f"/proc/{gateway.shim.pid}/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0])
    assert resident < 32 * 1024


def test_the_death_of_its_terminal_and_its_log_do_not_end_it(gateway: Gateway, upstream: Upstream) -> None:
    gateway.apply(table(upstream.port))
    os.kill(gateway.shim.pid, signal.SIGHUP)
    os.kill(gateway.shim.pid, signal.SIGPIPE)
    gateway.kill_envoy()
    eventually(lambda: _answers(gateway), 5, "it is still there")


def test_three_hundred_components_are_back_within_a_second_and_a_half(gateway: Gateway, upstream: Upstream) -> None:
    names = [f"v{number}" for number in range(300)]
    routes = tuple(route(name, host=f"{name}.localhost", owner=name) for name in names)
    gateway.apply(RoutingTable(routes, tuple(backend(name, upstream.port) for name in names)))
    gateway.kill_envoy()
    killed = time.monotonic()
    eventually(gateway.is_ready, 10, "it answers")
    assert gateway.get(host="v299.localhost").status == 200
    assert time.monotonic() - killed < 1.5


def _first(kind):
    return next(iter(kind.resources.values()))


def _resealed(compiled):
    """The same with versions that fit its content, as a defect of the compiler would leave it."""
    copied = json.loads(json.dumps({kind: list(getattr(compiled, kind).resources.values()) for kind in FILES}))
    return Compiled(**{kind: Kind.of(resources) for kind, resources in copied.items()})
