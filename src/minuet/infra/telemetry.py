"""Structured logs of every process, one JSON object a line on stderr, without secrets.

Called once by each role's `main`; everything else asks for a logger.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

from minuet.kernel.secrets import Secret

# structlog loads rich, if it is installed, to draw tracebacks on terminals: 5 MiB in each process that never has one.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
import structlog  # noqa: E402

if sys.modules["rich"] is None:
    del sys.modules["rich"]

MASK = "***"
_SECRET_KEY = re.compile(
    r"(?:^|_|-)(token|password|passwd|secret|authorization|cookie|private_key|deploy_key)$", re.IGNORECASE
)
_SECRET_TEXT = re.compile(r"\bmn[a-z]{1,3}_[A-Za-z0-9_-]{20,}|(?<=[Bb]earer )\S+|(?<=://)[^/@\s:]+:[^/@\s]+(?=@)")
_MAX_TEXT = 8192


def configure(role: str, *, level: str = "INFO", console: bool = False) -> None:
    """Sets up logging for this process; `role` is on every line."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact_event,
    ]
    last = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Each request of ours would be a line; what matters of it is logged by who asked.
    for chatty in ("httpx2", "httpx", "httpcore2"):
        logging.getLogger(chatty).setLevel("WARNING")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    structlog.contextvars.bind_contextvars(role=role)


def logger(name: str) -> Any:
    """Returns a logger; `name` is the module's."""
    # Initial values keep the logger lazy: a `bind` here would fix the settings of before `configure`.
    return structlog.get_logger(module=name)


def redact_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Masks secrets by type, by the name of the key, and by the look of the text."""
    return {key: MASK if _SECRET_KEY.search(key) else _clean(value) for key, value in event.items()}


def _clean(value: Any) -> Any:
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, str):
        return _SECRET_TEXT.sub(MASK, value)[:_MAX_TEXT]
    if isinstance(value, dict):
        return {key: MASK if _SECRET_KEY.search(str(key)) else _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    return value
