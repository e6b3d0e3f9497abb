"""What a watched script may not reach: the network, and programs where the system cannot hold them back."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.startfile")
_LOCAL = ("127.", "::1", "localhost", "0.0.0.0")


@contextmanager
def nothing_outside(*, processes: bool) -> Iterator[None]:
    """Within it, connections to other machines are refused, and so are programs unless `processes` are allowed."""
    allowed = [False]

    def audit(event: str, arguments: Any) -> None:
        if allowed[0]:
            return
        if event in ("socket.connect", "socket.getaddrinfo") and not _is_local(event, arguments):
            raise ConnectionRefusedError("vramfit run uses no network: have the data and weights on disk beforehand.")
        if event in _PROCESSES and not processes:
            raise PermissionError("vramfit run starts no programs where the system cannot keep them from writing.")

    sys.addaudithook(audit)
    try:
        yield
    finally:
        allowed[0] = True  # an audit hook cannot be taken away


def _is_local(event: str, arguments: Any) -> bool:
    address = arguments[1] if event == "socket.connect" else arguments[:1]
    if event == "socket.connect" and getattr(arguments[0], "family", None) == getattr(socket, "AF_UNIX", -1):
        return True
    host = address[0] if isinstance(address, (tuple, list)) and address else address
    return host is None or str(host).startswith(_LOCAL) or str(host) == socket.gethostname()
