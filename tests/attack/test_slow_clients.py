"""Clients of the explorer's server that take their time: they are cut off, and no other waits for them."""

import socket
import time

from moebius.lab.explorer import connection, guard


def test_a_head_or_a_body_a_byte_at_a_time_is_cut_off_and_keeps_nobody_out(caller, faults, monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.6)
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.6)
    head = caller.head("GET", "", "X: " + "a" * 1000)
    body = caller.head("POST", "ask", caller.FORM, "Content-Length: 1000") + caller.part("picture", b"", "a.png")
    late = caller.head("GET", "", "Content-Length: 1000")
    connections = [caller.connect() for _ in range(30)]
    for place, each in enumerate(connections):
        each.sendall((head[:20], body, late)[place % 3])
    left = connections
    for step in range(2000):
        left = [each for place, each in enumerate(left) if takes(each, b"a")]
        if step < 3:
            assert caller.status(caller.get("rows")) == 200
        if not left:
            break
        time.sleep(0.05)
    assert left == []
    answers = [each.recv(100) if place % 3 == 1 else b"" for place, each in enumerate(connections)]
    for each in connections:
        each.close()
    assert any(b" 408 " in answer for answer in answers)
    assert faults() == []


def takes(connected, content):
    """Whether the other end still takes something."""
    try:
        connected.sendall(content)
    except OSError:
        return False
    return True


def test_connections_that_send_nothing_keep_nobody_out(caller, monkeypatch):
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 10)
    idle = [caller.connect() for _ in range(40)]
    try:
        assert caller.status(caller.get("rows")) == 200
        assert [each.recv(1) for each in idle[:25]] == [b""] * 25  # the oldest made room
    finally:
        for each in idle:
            each.close()


def test_a_client_that_takes_no_answer_is_cut_off(caller, faults, monkeypatch):
    monkeypatch.setattr(connection, "READING_SECONDS", 0.5)
    with socket.socket() as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asking.settimeout(60)
        asking.connect(("127.0.0.1", caller.port))
        asking.sendall(caller.head("GET", "static/htmx.min.js") * 300)
        assert caller.status(caller.get("rows")) == 200
        for _ in range(600):
            if not caller.count_connections():
                break
            time.sleep(0.1)
        taken = caller.read(asking)
    assert 0 < taken.count(b"HTTP/1.1 200") < 300
    assert faults() == []
