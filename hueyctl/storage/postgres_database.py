"""`Database` as one connection to a PostgreSQL server.

Promises:

- Whoever writes first locks the only row of the table `store`: one writes at a time, in every process of every machine.
  That makes the order of events the order of their commits, and each verb as safe as it is on SQLite. The row tells
  whether anybody has written in between, whether the store is still the one that was opened, and its version.
- When a `durable` write returns, it and everything committed before it survives a crash of the server
  (`synchronous_commit`); of others at worst the last half second is lost, from the end backwards.
- A write whose commit got no answer is looked up by its transaction's number: it happened or it didn't, and the caller
  is told which. Where that can't be found out, the error is no `StoreBusy`: nobody may try it again.
- A connection that is lost is made anew, for as long as a busy store would be waited for.
- A writer that was stopped in the middle keeps the others waiting for half a minute at most: then the server drops it.

psycopg's errors become those of `hueyctl.errors`; no message has the password.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict

from hueyctl.errors import StoreError, StoreNewer, StoreReplaced, StoreUnreachable
from hueyctl.storage.address import without_password
from hueyctl.storage.database import SCHEMA_VERSION
from hueyctl.storage.postgres_dialect import adapt, in_few, meaning, numbered
from hueyctl.storage.rows import Row

Result = TypeVar("Result")

OLDEST_SERVER: Final = 130000  # pg_xact_status and xid8
SCHEMA: Final = "hueyctl"
# A server that is there answers at once; one that isn't may not say so.
CONNECT_TIMEOUT_S: Final = 10
RECONNECT_PAUSE_S: Final = 0.1
# How long it may take until a commit that got no answer is found to have happened or not: a restart of the server.
FIND_OUT_S: Final = 30.0
# Numbers of events that a server may have lost when it crashed are not given out again.
SEQ_JUMP: Final = 1_000_000

# What libpq does about a peer that has vanished: half a minute, and not two hours.
_LINE: Final[dict[str, Any]] = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "fallback_application_name": "hueyctl",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
# Every statement has its index: by what the planner knows of a table that has just grown from nothing, it would read
# all of it. Compiling statements takes longer than running them. The server's side of keepalives is as ours.
_SETTINGS: Final = f"""
SET client_min_messages = warning; SET TimeZone = 'UTC'; SET jit = off; SET enable_seqscan = off;
SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
SET idle_in_transaction_session_timeout = '30s'; SET lock_timeout = '{{lock_timeout}}ms';
SELECT set_config('search_path', '{SCHEMA}', false)
    WHERE NOT EXISTS (SELECT 1 FROM pg_settings WHERE name = 'search_path' AND source = 'client');
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""

_LOOK: Final = "SELECT id, schema, version, writer, pg_postmaster_start_time()::text FROM store"
# Takes the turn to write: whoever waits gets the row as it is when it is let in.
_BEGIN: Final = """
BEGIN; {soon}UPDATE store SET version = version + 1, writer = '{mark}'
RETURNING version, id, schema, server, pg_postmaster_start_time()::text, pg_current_xact_id()::text
"""
_SOON: Final = "SET LOCAL synchronous_commit = off; "
# By the first that writes after the server was started, durably: it may have crashed, and the newest events may be gone
# that somebody has read.
_STARTED: Final = f"""
SET LOCAL synchronous_commit = on; UPDATE store SET server = pg_postmaster_start_time()::text;
SELECT setval('events_seq', {SEQ_JUMP} + greatest((SELECT max(seq) FROM events), (SELECT last_value FROM events_seq)))
"""
# Something in the server's log behind all that was committed: its own commit waits until that is on the disk.
_SYNC: Final = "SELECT pg_logical_emit_message(true, 'hueyctl', '')"


