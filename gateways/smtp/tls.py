"""TLS contexts of outgoing connections: verified, or opportunistic (RFC 7435)."""

from __future__ import annotations

import ssl
from functools import lru_cache


@lru_cache(maxsize=32)
def context(ca_file: str, *, verify: bool) -> ssl.SSLContext:
    """TLS 1.2 or newer; ``verify``: a valid chain and the right name. ``OSError``: no such CA file.

    ``ca_file`` "" = the system's. Contexts are kept: reading the CAs takes tens of milliseconds.
    """
    made = ssl.create_default_context(cafile=ca_file or None)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made
