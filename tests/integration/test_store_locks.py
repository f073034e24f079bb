"""Locks: a holder's death is seen at once, and nothing else looks like it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hueyctl.errors import StoreReadOnly
from hueyctl.storage import locks
from hueyctl.storage.locks import clear, hold, is_free, worker_is_dead
from hueyctl.storage.place import Place

ROOT = Path(locks.__file__).parents[2]


def holder(path: Path, then: str = "sys.stdin.read()") -> subprocess.Popen[str]:
    """Another process that holds the lock, once it has said so."""
    code = f"""
import subprocess, sys
from pathlib import Path
from hueyctl.storage.locks import hold
lock = hold(Path({str(path)!r}))
print("held" if lock else "taken", flush=True)
{then}
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_held_lock_is_not_free_and_not_held_twice(tmp_path: Path) -> None:
    path = tmp_path / "w.lock"
    assert is_free(path)
    lock = hold(path)
    assert lock is not None
    assert not is_free(path)
    assert hold(path) is None
    assert path.stat().st_mode & 0o777 == 0o600
    lock.release()
    lock.release()
    assert is_free(path)
    assert not path.exists()


def test_a_lock_is_free_the_moment_its_holder_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "w.lock"
    process = holder(path)
    assert not is_free(path)
    assert hold(path) is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert path.exists()
    assert is_free(path)
    again = hold(path)
    assert again is not None
    again.release()


def test_a_stopped_holder_still_holds(tmp_path: Path) -> None:
    process = holder(tmp_path / "w.lock")
    process.send_signal(signal.SIGSTOP)
    assert not is_free(tmp_path / "w.lock")
    process.kill()
    process.communicate()


def test_a_child_of_the_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "w.lock"
    process = holder(path, "child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True); sys.stdin.read()")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        assert is_free(path)
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


def test_a_probe_does_not_see_another_probe(tmp_path: Path) -> None:
    path = tmp_path / "w.lock"
    with path.open("w") as probing:
        fcntl.flock(probing, fcntl.LOCK_SH)  # as a probe does, for a moment
        assert is_free(path)


def test_a_probe_of_the_moment_does_not_look_like_a_holder(tmp_path: Path) -> None:
    path = tmp_path / "w.lock"
    path.touch()
    probing = os.open(path, os.O_RDONLY)
    fcntl.flock(probing, fcntl.LOCK_SH)
    timer = threading.Timer(0.01, os.close, [probing])
    timer.start()
    lock = hold(path)
    timer.join()
    assert lock is not None
    lock.release()


def test_what_is_held_is_what_others_see(tmp_path: Path) -> None:
    """The release unlinks the file: whoever opened it just before must not believe in what it locked."""
    path = tmp_path / "w.lock"
    seen = {"held": 0, "not at its path": 0}
    deadline = time.monotonic() + 1

    def work() -> None:
        while time.monotonic() < deadline:
            lock = hold(path)
            if lock is not None:
                seen["held"] += 1
                try:
                    same = os.fstat(lock.fileno()).st_ino == path.stat().st_ino
                except FileNotFoundError:
                    same = False
                seen["not at its path"] += not same
                lock.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen["held"] > 0
    assert seen["not at its path"] == 0


def test_a_worker_is_dead_when_both_its_locks_are_free(tmp_path: Path) -> None:
    place = Place(tmp_path / "queue.db")
    place.prepare()
    worker, guard = hold(place.worker_lock("w1")), hold(place.guard_lock("w1"))
    assert worker is not None
    assert guard is not None
    assert not worker_is_dead(place, "w1")
    worker.release()
    assert not worker_is_dead(place, "w1")
    guard.release()
    assert worker_is_dead(place, "w1")


def test_what_the_dead_left_can_be_cleared(tmp_path: Path) -> None:
    place = Place(tmp_path / "queue.db")
    place.prepare()
    process = holder(place.worker_lock("w1"))
    process.kill()
    process.communicate()
    clear(place, "w1")
    clear(place, "w1")
    assert list(place.workers.iterdir()) == []


def test_a_lock_that_cannot_be_made_is_an_error_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(StoreReadOnly, match="can't be made"):
        hold(tmp_path / "missing" / "w.lock")
