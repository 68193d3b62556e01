"""Whether the explorer's server keeps its memory: many requests of all kinds to a real server, in a process of its own.

    python benchmarks/soak.py

A quarter of the requests are what the page asks for when a user works with it: pages of rows in several orders, rows,
pictures, static files. A quarter are uploads of pictures and typed labels, a quarter bad requests (no token, wrong
hosts, wrong queries, files that are no pictures, forms that break, bodies that are too large), and a quarter clients
that leave before they have read the answer, or before they have sent all. Several clients ask at a time. The server's
resident memory is read from /proc before, in the middle, and at the end; all requests are made once in small number
before, so that caches are filled. The aim is no growth: below 5 % between the middle and the end. It exits with 1 where
an answer is a fault of the server (500 and above), or the aim is not met.
"""

import argparse
import io
import os
import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import numpy as np
import torch
from _compare import Measurement, make_parser, processor_name, write_rows
from PIL import Image

import moebius as mb

# Share by which the memory may grow between the middle and the end.
TOLERANCE = 0.05
BOUNDARY = "soak"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
ORDERS = ("row", "largest+loss", "smallest+loss", "largest+regret", "least+confident", "most+confident")
ROWS = 2000


def serve() -> None:
    """Serve a mixture of four experts on pictures, print the address, and end with the standard input."""
    torch.manual_seed(0)
    experts = [mb.experts.Linear(784, 10) for _ in range(4)]
    model = mb.Mixture(mb.gates.Linear(784, 4), experts, mb.routers.TopK(2), combine=mb.LogMixture()).eval()
    x, y = torch.randint(256, (ROWS, 1, 28, 28), dtype=torch.uint8), torch.randint(10, (ROWS,))
    with mb.explore(model, (x, y), browser=False) as server:
        print(server.url, flush=True)
        sys.stdin.read()


def make_picture(numbers: random.Random) -> bytes:
    """A picture of a random size as a file."""
    stream = io.BytesIO()
    side = numbers.choice((28, 64, 500))
    pixels = np.frombuffer(numbers.randbytes(side * side), np.uint8).reshape(side, side)
    Image.fromarray(pixels).save(stream, numbers.choice(("PNG", "JPEG", "WEBP")))
    return stream.getvalue()


def make_form(picture: bytes, label: str) -> bytes:
    """A form as the page sends it."""
    start = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="label"\r\n\r\n{label}\r\n--{BOUNDARY}\r\n'
    start += 'Content-Disposition: form-data; name="picture"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    return start.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()