class PostgresDatabase:
    """One open connection to the store at an address. `origin` names this machine in what `tell` sends."""

    is_shared = True

    def __init__(self, address: str, *, busy_s: float, origin: str) -> None:
        self.shown = without_password(address)
        self.busy_s = busy_s
        self._address, self._origin = address, origin
        self._in_transaction = False
        self._changes = 0  # rows that this connection has changed
        self._foreign = 0  # counted up when somebody else is seen to have written
        self._told: set[bytes] = set()
        self._mark = ""
        self.connection = connect(address, busy_s=busy_s)
        try:
            self.id, self._version, _, self._server = self._look()
        except BaseException:
            self.connection.close()
            raise

    # -- statements -------------------------------------------------------------------------------------------------
    def all(self, sql: str, *values: Any) -> list[Row]:
        """See `Database.all`."""
        return self._patiently(lambda: self._fetched(sql, values))

    def one(self, sql: str, *values: Any) -> Row | None:
        """See `Database.one`."""
        rows = self.all(sql, *values)
        return rows[0] if rows else None

    def run(self, sql: str, *values: Any) -> int:
        """See `Database.run`."""
        count = self._execute(sql, values).rowcount
        self._changes += max(count, 0)
        return count

    def many(self, sql: str, rows: Sequence[Row]) -> int:
        """See `Database.many`."""
        if not rows:
            return 0
        count = 0
        try:
            with self.connection.cursor() as cursor:
                for statement, some in in_few(sql, rows):
                    cursor.executemany(statement, some)
                    count += cursor.rowcount
        except psycopg.Error as exc:
            raise self._meaning(exc) from exc
        self._changes += count
        return count

    # -- transactions -----------------------------------------------------------------------------------------------
    @contextmanager
    def write(self, *, durable: bool) -> Iterator[None]:
        """See `Database.write`.

        Raises:
            StoreUnreachable: the connection was lost and nothing was written.
            StoreError: it was lost, and what was to be written may have been.
        """
        transaction = self._patiently(lambda: self._begin(durable))
        before = self._changes
        try:
            yield
            if self._changes != before:
                self._commit(transaction)
            else:
                self._undo()
        except BaseException:
            self._undo()
            raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """See `Database.snapshot`."""
        self._patiently(lambda: self._plain(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        self._in_transaction = True
        try:
            yield
        finally:
            self._undo()

    def mark(self) -> tuple[int, int]:
        """See `Database.mark`."""
        return self._foreign, self._changes

    def tell(self, kind: bytes) -> None:
        """See `Database.tell`."""
        self._told.add(kind)

    def sync(self) -> None:
        """See `Database.sync`."""
        self.all(_SYNC)

    def checkpoint(self) -> None:
        """The server makes its own."""

    def data_version(self) -> int:
        """See `Database.data_version`."""
        self._saw(self._patiently(self._look)[1])
        return self._foreign

    def boot(self) -> None:
        """A run that crashes its worker's machine undoes nothing here; what a server may have lost that crashed itself
        is seen by whoever writes first."""

    def close(self) -> None:
        """See `Database.close`."""
        with suppress(psycopg.Error):
            self.connection.close()

    # -- one statement ----------------------------------------------------------------------------------------------
    def _execute(self, sql: str, values: Sequence[Any]) -> psycopg.Cursor[Row]:
        try:
            return self.connection.execute(numbered(sql), values or None)
        except psycopg.Error as exc:
            raise self._meaning(exc) from exc

    def _fetched(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        cursor = self._execute(sql, values)
        rows = cursor.fetchall()
        if not (cursor.statusmessage or "").startswith("SELECT"):
            self._changes += len(rows)
        return rows

    def _plain(self, statements: bytes) -> psycopg.Cursor[Row]:
        """Run statements without values in one go; the cursor is at the last one's answer."""
        try:
            cursor = self.connection.execute(statements, prepare=False)
            while cursor.nextset():
                pass
        except psycopg.Error as exc:
            raise self._meaning(exc) from exc
        return cursor

    def _patiently(self, what: Callable[[], Result]) -> Result:
        """What `what` returns, tried again on a new connection where the old one was lost; not in a transaction, which
        was lost with it."""
        deadline: float | None = None
        while True:
            try:
                return what()
            except StoreUnreachable:
                if self._in_transaction:
                    raise
                deadline = time.monotonic() + self.busy_s if deadline is None else deadline
                self._reconnect(deadline)

    # -- transactions, step by step ---------------------------------------------------------------------------------
    def _begin(self, durable: bool) -> str:
        """Take the turn to write; returns the number of the transaction."""
        self._told.clear()
        self._mark = os.urandom(8).hex()
        try:
            cursor = self._plain(_BEGIN.format(soon="" if durable else _SOON, mark=self._mark).encode())
            self._in_transaction = True
            found = cursor.fetchone()
            if found is None or found[1] != self.id:
                raise self._replaced()
            version, _, schema, written_by, self._server, transaction = found
            self._check(schema)
            self._saw(version - 1)
            if written_by != self._server:
                self._plain(_STARTED.encode())
                self._changes += 1
        except BaseException:
            self._undo()
            raise
        return str(transaction)

    def _commit(self, transaction: str) -> None:
        words = ",".join(sorted(kind.decode() for kind in self._told))
        tell = f"SELECT pg_notify('{channel(self.id)}', '{self._origin}:{words}'); " if words else ""
        try:
            ended = self._plain(f"{tell}COMMIT".encode()).statusmessage
        except StoreUnreachable as exc:
            self._in_transaction = False
            self._find_out(transaction, exc)
        else:
            self._in_transaction = False
            if ended != "COMMIT":
                raise StoreError(f"{self.shown}: a transaction was undone after an error that nobody had told of")
        self._version += 1

    def _undo(self) -> None:
        self._in_transaction = False
        if not self.connection.closed and self.connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            with suppress(psycopg.Error):
                self.connection.execute(b"ROLLBACK", prepare=False)

    def _find_out(self, transaction: str, lost: StoreUnreachable) -> None:
        """Return if this transaction, whose commit got no answer, was committed.

        Raises:
            StoreUnreachable: it was not.
            StoreError: nobody knows.
        """
        before = self._server, self._mark, self._version + 1
        deadline = time.monotonic() + FIND_OUT_S
        status: str | None = "in progress"
        try:
            while status == "in progress" and time.monotonic() < deadline:
                self._reconnect(deadline)
                status = self._status(transaction, *before)
                time.sleep(RECONNECT_PAUSE_S * (status == "in progress"))  # it has yet to notice that we are gone
        except StoreUnreachable:
            status = None
        if status == "aborted":
            raise lost
        if status != "committed":
            raise StoreError(
                f"{self.shown}: the connection was lost in the middle of a commit, and whether it was made isn't known",
                hint="look whether the change is there before you try it again",
            ) from lost

    def _status(self, transaction: str, server: str, mark: str, version: int) -> str | None:
        """What became of a transaction that began on `server`, with this mark, to make this version; None: unknown."""
        _, reached, last_mark, now_server = self._look()
        if last_mark == mark:
            return "committed"
        if now_server != server:
            # Its number may be another's by now: a server that crashed gives out again what it has lost.
            return "aborted" if reached < version else None
        [(status,)] = self._fetched("SELECT pg_xact_status(CAST(? AS xid8))", (transaction,))
        return None if status is None else str(status)

    # -- the store --------------------------------------------------------------------------------------------------
    def _look(self) -> tuple[str, int, str, str]:
        """The store's id, the version that it is at, the mark of the last that wrote, and when the server began."""
        try:
            [(id, schema, version, mark, server)] = self._fetched(_LOOK)
        except ValueError:
            raise self._replaced() from None
        self._check(schema)
        return id, version, mark, server

    def _saw(self, version: int) -> None:
        """The store was found at this version."""
        self._foreign += version != self._version
        self._version = version

    def _check(self, schema: int) -> None:
        if schema > SCHEMA_VERSION:
            raise StoreNewer(
                f"{self.shown} was written by a newer hueyctl (store version {schema}, known here: {SCHEMA_VERSION})",
                hint="upgrade hueyctl",
            )

    def _reconnect(self, deadline: float) -> None:
        self.close()
        while True:
            try:
                self.connection = connect(self._address, busy_s=self.busy_s)
                id, version, _, self._server = self._look()
                break
            except StoreUnreachable:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(RECONNECT_PAUSE_S)
        if id != self.id:
            raise self._replaced()
        self._version = version
        self._foreign += 1

    def _replaced(self) -> StoreReplaced:
        return StoreReplaced(
            f"{self.shown} no longer has the store that was opened: it was removed or replaced while in use",
            hint="stop everything that uses it, put the right store back, and start again",
        )

    def _meaning(self, exc: psycopg.Error) -> StoreError:
        return meaning(exc, self.shown, busy_s=self.busy_s, lost=self.connection.closed)


def connect(address: str, *, busy_s: float) -> psycopg.Connection[Row]:
    """A connection with the settings of ours, that waits for locks for `busy_s` at most.

    Raises:
        StoreUnreachable: the server isn't there, or doesn't let us in.
        StoreError: the address is wrong, or the server is too old.
    """
    shown = without_password(address)
    try:
        given = conninfo_to_dict(address)
    except psycopg.Error as exc:
        raise StoreError(
            f"{shown}: the address can't be read", hint="it is like postgresql://user@host/database"
        ) from exc
    try:
        connection = psycopg.connect(**(_LINE | given), autocommit=True, cursor_factory=psycopg.RawCursor)
    except psycopg.Error as exc:
        raise meaning(exc, shown, busy_s=busy_s, lost=True, secrets=[str(given.get("password") or "")]) from exc
    try:
        if connection.info.server_version < OLDEST_SERVER:
            found = connection.info.parameter_status("server_version")
            raise StoreError(f"{shown}: PostgreSQL {OLDEST_SERVER // 10000} or newer is needed; this is {found}")
        adapt(connection)
        settings = _SETTINGS.format(lock_timeout=max(1, round(busy_s * 1000)))
        connection.execute(settings.encode(), prepare=False)
    except psycopg.Error as exc:
        connection.close()
        raise meaning(exc, shown, busy_s=busy_s, lost=True) from exc
    except BaseException:
        connection.close()
        raise
    return connection


def channel(store: str) -> str:
    """The channel on which those who write to the store of this id tell of it."""
    return f"hueyctl_{store}"
