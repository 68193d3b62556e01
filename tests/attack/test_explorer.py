"""The explorer's server, asked by clients that are no browser of its user: each is refused, and nothing gets out."""

import io
import zlib
from pathlib import Path

import pytest
from PIL import Image

from moebius.lab.explorer import connection

# Starlette leaves the file of a part that does not end to the collector, which closes it.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*SpooledTemporaryFile")


def check_answer(caller, answer, content):
    """Nothing of the server's inside comes out, and no text of the request as HTML."""
    assert not answer or 200 <= caller.status(answer) < 500, content[:300]
    for words in (b"Traceback", b'File "', b"site-packages", b"root:", b"class Guard", b"<script>x"):
        assert words not in answer, content[:300]


def check_requests(hostile, caller, faults, seed, count):
    before = caller.get().partition(b"\r\n\r\n")[2]
    for content, then in hostile.hostile_requests(caller, seed, count):
        check_answer(caller, caller.send(content, then), content)
        assert faults() == [], content[:300]
    assert caller.get().partition(b"\r\n\r\n")[2] == before


@pytest.mark.parametrize("caller", ["pictures", "numbers"], indirect=True)
def test_bad_requests_are_refused(hostile, caller, faults):
    check_requests(hostile, caller, faults, 0, 100)


@pytest.mark.thorough
@pytest.mark.parametrize("caller", ["pictures", "numbers", "table"], indirect=True)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_thousand_bad_requests_are_refused(hostile, caller, faults, seed):
    check_requests(hostile, caller, faults, seed, 1000)


def test_a_page_of_another_site_gets_nothing(hostile, caller):
    for host in hostile.HOSTS:
        answer = caller.get("rows", host=host.format(port=caller.port) or " ")
        assert caller.status(answer) in (400, 421), host
        assert b"ant" not in answer
    for origin in hostile.ORIGINS:
        assert caller.status(caller.get("rows", f"Origin: {origin.format(port=caller.port)}")) == 403, origin
    assert caller.status(caller.get("rows", f"Origin: http://{caller.host}")) == 200


def test_nothing_is_served_without_the_token(caller):
    tokens = ("", "x", caller.token[:-1], caller.token + "x", caller.token.swapcase(), "%00", f"x/../{caller.token}")
    for token in tokens:
        for route in ("", "rows", "row/0", "image/0.png", "static/explorer.js"):
            answer = caller.send(
                f"GET /{token}/{route} HTTP/1.1\r\nHost: {caller.host}\r\nConnection: close\r\n\r\n".encode()
            )
            assert caller.status(answer) == 403, (token, route)
            assert b"ant" not in answer


def test_no_path_leads_to_another_file(hostile, caller):
    for route in hostile.NAMED_ROUTES:
        for name in (*hostile.TRAVERSALS, "a" * 300 + ".js", str(Path(connection.__file__)), "."):
            answer = caller.get(route.format(name))
            assert caller.status(answer) in (400, 404, 405, 307), (route, name)
            check_answer(caller, answer, name.encode())
            assert b"class " not in answer
            assert b"htmx" not in answer


def large_png(width, height):
    """A grey picture without light, in few bytes."""

    def chunk(kind, content):
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    pixels = zlib.compress(bytes(height * (width + 1)), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_a_small_file_of_many_pixels_is_not_decoded(caller):
    answer = caller.ask(caller.part("picture", large_png(8000, 7000), "a.png"))
    assert caller.status(answer) == 400
    assert "needs at most 50 million pixels, got 8000 × 7000".encode() in answer
    assert caller.status(caller.ask(caller.part("picture", large_png(800, 700), "a.png"))) == 200


@pytest.mark.parametrize("kind", ["EPS", "PDF", "PCX", "TGA"])
def test_formats_that_no_browser_shows_are_refused(caller, kind):
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, kind)
    answer = caller.ask(caller.part("picture", stream.getvalue(), "a.png"))
    assert caller.status(answer) == 400
    assert b"no image in any known format" in answer


@pytest.mark.parametrize("charset", ["undefined", "idna", "unicode_escape", "utf-7", "punycode"])
def test_no_codec_of_the_request_is_used(caller, faults, charset):
    answer = caller.ask(
        caller.part("label", "\\ud800 +2AA-"), caller.part("picture", b"no picture", "\\ud800.png"), charset=charset
    )
    assert caller.status(answer) == 415
    assert faults() == []


def test_forms_without_limits_are_refused(caller):
    assert caller.status(caller.post(b"a=&" * 1000, "Content-Type: application/x-www-form-urlencoded")) == 415
    assert caller.status(caller.ask(*[caller.part(f"f{number}", "1") for number in range(2001)])) == 400
    assert caller.status(caller.ask(caller.part("numbers", "1 " * 40_000))) == 400


@pytest.mark.parametrize("caller", ["numbers"], indirect=True)
def test_a_number_of_a_class_with_many_digits_is_refused(caller, faults):
    for digits in (10, 30, 5000):
        answer = caller.ask(caller.part("numbers", "1 2 3 4"), caller.part("label", "9" * digits))
        assert caller.status(answer) == 400
        assert b"at most 9 digits" in answer
    assert faults() == []


def test_large_bodies_end_at_the_limit(caller):
    for length in (17 * 2**20, 10**18, 10**19):
        head = caller.head("POST", "ask", caller.FORM, f"Content-Length: {length}", "Connection: close")
        assert caller.status(caller.send(head)) == 413
    begin = caller.head("POST", "ask", caller.FORM, "Transfer-Encoding: chunked", "Connection: close")
    chunk = b"100000\r\n" + b"x" * 2**20 + b"\r\n"
    answer = caller.send(
        begin + b"100000\r\n" + caller.part("picture", b"", "a.png").ljust(2**20)[: 2**20] + b"\r\n" + chunk * 17
    )
    assert answer == b"" or caller.status(answer) == 413  # or cut off while it sends


def test_a_client_that_leaves_or_breaks_its_body_leaves_no_trace(caller, faults):
    begin = caller.head("POST", "ask", caller.FORM, "Content-Length: 1000")
    for _ in range(5):
        caller.send(begin + caller.part("label", "1"), "leave")
        caller.send(begin + caller.part("label", "1"), "end")
    chunked = caller.head("POST", "ask", caller.FORM, "Transfer-Encoding: chunked")
    assert caller.status(caller.send(chunked + b"-1\r\nabc\r\n0\r\n\r\n")) == 400
    late = caller.head("POST", "rows", "Transfer-Encoding: chunked")
    with caller.connect() as connected:
        connected.sendall(late)
        assert caller.status(connected.recv(2**16)) == 405
        connected.sendall(b"-1\r\nabc\r\n")
        caller.read(connected)
    assert caller.status(caller.get()) == 200
    assert faults() == []
