"""Locks by which death is seen: a process holds one for its life, and the kernel frees it whatever ends the process.

Pids are never asked: they are reused, and lie across containers.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from hueyctl.errors import StoreError, StoreReadOnly
from hueyctl.storage.place import Place

# Somebody's probe may hold a free lock for a moment; that must not look like a holder.
PATIENCE_S = 0.05
_NOTE_MAX = 200  # bytes
_NOTE_WORDS = 6


class HeldLock:
    """A lock that this process holds until `release`, or until it dies. Children don't inherit it."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor that holds it; -1 once released."""
        return self._fd

    def release(self) -> None:
        """Let it go and remove its file; a second time does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            # Unlinked while still held: the other order could remove a file that somebody else has locked by then.
            with suppress(OSError):
                os.unlink(self.path)
            os.close(fd)

    def abandon(self) -> None:
        """Let it go and leave its file behind, as death would."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def hold(path: Path) -> HeldLock | None:
    """Take the lock at `path`, made where it is missing (0600); None: another process (or this one) holds it.

    Raises:
        StoreReadOnly: the file can't be made or written.
        StoreError: it can't be locked here.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        fd = _open(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.002)
            continue
        except OSError as exc:
            os.close(fd)
            raise StoreError(f"{path}: can't be locked: {exc.strerror}") from exc
        if _is_at(fd, path):
            return HeldLock(path, fd)
        # Its last holder unlinked it between our open and our lock: what we hold is no longer what others will see.
        os.close(fd)


def is_free(path: Path) -> bool:
    """Does nobody hold the lock at `path`? A missing file is free, one that can't be read is not.

    Probes share the lock, so that two of them don't see each other.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(fd)


def note_of(lock: Path) -> list[str] | None:
    """The words that its holder has noted in a lock (`identity.note`): the boot of the machine, the inode of the lock
    itself, and more. None: there are none, or this is a copy of that lock."""
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        words = os.read(fd, _NOTE_MAX).decode("ascii", "replace").split()
        return words if len(words) == _NOTE_WORDS and words[1] == str(os.fstat(fd).st_ino) else None
    except OSError:
        return None
    finally:
        os.close(fd)


def is_of_here(place: Place, worker: str) -> bool:
    """Did this worker begin on this machine, since its last boot, so that its locks tell whether it lives? Where the
    store is a file all did."""
    if place.address is None:
        return True
    from hueyctl.storage.boot import boot_id

    words = note_of(place.worker_lock(worker))
    return words is not None and words[0] == (boot_id() or "unknown")


def worker_is_dead(place: Place, worker: str) -> bool:
    """Is a worker of this machine gone, and with it everything that its guard had started? Of another's that can't be
    said: False."""
    return is_of_here(place, worker) and nobody_holds(place, worker)


def nobody_holds(place: Place, worker: str) -> bool:
    """Are both locks of this name free, a worker's and its guard's?"""
    return is_free(place.worker_lock(worker)) and is_free(place.guard_lock(worker))


def clear(place: Place, worker: str) -> None:
    """Remove the lock files that a dead worker left behind. Names never recur, so nobody can hold them again."""
    for path in (place.worker_lock(worker), place.guard_lock(worker)):
        with suppress(OSError):
            os.unlink(path)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StoreReadOnly(f"{path}: can't be made or written: {exc.strerror}") from exc


def _is_at(fd: int, path: Path) -> bool:
    try:
        there = os.stat(path)
    except OSError:
        return False
    here = os.fstat(fd)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
