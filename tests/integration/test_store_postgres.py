"""What only the store on PostgreSQL promises: one writer at a time, whatever becomes of the server and of the line."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import quote

import psycopg
import pytest
from guarded import eventually
from postgres_server import PASSWORD, USER, PostgresServer

from hueyctl.errors import (
    StoreBusy,
    StoreError,
    StoreMissing,
    StoreNewer,
    StoreReadOnly,
    StoreReplaced,
    StoreUnreachable,
)
from hueyctl.model.outcome import Exited
from hueyctl.model.run import Message, NewRun
from hueyctl.model.transition import Done, Settlement
from hueyctl.storage import stats
from hueyctl.storage.database import Database
from hueyctl.storage.postgres import PostgresStore, open_store
from hueyctl.storage.store import Claim, EventFilter, JobPolicy, Pause, Want, Worker

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WANT = Want(worker="w1", limit=10, jobs={"a": JobPolicy()})
ALL = EventFilter()
JUMP = 1_000_000


def new(job: str = "a", **given: Any) -> NewRun:
    message = Message(params=given.pop("params", {}))
    return NewRun(**{"id": str(uuid.uuid4()), "job": job, "message": message, **given})


def accept(store: PostgresStore, job: str = "a", *, by: str = "alice@host", **given: Any) -> str:
    """Take one run in; its id."""
    [accepted] = store.accept([new(job, **given)], by=by, now=NOW)
    return accepted.run.id


def worker(id: str = "w1") -> Worker:
    facts = {"host": "h", "pid": 1, "version": "1", "file": "f", "concurrency": 1, "jobs": ("a",), "lease_s": 30.0}
    return Worker(id=id, queues=None, started_at=NOW, beat_at=NOW, **facts)


def claim(store: PostgresStore) -> list[Claim]:
    return list(store.exchange([], WANT, now=NOW).claims)


def sequence(store: PostgresStore) -> list[int]:
    """The numbers of all events, in the order in which they are read."""
    return [event.seq for event in store.events(ALL, after=0, limit=100_000)]


def pid(store: PostgresStore) -> int:
    """The server's process that serves the store's connection."""
    return int(store.database.connection.info.backend_pid)


def sql(address: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements as another program would; the rows of the last."""
    with psycopg.connect(address, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def as_superuser(address: str) -> str:
    return address.replace(f"{USER}@", "postgres@")


def told(error: StoreError) -> str:
    """All that a user reads of an error."""
    return f"{error.message} {error.hint}"


@pytest.fixture
def address(postgres_database: str) -> str:
    return postgres_database


@pytest.fixture
def store(address: str) -> Iterator[PostgresStore]:
    with closing(open_store(address, create=True)) as store:
        store.register(worker(), now=NOW)
        yield store


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One that these tests may stop."""
    with closing(PostgresServer()) as server:
        yield server


@pytest.fixture
def database(server: PostgresServer) -> Iterator[str]:
    """The name of a database of the test's own on `server`, which runs when the test begins and when it has ended."""
    name = server.new_database()
    yield name
    with suppress(RuntimeError):
        server.stop()
    server.start()
    server.drop_database(name)


# -- one writer at a time ---------------------------------------------------------------------------------------------
def test_a_reader_that_goes_on_from_the_last_number_misses_nothing_that_many_write(address: str) -> None:
    open_store(address, create=True).close()
    seen: list[int] = []

    def write() -> None:
        with closing(open_store(address)) as store:
            for _ in range(40):
                accept(store)

    with closing(open_store(address)) as reader, ThreadPoolExecutor() as pool:
        writers = [pool.submit(write) for _ in range(4)]
        while len(seen) < 160:
            under_way = any(not writer.done() for writer in writers)
            page = reader.events(ALL, after=seen[-1] if seen else 0, limit=500)
            seen += [event.seq for event in page]
            assert page or under_way, f"{len(seen)} of 160 events were seen"
        for writer in writers:
            writer.result()
        assert seen == sequence(reader) == list(range(1, 161))


def test_a_writer_waits_for_another_one_as_long_as_it_was_told_and_readers_do_not(
    address: str, store: PostgresStore
) -> None:
    with closing(open_store(address, busy_s=0.2)) as other:
        with store.database.write(durable=False):
            with pytest.raises(StoreBusy) as refused:
                accept(other)
            assert type(refused.value) is StoreBusy
            assert "0.2 s" in refused.value.message
            assert sequence(other) == [1]
        accept(other)


def test_a_writer_that_was_stopped_in_the_middle_is_dropped_and_writes_nothing(
    address: str, store: PostgresStore
) -> None:
    setting = "idle_in_transaction_session_timeout"
    assert store.database.one(f"SELECT current_setting('{setting}')") == ("10s",)

    def stop_in_the_middle() -> None:
        with store.database.write(durable=True):
            store.database.run("UPDATE workers SET host = 'changed'")
            store.database.all(f"SELECT set_config('{setting}', '100ms', true)")
            with closing(open_store(address)) as other:
                accept(other)  # lets the server drop the first one, or it would be refused

    with pytest.raises(StoreUnreachable):
        stop_in_the_middle()
    assert [each.host for each in store.workers()] == ["h"]
    accept(store)


def test_every_commit_waits_for_the_disk_whatever_the_users_default(address: str, store: PostgresStore) -> None:
    sql(
        as_superuser(address), f"ALTER ROLE {USER} IN DATABASE {address_database(address)} SET synchronous_commit = off"
    )
    with closing(open_store(address)) as other:
        for each in (store, other):
            for durable in (True, False):
                with each.database.write(durable=durable):
                    assert each.database.one("SELECT current_setting('synchronous_commit')") == ("on",)


def test_a_default_isolation_of_another_kind_is_not_taken(address: str, store: PostgresStore) -> None:
    name = address_database(address)
    sql(
        as_superuser(address),
        f"ALTER ROLE {USER} IN DATABASE {name} SET default_transaction_isolation = 'serializable'",
    )
    with closing(open_store(address)) as other, other.database.write(durable=True):
        assert other.database.one("SELECT current_setting('transaction_isolation')") == ("read committed",)


def address_database(address: str) -> str:
    return address.partition("@/")[2].partition("?")[0]


# -- a server that goes away ------------------------------------------------------------------------------------------
def test_a_server_that_was_restarted_between_two_verbs_is_found_again(server: PostgresServer, database: str) -> None:
    with closing(open_store(server.address(database), create=True)) as store:
        first = accept(store)
        for use in (lambda: store.get(first), lambda: accept(store), store.changed, store.sync):
            server.stop()
            server.start()
            use()
        assert len(sequence(store)) == 2


def test_a_server_that_is_down_is_waited_for(server: PostgresServer, database: str) -> None:
    with (
        closing(open_store(server.address(database), create=True, busy_s=20.0)) as store,
        ThreadPoolExecutor() as pool,
    ):
        server.stop()
        accepted = pool.submit(accept, store)
        eventually(lambda: store.database.connection.closed)
        server.start()
        run = accepted.result()
        assert store.get(run) is not None


def test_a_server_that_stays_away_is_said_to_be_unreachable_without_the_password(
    server: PostgresServer, database: str
) -> None:
    address = server.tcp_address(database)
    with closing(open_store(address, create=True, busy_s=0.2)) as store:
        server.stop()
        for use in (lambda: accept(store), store.lines, lambda: open_store(address, busy_s=0.2)):
            with pytest.raises(StoreUnreachable) as lost:
                use()
            assert f"{USER}@127.0.0.1:{server.port}/{database}" in lost.value.message
            assert lost.value.hint
            assert not any(secret in told(lost.value) for secret in (PASSWORD, quote(PASSWORD, safe="")))


def test_statistics_whose_connection_is_lost_between_two_pages_can_be_asked_for_again(
    address: str, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = stats._pages

    def lose_it(database: Database, after: int, last: int) -> Iterator[tuple[int, int]]:
        for page in pages(database, after, last):
            yield page
            sql(as_superuser(address), f"SELECT pg_terminate_backend({pid(store)}, 5000)")

    store.accept([new() for _ in range(4)], by="b", now=NOW)
    monkeypatch.setattr(stats, "PAGE", 2)
    monkeypatch.setattr(stats, "_pages", lose_it)
    with pytest.raises(StoreUnreachable, match="the connection to the store was lost in the middle"):
        store.stats(since=NOW - timedelta(hours=1), until=NOW + timedelta(hours=1))
    monkeypatch.setattr(stats, "_pages", pages)
    assert store.stats(since=NOW - timedelta(hours=1), until=NOW + timedelta(hours=1))


def test_a_connection_that_is_lost_in_the_middle_of_a_transaction_writes_nothing(
    address: str, store: PostgresStore
) -> None:
    def lose_it(*, at_commit: bool) -> None:
        with store.database.write(durable=True):
            store.database.run("UPDATE workers SET host = 'changed'")
            sql(as_superuser(address), f"SELECT pg_terminate_backend({pid(store)}, 5000)")
            if not at_commit:
                store.database.run("UPDATE workers SET host = 'changed again'")

    for at_commit in (False, True):
        with pytest.raises(StoreUnreachable):
            lose_it(at_commit=at_commit)
        assert [each.host for each in store.workers()] == ["h"]
    accept(store)


SYNC = b"S\0\0\0\4"  # the protocol's message that ends a pipeline


class Line:
    """Between a client and a server: passes on what they say, but for one COMMIT, or one end of a pipeline.

    A COMMIT is cut off before or after the server has heard it, or (`late`) when the server is yet to hear it, a second
    after. What comes at the end of a pipeline (`sync`) the server never hears, while the client hears what it says
    then. Before anybody can connect again `meanwhile` is called.
    """

    def __init__(self, server: PostgresServer, name: str) -> None:
        self._server = f"{server.folder}/.s.PGSQL.{server.port}"
        self._door = socket.create_server(("127.0.0.1", 0))
        self.address = f"postgresql://{USER}@127.0.0.1:{self._door.getsockname()[1]}/{name}?sslmode=disable"
        self.cut: Literal["before", "after", "late", "sync"] | None = None
        self.meanwhile: Callable[[], object] = lambda: None
        self._late: bytes | None = None
        self._open = True
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._open = False
        socket.create_connection(self._door.getsockname()).close()
        self._thread.join()
        self._door.close()

    def _serve(self) -> None:
        """One client at a time is all that a store is."""
        while True:
            client, _ = self._door.accept()
            if not self._open:
                client.close()
                return
            with client, socket.socket(socket.AF_UNIX) as server, suppress(ConnectionError):
                server.connect(self._server)
                back = threading.Thread(target=self._pass_back, args=(server, client))
                back.start()
                late = None
                try:
                    if self._pass_on(client, server):
                        late = self._late
                        self.meanwhile()
                finally:
                    if late is None:
                        with suppress(OSError):
                            server.shutdown(socket.SHUT_RDWR)
                        back.join()
                    else:
                        threading.Thread(target=self._deliver, args=(server.dup(), late)).start()
                        self._late = None

    def _deliver(self, server: socket.socket, late: bytes) -> None:
        time.sleep(1)  # an answer that takes its time, and not something to wait for
        with server:
            server.sendall(late)
            while server.recv(65536):
                pass

    def _pass_on(self, client: socket.socket, server: socket.socket) -> bool:
        """Until there is nothing more (False), or the cut (True)."""
        while said := client.recv(65536):
            if self.cut == "sync":
                if SYNC in said:
                    self.cut = None
                    server.sendall(said.partition(SYNC)[0])
                    return True
            elif self.cut and b"COMMIT\0" in said:
                cut, self.cut, self._deaf = self.cut, None, True
                if cut == "late":
                    self._late = said
                if cut == "after":
                    server.sendall(said)
                    self._answered.wait(10)
                return True
            server.sendall(said)
        return False

    def _pass_back(self, server: socket.socket, client: socket.socket) -> None:
        self._deaf, self._answered = False, threading.Event()
        with suppress(OSError):
            while said := server.recv(65536):
                if self._deaf:
                    self._answered.set()
                else:
                    client.sendall(said)


@pytest.fixture
def line(server: PostgresServer, database: str) -> Iterator[Line]:
    open_store(server.address(database), create=True).close()
    with closing(Line(server, database)) as line:
        yield line


def test_a_server_that_stops_in_the_middle_of_a_pipeline_is_lost_like_any_other(
    line: Line, server: PostgresServer
) -> None:
    """Its last words come before the end of the connection, which is still in the pipeline then."""
    heard = threading.Event()

    def terminate() -> None:
        address = server.address("postgres", user="postgres")
        waits = "(state, wait_event) = ('active', 'ClientRead')"
        eventually(lambda: sql(address, f"SELECT 1 FROM pg_stat_activity WHERE pid = {served} AND {waits}"))
        sql(address, f"SELECT pg_terminate_backend({served}, 5000)")
        heard.wait(10)

    def write() -> None:
        try:
            with store.database.write(durable=True):
                line.cut = "sync"
                store.database.many("UPDATE workers SET host = ?", [("changed",), ("changed again",)])
        finally:
            heard.set()

    with closing(open_store(line.address)) as store:
        store.register(worker(), now=NOW)
        served = pid(store)
        line.meanwhile = terminate
        with pytest.raises(StoreUnreachable):
            write()
        line.meanwhile = lambda: None
        assert [each.host for each in store.workers()] == ["h"]
        accept(store)


def test_a_commit_that_the_server_heard_returns_although_its_answer_was_lost(line: Line) -> None:
    with closing(open_store(line.address)) as store:
        line.cut = "after"
        run = accept(store)
        assert line.cut is None
        assert store.get(run) is not None
        accept(store)
        assert sequence(store) == [1, 2]


@pytest.mark.parametrize("crashed", [False, True])
def test_a_commit_that_is_under_way_is_waited_for(
    server: PostgresServer, database: str, line: Line, crashed: bool
) -> None:
    if crashed:
        with closing(open_store(line.address)) as store:
            accept(store)
        crash(server, database, whole=True)  # then it is the first of a new life
    with closing(open_store(line.address)) as store:
        line.cut = "late"
        run = accept(store)
        assert store.get(run) is not None


def test_what_became_of_a_commit_is_asked_again_where_the_answer_is_locked(
    server: PostgresServer, database: str, line: Line
) -> None:
    locked = threading.Event()

    def lock() -> None:
        with psycopg.connect(server.address(database)) as connection:
            connection.execute("LOCK TABLE hueyctl.alive IN ACCESS EXCLUSIVE MODE")
            locked.set()
            time.sleep(1)  # longer than the store waits for a lock

    def begin_to_lock() -> None:
        threading.Thread(target=lock).start()
        assert locked.wait(10)

    with closing(open_store(line.address, busy_s=0.2)) as store:
        line.cut, line.meanwhile = "after", begin_to_lock
        run = accept(store)
        assert store.get(run) is not None


def test_a_commit_that_the_server_did_not_hear_is_said_to_have_failed(line: Line) -> None:
    with closing(open_store(line.address)) as store:
        line.cut = "before"
        with pytest.raises(StoreUnreachable):
            accept(store)
        assert sequence(store) == []
        accept(store)
        assert len(sequence(store)) == 1


@pytest.mark.parametrize("others_wrote", [False, True])
@pytest.mark.parametrize("cut", ["before", "after"])
def test_what_became_of_a_commit_is_found_out_across_a_restart_too(
    server: PostgresServer, database: str, line: Line, cut: Literal["before", "after"], others_wrote: bool
) -> None:
    """Whoever is told that it isn't known must stop; a restart would stop a worker now and then."""

    def restart() -> None:
        server.stop()
        server.start()
        if others_wrote:
            with closing(open_store(server.address(database))) as other:
                for _ in range(3):
                    accept(other)

    with closing(open_store(line.address)) as store:
        line.cut, line.meanwhile = cut, restart
        run = new()
        if cut == "after":
            store.accept([run], by="alice@host", now=NOW)
        else:
            with pytest.raises(StoreUnreachable):
                store.accept([run], by="alice@host", now=NOW)
        assert (store.get(run.id) is not None) == (cut == "after")


# -- a server that crashes --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("whole", [True, False], ids=["server", "one-process"])
def test_the_numbers_of_events_jump_after_a_crash(server: PostgresServer, database: str, whole: bool) -> None:
    with closing(open_store(server.address(database), create=True)) as store:
        accept(store)
        for crashes in (1, 2):
            crash(server, database, whole=whole)
            accept(store)
            accept(store)
            [*_, before, first, second] = sequence(store)
            assert first - before >= JUMP
            assert (second, len(sequence(store))) == (first + 1, 1 + 2 * crashes)


def test_a_restart_in_order_is_no_crash(server: PostgresServer, database: str) -> None:
    with closing(open_store(server.address(database), create=True)) as store:
        accept(store)
        server.stop()
        server.start()
        accept(store)
        assert sequence(store)[-1] < JUMP


def test_a_crash_takes_nothing_of_what_was_committed(server: PostgresServer, database: str) -> None:
    """A worker lives on: it would hold what the server has forgotten."""
    address = server.address(database)
    # Whoever doesn't wait for it has what is committed written after so long.
    sql(as_superuser(address), "ALTER SYSTEM SET wal_writer_delay = '10s'", "SELECT pg_reload_conf()")
    with closing(open_store(address, create=True)) as store:
        store.register(worker(), now=NOW)
        accept(store)
        [taken] = claim(store)
        crash(server, database, whole=True)
        assert [each.token for each in store.running()] == [taken.token]
        assert claim(store) == []


@pytest.mark.parametrize("whole", [True, False], ids=["server", "one-process"])
@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_commit_before_a_crash_is_not_taken_for_one_that_got_its_number_since(
    server: PostgresServer, database: str, line: Line, cut: Literal["before", "after"], whole: bool
) -> None:
    def go_on() -> None:
        crash(server, database, whole=whole)
        with closing(open_store(server.address(database))) as other:
            for _ in range(5):
                accept(other)

    with closing(open_store(line.address)) as store:
        line.cut, line.meanwhile = cut, go_on
        run = new()
        if cut == "after":
            store.accept([run], by="alice@host", now=NOW)
        else:
            with pytest.raises(StoreUnreachable):
                store.accept([run], by="alice@host", now=NOW)
        assert (store.get(run.id) is not None) == (cut == "after")
        with closing(open_store(server.address(database))) as other:
            other.pause([Pause(kind="all", name="", note=None, by="alice@host", at=NOW)])
        store.register(worker(), now=NOW)
        assert claim(store) == [], "what was known before is not believed after it"


def crash(server: PostgresServer, name: str, *, whole: bool) -> None:
    """Let the server crash, or one process of it, whose death it answers by beginning anew; return when it is back."""
    if whole:
        server.stop("immediate")
        server.start()
        return
    with closing(open_store(server.address(name))) as victim:
        os.kill(pid(victim), signal.SIGKILL)

    def is_back() -> bool:
        with suppress(psycopg.Error):
            return sql(server.address(name), "SELECT count(*) FROM hueyctl.alive") == [(0,)]
        return False

    eventually(is_back)


# -- a store that is another, or none ---------------------------------------------------------------------------------
@pytest.mark.parametrize("replaced", [False, True])
def test_a_store_that_was_removed_or_replaced_while_open_is_noticed(
    address: str, store: PostgresStore, replaced: bool
) -> None:
    for _ in range(6):  # often enough for statements to be prepared
        store.lines()
        store.changed()
        store.beat("w1", running=0, now=NOW)
    sql(address, "DROP SCHEMA hueyctl CASCADE")
    if replaced:
        open_store(address, create=True).close()
    for use in (lambda: accept(store), store.changed, lambda: store.beat("w1", running=0, now=NOW)):
        with pytest.raises(StoreReplaced):
            use()


def test_a_store_of_a_newer_version_is_left_alone(address: str, store: PostgresStore) -> None:
    sql(address, "UPDATE hueyctl.store SET schema = schema + 1")
    for use in (lambda: accept(store), store.changed, lambda: open_store(address)):
        with pytest.raises(StoreNewer) as newer:
            use()
        assert newer.value.hint == "upgrade hueyctl"
    assert sql(address, "SELECT count(*) FROM hueyctl.runs") == [(0,)]


def test_a_missing_store_is_made_only_where_that_was_asked_for(address: str) -> None:
    with pytest.raises(StoreMissing) as missing:
        open_store(address)
    assert missing.value.hint is not None
    assert "worker start" in missing.value.hint
    assert sql(address, "SELECT count(*) FROM pg_namespace WHERE nspname = 'hueyctl'") == [(0,)]


def test_those_who_make_a_store_at_the_same_moment_make_one(address: str) -> None:
    together = threading.Barrier(4)

    def make() -> str:
        together.wait()
        with closing(open_store(address, create=True)) as store:
            accept(store)
            return store.database.id

    with ThreadPoolExecutor() as pool:
        ids = [made.result() for made in [pool.submit(make) for _ in range(4)]]
    assert len(set(ids)) == 1
    with closing(open_store(address)) as store:
        assert sequence(store) == [1, 2, 3, 4]


@pytest.fixture
def guest(address: str) -> Iterator[str]:
    """The address of `address` for a user who may do nothing there."""
    sql(as_superuser(address), "CREATE ROLE guest LOGIN")
    yield address.replace(f"{USER}@", "guest@")
    sql(as_superuser(address), "DROP OWNED BY guest", "DROP ROLE guest")


def test_who_may_only_read_reads_and_is_told_so_when_writing(address: str, store: PostgresStore, guest: str) -> None:
    run = accept(store)
    sql(address, "GRANT USAGE ON SCHEMA hueyctl TO guest", "GRANT SELECT ON ALL TABLES IN SCHEMA hueyctl TO guest")
    with closing(open_store(guest)) as reader:
        assert reader.get(run) is not None
        with pytest.raises(StoreReadOnly):
            accept(reader)
        assert reader.last_seq() == 2


def test_who_may_not_use_the_store_is_not_told_that_there_is_none(
    address: str, store: PostgresStore, guest: str
) -> None:
    for create in (False, True):
        with pytest.raises(StoreReadOnly, match="this user may not use the store"):
            open_store(guest, create=create)


def test_who_may_not_make_a_store_is_told_so(guest: str) -> None:
    with pytest.raises(StoreReadOnly, match="permission denied"):
        open_store(guest, create=True)


def test_an_address_that_leads_nowhere_says_why_and_keeps_the_password(postgres: PostgresServer) -> None:
    good = postgres.tcp_address("postgres")
    word = quote(PASSWORD, safe="")
    wrong = {
        good.replace("/postgres", "/nowhere"): 'database "nowhere" does not exist',
        good.replace(word, word + "x"): "password authentication failed",
        good.replace(f":{postgres.port}", ":1"): "refused",
        good.replace(f":{postgres.port}", ":port"): "port",
        good + "?sslmode=perhaps": "sslmode",
        good + "?colour=red": "can't be read",
        good.replace("127.0.0.1", "[::1"): "can't be read",
        good.replace(word, "%zz" + word): "can't be read",
    }
    for address, why in wrong.items():
        with pytest.raises(StoreError, match=re.escape(why)) as refused:
            open_store(address)
        assert refused.value.hint
        assert not any(secret in told(refused.value) for secret in (PASSWORD, word)), told(refused.value)


def test_two_stores_in_one_database_know_nothing_of_each_other(address: str, store: PostgresStore) -> None:
    with closing(open_store(f"{address}&options=-csearch_path%3Dmine", create=True)) as mine:
        run = accept(mine)
        assert store.get(run) is None
        assert (store.last_seq(), mine.last_seq()) == (1, 1)
        assert mine.database.id != store.database.id
    assert sql(address, "SELECT count(*) FROM mine.runs") == [(1,)]


# -- what is stored ---------------------------------------------------------------------------------------------------
def test_text_that_postgresql_cannot_hold_is_stored_as_far_as_it_can(store: PostgresStore) -> None:
    by = "al\0ice\ud800@host"
    params = {"nul": "a\0b", "half": "\ud83d", "much": "🐘" * 250_000}
    run = accept(store, by=by, params=params)
    found = store.get(run)
    assert found is not None
    assert found.message.params["much"] == params["much"]
    assert found.message.params["nul"] == "a\0b"
    [event] = store.events(EventFilter(run=run), after=0, limit=10)
    assert event.by == "al�ice?@host"
    store.pause([Pause(kind="queue", name="q\0", at=NOW, by=by, note="\0\udfff")])
    assert [pause.note for pause in store.pauses()] == ["�?"]


def test_a_result_comes_back_byte_by_byte(store: PostgresStore) -> None:
    result = os.urandom(1024 * 1024)
    accept(store)
    [got] = claim(store)
    settlement = Settlement(
        n=got.run.n, token=got.token, verdict=Done(result), outcome=Exited(0), ended_at=NOW, claimed=got.run
    )
    store.exchange([settlement], None, now=NOW)
    found = store.get(got.run.id)
    assert found is not None
    assert found.result == result


def test_names_are_in_the_order_of_their_bytes_whatever_the_databases_collation(
    address: str, store: PostgresStore
) -> None:
    names = ["a", "B", "_c", "ä"]
    [(sorted_by_people,)] = sql(address, f"SELECT array_agg(n ORDER BY n) FROM unnest(ARRAY{names}) AS n")
    assert sorted_by_people != sorted(names), "a collation of people's was to be tested"
    for priority, name in enumerate(names):
        accept(store, name, priority=priority % 2)
    assert [line.job for line in store.lines()] == sorted(names)
    want = Want(worker="w1", limit=10, jobs={name: JobPolicy() for name in names})
    claims = store.exchange([], want, now=NOW).claims
    assert [each.run.job for each in claims] == ["B", "ä", "a", "_c"]
