"""What only the SQLite store promises: pragmas, commit levels, and what it makes of damaged and foreign files."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from hueyctl.errors import (
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreMissing,
    StoreNewer,
    StoreReplaced,
)
from hueyctl.model.outcome import Exited
from hueyctl.model.run import Message, NewRun, RunState
from hueyctl.model.transition import Done, Retry, Settlement
from hueyctl.storage import place, sqlite_opening
from hueyctl.storage.database import SyncFailed
from hueyctl.storage.locks import hold
from hueyctl.storage.place import Place
from hueyctl.storage.sqlite import SqliteStore, open_store
from hueyctl.storage.store import EventFilter, JobPolicy, Pause, RunFilter, Want, Worker

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WANT = Want(worker="w1", limit=10, jobs={"a": JobPolicy()})


def new(job: str = "a") -> NewRun:
    return NewRun(id=str(uuid.uuid4()), job=job, message=Message())


def worker(id: str = "w1") -> Worker:
    facts = {"host": "h", "pid": 1, "version": "1", "file": "f", "concurrency": 1, "jobs": ("a",), "lease_s": 30.0}
    return Worker(id=id, queues=None, started_at=NOW, beat_at=NOW, **facts)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".hueyctl" / "queue.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(open_store(path, create=True)) as store:
        store.register(worker(), now=NOW)
        yield store


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user can enter, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def raw(path: Path, *statements: str) -> list[tuple[object, ...]]:
    """Run statements as another program would; the rows of the last."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        rows: list[tuple[object, ...]] = []
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return rows


# -- making and opening -----------------------------------------------------------------------------------------------
def test_a_missing_store_is_made_only_where_that_was_asked_for(path: Path) -> None:
    with pytest.raises(StoreMissing) as told:
        open_store(path)
    assert told.value.hint is not None
    assert "worker start" in told.value.hint
    assert not path.parent.exists()
    open_store(path, create=True).close()
    assert path.is_file()


def test_a_store_is_for_its_owners_eyes_only(path: Path, store: SqliteStore) -> None:
    found = Place(path)
    assert {oct(entry.stat().st_mode & 0o777) for entry in (found.dir, found.workers, found.bell, found.output)} == {
        "0o700"
    }
    files = [entry for entry in found.dir.iterdir() if entry.is_file()]
    assert {entry.name for entry in files} == {"queue.db", "queue.db-wal", "queue.db-shm", ".gitignore"}
    assert {entry.stat().st_mode & 0o077 for entry in files} == {0}
    assert (found.dir / ".gitignore").read_text() == "*\n"


def test_a_folder_of_the_users_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    open_store(tmp_path / "mine.db", create=True).close()
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert not (tmp_path / ".gitignore").exists()


def test_two_stores_in_one_folder_share_no_workers(tmp_path: Path) -> None:
    one, two = Place(tmp_path / "one.db"), Place(tmp_path / "two.db")
    assert {one.workers, one.bell, one.output, one.log, one.maintenance_lock}.isdisjoint(
        {two.workers, two.bell, two.output, two.log, two.maintenance_lock}
    )


def test_many_processes_make_one_store(path: Path) -> None:
    code = f"""
        import sys, uuid
        from datetime import UTC, datetime
        from pathlib import Path
        from hueyctl.model.run import Message, NewRun
        from hueyctl.storage.sqlite import open_store
        sys.stdin.readline()
        store = open_store(Path({str(path)!r}), create=True)
        run = NewRun(id=str(uuid.uuid4()), job="a", message=Message())
        store.accept([run], by="b", now=datetime.now(UTC))
        store.close()
    """
    makers = [python(code) for _ in range(6)]
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("go\n")
        maker.stdin.flush()
    assert [maker.communicate(timeout=60)[1] for maker in makers] == [""] * 6
    with closing(open_store(path)) as store:
        assert len(store.runs(RunFilter(), limit=None)) == 6


@pytest.mark.parametrize("name", ["with space ?#%41.db", "ümläut.db", "queue.db"])
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a?b#c%20" / name
    with closing(open_store(path, create=True)) as store:
        store.accept([new()], by="b", now=NOW)
    assert path.is_file()
    with closing(open_store(path, read_only=True)) as store:
        assert len(store.runs(RunFilter(), limit=None)) == 1


