"""What a store on a PostgreSQL server stands on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

from hueyctl.app.checkup import Check, ok, problem, warning
from hueyctl.app.doctor_work import work
from hueyctl.app.why import brief
from hueyctl.errors import StoreError, StoreMissing
from hueyctl.model.definition import Project
from hueyctl.storage.health import miscounts
from hueyctl.storage.place import Place
from hueyctl.storage.sql import SqlStore
from hueyctl.storage.stores import open_store

# Less is lost between asking for the time and getting it, and more makes runs of one machine due on another too late.
CLOCK_SLACK = timedelta(seconds=5)
# What is deleted and changed takes up space until nobody's transaction can see it any more.
LONG_TRANSACTION_S = 600.0
FEW_CONNECTIONS = 10
RESTORE = "stop the workers, and restore a copy made by pg_dump"


def store_on_server(place: Place, project: Project | None, *, full: bool, now: datetime) -> Iterator[Check]:
    """The findings about the server, the store on it, and the work in that."""
    try:
        store = open_store(place, read_only=True)
    except StoreMissing as exc:
        yield ok("store", f"{exc.message}: {exc.hint}")
        return
    except StoreError as exc:
        yield problem("store", exc.message, exc.hint or "look at the server's log")
        return
    with closing(store):
        try:
            yield from _of_server(store, place)
            if full:
                wrong = miscounts(store.database)
                for line in wrong:
                    yield problem("integrity", line, "report it as a bug; `hueyctl inspect` counts wrong")
                if not wrong:
                    yield ok("integrity", "counts are right; of the rest pg_amcheck tells")
            yield from work(store, place, project, now=now)
        except StoreError as exc:
            yield problem("store", exc.message, exc.hint or RESTORE)


def _of_server(store: SqlStore, place: Place) -> Iterator[Check]:
    from hueyctl.storage.postgres_health import server  # needs the driver, which is there where a store could be opened

    found = server(store.database)
    off = found.clock - datetime.now(UTC)
    yield ok(
        "store", f"{place.shown}: version {found.schema}, PostgreSQL {found.version}, {found.size / 2**20:.1f} MiB"
    )
    if not found.fsync:
        yield problem("server", "fsync is off: a crash may lose or damage all of it", "fsync = on in postgresql.conf")
    if not found.full_page_writes:
        yield warning(
            "server",
            "full_page_writes is off: a power cut may damage the store, unless its file system writes whole pages",
            "full_page_writes = on in postgresql.conf",
        )
    if found.max_connections - found.connections < FEW_CONNECTIONS:
        yield warning(
            "server",
            f"{found.connections} of {found.max_connections} connections are in use; each worker takes several",
            "raise max_connections, or close what isn't needed",
        )
    if found.oldest_s > LONG_TRANSACTION_S:
        yield warning(
            "server",
            f"a transaction has been open for {brief(found.oldest_s)}: what was deleted since can't be cleared up",
            "pg_stat_activity shows whose it is",
        )
    if abs(off) > CLOCK_SLACK:
        yield warning(
            "clock",
            f"the server's clock is {brief(abs(off.total_seconds()))} {'ahead' if off > timedelta() else 'behind'}",
            "set both (timedatectl): each worker goes by its own machine's, and what is due waits for that",
        )
