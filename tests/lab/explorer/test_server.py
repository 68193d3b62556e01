"""The server ends when it is closed, also after Ctrl-C."""

import _thread
import sys
import threading
import time

import pytest

from moebius.lab.explorer.server import Server


def test_after_an_interrupt_close_waits_for_the_end_of_the_server(pictures):
    earlier = set(sys._current_frames())
    server = Server(pictures)
    threading.Timer(0.2, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        server.wait()
    server.close()
    time.sleep(0.02)
    assert set(sys._current_frames()) <= earlier
