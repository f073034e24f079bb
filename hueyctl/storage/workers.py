"""Workers in the store: who is there, what was asked of them, and what becomes of the runs of the dead."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal

from hueyctl.failpoints import failpoint
from hueyctl.model.event import EventType
from hueyctl.model.hook import NO_HOOKS, Hooks
from hueyctl.model.run import Run
from hueyctl.storage.database import Database
from hueyctl.storage.log import Log
from hueyctl.storage.rows import (
    RUN_COLUMNS,
    WORKER_COLUMNS,
    instant,
    micros,
    run_from,
    worker_from,
    worker_row,
)
from hueyctl.storage.store import Worker

# How long claims are synced after an unclean boot, so that a run which crashes the machine is counted.
CAREFUL_FOR: Final = timedelta(minutes=10)
# Events that a power cut has undone may have been read: their numbers are not given out again.
SEQ_JUMP: Final = 1_000_000

# A reload keeps what it knows nothing of: the count of beats, and a request that came in meanwhile.
REGISTER: Final = f"""
INSERT INTO workers ({WORKER_COLUMNS}) VALUES (?{", ?" * WORKER_COLUMNS.count(",")})
ON CONFLICT (id) DO UPDATE SET version = excluded.version, file = excluded.file, concurrency = excluded.concurrency,
    jobs = excluded.jobs, queues = excluded.queues, lease_s = excluded.lease_s
"""
NOTE: Final = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
RUNNING_OF: Final = f"SELECT {RUN_COLUMNS} FROM runs WHERE state = 'running' AND worker = ? ORDER BY n"


def register(database: Database, worker: Worker, now: datetime) -> None:
    """`Store.register`."""
    log = Log(micros(now), worker.id)
    facts = {"host": worker.host, "pid": worker.pid, "version": worker.version, "file": worker.file}
    with database.write(durable=True):
        unclean = _unclean_boot(database, now)
        known = database.one("SELECT 1 FROM workers WHERE id = ?", worker.id) is not None
        database.run(REGISTER, *worker_row(worker))
        log.other(EventType.RELOADED if known else EventType.WORKER_ONLINE, worker=worker.id, data=facts)
        log.write(database)
        if unclean:
            database.run("UPDATE events SET seq = seq + ? WHERE seq = (SELECT max(seq) FROM events)", SEQ_JUMP)


def careful_until(database: Database) -> datetime | None:
    """Until when every claim is to be durable, since the machine went down under workers; None: it didn't."""
    row = database.one("SELECT value FROM meta WHERE key = 'careful_until'")
    return instant(int(row[0])) if row else None


def beat(database: Database, worker: str, *, running: int, now: datetime) -> bool:
    """`Store.beat`."""
    with database.write(durable=False):
        sql = "UPDATE workers SET beat = beat + 1, beat_at = ?, running = ? WHERE id = ?"
        known = database.run(sql, micros(now), running, worker) > 0
        failpoint("renew.before")
    failpoint("renew.after")
    return known


def unregister(database: Database, worker: str, *, reason: str, now: datetime) -> None:
    """`Store.unregister`."""
    _take_out(database, worker, cause=reason, now=now, durable=True)


def rescue(database: Database, worker: str, *, cause: str, now: datetime, hooks: Hooks, beat: int | None) -> list[Run]:
    """`Store.rescue`."""
    return _take_out(database, worker, cause=cause, now=now, hooks=hooks, beat=beat, durable=False)


def workers(database: Database) -> list[Worker]:
    """`Store.workers`."""
    return [worker_from(row) for row in database.all(f"SELECT {WORKER_COLUMNS} FROM workers ORDER BY started_at, id")]


def ask(database: Database, worker: str, request: Literal["stop", "reload"]) -> bool:
    """`Store.ask`."""
    with database.write(durable=False):
        # A reload that comes after a stop must not take its place.
        sql = "UPDATE workers SET request = CASE request WHEN 'stop' THEN 'stop' ELSE ? END WHERE id = ?"
        database.tell(b"ask")
        return database.run(sql, request, worker) > 0


def asked(database: Database, worker: str) -> tuple[str | None, tuple[tuple[int, str], ...]]:
    """`Store.asked`."""
    sql = "SELECT n, token FROM runs WHERE state = 'running' AND worker = ? AND killing = 1 ORDER BY n"
    request = _request(database, worker)
    if request == "reload":
        with database.write(durable=False):
            request = _request(database, worker)
            # A stop stands until the worker has gone: whoever looks meanwhile is to see that it takes nothing new.
            database.run("UPDATE workers SET request = NULL WHERE id = ? AND request = 'reload'", worker)
    stops = database.all(sql, worker)
    return request, tuple((n, token) for n, token in stops)


def _request(database: Database, worker: str) -> str | None:
    row = database.one("SELECT request FROM workers WHERE id = ?", worker)
    return row[0] if row else None


def _take_out(
    database: Database,
    worker: str,
    *,
    cause: str,
    now: datetime,
    hooks: Hooks = NO_HOOKS,
    beat: int | None = None,
    durable: bool,
) -> list[Run]:
    from hueyctl.model.transition import lose
    from hueyctl.storage.hooks import follow
    from hueyctl.storage.settling import apply

    log = Log(micros(now), None, hooks)
    given_back = []
    with database.write(durable=durable):
        if beat is not None and database.one("SELECT 1 FROM workers WHERE id = ? AND beat <> ?", worker, beat):
            return []
        for row in database.all(RUNNING_OF, worker):
            run = run_from(row)
            apply(database, run, lose(run, cause, now), log)
            given_back.append(run.n)
        if database.run("DELETE FROM workers WHERE id = ?", worker):
            log.other(EventType.WORKER_OFFLINE, worker=worker, data={"reason": cause})
        log.write(database)
        follow(database, log)
        rows = [database.one(f"SELECT {RUN_COLUMNS} FROM runs WHERE n = ?", n) for n in given_back]
        failpoint("rescue.before", given_back)
    failpoint("rescue.after", given_back)
    return [run_from(row) for row in rows if row]


def _unclean_boot(database: Database, now: datetime) -> bool:
    """Compare the machine's boot with that of the last worker; workers that are left of an earlier one say that the
    machine went down under them. True, once for each boot: it did."""
    boot = database.boot()
    last = database.one("SELECT value FROM meta WHERE key = 'boot'")
    if boot is not None and (last is None or last[0] != boot):
        database.run(NOTE, "boot", boot)
        if last is not None and database.one("SELECT 1 FROM workers"):
            database.run(NOTE, "careful_until", str(micros(now + CAREFUL_FOR)))
            return True
    return False
