"""Requests that no page of the explorer sends, drawn by a seed, and a client that sends bytes as they are."""

import io
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from urllib.parse import quote

import numpy as np
from PIL import Image

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "get", "G\u00e9T", "A" * 300)
ROUTES = ("", "rows", "row/0", "image/0.png", "static/explorer.js", "ask")
NAMED_ROUTES = ("static/{}", "row/{}", "image/{}.png", "image/{}", "{}", "rows/{}", "ask/{}")
TRAVERSALS = (
    "../guard.py",
    "..%2Fguard.py",
    "%2e%2e%2fguard.py",
    "..%252fguard.py",
    "....//guard.py",
    "..%5c..%5cserver.js",
    "%c0%ae%c0%ae/guard.py",
    "%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "//etc/passwd",
    "%2fetc%2fpasswd",
    "/etc/passwd%00.js",
    "explorer.js%00",
    "explorer.js/",
    "explorer.js%2f..%2fexplorer.css",
    "C:%5cwindows%5cwin.ini.js",
    "file:%2f%2f%2fetc%2fpasswd.js",
)
KEYS = (
    *("gate", "group", "expert", "domain", "answer", "confidence_from", "confidence_to", "loss_from", "error_from"),
    *("regret_from", "order", "page", "row", "nothing", ""),
)
VALUES = (
    *(
        "",
        "0",
        "1",
        "-1",
        "7",
        "999999999",
        "9" * 5000,
        "1e308",
        "1e-400",
        "nan",
        "inf",
        "-inf",
        "0x10",
        "1_0",
        "²",
        "٣",
    ),
    *(
        "gate",
        "right",
        "wrong",
        "largest loss",
        "bee",
        "\0",
        "\r\nX: y",
        "\ud800",
        "\U0001f600" * 500,
        "<script>x</script>",
    ),
    *("../../etc/passwd", "{{7*7}}", "%s%n", "' OR 1=1 --", "a" * 20_000, "\u202e", "1 2 3 4", "1,2;3 4", "1e300 " * 4),
)
FIGURES = ("0", "1.5", "-3", "1e300", "-1e39", "1e-310", "9" * 400, "1_0", "٣", "nan")
CHARSETS = ("", "utf-8", "utf-16", "utf-7", "unicode_escape", "undefined", "idna", "punycode", "zip", "hex", "a" * 500)
FIELDS = ("numbers", "label", "domain", "picture", "column size", "column color", "", "\0", "a" * 9000)
HOSTS = (
    *("evil.example", "127.0.0.1", "localhost", "[::1]:{port}", "127.0.0.1:{port}.evil.example", "127.0.0.1:80", ""),
    *("evil.example:{port}", "127.0.0.1:{port}@evil.example", "127.0.0.1:{port}, evil.example", "0.0.0.0:{port}"),
    *("localhost.:{port}", "127.1:{port}", "127.0.0.1:0{port}", "2130706433:{port}", "127.0.0.1:{port}/"),
)
ORIGINS = (
    "http://evil.example",
    "null",
    "https://127.0.0.1:{port}",
    "http://127.0.0.1",
    "file://",
    "http://[::1]:{port}",
)


