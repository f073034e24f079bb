"""Which file a worker works on, noted in its lock, so that a store that was replaced is not opened beside its log.

SQLite takes the log at a path for the log of the file at that path. Where somebody has put another file there (a
backup, and forgot the workers or the log), it would mix the two, and accept into what is lost a moment later. The
processes that have the store open see it by themselves (`Database.check_same_file`); this is for those that come then.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from hueyctl.errors import StoreReplaced
from hueyctl.storage.locks import PATIENCE_S, HeldLock, clear, is_free, note_of
from hueyctl.storage.place import Place


class _Files(NamedTuple):
    """The database (device and inode) and its log (inode; 0: none)."""

    device: int
    inode: int
    log: int


def note(lock: HeldLock, place: Place) -> None:
    """Write down in a worker's lock which files are at the store's path now. The worker must keep the store open for
    as long as it holds the lock: then they stay the same."""
    files = _files(place) if place.address is None else _Files(0, 0, 0)
    if files is not None:
        # With its own inode: in a copy of the folder it says nothing.
        own = os.fstat(lock.fileno()).st_ino
        with suppress(OSError):  # a full disk
            os.pwrite(lock.fileno(), " ".join(map(str, (_boot(), own, *files, "."))).encode(), 0)


def erase(lock: HeldLock) -> None:
    """Take the note back, before the store is closed: its log may go then."""
    with suppress(OSError):
        os.ftruncate(lock.fileno(), 0)


def refuse_another(place: Place) -> None:
    """Let the files at the store's path pass, unless a worker lives that works on others, or the log there is that of
    another file on which a worker has died.

    Raises:
        StoreReplaced: they are not those that they were.
    """
    try:
        locks = [place.workers / name for name in os.listdir(place.workers) if name.endswith(".lock")]
    except OSError:
        return
    for lock in locks:
        if _contradicts(lock, place):
            # Its worker may just be leaving, or dying: the kernel closes its files one by one.
            time.sleep(PATIENCE_S)
            refusal = _contradicts(lock, place)
            if refusal is not None:
                raise refusal


def _contradicts(lock: Path, place: Place) -> StoreReplaced | None:
    noted, found = _noted(lock), _files(place)
    if noted is None or found is None or found == noted[1]:
        return None
    boot, files = noted
    same = found[:2] == files[:2]
    if not is_free(lock):
        changed = f"the log of {place.path}" if same else str(place.path)
        return StoreReplaced(
            f"{changed} was removed or replaced while worker {lock.stem} works on it",
            hint="stop everything that uses the store, put the right files back, and start again",
        )
    if same or boot != _boot():  # device numbers may change with a boot
        return None
    log = Path(f"{place.path}-wal")
    if not _size(log):
        # A new beginning. The log that it will have must not be taken for the old one.
        clear(place, lock.stem)
        return None
    return StoreReplaced(
        f"{place.path} was replaced, and {log.name} beside it is the log of the file before it",
        hint=f"put that file back; or, if this is a restored backup, remove {log.name} and {place.path.name}-shm",
    )


def _noted(lock: Path) -> tuple[str, _Files] | None:
    words = note_of(lock)
    if words is None:
        return None
    try:
        return words[0], _Files(*map(int, words[2:5]))
    except ValueError:
        return None


def _files(place: Place) -> _Files | None:
    try:
        store = os.stat(place.path)
    except OSError:
        return None
    try:
        log = os.stat(f"{place.path}-wal").st_ino
    except OSError:
        log = 0
    return _Files(store.st_dev, store.st_ino, log)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _boot() -> str:
    from hueyctl.storage.boot import boot_id  # loaded by those who have something to compare

    return boot_id() or "unknown"
