"""Where the studio's server listens."""

import errno
import socket

from lcg_lightning.errors import UserError

_LOCAL = "127.0.0.1"


def find_port(host: str, port: int) -> int:
    """The port at which a server can listen; for port 0, a free one.

    Args:
        host: a name or address of this machine, IPv4 or IPv6.
        port: the port's number.

    Raises:
        UserError: the port is in use, there is no such port, or the host is not of this machine.
    """
    try:
        family, *_, address = min(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))  # IPv4 before IPv6
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address[0], port, *address[2:]))
            found: int = probe.getsockname()[1]
    except OverflowError:
        raise UserError(f"lcg studio: there is no port {port}; give a --port from 0 to 65535") from None
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        taken = getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES)
        advice = "another --port" if taken else f"a --host of this machine, such as {_LOCAL}"
        raise UserError(f"lcg studio: cannot listen at {in_url(host)}:{port} ({reason}); give {advice}") from None
    return found if host == _LOCAL else find_port(_LOCAL, found)  # Gradio wants it there, too


def in_url(host: str) -> str:
    """A host as a URL has it.

    >>> in_url("::1"), in_url("localhost")
    ('[::1]', 'localhost')
    """
    return f"[{host}]" if ":" in host else host
