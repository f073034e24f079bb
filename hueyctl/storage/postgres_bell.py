"""The bell of a store on a server: what is committed on other machines rings it too, by LISTEN and NOTIFY.

Who writes tells of it in the same transaction (`Database.tell`), with the name of its machine: there it has been rung
already, by a datagram, and is passed over. A hint like any other: while the connection is lost nothing is heard.
"""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress
from typing import Final

import psycopg

from hueyctl.errors import StoreError
from hueyctl.storage.bell import Bell, ring_one
from hueyctl.storage.place import Place
from hueyctl.storage.postgres_database import channel, connect
from hueyctl.storage.rows import Row

RETRY_S: Final = 1.0


class RelayedBell(Bell):
    """A bell with a thread that listens to the server."""

    def __init__(self, place: Place, address: str) -> None:
        with suppress(StoreError):  # then it is silent
            place.prepare()
        super().__init__(place.bell)
        self._address, self._origin = address, place.origin()
        self._stopped, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._listen, name="Relay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and remove the socket."""
        if self._stop >= 0:
            os.close(self._stop)  # its thread takes that as the end, and closes the other side
            self._stop = -1
        super().close()

    def _listen(self) -> None:
        try:
            ended = not self.rings
            while not ended:
                try:
                    ended = self._relay()
                except (psycopg.Error, StoreError, ValueError):
                    ended = self._is_over(RETRY_S)
                else:
                    continue
                self._ring(b"work")  # something may have happened meanwhile
        finally:
            os.close(self._stopped)

    def _relay(self) -> bool:
        """Ring for what the server says, until we are closed (True)."""
        with connect(self._address, busy_s=RETRY_S) as connection:
            [(store,)] = connection.execute(b"SELECT id FROM store").fetchall()
            connection.execute(f"LISTEN {channel(store)}".encode())
            while not self._is_over(None, connection):
                for note in connection.notifies(timeout=0):
                    origin, _, kinds = note.payload.partition(":")
                    if origin != self._origin:
                        for kind in kinds.split(","):
                            self._ring(kind.encode())
        return True

    def _is_over(self, timeout_s: float | None, *others: psycopg.Connection[Row]) -> bool:
        """Wait until we are closed (True), one of the others has something to say, or time is up."""
        poll = select.poll()  # select takes no descriptor above 1,023
        for file in (self._stopped, *(other.fileno() for other in others)):
            poll.register(file, select.POLLIN)
        ready = poll.poll(None if timeout_s is None else timeout_s * 1000)
        return any(file == self._stopped for file, _ in ready)

    def _ring(self, kind: bytes) -> None:
        if self.path is not None:
            ring_one(self.path, kind)
