"""`Server`: an explorer behind an address of this machine."""

import logging
import secrets
import socket
import threading
import time
import webbrowser
from html import escape
from types import TracebackType
from typing import Any

from moebius.kit.errors import ArgumentError, MissingExtraError, MoebiusError
from moebius.lab.explorer.explorer import Explorer

try:
    import uvicorn

    from moebius.lab.explorer.application import build_application
    from moebius.lab.explorer.connection import Connection
except ImportError as error:
    raise MissingExtraError(
        f"the explorer's server needs a package that is not installed: {error.name}",
        "pip install 'moebius[explorer]', or write the page without a server: moebius serve RUN --export FOLDER",
    ) from None

ADDRESS = "127.0.0.1"
# Seconds until a server that does not answer is given up.
PATIENCE = 20.0


class Server:
    """Serves an explorer in a thread of its own, until `close` or the end of the process.

    It listens on the loopback alone, under an address that holds a random token.

    Arguments:
        explorer: what is served.
        port: of the address; 0 for any that is free.

    Attributes:
        url: the address to open.

    Raises:
        ArgumentError: the port is in use, or may not be opened.

    Example:
        >>> server = Server(explorer)  # doctest: +SKIP
        >>> server.url  # doctest: +SKIP
        'http://127.0.0.1:40729/uK1…/'
    """

    def __init__(self, explorer: Explorer, port: int = 0):
        self.explorer = explorer
        self._socket = _open_socket(port)
        port = self._socket.getsockname()[1]
        token = secrets.token_urlsafe(24)
        self.url = f"http://{ADDRESS}:{port}/{token}/"
        application = build_application(explorer, token, port)
        options: dict[str, Any] = {"log_level": "error", "access_log": False, "server_header": False, "lifespan": "off"}
        options |= {"http": Connection, "ws": "none", "proxy_headers": False, "timeout_graceful_shutdown": 2}
        # A form that breaks is answered; in the terminal it says nothing to the user.
        logging.getLogger("python_multipart").setLevel(logging.ERROR)
        self._server = uvicorn.Server(uvicorn.Config(application, **options))
        # A KeyboardInterrupt in Thread.join marks a running thread as ended (Python before 3.13); an event has no such.
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()
        deadline = time.monotonic() + PATIENCE
        while not self._server.started:
            if self._ended.is_set() or time.monotonic() > deadline:
                raise MoebiusError("the explorer's server did not start", f"port={port + 1}")
            time.sleep(0.01)

    def open(self) -> bool:
        """Open the page in the user's browser; whether there is one."""
        try:
            return webbrowser.open(self.url)
        except webbrowser.Error:
            return False

    def wait(self) -> None:
        """Return when the server has been closed, or raise KeyboardInterrupt on Ctrl-C."""
        while not self._ended.wait(0.5):
            pass

    def close(self) -> None:
        """End the server and free its port."""
        self._server.should_exit = True
        self._ended.wait(5)
        self._socket.close()

    def _run(self) -> None:
        try:
            self._server.run([self._socket])
        finally:
            self._ended.set()

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Server({self.url!r})"

    def _repr_html_(self) -> str:
        return f'<a href="{escape(self.url)}" target="_blank" rel="noopener">{escape(self.explorer.title)}</a>'


def _open_socket(port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ArgumentError("port", "needs a number 0 … 65535", port, "port=0")
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((ADDRESS, port))
        opened.listen(128)
    except OSError as error:
        opened.close()
        rule = f"cannot be opened ({(error.strerror or str(error)).lower()})"
        raise ArgumentError("port", rule, port, "another one, or 0 for any that is free") from None
    return opened