class Client:
    """Sends requests to a server.

    Arguments:
        url: of the page.
    """

    def __init__(self, url: str):
        _, _, self.address, self.token, _ = url.split("/")
        self.pictures = [make_picture(random.Random(seed)) for seed in range(20)]

    def send(self, seed: int) -> str:
        """Send one request, drawn by the seed, and tell what came of it: a status, or "left"."""
        numbers = random.Random(seed)
        ask = (self.look, self.upload, self.annoy, self.leave)[seed % 4]
        connection = HTTPConnection(self.address, timeout=900)
        try:
            return ask(connection, numbers)
        except (HTTPException, ConnectionError):
            return "cut off"
        finally:
            connection.close()

    def look(self, connection: HTTPConnection, numbers: random.Random) -> str:
        order, page, row = numbers.choice(ORDERS), numbers.randrange(30), numbers.randrange(ROWS)
        rows = f"rows?order={order}&page={page}"
        paths = (rows, rows, rows, f"row/{row}", f"image/{row}.png", f"image/{row}.png", "static/explorer.js", "")
        return self.ask(connection, "GET", numbers.choice(paths))

    def upload(self, connection: HTTPConnection, numbers: random.Random) -> str:
        body = make_form(numbers.choice(self.pictures), str(numbers.randrange(10)))
        return self.ask(connection, "POST", "ask", body, {"Content-Type": FORM})

    def annoy(self, connection: HTTPConnection, numbers: random.Random) -> str:
        kind = numbers.randrange(8)
        if kind == 0:
            return self.ask(connection, "GET", "rows", headers={"Host": "evil.example"})
        if kind == 1:
            return self.ask(connection, "GET", "rows", headers={"Origin": "http://evil.example"})
        if kind == 2:
            return self.ask(connection, "POST", "ask", numbers.randbytes(1000), {"Content-Type": FORM})
        if kind == 3:
            body = make_form(numbers.randbytes(numbers.choice((10, 3 * 2**20))), "9" * 3000)
            return self.ask(connection, "POST", "ask", body, {"Content-Type": FORM})
        if kind == 4:
            return self.ask(connection, "POST", "ask", headers={"Content-Type": FORM, "Content-Length": str(10**12)})
        paths = ("rows?gate=x", "rows?order=" + "x" * 9000, "row/99999", "static/..%2fguard.py", "%00", "../" * 99)
        return self.ask(connection, numbers.choice(("GET", "PUT", "HEAD")), numbers.choice(paths))

    def leave(self, connection: HTTPConnection, numbers: random.Random) -> str:
        connection.putrequest("POST", f"/{self.token}/ask")
        body = make_form(numbers.choice(self.pictures), "1")
        connection.putheader("Content-Type", FORM)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        with suppress(ConnectionError):
            connection.send(body[: numbers.choice((0, len(body) // 2, len(body)))])
        return "left"

    def ask(
        self,
        connection: HTTPConnection,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> str:
        connection.request(method, f"/{self.token}/{path}", body, headers or {})
        answer = connection.getresponse()
        answer.read()
        return str(answer.status)


def resident_bytes(process: int) -> int:
    """Memory of a process that is in the machine's, in bytes."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def soak(count: int, clients: int) -> tuple[list[int], float, Counter[str]]:
    """Memory at the start, in the middle and at the end, requests per second, and how often what came."""
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        client = Client(server.stdout.readline().strip())
        outcomes, memory, rate = Counter[str](), [], 0.0
        with ThreadPoolExecutor(clients) as pool:
            for _ in pool.map(client.send, range(-min(count, 400), 0)):
                pass
            memory.append(resident_bytes(server.pid))
            print(f"start, {memory[0] / 2**20:.1f} MiB", flush=True)
            start = time.perf_counter()
            for tenth in range(10):
                outcomes.update(pool.map(client.send, range(count * tenth // 10, count * (tenth + 1) // 10)))
                memory.append(resident_bytes(server.pid))
                rate = sum(outcomes.values()) / (time.perf_counter() - start)
                print(f"{sum(outcomes.values()):,} requests, {memory[-1] / 2**20:.1f} MiB, {rate:.0f}/s", flush=True)
        server.stdin.close()
    return [memory[0], memory[5], memory[10]], rate, outcomes


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=4, help="clients at a time")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    print(f"{processor_name()}, torch {torch.__version__}")
    memory, rate, outcomes = soak(options.requests, options.clients)
    growth = memory[2] / memory[1] - 1
    print(", ".join(f"{name}: {times:,}" for name, times in sorted(outcomes.items())))
    places = zip(("start", "middle", "end"), memory, strict=True)
    print("; ".join(f"{place} {size / 2**20:.1f} MiB" for place, size in places), end="")
    print(f"; from the middle to the end {growth:+.1%}; {rate:.0f} requests/s")
    faults = sum(times for name, times in outcomes.items() if name.startswith("5"))
    rows = [
        Measurement("explorer, requests", rate, "1/s", None, None, (rate, rate)),
        Measurement("explorer, memory", memory[2] / 2**20, "MiB", "the middle", 1 + growth, (1 + growth, 1 + growth)),
    ]
    write_rows(rows, options.json)
    sys.exit(faults > 0 or growth > TOLERANCE)


if __name__ == "__main__":
    main()
