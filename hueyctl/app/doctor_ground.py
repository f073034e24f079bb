"""What a store stands on: its file system, permissions, space, SQLite, and the length of its log."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from hueyctl.app.checkup import Check, ok, problem, warning
from hueyctl.storage.health import has_reset_bug
from hueyctl.storage.place import NETWORK_FILE_SYSTEMS, Place, file_system, is_read_only

MIB, GIB = 2**20, 2**30
# Less than this, and the next burst of work may fill it: a log alone may grow to 64 MiB.
LEAST_FREE = 100 * MIB
LITTLE_FREE = GIB
# Each attempt has two files.
FEW_FILES = 10_000
# A worker shortens it at 4 MiB within seconds, and an enqueuer alone at 64; one large batch may be 130.
LONG_LOG = 256 * MIB
IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def ground(place: Place) -> Iterator[Check]:
    """The findings about where the store is, or will be."""
    folder = _nearest(place.dir)
    yield from _of_file_system(folder)
    yield from _of_permissions(place, folder)
    yield from _of_space(folder)
    yield from _of_sqlite()
    yield from _of_log(place)


def ground_of_output(place: Place) -> Iterator[Check]:
    """The findings about where this machine's locks and output are, of a store that is on a server."""
    folder = _nearest(place.dir)
    yield from _of_file_system(folder)
    yield from _of_permissions(place, folder)
    yield from _of_space(folder)


def of_free_space(free: int, total: int, free_files: int, total_files: int) -> Check:
    """What to think of this much free space (bytes), and of so many files that can still be made (0 in all: no limit).

    A share of the whole says little: 2 % of a large disk last for years, 20 % of a small one for an hour.
    """
    found = f"{_size(free)} of {_size(total)} free"
    make_space = (
        "make space: `hueyctl prune` with a shorter retention, or a larger disk; a full one accepts nothing, "
        "and prune needs some room itself: delete something else first"
    )
    if free < LEAST_FREE:
        return problem("space", found, make_space)
    if free < LITTLE_FREE:
        return warning("space", found, make_space)
    if total_files and free_files < FEW_FILES:
        return warning("space", f"only {free_files} more files can be made (inodes)", make_space)
    return ok("space", found)


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next((each for each in (folder, *folder.parents) if os.path.isdir(each)), Path("/"))


def _of_file_system(folder: Path) -> Iterator[Check]:
    kind = file_system(folder)
    move = "put the store on a local disk: [hueyctl] store in jobs.toml, or HUEYCTL_STORE"
    if kind is None:
        yield ok("file-system", "of a type that this system doesn't tell")
    elif kind in NETWORK_FILE_SYSTEMS:
        yield problem("file-system", f"{folder} is on a network file system ({kind}): SQLite's locks fail there", move)
    elif kind in IN_MEMORY:
        yield warning("file-system", f"{folder} is in memory ({kind}): all of it is gone when the machine stops", move)
    else:
        yield ok("file-system", f"{kind}, local")


def _of_permissions(place: Place, folder: Path) -> Iterator[Check]:
    me, found = os.geteuid(), list[Check]()
    private = [place.workers, place.bell, place.output, *_files(place)]
    if place.dir.name == ".hueyctl":  # any other may be the user's own, and open on purpose
        private.insert(0, place.dir)
    for path in private:
        try:
            status = os.lstat(path)
        except OSError:
            continue
        if stat.S_IMODE(status.st_mode) & 0o077:
            rights = "go-rwx"
            found.append(
                warning(
                    "permissions", f"others can get into {path}: parameters and output are in it", _chmod(rights, path)
                )
            )
        if status.st_uid != me:
            owner = f"user {status.st_uid}"
            found.append(
                problem("permissions", f"{path} belongs to {owner}, and you are user {me}", "one store is for one user")
            )
    unwritable = [path for path in (folder, *_files(place)) if os.path.exists(path) and not os.access(path, os.W_OK)]
    if unwritable and is_read_only(folder):
        where = "mount it writable, or name another place for the store"
        found.append(problem("permissions", f"{folder} is on a file system that is mounted read-only", where))
    else:
        found += [
            problem("permissions", f"{path} can't be written by you", "run hueyctl as its owner, or give it to you")
            for path in unwritable
        ]
    yield from found or [
        ok("permissions", "for its owner alone" if os.path.exists(place.dir) else f"{folder} can be written")
    ]


def _files(place: Place) -> list[Path]:
    return [place.path, *(Path(f"{place.path}{end}") for end in ("-wal", "-shm"))]


def _chmod(rights: str, path: Path) -> str:
    return f"chmod {rights} {path}"


def _of_space(folder: Path) -> Iterator[Check]:
    try:
        found = os.statvfs(folder)
    except OSError as exc:
        yield warning("space", f"{folder}: {exc.strerror}", "look with df")
        return
    unit = found.f_frsize
    yield of_free_space(found.f_bavail * unit, found.f_blocks * unit, found.f_favail, found.f_files)


def _of_sqlite() -> Iterator[Check]:
    version = sqlite3.sqlite_version
    if has_reset_bug(sqlite3.sqlite_version_info):
        yield warning(
            "sqlite",
            f"SQLite {version} has the WAL-reset bug (unless your system's vendor fixed it)",
            "two processes that shorten the log at once may, rarely, damage the store; one worker alone does it, so "
            "this isn't met in normal use. A Python with SQLite 3.51.3, 3.50.7 or 3.44.6 is free of it; "
            f"{sys.executable} isn't",
        )
    else:
        yield ok("sqlite", f"SQLite {version}")


def _of_log(place: Place) -> Iterator[Check]:
    try:
        length = os.stat(f"{place.path}-wal").st_size
    except OSError:
        return
    if length > LONG_LOG:
        yield warning(
            "log",
            f"{place.path.name}-wal has grown to {_size(length)}",
            "a program that reads the store all the time keeps it from being shortened (fuser, lsof); or no worker has "
            "run for long: `hueyctl worker start`",
        )
    else:
        yield ok("log", f"{place.path.name}-wal: {_size(length)}")


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.1f} MiB"
