"""`Connection`: a connection to the explorer's server that nobody can keep open, or keep others out with."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# Seconds until the head of a request has to be complete, and until a client has to take more of an answer.
HEAD_SECONDS, READING_SECONDS = 10.0, 60.0
# Connections at a time; a browser opens six.
MOST_CONNECTIONS = 100


class Connection(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, with an end to waiting, for which uvicorn has no option.

    A client that sends no complete head within `HEAD_SECONDS`, or takes nothing of its answer for `READING_SECONDS`, is
    cut off. Where there are more than `MOST_CONNECTIONS`, the one that has been without a request for longest makes
    room, or else the oldest: clients that hold connections keep no other out.
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._opened = self.loop.time()
        self._deadline: asyncio.TimerHandle | None = None
        self._is_idle = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the head of a request."""
        super().connection_made(transport)
        self._wait(HEAD_SECONDS)
        every = [each for each in self.connections if isinstance(each, Connection)]
        others = [each for each in every if each is not self and not each.transport.is_closing()]
        if len(others) >= MOST_CONNECTIONS:
            min(others, key=lambda each: (not each._is_idle, each._opened)).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop to wait."""
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Read what has come; a complete head ends the wait."""
        cycle = self.cycle
        super().handle_events()
        if self.cycle is not cycle and not self.cycle.response_complete:
            self._is_idle = False
            if not self.flow.write_paused:  # of the answer before
                self._stop_waiting()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; a request that it is the body of gets no answer of its own."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Begin to wait for the next head, or for the client to take the answer."""
        self._is_idle = True
        self._wait(READING_SECONDS if self.transport.get_write_buffer_size() else HEAD_SECONDS)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Begin to wait for the client to take what is written."""
        super().pause_writing()
        self._wait(READING_SECONDS)

    def resume_writing(self) -> None:
        """The client has taken what was written."""
        super().resume_writing()
        if self._is_idle:
            self._wait(HEAD_SECONDS)
        else:
            self._stop_waiting()

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
