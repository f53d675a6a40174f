"""The listener's fixed chain of filters; a deployment never changes it.

Order matters: strip what clients may not send, refuse what is too large, route.
Envoy fails open where a route configures a filter that the chain lacks, so the
compiler checks every such name against `FILTER_NAMES`.
"""

from __future__ import annotations

import itertools
from typing import Any

from minuet.gateway.limits import GatewayLimits

TYPE = "type.googleapis.com/"
ROUTES = "ingress"
PROBE_HOST = "gateway.minuet.internal"
PROBE_PATH = "/.well-known/minuet/routes"

Resource = dict[str, Any]

_LUA_HEADERS = """\
function envoy_on_request(handle)
  for name, value in pairs(handle:headers()) do
    if #name + #value > {limit} then
      handle:respond({{[":status"] = "431"}}, "a header is too large")
      return
    end
  end
end
"""


def typed(kind: str, **fields: Any) -> Resource:
    """Returns a message of that type in Envoy's JSON form."""
    return {"@type": TYPE + kind, **fields}


def listener(address: str, port: int, limits: GatewayLimits) -> Resource:
    """The one listener that carries all traffic of the data plane."""
    return typed(
        "envoy.config.listener.v3.Listener",
        name="ingress",
        address={"socket_address": {"address": address, "port_value": port}},
        per_connection_buffer_limit_bytes=32 * 1024,
        filter_chains=[{"filters": [_connection_manager(limits)]}],
    )


def _connection_manager(limits: GatewayLimits) -> Resource:
    manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="ingress",
        rds={"route_config_name": ROUTES, "config_source": file_source("routes.json")},
        http_filters=filters(limits),
        use_remote_address=True,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        server_name="minuet",
        stream_idle_timeout=seconds(limits.idle_seconds),
        request_headers_timeout=seconds(limits.request_headers_seconds),
        max_request_headers_kb=limits.headers_kib,
        strip_trailing_host_dot=True,
        strip_any_host_port=True,
        common_http_protocol_options={
            "idle_timeout": seconds(limits.idle_seconds),
            "headers_with_underscores_action": "REJECT_REQUEST",
            "max_headers_count": limits.header_count,
        },
        http2_protocol_options={
            "max_concurrent_streams": limits.http2_streams,
            "initial_stream_window_size": limits.http2_stream_window,
            "initial_connection_window_size": limits.http2_connection_window,
        },
        early_header_mutation_extensions=[_early_mutation()],
        upgrade_configs=[{"upgrade_type": "websocket", "enabled": False}],
        local_reply_config=_local_replies(),
        generate_request_id=True,
        preserve_external_request_id=False,
    )
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}


def filters(limits: GatewayLimits) -> list[Resource]:
    """The chain in its order; the router is always last."""
    return [
        _size_rules(limits),
        _single_header_rule(limits),
        _filter("body_size_limit", "body_size_limit.v3.BodySizeLimit", max_request_bytes=limits.body_bytes),
        _filter("router", "router.v3.Router", suppress_envoy_headers=True),
    ]


def file_source(name: str) -> Resource:
    """Where Envoy reads a kind of resource from; the seam at which a stream will take over from files."""
    return {"path_config_source": {"path": f"./{name}"}, "resource_api_version": "V3"}


def seconds(value: float) -> str:
    return f"{value:g}s"


def _filter(name: str, kind: str, **fields: Any) -> Resource:
    return {
        "name": f"envoy.filters.http.{name}",
        "typed_config": typed(f"envoy.extensions.filters.http.{kind}", **fields),
    }


def _early_mutation() -> Resource:
    removed = ("x-envoy-", "x-client-id", "x-consumer")
    mutations = [{"remove_on_match": {"key_matcher": {"prefix": prefix}}} for prefix in removed]
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": typed(
            "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation", mutations=mutations
        ),
    }


