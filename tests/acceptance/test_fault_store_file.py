"""A store that is damaged, deleted, moved or replaced, also under those who use it: they stop, and touch nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Project, eventually

JOBS = """
    [jobs.gate]
    script = 'echo started >> marks; until [ -e go ]; do sleep 0.02; done'
    [jobs.mark]
    script = 'echo "$PARAM_NAME" >> marks'
    params = { name = "x" }
    """
SOON_S = 5.0  # for a process that finds its store gone; its heart beats every ten

Harm = Callable[[Path], object]


def _garbage(store: Path) -> None:
    store.write_bytes(b"\xffgarbage\x00" * 4096)


def _truncated(store: Path) -> None:
    os.truncate(store, 5000)


def _emptied(store: Path) -> None:
    os.truncate(store, 0)


def _scribbled(store: Path) -> None:
    """The first page is whole, and so it opens; all others aren't."""
    with store.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (store.stat().st_size - 4096))


@pytest.mark.parametrize("harm", [_garbage, _truncated, _emptied, _scribbled])
def test_a_damaged_store_is_left_byte_for_byte_and_backup_is_named(project: Project, harm: Harm) -> None:
    project.write(JOBS)
    project.enqueue("mark")
    harm(project.store)
    before = project.store.read_bytes()
    for words in (["enqueue", "mark"], ["runs"], ["events"], ["worker", "start", "--burst"]):
        refused = project.cli(*words, code=4)
        assert refused.out == ""
        assert str(project.store) in refused.err
        assert "hueyctl backup" in refused.err
    assert project.store.read_bytes() == before
    assert not Path(f"{project.store}-wal").exists() or not Path(f"{project.store}-wal").stat().st_size


def _delete(store: Path) -> None:
    store.unlink()


def _move(store: Path) -> None:
    store.rename(store.with_name("moved.db"))


def _delete_log(store: Path) -> None:
    store.with_name(store.name + "-wal").unlink()


def _replace(store: Path) -> None:
    """By an older copy, as someone does who restores a backup and forgets the workers."""
    copy = store.with_name("copy.db")
    with contextlib.closing(sqlite3.connect(store)) as source, contextlib.closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    copy.rename(store)


@pytest.mark.parametrize("harm", [_delete, _move, _delete_log, _replace])
def test_whoever_uses_a_store_that_goes_away_stops_within_seconds(project: Project, harm: Harm) -> None:
    """An idle worker, a busy one, a follower and one who waits; nothing can be enqueued, and no new store is made."""
    project.write(JOBS)
    with project.worker("-c", "1") as busy:
        run = project.enqueue("gate")
        eventually(lambda: project.lines("marks") == ["started"])
        with project.worker() as idle:
            watchers = [project.popen("events", "-f"), project.popen("wait", run)]
            eventually(lambda: len(list((project.store.parent / "bell").iterdir())) == 4, what="all four listen")
            harm(project.store)
            assert {worker.ended(SOON_S) for worker in (busy, idle)} == {4}
            for watcher in watchers:
                _, err = watcher.communicate(timeout=SOON_S)
                assert watcher.returncode == 4, err
                assert b"Traceback" not in err
    assert not project.processes()
    for worker in (busy, idle):
        assert str(project.store) in worker.log
        assert "Traceback" not in worker.log
    if harm is not _delete_log:  # then what is left is a store, if not the newest one
        refused = project.cli("enqueue", "mark", code=4)
        assert refused.out == ""
        assert "queue.db-wal" in refused.err
        assert "Traceback" not in project.cli("worker", "start", code=4).err


@pytest.mark.parametrize("harm", [_delete, _move, _delete_log, _replace])
def test_nothing_is_accepted_into_another_store_while_a_worker_uses_the_first(project: Project, harm: Harm) -> None:
    project.write(JOBS)
    with project.worker() as worker:
        project.reaches(project.enqueue("mark"), "succeeded")
        worker.signal(signal.SIGSTOP)
        harm(project.store)
        before = project.store.read_bytes() if project.store.exists() else None
        refused = project.cli("enqueue", "mark", "--json", code=4)
        assert refused.out == ""
        assert refused.error["code"] == "store-replaced"
        assert (project.store.read_bytes() if project.store.exists() else None) == before
        worker.signal(signal.SIGCONT)
        assert worker.ended(SOON_S) == 4


def test_what_had_been_accepted_is_there_when_a_moved_store_is_put_back(project: Project) -> None:
    project.write(JOBS)
    with project.worker() as worker:
        later = project.enqueue("mark", "--delay", "1h")
        run = project.enqueue("gate")
        eventually(lambda: project.lines("marks") == ["started"])
        _move(project.store)
        assert worker.ended(SOON_S) == 4
    project.store.with_name("moved.db").rename(project.store)
    (project.dir / "go").touch()
    project.burst()
    found = project.run(run)
    assert (found["state"], found["attempt"], found["losses"]) == ("succeeded", 2, 1)
    assert project.run(later)["state"] == "scheduled"


def test_a_restored_copy_is_taken_where_nothing_of_the_old_store_is_left(project: Project) -> None:
    """And refused beside the log of the old one, which SQLite would apply to it."""
    project.write(JOBS)
    run = project.enqueue("mark")
    copy = project.dir / "copy.db"
    with contextlib.closing(sqlite3.connect(project.store)) as source, contextlib.closing(sqlite3.connect(copy)) as to:
        source.backup(to)
    with project.worker() as worker:
        project.reaches(run, "succeeded")
        worker.kill()
    eventually(lambda: not project.processes())
    copy.rename(project.store)
    refused = project.cli("enqueue", "mark", code=4)
    assert "queue.db-wal" in refused.err
    assert project.cli("worker", "start", "--burst", code=4).out == ""
    for end in ("-wal", "-shm"):
        project.store.with_name(f"queue.db{end}").unlink()
    assert project.run(run)["state"] == "queued"
    project.burst()
    assert project.run(run)["state"] == "succeeded"


def test_a_network_file_system_is_refused(project: Project) -> None:
    """By what the kernel says of it: a namespace of its own shows this folder as a mount of a file server."""
    project.write(JOBS)
    namespace = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    nfs = f"2 1 0:9 / {project.dir} rw - nfs4 nas:/x rw"
    mounts = project.file("mountinfo", f"1 0 8:1 / / rw - ext4 /dev/sda rw\n{nfs}\n")
    inside = f"mount -t tmpfs none /proc && mkdir /proc/self && cp '{mounts}' /proc/self/mountinfo && exec \"$@\""

    def typed(*words: str) -> subprocess.CompletedProcess[bytes]:
        argv = [*namespace, "sh", "-c", inside, "sh", str(project.command), *words]
        return subprocess.run(argv, cwd=project.dir, env=project.env, capture_output=True, check=False)

    for words in (["enqueue", "mark"], ["worker", "start", "--burst"]):
        done = typed(*words)
        assert (done.returncode, done.stdout) == (4, b""), done
        assert b"network file system (nfs4)" in done.stderr
        assert b"HUEYCTL_STORE" in done.stderr
    assert not project.store.exists()
    done = typed("doctor", "--json")
    assert done.returncode == 1, done
    (found,) = (each for each in json.loads(done.stdout)["checks"] if each["name"] == "file-system")
    assert found["state"] == "problem"
    assert "network file system (nfs4)" in found["found"]
    assert "HUEYCTL_STORE" in found["hint"]