class Caller:
    """Sends bytes to a server.

    Arguments:
        url: of the page, with its token.
        count_connections: how many the server has.
    """

    FORM = "Content-Type: multipart/form-data; boundary=limit"

    def __init__(self, url: str, count_connections: Callable[[], int]):
        self.count_connections = count_connections
        self.token = url.split("/")[3]
        self.port = int(url.split("/")[2].split(":")[1])
        self.host = f"127.0.0.1:{self.port}"

    def connect(self, timeout: float = 60) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def head(self, method: str, target: str, *headers: str, host: str | None = None) -> bytes:
        """The head of a request for a part of the page."""
        lines = [f"{method} /{self.token}/{target} HTTP/1.1", f"Host: {host or self.host}", *headers, "", ""]
        return "\r\n".join(lines).encode("utf-8", "surrogatepass")

    def get(self, target: str = "", *headers: str, host: str | None = None) -> bytes:
        """The answer to a request of a browser, head and body."""
        return self.send(self.head("GET", target, "Connection: close", *headers, host=host))

    def post(self, body: bytes, *headers: str, target: str = "ask") -> bytes:
        """The answer to a request with a body."""
        length = f"Content-Length: {len(body)}"
        return self.send(self.head("POST", target, "Connection: close", length, *headers) + body)

    def ask(self, *parts: bytes, charset: str = "") -> bytes:
        """The answer to a form."""
        kind = self.FORM + (f"; charset={charset}" if charset else "")
        return self.post(b"".join(parts) + b"--limit--\r\n", kind)

    def send(self, content: bytes, then: str = "wait") -> bytes:
        """What comes back until the server closes.

        Arguments:
            content: to send.
            then: "wait" for the answer, "end" this side first, or "leave" at once.
        """
        with self.connect() as connection:
            with suppress(ConnectionError):
                connection.sendall(content)
            if then == "leave":
                return b""
            if then == "end":
                with suppress(OSError):  # closed by the server already
                    connection.shutdown(socket.SHUT_WR)
            return self.read(connection)

    @staticmethod
    def status(answer: bytes) -> int:
        """The number in the first line of an answer."""
        return int(answer.split(b" ", 2)[1])

    @staticmethod
    def read(connection: socket.socket) -> bytes:
        """What comes until the other end closes."""
        pieces = []
        with suppress(ConnectionResetError):
            while piece := connection.recv(2**16):
                pieces.append(piece)
        return b"".join(pieces)

    @staticmethod
    def part(name: str, value: bytes | str, file: str | None = None) -> bytes:
        """A field of a form, or a file."""
        value = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        text = f'--limit\r\nContent-Disposition: form-data; name="{name}"'
        text += "" if file is None else f'; filename="{file}"\r\nContent-Type: image/png'
        return text.encode("utf-8", "surrogatepass") + b"\r\n\r\n" + value + b"\r\n"


def picture(numbers: random.Random) -> bytes:
    """An image file of some format, whole or damaged."""
    mode = numbers.choice(("L", "RGB", "RGBA", "P", "1", "CMYK", "I;16", "F", "LA"))
    kinds = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "EPS", "PDF", "ICO", "PPM", "JPEG2000", "TGA", "PCX", "DDS")
    size = numbers.choice(((8, 8), (1, 1), (300, 2)))
    stream = io.BytesIO()
    try:
        Image.fromarray(np.full((*size, 3), 90, np.uint8)).convert(mode).save(stream, numbers.choice(kinds))
    except (OSError, ValueError, KeyError):
        stream.write(b"\x89PNG\r\n\x1a\n")
    content = bytearray(stream.getvalue())
    for _ in range(numbers.choice((0, 1, 4, 40))):
        content[numbers.randrange(len(content))] = numbers.randrange(256)
    return bytes(content[: numbers.choice((len(content), numbers.randrange(len(content) + 1)))])


def query(numbers: random.Random) -> str:
    pairs = []
    for _ in range(numbers.choice((1, 1, 2, 40))):
        value = numbers.choice(VALUES)
        value = quote(value, errors="surrogatepass") if numbers.random() < 0.9 else value
        pairs.append(f"{numbers.choice(KEYS)}={value}")
    return "?" + numbers.choice(("&", "&", ";", "&&")).join(pairs)


def form(numbers: random.Random) -> tuple[str, bytes]:
    """Content type and body of a form; some are broken."""
    parts = []
    if numbers.random() < 0.4:
        # What the page sends, but for one value.
        figures = " ".join(numbers.choice(FIGURES) for _ in range(4))
        parts = [
            Caller.part("numbers", figures),
            Caller.part("label", numbers.choice(VALUES)),
            Caller.part("column size", "1"),
        ]
        parts += [Caller.part("picture", picture(numbers), "a.png")] if numbers.random() < 0.7 else []
    for _ in range(0 if parts else numbers.choice((1, 2, 5, 60))):
        if numbers.random() < 0.3:
            parts.append(Caller.part("picture", picture(numbers), numbers.choice(VALUES)))
        else:
            parts.append(Caller.part(numbers.choice(FIELDS), numbers.choice(VALUES)))
    body = b"".join(parts) + b"--limit--\r\n"
    if numbers.random() < 0.2:
        body = body[: numbers.randrange(len(body))]
    if numbers.random() < 0.1:
        body = numbers.randbytes(200)
    kind = numbers.choice(("multipart/form-data; boundary=limit",) * 8 + ("multipart/form-data", "text/plain", ""))
    if numbers.random() < 0.1:
        kind, body = "application/x-www-form-urlencoded", query(numbers)[1:].encode("utf-8", "surrogatepass")
    charset = numbers.choice(CHARSETS)
    return kind + (f"; charset={charset}" if charset and numbers.random() < 0.1 else ""), body


