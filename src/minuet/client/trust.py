"""Which certificate is believed: the usual authorities, an authority of one's own, or exactly one certificate.

Called by `api.py`. Separate because it is the one place where the check of a
certificate's signature may be left out, and only for a check of the whole.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
from typing import Any

from minuet.client.contexts import Context
from minuet.client.problems import WrongCertificate
from minuet.kernel.errors import Invalid, invalid_field

_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_fingerprint(given: str) -> str:
    """Returns a SHA-256 fingerprint as bare hexadecimal digits; colons, capitals and `sha256:` are understood."""
    bare = given.strip().lower().removeprefix("sha256:").replace(":", "")
    if not _DIGEST.fullmatch(bare):
        raise invalid_field("fingerprint", "must be the 64 hexadecimal digits of a SHA-256", given=given)
    return bare


def of(context: Context) -> ssl.SSLContext | bool:
    """Returns what the HTTP client takes as `verify`; raises `Invalid` for what cannot hold."""
    if not context.server.startswith("https:"):
        if context.fingerprint or context.ca_file:
            raise Invalid("a certificate can only be checked on an https:// address", code="NotEncrypted")
        return True
    if context.fingerprint:
        return _pinned(check_fingerprint(context.fingerprint))
    if context.ca_file:
        try:
            return ssl.create_default_context(cafile=context.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise Invalid(f"{context.ca_file} holds no certificate: {error}", code="FileUnreadable") from error
    return True


def _pinned(fingerprint: str) -> ssl.SSLContext:
    """Looks at the certificate at the end of the very handshake that is used, before a byte is sent."""

    class Pinned(ssl.SSLSocket):
        def do_handshake(self, *arguments: Any, **options: Any) -> None:
            super().do_handshake(*arguments, **options)
            shown = hashlib.sha256(self.getpeercert(binary_form=True) or b"").hexdigest()
            if not hmac.compare_digest(shown, fingerprint):
                raise WrongCertificate(shown)

    trust = ssl.create_default_context()
    trust.check_hostname = False
    trust.verify_mode = ssl.CERT_NONE
    trust.sslsocket_class = Pinned
    return trust
