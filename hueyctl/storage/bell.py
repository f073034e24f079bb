"""The bell: a datagram to everyone who listens that something has happened. A hint, and never more.

Who rings never waits and never fails: a full or dead listener is passed over, and listeners look at the store by
themselves now and then. The guard rings too, so that this needs the standard library alone.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

# What fits into a sun_path with its closing zero (macOS has 104, Linux 108).
PATH_MAX = 103
# A flood must not keep the listener from its work; what is left is read next time.
DRAIN_MAX = 1000


class Bell:
    """A socket in `dir` that others ring. Where it can't be bound, it stays silent and its owner polls."""

    def __init__(self, dir: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        # Names never recur: a ringer that found one dead may unlink it at any later time.
        path = dir / f"{os.getpid()}-{os.urandom(6).hex()}"
        self._path: Path | None = None
        try:
            with _Folder(dir) as folder:
                self._socket.bind(folder.address(path.name))
            self._path = path
        except OSError:
            return
        with suppress(OSError):
            os.chmod(path, 0o600)

    @property
    def path(self) -> Path | None:
        """Its socket, for its owner to pass over when ringing others; None: it could not be bound."""
        return self._path

    @property
    def rings(self) -> bool:
        """Can it be rung at all?"""
        return self._path is not None

    def fileno(self) -> int:
        """For a selector: readable when somebody has rung."""
        return self._socket.fileno()

    def drain(self) -> set[bytes]:
        """The kinds that were rung since the last call; empty when none was. Never waits."""
        kinds: set[bytes] = set()
        for _ in range(DRAIN_MAX):
            try:
                kinds.add(self._socket.recv(64))
            except OSError:
                break
        return kinds

    def close(self) -> None:
        """Stop listening, and remove the socket."""
        if self._path is not None:
            with suppress(OSError):
                os.unlink(self._path)
            self._path = None
        self._socket.close()


def ring(dir: Path, kind: bytes = b"work", *, skip: Path | None = None) -> None:
    """Ring every listener in `dir`, but the one at `skip`. Never waits, never raises; sockets whose owner is dead are
    removed.

    Kinds: `work` (something may be claimable), `event` (something happened), `ask` (a request waits for a worker in
    the store), `death` (a worker's processes are gone).
    """
    try:
        names = [name for name in os.listdir(dir) if skip is None or name != skip.name]
    except OSError:
        return
    if not names:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, _Folder(dir) as folder:
        sender.setblocking(False)
        for name in names:
            try:
                sender.sendto(kind, folder.address(name))
            except ConnectionRefusedError:
                _remove(dir / name)
            except OSError:
                # EAGAIN: it hasn't read for a while (it may be stopped); ENOENT: it has just gone.
                continue


def ring_one(bell: Path, kind: bytes) -> None:
    """Ring the bell at this path alone. Never waits, never raises."""
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, _Folder(bell.parent) as folder:
        sender.setblocking(False)
        sender.sendto(kind, folder.address(bell.name))


class _Folder:
    """Addresses of the sockets in a folder, through a descriptor of it where its path is too long for an address."""

    def __init__(self, dir: Path) -> None:
        self._dir = os.fspath(dir)
        self._fd = -1

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def address(self, name: str) -> str:
        direct = os.path.join(self._dir, name)
        if len(os.fsencode(direct)) <= PATH_MAX:
            return direct
        if not os.path.isdir("/proc/self/fd"):
            raise OSError(errno.ENAMETOOLONG, "too long for a socket's address", direct)
        if self._fd < 0:
            self._fd = os.open(self._dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._fd}/{name}"


def _remove(path: Path) -> None:
    # A plain file refuses too; only what is a socket was a bell.
    with suppress(OSError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