def _size_rules(limits: GatewayLimits) -> Resource:
    """Refuses a URL that is too long, whatever the host."""
    cel = _Cel()
    too_long = cel.call("_>_", cel.call("size", cel.select("request", "path")), cel.number(limits.url_bytes))
    rule = {
        "predicate": {"single_predicate": _cel_predicate(too_long)},
        "on_match": {
            "action": {
                "name": "uri_too_long",
                "typed_config": typed("envoy.config.rbac.v3.Action", name="uri_too_long", action="DENY"),
            }
        },
    }
    allow = {
        "action": {
            "name": "allow",
            "typed_config": typed("envoy.config.rbac.v3.Action", name="allow", action="ALLOW"),
        }
    }
    matcher = {"matcher_list": {"matchers": [rule]}, "on_no_match": allow}
    return _filter("rbac", "rbac.v3.RBAC", matcher=matcher)


def _single_header_rule(limits: GatewayLimits) -> Resource:
    """Looks at each header, but only of requests whose headers are large enough to matter."""
    cel = _Cel()
    large = cel.call("_>_", cel.select("request", "total_size"), cel.number(limits.header_bytes))
    lua = _filter(
        "lua", "lua.v3.Lua", default_source_code={"inline_string": _LUA_HEADERS.format(limit=limits.header_bytes)}
    )
    action = typed("envoy.extensions.filters.http.composite.v3.ExecuteFilterAction", typed_config=lua)
    rule = {
        "predicate": {"single_predicate": _cel_predicate(large)},
        "on_match": {"action": {"name": "look", "typed_config": action}},
    }
    return _filter("composite", "composite.v3.Composite", matcher={"matcher_list": {"matchers": [rule]}})


def _cel_predicate(expression: Resource) -> Resource:
    return {
        "input": {"name": "attributes", "typed_config": typed("xds.type.matcher.v3.HttpAttributesCelMatchInput")},
        "custom_match": {
            "name": "cel",
            "typed_config": typed(
                "xds.type.matcher.v3.CelMatcher",
                expr_match={"parsed_expr": {"expr": expression, "source_info": {}}},
            ),
        },
    }


class _Cel:
    """Builds the syntax trees that Envoy's matchers take instead of text; ids are unique in one expression."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)

    def call(self, function: str, *arguments: Resource) -> Resource:
        return self._numbered(call_expr={"function": function, "args": list(arguments)})

    def select(self, name: str, field: str) -> Resource:
        return self._numbered(select_expr={"operand": self._numbered(ident_expr={"name": name}), "field": field})

    def number(self, value: int) -> Resource:
        return self._numbered(const_expr={"int64_value": str(value)})

    def _numbered(self, **fields: Any) -> Resource:
        return {"id": str(next(self._ids)), **fields}


_REPLIES: tuple[tuple[str, int | None, str], ...] = (
    ("response.code_details.contains('[uri_too_long]')", 414, "URI_TOO_LONG"),
    ("response.code == 404", None, "RESOURCE_NOT_FOUND"),
    ("response.code == 413", None, "PAYLOAD_TOO_LARGE"),
    ("response.code == 431", None, "HEADERS_TOO_LARGE"),
    ("response.code == 504 || response.code == 408", None, "BACKEND_TIMEOUT"),
    ("response.code == 503", None, "NO_HEALTHY_BACKEND"),
    ("response.code == 400", None, "BAD_REQUEST"),
)


def _local_replies() -> Resource:
    """Answers of the gateway itself are problems in JSON, each with a stable code."""
    return {
        "mappers": [_mapper(expression, status, code) for expression, status, code in _REPLIES],
        "body_format": problem("GATEWAY_ERROR"),
    }


def _mapper(expression: str, status: int | None, code: str) -> Resource:
    mapper: Resource = {
        "filter": {
            "extension_filter": {
                "name": "cel",
                "typed_config": typed(
                    "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter", expression=expression
                ),
            }
        },
        "body_format_override": problem(code),
    }
    return mapper if status is None else mapper | {"status_code": status}


def problem(code: str) -> Resource:
    """The body of an answer that the gateway gives by itself (RFC 9457)."""
    body = {
        "type": "about:blank",
        "status": "%RESPONSE_CODE%",
        "code": code,
        "detail": "%LOCAL_REPLY_BODY%",
        "requestId": "%REQ(X-REQUEST-ID)%",
    }
    return {"json_format": body, "content_type": "application/problem+json"}


FILTER_NAMES = frozenset(item["name"] for item in filters(GatewayLimits()))
"""Every name that a route may configure."""
