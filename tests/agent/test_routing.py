"""From each workload's routing to the gateway's one table."""

from __future__ import annotations

from minuet.agent.drivers.port import Location
from minuet.agent.model import Routing
from minuet.agent.routing import backend_key, owner_of, table_of
from minuet.gateway.admission import admit
from minuet.gateway.model import Endpoint
from minuet.protocol.desired import Route
from tests.given.documents import workload


def _route(port: int = 8080, base_path: str = "/", host: str = "a.localhost") -> Route:
    return Route(endpoint="web", host=host, base_path=base_path, port=port)


def test_each_port_of_each_version_has_a_backend_of_its_own() -> None:
    document = workload(routes=(_route(), _route(9090, "/admin")))
    table = table_of(
        [Routing(document, (Location("10.0.0.2"), Location("10.0.0.1")), {"old": (Location("10.0.0.9"),)})]
    )
    assert {backend.key: backend.endpoints for backend in table.backends} == {
        f"{document.key}:8080@old": (Endpoint("10.0.0.9", 8080),),
        f"{document.key}:9090@old": (Endpoint("10.0.0.9", 9090),),
        f"{document.key}:8080@{document.template}": (Endpoint("10.0.0.1", 8080), Endpoint("10.0.0.2", 8080)),
        f"{document.key}:9090@{document.template}": (Endpoint("10.0.0.1", 9090), Endpoint("10.0.0.2", 9090)),
    }
    assert [(rule.base_path, rule.backend) for rule in table.routes] == [
        ("/", backend_key(document.key, 8080, document.template)),
        ("/admin", backend_key(document.key, 9090, document.template)),
    ]


def test_a_version_that_drains_keeps_its_own_port_when_the_next_one_has_another() -> None:
    old = workload(routes=(_route(8080),), command="old")
    new = workload(routes=(_route(9090),), command="new")
    before = table_of([Routing(old, (Location("10.0.0.1"),))])
    table = table_of([Routing(new, (Location("10.0.0.2"),), {old.template: (Location("10.0.0.1"),)})], before)
    assert before.backends[0] in table.backends
    assert len(table.backends) == 2
    again = table_of([Routing(new, (Location("10.0.0.2"),), {old.template: (Location("10.0.0.1"),)})], table)
    assert again == table


def test_what_two_workloads_claim_is_left_to_the_gateway_to_settle() -> None:
    first, second = workload(key="a/e", routes=(_route(),)), workload(key="b/e", routes=(_route(),))
    table = table_of([Routing(second, (Location("10.0.0.2"),)), Routing(first, (Location("10.0.0.1"),))])
    assert [rule.owner for rule in table.routes] == ["a/e", "b/e"]
    admitted = admit(table)
    assert [rule.owner for rule in admitted.table.routes] == ["a/e"]
    assert [refusal.owner for refusal in admitted.refusals] == ["b/e"]


def test_the_owner_of_a_backend_is_told_by_its_key() -> None:
    assert owner_of(backend_key("cmp_1/env_1", 8080, "0123456789abcdef")) == "cmp_1/env_1"
    assert owner_of("cmp_1/env_1") == ""


def test_the_order_of_workloads_does_not_change_the_table() -> None:
    routings = [
        Routing(workload(key=f"{n}/e", routes=(_route(host=f"{n}.localhost"),)), (Location("10.0.0.1"),)) for n in "abc"
    ]
    assert table_of(routings) == table_of(reversed(routings))


def test_an_instance_with_another_port_is_dialled_there_under_the_declared_name() -> None:
    document = workload(routes=(_route(8080),))
    shared = (Location("127.0.0.1", ((8080, 20_001),)), Location("127.0.0.1", ((8080, 20_002),)))
    (backend,) = table_of([Routing(document, shared)]).backends
    assert backend.key == backend_key(document.key, 8080, document.template)
    assert backend.endpoints == (Endpoint("127.0.0.1", 20_001), Endpoint("127.0.0.1", 20_002))
    assert shared[0].holds(backend.endpoints[0])
    assert not shared[0].holds(backend.endpoints[1])