def broken(caller: Caller, numbers: random.Random) -> bytes:
    """Bytes that are no request, or hardly one."""
    target, host = f"/{caller.token}/", f"Host: {caller.host}\r\n"
    begin = f"POST {target}ask HTTP/1.1\r\n{host}"
    texts = (
        f"GET {target}\r\n\r\n",
        f"GET {target} HTTP/9.9\r\n{host}\r\n",
        f"GET  {target}  HTTP/1.1\r\n{host}\r\n",
        f"GET {target} HTTP/1.1\n{host}\n",
        f"GET {target} HTTP/1.1\r\n\r\n",
        f"GET {target} HTTP/1.1\r\n{host}{host}\r\n",
        f"GET {target} HTTP/1.1\r\nHost {caller.host}\r\n\r\n",
        f"GET {target} HTTP/1.1\r\n{host}X: {'a' * 100_000}\r\n\r\n",
        f"GET {target} HTTP/1.1\r\n{host}{'X: a' * 1}{chr(13)}{chr(10)}" * 500,
        f"GET http://{caller.host}{target} HTTP/1.1\r\n{host}\r\n",
        f"GET * HTTP/1.1\r\n{host}\r\n",
        f"CONNECT {caller.host} HTTP/1.1\r\n{host}\r\n",
        f"GET {target}rows#x HTTP/1.1\r\n{host}\r\n",
        f"GET {target} HTTP/1.1\r\n{host}Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\n\r\n",
        f"GET {target} HTTP/1.1\r\n{host}Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n",
        f"{begin}Content-Length: -1\r\n\r\n",
        f"{begin}Content-Length: ²\r\n\r\n",
        f"{begin}Content-Length: {'9' * 19}\r\n\r\nabc",
        f"{begin}Content-Length: {'9' * 5000}\r\n\r\nabc",
        f"{begin}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        f"{begin}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        f"{begin}Transfer-Encoding: gzip\r\n\r\nabc",
        f"{begin}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc",
        f"{begin}Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
        f"{begin}Transfer-Encoding: chunked\r\n\r\n3;{'x' * 90_000}\r\nabc\r\n0\r\n\r\n",
        f"{begin}\r\nno length",
        f"{begin}Expect: 100-continue\r\nContent-Length: 9\r\n\r\nabc",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\r\n" * 200,
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "",
    )
    content = numbers.choice(texts).encode()
    if numbers.random() < 0.2:
        content = content[: numbers.randrange(len(content) + 1)] + numbers.randbytes(20)
    return content


def hostile_requests(caller: Caller, seed: int, count: int) -> Iterator[tuple[bytes, str]]:
    """Bytes to send, and what to do then, as `Caller.send` takes them."""
    numbers = random.Random(seed)
    for _ in range(count):
        draw = numbers.random()
        if draw < 0.2:
            yield broken(caller, numbers), numbers.choice(("end",) * 9 + ("leave",))
            continue
        method, headers, body = numbers.choice(METHODS[:3] * 4 + METHODS), ["Connection: close"], b""
        target, host = numbers.choice(ROUTES) + query(numbers), None
        if draw < 0.4:
            name = quote(numbers.choice(VALUES), errors="surrogatepass")
            target = numbers.choice(NAMED_ROUTES).format(numbers.choice((*TRAVERSALS, name)))
        elif draw < 0.7:
            method, target = numbers.choice(("POST",) * 9 + ("PUT",)), "ask"
            kind, body = form(numbers)
            headers += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
        elif draw < 0.8:
            host = numbers.choice(HOSTS).format(port=caller.port)
        elif draw < 0.85:
            headers.append(f"Origin: {numbers.choice(ORIGINS).format(port=caller.port)}")
        yield caller.head(method, target, *headers, host=host) + body, numbers.choice(("wait",) * 19 + ("leave",))
