"""Filters that refuse what is too large: a long address, one huge header, a huge body.

Envoy has no setting for the first two, so they are an expression in the
role-based access filter and a script that runs only where headers are large
enough to matter. Used by the chain only.
"""

from __future__ import annotations

import itertools
from typing import Any

from minuet.gateway.envoy_types import Resource, extension, typed
from minuet.gateway.limits import GatewayLimits

BODY_FILTER = "envoy.filters.http.body_size_limit"

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


def size_rules(limits: GatewayLimits) -> list[Resource]:
    """The filters in their order, which is from the cheapest refusal to the dearest."""
    body = extension(
        BODY_FILTER,
        "envoy.extensions.filters.http.body_size_limit.v3.BodySizeLimit",
        max_request_bytes=limits.body_bytes,
    )
    return [_address_rule(limits), _single_header_rule(limits), body]


def _address_rule(limits: GatewayLimits) -> Resource:
    cel = _Cel()
    too_long = cel.call("_>_", cel.call("size", cel.select("request", "path")), cel.number(limits.url_bytes))
    rule = {"predicate": _predicate(too_long), "on_match": {"action": _access("uri_too_long", "DENY")}}
    matcher = {"matcher_list": {"matchers": [rule]}, "on_no_match": {"action": _access("allow", "ALLOW")}}
    return extension("envoy.filters.http.rbac", "envoy.extensions.filters.http.rbac.v3.RBAC", matcher=matcher)


def _access(name: str, action: str) -> Resource:
    return extension(name, "envoy.config.rbac.v3.Action", name=name, action=action)


def _single_header_rule(limits: GatewayLimits) -> Resource:
    """Looks at each header, but only of requests whose headers are large enough to matter."""
    cel = _Cel()
    large = cel.call("_>_", cel.select("request", "total_size"), cel.number(limits.header_bytes))
    look = extension(
        "look",
        "envoy.extensions.filters.http.composite.v3.ExecuteFilterAction",
        typed_config=extension(
            "envoy.filters.http.lua",
            "envoy.extensions.filters.http.lua.v3.Lua",
            default_source_code={"inline_string": _LUA_HEADERS.format(limit=limits.header_bytes)},
        ),
    )
    rule = {"predicate": _predicate(large), "on_match": {"action": look}}
    return extension(
        "envoy.filters.http.composite",
        "envoy.extensions.filters.http.composite.v3.Composite",
        matcher={"matcher_list": {"matchers": [rule]}},
    )


def _predicate(expression: Resource) -> Resource:
    matcher = typed(
        "xds.type.matcher.v3.CelMatcher", expr_match={"parsed_expr": {"expr": expression, "source_info": {}}}
    )
    attributes = extension("attributes", "xds.type.matcher.v3.HttpAttributesCelMatchInput")
    return {"single_predicate": {"input": attributes, "custom_match": {"name": "cel", "typed_config": matcher}}}


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
