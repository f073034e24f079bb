"""`Database` as one connection to a PostgreSQL server.

Promises:

- Whoever writes first locks the only row of the table `store`: one writes at a time, in every process of every machine.
  That makes the order of events the order of their commits, and each verb as safe as it is on SQLite. The row tells
  whether anybody has written in between, whether the store is still the one that was opened, and its version.
- Every write is durable: what anybody has seen of it survives a crash of the server. (SQLite's worker dies with its
  machine and can't know better than the store. Here it lives on: of a claim or an end that the server had forgotten
  nobody would ever hear again, or it would be made twice.)
- A write whose commit got no answer is looked up by its transaction's number: it happened or it didn't, and the caller
  is told which. Where that can't be found out, the error is no `StoreBusy`: nobody may try it again.
- A connection that is lost is made anew, for as long as a busy store would be waited for.
- A writer that was stopped in the middle keeps the others waiting for ten seconds at most: then the server drops it.

psycopg's errors become those of `hueyctl.errors`; no message has the password.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from hueyctl.errors import StoreError, StoreNewer, StoreReplaced, StoreUncertain, StoreUnreachable
from hueyctl.model.address import without_password
from hueyctl.storage.database import SCHEMA_VERSION
from hueyctl.storage.inserts import in_few
from hueyctl.storage.postgres_dialect import SIZES, adapt, meaning, numbered
from hueyctl.storage.rows import Row

Result = TypeVar("Result")

OLDEST_SERVER: Final = 130000  # pg_xact_status and xid8
SCHEMA: Final = "hueyctl"
# A server that is there answers at once; one that isn't may not say so.
CONNECT_TIMEOUT_S: Final = (2, 10)
RECONNECT_PAUSE_S: Final = (0.1, 1.0)  # the first, and the longest
# How long it may take until a commit that got no answer is found to have happened or not: a restart of the server.
FIND_OUT_S: Final = 30.0
# Numbers of events that a server may have lost are not given out again.
SEQ_JUMP: Final = 1_000_000

# What libpq does about a peer that has vanished: half a minute, and not two hours.
_LINE: Final[dict[str, Any]] = {
    "target_session_attrs": "read-write",  # of several hosts, the one that isn't a standby
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
SET idle_in_transaction_session_timeout = '10s'; SET lock_timeout = '{{lock_timeout}}ms';
SELECT set_config('search_path', '{SCHEMA}', false)
    WHERE NOT EXISTS (SELECT 1 FROM pg_settings WHERE name = 'search_path' AND source = 'client');
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""

# What it warns of, a connection that was lost while another error was on its way, is in the error; without a handler
# Python would print it on stderr.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

_LOOK: Final = "SELECT id, schema, version FROM store"
# Takes the turn to write: whoever waits gets the row as it is when it is let in.
_BEGIN: Final = """
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; UPDATE store SET version = version + 1, writer = '{mark}'
RETURNING version, id, schema, word, (SELECT word FROM alive), pg_current_xact_id()::text
"""
# By the first that writes after a crash, or on a standby that was promoted: the newest events may be gone, and somebody
# may have read them.
_NEW_LIFE: Final = f"""
UPDATE store SET word = '{{word}}', before = word, left_at = version - 1;
DELETE FROM alive; INSERT INTO alive (word) VALUES ('{{word}}');
SELECT setval('events_seq', {SEQ_JUMP} + greatest((SELECT max(seq) FROM events), (SELECT last_value FROM events_seq)))
"""
_FIND_OUT: Final = "SELECT version, writer, word, before, left_at, (SELECT word FROM alive) FROM store"


class _Life(NamedTuple):
    """What a transaction found of the words by which crashes are told, and what it leaves: that of the last writer,
    that of the server (None: it has crashed), and the one made for it where those differ."""

    before: str
    found: str | None
    made: str


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
        self._mark, self._life = "", _Life("", "", "")
        self.connection = connect(address, busy_s=busy_s)
        try:
            self.id, self._version = self._look()
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
        count = self._patiently(lambda: self._execute(sql, values).rowcount)
        self._changes += max(count, 0)
        return count

    def many(self, sql: str, rows: Sequence[Row]) -> int:
        """See `Database.many`."""
        if not rows:
            return 0
        count = 0
        try:
            with self.connection.cursor() as cursor:
                for statement, some in in_few(sql, rows, SIZES):
                    cursor.executemany(numbered(statement), some)
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
            StoreUncertain: it was lost, and what was to be written may have been.
        """
        try:
            transaction = self._patiently(self._begin)
            before = self._changes
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
        """Every commit has waited for the disk."""

    def checkpoint(self) -> None:
        """The server makes its own."""

    def data_version(self) -> int:
        """See `Database.data_version`."""
        id, version = self._patiently(self._look)
        if id != self.id:
            raise self._replaced()
        self._saw(version)
        return self._foreign

    def boot(self) -> None:
        """A run that crashes its worker's machine undoes nothing here."""

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
        """What `what` returns, tried once more on a new connection where the old one was lost; not in a transaction,
        which was lost with it."""
        try:
            return what()
        except StoreUnreachable:
            if self._in_transaction:
                raise
        self._reconnect(time.monotonic() + self.busy_s)
        return what()

    # -- transactions, step by step ---------------------------------------------------------------------------------
    def _begin(self) -> str:
        """Take the turn to write; returns the number of the transaction."""
        self._told.clear()
        self._mark = os.urandom(8).hex()
        try:
            found = self._plain(_BEGIN.format(mark=self._mark).encode()).fetchone()
            self._in_transaction = True
            if found is None or found[1] != self.id:
                raise self._replaced()
            version, _, schema, last_word, word, transaction = found
            self._check(schema)
            self._saw(version - 1)
            self._life = _Life(last_word, word, word)
            if word is None or word != last_word:
                self._life = _Life(last_word, word, os.urandom(8).hex())
                self._plain(_NEW_LIFE.format(word=self._life.made).encode())
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
            self._version = -1  # whoever has written since, before us or after us, is seen as somebody else
        else:
            self._in_transaction = False
            if ended != "COMMIT":
                raise StoreError(f"{self.shown}: a transaction was undone after an error that nobody had told of")
            self._version += 1

    def _undo(self) -> None:
        self._in_transaction = False
        if self.connection.closed or self._is_idle():
            return
        with suppress(psycopg.Error):
            self.connection.execute(b"ROLLBACK", prepare=False)
        if not self._is_idle():
            self.close()  # an exception has come in the middle of an answer: nothing can be asked on it any more

    def _is_idle(self) -> bool:
        return self.connection.info.transaction_status is TransactionStatus.IDLE

    def _find_out(self, transaction: str, lost: StoreUnreachable) -> None:
        """Return if this transaction, whose commit got no answer, was committed.

        Raises:
            StoreUnreachable: it was not.
            StoreUncertain: nobody knows.
        """
        began = self._life, self._mark, self._version + 1
        deadline = time.monotonic() + FIND_OUT_S
        status: str | None = "in progress"
        while status == "in progress" and time.monotonic() < deadline:
            try:
                self._reconnect(deadline)
                status = self._status(transaction, *began)
            except (StoreReplaced, StoreNewer):
                raise
            except StoreError:
                pass  # it is away, or locked: what would be another error elsewhere says nothing of the commit
            time.sleep(RECONNECT_PAUSE_S[0] * (status == "in progress"))  # it has yet to notice that we are gone
        if status == "aborted":
            raise lost
        if status != "committed":
            raise StoreUncertain(
                f"{self.shown}: the connection was lost in the middle of a commit, and whether it was made isn't known",
                hint="look whether the change is there before you try it again",
            ) from lost

    def _status(self, transaction: str, life: _Life, mark: str, version: int) -> str | None:
        """What became of a transaction that began in this life of the server, to make this version and leave this mark;
        None: unknown."""
        [(reached, last_mark, last_word, before, left_at, now)] = self._fetched(_FIND_OUT)
        if last_mark == mark:
            return "committed"
        if now not in {life.found, life.made}:
            # It has crashed since.
            if life.found != life.made:  # and ours was to be the first after a crash: was another one?
                return "aborted" if before == life.before and last_word != life.made else None
            # What had it reached by then: nobody has written since, or one has, who noted it?
            reached_then = {before: left_at, last_word: reached}.get(life.made)
            if reached_then is None:
                return "aborted" if reached < version else None
            if reached_then < version:
                return "aborted"
            # Who made that version had our number or a greater one, and it is on the disk: ours was not given out
            # again, as it may be where a crash has taken it.
        [(status,)] = self._fetched("SELECT pg_xact_status(CAST(? AS xid8))", (transaction,))
        if status == "committed" and now is None:
            return None  # it would have left its mark, or whoever came after it another word: it is another's number
        return None if status is None else str(status)

    # -- the store --------------------------------------------------------------------------------------------------
    def _look(self) -> tuple[str, int]:
        """The store's id, and the version that it is at."""
        try:
            [(id, schema, version)] = self._fetched(_LOOK)
        except ValueError:
            raise self._replaced() from None
        self._check(schema)
        return id, version

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
        pause = RECONNECT_PAUSE_S[0]
        while True:
            try:
                self.connection = connect(self._address, busy_s=self.busy_s)
                id, version = self._look()
                break
            except StoreUnreachable:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, RECONNECT_PAUSE_S[1])
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
        if self.connection.info.transaction_status is TransactionStatus.ACTIVE:
            # It still waits for an answer that won't come: the server's last words were in the middle of a pipeline.
            self.close()
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
    except psycopg.Error:
        # Not from it, which quotes what it couldn't read.
        hint = "it is like postgresql://user@host/database"
        raise StoreError(f"{shown}: the address can't be read", hint=hint) from None
    try:
        line = _LINE | {"connect_timeout": min(max(round(busy_s), CONNECT_TIMEOUT_S[0]), CONNECT_TIMEOUT_S[1])}
        connection = psycopg.connect(**(line | given), autocommit=True, cursor_factory=psycopg.RawCursor)
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
