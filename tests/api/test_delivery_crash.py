"""The server is killed at any moment; what it answered for is delivered, once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.given import agents, servers, shops
from tests.given.builders import Builder


@pytest.mark.parametrize("round_", range(3))
def test_a_deployment_that_was_answered_is_delivered_once_whenever_the_server_is_killed(
    tmp_path: Path, round_: int
) -> None:
    with servers.running(tmp_path / "server", servers.free_port()) as server:
        builder = Builder(server)
        builder.register()
        shop = shops.shop(servers.tenant(server), builder)
        shop.build()
        made = shop.deploy()
        for _ in range(round_):
            made = shop.call("POST", "/environments/development/redeploy", 201).json()
        server.kill()
        server.start()
        with agents.agent(server) as agent:
            agent.project = shop.project
            document = agent.until(made["id"])
            agent.report_ready(document)
            shown = shop.until("development", lambda shown: shown["phase"] == "Ready")
            assert shown["current"]["id"] == made["id"]
            again = shop.call("POST", "/environments/development/scale", 201, json={"replicas": 2}).json()
            agent.until(again["id"])
            seen = Counter(agent.seen)
    assert seen[made["id"]] == 1, "the log names each deployment once"
