"""Whether a server can be reached at all, asked before a client spends its whole time limit on finding out."""

import socket
import time
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

ATTEMPTS = 5
"""A server that restarts gets this many chances, a second apart."""
CONNECT_SECONDS = 3.0


def unreachable(url: str) -> str | None:
    """Why nobody listens at `url`, or None when somebody does or a proxy stands between."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return None
    why = ""
    for attempt in range(ATTEMPTS):
        time.sleep(1.0 if attempt else 0.0)
        try:
            socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
            return None
        except OSError as error:
            why = f"{url} cannot be reached ({error.strerror or error})"
    return why
