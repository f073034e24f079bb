"""The guard's end of a stream: whole messages come in, and nothing that goes out waits.

There is one to the worker itself, one to each of its threads, and one to each warm child.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from hueyctl.process.wire import READ_SIZE, Call, Reply, Unpacker, pack

_BOTH = selectors.EVENT_READ | selectors.EVENT_WRITE


class Channel:
    """A stream socket in the guard's loop, which calls `heard` when there is something to receive."""

    def __init__(
        self,
        sock: socket.socket,
        selector: selectors.BaseSelector,
        heard: Callable[[Channel], object],
        *,
        largest: int | None = None,
    ) -> None:
        """`largest`: who sends a larger message is hung up on."""
        sock.setblocking(False)
        self.hung_up = False  # by the other end: nobody listens there any more
        self._socket, self._selector = sock, selector
        self._unpacker = Unpacker(largest=largest)
        self._rest = bytearray()  # what the socket hasn't taken yet
        self._ready = partial(heard, self)
        selector.register(sock, selectors.EVENT_READ, self._ready)

    def receive(self) -> list[bytes] | None:
        """The messages that one read makes whole; None: there is nothing to read now, or (`hung_up`) any more."""
        if self._rest:
            self._send(b"")
        try:
            piece = self._read()
        except BlockingIOError:
            return None
        except ConnectionError:
            piece = b""
        if piece:
            try:
                return self._unpacker.feed(piece)
            except ValueError:
                self.close()
                return None
        self._deafen()
        return None

    def send(self, message: Reply | Call) -> None:
        """Send it, or as much as goes now, and the rest later; whoever has hung up is sent nothing."""
        if not self.hung_up:
            self._send(pack(message))

    def finish(self, deadline: float) -> None:
        """Wait until everything is sent, for the loop won't any more; no longer than `deadline` (monotonic)."""
        if self._rest:
            with contextlib.suppress(OSError):
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
                self._socket.sendall(self._rest)

    def close(self) -> None:
        """Hang up."""
        self._deafen()
        self._socket.close()

    def _read(self) -> bytes:
        return self._socket.recv(READ_SIZE)

    def _send(self, data: bytes) -> None:
        waited = bool(self._rest)
        self._rest += data
        try:
            del self._rest[: self._socket.send(self._rest)]
        except BlockingIOError:
            pass
        except ConnectionError:  # what it said before is still to be read, and then its end
            self._rest.clear()
        if waited != bool(self._rest):
            self._selector.modify(self._socket, _BOTH if self._rest else selectors.EVENT_READ, self._ready)

    def _deafen(self) -> None:
        if not self.hung_up:
            self.hung_up = True
            self._selector.unregister(self._socket)


class Control(Channel):
    """The channel to the worker itself, by which its threads' own channels come."""

    def __init__(
        self, sock: socket.socket, selector: selectors.BaseSelector, heard: Callable[[Channel], object]
    ) -> None:
        super().__init__(sock, selector, heard)
        self._joined: deque[socket.socket] = deque()

    def joined(self) -> socket.socket:
        """The socket that came with the next `Join`."""
        return self._joined.popleft()

    def _read(self) -> bytes:
        piece, descriptors, flags, _ = socket.recv_fds(self._socket, READ_SIZE, 1)
        for fd in descriptors:
            os.set_inheritable(fd, False)
            self._joined.append(socket.socket(fileno=fd))
        if flags & socket.MSG_CTRUNC:
            # Its thread would wait for ever. Another guard has descriptors again.
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return piece
