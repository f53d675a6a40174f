"""From what the server answered, or failed to answer, to the kernel's error families.

Called by `api.py` and `events.py`; separate because it is pure and knows the
form of a problem document, which nothing else in this room does.
"""

from __future__ import annotations

import json
import ssl
from typing import Any

from minuet.client.contexts import Context
from minuet.kernel import errors
from minuet.kernel.errors import Forbidden, MinuetError, Unavailable, Violation

MAX_TEXT = 2000
"""Longest message that is taken over from an answer that is not a problem of Minuet, in characters."""

_OF_STATUS: dict[int, type[MinuetError]] = {
    400: errors.Invalid,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.Invalid,
    406: errors.Invalid,
    409: errors.Conflict,
    412: errors.Conflict,
    413: errors.Invalid,
    415: errors.Invalid,
    422: errors.Invalid,
    425: errors.NotReady,
    429: errors.Exhausted,
    507: errors.Exhausted,
}
_OF_NAME = {family.__name__: family for family in errors.FAMILIES} | {"Internal": MinuetError}
_SERVER_ERROR = 500


def from_answer(status: int, content: bytes) -> MinuetError:
    """Returns the error that an answer of `status` stands for; the body need not be a problem document."""
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    return from_problem(body if isinstance(body, dict) else {}, status)


def from_problem(body: dict[str, Any], status: int = _SERVER_ERROR) -> MinuetError:
    """Returns the error that a problem document stands for: its `family` decides, else its status."""
    family = _OF_NAME.get(str(body.get("family")))
    if family is None:
        family = _OF_STATUS.get(int(body.get("status") or status), Unavailable)
    message = body.get("detail") or body.get("title") or f"the server answered with status {status}"
    violations = [_violation(item) for item in body.get("violations") or () if isinstance(item, dict)]
    return family(str(message)[:MAX_TEXT], code=body.get("code"), hint=body.get("hint"), violations=violations)


def from_transport(context: Context, error: Exception) -> MinuetError:
    """Returns the error for an answer that never came: an untrusted certificate, or nobody there."""
    refused = _certificate_error(error)
    if isinstance(refused, WrongCertificate):
        return Forbidden(
            f"{context.server} showed another certificate than the pinned one",
            code="WrongCertificate",
            hint=f"its SHA-256 is {refused.shown}; sign in again with --fingerprint if that is expected",
        )
    if refused is not None:
        return Forbidden(
            f"the certificate of {context.server} is not trusted: {refused.verify_message}",
            code="UntrustedCertificate",
            hint="sign in with --fingerprint or --ca-file",
        )
    return Unavailable(f"{context.server} does not answer", hint="is it running? `minuet up` starts it")


def not_minuet(context: Context, why: str) -> Unavailable:
    """Returns the error for an answer that no Minuet server gives."""
    return Unavailable(
        f"{context.server} does not answer like a Minuet server: {why}",
        code="UnexpectedAnswer",
        hint="check the address with `minuet context show`",
    )


class WrongCertificate(ssl.SSLCertVerificationError):
    """The server's certificate is not the pinned one; `shown` is its fingerprint."""

    def __init__(self, shown: str) -> None:
        super().__init__("another certificate than the pinned one")
        self.shown = shown


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Libraries wrap it several times; it is somewhere among the causes."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _violation(item: dict[str, Any]) -> Violation:
    given = item.get("given")
    return Violation(
        str(item.get("field", "")),
        str(item.get("message", "")),
        None if given is None else str(given),
        tuple(str(word) for word in item.get("allowed") or ()),
    )
