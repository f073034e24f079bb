"""`doctor`: everything that an operator would look at, each finding with what to do.

It needs no worker, changes nothing, and takes whatever it meets (a damaged store, a wrong file) for a finding.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path

from hueyctl import config
from hueyctl.app.check import check
from hueyctl.app.checkup import Check, ok, problem, warning
from hueyctl.app.doctor_ground import ground, ground_of_output
from hueyctl.app.doctor_work import work
from hueyctl.errors import ConfigError, StoreBusy, StoreError, StoreMissing
from hueyctl.model.address import is_address
from hueyctl.model.definition import Project
from hueyctl.storage.health import damage, layout, miscounts
from hueyctl.storage.place import Place
from hueyctl.storage.sqlite import SqliteStore, open_store

RESTORE = "stop the workers, keep the file with its -wal, and restore a copy made by `hueyctl backup`"


def doctor(file: Path | None, *, cwd: Path, environ: Mapping[str, str], full: bool, now: datetime) -> Iterator[Check]:
    """The findings, in the order of what rests on what. With `full` every row is looked at."""
    project: Project | None = None
    try:
        project = config.load(config.find(file, cwd=cwd, environ=environ), environ=environ)
    except ConfigError as exc:
        for line in exc.problems:
            yield problem("file", line, exc.hint or "correct it; workers that run go on with what they have read")
        known = config.salvage(file, cwd=cwd, environ=environ)
        there = is_address(known.store) or os.path.lexists(known.path) or os.path.lexists(known.store)
        if not known.store or not there:
            return
    else:
        known = project
        yield ok("file", f"{project.path}: {len(project.jobs)} job{'' if len(project.jobs) == 1 else 's'}")
    yield from _of_file(known.path)
    if project is not None:
        yield from _of_what_it_names(project, environ)
    place = Place.of(known.store, known.dir)
    if place.address is not None:
        from hueyctl.app.doctor_server import store_on_server

        yield from ground_of_output(place)
        yield from store_on_server(place, project, full=full, now=now)
        return
    yield from ground(place)
    yield from _of_store(place, project, full=full, now=now)


def _of_file(path: Path) -> Iterator[Check]:
    """Who may write it, or put another in its place: its jobs run as whoever starts the worker."""
    for each in (path, path.parent):
        try:
            found = os.stat(each)
        except OSError:
            return  # which is why it could not be loaded
        if found.st_uid not in {0, os.geteuid()}:
            owner = f"{each} belongs to user {found.st_uid}, who can so run anything as you"
            yield warning("file", owner, f"chown it, or run hueyctl as user {found.st_uid}")
        if found.st_mode & stat.S_ISVTX:
            continue  # of such a folder everybody can take away his own files alone
        if found.st_mode & 0o002:
            everyone = f"{each} can be written by every user of this machine, who can so run anything as you"
            yield problem("file", everyone, f"chmod o-w {each}")
        if found.st_mode & 0o020 and found.st_gid != os.getegid():
            group = f"{each} can be written by the group {found.st_gid}, which can so run anything as you"
            yield warning("file", group, f"chmod g-w {each}, unless its members may")


def _of_what_it_names(project: Project, environ: Mapping[str, str]) -> Iterator[Check]:
    """What `hueyctl check` finds beyond the file: programs, functions, folders, doubtful schedules."""
    found = check(project, environ=environ)
    for line in found.problems:
        yield problem("file", line, "correct it: its runs fail")
    for line in found.warnings:
        yield warning("file", line, "correct it, unless it is right where the workers run")


def _of_store(place: Place, project: Project | None, *, full: bool, now: datetime) -> Iterator[Check]:
    try:
        store = open_store(place.path, read_only=True)
    except StoreMissing as exc:
        yield _missing(place, exc)
        return
    except StoreError as exc:
        yield problem("store", exc.message, exc.hint or RESTORE)
        return
    name = "store"
    with closing(store):
        try:
            yield from _of_layout(store, place)
            name = "integrity"
            yield from _of_integrity(store, full=full)
            name = "store"
            yield from work(store, place, project, now=now)
        except StoreBusy as exc:
            yield problem(name, exc.message, exc.hint or "try again")
        except StoreError as exc:
            yield problem(name, exc.message, exc.hint or RESTORE)


def _missing(place: Place, exc: StoreMissing) -> Check:
    log = place.path.with_name(place.path.name + "-wal")
    if os.path.lexists(log):
        return problem(
            "store",
            f"{place.path} is gone, but its log {log.name} is there, which holds what it had accepted",
            "put the store back; or remove the log too, if all of it is to be forgotten",
        )
    return ok("store", f"{exc.message}: {exc.hint}")


def _of_layout(store: SqliteStore, place: Place) -> Iterator[Check]:
    found = layout(store.database)
    size = f"{found.pages * found.page_size / 2**20:.1f} MiB"
    free = f", {found.free_pages / found.pages:.0%} of it free" if found.free_pages > found.pages / 10 else ""
    yield ok("store", f"{place.path}: version {found.version}, {size}{free}")
    if found.journal_mode == "wal":
        yield ok("pragmas", "journal_mode wal; every writer checks the others when it opens the store")
    else:
        yield warning(
            "pragmas",
            f"journal_mode is {found.journal_mode}: nobody has written since it was restored, or another program did",
            "nothing: the next worker or enqueue sets it to wal",
        )


def _of_integrity(store: SqliteStore, *, full: bool) -> Iterator[Check]:
    wrong = damage(store.database, full=full)
    for line in wrong:
        yield problem("integrity", line, RESTORE)
    miscounted = miscounts(store.database) if full and not wrong else []
    for line in miscounted:
        yield problem("integrity", line, "report it as a bug; `hueyctl inspect` counts wrong, and nothing is lost")
    if not wrong and not miscounted:
        yield ok("integrity", "sound (integrity_check, counts)" if full else "sound (quick_check; --full looks closer)")
