"""What stands before the routes: only this machine's browser, only with the token, only bodies of some size."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Bytes of a request's body: a picture of a camera.
MOST_BYTES = 16 * 2**20
# Seconds until a body has to be complete.
BODY_SECONDS = 30.0
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Lets through what the explorer's page asks, and strips the token from the path.

    A page of another site can send requests to this machine, and a name of its own may lead here (DNS rebinding): so
    the Host header must name the loopback and the port, Origin the same address, and the path must begin with a token
    that only the opener of the page knows.

    Arguments:
        app: the routes.
        token: that the path begins with.
        port: of the server.
        most_bytes: of a body.
    """

    def __init__(self, app: ASGIApp, token: str, port: int, most_bytes: int = MOST_BYTES):
        self.app, self.token, self.most_bytes = app, token, most_bytes
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refusal = (404, "no such page") if scope["type"] != "http" else self._refusal(scope)
        if refusal is not None:
            status, text = refusal
            await PlainTextResponse(text, status, HEADERS)(scope, receive, send)
            return
        prefix = f"/{self.token}"
        inside = {**scope, "path": scope["path"][len(prefix) :], "root_path": prefix}
        inside["raw_path"] = inside["path"].encode()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        await self.app(inside, self._limited(receive), send_with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and text of what is refused."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self.hosts:
            return 421, "this address is not served here"
        origin = headers.get("origin")
        if origin is not None and origin not in {f"http://{host}" for host in self.hosts}:
            return 403, "requests of other sites are refused"
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return 403, "requests of other sites are refused"
        first = scope["path"].split("/")[1:2]
        if not first or not secrets.compare_digest(first[0].encode(), self.token.encode()):
            return 403, "open the address that `moebius serve` printed: it holds a token"
        if scope["path"] == f"/{self.token}":
            return 404, "the address ends in a slash"
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < 20 and int(length) <= self.most_bytes):
            return self._too_large()
        return None

    def _too_large(self) -> tuple[int, str]:
        return 413, f"the file has more than {self.most_bytes // 2**20} MB: make the picture smaller"

    def _limited(self, receive: Receive) -> Callable[[], Awaitable[Message]]:
        """The body in pieces; an error where it has more bytes than are read, whatever its length says, or is late."""
        count, deadline = 0, asyncio.get_running_loop().time() + BODY_SECONDS

        async def receive_piece() -> Message:
            nonlocal count
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the file took too long", {"Connection": "close"}) from None
            count += len(message.get("body", b""))
            if count > self.most_bytes:
                status, text = self._too_large()
                raise HTTPException(status, text)
            return message

        return receive_piece
