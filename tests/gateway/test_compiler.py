"""Properties of admission and compiler over any table that a data plane could be given."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minuet.gateway import chain
from minuet.gateway.admission import admit, check
from minuet.gateway.compiler import (
    BrokenInvariant,
    Compiled,
    Kind,
    cluster_name,
    compile_table,
    probe_answer,
    prove,
    referenced_clusters,
)
from minuet.gateway.limits import GatewayLimits
from minuet.gateway.model import PROBE_HOST, Backend, Endpoint, RouteRule, RoutingTable
from minuet.gateway.snapshot import guard_shrinking, hosts_of, with_departing
from minuet.kernel.errors import Conflict, MinuetError

LABELS = st.sampled_from(["web", "api", "a", "b"])
OWNERS = st.sampled_from(["cmp_a/env_1", "cmp_b/env_1", "cmp_c/env_2"])
HOSTS = st.builds(lambda label: f"{label}.localhost", LABELS)
PATHS = st.lists(st.sampled_from(["a", "b", "v1.0", "x-y"]), max_size=3).map(lambda parts: "/" + "/".join(parts))
KEYS = st.builds(lambda owner, port, version: f"{owner}:{port}@{version}", OWNERS, st.integers(1, 3), LABELS)
ENDPOINTS = st.builds(
    Endpoint, st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]), st.integers(1, 65535), st.booleans()
)
BACKENDS = st.builds(Backend, KEYS, st.lists(ENDPOINTS, max_size=3).map(tuple))
NONSENSE = st.text(max_size=20)
ANY_RULE = st.builds(RouteRule, HOSTS | NONSENSE, PATHS | NONSENSE, KEYS, OWNERS, st.booleans(), NONSENSE)
ANY_ENDPOINT = st.builds(Endpoint, NONSENSE, st.integers(-1, 70000))
ANY_BACKEND = st.builds(Backend, NONSENSE, st.lists(ANY_ENDPOINT, max_size=2).map(tuple))


@st.composite
def _tables(draw: st.DrawFn) -> RoutingTable:
    """Mostly good tables, so that rules about several routes at once are reached, with nonsense strewn in."""
    good = draw(st.lists(BACKENDS, min_size=1, max_size=4, unique_by=lambda backend: backend.key))
    bad = draw(st.lists(ANY_BACKEND | st.sampled_from(good), max_size=1))
    rules = st.builds(
        RouteRule,
        HOSTS,
        PATHS,
        st.sampled_from([backend.key for backend in good]),
        OWNERS,
        st.booleans(),
        st.sampled_from(["http", "http", "websocket", "grpc"]),
    )
    count = draw(st.integers(0, 8))
    routes = draw(st.lists(rules, min_size=count, max_size=count)) + draw(st.lists(ANY_RULE, max_size=1))
    return RoutingTable(tuple(draw(st.permutations(routes))), (*good, *bad))


TABLES = _tables()


def _compile(table: RoutingTable) -> Compiled:
    return compile_table(table, "127.0.0.1", 8480)


def _served(table: RoutingTable) -> Compiled:
    return _compile(admit(table).table)


@given(TABLES)
def test_whatever_is_admitted_compiles(table: RoutingTable) -> None:
    prove(_served(table))


@given(TABLES)
def test_everything_is_either_admitted_or_refused_with_a_reason(table: RoutingTable) -> None:
    admitted = admit(table)
    parts = len(admitted.table.routes) + len(admitted.table.backends) + len(admitted.refusals)
    assert parts == len(table.routes) + len(table.backends)
    assert all(refusal.reason for refusal in admitted.refusals)


@given(TABLES)
def test_a_table_that_passes_the_check_is_admitted_whole(table: RoutingTable) -> None:
    try:
        check(table)
    except MinuetError:
        assert admit(table).refusals
    else:
        assert not admit(table).refusals


@given(TABLES)
def test_every_host_has_one_owner_and_every_backend_of_a_route_is_that_of_its_rule(table: RoutingTable) -> None:
    admitted = admit(table).table
    owners: dict[str, set[str]] = {}
    for rule in admitted.routes:
        owners.setdefault(rule.host, set()).add(rule.owner)
    assert all(len(names) == 1 for names in owners.values())
    wanted = {rule.host: set() for rule in admitted.routes}
    for rule in admitted.routes:
        wanted[rule.host].add(cluster_name(rule.backend))
    for host in _compile(admitted).routes.resources[chain.ROUTES]["virtual_hosts"][:-1]:
        assert {route["route"]["cluster"] for route in host["routes"]} == wanted[host["name"]]


@given(TABLES, OWNERS)
def test_who_has_a_host_keeps_it(table: RoutingTable, owner: str) -> None:
    held = {rule.host for rule in admit(RoutingTable(_of(table, owner), table.backends)).table.routes}
    admitted = admit(table, dict.fromkeys(held, owner)).table
    for host in held:
        assert {rule.owner for rule in admitted.routes if rule.host == host} == {owner}


def _of(table: RoutingTable, owner: str) -> tuple[RouteRule, ...]:
    return tuple(rule for rule in table.routes if rule.owner == owner)


@given(TABLES, st.randoms())
def test_the_order_of_a_table_changes_nothing(table: RoutingTable, random) -> None:
    admitted = admit(table).table
    routes, backends = list(admitted.routes), list(admitted.backends)
    random.shuffle(routes)
    random.shuffle(backends)
    assert _compile(RoutingTable(tuple(routes), tuple(backends))) == _compile(admitted)


@given(TABLES, TABLES)
def test_equal_versions_mean_equal_content(one: RoutingTable, other: RoutingTable) -> None:
    first, second = _served(one), _served(other)
    for kind in ("clusters", "routes", "listeners"):
        left, right = getattr(first, kind), getattr(second, kind)
        assert (left.version == right.version) == (left.resources == right.resources)
    assert (probe_answer(first) == probe_answer(second)) == (first.routes == second.routes)


@given(TABLES, TABLES)
def test_no_route_ever_names_a_cluster_that_is_not_there(before: RoutingTable, after: RoutingTable) -> None:
    """Envoy reads clusters and routes apart, so each pair that can meet must fit."""
    old, new = _served(before), _served(after)
    between = with_departing(old, new)
    assert referenced_clusters(old.routes) <= set(between.clusters.resources)
    assert referenced_clusters(new.routes) <= set(between.clusters.resources)
    assert referenced_clusters(new.routes) <= set(new.clusters.resources)


@given(TABLES)
def test_the_more_specific_path_is_looked_at_first(table: RoutingTable) -> None:
    for host in _served(table).routes.resources[chain.ROUTES]["virtual_hosts"][:-1]:
        seen: list[str] = []
        for route in host["routes"]:
            prefix = route["match"].get("path_separated_prefix", "")
            shadows = [earlier for earlier in seen if prefix != earlier and (prefix + "/").startswith(earlier + "/")]
            assert not shadows
            seen.append(prefix)


@given(PATHS.filter(lambda path: path != "/"), PATHS)
def test_stripping_leaves_exactly_the_rest(base: str, rest: str) -> None:
    rule = RouteRule("web.localhost", base, "a/e:1@t", "a/e", strip_base_path=True)
    compiled = _compile(RoutingTable((rule,), (Backend("a/e:1@t", ()),)))
    rewrite = compiled.routes.resources[chain.ROUTES]["virtual_hosts"][0]["routes"][-1]["route"]["regex_rewrite"]
    stripped = re.sub(rewrite["pattern"]["regex"], rewrite["substitution"], base + ("" if rest == "/" else rest))
    assert stripped == rest


@given(st.lists(KEYS, unique=True))
def test_two_backends_never_share_a_cluster(keys: list[str]) -> None:
    assert len({cluster_name(key) for key in keys}) == len(keys)


@settings(max_examples=50)
@given(TABLES)
def test_a_deployment_never_touches_the_listener(table: RoutingTable) -> None:
    assert _served(table).listeners == _compile(RoutingTable()).listeners


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"route": {"cluster": "nowhere"}}, "nowhere"),
        ({"typed_per_filter_config": {"envoy.filters.http.jwt_authn": {}}}, "jwt_authn"),
    ],
)
def test_what_envoy_would_take_in_silence_is_a_broken_invariant(change: dict[str, object], message: str) -> None:
    compiled = _compile(RoutingTable((_rule(),), (Backend("a/e:1@t", ()),)))
    compiled.routes.resources[chain.ROUTES]["virtual_hosts"][0]["routes"][0].update(change)
    with pytest.raises(BrokenInvariant, match=message):
        prove(compiled)


def test_a_domain_on_two_hosts_or_a_wildcard_is_a_broken_invariant() -> None:
    for domains in ([PROBE_HOST], ["*"]):
        compiled = _compile(RoutingTable((_rule(),), (Backend("a/e:1@t", ()),)))
        compiled.routes.resources[chain.ROUTES]["virtual_hosts"][0]["domains"] = domains
        with pytest.raises(BrokenInvariant, match="domain"):
            prove(compiled)


def test_two_resources_of_one_name_are_not_merged_in_silence() -> None:
    with pytest.raises(ValueError, match="two resources"):
        Kind.of([{"name": "a", "x": 1}, {"name": "a", "x": 2}])


def _rule() -> RouteRule:
    return RouteRule("web.localhost", "/", "a/e:1@t", "a/e")


def _names(*numbers: int) -> frozenset[str]:
    return frozenset(f"host-{number}" for number in numbers)


@pytest.mark.parametrize(
    ("before", "after", "removed", "refused"),
    [
        (range(10), range(8), (), False),
        (range(10), range(7), (), True),
        (range(10), range(7), (7, 8, 9), False),
        (range(10), (), range(10), False),
        (range(10), (), range(9), True),
        (range(2), (0,), (), False),
        (range(1), (), (), True),
        ((), range(5), (), False),
        (range(3), range(10, 13), (), True),
    ],
)
def test_a_table_that_lost_hosts_nobody_named_is_refused(before, after, removed, refused: bool) -> None:
    arguments = (_names(*before), _names(*after), _names(*removed))
    if refused:
        with pytest.raises(Conflict, match="would vanish"):
            guard_shrinking(*arguments)
    else:
        guard_shrinking(*arguments)


def test_the_gateways_own_host_counts_for_nothing() -> None:
    assert hosts_of(_compile(RoutingTable())) == frozenset()


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(GatewayLimits)])
def test_every_limit_reaches_the_configuration(field: str) -> None:
    """A limit that nobody reads protects nothing."""
    from minuet.gateway.bootstrap import bootstrap

    usual = GatewayLimits()
    changed = dataclasses.replace(usual, **{field: getattr(usual, field) + 1})
    rule = RoutingTable((_rule(),), (Backend("a/e:1@t", ()),))

    def told(limits: GatewayLimits) -> tuple[object, ...]:
        return compile_table(rule, "127.0.0.1", 8480, limits), bootstrap(limits)

    assert told(changed) != told(usual)
