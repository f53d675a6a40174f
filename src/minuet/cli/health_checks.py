"""A health check of the API in words that fit one line. Pure."""

from __future__ import annotations

from typing import Any


def sentence(check: dict[str, Any] | None) -> str | None:
    """`GET /healthz every 30 s, ...`; None when no check is declared."""
    if check is None:
        return None
    what = f"GET {check['path']}" if check["kind"] == "http" else "TCP connection"
    port = f" on port {check['port']}" if check.get("port") else ""
    delay = f", first after {check['initialDelay']} s" if check["initialDelay"] else ""
    out, back = check["failureThreshold"], check["successThreshold"]
    rhythm = f" every {check['period']} s, timeout {check['timeout']} s{delay}"
    return f"{what}{port}{rhythm}, out after {_times(out, 'failure')}, in after {_times(back, 'success')}"


def _times(count: int, word: str) -> str:
    plural = "es" if word.endswith("s") else "s"
    return f"{count} {word}{'' if count == 1 else plural}"
