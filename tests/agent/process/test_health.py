"""A declared health check over a real application whose answers turn bad and good again."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any

import pytest

from minuet.agent.drivers.port import InstanceState
from minuet.agent.drivers.process.driver import ProcessDriver
from minuet.kernel.health import ProbeKind
from minuet.protocol.desired import Probe
from minuet.protocol.observed import InstancePhase
from tests.given.runtime import Installation, eventually, get, ready, seen

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

APP = """
import http.server, os, sys
health, asked = [int(sys.argv[1])], []
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = 200, b"hello"
        if self.path == "/healthz":
            status = health[0]; asked.append(status); print("checked", flush=True)
        elif self.path.startswith("/turn/"):
            health[0] = int(self.path[6:])
        elif self.path == "/crash":
            os._exit(1)
        elif self.path == "/asked":
            body = " ".join(map(str, asked)).encode()
        self.send_response(status); self.end_headers(); self.wfile.write(body)
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""
CHECK = Probe(port=8080, path="/healthz", period=0.05, timeout=2.0, failure_threshold=2, success_threshold=2)


async def start(given: Installation, driver: ProcessDriver, status: int = 200, **check: Any) -> None:
    probe = CHECK.model_copy(update=check)
    command = f"exec python3 -S app.py {status}"
    await driver.start(await given.spec(files={"app.py": APP}, command=command, health=probe))


async def turn(state: InstanceState, status: int) -> None:
    await get(str(state.address), f"/turn/{status}")


async def asked(state: InstanceState) -> list[str]:
    return (await get(str(state.address), "/asked")).split()


async def unhealthy(driver: ProcessDriver) -> InstanceState:
    return await seen(driver, lambda state: state.reason == "Unhealthy" and not state.ready)


async def test_an_instance_is_out_after_failures_in_a_row_and_back_after_successes(
    given: Installation, driver: ProcessDriver
) -> None:
    await start(given, driver)
    state = await ready(driver)
    await turn(state, 503)
    out = await unhealthy(driver)
    assert out.phase is InstancePhase.RUNNING
    assert out.message == "Its health check failed 2 times in a row: status 503 for /healthz."
    assert "checked" in out.log_tail
    assert out.restarts == 0, "it is left alone, it only gets no requests"
    before = len(await asked(state))
    await turn(state, 204)
    back = await ready(driver)
    assert (back.reason, back.message) == (None, None)
    assert (await asked(state))[before:].count("204") >= CHECK.success_threshold


async def test_one_failure_below_the_threshold_changes_nothing(given: Installation, driver: ProcessDriver) -> None:
    await start(given, driver, failure_threshold=1000)
    state = await ready(driver)
    await turn(state, 500)

    async def failed_often() -> bool:
        return (await asked(state)).count("500") >= 5

    await eventually(failed_often)
    assert (await ready(driver)).reason is None


async def test_a_version_that_fails_its_check_is_never_ready_and_says_what_it_heard(
    given: Installation, driver: ProcessDriver
) -> None:
    await start(given, driver, status=500)
    state = await seen(driver, lambda state: state.reason == "ProbeFailed")
    assert not state.ready
    assert "status 500 for /healthz" in (state.message or "")
    await turn(state, 200)
    await ready(driver)
    assert (await asked(state)).count("200") >= CHECK.success_threshold


async def test_a_check_that_is_a_connection_needs_no_answer(given: Installation, driver: ProcessDriver) -> None:
    await start(given, driver, status=500, kind=ProbeKind.TCP)
    state = await ready(driver)
    assert await asked(state) == []


async def test_a_silent_application_fails_when_its_time_is_up(given: Installation, driver: ProcessDriver) -> None:
    silent = "import os,socket,time\ns=socket.socket();s.bind(('0.0.0.0',8080));s.listen(50);time.sleep(600)"
    probe = CHECK.model_copy(update={"timeout": 0.2})
    await driver.start(await given.spec(files={"a.py": silent}, command="exec python3 -S a.py", health=probe))
    state = await seen(driver, lambda state: state.reason == "ProbeFailed")
    assert "no answer within 0.2 s" in (state.message or "")


async def test_the_first_check_waits_for_its_delay(given: Installation, driver: ProcessDriver) -> None:
    await start(given, driver, initial_delay=1.0)
    state = await ready(driver)
    assert state.started_at is not None
    assert time.time() - state.started_at.timestamp() >= 1.0


@pytest.mark.parametrize("healthy", [True, False])
async def test_an_agent_that_comes_back_goes_on_with_the_last_verdict(
    given: Installation, driver: ProcessDriver, healthy: bool
) -> None:
    await start(given, driver)
    state = await ready(driver)
    if not healthy:
        await turn(state, 503)
        state = await unhealthy(driver)
    await driver.close()
    await turn(state, 503 if healthy else 200)
    note = given.plane / "process/instances/one.json"
    patient = Probe(port=8080, path="/healthz", period=600, failure_threshold=1000, success_threshold=10)
    note.write_text(json.dumps(json.loads(note.read_text()) | {"probe": patient.model_dump_json()}))
    second = await ProcessDriver.open(given.client(), given.plane)
    try:
        known = await seen(second, lambda state: state.phase is InstancePhase.RUNNING)
        assert (known.ready, known.reason, known.message) == (state.ready, state.reason, state.message)

        async def asked_again() -> bool:
            return (await asked(state))[-1] == ("503" if healthy else "200")

        await eventually(asked_again)
        (still,) = await second.observe()
        assert (still.ready, still.reason) == (state.ready, state.reason), "one answer alone turns no verdict"
    finally:
        await second.close()


async def test_an_application_that_was_restarted_has_to_pass_again(given: Installation, driver: ProcessDriver) -> None:
    await start(given, driver)
    state = await ready(driver)
    with contextlib.suppress(OSError):
        await get(str(state.address), "/crash")
    await seen(driver, lambda state: not state.ready)
    again = await ready(driver)
    assert again.restarts == 1
    assert (await asked(again)).count("200") >= CHECK.success_threshold
    await driver.stop("one", 0.2)
    await driver.remove("one")
    assert list((given.plane / "process/instances").iterdir()) == []