def test_the_pragmas_are_in_force(store: SqliteStore) -> None:
    found = {
        name: store.database.one(f"PRAGMA {name}")
        for name in ("journal_mode", "synchronous", "wal_autocheckpoint", "user_version", "application_id")
    }
    assert found == {
        "journal_mode": ("wal",),
        "synchronous": (1,),
        "wal_autocheckpoint": (16_384,),
        "user_version": (1,),
        "application_id": (0x68756579,),
    }


def test_a_journal_mode_that_was_changed_by_hand_is_set_back(path: Path) -> None:
    open_store(path, create=True).close()
    raw(path, "PRAGMA journal_mode = DELETE")
    with closing(open_store(path)) as store:
        assert store.database.one("PRAGMA journal_mode") == ("wal",)


# -- files that are not what they should be ---------------------------------------------------------------------------
@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"SQLite format 3\x00" + b"\xff" * 4080])
def test_what_is_no_store_is_left_as_it_is(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    for create in (False, True):
        with pytest.raises(StoreDamaged) as told:
            open_store(path, create=create, migrate=create)
        assert "hueyctl backup" in (told.value.hint or "")
    assert path.read_bytes() == content


def test_the_database_of_another_program_is_left_as_it_is(path: Path) -> None:
    path.parent.mkdir()
    raw(path, "CREATE TABLE runs (x)")
    before = path.read_bytes()
    with pytest.raises(StoreDamaged, match="not a store"):
        open_store(path, create=True)
    assert path.read_bytes() == before


def test_a_truncated_store_is_damaged_and_left_as_it_is(path: Path) -> None:
    with closing(open_store(path, create=True)) as store:
        store.accept([new() for _ in range(1000)], by="b", now=NOW)
    whole = path.stat().st_size
    for size in (whole // 2, 4096, 100):
        os.truncate(path, size)
        with pytest.raises(StoreDamaged), closing(open_store(path)) as store:
            store.runs(RunFilter(), limit=None)
        assert path.stat().st_size == size


def test_a_folder_in_its_place_is_an_error(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match="not a file"):
        open_store(path, create=True)


def test_a_file_in_the_place_of_its_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        open_store(tmp_path / "file" / "queue.db", create=True)


def test_a_store_of_a_newer_version_is_refused(path: Path) -> None:
    open_store(path, create=True).close()
    raw(path, "PRAGMA user_version = 2")
    for options in ({"create": True}, {"read_only": True}, {"migrate": True}):
        with pytest.raises(StoreNewer, match="2"):
            open_store(path, **options)


def test_a_store_that_was_migrated_while_it_is_open_is_refused_at_the_next_write(
    path: Path, store: SqliteStore
) -> None:
    raw(path, "PRAGMA user_version = 2")
    for write in (
        lambda: store.accept([new()], by="b", now=NOW),
        lambda: store.exchange([], WANT, now=NOW),
        lambda: store.beat("w1", running=0, now=NOW),
    ):
        with pytest.raises(StoreNewer):
            write()


def test_an_older_store_is_migrated_only_where_that_was_asked_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_store(path, create=True)) as store:
        [accepted] = store.accept([new()], by="b", now=NOW)
    raw(path, "PRAGMA user_version = 0")
    monkeypatch.setitem(sqlite_opening.MIGRATIONS, 0, "CREATE TABLE added (x)")
    for options in ({}, {"create": True}, {"read_only": True}):
        with pytest.raises(StoreError, match="older"):
            open_store(path, **options)
    with closing(open_store(path, migrate=True)) as store:
        assert store.get(accepted.run.id) == accepted.run
        assert store.database.one("SELECT count(*) FROM added") == (0,)
    open_store(path).close()


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(path, create=True).close()
    raw(path, "PRAGMA user_version = 0")
    monkeypatch.setitem(sqlite_opening.MIGRATIONS, 0, "CREATE TABLE added (x); INSERT INTO nowhere VALUES (1)")
    with pytest.raises(StoreError):
        open_store(path, migrate=True)
    assert raw(path, "PRAGMA user_version") == [(0,)]
    assert raw(path, "SELECT 1 FROM sqlite_schema WHERE name = 'added'") == []


def test_a_store_is_not_migrated_under_a_worker_that_lives(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = hold(Place(path).worker_lock("w1"))
    assert lock is not None
    raw(path, "PRAGMA user_version = 0")
    monkeypatch.setitem(sqlite_opening.MIGRATIONS, 0, "CREATE TABLE added (x)")
    with pytest.raises(StoreError, match="w1"):
        open_store(path, migrate=True)
    lock.release()
    open_store(path, migrate=True).close()


# -- a store that changes under its user ------------------------------------------------------------------------------
def test_a_deleted_store_stops_whoever_uses_it(path: Path, store: SqliteStore) -> None:
    path.unlink()
    for use in (lambda: store.exchange([], None, now=NOW), store.changed, store.checkpoint):
        with pytest.raises(StoreReplaced, match="deleted or moved"):
            use()


def test_a_replaced_store_stops_whoever_uses_it(path: Path, tmp_path: Path, store: SqliteStore) -> None:
    open_store(tmp_path / "other.db", create=True).close()
    (tmp_path / "other.db").rename(path)
    with pytest.raises(StoreReplaced, match="replaced"):
        store.accept([new()], by="b", now=NOW)
    with pytest.raises(StoreReplaced):
        store.changed()


def test_a_deleted_log_stops_whoever_uses_the_store(path: Path, store: SqliteStore) -> None:
    path.with_name("queue.db-wal").unlink()
    with pytest.raises(StoreReplaced, match="-wal"):
        store.accept([new()], by="b", now=NOW)


def test_no_new_store_is_made_over_what_is_left_of_one(path: Path, store: SqliteStore) -> None:
    path.unlink()
    with pytest.raises(StoreReplaced, match="its log"):
        open_store(path, create=True)
    assert not path.exists()


def test_no_new_store_is_made_while_a_worker_runs_on_the_old_one(path: Path) -> None:
    open_store(path, create=True).close()
    path.unlink()
    lock = hold(Place(path).worker_lock("w1"))
    assert lock is not None
    with pytest.raises(StoreReplaced, match="w1"):
        open_store(path, create=True)
    lock.release()
    open_store(path, create=True).close()


# -- busy, full, read-only --------------------------------------------------------------------------------------------
def test_a_store_locked_for_too_long_is_busy_and_readable(path: Path, store: SqliteStore) -> None:
    with (
        closing(open_store(path, busy_s=0.1)) as waiting,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy, match="locked"):
            waiting.accept([new()], by="b", now=NOW)
        assert waiting.runs(RunFilter(), limit=None) == []
        other.execute("ROLLBACK")
        waiting.accept([new()], by="b", now=NOW)


def test_a_lock_that_is_freed_in_time_is_waited_for(path: Path, store: SqliteStore) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.3, lambda: other.execute("ROLLBACK"))
        timer.start()
        store.accept([new()], by="b", now=NOW)
        timer.join()


def test_a_full_disk_is_told_and_nothing_is_half_done(path: Path, store: SqliteStore) -> None:
    store.accept([new()], by="b", now=NOW)
    claim = store.exchange([], WANT, now=NOW).claims[0]
    last = store.last_seq()
    pages = store.database.one("PRAGMA page_count")
    assert pages is not None
    store.database.run(f"PRAGMA max_page_count = {pages[0]}")
    settlement = Settlement(
        n=claim.run.n, token=claim.token, verdict=Done(b"x" * 100_000), outcome=Exited(0), ended_at=NOW
    )
    with pytest.raises(StoreFull):
        store.accept([new() for _ in range(1000)], by="b", now=NOW)
    with pytest.raises(StoreFull):
        store.exchange([settlement], None, now=NOW)
    assert store.last_seq() == last
    assert [run.state for run in store.runs(RunFilter(), limit=None)] == [RunState.RUNNING]
    store.database.run("PRAGMA max_page_count = 1000000")
    assert store.exchange([settlement], None, now=NOW).stale == ()
    assert store.runs(RunFilter(), limit=None)[0].result == b"x" * 100_000


def test_a_file_size_limit_is_a_full_disk(path: Path) -> None:
    open_store(path, create=True).close()
    limit = path.stat().st_size + 100_000
    code = f"""
        import resource, uuid
        from datetime import UTC, datetime
        from pathlib import Path
        from hueyctl.errors import StoreFull
        from hueyctl.model.run import Message, NewRun
        from hueyctl.storage.sqlite import open_store
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        store = open_store(Path({str(path)!r}))
        accepted = 0
        try:
            while True:
                run = NewRun(id=str(uuid.uuid4()), job="a", message=Message(params={{"x": "y" * 5000}}))
                accepted += len(store.accept([run], by="b", now=datetime.now(UTC)))
        except StoreFull:
            print(accepted)
    """
    out, err = python(code).communicate(timeout=60)
    assert err == ""
    with closing(open_store(path)) as store:
        assert len(store.runs(RunFilter(), limit=None)) == int(out) > 0
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY


@pytest.mark.parametrize("log", ["no log", "a log"])
def test_a_store_in_a_folder_that_cannot_be_written_can_be_read(reachable: Path, log: str) -> None:
    """By a user that isn't root, whom permissions bind."""
    path = reachable / "store" / "queue.db"
    store = open_store(path, create=True)
    store.accept([new()], by="b", now=NOW)
    if log == "no log":
        store.close()
    code = f"""
        import os
        from datetime import UTC, datetime
        from pathlib import Path
        from hueyctl.errors import StoreReadOnly
        from hueyctl.model.run import Message, NewRun
        from hueyctl.storage.sqlite import open_store
        from hueyctl.storage.store import EventFilter, RunFilter
        os.chdir({str(reachable)!r})
        for entry in Path("store").iterdir():
            entry.chmod(0o755 if entry.is_dir() else 0o444)
        os.chmod("store", 0o555)
        if os.getuid() == 0:
            os.seteuid(65534)  # from here on permissions count; the current folder stays reachable
        path = Path("store/queue.db")
        try:
            store = open_store(path, read_only=True)
            print(len(store.runs(RunFilter(), limit=None)), len(store.events(EventFilter(), after=0, limit=9)))
            store.sync()
            store.close()
        except Exception as exc:
            print(type(exc).__name__, exc)
        try:
            store = open_store(path, create=True)
            store.accept([NewRun(id="x", job="a", message=Message())], by="b", now=datetime.now(UTC))
        except StoreReadOnly:
            print("read-only")
    """
    out, err = python(code).communicate(timeout=60)
    store.close()
    assert err == ""
    assert out.splitlines() == ["1 1", "read-only"]


# -- commit levels ----------------------------------------------------------------------------------------------------
class Levels:
    """Of each transaction that a store commits: is it on the disk (2), or only in order before the next that is (1)?"""

    def __init__(self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[int] = []
        store.database.connection.set_trace_callback(self._trace)
        module, name = (fcntl, "fcntl") if sys.platform == "darwin" else (os, "fdatasync")
        sync = getattr(module, name)

        def seen_sync(*args: object) -> object:
            self.seen[-1:] = [2]
            return sync(*args)

        monkeypatch.setattr(module, name, seen_sync)

    def _trace(self, statement: str) -> None:
        if statement == "COMMIT":
            self.seen.append(1)

    def take(self) -> list[int]:
        seen, self.seen = self.seen, []
        return seen


def test_what_users_ask_for_is_durable_and_first_claims_and_ends_are_not_synced(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = Levels(store, monkeypatch)
    [first, second] = store.accept([new(), new()], by="b", now=NOW)
    assert levels.take() == [2]
    claims = store.exchange([], WANT, now=NOW).claims
    done = Settlement(n=claims[0].run.n, token=claims[0].token, verdict=Done(), outcome=Exited(0), ended_at=NOW)
    store.exchange([done], None, now=NOW)
    store.beat("w1", running=1, now=NOW)
    assert levels.take() == [1, 1, 1]
    store.revoke([second.run.id], kill=True, by="b", now=NOW)
    store.retry([first.run.id], by="b", now=NOW)
    store.pause([Pause(kind="all", name="", note=None, by="b", at=NOW)])
    store.resume("all", "", by="b", now=NOW)
    assert levels.take() == [2, 2, 2]  # the retry was refused, and wrote nothing
    store.beat("w1", running=0, now=NOW)
    store.sync()
    assert levels.take() == [2]


def test_a_sync_that_fails_is_told_and_what_was_written_stands(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(*((fcntl, "fcntl") if sys.platform == "darwin" else (os, "fdatasync")), failing)
    with pytest.raises(SyncFailed, match="failed to sync"):
        store.accept([new()], by="b", now=NOW)
    assert len(store.runs(RunFilter(), limit=None)) == 1


def test_a_claim_after_the_first_is_on_the_disk_before_it_is_handed_out(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.accept([new()], by="b", now=NOW)
    [claim] = store.exchange([], WANT, now=NOW).claims
    again = Settlement(
        n=claim.run.n, token=claim.token, verdict=Retry(timedelta(0), 1), outcome=Exited(1), ended_at=NOW
    )
    store.accept([new()], by="b", now=NOW)
    levels = Levels(store, monkeypatch)
    exchange = store.exchange([again], WANT, now=NOW)
    assert [claim.run.attempt for claim in exchange.claims] == [2, 1]
    assert levels.take() == [1, 2]


def test_after_an_unclean_boot_claims_are_durable_for_ten_minutes_and_seq_jumps(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_store(path, create=True)) as store:
        store.register(worker(), now=NOW)
        last = store.last_seq()
    raw(path, "UPDATE meta SET value = 'another boot' WHERE key = 'boot'")
    with closing(open_store(path)) as registering, closing(open_store(path)) as store:
        registering.register(worker("w2"), now=NOW)
        assert store.last_events(EventFilter(), limit=1)[0].seq == last + 1_000_001
        levels = Levels(store, monkeypatch)
        want = Want(worker="w2", limit=1, jobs={"a": JobPolicy()})
        for minutes, level in ((0, 2), (9, 2), (10, 1)):
            store.accept([new()], by="b", now=NOW)
            levels.take()
            assert len(store.exchange([], want, now=NOW + timedelta(minutes=minutes)).claims) == 1
            assert levels.take() == [level]


def test_a_clean_boot_changes_nothing(path: Path) -> None:
    with closing(open_store(path, create=True)) as store:
        store.register(worker(), now=NOW)
        store.unregister("w1", reason="stopped", now=NOW)
        last = store.last_seq()
    raw(path, "UPDATE meta SET value = 'another boot' WHERE key = 'boot'")
    with closing(open_store(path)) as store:
        store.register(worker("w2"), now=NOW)
        assert store.last_seq() == last + 1


def test_what_was_accepted_is_there_after_kill_9(path: Path) -> None:
    open_store(path, create=True).close()
    code = f"""
        import uuid
        from datetime import UTC, datetime
        from pathlib import Path
        from hueyctl.model.run import Message, NewRun
        from hueyctl.storage.sqlite import open_store
        store = open_store(Path({str(path)!r}))
        while True:
            run = NewRun(id=str(uuid.uuid4()), job="a", message=Message())
            store.accept([run], by="b", now=datetime.now(UTC))
            print(run.id, flush=True)
    """
    process = python(code)
    assert process.stdout is not None
    accepted = [process.stdout.readline().strip() for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    accepted += [line.strip() for line in process.stdout if line.endswith("\n")]
    process.communicate()
    with closing(open_store(path)) as store:
        assert all(store.get(id) for id in accepted)
        assert store.database.one("PRAGMA integrity_check") == ("ok",)


@pytest.mark.parametrize("lost", ["nothing", "the shared memory"])
def test_what_a_killed_process_left_in_the_log_is_read_without_writing(path: Path, lost: str) -> None:
    open_store(path, create=True).close()
    code = f"""
        import os
        from datetime import UTC, datetime
        from pathlib import Path
        from hueyctl.model.run import Message, NewRun
        from hueyctl.storage.sqlite import open_store
        store = open_store(Path({str(path)!r}))
        store.accept([NewRun(id="x", job="a", message=Message())], by="b", now=datetime.now(UTC))
        os.kill(os.getpid(), 9)
    """
    python(code).communicate()
    assert path.with_name("queue.db-wal").stat().st_size > 0
    if lost == "the shared memory":
        path.with_name("queue.db-shm").unlink()
    with closing(open_store(path, read_only=True)) as store:
        assert store.get("x") is not None


def test_the_log_is_cut_by_a_checkpoint(path: Path, store: SqliteStore) -> None:
    store.accept([new() for _ in range(100)], by="b", now=NOW)
    log = path.with_name("queue.db-wal")
    assert log.stat().st_size > 0
    store.checkpoint()
    assert log.stat().st_size == 0


def test_no_read_keeps_the_log_from_being_cut(path: Path, store: SqliteStore) -> None:
    """A follower, and everyone else who has read, leaves no transaction open."""
    with closing(open_store(path, read_only=True)) as reader:
        store.accept([new() for _ in range(100)], by="b", now=NOW)
        reader.events(EventFilter(), after=0, limit=5)
        reader.next_up(limit=3)
        reader.runs(RunFilter(states=(RunState.QUEUED,)), limit=3)
        reader.lines()
        reader.stats(since=NOW, until=NOW + timedelta(days=1))
        store.checkpoint()
        assert path.with_name("queue.db-wal").stat().st_size == 0


def test_statistics_are_gathered_page_by_page_over_gaps_in_the_numbers(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.register(worker(), now=NOW)
    for gap in (0, 1, 2, 3, 4, 5, 1_000_000, 0):
        store.accept([new()], by="b", now=NOW)
        (claim,) = store.exchange([], WANT, now=NOW).claims
        done = Settlement(n=claim.run.n, token=claim.token, verdict=Done(), outcome=Exited(0), ended_at=NOW)
        store.exchange([done], None, now=NOW)
        with store.database.write(durable=False):
            store.database.run("UPDATE events SET seq = seq + ? WHERE seq = (SELECT max(seq) FROM events)", gap)
    for page in range(1, 7):
        monkeypatch.setattr("hueyctl.storage.stats.PAGE", page)
        said: list[str] = []
        with closing(open_store(path, read_only=True)) as reader:
            reader.database.connection.set_trace_callback(said.append)
            [_, total] = reader.stats(since=NOW, until=NOW + timedelta(seconds=1))
            reader.database.connection.set_trace_callback(None)
        assert total.succeeded == 8
        assert len([sql for sql in said if "INSERT INTO temp.ends" in sql]) <= 30, "gaps are not read page by page"


# -- where a store may lie --------------------------------------------------------------------------------------------
MOUNTS = r"""
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 21 0:30 / /home rw - nfs4 server:/home rw
31 30 8:2 / /home/local\040disk rw - xfs /dev/sdb rw
32 21 0:31 / /mnt/share rw shared:3 - cifs //server/share rw
33 21 0:32 / /mnt/ssh rw - fuse.sshfs me@host: rw
34 21 8:3 / /twice rw - nfs server:/x rw
35 21 8:3 / /twice rw - ext4 /dev/sdc rw
""".strip()


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("/var/lib", None),
        ("/home", "nfs4"),
        ("/home/me/.hueyctl", "nfs4"),
        ("/homeless", None),
        ("/home/local disk/x", None),
        ("/mnt/share/x", "cifs"),
        ("/mnt/ssh", "fuse.sshfs"),
        ("/twice/x", None),
    ],
)
def test_network_file_systems_are_told_from_local_ones(folder: str, found: str | None) -> None:
    assert place.network_file_system(Path(folder), mountinfo=MOUNTS) == found


def python(code: str) -> subprocess.Popen[str]:
    """Another process that runs this."""
    root = Path(place.__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


def test_what_an_application_stores_with_sqlite3_is_what_it_was() -> None:
    """The adapters that the store registers are the whole process's."""
    connection = sqlite3.connect(":memory:")
    values = (None, b"", b"\x00x", True, False, 7, "text", 1.5)
    for value in values:
        ((found, kind),) = connection.execute("SELECT ?1, typeof(?1)", (value,)).fetchall()
        assert found == value
        assert kind == {bytes: "blob", bool: "integer", int: "integer", str: "text", float: "real"}.get(
            type(value), "null"
        )
    connection.close()


def test_an_application_keeps_its_own_adapters(tmp_path: Path) -> None:
    """It may have registered one for what hueyctl would have bound faster."""
    program = """
        import sqlite3
        sqlite3.register_adapter(bool, lambda value: "yes" if value else "no")
        sqlite3.register_adapter(bytes, bytes.hex)
        import hueyctl.storage.sqlite
        print(sqlite3.connect(":memory:").execute("SELECT ?, ?, ?", (True, b"\\xff", None)).fetchall())
        """
    said = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert said.stdout == "[('yes', 'ff', None)]\n"


@pytest.mark.parametrize(("free", "pages"), [(2**40, 16_384), (24 * 2**20, 1_536), (0, 1_000)])
def test_on_a_small_disk_the_log_is_shortened_sooner(
    path: Path, monkeypatch: pytest.MonkeyPatch, free: int, pages: int
) -> None:
    """While what is new in it fits into the file beside it: filled by its own log, the disk would stay full."""
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free // 4096, f_frsize=4096))
    with closing(open_store(path, create=True)) as store:
        assert store.database.one("PRAGMA wal_autocheckpoint") == (pages,)


def test_a_worker_that_drains_asks_for_no_lock_to_hear_again_that_it_is_to_stop(path: Path) -> None:
    """It looks with each bell."""
    with closing(open_store(path, create=True, busy_s=0.0)) as store:
        store.register(worker(), now=NOW)
        store.ask("w1", "stop", by="bob", now=NOW)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert store.asked("w1") == ("stop", ())
