"""The process of `il2o serve`: a socket on the loopback, and uvicorn."""

import ipaddress
import socket
import sys
import warnings

import uvicorn

import implicit_l2o as il2o
from implicit_l2o.serving.http.app import make_app
from implicit_l2o.serving.http.limits import Limits
from implicit_l2o.serving.layer import Layer

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
_IDLE = 15  # seconds after which a silent connection is closed
_CONNECTIONS = 1024


def run_server(layer: Layer, limits: Limits, *, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve until the process is told to end.

    Args:
        layer: answers.
        limits: of the requests.
        host: an address of this machine; one that is not the loopback can be reached by others, without any password.
        port: 0 takes a free one.

    Raises:
        OSError: the address is in use, or none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}", f"{host}:{port}") from error
        listener.listen(_CONNECTIONS)
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        print(f"serving at http://{shown}:{listener.getsockname()[1]} (POST /solve; GET /schema, /health)", flush=True)
        if not is_loopback(host):
            print(
                f"il2o serve: {host} can be reached from other machines, and nobody is asked who they are.",
                file=sys.stderr,
            )
        warnings.filterwarnings("ignore", category=il2o.ConvergenceWarning)  # each answer states its status
        app = make_app(layer, limits, hosts=_LOOPBACK_NAMES if is_loopback(host) and ":" not in host else ("*",))
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_keep_alive=_IDLE,
            limit_concurrency=_CONNECTIONS,
        )
        uvicorn.Server(config).run(sockets=[listener])


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address.

    Example:
        >>> from implicit_l2o.serving.http.server import is_loopback
        >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
        (True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
